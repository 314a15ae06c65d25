//! Dense twins of the sparse kernels: the honest baseline, and what runs where sparse loses.

use sparsevd_model::{Dense, Window};

use crate::conv::check_conv;
use crate::gemm::{View, gemm};
use crate::{Activation, Isa};

/// A dense matrix for one vector at a time.
#[derive(Debug, Clone)]
pub struct Gemv {
    weight: Dense,
    bias: Vec<f32>,
}

#[track_caller]
fn matrix(weight: &Dense, bias: Option<&[f32]>) -> (usize, usize, Vec<f32>) {
    let (rows, cols) = weight.shape.matrix();
    let bias = bias.map_or_else(|| vec![0.0; rows], <[f32]>::to_vec);
    assert_eq!(bias.len(), rows, "elements of the bias");
    (rows, cols, bias)
}

impl Gemv {
    /// Takes `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(_isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (_, _, bias) = matrix(weight, bias);
        Self {
            weight: weight.clone(),
            bias,
        }
    }

    /// `y = act(W x + b)`.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], act: Activation) {
        let (rows, cols) = self.weight.shape.matrix();
        assert_eq!(x.len(), cols, "elements of x");
        assert_eq!(y.len(), rows, "elements of y");
        for (r, y) in y.iter_mut().enumerate() {
            let row = &self.weight.values[r * cols..(r + 1) * cols];
            *y = act.apply(self.bias[r] + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>());
        }
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "scalar-gemv-f32-1x1"
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.values.len() + self.bias.len()) * 4
    }
}

/// A dense matrix for batches of row-major samples, through `gemm-f32`.
#[derive(Debug, Clone)]
pub struct Linear {
    isa: Isa,
    weight: Dense,
    bias: Vec<f32>,
}

impl Linear {
    /// Takes `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Dense, bias: Option<&[f32]>) -> Self {
        let (_, _, bias) = matrix(weight, bias);
        Self {
            isa,
            weight: weight.clone(),
            bias,
        }
    }

    /// `y = act(x W^T + b)` over `x` = `[n][in]` into `y` = `[n][out]`. Threads may take samples of one batch each.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, act: Activation) {
        let (rows, cols) = self.weight.shape.matrix();
        assert_eq!(x.len(), n * cols, "elements of x");
        assert_eq!(y.len(), n * rows, "elements of y");
        if rows == 0 {
            return;
        }
        gemm(
            y,
            rows,
            View::row_major(x, n, cols),
            View::row_major(&self.weight.values, rows, cols).t(),
            false,
        );
        let _ = self.isa;
        for sample in y.chunks_exact_mut(rows) {
            for (y, b) in sample.iter_mut().zip(&self.bias) {
                *y = act.apply(*y + b);
            }
        }
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "gemm-dense-f32"
    }

    /// Bytes of weights and biases that one run reads.
    pub fn bytes(&self) -> usize {
        (self.weight.values.len() + self.bias.len()) * 4
    }
}

/// A dense convolution over `[n][c][h][w]`: im2col and `gemm-f32`.
#[derive(Debug, Clone)]
pub struct Conv {
    weight: Dense,
    shape: [usize; 4],
    bias: Vec<f32>,
    window: Window,
    groups: usize,
    input: [usize; 3],
    output: [usize; 2],
}

impl Conv {
    /// Takes filters `[out, in/groups, kh, kw]` for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When the shapes, the groups, the window and the bias do not fit together.
    #[track_caller]
    pub fn pack(
        _isa: Isa,
        weight: &Dense,
        bias: Option<&[f32]>,
        window: &Window,
        groups: usize,
        input: [usize; 3],
    ) -> Self {
        let &[out, per_group, kh, kw] = weight.shape.dims() else {
            panic!("filters [out, in/groups, kh, kw], got {}", weight.shape)
        };
        let shape = [out, per_group, kh, kw];
        let output = check_conv(shape, window, groups, input);
        let (_, _, bias) = matrix(weight, bias);
        Self {
            weight: weight.clone(),
            shape,
            bias,
            window: window.clone(),
            groups,
            input,
            output,
        }
    }

    /// Elements of scratch that a run needs, whatever the count; zero for plain 1x1.
    pub fn scratch_len(&self) -> usize {
        let [_, per_group, kh, kw] = self.shape;
        per_group * kh * kw * self.output[0] * self.output[1]
    }

    /// `y = act(W * x + b)` over `x` = `[n][c][h][w]`; `scratch` is overwritten. Threads may take samples each.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`Conv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], act: Activation) {
        let [c, h, w] = self.input;
        let [out, oh, ow] = self.output();
        let pixels = oh * ow;
        assert_eq!(x.len(), n * c * h * w, "elements of x");
        assert_eq!(y.len(), n * out * pixels, "elements of y");
        assert!(scratch.len() >= self.scratch_len(), "scratch too short");
        let [_, per_group, kh, kw] = self.shape;
        let (depth, out_per_group) = (per_group * kh * kw, out / self.groups);
        let [top, left, ..] = self.window.pads;
        let ([sy, sx], [dy, dx]) = (self.window.strides, self.window.dilations);
        for s in 0..n {
            for g in 0..self.groups {
                for k in 0..depth {
                    let plane = &x[(s * c + g * per_group + k / (kh * kw)) * h * w..][..h * w];
                    for p in 0..pixels {
                        let iy = (p / ow * sy + k / kw % kh * dy).wrapping_sub(top);
                        let ix = (p % ow * sx + k % kw * dx).wrapping_sub(left);
                        scratch[k * pixels + p] = if iy < h && ix < w {
                            plane[iy * w + ix]
                        } else {
                            0.0
                        };
                    }
                }
                let first = g * out_per_group;
                let y = &mut y[(s * out + first) * pixels..][..out_per_group * pixels];
                let weight = &self.weight.values[first * depth..][..out_per_group * depth];
                gemm(
                    y,
                    pixels,
                    View::row_major(weight, out_per_group, depth),
                    View::row_major(&scratch[..depth * pixels], depth, pixels),
                    false,
                );
                for (o, y) in y.chunks_exact_mut(pixels.max(1)).enumerate() {
                    let bias = self.bias[first + o];
                    y.iter_mut().for_each(|y| *y = act.apply(*y + bias));
                }
            }
        }
    }

    /// Output channels, height and width.
    pub fn output(&self) -> [usize; 3] {
        [self.shape[0], self.output[0], self.output[1]]
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "gemm-im2col-f32"
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        (self.weight.values.len() + self.bias.len()) * 4
    }
}
