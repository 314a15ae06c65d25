//! Attention over [`Layout::Single`](crate::Layout::Single), in blocks of queries and keys.
//!
//! The softmax is computed online (Milakov and Gimelshein 2018): each query has a running maximum of its scores, and what was summed before a larger
//! one came is scaled down by the exponential of their difference. So there is never a matrix of all scores.

use crate::cost::Costs;
use crate::exponential::exp;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::simd::{Simd, simd_dispatch};
use crate::{Isa, length};

/// Queries of a block: keys and values are packed once for all of them.
const QUERIES: usize = 64;

/// Keys of a block, a multiple of [`GROUP`].
const KEYS: usize = 64;

/// Queries that share each load of a key or value.
const TILE: usize = 4;

/// What columns are padded to: two vectors of the widest instruction set.
const GROUP: usize = 32;

/// `softmax(q k^T / sqrt(w)) v` in each head of width `w`, for queries, keys and values `[n, d]` with any number of vectors.
#[derive(Debug, Clone)]
pub struct Attention {
    isa: Isa,
    heads: usize,
    /// Columns of a head.
    width: usize,
    /// [`Attention::width`] in whole groups.
    padded: usize,
    scratch_len: usize,
}

impl Attention {
    /// Attention with `heads` heads of `width` columns each.
    ///
    /// # Panics
    /// When either is 0, or no slice can hold the blocks of a head.
    #[track_caller]
    pub fn new(isa: Isa, heads: usize, width: usize) -> Self {
        assert!(heads > 0 && width > 0, "heads and their width");
        length::planned("a vector", [heads, width]);
        // Whole groups of it are at most `GROUP` times as many.
        length::planned("a block of a head", [width, GROUP, KEYS + 3 * QUERIES]);
        let padded = width.next_multiple_of(GROUP);
        Self {
            isa,
            heads,
            width,
            padded,
            scratch_len: Blocks::lengths(width, padded).iter().sum(),
        }
    }

    /// Writes to `y` the attention of `n` samples, of whose vectors `q`, `k` and `v` hold equally many; of one sample, `q` may hold any number. `scratch` holds at
    /// least [`PackedKernel::scratch_len`] numbers.
    ///
    /// # Panics
    /// When the lengths do not fit together.
    #[track_caller]
    pub fn run(&self, [q, k, v]: [&[f32]; 3], y: &mut [f32], n: usize, scratch: &mut [f32]) {
        let d = self.heads * self.width;
        let vectors = |x: &[f32]| (x.len() / d).checked_div(n).unwrap_or(0);
        let keys = vectors(k);
        let queries = if n == 1 { vectors(q) } else { keys };
        length::check("the queries", q.len(), [n, queries, d]);
        length::check("the keys", k.len(), [n, keys, d]);
        length::check("the values", v.len(), [k.len()]);
        length::check("y", y.len(), [q.len()]);
        length::check_at_least("scratch", scratch.len(), self.scratch_len);
        if q.is_empty() {
            return;
        }
        let mut blocks = Blocks::new(scratch, self.width, self.padded);
        for (sample, y) in y.chunks_exact_mut(queries * d).enumerate() {
            let q = &q[sample * y.len()..][..y.len()];
            let [k, v] = [k, v].map(|x| &x[sample * keys * d..][..keys * d]);
            let rows = Rows {
                q,
                k,
                v,
                d,
                width: self.width,
            };
            for head in 0..self.heads {
                // SAFETY: `Blocks::new` cut the blocks for heads of this width.
                unsafe { head_of(self.isa, &rows, head, y, &mut blocks) };
            }
        }
    }
}

/// Queries, keys and values of a sample, or some of its queries.
struct Rows<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    d: usize,
    width: usize,
}

impl Rows<'_> {
    fn queries(&self) -> usize {
        self.q.len() / self.d
    }

    fn keys(&self) -> usize {
        self.k.len() / self.d
    }

    /// What a head reads of vector number `i` of some of them.
    #[inline(always)]
    fn row<'x>(&self, x: &'x [f32], i: usize, head: usize) -> &'x [f32] {
        &x[i * self.d + head * self.width..][..self.width]
    }
}

/// The block that is computed, of one head.
///
/// # Invariants
/// The slices have the lengths of [`Blocks::lengths`] for `width` and `padded`, which is a multiple of [`GROUP`] and at least `width`.
struct Blocks<'a> {
    width: usize,
    padded: usize,
    /// Queries over the root of the width: `[QUERIES][width]`.
    q: &'a mut [f32],
    /// Keys, transposed: `[width][KEYS]`.
    k: &'a mut [f32],
    /// Values: `[KEYS][padded]`.
    v: &'a mut [f32],
    /// Scores of a tile of queries, and then their exponentials: `[TILE][KEYS]`.
    scores: &'a mut [f32],
    /// Weighted sums of values so far: `[QUERIES][padded]`.
    sums: &'a mut [f32],
    /// The largest score of each query so far.
    largest: &'a mut [f32],
    /// The sum of exponentials of each query so far.
    totals: &'a mut [f32],
}

