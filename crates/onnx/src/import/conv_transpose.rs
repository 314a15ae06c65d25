//! Transposed convolutions, which become convolutions without strides: pixels of the output that are a stride apart read the same taps, so each
//! of them is a channel of its own, and the channels are put where their pixels are.

use sparsevd_model::{Dense, Op, Shape, Window, ops};

use super::importer::Importer;
use super::maps::{Map, groups};
use super::view::View;
use crate::attributes::OnnxNode;
use crate::node_error::{Invalid, NodeError};
use crate::tensor::Tensor;

/// One direction of a transposed convolution.
#[derive(Debug, Clone, Copy)]
struct Direction {
    /// Taps of the filter, and how far apart they are.
    taps: usize,
    dilation: usize,
    stride: usize,
    /// Pixels of the output, and how many of the whole are before them.
    output: usize,
    before: usize,
    /// Taps for each pixel of the output.
    each: usize,
}

impl Direction {
    /// The tap of the filter that tap `tap` of the convolution is for pixels of the output `phase` behind a multiple of the stride.
    fn tap(&self, phase: usize, tap: usize) -> Option<usize> {
        let place = phase + self.stride * (self.each - 1 - tap);
        let tap = place / self.dilation;
        (place.is_multiple_of(self.dilation) && tap < self.taps).then_some(tap)
    }
}

impl<'m> Importer<'m> {
    pub(super) fn conv_transpose<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let Some(weight) = constant(1) else {
            return Err(NodeError::unsupported("a weight that is no constant"));
        };
        let map = self.map_of(x)?;
        let groups = groups(node)?;
        let (inputs, of_group, taps) = match (map.spatial, weight.dims.as_slice()) {
            (2, &[inputs, of_group, kh, kw]) => (inputs, of_group, [kh, kw]),
            (1, &[inputs, of_group, kw]) => (inputs, of_group, [1, kw]),
            _ => (0, 0, [0; 2]),
        };
        let fits = inputs == map.shape[0] && inputs.is_multiple_of(groups);
        if !fits || taps.contains(&0) || of_group == 0 {
            return Err(NodeError::unsupported(format!(
                "filters {} of {groups} group(s) over {}",
                Shape(weight.dims.clone()),
                Shape(x.dims.clone())
            )));
        }
        map.check_kernel_shape(node, taps)?;
        let directions = directions(node, &map, taps)?;
        let outputs = of_group
            .checked_mul(groups)
            .ok_or_else(|| node.invalid("channels that can be counted", "more"))?;
        let [down, right] = directions;
        let phases = (down.stride.checked_mul(right.stride))
            .ok_or_else(|| node.invalid("strides that can be counted", "more"))?;
        let shape = [outputs, phases, inputs / groups, down.each, right.each];
        self.decoder.take(&node.label(), &shape)?;
        let filters = self.dense(node, "weight", weight)?.values;
        let mut values = Vec::new();
        for output in 0..outputs {
            for phase in 0..phases {
                for input in 0..inputs / groups {
                    let input = output / of_group * (inputs / groups) + input;
                    let filter = (input * of_group + output % of_group) * taps[0] * taps[1];
                    for (i, j) in (0..down.each).flat_map(|i| (0..right.each).map(move |j| (i, j)))
                    {
                        let at = down
                            .tap(phase / right.stride, i)
                            .zip(right.tap(phase % right.stride, j));
                        values.push(at.map_or(0.0, |(i, j)| filters[filter + i * taps[1] + j]));
                    }
                }
            }
        }
        let filters = [outputs * phases, inputs / groups, down.each, right.each];
        let name = node.input(1).unwrap_or_default();
        let weight = self.tensor(name, Dense::new(filters, values));
        let bias = match (node.input(2), constant(2)) {
            (None, _) => None,
            (Some(name), Some(bias)) if bias.data.len() == outputs => {
                let bias = self.dense(node, "bias", bias)?.values;
                let each = bias.iter().flat_map(|b| vec![*b; phases]).collect();
                Some(self.tensor(name, Dense::new([outputs * phases], each)))
            }
            _ => {
                return Err(NodeError::unsupported(
                    "a bias that is not one constant per channel",
                ));
            }
        };
        let [top, left] = directions.map(|d| d.each - 1);
        let window = Window {
            pads: [top, left, top, left],
            ..Window {
                kernel_shape: [down.each, right.each],
                ..Window::square(1, 1)
            }
        };
        let op = Op::Conv(ops::Conv {
            weight,
            bias,
            window,
            groups,
        });
        let x = self.in_shape(x, &map.shape)?;
        let name = self.free_name(&format!("{}.phases", node.name()));
        let made = self.push_named(name, op, &[&x])?;
        let [_, rows, columns] = made.shape[..] else {
            return Err(NodeError::unsupported("an output that is no feature map"));
        };
        let split = vec![outputs, down.stride, right.stride, rows, columns];
        let spread =
            made.reshaped(split)
                .transposed(&node.label(), &[0, 3, 1, 4, 2], self.decoder)?;
        let mut y = spread.reshaped(vec![outputs, rows * down.stride, columns * right.stride]);
        for (axis, d) in [(1, down), (2, right)] {
            y = self.part(node, &y, axis, [d.before, d.before + d.output])?;
        }
        let dims = y.dims.clone();
        Ok(View {
            dims: map.dims_in_file(dims),
            ..y
        })
    }
}

