//! A matrix of bytes times a vector.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use sparsevd_model::{Csr, Int8Grid, Int8Input};

use super::dot::{self, Dot, Task};
use super::grid::Grid;
use super::lanes::{Lanes, SAMPLES};
use super::linear::bytes;
use super::lines::{largest, scale_of};
use super::maps::{QuantizeLines, byte_of_lane, floats_for};
use super::quantization::{Quantization, RowConstants, unpack_rows};
use super::spans::{Spans, VECTORS};
use super::stored::{All, Cursor, Nonzeros, Stored, Weights};
use crate::clamp::Bounds;
use crate::cost::{Costs, LOOK_UP};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::simd::Simd;
use crate::{Clamp, LANES, length};

/// Blocks of rows that are computed at once, so that sums of one do not wait for themselves.
const BLOCKS: usize = 4;

/// Where vectors begin in scratch: at cache lines, so that no load of a span is from two.
const ALIGNMENT: usize = 64;

/// A linear layer over [`Layout::Single`](crate::Layout::Single) that quantises its input, multiplies int8 and writes floats.
///
/// Sums are vectors of rows. Where an instruction looks bytes up and enough weights are zero, the others are multiplied alone (`spans.rs`). Elsewhere four bytes
/// of input, broadcast, are added to each sum at a time: all weights of the rows are multiplied, zero or not. Where reading them takes the time, and most are
/// zero, they are stored without zeros.
///
/// # Invariants
/// - there are weights for whole blocks of rows and whole lines of inputs, and a start, a scale and an offset for each of these rows
#[derive(Debug, Clone)]
pub struct Spmv {
    dot: Dot,
    input: Int8Input,
    rows: usize,
    cols: usize,
    weights: Packed,
    constants: RowConstants,
}

/// Weights in the order of sums.
#[derive(Debug, Clone)]
enum Packed {
    /// Vectors of four weights of each row of a block.
    Fours(Stored),
    Spans(Spans<1>),
}

impl Packed {
    /// Packs rows, each with the places of its weights in the bytes of a vector, in ascending order.
    fn new(dot: Dot, rows: &[Vec<(u32, i8)>], places: usize) -> Self {
        /// Bytes of weights that stay in the second-level cache, and that a layer may hope for in the third.
        const CACHES: [usize; 2] = [1 << 18, 8 << 20];
        let all = length::planned("weights in bytes", [rows.len(), places, 1]);
        let nonzeros: usize = rows.iter().map(Vec::len).sum();
        // By measurement a step takes as long as 1.7 to 2.2 vectors of all weights beyond the first caches, and four in them. It has the bytes of two.
        let most = if all > CACHES[0] { all } else { all / 2 };
        // From memory, weights with a bit for each of all are faster where spans have more than 1.4 times as many bytes.
        let fewest = |spans: &Spans<1>| {
            let bitmask = all / 8 + nonzeros;
            spans.bytes() <= CACHES[1] || 5 * spans.bytes() <= 7 * bitmask
        };
        let spans = match dot.looks_up() {
            true => Spans::pack(rows, places, most).filter(fewest),
            false => None,
        };
        if let Some(spans) = spans {
            return Self::Spans(spans);
        }
        let block = dot.rows_at_once();
        let mut weights = vec![0_i8; all];
        for (i, row) in rows.iter().enumerate() {
            for &(place, weight) in row {
                let vector = i / block * (places / 4) + place as usize / 4;
                weights[(vector * block + i % block) * 4 + place as usize % 4] = weight;
            }
        }
        Self::Fours(Stored::new(dot, &weights, places * block))
    }

    /// Bytes of memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Fours(stored) => stored.bytes(),
            Self::Spans(spans) => spans.bytes(),
        }
    }

    /// Products of a vector of `places` bytes with `rows`, and what takes as long.
    fn loads(&self, rows: usize, places: usize) -> usize {
        match self {
            Self::Fours(stored) => rows * places * (1 + stored.load()),
            Self::Spans(spans) => LOOK_UP * spans.weights(),
        }
    }
}

impl Spmv {
    /// Packs `rows` of `levels`, `[out, in]`, whose values are integers from -128 to 127, for inputs that are quantised as `input` says. `quantization` is
    /// that of the whole matrix.
    ///
    /// # Panics
    /// When `rows` is out of range, `levels` has another value, a sum of a row may not fit in 32 bits, the zero points differ, or there is not one scale and
    /// one offset per row.
    #[track_caller]
    pub fn pack_rows(
        dot: Dot,
        levels: &Csr,
        input: impl Into<Int8Input>,
        quantization: Quantization<'_>,
        rows: Range<usize>,
    ) -> Self {
        let input = input.into();
        let zero_point = quantization.zero_point;
        assert_eq!(zero_point, input.zero_point(), "the zero point");
        let unpacked = unpack_rows(dot, levels, quantization, rows);
        let (block, cols) = (dot.rows_at_once(), levels.cols());
        // Bytes are in the order of lines.
        let place = |column: u32| {
            let (line, lane) = (column as usize / LANES, column as usize % LANES);
            (line * LANES + byte_of_lane(lane)) as u32
        };
        let mut weights: Vec<_> = unpacked.iter().map(|row| row.nonzeros(place)).collect();
        weights.resize(unpacked.len().next_multiple_of(block), Vec::new());
        Self {
            dot,
            input,
            rows: unpacked.len(),
            cols,
            weights: Packed::new(dot, &weights, cols.next_multiple_of(LANES)),
            constants: RowConstants::of(&unpacked, block),
        }
    }

