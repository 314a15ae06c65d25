//! Operators with weights: convolution, matrix products, normalisation.

use sparsevd_model::bind::bias_name;
use sparsevd_model::{Dense, Op, Shape, ops};

use super::importer::{Importer, Value};
use super::maps::groups;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    pub(super) fn conv<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let Some(weight) = constant(1) else {
            return Err(NodeError::unsupported("a weight that is no constant"));
        };
        let mut map = self.map_of(x)?;
        let (out, kernel) = match (map.spatial, weight.dims.as_slice()) {
            (2, &[out, _, kh, kw]) => (out, [kh, kw]),
            (1, &[out, _, kw]) => (out, [1, kw]),
            _ => {
                return Err(NodeError::unsupported(format!(
                    "filters {} over {}",
                    Shape(weight.dims.clone()),
                    Shape(x.dims.clone())
                )));
            }
        };
        map.check_kernel_shape(node, kernel)?;
        let mut window = map.window(node, kernel)?;
        // Kernels compute rows of a map at a time: a column that an operator reshapes anyway becomes a row.
        let is_reshaped = self.moves && x.input.is_none() && x.shape != map.shape;
        let as_row = is_reshaped && map.is_column_of(&window);
        if as_row {
            map.shape.swap(1, 2);
            window = window.transposed();
        }
        let groups = groups(node)?;
        let mut dense = self.dense(node, "weight", weight)?;
        if let &[out, of_group, width] = weight.dims.as_slice() {
            dense.shape = Shape::from([out, of_group, 1, width]);
        }
        if as_row {
            dense.shape.0.swap(2, 3);
        }
        let bias = self.bias(node, node.input(1), constant(2), node.input(2), out, 1.0)?;
        let weight = self.tensor(node.input(1).unwrap_or_default(), dense);
        let op = Op::Conv(ops::Conv {
            weight,
            bias,
            window,
            groups,
        });
        let x = self.in_shape(x, &map.shape)?;
        let made = self.push(node, op, &[&x])?;
        self.note_int8(&x, node.input(1), 0);
        Ok(match as_row {
            true => map.column_in_file(made),
            false => map.in_file(made),
        })
    }

    pub(super) fn gemm<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        if node.int("transA")?.unwrap_or(0) != 0 {
            return Err(NodeError::unsupported("transA"));
        }
        let Some(weight) = constant(1) else {
            return Err(NodeError::unsupported(
                "a second factor that is no constant",
            ));
        };
        let (alpha, beta) = (
            node.float("alpha")?.unwrap_or(1.0),
            node.float("beta")?.unwrap_or(1.0),
        );
        let transposed = node.int("transB")?.unwrap_or(0) != 0;
        let mut weight = self.matrix(node, weight, transposed)?;
        if alpha != 1.0 {
            weight.values.iter_mut().for_each(|v| *v *= alpha);
        }
        let out = weight.shape.dims()[0];
        let bias = self.bias(node, node.input(1), constant(2), node.input(2), out, beta)?;
        if x.dims.len() + self.batch_axes != 2 {
            return Err(NodeError::unsupported(format!(
                "a first factor {}, which is not a matrix",
                Shape(x.dims.clone())
            )));
        }
        let name = node.input(1).unwrap_or_default();
        let made = self.linear(node, x, weight, name, bias)?;
        if alpha == 1.0 {
            self.note_int8(x, node.input(1), usize::from(!transposed));
        }
        Ok(made)
    }

    pub(super) fn matmul<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let Some(weight) = constant(1) else {
            return Err(NodeError::unsupported(
                "a second factor that is no constant",
            ));
        };
        let name = node.input(1).unwrap_or_default();
        if let &[inn] = weight.dims.as_slice() {
            let weight = Dense {
                shape: Shape::from([1, inn]),
                ..self.dense(node, "weight", weight)?
            };
            let made = self.linear(node, x, weight, name, None)?;
            let dims = made.dims[..made.dims.len() - 1].to_vec();
            return Ok(made.reshaped(dims));
        }
        let weight = self.matrix(node, weight, false)?;
        let made = self.linear(node, x, weight, name, None)?;
        self.note_int8(x, node.input(1), 1);
        Ok(made)
    }

    /// The product of the vectors along the last dimension of a value and a weight `[out, in]`, which the file has under that name.
    pub(super) fn linear(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        mut weight: Dense,
        name: &str,
        bias: Option<String>,
    ) -> Result<View, NodeError> {
        let inn = weight.shape.dims()[1];
        let Some((_, rows)) = x.dims.split_last() else {
            return Err(NodeError::unsupported("a product of a single number"));
        };
        if rows.iter().any(|d| *d != 1) {
            let vectors = match x.shape.last() {
                Some(last) if *last == inn && x.order.is_none() => x.clone(),
                _ => self.in_shape(x, &x.dims)?,
            };
            // A weight that the file transposes for this product keeps its name.
            let name = self.transposed.get(name).copied().unwrap_or(name);
            let weight = self.tensor(name, weight);
            let op = Op::Linear(ops::Linear { weight, bias });
            let made = self.push(node, op, &[&vectors])?;
            let mut dims = x.dims.clone();
            if let (Some(last), Some(out)) = (dims.last_mut(), made.shape.last()) {
                *last = *out;
            }
            return Ok(made.reshaped(dims));
        }
        let vector = self.flat(x)?;
        if x.order.is_some() && inn == x.elements() {
            // Columns in the order that the network has the elements in.
            let rows = weight.values.chunks(inn);
            weight.values = rows
                .flat_map(|row| x.in_network_order(row.to_vec()))
                .collect();
        }
        let weight = self.tensor(name, weight);
        let made = self.push(node, Op::Linear(ops::Linear { weight, bias }), &[&vector])?;
        let mut dims = x.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = made.shape[0];
        }
        Ok(made.reshaped(dims))
    }

    /// Takes `factor` times a constant as the bias of `out` units.
    fn bias(
        &mut self,
        node: OnnxNode<'m>,
        weight: Option<&str>,
        tensor: Option<&Tensor>,
        name: Option<&str>,
        out: usize,
        factor: f32,
    ) -> Result<Option<String>, NodeError> {
        let Some(tensor) = tensor else {
            return match name {
                None => Ok(None),
                Some(_) => Err(NodeError::unsupported("a bias that is no constant")),
            };
        };
        let mut values = self.dense(node, "bias", tensor)?.values;
        let row = tensor.dims.iter().rev().skip(1).all(|d| *d == 1);
        match values.as_slice() {
            &[one] => values = vec![one; out],
            many if many.len() == out && row => {}
            _ => {
                return Err(node
                    .invalid(format!("a bias of {out} numbers"), tensor.describe())
                    .into());
            }
        }
        values.iter_mut().for_each(|v| *v *= factor);
        let name = name.map_or_else(|| bias_name(weight.unwrap_or_default()), str::to_owned);
        Ok(Some(self.tensor(&name, Dense::new([out], values))))
    }

    pub(super) fn batch_normalization<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        if node.int("training_mode")?.unwrap_or(0) != 0 {
            return Err(NodeError::unsupported("training_mode"));
        }
        if node.int("spatial")?.unwrap_or(1) != 1 {
            return Err(NodeError::unsupported("statistics per pixel"));
        }
        // Channels are the first axis of a sample, in any shape.
        let channels = x.dims.get(1 - self.batch_axes).copied();
        let is_first = (x.dims.iter().take(1 - self.batch_axes)).all(|d| *d == 1);
        let laid_out;
        let x = if x.order.is_none() && is_first && channels == x.shape.first().copied() {
            x
        } else {
            let shape = match (self.batch_axes, x.dims.as_slice()) {
                (1, &[n]) | (0, &[1, n]) => vec![n],
                _ => self.map_of(x)?.shape,
            };
            laid_out = self.in_shape(x, &shape)?.reshaped(x.dims.clone());
            &laid_out
        };
        let mut names = Vec::new();
        for i in 1..=4 {
            let Some(tensor) = constant(i) else {
                return Err(NodeError::unsupported("statistics that are no constants"));
            };
            let tensor = self.dense(node, "statistics", tensor)?;
            names.push(self.tensor(node.input(i).unwrap_or_default(), tensor));
        }
        let Ok([scale, bias, mean, variance]) = <[String; 4]>::try_from(names) else {
            return Err(node.invalid("four tensors", "others").into());
        };
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        let op = Op::BatchNormalization(ops::BatchNormalization {
            scale,
            bias,
            mean,
            variance,
            epsilon,
        });
        self.map(node, x, op)
    }

    /// A batch normalisation by operators of the network, where a number of it is computed.
    pub(super) fn batch_normalization_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        if node.int("training_mode")?.unwrap_or(0) != 0 {
            return Err(NodeError::unsupported("training_mode"));
        }
        if node.int("spatial")?.unwrap_or(1) != 1 {
            return Err(NodeError::unsupported("statistics per pixel"));
        }
        let channels = x.dims.get(1).copied().filter(|_| self.batch_axes == 0);
        let mut numbers = Vec::new();
        for input in inputs.iter().skip(1) {
            match (input, channels) {
                (Some(Value::Activation(v)), Some(channels)) if v.dims == [channels] => {
                    let mut dims = vec![1; x.dims.len() - 1];
                    dims[0] = channels;
                    numbers.push(v.reshaped(dims));
                }
                _ => return Err(NodeError::unsupported("some computed statistics of others")),
            }
        }
        let [scale, bias, mean, variance] = numbers.as_slice() else {
            return Err(node.invalid("four statistics", "others").into());
        };
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        let shifted = self.affine(node, variance, vec![1.0], vec![epsilon])?;
        let root = self.map(node, &shifted, Op::Sqrt)?;
        let factor = self.between(node, Op::Div, scale, &root)?;
        let difference = self.between(node, Op::Sub, x, mean)?;
        let scaled = self.between(node, Op::Mul, &difference, &factor)?;
        self.between(node, Op::Add, &scaled, bias)
    }

    /// A constant as a weight `[out, in]`.
    fn matrix(&self, node: OnnxNode<'m>, t: &Tensor, transposed: bool) -> Result<Dense, NodeError> {
        let &[rows, cols] = t.dims.as_slice() else {
            return Err(NodeError::unsupported(format!(
                "a factor {}, which is no matrix",
                Shape(t.dims.clone())
            )));
        };
        let weight = self.dense(node, "weight", t)?;
        if transposed {
            return Ok(weight);
        }
        let values = (0..cols)
            .flat_map(|c| (0..rows).map(move |r| (r, c)))
            .map(|(r, c)| weight.values[r * cols + c])
            .collect();
        Ok(Dense::new([cols, rows], values))
    }
}
