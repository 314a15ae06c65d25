//! The training step of a convolution, channels last: im2row patches, and gradients that skip zeros.
//!
//! Behind max-pooling and ReLU only about one pre-activation in eight has a non-zero gradient, behind global max-pooling one of a
//! map. There backward passes take a list of [`Event`]s instead of a dense gradient map. The paths of mean and variance share patches and events.

use sparsevd_model::Window;

use super::windows::{lanes, tap};
use crate::isa::multiversion;
use crate::training::Real;

/// A pre-activation with a non-zero gradient.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Event<T> {
    /// Output position: row times output width plus column, counted through the images of the group.
    pub position: u32,
    /// Output channel.
    pub channel: u32,
    /// Gradient by the mean.
    pub mean: T,
    /// Gradient by the variance.
    pub variance: T,
}

/// Copies patches of one channels-last map `x` (`size` = `[height, width, channels]`) into rows, one for each of the output
/// `positions` (row times output width plus column): `rows[i][ky][kx][channel]`, zero in the padding.
///
/// # Panics
/// When lengths disagree, or a position is outside the output.
#[track_caller]
pub fn im2row<T: Real>(
    x: &[T],
    size: [usize; 3],
    window: &Window,
    positions: impl ExactSizeIterator<Item = usize>,
    rows: &mut [T],
) {
    let [patch, oh, ow] = checked_sizes(x, size, window);
    assert_eq!(rows.len(), positions.len() * patch, "rows of patches");
    for (i, o) in positions.enumerate() {
        assert!(o < oh * ow, "position {o} of {oh} times {ow}");
        for_each_run(window, [o / ow, o % ow], size, |k, run| {
            let to = i * patch + k;
            match run {
                // Runs are often too short for a call of memcpy. Elements that a wide copy writes past the run are overwritten by the next run or row.
                Run::Real { at, len }
                    if len <= WIDE && to + WIDE <= rows.len() && at + WIDE <= x.len() =>
                {
                    rows[to..to + WIDE].copy_from_slice(&x[at..at + WIDE]);
                }
                Run::Real { at, len } => rows[to..to + len].copy_from_slice(&x[at..at + len]),
                Run::Padding { len } => rows[to..to + len].fill(T::of(0.0)),
            }
        });
    }
}

/// Elements of a patch, and the output's height and width.
#[track_caller]
fn checked_sizes<T>(x: &[T], [height, width, channels]: [usize; 3], window: &Window) -> [usize; 3] {
    assert_eq!(x.len(), height * width * channels, "input map");
    let patch = window.kernel_shape[0] * window.kernel_shape[1] * channels;
    let [oh, ow] = window
        .output(height, width)
        .expect("the window fits its map");
    [patch, oh, ow]
}

/// Elements that one or two vector moves copy.
const WIDE: usize = 8;

/// Adds the gradient of the patches at some output positions back to the map they came from: the transpose of [`im2row`].
///
/// # Panics
/// When lengths disagree, or a position is outside the output.
#[track_caller]
pub fn col2im_add<T: Real>(
    rows: &[T],
    size: [usize; 3],
    window: &Window,
    positions: impl ExactSizeIterator<Item = usize>,
    x: &mut [T],
) {
    let [patch, oh, ow] = checked_sizes(x, size, window);
    assert_eq!(rows.len(), positions.len() * patch, "rows of patches");
    for (row, o) in rows.chunks_exact(patch).zip(positions) {
        assert!(o < oh * ow, "position {o} of {oh} times {ow}");
        for_each_run(window, [o / ow, o % ow], size, |k, run| {
            if let Run::Real { at, len } = run {
                for (x, &r) in x[at..at + len].iter_mut().zip(&row[k..k + len]) {
                    *x += r;
                }
            }
        });
    }
}

enum Run {
    /// `len` contiguous elements of the map from `at`.
    Real { at: usize, len: usize },
    /// `len` zeros.
    Padding { len: usize },
}

/// Visits one patch as runs of contiguous elements: a whole row of the window where nothing is padded or dilated.
#[inline(always)]
fn for_each_run(
    window: &Window,
    [row, col]: [usize; 2],
    [height, width, channels]: [usize; 3],
    mut visit: impl FnMut(usize, Run),
) {
    let [kh, kw] = window.kernel_shape;
    let left = (col * window.strides[1]).checked_sub(window.pads[1]);
    let whole = left.filter(|&l| window.dilations[1] == 1 && l + kw <= width);
    for ky in 0..kh {
        let k = ky * kw * channels;
        let Some(iy) = tap(
            row,
            ky,
            window.strides[0],
            window.dilations[0],
            window.pads[0],
            height,
        ) else {
            visit(k, Run::Padding { len: kw * channels });
            continue;
        };
        if let Some(left) = whole {
            let at = (iy * width + left) * channels;
            visit(
                k,
                Run::Real {
                    at,
                    len: kw * channels,
                },
            );
            continue;
        }
        for kx in 0..kw {
            let k = k + kx * channels;
            match tap(
                col,
                kx,
                window.strides[1],
                window.dilations[1],
                window.pads[1],
                width,
            ) {
                Some(ix) => visit(
                    k,
                    Run::Real {
                        at: (iy * width + ix) * channels,
                        len: channels,
                    },
                ),
                None => visit(k, Run::Padding { len: channels }),
            }
        }
    }
}

