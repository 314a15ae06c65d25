//! One vector of several, and vectors of length 1.

use sparsevd_kernels::reduce::SMALLEST_NORM;
use sparsevd_kernels::training::Real;

/// The mean of the rows of each sample, `[n, d]` to `[d]`.
pub(super) fn mean<T: Real>(x: &[T], n: usize, d: usize, y: &mut [T]) {
    let factor = T::of(1.0 / n as f64);
    for (x, y) in x.chunks_exact(n * d).zip(y.chunks_exact_mut(d)) {
        y.fill(T::default());
        for row in x.chunks_exact(d) {
            y.iter_mut().zip(row).for_each(|(y, &x)| *y += x);
        }
        y.iter_mut().for_each(|y| *y *= factor);
    }
}

/// Adds the gradient by the rows.
pub(super) fn mean_backward<T: Real>(g: &[T], n: usize, d: usize, dx: &mut [T]) {
    let factor = T::of(1.0 / n as f64);
    for (g, dx) in g.chunks_exact(d).zip(dx.chunks_exact_mut(n * d)) {
        for row in dx.chunks_exact_mut(d) {
            row.iter_mut().zip(g).for_each(|(d, &g)| *d += g * factor);
        }
    }
}

/// Each vector of `d` numbers over its length.
pub(super) fn unit_length<T: Real>(x: &[T], d: usize, y: &mut [T]) {
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let inverse = inverse_length(x);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * inverse);
    }
}

/// Adds the gradient by the vectors: `(g - y (y g)) / |x|` with `y = x / |x|`.
pub(super) fn unit_length_backward<T: Real>(x: &[T], g: &[T], d: usize, dx: &mut [T]) {
    let vectors = x.chunks_exact(d).zip(g.chunks_exact(d));
    for ((x, g), dx) in vectors.zip(dx.chunks_exact_mut(d)) {
        let inverse = inverse_length(x);
        let along: T = x.iter().zip(g).map(|(&x, &g)| x * g).sum();
        let along = along * inverse * inverse;
        for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
            *dx += (g - x * along) * inverse;
        }
    }
}

fn inverse_length<T: Real>(x: &[T]) -> T {
    let squares: T = x.iter().map(|&x| x * x).sum();
    T::of(1.0) / squares.sqrt().larger(T::of(SMALLEST_NORM.into()))
}
