//! Pooling that is not fused behind a convolution.

use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{PoolMaps, Real, max_pool};
use sparsevd_model::Window;

use super::size::MapSize;
use super::{Saved, sized};

pub(crate) fn max_forward<T: Real>(
    isa: Isa,
    x: &[T],
    input: MapSize,
    window: &Window,
    y: &mut [T],
    output: MapSize,
    saved: &mut Saved<T>,
) {
    let arg = sized(&mut saved.arg, y.len());
    let per_out = output.elements();
    for ((x, y), arg) in x
        .chunks_exact(input.elements())
        .zip(y.chunks_exact_mut(per_out))
        .zip(arg.chunks_exact_mut(per_out))
    {
        max_pool(
            isa,
            x,
            &[],
            input.dims(),
            window,
            PoolMaps {
                y,
                arg,
                factor: &mut [],
            },
        );
    }
}

pub(crate) fn max_backward<T: Real>(
    gradient: &[T],
    input: MapSize,
    dx: &mut [T],
    output: MapSize,
    saved: &Saved<T>,
) {
    let per_out = output.elements();
    for (sample, (g, dx)) in gradient
        .chunks_exact(per_out)
        .zip(dx.chunks_exact_mut(input.elements()))
        .enumerate()
    {
        for (i, &g) in g.iter().enumerate() {
            let position = saved.arg[sample * per_out + i] as usize;
            dx[position * input.channels + i % input.channels] += g;
        }
    }
}

/// Calls `visit(output element, input element, 1 / window size)` for every pair under a window, padding not counted.
fn for_each_average<T: Real>(
    input: MapSize,
    window: &Window,
    output: MapSize,
    mut visit: impl FnMut(usize, usize, T),
) {
    for oy in 0..output.height {
        for ox in 0..output.width {
            let taps = |o: usize, axis: usize, size: usize| {
                (0..window.kernel_shape[axis]).filter_map(move |k| {
                    (o * window.strides[axis] + k * window.dilations[axis])
                        .checked_sub(window.pads[axis])
                        .filter(|&i| i < size)
                })
            };
            let rows: Vec<usize> = taps(oy, 0, input.height).collect();
            let cols: Vec<usize> = taps(ox, 1, input.width).collect();
            let share = T::of(1.0 / (rows.len() * cols.len()) as f64);
            for &iy in &rows {
                for &ix in &cols {
                    for c in 0..input.channels {
                        visit(
                            (oy * output.width + ox) * input.channels + c,
                            (iy * input.width + ix) * input.channels + c,
                            share,
                        );
                    }
                }
            }
        }
    }
}

pub(crate) fn average_forward<T: Real>(
    x: &[T],
    input: MapSize,
    window: &Window,
    y: &mut [T],
    output: MapSize,
) {
    y.fill(T::default());
    for (x, y) in x
        .chunks_exact(input.elements())
        .zip(y.chunks_exact_mut(output.elements()))
    {
        for_each_average(input, window, output, |o, i, share: T| y[o] += x[i] * share);
    }
}

pub(crate) fn average_backward<T: Real>(
    gradient: &[T],
    input: MapSize,
    window: &Window,
    dx: &mut [T],
    output: MapSize,
) {
    for (g, dx) in gradient
        .chunks_exact(output.elements())
        .zip(dx.chunks_exact_mut(input.elements()))
    {
        for_each_average(input, window, output, |o, i, share: T| {
            dx[i] += g[o] * share
        });
    }
}

/// The window under which an average pool is a global one.
pub(crate) fn global(input: MapSize) -> Window {
    Window {
        kernel_shape: [input.height, input.width],
        strides: [1, 1],
        pads: [0; 4],
        dilations: [1, 1],
    }
}
