//! Dense products with several vectors that lie one after the other: weights in panels, sums in registers.
//!
//! Over tiles ([`crate::dense::Linear`]) lanes are samples, of which the last tile has few where there are few. Here lanes are rows of the weight, so that any
//! number of samples fills them, and nothing is converted.

use std::array::from_fn;
use std::ops::Range;

use sparsevd_model::Dense;

use crate::clamp::Bounds;
use crate::cost::Costs;
use crate::isa::kernel_name;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::select::{panel_block, panel_tile};
use crate::simd::{Simd, simd_dispatch};
use crate::spmm::bias_or_zero;
use crate::{Buffer, Clamp, Isa, LANES, length};

/// A dense matrix in panels of up to three vectors of rows, for several input vectors at once.
///
/// A panel holds its weights column after column. A tile of up to eight samples goes through all columns of a panel with its sums in registers: each load of weights
/// is used by all of them, and each sum adds in the order of the columns, whatever the number of samples.
///
/// # Invariants
/// - `weight` has `cols` columns of `width` floats for each panel; `width` is that of its vectors, of which the last panel has as many as its rows need
/// - `bias` has one element for each of `rows`, and zeros up to a whole vector
#[derive(Debug, Clone)]
pub struct PanelGemm {
    isa: Isa,
    rows: usize,
    cols: usize,
    weight: Buffer,
    bias: Vec<f32>,
}

impl PanelGemm {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (rows, cols) = weight.shape.matrix();
        let lanes = isa.level().lanes();
        let [vectors, _] = panel_tile(isa.level());
        let mut bias = bias_or_zero(bias, rows);
        bias.resize(rows.next_multiple_of(lanes), 0.0);
        let mut packed = Buffer::zeroed(bias.len() * cols);
        let panel = vectors * lanes;
        for (row, values) in weight.values.chunks_exact(cols.max(1)).enumerate() {
            let first = row / panel * panel;
            let width = panel.min(bias.len() - first);
            let to = packed[first * cols + row - first..].iter_mut();
            for (to, value) in to.step_by(width).zip(values) {
                *to = *value;
            }
        }
        Self {
            isa,
            rows,
            cols,
            weight: packed,
            bias,
        }
    }

    /// `y = clamp(x W^T + b)`: `x` is `[n][in]`, `y` `[n][out]`.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, clamp: Clamp) {
        length::check("x", x.len(), [n, self.cols]);
        length::check("y", y.len(), [n, self.rows]);
        if y.is_empty() {
            return;
        }
        // SAFETY: `x` and `y` were just checked to have `n` times one element per column and per row.
        unsafe { product(self.isa, self, x, y, n, clamp.bounds()) };
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        match panel_tile(self.isa.level()) {
            [3, _] => kernel_name!(self.isa.level(), "panels-f32-3x8"),
            [2, _] => kernel_name!(self.isa.level(), "panels-f32-2x6"),
            _ => kernel_name!(self.isa.level(), "panels-f32-1x2"),
        }
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.len() + self.bias.len()) * 4
    }
}

simd_dispatch! {
    /// # Safety
    /// `x` has `n` times one element per column, `y` `n` times one per row.
    unsafe fn product(w: &PanelGemm, x: &[f32], y: &mut [f32], n: usize, bounds: Bounds) = product_body;
}

#[inline(always)]
unsafe fn product_body<S: Simd>(w: &PanelGemm, x: &[f32], y: &mut [f32], n: usize, bounds: Bounds) {
    let [vectors, most] = panel_tile(w.isa.level());
    let together = panel_block(w.cols).next_multiple_of(most);
    for block in (0..n).step_by(together) {
        let block = block..n.min(block + together);
        let tiles = block.len().div_ceil(most);
        for first in (0..w.rows).step_by(vectors * S::N) {
            let mut samples = block.clone();
            // Samples are divided evenly: ten are five and five, as of eight and two the two would wait for their sums.
            for tiles in (1..=tiles).rev() {
                let tile = samples.start..samples.start + samples.len().div_ceil(tiles);
                samples.start = tile.end;
                // SAFETY: the rows of a panel and some of the `n` samples; `x` and `y` are as long as that needs (contract).
                unsafe { panel::<S>(w, first, x, y, tile, bounds) };
            }
        }
    }
}

