//! Operators with weights: convolution, matrix products, normalisation.

use sparsevd_model::bind::bias_name;
use sparsevd_model::{Dense, Op, Shape, Window};

use super::{Importer, View};
use crate::attributes::OnnxNode;
use crate::node_error::{Invalid, NodeError};
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
        let &[out, _, kh, kw] = weight.dims.as_slice() else {
            return Err(NodeError::unsupported(format!(
                "filters {}, not of two dimensions",
                Shape(weight.dims.clone())
            )));
        };
        let kernel_shape = node.sizes("kernel_shape", [kh, kw])?;
        if kernel_shape != [kh, kw] {
            return Err(node
                .invalid(
                    format!("kernel_shape [{kh}, {kw}] of its weight"),
                    format!("{kernel_shape:?}"),
                )
                .into());
        }
        let window = window(node, kernel_shape, x)?;
        let [groups] = node.int("group")?.map_or(Ok([1]), |g| {
            usize::try_from(g)
                .map(|g| [g])
                .map_err(|_| node.invalid("a number of groups", g.to_string()))
        })?;
        let dense = self.dense(node, "weight", weight)?;
        let bias = self.bias(node, node.input(1), constant(2), node.input(2), out, 1.0)?;
        let weight = self.tensor(node.input(1).unwrap_or_default(), dense);
        let op = Op::Conv {
            weight,
            bias,
            window,
            groups,
        };
        let x = self.materialised(x)?;
        self.push(node, op, &[&x])
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
        self.linear(node, x, weight, bias)
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
        let weight = self.matrix(node, weight, false)?;
        self.linear(node, x, weight, None)
    }

    fn linear(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        weight: Dense,
        bias: Option<String>,
    ) -> Result<View, NodeError> {
        let x = self.materialised(x)?;
        if x.shape.len() != 1 {
            return Err(NodeError::unsupported(format!(
                "a product over the last dimension of {}",
                Shape(x.shape)
            )));
        }
        let weight = self.tensor(node.input(1).unwrap_or_default(), weight);
        self.push(node, Op::Linear { weight, bias }, &[&x])
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
        let x = self.materialised(x)?;
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
        let op = Op::BatchNormalization {
            scale,
            bias,
            mean,
            variance,
            epsilon,
        };
        self.push(node, op, &[&x])
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

/// The window of a convolution or pooling over a map.
pub(super) fn window(
    node: OnnxNode<'_>,
    kernel_shape: [usize; 2],
    x: &View,
) -> Result<Window, NodeError> {
    let &[_, height, width] = x.dims.as_slice() else {
        return Err(NodeError::unsupported(format!(
            "an input {}, which is no feature map",
            Shape(x.dims.clone())
        )));
    };
    let mut window = Window {
        kernel_shape,
        strides: node.sizes("strides", [1, 1])?,
        pads: [0; 4],
        dilations: node.sizes("dilations", [1, 1])?,
    };
    if window.strides.contains(&0) || window.dilations.contains(&0) || kernel_shape.contains(&0) {
        return Err(node
            .invalid(
                "a kernel, strides and dilations of at least 1",
                format!("{window:?}"),
            )
            .into());
    }
    match node.text("auto_pad")?.unwrap_or("NOTSET") {
        "NOTSET" | "" => {
            if node.ints("pads")?.is_some_and(|p| p.iter().any(|v| *v < 0)) {
                return Err(NodeError::unsupported("negative pads"));
            }
            window.pads = node.sizes("pads", [0; 4])?;
        }
        "VALID" => {}
        same @ ("SAME_UPPER" | "SAME_LOWER") => {
            for (d, size) in [height, width].into_iter().enumerate() {
                let (before, after) = same_pads(&window, d, size, same == "SAME_LOWER")
                    .ok_or_else(|| oversized(node, &window))?;
                window.pads[d] = before;
                window.pads[d + 2] = after;
            }
        }
        other => {
            return Err(node
                .invalid("a known auto_pad", format!("`{other}`"))
                .into());
        }
    }
    Ok(window)
}

fn oversized(node: OnnxNode<'_>, window: &Window) -> Invalid {
    node.invalid("a window that can be counted", format!("{window:?}"))
}

/// Padding before and after so that each stride has an output.
fn same_pads(window: &Window, d: usize, size: usize, lower: bool) -> Option<(usize, usize)> {
    let reach = window.dilations[d]
        .checked_mul(window.kernel_shape[d] - 1)?
        .checked_add(1)?;
    let outputs = size.div_ceil(window.strides[d]);
    let covered = (outputs.checked_sub(1)?)
        .checked_mul(window.strides[d])?
        .checked_add(reach)?;
    let total = covered.saturating_sub(size);
    let small = total / 2;
    Some(if lower {
        (total - small, small)
    } else {
        (small, total - small)
    })
}
