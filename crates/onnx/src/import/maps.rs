//! Feature maps and windows over them; operators over maps without weights: pooling and borders.

use sparsevd_model::{Op, Shape, Window, ops};

use super::importer::Importer;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::constants::resolve;
use crate::node_error::{Invalid, NodeError};
use crate::tensor::Tensor;

/// A feature map, and how many of its dimensions behind the channels the file has.
pub(super) struct Map {
    /// Channels, height and width.
    pub shape: Vec<usize>,
    /// 2, or 1 where the height is left out.
    pub spatial: usize,
    /// Whether the file has one sample as a dimension of its own.
    has_sample: bool,
}

impl<'m> Importer<'m> {
    /// The feature map `[channels, height, width]` that a value is, or `[channels, width]` of height 1.
    pub(super) fn map_of(&self, x: &View) -> Result<Map, NodeError> {
        let dims = match (self.batch_axes, x.dims.as_slice()) {
            (0, [1, dims @ ..]) => dims,
            (0, _) => &[],
            (_, dims) => dims,
        };
        let (shape, spatial) = match *dims {
            [c, h, w] => (vec![c, h, w], 2),
            [c, w] => (vec![c, 1, w], 1),
            _ => {
                return Err(NodeError::unsupported(format!(
                    "an input {}, which is not a feature map",
                    Shape(x.dims.clone())
                )));
            }
        };
        Ok(Map {
            shape,
            spatial,
            has_sample: self.batch_axes == 0,
        })
    }
}

impl Map {
    /// A map that was made of this one, in as many dimensions.
    pub fn in_file(&self, made: View) -> View {
        let dims = self.dims_in_file(made.shape.clone());
        made.reshaped(dims)
    }

    /// Channels, height and width in the dimensions that the file has.
    pub fn dims_in_file(&self, mut dims: Vec<usize>) -> Vec<usize> {
        if self.spatial == 1 {
            dims.remove(1);
        }
        if self.has_sample {
            dims.insert(0, 1);
        }
        dims
    }

    /// Whether the map is a column, and the window moves along it alone.
    pub fn is_column_of(&self, window: &Window) -> bool {
        let [_, left, _, right] = window.pads;
        let is_column = self.spatial == 2 && self.shape[2] == 1;
        is_column && window.kernel_shape[1] == 1 && [left, right] == [0; 2]
    }

    /// As [`Map::in_file`], of a row that the file has as a column.
    pub fn column_in_file(&self, made: View) -> View {
        let mut view = self.in_file(made);
        let last = view.dims.len() - 1;
        view.dims.swap(last - 1, last);
        view
    }

    /// Sizes down and right.
    pub fn sizes(
        &self,
        node: OnnxNode<'_>,
        name: &str,
        default: [usize; 2],
    ) -> Result<[usize; 2], NodeError> {
        if self.spatial == 2 {
            return Ok(node.sizes(name, default)?);
        }
        let [right] = node.sizes(name, [default[1]])?;
        Ok([default[0], right])
    }

    /// Checks that a `kernel_shape`, where a node has one, is that of its weight.
    pub fn check_kernel_shape(
        &self,
        node: OnnxNode<'_>,
        kernel: [usize; 2],
    ) -> Result<(), NodeError> {
        let kernel_shape = self.sizes(node, "kernel_shape", kernel)?;
        if kernel_shape == kernel {
            return Ok(());
        }
        let expected = format!("kernel_shape {kernel:?} of its weight");
        Err(node.invalid(expected, format!("{kernel_shape:?}")).into())
    }

    pub fn pads(&self, node: OnnxNode<'_>) -> Result<[usize; 4], NodeError> {
        if self.spatial == 2 {
            return Ok(node.sizes("pads", [0; 4])?);
        }
        let [left, right] = node.sizes("pads", [0; 2])?;
        Ok([0, left, 0, right])
    }

