//! The parametric ReLU.

use sparsevd_kernels::training::Real;

/// `slope` has one number for all channels, or one for each of `channels`.
pub(super) fn forward<T: Real>(slope: &[T], channels: usize, x: &[T], y: &mut [T]) {
    for (x, y) in (x.chunks_exact(channels)).zip(y.chunks_exact_mut(channels)) {
        for (c, (x, y)) in x.iter().zip(y).enumerate() {
            *y = if *x < T::default() {
                slope[c % slope.len()] * *x
            } else {
                *x
            };
        }
    }
}

/// Adds the gradients by the input, where there is a `dx`, and by the slope.
pub(super) fn backward<T: Real>(
    slope: &[T],
    channels: usize,
    x: &[T],
    g: &[T],
    dx: Option<&mut [T]>,
    by_slope: &mut [T],
) {
    let zero = T::default();
    for (x, g) in (x.chunks_exact(channels)).zip(g.chunks_exact(channels)) {
        for (c, (x, g)) in x.iter().zip(g).enumerate() {
            if *x < zero {
                by_slope[c % slope.len()] += *g * *x;
            }
        }
    }
    let Some(dx) = dx else { return };
    for (i, ((dx, x), g)) in dx.iter_mut().zip(x).zip(g).enumerate() {
        *dx += match *x < zero {
            true => slope[i % channels % slope.len()] * *g,
            false => *g,
        };
    }
}
