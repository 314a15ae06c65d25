//! Dense convolution: im2col by strips of rows and `gemm-f32`, or direct where it is depthwise.

use sparsevd_model::{Dense, Window};

use crate::clamp::Bounds;
use crate::conv::check_conv;
use crate::copy::copy_short;
use crate::cost::Costs;
use crate::gemm::{View, gemm};
use crate::isa::{kernel_name, multiversion};
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::spmm::bias_or_zero;
use crate::{Clamp, Isa, length};

/// A dense convolution over `[n][c][h][w]`.
#[derive(Debug, Clone)]
pub struct Conv {
    isa: Isa,
    weight: Dense,
    shape: [usize; 4],
    bias: Vec<f32>,
    window: Window,
    groups: usize,
    input: [usize; 3],
    output: [usize; 2],
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// 1x1: the input is the matrix.
    Pointwise,
    /// One input and one output channel per group.
    Depthwise,
    /// im2col of strips of this number of output rows.
    Strips(usize),
}

/// Floats of the im2col matrix of a strip, which stays in the second-level cache.
const STRIP: usize = 96 * 1024;

impl Conv {
    /// Packs filters `[out, in/groups, kh, kw]` for inputs `[c, h, w]`.
    ///
    /// # Panics
    /// When `weight`, `bias`, `window`, `groups` and `input` contradict each other.
    #[track_caller]
    pub fn pack(
        isa: Isa,
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
        let plain = window.pads == [0; 4] && window.strides == [1, 1];
        let kind = if (kh, kw) == (1, 1) && plain {
            Kind::Pointwise
        } else if per_group == 1 && out == groups {
            Kind::Depthwise
        } else {
            let row = (per_group * kh * kw * output[1]).max(1);
            Kind::Strips((STRIP / row).clamp(1, output[0].max(1)))
        };
        Self {
            isa,
            weight: weight.clone(),
            shape,
            bias: bias_or_zero(bias, out),
            window: window.clone(),
            groups,
            input,
            output,
            kind,
        }
    }

    /// Floats of scratch that [`Conv::run`] needs, for any count; zero for 1x1 convolutions without strides and padding, and for depthwise ones.
    pub fn scratch_len(&self) -> usize {
        let [_, per_group, kh, kw] = self.shape;
        match self.kind {
            Kind::Strips(rows) => per_group * kh * kw * rows * self.output[1],
            Kind::Pointwise | Kind::Depthwise => 0,
        }
    }

    /// `y = clamp(W * x + b)`: `x` is `[n][c][h][w]`, `y` `[n][out][oh][ow]`. `scratch` is overwritten. Threads can split a batch by samples.
    ///
    /// # Panics
    /// When `x` or `y` has another length or `scratch` fewer than [`Conv::scratch_len`] elements.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, scratch: &mut [f32], clamp: Clamp) {
        let [c, h, w] = self.input;
        let [out, oh, ow] = self.output();
        let pixels = oh * ow;
        length::check("x", x.len(), [n, c, h, w]);
        length::check("y", y.len(), [n, out, oh, ow]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        if y.is_empty() {
            return;
        }
        if matches!(self.kind, Kind::Depthwise) {
            return depthwise(self.isa, self, x, y, clamp.bounds());
        }
        let [_, per_group, kh, kw] = self.shape;
        let (depth, out_per_group) = (per_group * kh * kw, out / self.groups);
        for part in 0..n * self.groups {
            let g = part % self.groups;
            let x = &x[part * per_group * h * w..][..per_group * h * w];
            let y = &mut y[part * out_per_group * pixels..][..out_per_group * pixels];
            let weight = &self.weight.values[g * out_per_group * depth..][..out_per_group * depth];
            let weight = View::row_major(weight, out_per_group, depth);
            match self.kind {
                Kind::Strips(rows) => {
                    for first in (0..oh).step_by(rows) {
                        let rows = rows.min(oh - first);
                        let columns = &mut scratch[..depth * rows * ow];
                        im2col(self.isa, self, x, columns, first, rows);
                        let columns = View::row_major(columns, depth, rows * ow);
                        gemm(&mut y[first * ow..], pixels, weight, columns, false);
                    }
                }
                _ => gemm(y, pixels, weight, View::row_major(x, depth, pixels), false),
            }
            let bias = &self.bias[g * out_per_group..(g + 1) * out_per_group];
            finish_maps(self.isa, y, bias, pixels, clamp.bounds());
        }
    }

    /// Output channels, height and width.
    pub fn output(&self) -> [usize; 3] {
        [self.shape[0], self.output[0], self.output[1]]
    }

