//! Max-pooling of channels-last maps, with what its backward pass needs.

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
    /// `factor` is a second map whose value at each maximum goes along, or empty.
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
    let PoolMaps {
        y,
        arg,
        factor: out_factor,
    } = out;
    assert_eq!(x.len(), height * width * channels, "input map");
    assert_eq!(y.len(), oh * ow * channels, "pooled map");
    let with_factor = !factor.is_empty();
    for o in 0..oh * ow {
        let at = o * channels..(o + 1) * channels;
        let (y, arg) = (&mut y[at.clone()], &mut arg[at.clone()]);
        let best_factor: &mut [T] = if with_factor {
            &mut out_factor[at]
        } else {
            &mut []
        };
        let mut first = true;
        // No closure here: one that is not inlined would be compiled without the instruction set.
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
                let Some(ix) = tap(
                    o % ow,
                    kx,
                    window.strides[1],
                    window.dilations[1],
                    window.pads[1],
                    width,
                ) else {
                    continue;
                };
                let position = iy * width + ix;
                let from = position * channels..(position + 1) * channels;
                let x = &x[from.clone()];
                let (y, arg) = (&mut y[..x.len()], &mut arg[..x.len()]);
                if with_factor {
                    let (f, best) = (&factor[from][..x.len()], &mut best_factor[..x.len()]);
                    for c in 0..x.len() {
                        let wins = first | (x[c] > y[c]);
                        y[c] = if wins { x[c] } else { y[c] };
                        arg[c] = if wins { position as u32 } else { arg[c] };
                        best[c] = if wins { f[c] } else { best[c] };
                    }
                } else {
                    for c in 0..x.len() {
                        let wins = first | (x[c] > y[c]);
                        y[c] = if wins { x[c] } else { y[c] };
                        arg[c] = if wins { position as u32 } else { arg[c] };
                    }
                }
                first = false;
            }
        }
    }
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
