//! Pooling over feature maps, in both layouts.

use sparsevd_model::Window;

use crate::isa::multiversion;
use crate::{Isa, Layout};

/// How a window becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The largest; padding never wins, NaN does.
    Max,
    /// The mean, padding not counted.
    Average,
}

/// Pooling planned for one input size and one [`Layout`].
#[derive(Debug, Clone)]
pub struct Pool {
    isa: Isa,
    reduction: Reduction,
    layout: Layout,
    window: Window,
    input: [usize; 3],
    output: [usize; 2],
}

impl Pool {
    /// Plans pooling of inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When the window does not fit, or padding is as large as the window.
    #[track_caller]
    pub fn new(
        isa: Isa,
        reduction: Reduction,
        layout: Layout,
        window: &Window,
        input: [usize; 3],
    ) -> Self {
        let output = window
            .output(input[1], input[2])
            .unwrap_or_else(|| panic!("{window:?} does not fit {input:?}"));
        let ([kh, kw], [top, left, bottom, right]) = (window.kernel_shape, window.pads);
        assert!(
            top.max(bottom) < kh && left.max(right) < kw,
            "a window of {window:?} would see padding alone"
        );
        Self {
            isa,
            reduction,
            layout,
            window: window.clone(),
            input,
            output,
        }
    }

    /// The mean of each whole feature map: `[c, h, w]` to `[c, 1, 1]`.
    ///
    /// # Panics
    /// When the map is empty.
    #[track_caller]
    pub fn global_average(isa: Isa, layout: Layout, input: [usize; 3]) -> Self {
        let window = Window {
            kernel_shape: [input[1], input[2]],
            ..Window::square(1, 1)
        };
        Self::new(isa, Reduction::Average, layout, &window, input)
    }

    /// Pools `count` samples or tiles (see [`Layout`]). Threads may take samples, tiles or channels each.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], count: usize) {
        let [c, h, w] = self.input;
        let [_, oh, ow] = self.output();
        let lanes = self.layout.samples();
        assert_eq!(x.len(), count * c * h * w * lanes, "elements of x");
        assert_eq!(y.len(), count * c * oh * ow * lanes, "elements of y");
        match self.layout {
            Layout::Single => single(self.isa, self, x, y),
            Layout::Tiled => tiled(self.isa, self, x, y),
        }
    }

    /// Channels, output height and width.
    pub fn output(&self) -> [usize; 3] {
        [self.input[0], self.output[0], self.output[1]]
    }
}

multiversion!(fn single(pool: &Pool, x: &[f32], y: &mut [f32]) = body::<1>;);
multiversion!(fn tiled(pool: &Pool, x: &[f32], y: &mut [f32]) = body::<16>;);

#[inline(always)]
fn body<const L: usize>(pool: &Pool, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = pool.input;
    let [oh, ow] = pool.output;
    let [top, left, ..] = pool.window.pads;
    let ([sy, sx], [dy, dx]) = (pool.window.strides, pool.window.dilations);
    let [kh, kw] = pool.window.kernel_shape;
    if oh * ow == 0 || h * w == 0 {
        return;
    }
    for (x, y) in x
        .chunks_exact(h * w * L)
        .zip(y.chunks_exact_mut(oh * ow * L))
    {
        for oy in 0..oh {
            for ox in 0..ow {
                let mut acc = match pool.reduction {
                    Reduction::Max => [f32::NEG_INFINITY; L],
                    Reduction::Average => [0.0; L],
                };
                let mut seen = 0;
                for ky in 0..kh {
                    let iy = (oy * sy + ky * dy).wrapping_sub(top);
                    for kx in 0..kw {
                        let ix = (ox * sx + kx * dx).wrapping_sub(left);
                        if iy >= h || ix >= w {
                            continue;
                        }
                        seen += 1;
                        let values = &x[(iy * w + ix) * L..][..L];
                        match pool.reduction {
                            Reduction::Max => {
                                for (a, &v) in acc.iter_mut().zip(values) {
                                    *a = if v > *a || v.is_nan() { v } else { *a };
                                }
                            }
                            Reduction::Average => {
                                for (a, v) in acc.iter_mut().zip(values) {
                                    *a += v;
                                }
                            }
                        }
                    }
                }
                if pool.reduction == Reduction::Average {
                    acc.iter_mut().for_each(|a| *a /= seen as f32);
                }
                y[(oy * ow + ox) * L..][..L].copy_from_slice(&acc);
            }
        }
    }
}
