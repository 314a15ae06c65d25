//! Sparse convolution of single samples over spatial [`Blocks`].
//!
//! A weight at (input channel, ky, kx) multiplies one line of sixteen inputs for each line of sixteen outputs, at a fixed offset. The
//! weights are packed as for [`crate::spmm`], with offsets in place of columns. The outer loop is over tiles of up to four lines of a row, whose
//! sums stay in registers, the inner loop over all channels. The inputs of a tile, of as many channels as fit, stay in the first-level cache.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::bands::{Banded, Frame, Tile, Tiling, run_whole};
use crate::blocks::{Blocks, TILE};
use crate::clamp::Bounds;
use crate::conv::{FilterGroup, check_conv, filters_of_groups};
use crate::cost::Costs;
use crate::isa::kernel_name;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::pool_blocks::BlockPool;
use crate::precision::Precision;
use crate::sell::{Entry, Group, Offset, Offsets, Quad, Sell};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, select};

/// A sparse convolution, packed for inputs and outputs in spatial [`Blocks`].
///
/// # Invariants
/// - the input's blocks cover [`BlockConv::input`], so that they hold all that the window reads for any output
/// - a weight's offset plus the base of its column block is where its input line lies for the first output of a block
#[derive(Debug, Clone)]
pub struct BlockConv {
    frame: Frame,
    /// Whether 2x2 max-pooling is fused; the output is then the pooled one.
    pooled: bool,
    parts: Vec<FilterGroup>,
}

impl BlockConv {
    /// The blocks of the `input` map that a window reads for outputs in `output`. The input of the convolution must cover them ([`Blocks::covers`]).
    pub fn input(input: [usize; 3], window: &Window, output: &Blocks) -> Blocks {
        let halo = if output.is_tile() {
            window.pads
        } else {
            Blocks::halo_of(window)
        };
        output
            .under(input, window.strides)
            .with_halo(halo)
            .read_for(output)
    }

