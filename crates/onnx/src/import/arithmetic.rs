//! Operators that take numbers one by one: activations, arithmetic, concatenation, probabilities.

use sparsevd_model::{Approximate, Dense, Op, Shape};

use super::{Importer, Value, View};
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    /// An activation, which is the same in any shape.
    pub(super) fn function<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let op = match node.0.op_type.as_str() {
            "Relu" => Op::Relu,
            "LeakyRelu" => Op::LeakyRelu {
                alpha: node.float("alpha")?.unwrap_or(0.01),
            },
            "Clip" => {
                let bound = |name: &str, i: usize, open: f32| -> Result<Option<f32>, NodeError> {
                    let given = match (node.float(name)?, constant(i).and_then(Tensor::floats)) {
                        (Some(bound), _) | (None, Some(&[bound])) => Some(bound),
                        (None, None) if node.input(i).is_none() => None,
                        _ => {
                            return Err(NodeError::unsupported(format!(
                                "a {name} that is no constant number"
                            )));
                        }
                    };
                    Ok(given.filter(|b| b.is_finite() && *b != open))
                };
                let (min, max) = (bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?);
                match (min, max) {
                    (Some(0.0), None) => Op::Relu,
                    _ => Op::Clip { min, max },
                }
            }
            "Sigmoid" => Op::Sigmoid,
            "HardSigmoid" => Op::HardSigmoid {
                alpha: node.float("alpha")?.unwrap_or(0.2),
                beta: node.float("beta")?.unwrap_or(0.5),
            },
            "HardSwish" => Op::HardSwish,
            "Tanh" => Op::Tanh,
            _ => Op::Gelu {
                approximate: match node.text("approximate")?.unwrap_or("none") {
                    "none" => Approximate::None,
                    "tanh" => Approximate::Tanh,
                    other => {
                        return Err(node
                            .invalid("a known approximation", format!("`{other}`"))
                            .into());
                    }
                },
            },
        };
        let made = self.push(node, op, &[x])?;
        Ok(View {
            dims: x.dims.clone(),
            ..made
        })
    }

    pub(super) fn dropout(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        training: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let trains = training.and_then(Tensor::ints).is_some_and(|t| t != [0]);
        if trains || node.input(2).is_some() && training.is_none() {
            return Err(NodeError::unsupported("training_mode"));
        }
        Ok(x.clone())
    }

    pub(super) fn softmax(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let rank = x.dims.len() + 1;
        let given = node
            .int("axis")?
            .unwrap_or(if self.opset < 13 { 1 } else { -1 });
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let extent = at.checked_sub(1).map(|a| x.dims[a]);
        // Before opset 13 all dimensions from the axis on counted as one.
        let elements = x.dims.iter().product::<usize>();
        if extent != Some(elements) && !(self.opset < 13 && at == 1) {
            return Err(NodeError::unsupported(format!(
                "axis {given} of {}",
                Shape(x.dims.clone())
            )));
        }
        let vector = View {
            dims: vec![elements],
            ..x.clone()
        };
        let vector = self.materialised(&vector)?;
        let made = self.push(node, Op::Softmax, &[&vector])?;
        Ok(View {
            dims: x.dims.clone(),
            ..made
        })
    }

    pub(super) fn concat(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let mut views = Vec::new();
        for input in inputs.iter().flatten() {
            match input {
                Value::Activation(view) => views.push(self.materialised(view)?),
                _ => return Err(NodeError::unsupported("constants beside computed values")),
            }
        }
        let given = node
            .int("axis")?
            .ok_or_else(|| node.invalid("an axis", "none"))?;
        let rank = views[0].shape.len() + 1;
        if axis(given, rank) != Some(1) {
            return Err(NodeError::unsupported(format!("axis {given} of {rank}")));
        }
        let views: Vec<&View> = views.iter().collect();
        self.push(node, Op::Concat, &views)
    }

    pub(super) fn arithmetic(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        match inputs {
            [Some(Value::Activation(a)), Some(Value::Activation(b))] => self.between(node, a, b),
            [Some(Value::Activation(x)), Some(Value::Constant(c))] => self.with(node, x, c, false),
            [Some(Value::Constant(c)), Some(Value::Activation(x))] => self.with(node, x, c, true),
            _ => Err(node.invalid("two inputs", inputs.len().to_string()).into()),
        }
    }

    /// Arithmetic between two computed values.
    fn between(&mut self, node: OnnxNode<'m>, a: &View, b: &View) -> Result<View, NodeError> {
        let op = match node.0.op_type.as_str() {
            "Add" => Op::Add,
            "Sub" => Op::Sub,
            "Mul" => Op::Mul,
            _ => Op::Div,
        };
        if a.dims == b.dims {
            if a.shape == b.shape {
                let made = self.push(node, op, &[a, b])?;
                return Ok(View {
                    dims: a.dims.clone(),
                    ..made
                });
            }
            let (a, b) = (self.materialised(a)?, self.materialised(b)?);
            return self.push(node, op, &[&a, &b]);
        }
        let spreads = |v: &View, map: &View| match (v.dims.as_slice(), map.dims.as_slice()) {
            (&[c, 1, 1], &[channels, _, _]) => c == channels,
            _ => false,
        };
        let commutes = matches!(op, Op::Add | Op::Mul);
        let (map, numbers) = match () {
            () if spreads(b, a) => (a, b),
            () if spreads(a, b) && commutes => (b, a),
            () => {
                return Err(NodeError::unsupported(format!(
                    "operands {} and {}",
                    Shape(a.dims.clone()),
                    Shape(b.dims.clone())
                )));
            }
        };
        let map = self.materialised(map)?;
        self.push(node, op, &[&map, numbers])
    }

    /// Arithmetic with a constant per channel: a bias of the layer before, or a normalisation without statistics.
    fn with(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        c: &Tensor,
        first: bool,
    ) -> Result<View, NodeError> {
        self.decoder.take(&node.label(), &c.dims)?;
        let values = per_channel(x, c).ok_or_else(|| {
            NodeError::unsupported(format!(
                "a {} beside {}",
                c.describe(),
                Shape(x.dims.clone())
            ))
        })?;
        if self.takes_bias(node, x, &values, first) {
            return Ok(self.add_bias(node, x, values, first));
        }
        let n = values.len();
        let (scale, shift) = match (node.0.op_type.as_str(), first) {
            ("Add", _) => (vec![1.0; n], values),
            ("Sub", false) => (vec![1.0; n], values.iter().map(|v| -v).collect()),
            ("Sub", true) => (vec![-1.0; n], values),
            ("Mul", _) => (values, vec![0.0; n]),
            ("Div", false) => (values.iter().map(|v| 1.0 / v).collect(), vec![0.0; n]),
            _ => {
                return Err(NodeError::unsupported(
                    "a constant divided by a computed value",
                ));
            }
        };
        self.affine(node, x, scale, shift)
    }

    /// Whether this node adds a bias to the product that makes `x`, which nobody else reads.
    fn takes_bias(&self, node: OnnxNode<'m>, x: &View, values: &[f32], first: bool) -> bool {
        let Some(last) = self.nodes.last().filter(|n| n.name == x.name) else {
            return false;
        };
        let alone = node.input(usize::from(first)) == Some(x.name.as_str())
            && self.readers.get(x.name.as_str()) == Some(&1);
        let product = matches!(last.op, Op::Linear { bias: None, .. });
        node.0.op_type == "Add" && product && alone && values.len() == x.shape[0]
    }

    fn add_bias(&mut self, node: OnnxNode<'m>, x: &View, values: Vec<f32>, first: bool) -> View {
        let name = node.input(usize::from(!first)).unwrap_or_default();
        let bias = self.tensor(name, Dense::new([values.len()], values));
        if let Some(last) = self.nodes.last_mut()
            && let Op::Linear { weight, .. } = &last.op
        {
            let weight = weight.clone();
            last.op.rename_tensors(weight, Some(bias));
        }
        x.clone()
    }

    /// `scale x + shift` per channel, one number standing for all.
    pub(super) fn affine(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<View, NodeError> {
        let spread = |v: Vec<f32>, n: usize| if v.len() == 1 { vec![v[0]; n] } else { v };
        // The same number for all fits any shape.
        let x = if scale.len() == 1 {
            x.clone()
        } else {
            self.materialised(x)?
        };
        let Some(&channels) = x.shape.first() else {
            return Err(NodeError::unsupported("a value without channels"));
        };
        self.decoder.take(&node.label(), &[4, channels])?;
        let mut tensor = |part: &str, values: Vec<f32>| {
            let values = spread(values, channels);
            self.tensor(
                &format!("{}.{part}", node.name()),
                Dense::new([channels], values),
            )
        };
        let op = Op::BatchNormalization {
            scale: tensor("scale", scale),
            bias: tensor("shift", shift),
            mean: tensor("mean", vec![0.0]),
            variance: tensor("variance", vec![1.0]),
            epsilon: 0.0,
        };
        let made = self.push(node, op, &[&x])?;
        Ok(View {
            dims: x.dims,
            ..made
        })
    }
}

/// A constant as one number, or as one per channel of `x`.
fn per_channel(x: &View, c: &Tensor) -> Option<Vec<f32>> {
    let values = c.floats()?;
    if let &[one] = values {
        return (c.dims.len() <= x.dims.len() + 1).then(|| vec![one]);
    }
    // Aligned at the end: the axis of channels is the first behind the batch.
    let rank = x.dims.len();
    let mut aligned = vec![1; (rank + 1).checked_sub(c.dims.len())?];
    aligned.extend(&c.dims);
    let channels = *x.dims.first()?;
    let fits = aligned[0] == 1 && aligned[1] == channels && aligned[2..].iter().all(|d| *d == 1);
    fits.then(|| values.to_vec())
}
