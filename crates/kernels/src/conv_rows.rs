//! Sparse convolution of single samples over the rows of small maps.
//!
//! Eight neighbouring outputs of a row are one vector. What they read of a row of the input, whichever column of the filter, lies within sixteen
//! floats: the input is copied into such lines, each in one line of the cache, so that no load is split, however it is shifted. That takes
//! little more memory than the map, where blocks ([`crate::conv_blocks`]) hold a pixel once for each step of the windows; but it runs in half vectors.

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
use crate::sell::{Entry, Group, Offset, Offsets, Quad, Sell};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, LANES, select};

/// Outputs of a row that are computed together.
const VECTOR: usize = 8;

/// A sparse filter bank packed for one input size.
///
/// # Invariants
/// - offsets of weights, of a filter for the first outputs, lie in the lines of a map, and so do those of all others on the walk
/// - rows of the matrix lie `rows * pitch` floats apart, as the walk goes over them
#[derive(Debug, Clone)]
pub struct RowConv {
    isa: Isa,
    input: [usize; 3],
    /// What is packed, pooled where that is fused.
    output: [usize; 3],
    lines: Lines,
    walk: Walk,
    parts: Vec<Part>,
}

/// The channels of one group.
#[derive(Debug, Clone)]
struct Part {
    sell: Sell,
    /// Output channels before its own.
    first: usize,
}

/// How inputs are copied: `[c][column][row][16]`, where a column holds what eight outputs of a row read.
#[derive(Debug, Clone)]
struct Lines {
    map: [usize; 2],
    /// Rows above and columns on the left that are padding.
    before: [usize; 2],
    rows: usize,
    /// For each column its pixels that lie in the map, all bits set.
    inside: Vec<[u32; LANES]>,
}

/// The way over the outputs of a channel.
#[derive(Debug, Clone)]
struct Walk {
    columns: usize,
    /// Floats from the lines of a column to those of the next, and from what a row of outputs reads to what the next reads.
    x_column: usize,
    x_row: usize,
    /// Whether the largest of two by two pixels are stored.
    pooled: bool,
    /// Rows that are computed together.
    strips: Vec<usize>,
}

impl Walk {
    /// Floats that are stored of a row of outputs.
    fn pitch(&self) -> usize {
        self.columns * VECTOR / if self.pooled { 2 } else { 1 }
    }
}

/// Cuts so many rows into strips of at most `most`, as even as can be.
fn strips(rows: usize, most: usize) -> impl Iterator<Item = usize> {
    let strips = rows.div_ceil(most);
    (0..strips).map(move |i| rows * (i + 1) / strips - rows * i / strips)
}