    /// Packs a range of output channels of filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows), so that threads can
    /// split a convolution by channels. `bias` and the blocks of the output are those of all channels.
    ///
    /// # Panics
    /// When the parameters contradict each other, `channels` is out of range, or the input's blocks do not cover [`BlockConv::input`].
    #[track_caller]
    #[allow(clippy::too_many_arguments, reason = "what a convolution is")]
    pub fn pack_channels(
        isa: Isa,
        weight: &Csr,
        shape: [usize; 4],
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        [input, output]: [Blocks; 2],
        channels: Range<usize>,
    ) -> Self {
        let [oh, ow] = check_conv(shape, window, groups, input.map());
        let [out, per_group, kh, kw] = shape;
        assert_eq!(weight.rows(), out, "rows of the weight");
        assert_eq!(weight.cols(), per_group * kh * kw, "columns of the weight");
        assert!(channels.end <= out, "channels {channels:?} of {out}");
        assert_eq!(output.map(), [out, oh, ow], "map of the output");
        assert!(
            input.covers(&Self::input(input.map(), window, &output)),
            "blocks of the input"
        );
        let bias = bias_or_zero(bias, out);
        let (x_channel, y_channel) = (input.channel() * LANES, output.channel() * LANES);
        let [dy, dx] = window.dilations;
        // Loops over several lines exist for strides of one and two.
        let most = match window.strides[1] {
            1 | 2 => select::block_tile(isa),
            _ => 1,
        };
        let tiling = Tiling::new(window, [&input, &output], most);
        // Of all channels, so that the sums of a channel are added in the same order in any part.
        let per_channel = weight.nonzeros() as f64 / (out * per_group).max(1) as f64;
        let reach = |d: usize| window.dilations[d] * (window.kernel_shape[d] - 1) + 1;
        let lines = tiling.tiles.first().map_or(1, |t| t.lines);
        let touched = reach(0) * ((lines - 1) * window.strides[1] + reach(1));
        let blocks = select::channel_blocks(per_group, touched * LANES, per_channel);
        let per_block = per_group.div_ceil(blocks).max(1);
        let parts = filters_of_groups(out, groups, &channels)
            .map(|(g, rows)| {
                let entry = |(&k, &weight): (&u32, &f32)| {
                    let k = k as usize;
                    let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    let line = ky * dy * input.pitch() + kx * dx;
                    Entry {
                        block: ic / per_block,
                        offset: ic % per_block * x_channel + line * LANES,
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
                let bases: Vec<usize> = (0..per_group.div_ceil(per_block).max(1))
                    .map(|b| (g * per_group + b * per_block) * x_channel)
                    .collect();
                FilterGroup {
                    y: (rows.start - channels.start) * y_channel,
                    sell: Sell::pack(&entries, &bias[rows], &bases, y_channel, 1, Precision::F32),
                }
            })
            .collect();
        let output = output.with_channels(channels.len());
        Self {
            frame: Frame::new(isa, [input, output], tiling),
            pooled: false,
            parts,
        }
    }

    /// The same convolution with 2x2 max-pooling fused into the store, for pooled outputs in `output`. `None` where that is not possible: where pixels
    /// of different blocks are pooled together, or the input channels are cut into several ranges.
    pub fn pooled(mut self, output: Blocks) -> Option<Self> {
        let [channels, ..] = self.frame.output.map();
        let least = BlockPool::output(&Window::square(2, 2), &self.frame.output)?;
        let one_block = self.parts.iter().all(|p| p.sell.blocks.len() == 1);
        let output = output.with_channels(channels);
        if self.pooled || !one_block || !output.covers(&least) {
            return None;
        }
        let [old, new] = [&self.frame.output, &output].map(|b| b.channel() * LANES);
        for part in &mut self.parts {
            part.sell.move_rows(old, new);
            part.y = part.y / old * new;
        }
        let tiling = self.frame.tiling.pooled(&output);
        self.frame = Frame::new(self.frame.isa, [self.frame.input, output], tiling);
        self.pooled = true;
        Some(self)
    }

    /// `y = clamp(W * x + b)`, pooled where that is fused, and the halos of `y`. `x` and `y` are `n` samples in the blocks of input and output, or `n`
    /// tiles where lanes are samples.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, clamp: Clamp) {
        self.run_onto(x, None, y, n, clamp);
    }

    /// `y = clamp(W * x + b + residual)`, if there is a residual, which is in the blocks of `y`; else as [`BlockConv::run`].
    ///
    /// # Panics
    /// When a slice has another length, or there is a residual and the output is pooled.
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

    /// Whether [`BlockConv::run_onto`] accepts a residual: unless pooling is fused.
    pub fn takes_residual(&self) -> bool {
        !self.pooled
    }

    /// Samples in one unit of the count of a run: 1, or 16 where lanes are samples.
    pub fn samples(&self) -> usize {
        if self.frame.output.is_tile() {
            LANES
        } else {
            1
        }
    }

    /// Blocks of the packed output channels.
    pub fn output(&self) -> Blocks {
        self.frame.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        let level = self.frame.isa.level();
        if self.pooled {
            kernel_name!(level, "sell4-blocks-pool-f32-4x16")
        } else {
            kernel_name!(level, "sell4-blocks-f32-4x16")
        }
    }

    /// Bytes of packed weights, offsets, row positions and biases.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.sell.bytes()).sum()
    }
}

// SAFETY: tiles do not overlap, `run_units` stores only to lines of its tiles, and loads stay inside the blocks (invariants).
unsafe impl Banded for BlockConv {
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
        assert!(!self.pooled || residual.is_none(), "a sum before pooling");
        let (isa, tiling, bounds) = (self.frame.isa, &self.frame.tiling, clamp.bounds());
        let tiles = &tiling.tiles[units];
        for part in &self.parts {
            let (x, sell) = (x.as_ptr(), &part.sell);
            // SAFETY: the input holds all that the window reads for every output of a block (invariants). Output and residual hold the lines of the
            // tiles in every row of the matrix. All have the lengths that the contract of this function says.
            unsafe {
                let y = y.add(part.y);
                let onto = residual.map_or(y.cast_const(), |r| r.as_ptr().add(part.y));
                if self.pooled {
                    run_pooled(isa, sell, x, y, tiling, tiles, bounds);
                } else {
                    run(isa, sell, x, onto, y, tiling.x_line, tiles, bounds);
                }
            }
        }
    }
}