    /// Lines of sixteen inputs.
    fn lines(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// Vectors that are multiplied at once, and the bytes of each.
    fn vectors(&self) -> (usize, usize) {
        match &self.weights {
            Packed::Fours(_) => (1, self.lines() * LANES),
            Packed::Spans(spans) => (VECTORS, spans.len()),
        }
    }

    /// Elements of scratch that a run needs: the bytes of vectors, and what aligns them.
    pub fn scratch_len(&self) -> usize {
        let (vectors, bytes) = self.vectors();
        floats_for(ALIGNMENT + vectors * bytes)
    }

    /// Expected nanoseconds of a vector, where weights are read from beyond the caches.
    pub fn ns(&self, costs: &Costs) -> f64 {
        let int8 = self.dot.costs(costs);
        let loads = self
            .weights
            .loads(self.constants.starts.len(), self.lines() * LANES);
        let products = loads as f64 * int8.spmv;
        let products = costs.unless_far(products, self.weights.bytes());
        products + self.cols as f64 * int8.quantize(self.input)
    }

    /// `y = clamp(sum * scale + offset)` for `n` vectors, `[n][cols]` to `[n][rows]`; where each has a scale, the scale of a row times that. `scratch` is
    /// overwritten.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`Spmv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        let (rows, cols) = (self.rows, self.cols);
        length::check("x", x.len(), [n, cols]);
        length::check("y", y.len(), [n, rows]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let scratch = bytes(scratch);
        let start = scratch.as_ptr().align_offset(ALIGNMENT);
        let scratch = &mut scratch[start..];
        let (together, bytes) = self.vectors();
        let mut first = 0;
        while first < n {
            // A few that are left over go one by one.
            let count = if n - first < together { 1 } else { together };
            let product = Product {
                spmv: self,
                count,
                x: &x[first * cols..][..count * cols],
                bytes: scratch[..count * bytes].as_mut_ptr(),
                y: &mut y[first * rows..][..count * rows],
                bounds: clamp.bounds(),
            };
            // SAFETY: as many vectors as there are sums for; `bytes` was just sliced.
            unsafe { dot::run(self.dot, product) };
            first += count;
        }
    }
}

/// A product with one vector or, with spans, [`VECTORS`]. `bytes` is writable for as many as [`Spmv::vectors`] says for each.
struct Product<'a> {
    spmv: &'a Spmv,
    count: usize,
    x: &'a [f32],
    bytes: *mut u8,
    y: &'a mut [f32],
    bounds: Bounds,
}

impl Task for Product<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait). Spans are only packed where bytes are looked up.
        unsafe {
            match (&self.spmv.weights, self.count) {
                (Packed::Fours(Stored::Dense(all)), _) => self.fours::<L, _>(All::of(all)),
                (Packed::Fours(Stored::Bitmask(nonzeros)), _) => {
                    self.fours::<L, _>(Nonzeros::of(nonzeros));
                }
                (Packed::Spans(spans), VECTORS) => self.spans::<L, VECTORS>(spans),
                (Packed::Spans(spans), _) => self.spans::<L, 1>(spans),
            }
        }
    }
}