impl RowConv {
    /// Whether there is such a convolution: what eight outputs read of a row must lie within a line.
    pub fn takes(window: &Window) -> bool {
        window.strides[1] == 1
            && window.dilations[1] * (window.kernel_shape[1] - 1) <= LANES - VECTOR
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
        let lines = Lines {
            map: [h, w],
            before: [top, left],
            rows,
            inside: (0..columns).map(inside).collect(),
        };
        let walk = Walk {
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
                        // Twice, because the format wants even numbers.
                        offset: 2 * (ic * lines.channel() + ky * dy * LANES + kx * dx),
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
                let base = g * per_group * lines.channel();
                Part {
                    first: filters.start - channels.start,
                    sell: Sell::pack(&entries, &bias[filters], &[base], oh * walk.pitch(), 1),
                }
            })
            .collect();
        Self {
            isa,
            input,
            output: [channels.len(), oh, ow],
            lines,
            walk,
            parts,
        }
    }

    /// The same convolution with max-pooling of two by two pixels fused into the store.
    #[must_use]
    pub fn pooled(mut self) -> Self {
        assert!(!self.walk.pooled, "pooled already");
        let [channels, oh, ow] = self.output;
        let old = oh * self.walk.pitch();
        // Two pairs of rows fill a vector with what is left of them.
        let pairs = strips(oh / 2, (select::row_tile(self.isa) / 2).clamp(1, 2));
        self.walk.strips = pairs.map(|n| 2 * n).collect();
        self.walk.pooled = true;
        self.output = [channels, oh / 2, ow / 2];
        for part in &mut self.parts {
            part.sell.move_rows(old, oh / 2 * self.walk.pitch());
        }
        self
    }

    /// Elements of scratch that a run needs, whatever the count.
    pub fn scratch_len(&self) -> usize {
        self.copied() + self.padded()
    }

    fn copied(&self) -> usize {
        self.input[0] * self.lines.channel()
    }

    /// Floats of outputs with rows of whole vectors, where theirs are not.
    fn padded(&self) -> usize {
        let [channels, oh, ow] = self.output;
        match self.walk.pitch() {
            pitch if pitch == ow => 0,
            pitch => channels * oh * pitch,
        }
    }

    /// `y = act(W * x + b)` over `n` samples, pooled where that is fused; `scratch` is overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`RowConv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        let [x_len, y_len] = [self.input, self.output].map(|map| map.iter().product::<usize>());
        assert_eq!(x.len(), n * x_len, "elements of x");
        assert_eq!(y.len(), n * y_len, "elements of y");
        let (lines, padded) = scratch[..self.scratch_len()].split_at_mut(self.copied());
        let [_, oh, ow] = self.output;
        let pitch = self.walk.pitch();
        for (i, y) in y.chunks_exact_mut(y_len.max(1)).enumerate() {
            copy(self.isa, &self.lines, &x[i * x_len..(i + 1) * x_len], lines);
            let direct = padded.is_empty();
            let to = if direct { &mut *y } else { &mut *padded };
            for part in &self.parts {
                let to = &mut to[part.first * oh * pitch..];
                let (x, y) = (lines.as_ptr(), to.as_mut_ptr());
                // SAFETY: the lines hold what every output on the walk reads, and `to` has its rows, of whole vectors (invariants).
                unsafe { run(self.isa, &part.sell, x, y, &self.walk, clamp.bounds()) };
            }
            if !direct {
                compact(self.isa, padded, y, [pitch, ow]);
            }
        }
    }

    /// Channels, height and width of what is packed.
    pub fn output(&self) -> [usize; 3] {
        self.output
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        let level = self.isa.level();
        if self.walk.pooled {
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

impl Lines {
    /// Floats of a channel.
    fn channel(&self) -> usize {
        self.inside.len() * self.rows * LANES
    }
}

multiversion!(fn copy(lines: &Lines, x: &[f32], to: &mut [f32]) = copy_body;);
multiversion!(fn compact(from: &[f32], y: &mut [f32], pitches: [usize; 2]) = compact_body;);

/// A sample into lines.
#[inline(always)]
fn copy_body(lines: &Lines, x: &[f32], to: &mut [f32]) {
    let [h, w] = lines.map;
    let [top, left] = lines.before;
    let rows = top.min(lines.rows)..(top + h).min(lines.rows);
    for (channel, to) in to.chunks_exact_mut(lines.channel()).enumerate() {
        for (column, to) in to.chunks_exact_mut(lines.rows * LANES).enumerate() {
            let inside = lines.inside[column];
            to[..rows.start * LANES].fill(0.0);
            to[rows.end * LANES..].fill(0.0);
            // Where the line of a row begins in the input; of the first row of all and the last, it may reach out.
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
                    // SAFETY: `start(row)..start(row) + LANES` lies in `x` for every row of `whole`.
                    let line = unsafe { from.cast::<[u32; LANES]>().read_unaligned() };
                    for i in 0..LANES {
                        to[i] = f32::from_bits(line[i] & inside[i]);
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

/// Rows from one pitch to a smaller.
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
    /// For every row and column on the walk and every entry of the matrix, `x` must be readable for eight floats at the walk's way there plus
    /// base plus half of the offset; for every row of the matrix `y` must be writable for the rows of the walk, each of its pitch.
    unsafe fn run(sell: &Sell, x: *const f32, y: *mut f32, walk: &Walk, bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(sell: &Sell, x: *const f32, y: *mut f32, walk: &Walk, bounds: Bounds) {
    // SAFETY: the caller's contract.
    unsafe {
        if S::N > VECTOR {
            offsets::<S::Half>(sell, x, y, walk, bounds);
        } else {
            offsets::<S>(sell, x, y, walk, bounds);
        }
    }
}

#[inline(always)]
unsafe fn offsets<S: Simd>(sell: &Sell, x: *const f32, y: *mut f32, walk: &Walk, bounds: Bounds) {
    // SAFETY: the caller's contract; the offsets are those of `sell`. They are doubled, and so in units of half as many bytes.
    unsafe {
        match &sell.offsets {
            Offsets::Short8(o) => rows::<S, u64, 4>(sell, o.as_ptr(), x, y, walk, bounds),
            Offsets::Short64(o) => rows::<S, u64, 32>(sell, o.as_ptr(), x, y, walk, bounds),
            Offsets::Long4(o) => rows::<S, [u32; 4], 2>(sell, o.as_ptr(), x, y, walk, bounds),
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, O: Offset, const UNIT: usize>(
    sell: &Sell,
    mut offsets: *const O,
    x: *const f32,
    y: *mut f32,
    walk: &Walk,
    bounds: Bounds,
) {
    let per_row = if walk.pooled { 2 } else { 1 };
    let mut weights = sell.weights.as_ptr();
    // SAFETY: rows and columns are those of the caller's walk; weights, offsets and groups by the invariants of `Sell`.
    unsafe {
        let x = x.add(sell.blocks[0].base);
        // A map is small: it stays in the cache for all channels.
        for group in &sell.groups {
            let stored = (weights, offsets);
            for column in 0..walk.columns {
                for part in (0..VECTOR).step_by(S::N) {
                    let mut x = x.add(column * walk.x_column + part);
                    let mut y = y.add((column * VECTOR + part) / per_row);
                    for &rows in &walk.strips {
                        match rows {
                            6 => strip::<S, O, UNIT, 6>(group, stored, x, y, walk, bounds),
                            5 => strip::<S, O, UNIT, 5>(group, stored, x, y, walk, bounds),
                            4 => strip::<S, O, UNIT, 4>(group, stored, x, y, walk, bounds),
                            3 => strip::<S, O, UNIT, 3>(group, stored, x, y, walk, bounds),
                            2 => strip::<S, O, UNIT, 2>(group, stored, x, y, walk, bounds),
                            _ => strip::<S, O, UNIT, 1>(group, stored, x, y, walk, bounds),
                        }
                        // Behind the last strip there may be nothing.
                        x = x.wrapping_add(rows * walk.x_row);
                        y = y.wrapping_add(rows / per_row * walk.pitch());
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
    walk: &Walk,
    bounds: Bounds,
) {
    // SAFETY: `x` and `y` by the contract of `run`; weights and offsets are those of the group.
    unsafe {
        let (low, high) = (S::splat(bounds.min), S::splat(bounds.max));
        let pitch = walk.pitch();
        let mut xs = [x; T];
        for t in 0..T {
            xs[t] = x.add(t * walk.x_row);
        }
        let mut acc = biases::<S, T>(group);
        let last = offsets.add(group.steps as usize);
        multiply_add::<S, O, UNIT, T>(&mut weights, &mut offsets, last, xs, &mut acc);
        for r in 0..4 {
            let y = y.add(group.rows[r] as usize);
            if !walk.pooled {
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
        work.sparse_conv(costs, 1)
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