impl<'a> Blocks<'a> {
    /// Lengths of the slices, in their order.
    fn lengths(width: usize, padded: usize) -> [usize; 7] {
        [
            QUERIES * width,
            width * KEYS,
            KEYS * padded,
            TILE * KEYS,
            QUERIES * padded,
            QUERIES,
            QUERIES,
        ]
    }

    fn new(mut scratch: &'a mut [f32], width: usize, padded: usize) -> Self {
        let [q, k, v, scores, sums, largest, totals] = Self::lengths(width, padded).map(|len| {
            let (first, rest) = std::mem::take(&mut scratch).split_at_mut(len);
            scratch = rest;
            first
        });
        // Columns behind the width are multiplied and never read.
        v.fill(0.0);
        Self {
            width,
            padded,
            q,
            k,
            v,
            scores,
            sums,
            largest,
            totals,
        }
    }

    /// Packs the queries from `first` on, zeros behind the last one of a tile, and begins their sums. Returns their number.
    #[inline(always)]
    fn take_queries(&mut self, rows: &Rows<'_>, head: usize, first: usize) -> usize {
        let count = QUERIES.min(rows.queries() - first);
        let scale = 1.0 / (self.width as f32).sqrt();
        let mut packed = self.q.chunks_exact_mut(self.width);
        for (i, q) in packed.by_ref().take(count).enumerate() {
            for (q, x) in q.iter_mut().zip(rows.row(rows.q, first + i, head)) {
                *q = x * scale;
            }
        }
        packed
            .take(count.next_multiple_of(TILE) - count)
            .for_each(|q| q.fill(0.0));
        self.sums[..count.next_multiple_of(TILE) * self.padded].fill(0.0);
        self.largest.fill(f32::NEG_INFINITY);
        self.totals.fill(0.0);
        count
    }

    /// Packs the keys from `first` on, zeros behind them up to a whole group, and their values. Returns their number.
    #[inline(always)]
    fn take_keys(&mut self, rows: &Rows<'_>, head: usize, first: usize) -> usize {
        let count = KEYS.min(rows.keys() - first);
        for i in 0..count {
            let row = rows.row(rows.k, first + i, head);
            for (column, x) in self.k.chunks_exact_mut(KEYS).zip(row) {
                column[i] = *x;
            }
        }
        let behind = count..count.next_multiple_of(GROUP);
        for column in self.k.chunks_exact_mut(KEYS) {
            column[behind.clone()].fill(0.0);
        }
        for (i, v) in self.v.chunks_exact_mut(self.padded).take(count).enumerate() {
            v[..self.width].copy_from_slice(rows.row(rows.v, first + i, head));
        }
        count
    }

    /// Turns the scores of the queries from `first` on into their exponentials, without their running maximum. Returns by how much what was
    /// summed before must be scaled down.
    #[inline(always)]
    fn exponentials(&mut self, first: usize, keys: usize) -> [f32; TILE] {
        let mut factors = [0.0; TILE];
        let padded = keys.next_multiple_of(GROUP);
        for (i, scores) in self.scores.chunks_exact_mut(KEYS).enumerate() {
            let scores = &mut scores[..padded];
            scores[keys..].fill(f32::NEG_INFINITY);
            let (largest, total) = (&mut self.largest[first + i], &mut self.totals[first + i]);
            let mut lanes = [*largest; GROUP];
            for group in scores.chunks_exact(GROUP) {
                for (m, s) in lanes.iter_mut().zip(group) {
                    *m = if *s > *m { *s } else { *m };
                }
            }
            let max = joined(lanes, |a, b| if b > a { b } else { a });
            // Without a finite score so far, each exponential is 0.
            let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
            let mut sums = [0.0; GROUP];
            for group in scores.chunks_exact_mut(GROUP) {
                for (s, sum) in group.iter_mut().zip(&mut sums) {
                    *s = exp(*s - shift);
                    *sum += *s;
                }
            }
            factors[i] = exp(*largest - shift);
            *total = *total * factors[i] + joined(sums, |a, b| a + b);
            *largest = max;
        }
        factors
    }
}

/// All numbers as one, halves with halves: a loop over them one by one would wait for each.
#[inline(always)]
fn joined(mut numbers: [f32; GROUP], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = GROUP / 2;
    while half > 0 {
        for i in 0..half {
            numbers[i] = join(numbers[i], numbers[i + half]);
        }
        half /= 2;
    }
    numbers[0]
}

simd_dispatch!(
    /// # Safety
    /// `blocks` keeps its invariants.
    unsafe fn head_of(
        rows: &Rows<'_>, head: usize, y: &mut [f32], blocks: &mut Blocks<'_>,
    ) = head_body;
);