multiversion! {
    /// Adds to the gradients of a filter bank `[channels][patch]`: by theta `sum mean * row`, by sigma^2
    /// `sum variance * row^2`, over events sorted by channel. `by_sigma2` is empty for a layer without noise.
    ///
    /// # Panics
    /// When an event lies outside `rows` or the gradients.
    pub fn weight_gradient[T: Real](rows: &[T], patch: usize, events: &[Event<T>], by_theta: &mut [T], by_sigma2: &mut [T]) = weight_gradient_body::<T>;
}

#[inline(always)]
fn weight_gradient_body<T: Real>(
    rows: &[T],
    patch: usize,
    events: &[Event<T>],
    by_theta: &mut [T],
    by_sigma2: &mut [T],
) {
    for same in events.chunk_by(|a, b| a.channel == b.channel) {
        let at = same[0].channel as usize * patch;
        let theta = &mut by_theta[at..at + patch];
        let sigma2: &mut [T] = if by_sigma2.is_empty() {
            &mut []
        } else {
            &mut by_sigma2[at..at + patch]
        };
        let mut k = 0;
        while k + 64 <= patch {
            weight_gradient_columns::<T, 64>(rows, patch, k, same, theta, sigma2);
            k += 64;
        }
        while k + 16 <= patch {
            weight_gradient_columns::<T, 16>(rows, patch, k, same, theta, sigma2);
            k += 16;
        }
        while k + 4 <= patch {
            weight_gradient_columns::<T, 4>(rows, patch, k, same, theta, sigma2);
            k += 4;
        }
        while k < patch {
            weight_gradient_columns::<T, 1>(rows, patch, k, same, theta, sigma2);
            k += 1;
        }
    }
}

#[inline(always)]
fn weight_gradient_columns<T: Real, const W: usize>(
    rows: &[T],
    patch: usize,
    k: usize,
    events: &[Event<T>],
    theta: &mut [T],
    sigma2: &mut [T],
) {
    let mut a = [T::of(0.0); W];
    if sigma2.is_empty() {
        for e in events {
            let row: &[T; W] = lanes(rows, e.position as usize * patch + k);
            for i in 0..W {
                a[i] += e.mean * row[i];
            }
        }
    } else {
        let mut b = [T::of(0.0); W];
        for e in events {
            let row: &[T; W] = lanes(rows, e.position as usize * patch + k);
            for i in 0..W {
                a[i] += e.mean * row[i];
                b[i] += e.variance * (row[i] * row[i]);
            }
        }
        for (s, b) in sigma2[k..k + W].iter_mut().zip(b) {
            *s += b;
        }
    }
    for (t, a) in theta[k..k + W].iter_mut().zip(a) {
        *t += a;
    }
}

multiversion! {
    /// Gradient by patches: `out[position] = sum mean * theta[channel] + 2 * row * sum variance * sigma2[channel]` over
    /// events sorted by position; positions without events become zero. `sigma2` is empty for a layer without noise.
    ///
    /// # Panics
    /// When an event lies outside the matrices.
    pub fn input_gradient[T: Real](rows: &[T], patch: usize, events: &[Event<T>], theta: &[T], sigma2: &[T], out: &mut [T]) = input_gradient_body::<T>;
}

#[inline(always)]
fn input_gradient_body<T: Real>(
    rows: &[T],
    patch: usize,
    events: &[Event<T>],
    theta: &[T],
    sigma2: &[T],
    out: &mut [T],
) {
    // Where each position's events begin.
    let mut groups: Vec<(usize, &[Event<T>])> = Vec::with_capacity(rows.len() / patch.max(1));
    let mut next = 0;
    for same in events.chunk_by(|a, b| a.position == b.position) {
        let at = same[0].position as usize * patch;
        out[next..at].fill(T::of(0.0));
        next = at + patch;
        groups.push((at, same));
    }
    out[next..].fill(T::of(0.0));
    // Columns are outermost: the weights of a few columns of all channels stay in the first-level cache for all positions.
    let mut k = 0;
    while k < patch {
        let left = patch - k;
        for &(at, same) in &groups {
            let (row, out) = (&rows[at..at + patch], &mut out[at..at + patch]);
            match left {
                64.. => input_gradient_columns::<T, 64>(row, patch, k, same, theta, sigma2, out),
                16.. => input_gradient_columns::<T, 16>(row, patch, k, same, theta, sigma2, out),
                4.. => input_gradient_columns::<T, 4>(row, patch, k, same, theta, sigma2, out),
                _ => input_gradient_columns::<T, 1>(row, patch, k, same, theta, sigma2, out),
            }
        }
        k += match left {
            64.. => 64,
            16.. => 16,
            4.. => 4,
            _ => 1,
        };
    }
}

#[inline(always)]
fn input_gradient_columns<T: Real, const W: usize>(
    row: &[T],
    patch: usize,
    k: usize,
    events: &[Event<T>],
    theta: &[T],
    sigma2: &[T],
    out: &mut [T],
) {
    let mut a = [T::of(0.0); W];
    if sigma2.is_empty() {
        for e in events {
            let t: &[T; W] = lanes(theta, e.channel as usize * patch + k);
            for i in 0..W {
                a[i] += e.mean * t[i];
            }
        }
    } else {
        let mut b = [T::of(0.0); W];
        for e in events {
            let t: &[T; W] = lanes(theta, e.channel as usize * patch + k);
            let s: &[T; W] = lanes(sigma2, e.channel as usize * patch + k);
            for i in 0..W {
                a[i] += e.mean * t[i];
                b[i] += e.variance * s[i];
            }
        }
        for i in 0..W {
            a[i] += T::of(2.0) * row[k + i] * b[i];
        }
    }
    out[k..k + W].copy_from_slice(&a);
}