impl Product<'_> {
    /// Vector `i`.
    fn vector(&self, i: usize) -> &[f32] {
        &self.x[i * self.spmv.cols..][..self.spmv.cols]
    }

    /// The grid of a vector, and what the scales of rows are multiplied by.
    ///
    /// # Safety
    /// The instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn grid<L: Lanes>(&self, x: &[f32]) -> (Grid, f32) {
        if let Some(grid) = self.spmv.input.grid() {
            return (grid.into(), 1.0);
        }
        let (whole, rest) = x.as_chunks::<LANES>();
        // SAFETY: whole lines; the instruction set is enabled (contract of this function).
        let lanes = unsafe { largest::<L>(whole.as_ptr().cast(), whole.len()) };
        let all = lanes.iter().chain(rest).map(|v| v.abs());
        let scale = scale_of(all.fold(0.0, crate::pool::larger));
        let grid = Int8Grid {
            scale,
            zero_point: self.spmv.input.zero_point(),
        };
        (grid.into(), scale)
    }

    /// Makes the bytes of vector `i`, those past its end any; where they are, and what the scales of rows are multiplied by.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn quantize<L: Lanes>(&self, i: usize) -> (*const u8, f32) {
        let to = self.bytes.wrapping_add(i * self.spmv.vectors().1);
        let x = self.vector(i);
        // SAFETY: by the contract of this function.
        let (grid, scale) = unsafe { self.grid::<L>(x) };
        let (whole, rest) = x.as_chunks::<LANES>();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let lines = |x: *const f32, first: usize, lines: usize| QuantizeLines {
            x,
            y: to.wrapping_add(first * LANES),
            lines,
            grid,
        };
        // SAFETY: by the contract of this function.
        unsafe {
            lines(x.as_ptr(), 0, whole.len()).run::<L>();
            if !rest.is_empty() {
                lines(last.as_ptr(), whole.len(), 1).run::<L>();
            }
        }
        (to, scale)
    }

    /// # Safety
    /// As [`Product::quantize`].
    #[inline(always)]
    unsafe fn fours<L: Lanes, W: Weights>(mut self, weights: W) {
        let blocks = self.spmv.constants.starts.len() / L::N;
        let together = blocks - blocks % BLOCKS;
        // SAFETY: by the contract of this function.
        unsafe {
            let (x, scale) = self.quantize::<L>(0);
            for block in (0..together).step_by(BLOCKS) {
                self.blocks::<L, W, BLOCKS>(block, x, weights, scale);
            }
            for block in together..blocks {
                self.blocks::<L, W, 1>(block, x, weights, scale);
            }
        }
    }

    /// # Safety
    /// As [`Product::quantize`]; there are these blocks, and `x` are the bytes.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, W: Weights, const B: usize>(
        &mut self,
        block: usize,
        x: *const u8,
        weights: W,
        scale: f32,
    ) {
        let spmv = self.spmv;
        let vectors = spmv.lines() * LANES / 4;
        // SAFETY: by the contract of this function, and the invariants of `Spmv`.
        unsafe {
            let mut sums = [L::splat(0); B];
            for b in 0..B {
                sums[b] = L::load(spmv.constants.starts.as_ptr().add((block + b) * L::N));
            }
            let mut cursors: [W::Cursor; B] =
                std::array::from_fn(|b| weights.part::<L>(block + b, vectors));
            for vector in 0..vectors {
                for b in 0..B {
                    let fours = cursors[b].next::<L>();
                    sums[b] = L::add_fours(sums[b], x.add(4 * vector), fours);
                }
            }
            for b in 0..B {
                self.store::<L>(0, block + b, sums[b], scale);
            }
        }
    }

    /// # Safety
    /// As [`Product::quantize`], there are `T` vectors, and bytes are looked up.
    #[inline(always)]
    unsafe fn spans<L: Lanes, const T: usize>(mut self, spans: &Spans<1>) {
        // SAFETY: by the contract of this function, and the invariants of `Spmv`.
        unsafe {
            let mut vectors = [(self.bytes.cast_const(), 1.0); T];
            for t in 0..T {
                vectors[t] = self.quantize::<L>(t);
            }
            for block in 0..self.spmv.constants.starts.len() / L::N {
                let starts = self.spmv.constants.starts.as_ptr().add(block * L::N);
                let [sums] = spans.sums::<L, T>(block, starts, vectors.map(|(x, _)| x));
                for t in 0..T {
                    self.store::<L>(t, block, sums[t], vectors[t].1);
                }
            }
        }
    }

    /// Writes the outputs of a block of rows for vector `i`, whose scale is `scale`.
    ///
    /// # Safety
    /// There are such a block and such a vector, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn store<L: Lanes>(&mut self, i: usize, block: usize, sums: L::Ints, scale: f32) {
        let (spmv, first) = (self.spmv, block * L::N);
        let mut floats = [0.0; SAMPLES / 4];
        // SAFETY: there are constants for each row of a block; the instruction set is enabled (contract of this function).
        unsafe {
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let [of_vector, none] = [scale, 0.0].map(|v| L::Floats::splat(v));
            let scale = L::Floats::load(spmv.constants.scales.as_ptr().add(first));
            let scale = L::fused(of_vector, scale, none);
            let offset = L::Floats::load(spmv.constants.offsets.as_ptr().add(first));
            let v = L::fused(L::floats(sums), scale, offset);
            L::Floats::store(floats.as_mut_ptr(), L::Floats::clamp(v, low, high));
        }
        let y = &mut self.y[i * spmv.rows..][..spmv.rows][first..];
        let count = y.len().min(L::N);
        y[..count].copy_from_slice(&floats[..count]);
    }
}

impl PackedKernel for Spmv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            scratch,
            n,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, n, scratch, clamp);
    }

    fn name(&self) -> String {
        let (format, blocks) = match &self.weights {
            Packed::Fours(stored) if stored.expands() => ("bitmask4", BLOCKS),
            Packed::Fours(_) => ("dense4", BLOCKS),
            Packed::Spans(_) => ("spans4", 1),
        };
        let rows = blocks * self.dot.rows_at_once();
        format!("{}-{format}-i8i8-{rows}x1", self.dot)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.each(self.ns(costs))
    }

    fn bytes(&self) -> usize {
        self.weights.bytes() + self.constants.bytes()
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        match &self.weights {
            Packed::Fours(stored) => stored.expands(),
            Packed::Spans(_) => true,
        }
    }

    fn is_int8(&self) -> bool {
        true
    }
}
