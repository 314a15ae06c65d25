//! Sparse convolution of single samples over the rows of small maps.
//!
//! Eight neighbouring outputs of a row are one vector. All that they read of a row of the input, for any column of the filter, are at most sixteen
//! neighbouring floats. The input is copied into such patches of sixteen floats, each one cache line, so that no load straddles cache lines. For
//! small maps patches take less memory than spatial blocks with their halos ([`crate::conv_blocks`]), but vectors are half as long.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use sparsevd_model::{Csr, Window};

use crate::clamp::Bounds;
use crate::conv::{check_conv, filters_of_groups};
use crate::conv_blocks::{biases, multiply_add};
use crate::copy::copy_short;
use crate::cost::Costs;
use crate::isa::{kernel_name, multiversion};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::precision::Precision;
use crate::sell::{Entry, Group, Offset, Offsets, Quad, Sell};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, length, select};

/// Outputs of a row that are computed together.
const VECTOR: usize = 8;

/// A sparse convolution over [`crate::Layout::Single`], packed for one input size.
///
/// # Invariants
/// - half of a weight's offset, plus the base, plus the place of the patch of any output of the tiling, lies in the patches of one sample
/// - rows of the matrix lie `rows * pitch` floats apart, for the rows and the pitch of the tiling
#[derive(Debug, Clone)]
pub struct RowConv {
    isa: Isa,
    input: [usize; 3],
    /// Packed channels, height and width of the output, pooled where that is fused.
    output: [usize; 3],
    patches: Patches,
    tiling: RowTiling,
    parts: Vec<ChannelGroup>,
}

/// The packed filters of one group.
#[derive(Debug, Clone)]
struct ChannelGroup {
    sell: Sell,
    /// Packed output channels before those of the group.
    first: usize,
}

/// Layout of the patches, `[c][column][row][16]`: sixteen floats for eight outputs of a row.
#[derive(Debug, Clone)]
struct Patches {
    map: [usize; 2],
    /// Rows of padding above the map and columns on its left.
    before: [usize; 2],
    rows: usize,
    /// For each column of patches, the mask of the pixels that lie in the map.
    inside: Vec<[u32; LANES]>,
}

/// The outputs of a channel, and the strides of the patches that they read.
#[derive(Debug, Clone)]
struct RowTiling {
    columns: usize,
    /// Floats from a column of patches to the next, and from the patch of a row of outputs to that of the next row.
    x_column: usize,
    x_row: usize,
    /// Whether 2x2 max-pooling is fused.
    pooled: bool,
    /// Numbers of rows that are computed together.
    strips: Vec<usize>,
}

impl RowTiling {
    /// Floats that are stored for a row of outputs, in whole vectors.
    fn pitch(&self) -> usize {
        self.columns * VECTOR / if self.pooled { 2 } else { 1 }
    }
}

/// Cuts `rows` into strips of at most `most` rows and about the same size.
fn strips(rows: usize, most: usize) -> impl Iterator<Item = usize> {
    let strips = rows.div_ceil(most);
    (0..strips).map(move |i| rows * (i + 1) / strips - rows * i / strips)
}

impl RowConv {
    /// Numbers that each weight is multiplied by for an output of `oh` rows and `ow` columns, before a pooling: half a
    /// vector of each row takes as long as a whole one.
    pub fn lanes([oh, ow]: [usize; 2]) -> usize {
        oh * ow.div_ceil(VECTOR) * LANES
    }

    /// Whether there is such a convolution: what eight outputs read of a row must lie within a line.
    pub fn takes(window: &Window) -> bool {
        let last = window.kernel_shape[1].saturating_sub(1);
        window.strides[1] == 1
            && window.dilations[1]
                .checked_mul(last)
                .is_some_and(|reach| reach <= LANES - VECTOR)
    }