/// Both directions, down and right.
fn directions(
    node: OnnxNode<'_>,
    map: &Map,
    taps: [usize; 2],
) -> Result<[Direction; 2], NodeError> {
    let (strides, dilations) = (
        map.sizes(node, "strides", [1, 1])?,
        map.sizes(node, "dilations", [1, 1])?,
    );
    let more = map.sizes(node, "output_padding", [0, 0])?;
    let asked = match node.ints("output_shape")? {
        Some(_) => Some(map.sizes(node, "output_shape", [1, 1])?),
        None => None,
    };
    let pads = match node.text("auto_pad")?.unwrap_or("NOTSET") {
        "NOTSET" | "" => Some(map.pads(node)?),
        "VALID" => Some([0; 4]),
        "SAME_UPPER" | "SAME_LOWER" => None,
        other => {
            return Err(node
                .invalid("a known auto_pad", format!("`{other}`"))
                .into());
        }
    };
    let upper = node.text("auto_pad")? == Some("SAME_UPPER");
    let wrong = || {
        let got = format!(
            "a map {}, taps {taps:?}, strides {strides:?}, dilations {dilations:?}, pads {pads:?}, output_padding {more:?}, output_shape {asked:?}",
            Shape(map.shape.clone())
        );
        node.invalid(
            "an output of at least one pixel within what the taps reach",
            got,
        )
    };
    let direction = |d: usize| -> Result<Direction, Invalid> {
        let (input, stride, dilation) = (map.shape[1 + d], strides[d], dilations[d]);
        if stride == 0 || dilation == 0 || input == 0 || more[d] >= stride.max(dilation) {
            return Err(wrong());
        }
        let reach = (taps[d] - 1)
            .checked_mul(dilation)
            .and_then(|r| r.checked_add(1 + more[d]));
        let whole = (input - 1)
            .checked_mul(stride)
            .zip(reach)
            .and_then(|(a, b)| a.checked_add(b));
        let (Some(reach), Some(whole)) = (reach, whole) else {
            return Err(wrong());
        };
        let wanted = match (asked, pads) {
            (Some(asked), _) => Some(asked[d]),
            (None, None) => Some(input.checked_mul(stride).ok_or_else(wrong)?),
            (None, Some(_)) => None,
        };
        // What is left out is divided between both sides, or said.
        let [before, after] = match (wanted, pads) {
            (None, Some(pads)) => [pads[d], pads[d + 2]],
            (Some(wanted), _) => {
                let out = whole.checked_sub(wanted).ok_or_else(wrong)?;
                let half = out / 2;
                if upper {
                    [half, out - half]
                } else {
                    [out - half, half]
                }
            }
            (None, None) => return Err(wrong()),
        };
        let left_out = before.checked_add(after).ok_or_else(wrong)?;
        Ok(Direction {
            taps: taps[d],
            dilation,
            stride,
            output: whole
                .checked_sub(left_out)
                .filter(|n| *n > 0)
                .ok_or_else(wrong)?,
            before,
            each: reach.div_ceil(stride),
        })
    };
    Ok([direction(0)?, direction(1)?])
}
