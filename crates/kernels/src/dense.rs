//! Dense twins of the sparse kernels for linear layers: the honest baseline, and what runs where sparse loses.

use sparsevd_model::Dense;

use crate::activation::Bounds;
use crate::gemm::{View, gemm};
use crate::isa::multiversion;
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Activation, Buffer, Isa, LANES};

pub use crate::dense_conv::Conv;

/// A dense matrix for one vector at a time.
///
/// # Invariants
/// - `weight` has `bias.len()` rows of `pitch` elements, `pitch` being `cols` rounded up to sixteen; the rest of a row is zero
#[derive(Debug, Clone)]
pub struct Gemv {
    isa: Isa,
    cols: usize,
    pitch: usize,
    weight: Buffer,
    bias: Vec<f32>,
}

impl Gemv {
    /// Takes `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (rows, cols) = weight.shape.matrix();
        let pitch = cols.next_multiple_of(16);
        let mut padded = Buffer::zeroed(rows * pitch);
        if cols > 0 {
            let from = weight.values.chunks_exact(cols);
            for (to, from) in padded.chunks_exact_mut(pitch).zip(from) {
                to[..cols].copy_from_slice(from);
            }
        }
        Self {
            isa,
            cols,
            pitch,
            weight: padded,
            bias: bias_or_zero(bias, rows),
        }
    }

    /// `y = act(W x + b)`.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], act: Activation) {
        assert_eq!(x.len(), self.cols, "elements of x");
        assert_eq!(y.len(), self.bias.len(), "elements of y");
        // SAFETY: lengths were just checked, the rest are the type's invariants.
        unsafe { dot_rows(self.isa, self, x, y, act.bounds()) };
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        match self.isa.name() {
            "avx512" => "avx512-gemv-f32-4x1",
            "avx2" => "avx2-gemv-f32-4x1",
            "neon" => "neon-gemv-f32-4x1",
            _ => "scalar-gemv-f32-4x1",
        }
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

/// Four rows at a time share each load of `x`.
#[inline(always)]
unsafe fn dot_rows_body<S: Simd>(w: &Gemv, x: &[f32], y: &mut [f32], bounds: Bounds) {
    let whole = w.cols / 16 * 16;
    let mut tail = [0.0; 16];
    tail[..w.cols - whole].copy_from_slice(&x[whole..]);
    let mut row = 0;
    while row < y.len() {
        let n = (y.len() - row).min(4);
        // SAFETY: rows below `y.len()`, columns below `pitch`; `x` has `whole` elements, `tail` sixteen.
        unsafe {
            let mut rows = [w.weight.as_ptr(); 4];
            for (i, start) in rows.iter_mut().enumerate() {
                // Rows past the last repeat it.
                *start = start.add((row + i.min(n - 1)) * w.pitch);
            }
            let zero = S::splat(0.0);
            let (mut even, mut odd) = ([zero; 4], [zero; 4]);
            let mut c = 0;
            while c + 2 * S::N <= whole {
                let (a, b) = (
                    S::load(x.as_ptr().add(c)),
                    S::load(x.as_ptr().add(c + S::N)),
                );
                for i in 0..4 {
                    even[i] = S::fma(a, S::load(rows[i].add(c)), even[i]);
                    odd[i] = S::fma(b, S::load(rows[i].add(c + S::N)), odd[i]);
                }
                c += 2 * S::N;
            }
            while c < w.pitch {
                let from = if c < whole {
                    x.as_ptr().add(c)
                } else {
                    tail.as_ptr().add(c - whole)
                };
                let a = S::load(from);
                for i in 0..4 {
                    even[i] = S::fma(a, S::load(rows[i].add(c)), even[i]);
                }
                c += S::N;
            }
            for i in 0..n {
                let mut lanes = [0.0; 16];
                S::store(lanes.as_mut_ptr(), S::fma(S::splat(1.0), even[i], odd[i]));
                // Halves onto each other, which vectorises; lanes past `N` are zero.
                for half in [8, 4, 2, 1] {
                    for lane in 0..half {
                        lanes[lane] += lanes[lane + half];
                    }
                }
                y[row + i] = bounds.apply(w.bias[row + i] + lanes[0]);
            }
        }
        row += n;
    }
}

/// A dense matrix for batches of row-major samples, through `gemm-f32`.
#[derive(Debug, Clone)]
pub struct Linear {
    isa: Isa,
    weight: Dense,
    bias: Vec<f32>,
}

impl Linear {
    /// Takes `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (rows, _) = weight.shape.matrix();
        Self {
            isa,
            weight: weight.clone(),
            bias: bias_or_zero(bias, rows),
        }
    }

    /// `y = act(x W^T + b)` over `x` = `[n][in]` into `y` = `[n][out]`. Threads may take samples of one batch each.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, act: Activation) {
        let (rows, cols) = self.weight.shape.matrix();
        assert_eq!(x.len(), n * cols, "elements of x");
        assert_eq!(y.len(), n * rows, "elements of y");
        if rows == 0 {
            return;
        }
        let weight = View::row_major(&self.weight.values, rows, cols);
        gemm(y, rows, View::row_major(x, n, cols), weight.t(), false);
        finish_samples(self.isa, y, &self.bias, act.bounds());
    }

    /// `y = act(W x + b)` over `x` = `[tiles][in][16]` into `y` = `[tiles][out][16]`.
    ///
    /// This is the faster form: `gemm-f32` reads all three matrices as they lie, without packing, and comes near the peak of the core.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run_tiled(&self, x: &[f32], y: &mut [f32], tiles: usize, act: Activation) {
        /// Weights of a block of rows, which stays in the second-level cache while all tiles use it.
        const BLOCK: usize = 96 * 1024;
        let (rows, cols) = self.weight.shape.matrix();
        assert_eq!(x.len(), tiles * cols * LANES, "elements of x");
        assert_eq!(y.len(), tiles * rows * LANES, "elements of y");
        let block = (BLOCK / cols.max(1)).next_multiple_of(LANES).max(LANES);
        for first in (0..rows).step_by(block) {
            let n = block.min(rows - first);
            let weight = View::row_major(&self.weight.values[first * cols..][..n * cols], n, cols);
            let bias = &self.bias[first..][..n];
            for t in 0..tiles {
                let x = View::row_major(&x[t * cols * LANES..][..cols * LANES], cols, LANES);
                let y = &mut y[(t * rows + first) * LANES..][..n * LANES];
                gemm(y, LANES, weight, x, false);
                finish_rows(self.isa, y, bias, act.bounds());
            }
        }
    }

    /// `{isa}-{format}-{dtype}`, where the instruction set is the best that `gemm-f32` finds.
    pub fn name(&self) -> &'static str {
        "best-gemm-f32"
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.values.len() + self.bias.len()) * 4
    }
}

multiversion!(fn finish_samples(y: &mut [f32], bias: &[f32], bounds: Bounds) = finish_samples_body;);

multiversion!(fn finish_rows(y: &mut [f32], bias: &[f32], bounds: Bounds) = finish_rows_body;);

#[inline(always)]
fn finish_rows_body(y: &mut [f32], bias: &[f32], bounds: Bounds) {
    for (row, b) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(bias) {
        for y in row {
            *y = bounds.apply(*y + b);
        }
    }
}

#[inline(always)]
fn finish_samples_body(y: &mut [f32], bias: &[f32], bounds: Bounds) {
    for sample in y.chunks_exact_mut(bias.len()) {
        for (y, b) in sample.iter_mut().zip(bias) {
            *y = bounds.apply(*y + b);
        }
    }
}
