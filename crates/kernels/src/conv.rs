//! Direct sparse convolution over tiles of sixteen samples, without im2col.
//!
//! A line is one pixel of sixteen samples. A weight at (input channel, ky, kx) multiplies one input line for each output line, at a fixed offset:
//! the loop is that of [`crate::spmm`], with offsets in place of columns (Park et al., "Faster CNNs with direct sparse convolutions and guided
//! pruning", 2017). An input without padding is read in place; others are copied into a padded map first. In small maps, rows of the output at the border
//! have filters of their own, without the rows of the kernel that see padding alone.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::cost::Costs;
use crate::isa::{kernel_name, multiversion};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::precision::Precision;
use crate::sell::{self, Entry, LineStrides, Sell};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, length, select, tiles};

/// A sparse convolution over [`crate::Layout::Tiled`], packed for one input size.
#[derive(Debug, Clone)]
pub struct SparseConv {
    isa: Isa,
    input: [usize; 3],
    output: [usize; 3],
    /// Height and width of an input map with its padding.
    size: [usize; 2],
    /// Rows of padding above a map and columns on its left; `None` where there is no padding on any side.
    before: Option<[usize; 2]>,
    strides: LineStrides,
    parts: Vec<Part>,
}

/// The filters of one group for some rows of the output.
#[derive(Debug, Clone)]
struct Part {
    filters: FilterGroup,
    /// Floats of the padded input before what the first of these rows reads.
    x: usize,
    /// Number of these rows.
    strips: usize,
}

/// The packed filters of one group.
#[derive(Debug, Clone)]
pub(crate) struct FilterGroup {
    pub sell: Sell,
    /// Floats of the output before that of the group.
    pub y: usize,
}

impl SparseConv {
    /// Packs filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows) for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When `shape`, `weight`, `bias`, `window`, `groups` and `input` contradict each other.
    #[track_caller]
    pub fn pack(
        isa: Isa,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
    ) -> Self {
        Self::pack_channels(isa, weight, shape, bias, window, groups, input, 0..shape[0])
    }

