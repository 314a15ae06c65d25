//! Direct dense convolution of single samples over spatial [`Blocks`], without im2col.
//!
//! Eight output channels (four where there are only sixteen registers) of up to three lines of a row are summed in registers over the whole filter.
//! A line of input is loaded once for all of them, so that the second-level cache is fast enough.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use sparsevd_model::{Dense, Window};

use crate::bands::{Banded, Frame, Tiling, run_whole};
use crate::blocks::Blocks;
use crate::clamp::Bounds;
use crate::conv::{check_conv, filters_of_groups};
use crate::conv_blocks::BlockConv;
use crate::cost::Costs;
use crate::isa::kernel_name;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, select};

/// A dense convolution, packed for inputs and outputs in spatial [`Blocks`].
///
/// # Invariants
/// - the input's blocks cover [`BlockConv::input`], so that they hold all that the window reads for any output
/// - for each of `parts` and each group of `rows` of its channels, `weights` holds `rows` weights per element of `offsets`, and `bias` `rows`
///   numbers; those of rows past the last channel are zero
/// - offsets are where the inputs of the elements of a filter lie for the first output of a block
#[derive(Debug, Clone)]
pub struct DenseBlockConv {
    frame: Frame,
    rows: usize,
    weights: Vec<f32>,
    bias: Vec<f32>,
    offsets: Vec<usize>,
    /// For each group, where its input begins, in floats, and its output channels.
    parts: Vec<(usize, Range<usize>)>,
}

impl DenseBlockConv {
    /// Packs a range of output channels of filters `[out, in/groups, kh, kw]`, so that threads can split a convolution by channels. `bias` and the
    /// blocks of the output are those of all channels.
    ///
    /// # Panics
    /// When the parameters contradict each other, `channels` is out of range, or the input's blocks do not cover [`BlockConv::input`].
    #[track_caller]
    pub fn pack_channels(
        isa: Isa,
        weight: &Dense,
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        [input, output]: [Blocks; 2],
        channels: Range<usize>,
    ) -> Self {
        let &[out, per_group, kh, kw] = weight.shape.dims() else {
            panic!("filters [out, in/groups, kh, kw], got {}", weight.shape)
        };
        let [oh, ow] = check_conv([out, per_group, kh, kw], window, groups, input.map());
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        assert!(
            input.covers(&BlockConv::input(input.map(), window, &output)),
            "blocks of the input"
        );
        let bias = bias_or_zero(bias, out);
        let [dy, dx] = window.dilations;
        let [rows, lines] = select::dense_tile(isa);
        let depth = per_group * kh * kw;
        let mut packed = Self {
            frame: Frame::new(
                isa,
                [input, output.with_channels(channels.len())],
                Tiling::new(window, [&input, &output], lines),
            ),
            rows,
            weights: Vec::new(),
            bias: Vec::new(),
            offsets: (0..depth)
                .map(|k| {
                    let (channel, y, x) = (k / (kh * kw), k / kw % kh, k % kw);
                    let line = channel * input.channel() + y * dy * input.pitch() + x * dx;
                    line * LANES
                })
                .collect(),
            parts: Vec::new(),
        };
        for (group, mine) in filters_of_groups(out, groups, &channels) {
            for first in mine.clone().step_by(rows) {
                let filter = |row: usize| (first + row < mine.end).then_some(first + row);
                for k in 0..depth {
                    let weight = |row| filter(row).map_or(0.0, |o| weight.values[o * depth + k]);
                    packed.weights.extend((0..rows).map(weight));
                }
                let biases = (0..rows).map(|row| filter(row).map_or(0.0, |o| bias[o]));
                packed.bias.extend(biases);
            }
            let x = group * per_group * input.channel() * LANES;
            let made = mine.start - channels.start..mine.end - channels.start;
            packed.parts.push((x, made));
        }
        packed
    }

    /// `y = clamp(W * x + b)`, and the halos of `y`. `x` and `y` are `n` samples in the blocks of input and output.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, clamp: Clamp) {
        self.run_onto(x, None, y, n, clamp);
    }

    /// `y = clamp(W * x + b + residual)`, if there is a residual, which is in the blocks of `y`; else as [`DenseBlockConv::run`].
    ///
    /// # Panics
    /// When a slice has another length.
    #[track_caller]
    pub fn run_onto(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        y: &mut [f32],
        n: usize,
        clamp: Clamp,
    ) {
        run_whole(self, x, residual, y, n, clamp);
    }

    /// Blocks of the packed output channels.
    pub fn output(&self) -> Blocks {
        self.frame.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        let level = self.frame.isa.level();
        if self.rows == 8 {
            kernel_name!(level, "direct-blocks-f32-8x16")
        } else {
            kernel_name!(level, "direct-blocks-f32-4x16")
        }
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        (self.weights.len() + self.bias.len()) * size_of::<f32>()
    }
}