simd_dispatch! {
    /// `y = clamp(W * x + b + onto)`, tile by tile; without `onto` where that is `y` itself.
    ///
    /// # Safety
    /// For every line of the tiles and every entry of the matrix, `x` is readable for the sixteen floats at the line's input plus base plus offset.
    /// For every row of the matrix, `y` is writable and `onto` readable for the sixteen floats of the line in that row.
    unsafe fn run(sell: &Sell, x: *const f32, onto: *const f32, y: *mut f32, x_line: usize, tiles: &[Tile], bounds: Bounds) = body;
}

simd_dispatch! {
    /// As [`run`], where each line of output is the largest of two by two lines, lane by lane; the matrix has one block of columns.
    ///
    /// # Safety
    /// As [`run`], with `x` readable for the inputs of all four lines.
    unsafe fn run_pooled(sell: &Sell, x: *const f32, y: *mut f32, tiling: &Tiling, tiles: &[Tile], bounds: Bounds) = body_pooled;
}

#[inline(always)]
unsafe fn body<S: Simd>(
    sell: &Sell,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    x_line: usize,
    tiles: &[Tile],
    bounds: Bounds,
) {
    // SAFETY: pointers by the contract of `run`; the offsets are those of `sell`, in the unit of their variant.
    unsafe {
        match &sell.offsets {
            Offsets::Short8(o) => {
                rows::<S, u64, 8>(sell, o.as_ptr(), x, onto, y, x_line, tiles, bounds)
            }
            Offsets::Short64(o) => {
                rows::<S, u64, 64>(sell, o.as_ptr(), x, onto, y, x_line, tiles, bounds)
            }
            Offsets::Long4(o) => {
                rows::<S, [u32; 4], 4>(sell, o.as_ptr(), x, onto, y, x_line, tiles, bounds);
            }
        }
    }
}