    /// Packs filters of `shape` `[out, in/groups, kh, kw]` (`weight` holds them as `out` rows) for inputs `[c, h, w]`, but of all output channels
    /// only some, so that threads may share one convolution: each writes its own channels of an output. `bias` is that of all channels.
    ///
    /// # Panics
    /// When the shapes, the groups, the window and the bias do not fit together, or [`RowConv::takes`] says no.
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
        assert!(Self::takes(window), "rows that {window:?} reads");
        let bias = bias_or_zero(bias, out);
        let [_, h, w] = input;
        let ([top, left, ..], [dy, dx]) = (window.pads, window.dilations);
        let rows = (oh - 1) * window.strides[0] + (kh - 1) * dy + 1;
        let columns = ow.div_ceil(VECTOR);
        let inside = |column: usize| {
            std::array::from_fn(|i| {
                let x = (column * VECTOR + i).wrapping_sub(left);
                if x < w { u32::MAX } else { 0 }
            })
        };
        let patches = Patches {
            map: [h, w],
            before: [top, left],
            rows,
            inside: (0..columns).map(inside).collect(),
        };
        let tiling = RowTiling {
            columns,
            x_column: rows * LANES,
            x_row: window.strides[0] * LANES,
            pooled: false,
            strips: strips(oh, select::row_tile(isa)).collect(),
        };
        let parts = filters_of_groups(out, groups, &channels)
            .map(|(g, filters)| {
                let entry = |(&k, &weight): (&u32, &f32)| {
                    let k = k as usize;
                    let (ic, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
                    Entry {
                        block: 0,
                        // Doubled, because short offsets must be even.
                        offset: 2 * (ic * patches.channel() + ky * dy * LANES + kx * dx),
                        weight,
                    }
                };
                let entries: Vec<Vec<Entry>> = filters
                    .clone()
                    .map(|row| {
                        let (columns, values) = weight.row(row);
                        columns.iter().zip(values).map(entry).collect()
                    })
                    .collect();
                let base = g * per_group * patches.channel();
                ChannelGroup {
                    first: filters.start - channels.start,
                    sell: Sell::pack(
                        &entries,
                        &bias[filters],
                        &[base],
                        oh * tiling.pitch(),
                        1,
                        Precision::F32,
                    ),
                }
            })
            .collect();
        Self {
            isa,
            input,
            output: [channels.len(), oh, ow],
            patches,
            tiling,
            parts,
        }
    }

    /// The same convolution with 2x2 max-pooling fused into the store.
    ///
    /// # Panics
    /// When pooling is fused already.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        assert!(!self.tiling.pooled, "pooled already");
        let [channels, oh, ow] = self.output;
        let old = oh * self.tiling.pitch();
        // The pooled outputs of two pairs of rows fill one vector.
        let pairs = strips(oh / 2, (select::row_tile(self.isa) / 2).clamp(1, 2));
        self.tiling.strips = pairs.map(|n| 2 * n).collect();
        self.tiling.pooled = true;
        self.output = [channels, oh / 2, ow / 2];
        for part in &mut self.parts {
            part.sell.move_rows(old, oh / 2 * self.tiling.pitch());
        }
        self
    }

    /// Floats of scratch that [`RowConv::run`] needs, for any count.
    pub fn scratch_len(&self) -> usize {
        self.copied() + self.padded()
    }

    fn copied(&self) -> usize {
        self.input[0] * self.patches.channel()
    }

    /// Floats of the output with rows of whole vectors; zero where its rows are whole vectors already.
    fn padded(&self) -> usize {
        let [channels, oh, ow] = self.output;
        match self.tiling.pitch() {
            pitch if pitch == ow => 0,
            pitch => channels * oh * pitch,
        }
    }

    /// `y = clamp(W * x + b)`, pooled where that is fused: `x` is `[n][c][h][w]`, `y` `[n][channels][oh][ow]`. `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`RowConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        // Neither product wraps (`check_conv`).
        let [x_len, y_len] = [self.input, self.output].map(|map| map.iter().product::<usize>());
        length::check("x", x.len(), [n, x_len]);
        length::check("y", y.len(), [n, y_len]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let (copied, padded) = scratch[..self.scratch_len()].split_at_mut(self.copied());
        let [_, oh, ow] = self.output;
        let pitch = self.tiling.pitch();
        for (i, y) in y.chunks_exact_mut(y_len.max(1)).enumerate() {
            copy(
                self.isa,
                &self.patches,
                &x[i * x_len..(i + 1) * x_len],
                copied,
            );
            let direct = padded.is_empty();
            let to = if direct { &mut *y } else { &mut *padded };
            for part in &self.parts {
                let to = &mut to[part.first * oh * pitch..];
                let (x, y) = (copied.as_ptr(), to.as_mut_ptr());
                // SAFETY: the patches hold all that outputs of the tiling read (invariants), and `to` has `oh * pitch` floats for each row of the matrix.
                unsafe { run(self.isa, &part.sell, x, y, &self.tiling, clamp.bounds()) };
            }
            if !direct {
                compact(self.isa, padded, y, [pitch, ow]);
            }
        }
    }

    /// Packed output channels, output height and width, pooled where that is fused.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        let level = self.isa.level();
        if self.tiling.pooled {
            kernel_name!(level, "sell4-rows-pool-f32-4x8")
        } else {
            kernel_name!(level, "sell4-rows-f32-4x8")
        }
    }

    /// Bytes of packed weights, offsets, row positions and biases.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.sell.bytes()).sum()
    }
}