// SAFETY: tiles do not overlap, `run_units` stores only to lines of its tiles, and loads stay inside the blocks (invariants).
unsafe impl Banded for DenseBlockConv {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    unsafe fn run_units(
        &self,
        units: Range<usize>,
        x: &[f32],
        residual: Option<&[f32]>,
        y: *mut f32,
        clamp: Clamp,
    ) {
        let onto = residual.map_or(y.cast_const(), <[f32]>::as_ptr);
        // SAFETY: by the contract of this function, `x`, `y` and the residual are one sample in their blocks, and `units` are tiles of the frame.
        unsafe {
            run(
                self.frame.isa,
                self,
                x.as_ptr(),
                onto,
                y,
                units,
                clamp.bounds(),
            )
        };
    }
}

simd_dispatch! {
    /// `y = clamp(W * x + b + onto)`, without `onto` where that is `y` itself.
    ///
    /// # Safety
    /// `x` is one sample in the input's blocks, `onto` and `y` are one sample in the output's. `tiles` are numbers of tiles of the frame.
    unsafe fn run(conv: &DenseBlockConv, x: *const f32, onto: *const f32, y: *mut f32, tiles: Range<usize>, bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(
    conv: &DenseBlockConv,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    tiles: Range<usize>,
    bounds: Bounds,
) {
    // SAFETY: the contract of `run`, passed on; `rows` is 8 or 4.
    unsafe {
        if conv.rows == 8 {
            rows::<S, 8>(conv, x, onto, y, tiles, bounds);
        } else {
            rows::<S, 4>(conv, x, onto, y, tiles, bounds);
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, const R: usize>(
    conv: &DenseBlockConv,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    mut tiles: Range<usize>,
    bounds: Bounds,
) {
    let tiling = &conv.frame.tiling;
    let channel = conv.frame.output.channel() * LANES;
    // SAFETY: channels and tiles are those of the blocks, of which `x`, `onto` and `y` are one sample. Weights and biases are in the order of the
    // loops (invariants).
    unsafe {
        while !tiles.is_empty() {
            // Weights stay in the first-level cache for the tiles of a row.
            let end = ((tiles.start / tiling.per_row + 1) * tiling.per_row).min(tiles.end);
            let row = &tiling.tiles[tiles.start..end];
            tiles.start = end;
            let (mut weights, mut bias) = (conv.weights.as_ptr(), conv.bias.as_ptr());
            for (part, outputs) in &conv.parts {
                for first in outputs.clone().step_by(R) {
                    let made = (outputs.end - first).min(R);
                    for t in row {
                        for lane in (0..LANES).step_by(S::N) {
                            let x = x.add(part + t.x + lane);
                            let to = first * channel + t.y + lane;
                            let (onto, y) = (onto.add(to), y.add(to));
                            let b = bias;
                            match t.lines {
                                3 => tile::<S, R, 3>(conv, weights, b, x, onto, y, made, bounds),
                                2 => tile::<S, R, 2>(conv, weights, b, x, onto, y, made, bounds),
                                _ => tile::<S, R, 1>(conv, weights, b, x, onto, y, made, bounds),
                            }
                        }
                    }
                    weights = weights.add(conv.offsets.len() * R);
                    bias = bias.add(R);
                }
            }
        }
    }
}

/// `T` vectors of `R` channels, of which the first `made` are stored.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
unsafe fn tile<S: Simd, const R: usize, const T: usize>(
    conv: &DenseBlockConv,
    mut weights: *const f32,
    bias: *const f32,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    made: usize,
    bounds: Bounds,
) {
    let channel = conv.frame.output.channel() * LANES;
    let x_line = conv.frame.tiling.x_line;
    // SAFETY: `weights` has `R` for each offset, and the input holds a line at each offset for every line of the tile (invariants). `y` and `onto`
    // hold the lines of the tile in each of the `made` channels.
    unsafe {
        let mut acc = [[S::splat(0.0); T]; R];
        for r in 0..R {
            acc[r] = [S::splat(*bias.add(r)); T];
        }
        for &offset in &conv.offsets {
            let mut xs = [acc[0][0]; T];
            for t in 0..T {
                xs[t] = S::load(x.add(offset + t * x_line));
            }
            for r in 0..R {
                let weight = S::splat(*weights.add(r));
                for t in 0..T {
                    acc[r][t] = S::fma(weight, xs[t], acc[r][t]);
                }
            }
            weights = weights.add(R);
        }
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let (one, adds) = (S::splat(1.0), onto != y.cast_const());
        for r in 0..R {
            if r < made {
                for t in 0..T {
                    let to = r * channel + t * LANES;
                    let mut v = acc[r][t];
                    if adds {
                        v = S::fma(one, S::load(onto.add(to)), v);
                    }
                    S::store(y.add(to), S::clamp(v, low, high));
                }
            }
        }
    }
}

impl PackedKernel for DenseBlockConv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x, x2, y, n, clamp, ..
        } = operands;
        self.run_onto(x, x2, y, n, clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.dense_conv(costs.over_blocks().dense_conv)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn takes_residual(&self) -> bool {
        true
    }

    fn banded(&self) -> Option<&dyn Banded> {
        Some(self)
    }
}