    /// The window of a convolution or pooling over the map.
    pub fn window(
        &self,
        node: OnnxNode<'_>,
        kernel_shape: [usize; 2],
    ) -> Result<Window, NodeError> {
        let (height, width) = (self.shape[1], self.shape[2]);
        let mut window = Window {
            kernel_shape,
            strides: self.sizes(node, "strides", [1, 1])?,
            pads: [0; 4],
            dilations: self.sizes(node, "dilations", [1, 1])?,
        };
        if window.strides.contains(&0) || window.dilations.contains(&0) || kernel_shape.contains(&0)
        {
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
                window.pads = self.pads(node)?;
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
}

impl<'m> Importer<'m> {
    pub(super) fn pool(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let is_max = node.0.op_type == "MaxPool";
        let map = self.map_of(x)?;
        if node.ints("kernel_shape")?.is_none() {
            return Err(node.invalid("a kernel_shape", "none").into());
        }
        let kernel_shape = map.sizes(node, "kernel_shape", [1, 1])?;
        let mut window = map.window(node, kernel_shape)?;
        let counts = !is_max && node.int("count_include_pad")?.unwrap_or(0) != 0;
        let mut x = self.in_shape(x, &map.shape)?;
        if counts && window.pads != [0; 4] {
            // A border of zeros counts like any pixels.
            let pads = std::mem::take(&mut window.pads);
            let name = self.free_name(&format!("{}.pad", node.name()));
            x = self.push_named(name, Op::Pad(ops::Pad { pads, value: 0.0 }), &[&x])?;
        }
        if node.int("ceil_mode")?.unwrap_or(0) != 0 {
            let before = window.pads;
            extend(&mut window, &x.shape).ok_or_else(|| oversized(node, &window))?;
            if counts && window.pads != before {
                return Err(NodeError::unsupported("ceil_mode with count_include_pad"));
            }
        }
        let op = if is_max {
            Op::MaxPool(ops::MaxPool { window })
        } else {
            Op::AveragePool(ops::AveragePool { window })
        };
        let made = self.push(node, op, &[&x])?;
        Ok(match is_max {
            true => map.in_file(x.picked(made)),
            false => map.in_file(made),
        })
    }

    pub(super) fn global_pool(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let map = self.map_of(x)?;
        let x = self.in_shape(x, &map.shape)?;
        let is_max = node.0.op_type == "GlobalMaxPool";
        let op = if is_max {
            let window = Window {
                kernel_shape: [map.shape[1], map.shape[2]],
                ..Window::square(1, 1)
            };
            Op::MaxPool(ops::MaxPool { window })
        } else {
            Op::GlobalAveragePool
        };
        let made = self.push(node, op, &[&x])?;
        Ok(match is_max {
            true => map.in_file(x.picked(made)),
            false => map.in_file(made),
        })
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
        let rank = x.dims.len() + self.batch_axes;
        let over: Vec<usize> = match constant(3) {
            Some(axes) => resolve(node, &ints(axes)?, rank)?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * over.len() {
            return Err(node
                .invalid(format!("{} pads", 2 * over.len()), format!("{pads:?}"))
                .into());
        }
        let refused = || NodeError::unsupported(format!("pads {pads:?} of {:?}", x.dims));
        let mut border = vec![[0_usize; 2]; rank];
        for (i, &axis) in over.iter().enumerate() {
            for (side, &pad) in [pads[i], pads[i + over.len()]].iter().enumerate() {
                border[axis][side] = usize::try_from(pad).map_err(|_| refused())?;
            }
        }
        if border.iter().all(|b| *b == [0; 2]) {
            return Ok(x.clone());
        }
        let (batch, border) = border.split_at(self.batch_axes);
        if batch.iter().any(|b| *b != [0; 2]) {
            return Err(refused());
        }
        // Channels may be last in the file.
        let axes = x.axes(&node.label(), self.decoder)?;
        if let (Some(_), Some(axes), &[_, _, _]) = (&x.order, axes, x.shape.as_slice()) {
            let mut own = [[0; 2]; 3];
            for (&axis, pads) in axes.iter().zip(border) {
                own[axis] = *pads;
            }
            let [[0, 0], [top, bottom], [left, right]] = own else {
                return Err(refused());
            };
            let pads = [top, left, bottom, right];
            let made = self.push(node, Op::Pad(ops::Pad { pads, value }), &[x])?;
            return Ok(made.transposed(&node.label(), &axes, self.decoder)?);
        }
        let map = self.map_of(x).map_err(|_| refused())?;
        let (before, spatial) = border.split_at(border.len() - map.spatial);
        if before.iter().any(|b| *b != [0; 2]) {
            if let (&[_, _, [0, 0]], Some(_)) = (border, x.input) {
                // An input with its channels last, whose Transpose comes later.
                let first = x.transposed(&node.label(), &[2, 0, 1], self.decoder)?;
                if let Err(NodeError::Layout(input, layout)) = self.in_shape(&first, &first.dims) {
                    return Err(NodeError::Layout(input, layout));
                }
            }
            return Err(refused());
        }
        let [top, bottom] = if map.spatial == 2 { spatial[0] } else { [0; 2] };
        let [left, right] = spatial[map.spatial - 1];
        let pads = [top, left, bottom, right];
        let x = self.in_shape(x, &map.shape)?;
        let made = self.push(node, Op::Pad(ops::Pad { pads, value }), &[&x])?;
        Ok(map.in_file(made))
    }
}

/// Groups of a convolution, at least one.
pub(super) fn groups(node: OnnxNode<'_>) -> Result<usize, Invalid> {
    let given = node.int("group")?.unwrap_or(1);
    let groups = usize::try_from(given).ok().filter(|g| *g > 0);
    groups.ok_or_else(|| node.invalid("a number of groups", given.to_string()))
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

/// Padding at the end under which rounding down gives as many outputs as rounding up did.
///
/// A window that would begin in that padding is left out, as in PyTorch and ONNX.
/// `None` where a size cannot be counted.
fn extend(window: &mut Window, shape: &[usize]) -> Option<()> {
    for d in 0..2 {
        let size = shape[d + 1].checked_add(window.pads[d])?;
        let padded = size.checked_add(window.pads[d + 2])?;
        let reach = window.dilations[d]
            .checked_mul(window.kernel_shape[d] - 1)?
            .checked_add(1)?;
        let stride = window.strides[d];
        let Some(slack) = padded.checked_sub(reach) else {
            continue;
        };
        let mut last = slack.div_ceil(stride);
        if last.checked_mul(stride)? >= size {
            last = last.checked_sub(1)?;
        }
        let covered = last.checked_mul(stride)?.checked_add(reach)?;
        window.pads[d + 2] += covered.saturating_sub(padded);
    }
    Some(())
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
            extend(&mut window, &[1, size, size]).unwrap();
            assert_eq!(
                window.output(size, size),
                Some([outputs; 2]),
                "{size} pixels, kernel {kernel}, stride {stride}, pad {pad}"
            );
        }
    }
}