impl Patches {
    /// Floats of a channel.
    fn channel(&self) -> usize {
        self.inside.len() * self.rows * LANES
    }
}

multiversion!(fn copy(patches: &Patches, x: &[f32], to: &mut [f32]) = copy_body;);
multiversion!(fn compact(from: &[f32], y: &mut [f32], pitches: [usize; 2]) = compact_body;);

/// Copies a sample into patches.
#[inline(always)]
fn copy_body(patches: &Patches, x: &[f32], to: &mut [f32]) {
    let [h, w] = patches.map;
    let [top, left] = patches.before;
    let rows = top.min(patches.rows)..(top + h).min(patches.rows);
    for (channel, to) in to.chunks_exact_mut(patches.channel()).enumerate() {
        for (column, to) in to.chunks_exact_mut(patches.rows * LANES).enumerate() {
            let inside = patches.inside[column];
            to[..rows.start * LANES].fill(0.0);
            to[rows.end * LANES..].fill(0.0);
            // Where the patch of a row begins in the input. Patches of the first and last rows of all may reach beyond it.
            let origin = ((channel * h) * w + column * VECTOR) as isize - left as isize;
            let start = |row: usize| origin + ((row - top) * w) as isize;
            let mut whole = rows.clone();
            while !whole.is_empty() && start(whole.start) < 0 {
                whole.start += 1;
            }
            while !whole.is_empty() && start(whole.end - 1) + LANES as isize > x.len() as isize {
                whole.end -= 1;
            }
            if !whole.is_empty() {
                let mut from = x.as_ptr().wrapping_offset(start(whole.start));
                for to in to[whole.start * LANES..whole.end * LANES].chunks_exact_mut(LANES) {
                    // SAFETY: `from` is at `start(row)`, and `start(row)..start(row) + LANES` lies in `x` for every row of `whole`.
                    let patch = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
                    for i in 0..LANES {
                        to[i] = f32::from_bits(patch[i] & inside[i]);
                    }
                    from = from.wrapping_add(w);
                }
            }
            for row in (rows.start..whole.start).chain(whole.end..rows.end) {
                for i in 0..LANES {
                    to[row * LANES + i] = match inside[i] {
                        0 => 0.0,
                        _ => x[(start(row) + i as isize) as usize],
                    };
                }
            }
        }
    }
}

/// Copies rows of `pitch` floats to rows of `width` floats, which are shorter.
#[inline(always)]
fn compact_body(from: &[f32], y: &mut [f32], [pitch, width]: [usize; 2]) {
    for (from, y) in from.chunks_exact(pitch).zip(y.chunks_exact_mut(width)) {
        copy_short(&from[..width], y);
    }
}

