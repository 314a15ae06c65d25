//! Max-pooling of channels-last maps, with the positions of the maxima for its backward pass.

use sparsevd_model::Window;

use crate::isa::multiversion;
use crate::training::Real;

/// Output of [`max_pool`] per pooled element, channels last.
#[derive(Debug)]
pub struct PoolMaps<'a, T> {
    /// Largest value of the window.
    pub y: &'a mut [T],
    /// Position (row times width plus column) of that value in the input map.
    pub arg: &'a mut [u32],
    /// `factor` of the input at that position; empty where there is no factor.
    pub factor: &'a mut [T],
}

multiversion! {
    /// Max-pooling of one map `x` of `size` = `[height, width, channels]`, channels last; ties go to the first.
    ///
    /// `factor` is a second map, whose value at each maximum is copied, or empty.
    ///
    /// # Panics
    /// When lengths disagree.
    pub fn max_pool[T: Real](x: &[T], factor: &[T], size: [usize; 3], window: &Window, out: PoolMaps<'_, T>) = max_pool_body::<T>;
}

#[inline(always)]
fn max_pool_body<T: Real>(
    x: &[T],
    factor: &[T],
    [height, width, channels]: [usize; 3],
    window: &Window,
    out: PoolMaps<'_, T>,
) {
    let [oh, ow] = window
        .output(height, width)
        .expect("the window fits its map");
    assert_eq!(x.len(), height * width * channels, "input map");
    assert_eq!(out.y.len(), oh * ow * channels, "pooled map");
    let PoolMaps {
        y,
        arg,
        factor: best_factor,
    } = out;
    let mut taps = Vec::with_capacity(window.kernel_shape[0] * window.kernel_shape[1]);
    for o in 0..oh * ow {
        taps.clear();
        for ky in 0..window.kernel_shape[0] {
            let Some(iy) = tap(
                o / ow,
                ky,
                window.strides[0],
                window.dilations[0],
                window.pads[0],
                height,
            ) else {
                continue;
            };
            for kx in 0..window.kernel_shape[1] {
                if let Some(ix) = tap(
                    o % ow,
                    kx,
                    window.strides[1],
                    window.dilations[1],
                    window.pads[1],
                    width,
                ) {
                    taps.push(iy * width + ix);
                }
            }
        }
        let at = o * channels..(o + 1) * channels;
        let (y, arg) = (&mut y[at.clone()], &mut arg[at.clone()]);
        let best_factor: &mut [T] = if factor.is_empty() {
            &mut []
        } else {
            &mut best_factor[at]
        };
        let mut c = 0;
        // The last vector overlaps the one before, so that there is no scalar tail.
        while c < channels {
            let left = channels - c;
            if channels >= 16 {
                let c = if left < 16 { channels - 16 } else { c };
                max_of_channels::<T, 16>(x, factor, channels, c, &taps, y, arg, best_factor);
            } else if channels >= 4 {
                let c = if left < 4 { channels - 4 } else { c };
                max_of_channels::<T, 4>(x, factor, channels, c, &taps, y, arg, best_factor);
            } else {
                max_of_channels::<T, 1>(x, factor, channels, c, &taps, y, arg, best_factor);
            }
            c += match channels {
                16.. => 16,
                4.. => 4,
                _ => 1,
            };
        }
    }
}

/// The maximum over the taps of `W` channels from `c` on.
#[allow(clippy::too_many_arguments, reason = "the inside of one loop")]
#[allow(clippy::eq_op, reason = "only NaN differs from itself")]
#[inline(always)]
fn max_of_channels<T: Real, const W: usize>(
    x: &[T],
    factor: &[T],
    channels: usize,
    c: usize,
    taps: &[usize],
    y: &mut [T],
    arg: &mut [u32],
    best_factor: &mut [T],
) {
    let mut best = [T::of(f64::NEG_INFINITY); W];
    let mut place = [taps[0] as u32; W];
    for &t in taps {
        let x: &[T; W] = lanes(x, t * channels + c);
        for i in 0..W {
            // Masks, because compilers turn two selects on one condition into a branch, which would be mispredicted often.
            let wins = u32::from(x[i] > best[i]).wrapping_neg();
            place[i] = (t as u32 & wins) | (place[i] & !wins);
            best[i] = x[i].larger(best[i]);
        }
    }
    if !factor.is_empty() {
        for i in 0..W {
            best_factor[c + i] = factor[place[i] as usize * channels + c + i];
        }
    }
    // If no value is larger than minus infinity the first tap is the maximum, and if that is NaN so is the result.
    let first: &[T; W] = lanes(x, taps[0] * channels + c);
    for i in 0..W {
        best[i] = if first[i] == first[i] {
            best[i]
        } else {
            first[i]
        };
    }
    y[c..c + W].copy_from_slice(&best);
    arg[c..c + W].copy_from_slice(&place);
}

/// `W` elements from `at` on.
#[inline(always)]
pub(super) fn lanes<T, const W: usize>(data: &[T], at: usize) -> &[T; W] {
    data[at..at + W].try_into().expect("a slice of W elements")
}

/// Input coordinate of window element `k` at output coordinate `o`, or `None` in the padding.
#[inline(always)]
pub(super) fn tap(
    o: usize,
    k: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    size: usize,
) -> Option<usize> {
    (o * stride + k * dilation)
        .checked_sub(pad)
        .filter(|&i| i < size)
}
