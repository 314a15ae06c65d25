//! Direct sparse convolution over tiles of sixteen samples, without im2col.
//!
//! A line is one pixel of sixteen samples. A weight at (input channel, ky, kx) multiplies one line for each line of outputs, at a fixed
//! offset: the loop is that of [`crate::spmm`], with offsets in place of columns (Park et al., "Faster CNNs with direct sparse
//! convolutions and guided pruning", 2017). The input is used as it lies, or copied once into a padded map.

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::cost::Costs;
use crate::isa::{kernel_name, multiversion};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::sell::{self, Entry, Sell, Walk};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, select, tiles};

/// A sparse filter bank packed for one input size, over [`crate::Layout::Tiled`].
#[derive(Debug, Clone)]
pub struct SparseConv {
    isa: Isa,
    input: [usize; 3],
    output: [usize; 3],
    /// Height and width of maps with their padding.
    size: [usize; 2],
    /// Rows and columns of padding before a map, where there is any.
    before: Option<[usize; 2]>,
    walk: Walk,
    parts: Vec<Part>,
}

/// A group of channels.
#[derive(Debug, Clone)]
struct Part {
    sell: Sell,
    /// Floats before its outputs.
    y: usize,
}

impl SparseConv {
    /// Packs filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows) for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When the shapes, the groups, the window and the bias do not fit together.
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

    /// Packs only some output channels, so that threads may share one convolution: each writes its own channels of an output.
    /// `bias` is that of all channels.
    ///
    /// # Panics
    /// As [`SparseConv::pack`], or when the channels do not exist.
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
        let nonzeros: usize = channels.clone().map(|row| weight.row(row).0.len()).sum();
        let per_channel = nonzeros as f64 / (channels.len() * per_group).max(1) as f64;
        let [_, h, w] = input;
        let [top, left, bottom, right] = window.pads;
        let size = [h + top + bottom, w + left + right];
        let ([sy, sx], [dy, dx]) = (window.strides, window.dilations);
        let (map, pitch) = (size[0] * size[1] * LANES, oh * ow * LANES);
        let reach = |d: usize| window.dilations[d] * (window.kernel_shape[d] - 1) + 1;
        let touched = reach(0) * (3 * sx + reach(1)) * LANES;
        let per_block = select::conv_block(touched, per_channel);
        let parts = filters_of_groups(out, groups, &channels)
            .map(|(g, rows)| {
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
                let entries: Vec<Vec<Entry>> = rows
                    .clone()
                    .map(|row| {
                        let (columns, values) = weight.row(row);
                        columns.iter().zip(values).map(entry).collect()
                    })
                    .collect();
                Part {
                    y: (rows.start - channels.start) * pitch,
                    sell: Sell::pack(&entries, &bias[rows], &bases, pitch, 4),
                }
            })
            .collect();
        Self {
            isa,
            input,
            output: [channels.len(), oh, ow],
            size,
            before: (window.pads != [0; 4]).then_some([top, left]),
            walk: Walk {
                lines: ow,
                x_line: sx * LANES,
                y_line: LANES,
                strips: oh,
                x_strip: sy * size[1] * LANES,
                y_strip: ow * LANES,
                narrow: false,
            },
            parts,
        }
    }

    /// Elements of scratch that a run needs, whatever the count; zero without padding.
    pub fn scratch_len(&self) -> usize {
        let [c, ..] = self.input;
        let [height, width] = self.size;
        self.before.map_or(0, |_| c * height * width * LANES)
    }

    /// `y = act(W * x + b)` over `count` tiles; `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`SparseConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], count: usize, scratch: &mut [f32], clamp: Clamp) {
        let x_len = self.input.iter().product::<usize>() * LANES;
        let y_len = self.output.iter().product::<usize>() * LANES;
        assert_eq!(x.len(), count * x_len, "elements of x");
        assert_eq!(y.len(), count * y_len, "elements of y");
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
            for part in &self.parts {
                let (x, y) = (x.as_ptr(), y[part.y..].as_mut_ptr());
                // SAFETY: the walk keeps what offsets of weights lie before inside one input, or its copy, whose length was checked above or
                // is that of the scratch; likewise rows and lines of the output.
                unsafe { sell::run(self.isa, &part.sell, x, y, self.walk, clamp.bounds()) };
            }
        }
    }

    /// Packed output channels, height and width.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        kernel_name!(self.isa.level(), "sell4-conv-f32-4x16")
    }

    /// Bytes of packed weights, offsets, row positions and biases.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.sell.bytes()).sum()
    }
}

/// Each group that has filters among those channels, and which.
pub(crate) fn filters_of_groups(
    out: usize,
    groups: usize,
    channels: &Range<usize>,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let each = out / groups;
    (0..groups)
        .map(move |g| {
            (
                g,
                (g * each).max(channels.start)..((g + 1) * each).min(channels.end),
            )
        })
        .filter(|(_, filters)| !filters.is_empty())
}

/// Output height and width of a convolution whose parts fit together.
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
    assert_eq!(per_group * groups, input[0], "input channels");
    window
        .output(input[1], input[2])
        .unwrap_or_else(|| panic!("{window:?} does not fit {input:?}"))
}

multiversion!(fn pad(x: &[f32], to: &mut [f32], from_size: [usize; 2], size: [usize; 2], before: [usize; 2]) = pad_body;);

/// Tiled maps into maps with borders of zeros.
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
        work.sparse_conv(costs, LANES)
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