#[inline(always)]
unsafe fn body_pooled<S: Simd>(
    sell: &Sell,
    x: *const f32,
    y: *mut f32,
    tiling: &Tiling,
    tiles: &[Tile],
    bounds: Bounds,
) {
    // SAFETY: pointers by the contract of `run_pooled`; the offsets are those of `sell`, in the unit of their variant.
    unsafe {
        match &sell.offsets {
            Offsets::Short8(o) => pools::<S, u64, 8>(sell, o.as_ptr(), x, y, tiling, tiles, bounds),
            Offsets::Short64(o) => {
                pools::<S, u64, 64>(sell, o.as_ptr(), x, y, tiling, tiles, bounds)
            }
            Offsets::Long4(o) => {
                pools::<S, [u32; 4], 4>(sell, o.as_ptr(), x, y, tiling, tiles, bounds)
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "the arguments of a kernel")]
unsafe fn rows<S: Simd, O: Offset, const UNIT: usize>(
    sell: &Sell,
    offsets: *const O,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    x_line: usize,
    tiles: &[Tile],
    bounds: Bounds,
) {
    const STRIDE_2: usize = 2 * LANES;
    // SAFETY: tiles are those of `run`, for whose lines its contract holds.
    unsafe {
        for t in tiles {
            // Vectors of fewer than sixteen floats take several passes over a line.
            for part in 0..LANES / S::N {
                let x = x.add(t.x + part * S::N);
                let (onto, y) = (onto.add(t.y + part * S::N), y.add(t.y + part * S::N));
                match (t.lines, x_line) {
                    (TILE, STRIDE_2) => {
                        tile::<S, O, UNIT, TILE, 2>(sell, offsets, x, onto, y, bounds);
                    }
                    (TILE, _) => tile::<S, O, UNIT, TILE, 1>(sell, offsets, x, onto, y, bounds),
                    (3, STRIDE_2) => tile::<S, O, UNIT, 3, 2>(sell, offsets, x, onto, y, bounds),
                    (3, _) => tile::<S, O, UNIT, 3, 1>(sell, offsets, x, onto, y, bounds),
                    (2, STRIDE_2) => tile::<S, O, UNIT, 2, 2>(sell, offsets, x, onto, y, bounds),
                    (2, _) => tile::<S, O, UNIT, 2, 1>(sell, offsets, x, onto, y, bounds),
                    _ => tile::<S, O, UNIT, 1, 1>(sell, offsets, x, onto, y, bounds),
                }
            }
        }
    }
}

/// `T` vectors of output for each channel, over all column blocks; their inputs are `STRIDE` lines apart.
#[inline(always)]
unsafe fn tile<S: Simd, O: Offset, const UNIT: usize, const T: usize, const STRIDE: usize>(
    sell: &Sell,
    mut offsets: *const O,
    x: *const f32,
    onto: *const f32,
    y: *mut f32,
    bounds: Bounds,
) {
    let mut weights = sell.weights.as_ptr();
    let mut groups = sell.groups.as_ptr();
    // SAFETY: `x`, `onto` and `y` by the contract of `run`; weights, offsets and groups by the invariants of `Sell`.
    unsafe {
        let one = S::splat(1.0);
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let bounded = bounds.min > f32::NEG_INFINITY || bounds.max < f32::INFINITY;
        for block in &sell.blocks {
            let mut xs = [x; T];
            for t in 0..T {
                xs[t] = x.add(block.base + t * STRIDE * LANES);
            }
            let end = groups.add(block.groups);
            let (first, clamped) = (block.first, block.last && bounded);
            while groups < end {
                let group = &*groups;
                groups = groups.add(1);
                let mut acc = biases::<S, T>(group);
                if !first {
                    for r in 0..4 {
                        let y = y.add(group.rows[r] as usize);
                        for t in 0..T {
                            acc[r][t] = S::load(y.add(t * LANES));
                        }
                    }
                } else if onto != y.cast_const() {
                    for r in 0..4 {
                        let onto = onto.add(group.rows[r] as usize);
                        for t in 0..T {
                            acc[r][t] = S::fma(one, S::load(onto.add(t * LANES)), acc[r][t]);
                        }
                    }
                }
                let last = offsets.add(group.steps as usize);
                multiply_add::<S, O, UNIT, T>(&mut weights, &mut offsets, last, xs, &mut acc);
                for r in 0..4 {
                    let y = y.add(group.rows[r] as usize);
                    for t in 0..T {
                        let v = acc[r][t];
                        let v = if clamped { S::clamp(v, low, high) } else { v };
                        S::store(y.add(t * LANES), v);
                    }
                }
            }
        }
    }
}

/// All tiles: two by two lines are computed at once, and the largest is stored.
#[inline(always)]
unsafe fn pools<S: Simd, O: Offset, const UNIT: usize>(
    sell: &Sell,
    offsets: *const O,
    x: *const f32,
    y: *mut f32,
    tiling: &Tiling,
    tiles: &[Tile],
    bounds: Bounds,
) {
    // SAFETY: tiles are those of `run_pooled`, for whose lines its contract holds; weights, offsets and groups by the invariants of `Sell`.
    unsafe {
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let base = sell.blocks.first().map_or(0, |b| b.base);
        for t in tiles {
            for part in (0..LANES).step_by(S::N) {
                let x = x.add(base + t.x + part);
                let below = x.add(tiling.x_row);
                let xs = [x, x.add(tiling.x_line), below, below.add(tiling.x_line)];
                let y = y.add(t.y + part);
                let (mut weights, mut offsets) = (sell.weights.as_ptr(), offsets);
                for group in &sell.groups {
                    let mut acc = biases::<S, 4>(group);
                    let last = offsets.add(group.steps as usize);
                    multiply_add::<S, O, UNIT, 4>(&mut weights, &mut offsets, last, xs, &mut acc);
                    for r in 0..4 {
                        let [a, b, c, d] = acc[r];
                        let v = S::larger(S::larger(a, b), S::larger(c, d));
                        let v = S::clamp(v, low, high);
                        S::store(y.add(group.rows[r] as usize), v);
                    }
                }
            }
        }
    }
}

// Plain loops: a closure given to `map` or `from_fn` may not be inlined, and then lacks the instruction set.

#[inline(always)]
pub(crate) unsafe fn biases<S: Simd, const T: usize>(group: &Group) -> [[S::V; T]; 4] {
    // SAFETY: no memory is accessed; the instruction set is enabled where this is inlined (the contract of `Simd`).
    unsafe {
        let mut acc = [[S::splat(0.0); T]; 4];
        for r in 0..4 {
            acc[r] = [S::splat(group.bias[r]); T];
        }
        acc
    }
}

/// Bytes by which weights are prefetched ahead of their use, where they are used once.
const AHEAD: usize = 1024;

/// The steps of one group up to `last`, for `T` vectors whose inputs begin at `xs`.
#[inline(always)]
pub(crate) unsafe fn multiply_add<S: Simd, O: Offset, const UNIT: usize, const T: usize>(
    weights: &mut *const Quad,
    offsets: &mut *const O,
    last: *const O,
    xs: [*const f32; T],
    acc: &mut [[S::V; T]; 4],
) {
    // SAFETY: the caller passes weights and offsets of one group, up to `last`, and `xs` that are readable for a vector at each of its offsets.
    unsafe {
        if T == 1 {
            // Four sums are too few to hide the latency of a multiply-add, so every second step has its own, whatever the number of steps. A layer
            // of so few lines uses each weight only a few times, so loads of weights are the bottleneck and are prefetched.
            let mut second = [[S::splat(0.0); T]; 4];
            while (*offsets).wrapping_add(1) < last {
                S::prefetch(weights.wrapping_byte_add(AHEAD));
                S::prefetch(offsets.wrapping_byte_add(AHEAD / 2));
                step::<S, O, UNIT, T>(weights, offsets, xs, acc);
                step::<S, O, UNIT, T>(weights, offsets, xs, &mut second);
            }
            if *offsets < last {
                step::<S, O, UNIT, T>(weights, offsets, xs, acc);
            }
            let one = S::splat(1.0);
            for r in 0..4 {
                for t in 0..T {
                    acc[r][t] = S::fma(one, second[r][t], acc[r][t]);
                }
            }
        }
        while *offsets < last {
            step::<S, O, UNIT, T>(weights, offsets, xs, acc);
        }
    }
}

/// One weight of each of four channels.
#[inline(always)]
unsafe fn step<S: Simd, O: Offset, const UNIT: usize, const T: usize>(
    weights: &mut *const Quad,
    offsets: &mut *const O,
    xs: [*const f32; T],
    acc: &mut [[S::V; T]; 4],
) {
    // SAFETY: as in `multiply_add`, which calls this only while a step is left.
    unsafe {
        let quad = S::quad(weights.cast());
        let at = O::bytes::<UNIT>(*offsets);
        *weights = weights.add(1);
        *offsets = offsets.add(1);
        let quad = [
            S::lane::<0>(quad),
            S::lane::<1>(quad),
            S::lane::<2>(quad),
            S::lane::<3>(quad),
        ];
        for r in 0..4 {
            for t in 0..T {
                let x = S::load(xs[t].cast::<u8>().add(at[r]).cast());
                acc[r][t] = S::fma(quad[r], x, acc[r][t]);
            }
        }
    }
}

impl PackedKernel for BlockConv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x, x2, y, n, clamp, ..
        } = operands;
        self.run_onto(x, x2, y, n.div_ceil(self.samples()), clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let (output, each) = (self.output(), costs.over_blocks().conv);
        if output.is_tile() {
            return work.sparse_conv(each, LANES);
        }
        // Lanes past the ends of small maps take as long as others.
        let side = if self.pooled { 2 } else { 1 };
        let multiply_adds = work.size.nonzeros * side * side * output.lines() * LANES;
        work.each(multiply_adds as f64 * each)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn takes_residual(&self) -> bool {
        Self::takes_residual(self)
    }

    fn banded(&self) -> Option<&dyn Banded> {
        Some(self)
    }
}
