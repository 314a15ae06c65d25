//! Scaled dot-product attention with several heads, as [`ops::Attention`](sparsevd_model::ops::Attention) has it.
//!
//! Of a head with queries `q`, keys `k` and values `v`, each `[n, w]`: `p = softmax(q k^T / sqrt(w))` by rows, and `y = p v`. Backward, for the gradient `g`
//! by `y`: `dv = p^T g`, `dp = g v^T`, `ds = p (dp - rowsum(dp p)) / sqrt(w)`, `dq = ds k` and `dk = ds^T q`. The backward pass computes `p` anew, so that
//! a forward pass stores nothing: all of them would be `heads n^2` numbers of each sample.

use sparsevd_kernels::training::Real;

use super::size::MapSize;
use super::{Scratch, sized};

/// One stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub heads: usize,
    /// Of queries, keys, values and output: a row of `channels` numbers for each vector.
    pub size: MapSize,
}

impl Attention {
    /// Vectors of a sample, their numbers, and the numbers of a head.
    fn sizes(&self) -> [usize; 3] {
        let [n, d] = [self.size.area(), self.size.channels];
        [n, d, d / self.heads]
    }

    /// `inputs` are queries, keys and values, each `[samples][n][d]`, as `y` is.
    pub fn forward<T: Real>(&self, inputs: [&[T]; 3], y: &mut [T], scratch: &mut Scratch<T>) {
        let [n, d, w] = self.sizes();
        let p = sized(&mut scratch.y, n * n);
        for (sample, y) in y.chunks_exact_mut(n * d).enumerate() {
            let of_sample = inputs.map(|x| &x[sample * n * d..][..n * d]);
            for head in (0..d).step_by(w) {
                let [q, k, v] = of_sample.map(|x| &x[head..]);
                probabilities(q, k, [n, d, w], p);
                T::gemm(&mut y[head..], d, (p, n, 1), (v, d, 1), [n, w, n], false);
            }
        }
    }

    /// The gradients by queries, keys and values, of the gradient `g` by the output.
    pub fn backward<'s, T: Real>(
        &self,
        inputs: [&[T]; 3],
        g: &[T],
        scratch: &'s mut Scratch<T>,
    ) -> [&'s [T]; 3] {
        let [n, d, w] = self.sizes();
        let Scratch {
            rows,
            rows2,
            v: values,
            y,
            noise,
            ..
        } = scratch;
        let (p, dp) = (sized(y, n * n), sized(noise, n * n));
        let all = [rows, rows2, values].map(|buffer| sized(buffer, g.len()));
        for (sample, g) in g.chunks_exact(n * d).enumerate() {
            let at = sample * n * d;
            for head in (0..d).step_by(w) {
                let [q, k, v] = inputs.map(|x| &x[at + head..at + n * d]);
                let g = &g[head..];
                probabilities(q, k, [n, d, w], p);
                let dv = &mut all[2][at + head..];
                T::gemm(dv, d, (p, 1, n), (g, d, 1), [n, w, n], false);
                T::gemm(dp, n, (g, d, 1), (v, 1, d), [n, n, w], false);
                let factor = factor(w);
                for (p, dp) in p.chunks_exact(n).zip(dp.chunks_exact_mut(n)) {
                    let sum: T = p.iter().zip(dp.iter()).map(|(&p, &dp)| p * dp).sum();
                    for (dp, &p) in dp.iter_mut().zip(p) {
                        *dp = p * (*dp - sum) * factor;
                    }
                }
                let dq = &mut all[0][at + head..];
                T::gemm(dq, d, (dp, n, 1), (k, d, 1), [n, w, n], false);
                let dk = &mut all[1][at + head..];
                T::gemm(dk, d, (dp, 1, n), (q, d, 1), [n, w, n], false);
            }
        }
        all.map(|gradient| &*gradient)
    }
}

/// What scores are multiplied by.
fn factor<T: Real>(w: usize) -> T {
    T::of(1.0 / (w as f64).sqrt())
}

/// `p = softmax(q k^T / sqrt(w))` of one head, whose rows are `d` numbers apart.
fn probabilities<T: Real>(q: &[T], k: &[T], [n, d, w]: [usize; 3], p: &mut [T]) {
    T::gemm(p, n, (q, d, 1), (k, 1, d), [n, n, w], false);
    let factor = factor(w);
    for row in p.chunks_exact_mut(n) {
        let most = row.iter().fold(row[0], |m, &s| m.larger(s));
        let mut sum = T::default();
        for s in row.iter_mut() {
            *s = ((*s - most) * factor).exp();
            sum += *s;
        }
        let inverse = T::of(1.0) / sum;
        row.iter_mut().for_each(|s| *s *= inverse);
    }
}