/// # Safety
/// As of [`head_of`], inlined where the instruction set is enabled.
#[inline(always)]
unsafe fn head_body<S: Simd>(rows: &Rows<'_>, head: usize, y: &mut [f32], blocks: &mut Blocks<'_>) {
    for query in (0..rows.queries()).step_by(QUERIES) {
        let queries = blocks.take_queries(rows, head, query);
        for key in (0..rows.keys()).step_by(KEYS) {
            let keys = blocks.take_keys(rows, head, key);
            for first in (0..queries).step_by(TILE) {
                // SAFETY: `first + TILE` is at most `QUERIES`, which `TILE` divides, and `keys` at most `KEYS`.
                unsafe {
                    scores::<S>(blocks, first, keys);
                    let factors = blocks.exponentials(first, keys);
                    sums::<S>(blocks, first, keys, factors);
                }
            }
        }
        for i in 0..queries {
            let at = (query + i) * rows.d + head * rows.width;
            let total = blocks.totals[i];
            let sums = &blocks.sums[i * blocks.padded..][..rows.width];
            for (y, sum) in y[at..][..rows.width].iter_mut().zip(sums) {
                *y = sum / total;
            }
        }
    }
}

/// The scores of a tile of queries with the keys of the block.
///
/// # Safety
/// `first + TILE <= QUERIES` and `keys <= KEYS`; the instruction set of `S` is enabled.
#[inline(always)]
unsafe fn scores<S: Simd>(blocks: &mut Blocks<'_>, first: usize, keys: usize) {
    let width = blocks.width;
    let (q, k) = (blocks.q.as_ptr(), blocks.k.as_ptr());
    let to = blocks.scores.as_mut_ptr();
    for key in (0..keys).step_by(2 * S::N) {
        // SAFETY: `key + 2 N` is at most `KEYS`, a multiple of `2 N`, so that vectors lie within a row of `k` and of `scores`; there are `QUERIES`
        // rows of `width` numbers in `q`, `width` rows in `k` and `TILE` rows in `scores`, by the invariants.
        unsafe {
            let mut sums = [[S::splat(0.0); 2]; TILE];
            for column in 0..width {
                let k = k.add(column * KEYS + key);
                let k = [S::load(k), S::load(k.add(S::N))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let q = S::splat(*q.add((first + i) * width + column));
                    *sums = [S::fma(q, k[0], sums[0]), S::fma(q, k[1], sums[1])];
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let to = to.add(i * KEYS + key);
                S::store(to, sums[0]);
                S::store(to.add(S::N), sums[1]);
            }
        }
    }
}

/// Scales the sums of a tile of queries by `factors` and adds the values of the block, each times its exponential.
///
/// # Safety
/// As of [`scores`].
#[inline(always)]
unsafe fn sums<S: Simd>(blocks: &mut Blocks<'_>, first: usize, keys: usize, factors: [f32; TILE]) {
    let padded = blocks.padded;
    let (weights, v) = (blocks.scores.as_ptr(), blocks.v.as_ptr());
    let to = blocks.sums.as_mut_ptr();
    for column in (0..padded).step_by(2 * S::N) {
        // SAFETY: `column + 2 N` is at most `padded`, a multiple of `2 N`, so that vectors lie within a row of `v` and of `sums`; there are `KEYS` rows in
        // `v`, `QUERIES` rows in `sums` and `TILE` rows of `KEYS` numbers in `scores`, by the invariants.
        unsafe {
            let mut sums = [[S::splat(0.0); 2]; TILE];
            for key in 0..keys {
                let v = v.add(key * padded + column);
                let v = [S::load(v), S::load(v.add(S::N))];
                for (i, sums) in sums.iter_mut().enumerate() {
                    let weight = S::splat(*weights.add(i * KEYS + key));
                    *sums = [S::fma(weight, v[0], sums[0]), S::fma(weight, v[1], sums[1])];
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let to = to.add((first + i) * padded + column);
                let factor = S::splat(factors[i]);
                S::store(to, S::fma(factor, S::load(to), sums[0]));
                let to = to.add(S::N);
                S::store(to, S::fma(factor, S::load(to), sums[1]));
            }
        }
    }
}

impl PackedKernel for Attention {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            x2,
            x3,
            y,
            scratch,
            n,
            ..
        } = operands;
        let Some(values) = x3 else {
            panic!("elements of the values: expected a third input, got none");
        };
        self.run([x, x2.unwrap_or(x), values], y, n, scratch);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Queries(self.heads * self.width))
    }

    fn name(&self) -> String {
        crate::isa::kernel_name!(self.isa.level(), "attention-f32-4").into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let vectors = work.elements / (self.heads * self.width);
        // Each score and each sum is as many multiply-adds as a head has columns.
        let multiply_adds = 2 * vectors * work.elements;
        work.each(multiply_adds as f64 * costs.dense_conv)
    }

    fn scratch_len(&self) -> usize {
        self.scratch_len
    }
}