    /// As [`SparseConv::pack`] for a range of output channels, so that threads can split a convolution: a run writes only these channels. `bias` is
    /// that of all channels.
    ///
    /// # Panics
    /// As [`SparseConv::pack`], or when `channels` is out of range.
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        isa: Isa,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
        channels: Range<usize>,
    ) -> Self {
        let [oh, ow] = check_conv(shape, window, groups, input);
        let [out, per_group, kh, kw] = shape;
        assert_eq!(weight.rows(), out, "rows of the weight");
        assert_eq!(weight.cols(), per_group * kh * kw, "columns of the weight");
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        let bias = bias_or_zero(bias, out);
        // Of all channels, so that the sums of a channel are added in the same order in any part.
        let per_channel = weight.nonzeros() as f64 / (out * per_group).max(1) as f64;
        let [_, h, w] = input;
        let [top, left, bottom, right] = window.pads;
        let size = [h + top + bottom, w + left + right];
        let ([sy, sx], [dy, dx]) = (window.strides, window.dilations);
        let (map, pitch) = (size[0] * size[1] * LANES, oh * ow * LANES);
        let reach = |d: usize| window.dilations[d] * (window.kernel_shape[d] - 1) + 1;
        let columns = sx.saturating_mul(3).saturating_add(reach(1));
        let touched = columns.saturating_mul(reach(0) * LANES);
        let per_block = select::conv_block(touched, per_channel);
        let x_strip = sy * size[1] * LANES;
        let rows_and_taps = rows_and_taps(window, h, oh);
        let both =
            |group: (usize, Range<usize>)| rows_and_taps.iter().map(move |r| (group.clone(), r));
        let parts = filters_of_groups(out, groups, &channels)
            .flat_map(both)
            .map(|((g, rows), (output_rows, taps))| {
                let bases: Vec<usize> = (0..per_group.div_ceil(per_block).max(1))
                    .map(|b| (g * per_group + b * per_block) * map)
                    .collect();
                let entry = |(&k, &weight): (&u32, &f32)| {
                    let k = k as usize;
                    let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    Entry {
                        block: ic / per_block,
                        offset: ic % per_block * map + (ky * dy * size[1] + kx * dx) * LANES,
                        weight,
                    }
                };
                let sees = |k: &u32| taps.contains(&(*k as usize / kw % kh));
                let entries: Vec<Vec<Entry>> = rows
                    .clone()
                    .map(|row| {
                        let (columns, values) = weight.row(row);
                        let weights = columns.iter().zip(values).filter(|(k, _)| sees(k));
                        weights.map(entry).collect()
                    })
                    .collect();
                let y = (rows.start - channels.start) * pitch + output_rows.start * ow * LANES;
                Part {
                    filters: FilterGroup {
                        y,
                        sell: Sell::pack(&entries, &bias[rows], &bases, pitch, 4, Precision::F32),
                    },
                    x: output_rows.start * x_strip,
                    strips: output_rows.len(),
                }
            })
            .collect();
        Self {
            isa,
            input,
            output: [channels.len(), oh, ow],
            size,
            before: (window.pads != [0; 4]).then_some([top, left]),
            strides: LineStrides {
                lines: ow,
                x_line: sx * LANES,
                y_line: LANES,
                strips: oh,
                x_strip,
                y_strip: ow * LANES,
                narrow: false,
            },
            parts,
        }
    }

    /// Floats of scratch that [`SparseConv::run`] needs, for any count; zero without padding.
    pub fn scratch_len(&self) -> usize {
        let [c, ..] = self.input;
        let [height, width] = self.size;
        self.before.map_or(0, |_| c * height * width * LANES)
    }

    /// `y = clamp(W * x + b)` over `count` tiles: `x` is `[count][c][h][w][16]`, `y` `[count][channels][oh][ow][16]`. `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`SparseConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], count: usize, scratch: &mut [f32], clamp: Clamp) {
        // Neither product wraps (`check_conv`).
        let x_len = self.input.iter().product::<usize>() * LANES;
        let y_len = self.output.iter().product::<usize>() * LANES;
        length::check("x", x.len(), [count, x_len]);
        length::check("y", y.len(), [count, y_len]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let copied = &mut scratch[..self.scratch_len()];
        if y_len == 0 {
            return;
        }
        let [_, h, w] = self.input;
        for (n, y) in y.chunks_exact_mut(y_len).enumerate() {
            let mut x = &x[n * x_len..(n + 1) * x_len];
            if let Some(before) = self.before {
                pad(self.isa, x, copied, [h, w], self.size, before);
                x = copied;
            }
            for Part {
                filters,
                x: before,
                strips,
            } in &self.parts
            {
                let (x, y) = (
                    x.as_ptr().wrapping_add(*before),
                    y[filters.y..].as_mut_ptr(),
                );
                let strides = LineStrides {
                    strips: *strips,
                    ..self.strides
                };
                // SAFETY: an offset is that of an element of a filter, so that from any output pixel it stays inside one padded input, which is `x`,
                // whose length was checked, or the scratch. Rows are output channels, of each of which the part has `strips * lines` lines of the output map.
                unsafe { sell::run(self.isa, &filters.sell, x, y, strides, clamp.bounds()) };
            }
        }
    }

    /// Packed output channels, output height and width.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        kernel_name!(self.isa.level(), "sell4-conv-f32-4x16")
    }

    /// Bytes of packed weights, offsets, row positions and biases.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.filters.sell.bytes()).sum()
    }
}

/// Rows of an output of `oh` by the rows of the kernel that see a map of `h` rows, from the top: at a border some see padding alone. All rows with the whole
/// kernel where that would save few products, or take many times the weights.
fn rows_and_taps(window: &Window, h: usize, oh: usize) -> Vec<(Range<usize>, Range<usize>)> {
    /// Share of the products that must be saved.
    const WORTH: f64 = 1.0 / 16.0;
    /// How many times the weights may be packed.
    const MOST: usize = 3;
    let (kh, top) = (window.kernel_shape[0], window.pads[0]);
    let (stride, dilation) = (window.strides[0], window.dilations[0]);
    let taps = |row: usize| {
        let place = |tap: &usize| row * stride + tap * dilation;
        let before = |end: usize| (0..kh).take_while(|tap| place(tap) < end).count();
        before(top)..before(top + h)
    };
    let (mut ranges, mut seen, mut packed) = (Vec::<(Range<usize>, Range<usize>)>::new(), 0, 0);
    for row in 0..oh {
        let of_row = taps(row);
        seen += of_row.len();
        match ranges.last_mut() {
            Some((rows, taps)) if *taps == of_row => rows.end += 1,
            _ => {
                packed += of_row.len();
                ranges.push((row..row + 1, of_row));
            }
        }
    }
    if seen as f64 > (1.0 - WORTH) * (oh * kh) as f64 || packed > MOST * kh {
        return vec![(0..oh, 0..kh)];
    }
    ranges
}

