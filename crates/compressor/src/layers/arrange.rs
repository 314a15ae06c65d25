//! Operators that only move numbers: concatenation, borders, and flattening to channels first.

use sparsevd_kernels::training::Real;

use super::size::MapSize;

/// Copies `x` into the channels of `y` from `at` on.
pub(crate) fn place_channels<T: Copy>(
    x: &[T],
    channels: usize,
    y: &mut [T],
    all: usize,
    at: usize,
) {
    for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(all)) {
        y[at..at + channels].copy_from_slice(x);
    }
}

/// Adds the channels of `y` from `at` on to `x`.
pub(crate) fn take_channels<T: Real>(y: &[T], all: usize, at: usize, x: &mut [T], channels: usize) {
    for (x, y) in x.chunks_exact_mut(channels).zip(y.chunks_exact(all)) {
        for (x, &y) in x.iter_mut().zip(&y[at..at + channels]) {
            *x += y;
        }
    }
}

/// Calls `visit` with the places, per sample, of each row of pixels inside a border: in the map and with the border.
fn for_each_row(
    size: MapSize,
    [top, left, _, right]: [usize; 4],
    mut visit: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let (row, padded) = (
        size.width * size.channels,
        (left + size.width + right) * size.channels,
    );
    for y in 0..size.height {
        let (from, to) = (y * row, (y + top) * padded + left * size.channels);
        visit(from..from + row, to..to + row);
    }
}

pub(crate) fn pad_forward<T: Real>(
    x: &[T],
    size: MapSize,
    pads: [usize; 4],
    value: f32,
    y: &mut [T],
    output: MapSize,
) {
    y.fill(T::of(f64::from(value)));
    let samples = x.chunks_exact(size.elements());
    for (x, y) in samples.zip(y.chunks_exact_mut(output.elements())) {
        for_each_row(size, pads, |from, to| y[to].copy_from_slice(&x[from]));
    }
}

pub(crate) fn pad_backward<T: Real>(
    g: &[T],
    output: MapSize,
    pads: [usize; 4],
    dx: &mut [T],
    size: MapSize,
) {
    let samples = g.chunks_exact(output.elements());
    for (g, dx) in samples.zip(dx.chunks_exact_mut(size.elements())) {
        for_each_row(size, pads, |from, to| {
            for (dx, &g) in dx[from].iter_mut().zip(&g[to]) {
                *dx += g;
            }
        });
    }
}

/// `[position][channel]` to `[channel][position]`, per sample.
pub(crate) fn flatten_forward<T: Copy>(x: &[T], size: MapSize, y: &mut [T]) {
    let per = size.elements();
    for (x, y) in x.chunks_exact(per).zip(y.chunks_exact_mut(per)) {
        for (position, x) in x.chunks_exact(size.channels).enumerate() {
            for (channel, &x) in x.iter().enumerate() {
                y[channel * size.area() + position] = x;
            }
        }
    }
}

pub(crate) fn flatten_backward<T: Real>(g: &[T], dx: &mut [T], size: MapSize) {
    let per = size.elements();
    for (g, dx) in g.chunks_exact(per).zip(dx.chunks_exact_mut(per)) {
        for (position, dx) in dx.chunks_exact_mut(size.channels).enumerate() {
            for (channel, dx) in dx.iter_mut().enumerate() {
                *dx += g[channel * size.area() + position];
            }
        }
    }
}