    /// `{isa}-{format}-{dtype}`, where the instruction set of a product is the best that `gemm-f32` finds.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Pointwise => "best-gemm-f32",
            Kind::Strips(_) => "best-im2col-f32",
            Kind::Depthwise => kernel_name!(self.isa.level(), "depthwise-f32"),
        }
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> usize {
        (self.weight.values.len() + self.bias.len()) * 4
    }

    /// For element `k` of the filter in dimension `d`: where its input lies for output 0, and the first and last (exclusive) output for which it does
    /// not lie in the padding.
    #[inline(always)]
    fn reach(&self, d: usize, k: usize) -> (isize, usize, usize) {
        let (stride, side) = (self.window.strides[d], self.input[d + 1]);
        let start = (k * self.window.dilations[d]) as isize - self.window.pads[d] as isize;
        let end = side
            .saturating_add_signed(-start)
            .div_ceil(stride)
            .min(self.output[d]);
        let first = start.min(0).unsigned_abs().div_ceil(stride).min(end);
        (start, first, end)
    }
}

multiversion!(fn im2col(conv: &Conv, x: &[f32], columns: &mut [f32], first: usize, rows: usize) = im2col_body;);
multiversion!(fn depthwise(conv: &Conv, x: &[f32], y: &mut [f32], bounds: Bounds) = depthwise_body;);
multiversion!(fn finish_maps(y: &mut [f32], bias: &[f32], pixels: usize, bounds: Bounds) = finish_maps_body;);

/// The inputs under each filter element for `rows` output rows from `first`: `[depth][rows * ow]`.
#[inline(always)]
fn im2col_body(conv: &Conv, x: &[f32], columns: &mut [f32], first: usize, rows: usize) {
    let [_, h, w] = conv.input;
    let [_, _, kh, kw] = conv.shape;
    let ow = conv.output[1];
    let [sy, sx] = conv.window.strides;
    for (k, columns) in columns.chunks_exact_mut(rows * ow).enumerate() {
        let map = &x[k / (kh * kw) * h * w..][..h * w];
        let (y_start, y_first, y_end) = conv.reach(0, k / kw % kh);
        let (x_start, x_first, x_end) = conv.reach(1, k % kw);
        for (row, to) in columns.chunks_exact_mut(ow).enumerate() {
            let oy = first + row;
            if oy < y_first || oy >= y_end || x_first == x_end {
                to.fill(0.0);
                continue;
            }
            let from = &map[(oy * sy).wrapping_add_signed(y_start) * w..][..w];
            to[..x_first].fill(0.0);
            to[x_end..].fill(0.0);
            let start = (x_first * sx).wrapping_add_signed(x_start);
            if sx == 1 {
                copy_short(
                    &from[start..start + x_end - x_first],
                    &mut to[x_first..x_end],
                );
            } else {
                for (to, from) in to[x_first..x_end]
                    .iter_mut()
                    .zip(from[start..].iter().step_by(sx))
                {
                    *to = *from;
                }
            }
        }
    }
}

/// Every output row as a sum of shifted input rows.
#[inline(always)]
fn depthwise_body(conv: &Conv, x: &[f32], y: &mut [f32], bounds: Bounds) {
    let [c, h, w] = conv.input;
    let [_, _, kh, kw] = conv.shape;
    let [oh, ow] = conv.output;
    let [sy, sx] = conv.window.strides;
    for (i, y) in y.chunks_exact_mut(oh * ow).enumerate() {
        let map = &x[i * h * w..][..h * w];
        let filter = &conv.weight.values[i % c * kh * kw..][..kh * kw];
        for (oy, y) in y.chunks_exact_mut(ow).enumerate() {
            y.fill(conv.bias[i % c]);
            for (k, &weight) in filter.iter().enumerate() {
                let (y_start, y_first, y_end) = conv.reach(0, k / kw);
                let (x_start, x_first, x_end) = conv.reach(1, k % kw);
                if oy < y_first || oy >= y_end || x_first == x_end {
                    continue;
                }
                let from = &map[(oy * sy).wrapping_add_signed(y_start) * w..][..w];
                let from = &from[(x_first * sx).wrapping_add_signed(x_start)..];
                let y = &mut y[x_first..x_end];
                if sx == 1 {
                    for (y, x) in y.iter_mut().zip(from) {
                        *y += weight * x;
                    }
                } else {
                    for (y, x) in y.iter_mut().zip(from.iter().step_by(sx)) {
                        *y += weight * x;
                    }
                }
            }
            for y in y {
                *y = bounds.apply(*y);
            }
        }
    }
}

#[inline(always)]
fn finish_maps_body(y: &mut [f32], bias: &[f32], pixels: usize, bounds: Bounds) {
    for (y, bias) in y.chunks_exact_mut(pixels).zip(bias) {
        for y in y {
            *y = bounds.apply(*y + bias);
        }
    }
}

impl PackedKernel for Conv {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x,
            y,
            n,
            scratch,
            clamp,
            ..
        } = operands;
        Self::run(self, x, y, n, scratch, clamp);
    }

    fn name(&self) -> String {
        Self::name(self).into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.dense_conv(costs.dense_conv)
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn scratch_len(&self) -> usize {
        Self::scratch_len(self)
    }
}
