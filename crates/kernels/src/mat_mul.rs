//! Products of two computed matrices over [`Layout::Single`](crate::Layout::Single).

use crate::cost::Costs;
use crate::gemm::{View, gemm};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::length;

/// `a b` for each of `count` pairs of a sample: `[count][n][k]` and `[count][k][m]` to `[count][n][m]`.
#[derive(Debug, Clone, Copy)]
pub struct MatMul {
    count: usize,
    n: usize,
    k: usize,
    m: usize,
}

impl MatMul {
    /// `count` products of matrices of `n` by `k` and of `k` by `m` elements.
    ///
    /// # Panics
    /// When no slice can hold one of the operands.
    #[track_caller]
    pub fn new(count: usize, [n, k, m]: [usize; 3]) -> Self {
        length::planned("a", [count, n, k]);
        length::planned("b", [count, k, m]);
        length::planned("y", [count, n, m]);
        Self { count, n, k, m }
    }

    /// Writes the products of `samples` samples to `y`.
    ///
    /// # Panics
    /// When a length does not fit.
    #[track_caller]
    pub fn run(&self, a: &[f32], b: &[f32], y: &mut [f32], samples: usize) {
        let &Self { count, n, k, m } = self;
        length::check("a", a.len(), [samples, count, n, k]);
        length::check("b", b.len(), [samples, count, k, m]);
        length::check("y", y.len(), [samples, count, n, m]);
        if y.is_empty() {
            return;
        }
        for (i, y) in y.chunks_exact_mut(n * m).enumerate() {
            let a = View::row_major(&a[i * n * k..][..n * k], n, k);
            let b = View::row_major(&b[i * k * m..][..k * m], k, m);
            gemm(y, m, a, b, false);
        }
    }
}

impl PackedKernel for MatMul {
    fn run(&self, operands: Operands<'_>) {
        let Operands { x, x2, y, n, .. } = operands;
        Self::run(self, x, x2.unwrap_or(x), y, n);
    }

    fn name(&self) -> String {
        "mat-mul-gemm-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let multiply_adds = (self.count * self.n * self.m) as f64 * self.k as f64;
        work.each(multiply_adds * costs.dense_conv)
    }
}