/// The groups that have filters in `channels`, each with the range of these.
pub(crate) fn filters_of_groups(
    out: usize,
    groups: usize,
    channels: &Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let each = out / groups;
    // Without filters there is nothing to look for in the groups.
    (0..groups.min(out))
        .map(move |g| {
            (
                g,
                (g * each).max(channels.start)..((g + 1) * each).min(channels.end),
            )
        })
        .filter(|(_, filters)| !filters.is_empty())
}

/// Output height and width of a convolution. No product of the dimensions of its padded input, or of those of its output, wraps, not even with
/// sixteen lanes.
///
/// # Panics
/// When its parameters contradict each other, or no slice can hold its input or its output.
#[track_caller]
pub(crate) fn check_conv(
    shape: [usize; 4],
    window: &Window,
    groups: usize,
    input: [usize; 3],
) -> [usize; 2] {
    let [out, per_group, kh, kw] = shape;
    assert_eq!(window.kernel_shape, [kh, kw], "kernel_shape of the window");
    assert!(
        groups > 0 && out.is_multiple_of(groups),
        "{out} output channels in {groups} groups"
    );
    assert_eq!(
        per_group.checked_mul(groups),
        Some(input[0]),
        "input channels"
    );
    let [oh, ow] = window
        .output(input[1], input[2])
        .unwrap_or_else(|| panic!("{window:?} does not fit {input:?}"));
    // `Window::output` has added up these sides.
    let [top, left, bottom, right] = window.pads;
    let padded = [input[1] + top + bottom, input[2] + left + right];
    length::planned("x", [input[0], padded[0], padded[1], LANES]);
    length::planned("y", [out, oh, ow, LANES]);
    [oh, ow]
}

multiversion!(fn pad(x: &[f32], to: &mut [f32], from_size: [usize; 2], size: [usize; 2], before: [usize; 2]) = pad_body;);

/// Copies tiled maps into maps padded with zeros.
#[inline(always)]
fn pad_body(
    x: &[f32],
    to: &mut [f32],
    [h, w]: [usize; 2],
    [height, width]: [usize; 2],
    before: [usize; 2],
) {
    if h * w == 0 {
        to.fill(0.0);
        return;
    }
    for (x, to) in x
        .chunks_exact(h * w * LANES)
        .zip(to.chunks_exact_mut(height * width * LANES))
    {
        let (mut x, mut to) = (x, to);
        let mut zeros;
        (zeros, to) = to.split_at_mut((before[0] * width + before[1]) * LANES);
        zeros.fill(0.0);
        for row in 0..h {
            let (from, to_row);
            (from, x) = x.split_at(w * LANES);
            (to_row, to) = to.split_at_mut(w * LANES);
            to_row.copy_from_slice(from);
            let gap = if row + 1 < h {
                (width - w) * LANES
            } else {
                to.len()
            };
            (zeros, to) = to.split_at_mut(gap);
            zeros.fill(0.0);
        }
    }
}

impl PackedKernel for SparseConv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            n,
            scratch,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, tiles(n), scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.sparse_conv(costs.conv, LANES)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_at_a_border_have_fewer_taps() {
        let of = |kernel, stride, pad, h| {
            let window = Window {
                pads: [pad; 4],
                ..Window::square(kernel, stride)
            };
            let [oh, _] = window.output(h, h).unwrap();
            rows_and_taps(&window, h, oh)
        };
        assert_eq!(of(3, 1, 1, 2), [(0..1, 1..3), (1..2, 0..2)]);
        assert_eq!(of(3, 1, 1, 4), [(0..1, 1..3), (1..3, 0..3), (3..4, 0..2)]);
        assert_eq!(of(3, 2, 1, 8), [(0..1, 1..3), (1..4, 0..3)]);
        // Outputs of padding alone.
        assert_eq!(of(1, 1, 1, 1), [(0..1, 1..1), (1..2, 0..1), (2..3, 0..0)]);
        // Few products would be saved, or weights would be packed five times.
        assert_eq!(of(3, 1, 1, 28), [(0..28, 0..3)]);
        assert_eq!(of(1, 1, 0, 4), [(0..4, 0..1)]);
        assert_eq!(of(7, 1, 3, 7), [(0..7, 0..7)]);
    }
}
