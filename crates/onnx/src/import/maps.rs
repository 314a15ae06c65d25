//! Operators over feature maps without weights: pooling, means, borders.

use sparsevd_model::{Op, Shape, Window};

use super::{Importer, View, layers};
use crate::attributes::OnnxNode;
use crate::constants::{axes, resolve};
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    pub(super) fn pool(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let is_max = node.0.op_type == "MaxPool";
        if node.ints("kernel_shape")?.is_none_or(|k| k.len() != 2) {
            return Err(NodeError::unsupported(
                "a kernel_shape that is not of two dimensions",
            ));
        }
        let mut window = layers::window(node, node.sizes("kernel_shape", [1, 1])?, x)?;
        let counts = !is_max && node.int("count_include_pad")?.unwrap_or(0) != 0;
        let mut x = self.materialised(x)?;
        if counts && window.pads != [0; 4] {
            // A border of zeros counts like any pixels.
            let pads = std::mem::take(&mut window.pads);
            let name = self.free_name(&format!("{}.pad", node.name()));
            x = self.push_named(name, Op::Pad { pads, value: 0.0 }, &[&x])?;
        }
        if node.int("ceil_mode")?.unwrap_or(0) != 0 {
            let before = window.pads;
            extend(&mut window, &x.shape);
            if counts && window.pads != before {
                return Err(NodeError::unsupported("ceil_mode with count_include_pad"));
            }
        }
        let op = if is_max {
            Op::MaxPool { window }
        } else {
            Op::AveragePool { window }
        };
        self.push(node, op, &[&x])
    }

    pub(super) fn global_pool(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let x = self.materialised(x)?;
        let &[_, height, width] = x.shape.as_slice() else {
            return Err(NodeError::unsupported(format!(
                "an input {}, which is no feature map",
                Shape(x.shape)
            )));
        };
        let op = if node.0.op_type == "GlobalMaxPool" {
            let window = Window {
                kernel_shape: [height, width],
                ..Window::square(1, 1)
            };
            Op::MaxPool { window }
        } else {
            Op::GlobalAveragePool
        };
        self.push(node, op, &[&x])
    }

    /// The mean over all pixels, which a global pooling is.
    pub(super) fn reduce_mean(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        input: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let x = self.materialised(x)?;
        let over = axes(node, input)?.unwrap_or_default();
        let mut over = resolve(node, &over, x.shape.len() + 1)?;
        over.sort_unstable();
        if x.shape.len() != 3 || over != [2, 3] {
            return Err(NodeError::unsupported(format!(
                "a mean over axes {over:?} of {}",
                Shape(x.shape)
            )));
        }
        let mean = self.push(node, Op::GlobalAveragePool, &[&x])?;
        let dims = match node.int("keepdims")?.unwrap_or(1) {
            0 => mean.shape[..1].to_vec(),
            _ => mean.shape.clone(),
        };
        Ok(View { dims, ..mean })
    }

    pub(super) fn pad<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        match node.text("mode")?.unwrap_or("constant") {
            "constant" => {}
            other => return Err(NodeError::unsupported(format!("mode `{other}`"))),
        }
        let ints = |t: &Tensor| {
            t.ints()
                .ok_or_else(|| node.invalid("integers", t.describe()))
        };
        let pads = match (node.ints("pads")?, constant(1)) {
            (Some(pads), _) => pads.to_vec(),
            (None, Some(pads)) => ints(pads)?,
            (None, None) => return Err(NodeError::unsupported("pads that are no constants")),
        };
        let value = match (node.float("value")?, constant(2).and_then(Tensor::floats)) {
            (Some(value), _) => value,
            (None, Some(&[value])) => value,
            (None, None) if node.input(2).is_none() => 0.0,
            _ => return Err(NodeError::unsupported("a value that is no constant number")),
        };
        let x = self.materialised(x)?;
        let rank = x.shape.len() + 1;
        let over: Vec<usize> = match constant(3) {
            Some(axes) => resolve(node, &ints(axes)?, rank)?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * over.len() {
            return Err(node
                .invalid(format!("{} pads", 2 * over.len()), format!("{pads:?}"))
                .into());
        }
        let mut border = [0; 4];
        for (i, &axis) in over.iter().enumerate() {
            for (side, &pad) in [pads[i], pads[i + over.len()]].iter().enumerate() {
                match (usize::try_from(pad), axis) {
                    (Ok(0), _) => {}
                    (Ok(pad), 2 | 3) if rank == 4 => border[axis - 2 + 2 * side] = pad,
                    _ => return Err(NodeError::unsupported(format!("pads {pads:?}"))),
                }
            }
        }
        if border == [0; 4] {
            return Ok(x);
        }
        self.push(
            node,
            Op::Pad {
                pads: border,
                value,
            },
            &[&x],
        )
    }
}

/// Padding at the end under which rounding down gives as many outputs as rounding up did.
///
/// A window that would begin in that padding is left out, as in PyTorch and ONNX.
fn extend(window: &mut Window, shape: &[usize]) {
    for d in 0..2 {
        let size = shape[d + 1] + window.pads[d];
        let padded = size + window.pads[d + 2];
        let reach = window.dilations[d] * (window.kernel_shape[d] - 1) + 1;
        let stride = window.strides[d];
        let Some(room) = padded.checked_sub(reach) else {
            continue;
        };
        let mut last = room.div_ceil(stride);
        if last * stride >= size {
            last -= 1;
        }
        window.pads[d + 2] += (last * stride + reach).saturating_sub(padded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_up_is_padding_at_the_end() {
        for (size, kernel, stride, pad, outputs) in [
            (6, 3, 2, 0, 3),
            (7, 3, 2, 0, 3),
            (5, 2, 2, 0, 3),
            (4, 1, 3, 0, 2),
            (4, 2, 2, 1, 3),
            (5, 2, 3, 1, 2),
        ] {
            let mut window = Window {
                pads: [pad; 4],
                ..Window::square(kernel, stride)
            };
            extend(&mut window, &[1, size, size]);
            assert_eq!(
                window.output(size, size),
                Some([outputs; 2]),
                "{size} pixels, kernel {kernel}, stride {stride}, pad {pad}"
            );
        }
    }
}
