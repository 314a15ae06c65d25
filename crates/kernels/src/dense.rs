//! Dense kernels for linear layers: the baseline of the sparse kernels, and their replacement where those are slower.
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use sparsevd_model::Dense;

use crate::clamp::Bounds;
use crate::cost::Costs;
use crate::gemm::{View, gemm};
use crate::isa::{kernel_name, multiversion};
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload, each_sample};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Buffer, Clamp, Isa, LANES, length, tiles};

pub use crate::dense_conv::Conv;

/// A dense matrix packed for one vector at a time.
///
/// Four rows are interleaved in lines of sixteen floats, so that a run reads memory sequentially.
///
/// # Invariants
/// - `weight` has four times `lines` lines of sixteen floats for each group of four rows; rows and columns past the last are zero
#[derive(Debug, Clone)]
pub struct Gemv {
    isa: Isa,
    cols: usize,
    lines: usize,
    weight: Buffer,
    bias: Vec<f32>,
}

/// Rows that share each load of the input.
const ROWS: usize = 4;
/// Floats of a line.
const LINE: usize = 16;

impl Gemv {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (rows, cols) = weight.shape.matrix();
        let lines = cols.div_ceil(LINE);
        let mut packed = Buffer::zeroed(rows.div_ceil(ROWS) * lines * ROWS * LINE);
        for row in 0..rows {
            for (line, from) in weight.values[row * cols..(row + 1) * cols]
                .chunks(LINE)
                .enumerate()
            {
                let at = ((row / ROWS * lines + line) * ROWS + row % ROWS) * LINE;
                packed[at..at + from.len()].copy_from_slice(from);
            }
        }
        Self {
            isa,
            cols,
            lines,
            weight: packed,
            bias: bias_or_zero(bias, rows),
        }
    }

    /// `y = clamp(W x + b)` for one vector: `x` is `[in]`, `y` `[out]`.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], clamp: Clamp) {
        length::check("x", x.len(), [self.cols]);
        length::check("y", y.len(), [self.bias.len()]);
        // SAFETY: `x` and `y` were just checked to have one element per column and per row.
        unsafe { dot_rows(self.isa, self, x, y, clamp.bounds()) };
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        kernel_name!(self.isa.level(), "gemv-f32-4x1")
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }
}

simd_dispatch! {
    /// # Safety
    /// `x` has one element per column, `y` one per row.
    unsafe fn dot_rows(w: &Gemv, x: &[f32], y: &mut [f32], bounds: Bounds) = dot_rows_body;
}

#[inline(always)]
unsafe fn dot_rows_body<S: Simd>(w: &Gemv, x: &[f32], y: &mut [f32], bounds: Bounds) {
    let whole = w.cols / LINE;
    let mut tail = [0.0; LINE];
    tail[..w.cols - whole * LINE].copy_from_slice(&x[whole * LINE..]);
    let mut weight = w.weight.as_ptr();
    for (y, bias) in y.chunks_mut(ROWS).zip(w.bias.chunks(ROWS)) {
        // SAFETY: `weight` has four times `lines` lines for each group of four rows (invariants); `x` has `whole` lines and `tail` has one.
        unsafe {
            // Two sets of sums, to hide the latency of a multiply-add.
            let zero = S::splat(0.0);
            let (mut even, mut odd) = ([zero; ROWS], [zero; ROWS]);
            let mut from = x.as_ptr();
            for _ in 0..whole / 2 {
                for part in 0..LINE / S::N {
                    let (a, b) = (
                        S::load(from.add(part * S::N)),
                        S::load(from.add(LINE + part * S::N)),
                    );
                    for i in 0..ROWS {
                        even[i] = S::fma(a, S::load(weight.add(i * LINE + part * S::N)), even[i]);
                    }
                    for i in 0..ROWS {
                        odd[i] = S::fma(
                            b,
                            S::load(weight.add((ROWS + i) * LINE + part * S::N)),
                            odd[i],
                        );
                    }
                }
                weight = weight.add(2 * ROWS * LINE);
                from = from.add(2 * LINE);
            }
            for line in whole / 2 * 2..w.lines {
                let from = if line < whole { from } else { tail.as_ptr() };
                for part in 0..LINE / S::N {
                    let a = S::load(from.add(part * S::N));
                    for i in 0..ROWS {
                        even[i] = S::fma(a, S::load(weight.add(i * LINE + part * S::N)), even[i]);
                    }
                }
                weight = weight.add(ROWS * LINE);
            }
            for i in 0..y.len() {
                let sum = S::sum(S::fma(S::splat(1.0), even[i], odd[i]));
                y[i] = bounds.apply(bias[i] + sum);
            }
        }
    }
}

/// A dense matrix for tiles of samples, multiplied by `gemm-f32`.
#[derive(Debug, Clone)]
pub struct Linear {
    isa: Isa,
    cols: usize,
    /// `[out][in]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Linear {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (rows, cols) = weight.shape.matrix();
        Self {
            isa,
            cols,
            weight: weight.values.clone(),
            bias: bias_or_zero(bias, rows),
        }
    }

    /// Rows `first..first + n` of the matrix.
    fn part(&self, first: usize, n: usize) -> View<'_> {
        View::row_major(&self.weight[first * self.cols..], n, self.cols)
    }

    /// `y = clamp(W x + b)`: `x` is `[tiles][in][16]`, `y` `[tiles][out][16]`.
    ///
    /// `gemm-f32` reads all three matrices in place.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], tiles: usize, clamp: Clamp) {
        /// Weights of a block of rows, which stay in the second-level cache while all tiles use them.
        const BLOCK: usize = 96 * 1024;
        let (rows, cols) = (self.bias.len(), self.cols);
        length::check("x", x.len(), [tiles, cols, LANES]);
        length::check("y", y.len(), [tiles, rows, LANES]);
        let block = (BLOCK / cols.max(1)).next_multiple_of(LANES).max(LANES);
        for first in (0..rows).step_by(block) {
            let n = block.min(rows - first);
            let weight = self.part(first, n);
            let bias = &self.bias[first..][..n];
            for t in 0..tiles {
                let x = View::row_major(&x[t * cols * LANES..][..cols * LANES], cols, LANES);
                let y = &mut y[(t * rows + first) * LANES..][..n * LANES];
                gemm(y, LANES, weight, x, false);
                finish_rows(self.isa, y, bias, clamp.bounds());
            }
        }
    }

    /// `{isa}-{format}-{dtype}`, where the instruction set is the best that `gemm-f32` finds.
    pub fn name(&self) -> &'static str {
        "best-gemm-f32"
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }
}

multiversion!(fn finish_rows(y: &mut [f32], bias: &[f32], bounds: Bounds) = finish_rows_body;);

#[inline(always)]
fn finish_rows_body(y: &mut [f32], bias: &[f32], bounds: Bounds) {
    for (row, b) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(bias) {
        for y in row {
            *y = bounds.apply(*y + b);
        }
    }
}

impl PackedKernel for Gemv {
    fn run(&self, operands: Operands<'_>) {
        each_sample(operands.x, operands.y, operands.n, |x, y| {
            Self::run(self, x, y, operands.clamp);
        });
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.each(costs.gemv(work.size))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}

impl PackedKernel for Linear {
    fn run(&self, operands: Operands<'_>) {
        Self::run(
            self,
            operands.x,
            operands.y,
            tiles(operands.n),
            operands.clamp,
        );
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Samples(LANES))
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| costs.gemm(work.size, n))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}
