//! Means along a dimension and vectors of length 1, over [`Layout::Single`](crate::Layout::Single).

use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload, each_sample};
use crate::{Isa, LANES, length};

/// The mean along the first dimension of `[count][inner]` elements of each sample, for any `count`.
#[derive(Debug, Clone)]
pub struct Mean {
    isa: Isa,
    inner: usize,
}

impl Mean {
    /// The mean of rows of `inner` elements.
    pub fn new(isa: Isa, inner: usize) -> Self {
        Self { isa, inner }
    }

    /// Writes the mean of the rows of `x` to `y`, for each of `n` samples.
    ///
    /// # Panics
    /// When `y` is not `n` rows, or `x` is not `n` times equally many rows, at least one.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize) {
        length::check("y", y.len(), [n, self.inner]);
        if y.is_empty() {
            return;
        }
        let count = x.len() / y.len();
        length::check("x", x.len(), [n, count, self.inner]);
        assert!(count > 0, "rows of x: expected at least one, got none");
        each_sample(x, y, n, |x, y| mean(self.isa, x, y));
    }
}

multiversion!(fn mean(x: &[f32], y: &mut [f32]) = mean_body;);

/// `x` is one row or more of as many elements as `y` has, at least one.
#[inline(always)]
fn mean_body(x: &[f32], y: &mut [f32]) {
    y.fill(0.0);
    for row in x.chunks_exact(y.len()) {
        for (y, x) in y.iter_mut().zip(row) {
            *y += x;
        }
    }
    let count = (x.len() / y.len()) as f32;
    y.iter_mut().for_each(|y| *y /= count);
}

impl PackedKernel for Mean {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n);
    }

    fn name(&self) -> String {
        "reduce-mean-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}

/// `x / max(||x||, 1e-12)` of each vector of `width` elements, in place.
#[derive(Debug, Clone)]
pub struct L2Normalize {
    isa: Isa,
    width: usize,
}

/// The smallest norm that a vector is divided by, as in PyTorch's `F.normalize`.
pub const SMALLEST_NORM: f32 = 1e-12;

impl L2Normalize {
    /// Of vectors of `width` elements.
    pub fn new(isa: Isa, width: usize) -> Self {
        Self { isa, width }
    }

    /// Normalises each vector of `x`.
    ///
    /// # Panics
    /// When `x` is not whole vectors.
    #[track_caller]
    pub fn run(&self, x: &mut [f32]) {
        let vectors = x.len().checked_div(self.width).unwrap_or(0);
        length::check("x", x.len(), [vectors, self.width]);
        if !x.is_empty() {
            normalize(self.isa, x, self.width);
        }
    }
}

multiversion!(fn normalize(x: &mut [f32], width: usize) = normalize_body;);

#[inline(always)]
fn normalize_body(x: &mut [f32], width: usize) {
    for vector in x.chunks_exact_mut(width) {
        // Squares of f32 neither overflow nor vanish in f64.
        let mut sums = [0.0_f64; LANES];
        for chunk in vector.chunks(LANES) {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        let norm = sums.iter().sum::<f64>().sqrt() as f32;
        // A norm that is NaN stays.
        let norm = if norm < SMALLEST_NORM {
            SMALLEST_NORM
        } else {
            norm
        };
        vector.iter_mut().for_each(|x| *x /= norm);
    }
}

impl PackedKernel for L2Normalize {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.y);
    }

    fn name(&self) -> String {
        "l2-normalize-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn in_place(&self) -> bool {
        true
    }
}