/// The sums of the panel whose first row is `first` for a tile of at most eight samples.
#[inline(always)]
unsafe fn panel<S: Simd>(
    w: &PanelGemm,
    first: usize,
    x: &[f32],
    y: &mut [f32],
    samples: Range<usize>,
    bounds: Bounds,
) {
    /// Calls [`tile`] with the number of vectors and samples as constants.
    macro_rules! tiles {
        ($vectors:literal, $($samples:literal)*) => {
            match samples.len() {
                $($samples => tile::<S, $vectors, $samples>(w, first, x, y, samples.start, bounds),)*
                n => unreachable!("a tile of {n} samples"),
            }
        };
    }
    let [vectors, _] = panel_tile(w.isa.level());
    // SAFETY: the contract of `tile` is that of this function.
    unsafe {
        match vectors.min((w.bias.len() - first) / S::N) {
            1 => tiles!(1, 1 2 3 4 5 6 7 8),
            2 => tiles!(2, 1 2 3 4 5 6 7 8),
            _ => tiles!(3, 1 2 3 4 5 6 7 8),
        }
    }
}

/// The sums of `V` vectors of rows, the first of which is `first`, for `T` samples.
#[inline(always)]
unsafe fn tile<S: Simd, const V: usize, const T: usize>(
    w: &PanelGemm,
    first: usize,
    x: &[f32],
    y: &mut [f32],
    sample: usize,
    bounds: Bounds,
) {
    // SAFETY: `weight` has `V` vectors for each column of this panel, behind those of `first` rows of all columns, and `bias` is padded to whole vectors
    // (invariants). `x` and `y` have the samples up to `sample + T`, each with an element per column and per row (contract); a vector of `y` that
    // ends after its row is stored elsewhere first.
    unsafe {
        let mut weight = w.weight.as_ptr().add(first * w.cols);
        let x: [_; T] = from_fn(|t| x.as_ptr().add((sample + t) * w.cols));
        let mut sums: [[S::V; V]; T] =
            [from_fn(|v| S::load(w.bias.as_ptr().add(first + v * S::N))); T];
        for column in 0..w.cols {
            let weights: [S::V; V] = from_fn(|v| S::load(weight.add(v * S::N)));
            weight = weight.add(V * S::N);
            for t in 0..T {
                let x = S::splat(*x[t].add(column));
                for v in 0..V {
                    sums[t][v] = S::fma(weights[v], x, sums[t][v]);
                }
            }
        }
        let [low, high] = [bounds.min, bounds.max].map(|b| S::splat(b));
        for (t, sums) in sums.into_iter().enumerate() {
            let y = y.as_mut_ptr().add((sample + t) * w.rows);
            for (v, sum) in sums.into_iter().enumerate() {
                let row = first + v * S::N;
                let sum = S::clamp(sum, low, high);
                if row + S::N <= w.rows {
                    S::store(y.add(row), sum);
                } else {
                    let mut lanes = [0.0; LANES];
                    S::store(lanes.as_mut_ptr(), sum);
                    y.add(row)
                        .copy_from_nonoverlapping(lanes.as_ptr(), w.rows - row);
                }
            }
        }
    }
}

impl PackedKernel for PanelGemm {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n, operands.clamp);
    }

    fn call_split(&self) -> Option<CallSplit> {
        // Samples fill no lanes here. Of single ones each load of weights would be used once.
        Some(CallSplit::Samples(2))
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| costs.panel_gemm(work.size, n))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }
}
