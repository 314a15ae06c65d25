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
use super::quantization::{Quantization, level, unpack};
use super::stored::{All, Cursor, Nonzeros, Stored, Weights};
use crate::clamp::Bounds;
use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::simd::Simd;
use crate::{Clamp, LANES, length};

/// Blocks of rows that are computed at once, so that sums of one do not wait for themselves.
const BLOCKS: usize = 4;

/// A linear layer over [`Layout::Single`](crate::Layout::Single) that quantises its input, multiplies int8 and writes floats.
///
/// Sums are vectors of rows, to which four bytes of input, broadcast, are added at a time: all weights of the rows are multiplied, zero or not. What takes
/// the time is reading them, so where most are zero they are stored without zeros.
///
/// # Invariants
/// - there are weights for whole blocks of rows and whole lines of inputs, and a start, a scale and an offset for each of these rows
#[derive(Debug, Clone)]
pub struct Spmv {
    dot: Dot,
    input: Int8Input,
    rows: usize,
    cols: usize,
    weights: Stored,
    starts: Vec<i32>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
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
        let (input, all) = (input.into(), levels.rows());
        quantization.check(all);
        let Quantization {
            zero_point,
            scale,
            offset,
        } = quantization;
        assert_eq!(zero_point, input.zero_point(), "the zero point");
        assert!(rows.end <= all, "rows {rows:?} of {all}");
        let (block, cols) = (dot.rows_at_once(), levels.cols());
        let padded = rows.len().next_multiple_of(block);
        let places = cols.next_multiple_of(LANES);
        length::planned("weights in bytes", [padded, places, 1]);
        let mut weights = vec![0_i8; padded * places];
        let mut starts = vec![0; padded];
        for (i, row) in rows.clone().enumerate() {
            let (columns, values) = levels.row(row);
            let entries = columns.iter().zip(values).map(|(&c, &v)| (c, level(v)));
            let constants = (scale[row], offset[row]);
            let row = unpack(dot, row, entries.collect(), zero_point, constants);
            starts[i] = row.start;
            for (column, weight) in row.entries {
                // Bytes are in the order of lines.
                let (line, lane) = (column as usize / LANES, column as usize % LANES);
                let place = line * LANES + byte_of_lane(lane);
                let vector = i / block * (places / 4) + place / 4;
                weights[(vector * block + i % block) * 4 + place % 4] = weight;
            }
        }
        let padded_with = |values: &[f32]| {
            let mut values = values[rows.clone()].to_vec();
            values.resize(padded, 0.0);
            values
        };
        Self {
            dot,
            input,
            rows: rows.len(),
            cols,
            weights: Stored::new(dot, &weights, places * block),
            starts,
            scales: padded_with(scale),
            offsets: padded_with(offset),
        }
    }

    /// Lines of sixteen inputs.
    fn lines(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// Elements of scratch that a run needs: the bytes of a vector.
    pub fn scratch_len(&self) -> usize {
        floats_for(self.lines() * LANES)
    }

    /// Expected nanoseconds of a vector, where weights are read from beyond the caches.
    pub fn ns(&self, costs: &Costs) -> f64 {
        let loads = self.starts.len() * self.lines() * LANES * (1 + self.weights.load());
        let int8 = self.dot.costs(costs);
        let products = costs.unless_far(loads as f64 * int8.spmv, self.weights.bytes());
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
        for i in 0..n {
            let x = &x[i * cols..][..cols];
            let product = Product {
                spmv: self,
                x,
                line: bytes(scratch).as_mut_ptr(),
                y: &mut y[i * rows..][..rows],
                bounds: clamp.bounds(),
            };
            // SAFETY: the scratch was just checked.
            unsafe { dot::run(self.dot, product) };
        }
    }
}

/// A product with one vector. `line` is writable for the bytes of its lines.
struct Product<'a> {
    spmv: &'a Spmv,
    x: &'a [f32],
    line: *mut u8,
    y: &'a mut [f32],
    bounds: Bounds,
}