simd_dispatch! {
    /// `y = clamp(W * x + b)`, strip by strip.
    ///
    /// # Safety
    /// For every row and column of the tiling and every entry of the matrix, `x` is readable for eight floats at the patch plus base plus half of the
    /// offset. For every row of the matrix, `y` is writable for the rows of the tiling, each `pitch` floats.
    unsafe fn run(sell: &Sell, x: *const f32, y: *mut f32, tiling: &RowTiling, bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(
    sell: &Sell,
    x: *const f32,
    y: *mut f32,
    tiling: &RowTiling,
    bounds: Bounds,
) {
    // SAFETY: the contract of `run`, passed on; where an instruction set is enabled, so are its half vectors.
    unsafe {
        if S::N > VECTOR {
            offsets::<S::Half>(sell, x, y, tiling, bounds);
        } else {
            offsets::<S>(sell, x, y, tiling, bounds);
        }
    }
}

#[inline(always)]
unsafe fn offsets<S: Simd>(
    sell: &Sell,
    x: *const f32,
    y: *mut f32,
    tiling: &RowTiling,
    bounds: Bounds,
) {
    // SAFETY: pointers by the contract of `run`; the offsets are those of `sell`, doubled, so that their units have half as many bytes.
    unsafe {
        match &sell.offsets {
            Offsets::Short8(o) => rows::<S, u64, 4>(sell, o.as_ptr(), x, y, tiling, bounds),
            Offsets::Short64(o) => rows::<S, u64, 32>(sell, o.as_ptr(), x, y, tiling, bounds),
            Offsets::Long4(o) => rows::<S, [u32; 4], 2>(sell, o.as_ptr(), x, y, tiling, bounds),
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, O: Offset, const UNIT: usize>(
    sell: &Sell,
    mut offsets: *const O,
    x: *const f32,
    y: *mut f32,
    tiling: &RowTiling,
    bounds: Bounds,
) {
    let per_row = if tiling.pooled { 2 } else { 1 };
    let mut weights = sell.weights.as_ptr();
    // SAFETY: rows and columns are those of the tiling, for which the contract of `run` holds; weights, offsets and groups by the invariants of `Sell`.
    unsafe {
        let x = x.add(sell.blocks[0].base);
        // A map is small: it stays in the cache for all channels.
        for group in &sell.groups {
            let stored = (weights, offsets);
            for column in 0..tiling.columns {
                for part in (0..VECTOR).step_by(S::N) {
                    let mut x = x.add(column * tiling.x_column + part);
                    let mut y = y.add((column * VECTOR + part) / per_row);
                    for &rows in &tiling.strips {
                        match rows {
                            6 => strip::<S, O, UNIT, 6>(group, stored, x, y, tiling, bounds),
                            5 => strip::<S, O, UNIT, 5>(group, stored, x, y, tiling, bounds),
                            4 => strip::<S, O, UNIT, 4>(group, stored, x, y, tiling, bounds),
                            3 => strip::<S, O, UNIT, 3>(group, stored, x, y, tiling, bounds),
                            2 => strip::<S, O, UNIT, 2>(group, stored, x, y, tiling, bounds),
                            _ => strip::<S, O, UNIT, 1>(group, stored, x, y, tiling, bounds),
                        }
                        // Past the last strip these may leave the slices, but are not used then.
                        x = x.wrapping_add(rows * tiling.x_row);
                        y = y.wrapping_add(rows / per_row * tiling.pitch());
                    }
                }
            }
            weights = weights.add(group.steps as usize);
            offsets = offsets.add(group.steps as usize);
        }
    }
}

/// `T` rows of one vector for each of four channels.
#[inline(always)]
unsafe fn strip<S: Simd, O: Offset, const UNIT: usize, const T: usize>(
    group: &Group,
    (mut weights, mut offsets): (*const Quad, *const O),
    x: *const f32,
    y: *mut f32,
    tiling: &RowTiling,
    bounds: Bounds,
) {
    // SAFETY: `x` and `y` by the contract of `run`; weights and offsets are those of the group.
    unsafe {
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let pitch = tiling.pitch();
        let mut xs = [x; T];
        for t in 0..T {
            xs[t] = x.add(t * tiling.x_row);
        }
        let mut acc = biases::<S, T>(group);
        let last = offsets.add(group.steps as usize);
        multiply_add::<S, O, UNIT, T>(&mut weights, &mut offsets, last, xs, &mut acc);
        for r in 0..4 {
            let y = y.add(group.rows[r] as usize);
            if !tiling.pooled {
                for t in 0..T {
                    S::store(y.add(t * pitch), S::clamp(acc[r][t], low, high));
                }
                continue;
            }
            for t in (0..T - 1).step_by(4) {
                let a = S::larger(acc[r][t], acc[r][t + 1]);
                let two = t + 3 < T;
                let b = if two {
                    S::larger(acc[r][t + 2], acc[r][t + 3])
                } else {
                    a
                };
                let mut halves = [0.0; LANES];
                S::store(halves.as_mut_ptr(), S::clamp(S::pairs(a, b), low, high));
                let y = y.add(t / 2 * pitch);
                y.copy_from_nonoverlapping(halves.as_ptr(), S::N / 2);
                if two {
                    let second = halves.as_ptr().add(S::N / 2);
                    y.add(pitch).copy_from_nonoverlapping(second, S::N / 2);
                }
            }
        }
    }
}

impl PackedKernel for RowConv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            n,
            scratch,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, n, scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let [_, oh, ow] = self.output();
        let side = if self.tiling.pooled { 2 } else { 1 };
        let lanes = Self::lanes([side * oh, side * ow]);
        work.each((work.size.nonzeros * lanes) as f64 * costs.conv)
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
