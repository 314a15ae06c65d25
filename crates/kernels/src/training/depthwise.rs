//! Depthwise convolution of one channels-last map: every output channel reads one input channel.
//!
//! Filters lie as `[ky][kx][unit]`, so that loops are contiguous over channels. Unit `u` reads channel `u / multiplier`.

use sparsevd_model::Window;

use super::windows::tap;
use crate::isa::multiversion;
use crate::training::Real;

multiversion! {
    /// Adds the convolution of `x` (`size` = `[height, width, channels]`) with `filters` to `y`, which holds the biases.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn depthwise[T: Real](x: &[T], size: [usize; 3], window: &Window, filters: &[T], y: &mut [T]) = depthwise_body::<T>;
}

multiversion! {
    /// Adds the gradients of a depthwise convolution: to `by_filters` that by `filters`, and to `dx`, unless it is empty, that by `x`; `g` is the gradient
    /// by the output.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn depthwise_gradient[T: Real](x: &[T], size: [usize; 3], window: &Window, filters: &[T], g: &[T], by_filters: &mut [T], dx: &mut [T]) = depthwise_gradient_body::<T>;
}

#[inline(always)]
fn depthwise_body<T: Real>(x: &[T], size: [usize; 3], window: &Window, filters: &[T], y: &mut [T]) {
    let (channels, units) = (size[2], units(size, window, filters, y));
    let multiplier = units / channels;
    for_each_tap(size, window, |o, k, i| {
        let y = &mut y[o * units..][..units];
        let (f, x) = (
            &filters[k * units..][..units],
            &x[i * channels..][..channels],
        );
        if multiplier == 1 {
            for c in 0..channels {
                y[c] += f[c] * x[c];
            }
        } else {
            for u in 0..units {
                y[u] += f[u] * x[u / multiplier];
            }
        }
    });
}

#[inline(always)]
fn depthwise_gradient_body<T: Real>(
    x: &[T],
    size: [usize; 3],
    window: &Window,
    filters: &[T],
    g: &[T],
    by_filters: &mut [T],
    dx: &mut [T],
) {
    let (channels, units) = (size[2], units(size, window, filters, g));
    let multiplier = units / channels;
    let needs_dx = !dx.is_empty();
    for_each_tap(size, window, |o, k, i| {
        let g = &g[o * units..][..units];
        let x = &x[i * channels..][..channels];
        let (f, by) = (
            &filters[k * units..][..units],
            &mut by_filters[k * units..][..units],
        );
        if multiplier == 1 {
            for c in 0..channels {
                by[c] += g[c] * x[c];
            }
            if needs_dx {
                let dx = &mut dx[i * channels..][..channels];
                for c in 0..channels {
                    dx[c] += g[c] * f[c];
                }
            }
            return;
        }
        for u in 0..units {
            by[u] += g[u] * x[u / multiplier];
            if needs_dx {
                dx[i * channels + u / multiplier] += g[u] * f[u];
            }
        }
    });
}

/// Number of units, after checking the lengths.
#[inline(always)]
fn units<T>(
    [height, width, channels]: [usize; 3],
    window: &Window,
    filters: &[T],
    y: &[T],
) -> usize {
    let [oh, ow] = window
        .output(height, width)
        .expect("the window fits its map");
    let units = filters.len() / (window.kernel_shape[0] * window.kernel_shape[1]);
    assert!(units.is_multiple_of(channels), "units per channel");
    assert_eq!(y.len(), oh * ow * units, "output map");
    units
}

/// Visits output position, window element and input position of every product.
#[inline(always)]
fn for_each_tap(
    [height, width, _]: [usize; 3],
    window: &Window,
    mut visit: impl FnMut(usize, usize, usize),
) {
    let [oh, ow] = window
        .output(height, width)
        .expect("the window fits its map");
    let [kh, kw] = window.kernel_shape;
    let [sy, sx] = window.strides;
    let [dy, dx] = window.dilations;
    for oy in 0..oh {
        for ky in 0..kh {
            let Some(iy) = tap(oy, ky, sy, dy, window.pads[0], height) else {
                continue;
            };
            for ox in 0..ow {
                for kx in 0..kw {
                    if let Some(ix) = tap(ox, kx, sx, dx, window.pads[1], width) {
                        visit(oy * ow + ox, ky * kw + kx, iy * width + ix);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn values(seed: usize, n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 31 + seed * 17) % 13) as f32 - 6.0)
            .collect()
    }

    #[test]
    fn every_instruction_set_agrees_with_ten_lines() {
        let window = |kernel_shape, strides, pads, dilations| Window {
            kernel_shape,
            strides,
            pads,
            dilations,
        };
        let windows = [
            window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
            window([3, 2], [2, 1], [0, 1, 1, 0], [1, 1]),
            window([2, 2], [1, 2], [2, 0, 0, 2], [2, 1]),
        ];
        for (window, (channels, multiplier)) in windows
            .iter()
            .flat_map(|w| [(1, 1), (5, 1), (16, 1), (3, 2)].map(|c| (w, c)))
        {
            let [h, w] = [6, 7];
            let [oh, ow] = window.output(h, w).unwrap();
            let [kh, kw] = window.kernel_shape;
            let units = channels * multiplier;
            let x = values(1, h * w * channels);
            let filters = values(2, kh * kw * units);
            let g = values(3, oh * ow * units);
            let (mut y, mut by, mut dx) = (
                vec![1.0; g.len()],
                vec![0.0; filters.len()],
                vec![0.0; x.len()],
            );
            for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                    let iy = (oy * window.strides[0] + ky * window.dilations[0]) as isize
                        - window.pads[0] as isize;
                    let ix = (ox * window.strides[1] + kx * window.dilations[1]) as isize
                        - window.pads[1] as isize;
                    if iy < 0 || ix < 0 || iy >= h as isize || ix >= w as isize {
                        continue;
                    }
                    for u in 0..units {
                        let i = (iy as usize * w + ix as usize) * channels + u / multiplier;
                        let (f, o) = ((ky * kw + kx) * units + u, (oy * ow + ox) * units + u);
                        y[o] += filters[f] * x[i];
                        by[f] += g[o] * x[i];
                        dx[i] += g[o] * filters[f];
                    }
                }
            }
            for isa in Isa::available() {
                let size = [h, w, channels];
                let mut got = vec![1.0; g.len()];
                depthwise(isa, &x, size, window, &filters, &mut got);
                assert_eq!(got, y, "{} {window:?}", isa.name());
                let (mut got_by, mut got_dx) = (vec![0.0; by.len()], vec![0.0; x.len()]);
                depthwise_gradient(
                    isa,
                    &x,
                    size,
                    window,
                    &filters,
                    &g,
                    &mut got_by,
                    &mut got_dx,
                );
                assert_eq!(got_by, by, "{} {window:?}", isa.name());
                assert_eq!(got_dx, dx, "{} {window:?}", isa.name());
                let mut without_dx = vec![0.0; by.len()];
                depthwise_gradient(
                    isa,
                    &x,
                    size,
                    window,
                    &filters,
                    &g,
                    &mut without_dx,
                    &mut [],
                );
                assert_eq!(without_dx, by, "{} without dx", isa.name());
            }
        }
    }
}