impl Task for Product<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
        unsafe {
            let (grid, scale) = self.grid::<L>();
            self.quantize::<L>(grid);
            match &self.spmv.weights {
                Stored::Dense(all) => self.multiply::<L, _>(All::of(all), scale),
                Stored::Bitmask(nonzeros) => self.multiply::<L, _>(Nonzeros::of(nonzeros), scale),
            }
        }
    }
}

impl Product<'_> {
    /// The grid of the vector, and what the scales of rows are multiplied by.
    ///
    /// # Safety
    /// The instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn grid<L: Lanes>(&self) -> (Grid, f32) {
        if let Some(grid) = self.spmv.input.grid() {
            return (grid.into(), 1.0);
        }
        let (whole, rest) = self.x.as_chunks::<LANES>();
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

    /// Makes the bytes of the vector, those past its end any.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn quantize<L: Lanes>(&self, grid: Grid) {
        let (whole, rest) = self.x.as_chunks::<LANES>();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let lines = |x: *const f32, first: usize, lines: usize| QuantizeLines {
            x,
            y: self.line.wrapping_add(first * LANES),
            lines,
            grid,
        };
        // SAFETY: by the contract of this function.
        unsafe {
            lines(self.x.as_ptr(), 0, whole.len()).run::<L>();
            if !rest.is_empty() {
                lines(last.as_ptr(), whole.len(), 1).run::<L>();
            }
        }
    }

    /// # Safety
    /// As [`Product::quantize`], and the bytes are there.
    #[inline(always)]
    unsafe fn multiply<L: Lanes, W: Weights>(mut self, weights: W, scale: f32) {
        let blocks = self.spmv.starts.len() / L::N;
        let together = blocks - blocks % BLOCKS;
        // SAFETY: by the contract of this function.
        unsafe {
            for block in (0..together).step_by(BLOCKS) {
                self.blocks::<L, W, BLOCKS>(block, weights, scale);
            }
            for block in together..blocks {
                self.blocks::<L, W, 1>(block, weights, scale);
            }
        }
    }

    /// # Safety
    /// As [`Product::multiply`]; there are these blocks.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, W: Weights, const B: usize>(
        &mut self,
        block: usize,
        weights: W,
        scale: f32,
    ) {
        let spmv = self.spmv;
        let vectors = spmv.lines() * LANES / 4;
        // SAFETY: by the contract of this function, and the invariants of `Spmv`.
        unsafe {
            let mut sums = [L::splat(0); B];
            for b in 0..B {
                sums[b] = L::load(spmv.starts.as_ptr().add((block + b) * L::N));
            }
            let mut cursors: [W::Cursor; B] =
                std::array::from_fn(|b| weights.part::<L>(block + b, vectors));
            for vector in 0..vectors {
                for b in 0..B {
                    let fours = cursors[b].next::<L>();
                    sums[b] = L::add_fours(sums[b], self.line.add(4 * vector), fours);
                }
            }
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let [of_vector, none] = [scale, 0.0].map(|v| L::Floats::splat(v));
            for b in 0..B {
                let first = (block + b) * L::N;
                let scale = L::Floats::load(spmv.scales.as_ptr().add(first));
                let scale = L::fused(of_vector, scale, none);
                let offset = L::Floats::load(spmv.offsets.as_ptr().add(first));
                let v = L::fused(L::floats(sums[b]), scale, offset);
                let v = L::Floats::clamp(v, low, high);
                let mut floats = [0.0; SAMPLES / 4];
                L::Floats::store(floats.as_mut_ptr(), v);
                let y = &mut self.y[first..];
                let count = y.len().min(L::N);
                y[..count].copy_from_slice(&floats[..count]);
            }
        }
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
        let format = match self.weights.expands() {
            true => "bitmask4",
            false => "dense4",
        };
        format!(
            "{}-{format}-i8i8-{}x1",
            self.dot,
            BLOCKS * self.dot.rows_at_once()
        )
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.each(self.ns(costs))
    }

    fn bytes(&self) -> usize {
        let rows = size_of_val(&self.starts[..]) + size_of_val(&self.scales[..]);
        self.weights.bytes() + rows + size_of_val(&self.offsets[..])
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }

    fn is_sparse(&self) -> bool {
        self.weights.expands()
    }

    fn is_int8(&self) -> bool {
        true
    }
}
