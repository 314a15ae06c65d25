//! Pooling over [`Layout::Single`] and [`Layout::Tiled`].

use sparsevd_model::Window;

#[cfg(target_arch = "x86_64")]
use crate::Level;
use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::{Isa, LANES, Layout, length};

/// The kind of pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The largest value, ignoring padding; NaN if any value is NaN.
    Max,
    /// The mean, ignoring padding.
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
    /// When the window does not fit, padding is as large as the window, or the layout is [`Layout::Blocks`], which has
    /// [`crate::pool_blocks::BlockPool`].
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
        assert!(
            !matches!(layout, Layout::Blocks(_)),
            "pooling over blocks is BlockPool"
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

    /// Pooling of whole maps: `[c, h, w]` to `[c, 1, 1]`.
    ///
    /// # Panics
    /// When the map is empty.
    #[track_caller]
    pub fn global(isa: Isa, reduction: Reduction, layout: Layout, input: [usize; 3]) -> Self {
        let window = Window {
            kernel_shape: [input[1], input[2]],
            ..Window::square(1, 1)
        };
        Self::new(isa, reduction, layout, &window, input)
    }

    /// Pools `count` samples or tiles (see [`Layout`]). Threads can split them by samples, tiles or channels.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], count: usize) {
        let [c, h, w] = self.input;
        let [_, oh, ow] = self.output();
        let lanes = self.layout.samples();
        length::check("x", x.len(), [count, c, h, w, lanes]);
        length::check("y", y.len(), [count, c, oh, ow, lanes]);
        if y.is_empty() {
            return;
        }
        match self.layout {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa` of this level is only made where the features were detected; lengths were just checked.
            layout if self.is_pairs() && self.isa.level() == Level::Avx512 => unsafe {
                match layout {
                    Layout::Tiled => max_pairs_tiled(x, y, self.input, self.output),
                    _ => max_pairs(x, y, self.input, self.output),
                }
            },
            Layout::Tiled => tiled(self.isa, self, x, y),
            _ if self.is_global() => whole(self.isa, self, x, y),
            _ => single(self.isa, self, x, y),
        }
    }

    /// Whether it pools whole maps.
    fn is_global(&self) -> bool {
        let [_, h, w] = self.input;
        self.window.is_whole(h, w)
    }

    /// Whether this is 2x2 max-pooling with stride 2.
    #[cfg(target_arch = "x86_64")]
    fn is_pairs(&self) -> bool {
        self.reduction == Reduction::Max && self.window == Window::square(2, 2)
    }

    /// Channels, output height and width.
    pub fn output(&self) -> [usize; 3] {
        [self.input[0], self.output[0], self.output[1]]
    }
}

multiversion!(fn whole(pool: &Pool, x: &[f32], y: &mut [f32]) = whole_body;);
multiversion!(fn single(pool: &Pool, x: &[f32], y: &mut [f32]) = single_body;);
multiversion!(fn tiled(pool: &Pool, x: &[f32], y: &mut [f32]) = tiled_body;);

impl Pool {
    /// For output `o` of dimension `d`: the elements of the window that do not lie in the padding, and where the input of the first of them is.
    #[inline(always)]
    fn inside(&self, d: usize, o: usize) -> (std::ops::Range<usize>, usize) {
        if self.window.pads == [0; 4] {
            // Saves the divisions below.
            return (0..self.window.kernel_shape[d], o * self.window.strides[d]);
        }
        let dilation = self.window.dilations[d];
        let start = (o * self.window.strides[d]) as isize - self.window.pads[d] as isize;
        let first = start.min(0).unsigned_abs().div_ceil(dilation);
        let end = self.input[d + 1]
            .saturating_add_signed(-start)
            .div_ceil(dilation);
        let end = end.min(self.window.kernel_shape[d]);
        (
            first.min(end)..end,
            (first * dilation).wrapping_add_signed(start),
        )
    }

    /// For element `k` of the window's width: the outputs for which it does not lie in the padding, and where its input for the first of them is.
    #[inline(always)]
    fn reach(&self, k: usize) -> (std::ops::Range<usize>, usize) {
        let stride = self.window.strides[1];
        let start = (k * self.window.dilations[1]) as isize - self.window.pads[1] as isize;
        let first = start.min(0).unsigned_abs().div_ceil(stride);
        let end = self.input[2].saturating_add_signed(-start).div_ceil(stride);
        let end = end.min(self.output[1]);
        (
            first.min(end)..end,
            (first * stride).wrapping_add_signed(start),
        )
    }
}

/// The larger number; NaN if either is NaN.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

#[inline(always)]
fn whole_body(pool: &Pool, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = pool.input;
    match pool.reduction {
        Reduction::Max => reduced(x, y, h * w, f32::NEG_INFINITY, larger),
        Reduction::Average => {
            reduced(x, y, h * w, 0.0, |a, b| a + b);
            y.iter_mut().for_each(|y| *y /= (h * w) as f32);
        }
    }
}

/// Each map of `pixels` pixels as one number, by sixteen partial results.
#[inline(always)]
fn reduced(x: &[f32], y: &mut [f32], pixels: usize, start: f32, reduce: impl Fn(f32, f32) -> f32) {
    for (x, y) in x.chunks_exact(pixels).zip(y) {
        let mut parts = [start; LANES];
        let lines = x.chunks_exact(LANES);
        for (part, v) in parts.iter_mut().zip(lines.remainder()) {
            *part = reduce(*part, *v);
        }
        for line in lines {
            for (part, v) in parts.iter_mut().zip(line) {
                *part = reduce(*part, *v);
            }
        }
        *y = parts.into_iter().fold(start, &reduce);
    }
}

#[inline(always)]
fn single_body(pool: &Pool, x: &[f32], y: &mut [f32]) {
    match (pool.reduction, pool.window.strides[1]) {
        (Reduction::Max, 1) => rows::<1>(pool, x, y, f32::NEG_INFINITY, larger),
        (Reduction::Max, 2) => rows::<2>(pool, x, y, f32::NEG_INFINITY, larger),
        (Reduction::Max, _) => rows::<0>(pool, x, y, f32::NEG_INFINITY, larger),
        (Reduction::Average, 1) => rows::<1>(pool, x, y, 0.0, |a, b| a + b),
        (Reduction::Average, 2) => rows::<2>(pool, x, y, 0.0, |a, b| a + b),
        (Reduction::Average, _) => rows::<0>(pool, x, y, 0.0, |a, b| a + b),
    }
}

/// A whole row of output at a time, one element of the window after the other. `STRIDE` is the horizontal stride, or 0 to read it from the window.
#[inline(always)]
fn rows<const STRIDE: usize>(
    pool: &Pool,
    x: &[f32],
    y: &mut [f32],
    start: f32,
    reduce: impl Fn(f32, f32) -> f32,
) {
    let [_, h, w] = pool.input;
    let [oh, ow] = pool.output;
    let stride = if STRIDE == 0 {
        pool.window.strides[1]
    } else {
        STRIDE
    };
    if h * w == 0 || oh * ow == 0 {
        return;
    }
    for (x, y) in x.chunks_exact(h * w).zip(y.chunks_exact_mut(oh * ow)) {
        for (oy, y) in y.chunks_exact_mut(ow).enumerate() {
            y.fill(start);
            let (window_rows, first_row) = pool.inside(0, oy);
            for row in 0..window_rows.len() {
                let x = &x[(first_row + row * pool.window.dilations[0]) * w..][..w];
                for k in 0..pool.window.kernel_shape[1] {
                    let (outputs, from) = pool.reach(k);
                    if outputs.is_empty() {
                        continue;
                    }
                    let (y, x) = (&mut y[outputs], &x[from..]);
                    // The last chunk of inputs may be incomplete, so the last output is separate.
                    let n = (y.len() - 1) * stride;
                    let last = y.len() - 1;
                    for (y, x) in y[..last].iter_mut().zip(x[..n].chunks_exact(stride)) {
                        *y = reduce(*y, x[0]);
                    }
                    y[last] = reduce(y[last], x[n]);
                }
            }
            if pool.reduction == Reduction::Average {
                for (ox, y) in y.iter_mut().enumerate() {
                    *y /= (window_rows.len() * pool.inside(1, ox).0.len()) as f32;
                }
            }
        }
    }
}

/// The larger number in each lane; NaN if either is NaN.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn larger_lanes(
    a: std::arch::x86_64::__m512,
    b: std::arch::x86_64::__m512,
) -> std::arch::x86_64::__m512 {
    use std::arch::x86_64::*;
    // If either operand is NaN the instruction returns the second; their sum is NaN.
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b);
    _mm512_mask_add_ps(_mm512_max_ps(a, b), nan, a, b)
}

/// 2x2 max-pooling over [`Layout::Tiled`].
///
/// # Safety
/// As [`max_pairs`], where each pixel is a line of sixteen samples.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn max_pairs_tiled(x: &[f32], y: &mut [f32], [_, h, w]: [usize; 3], [oh, ow]: [usize; 2]) {
    use std::arch::x86_64::*;
    for row in 0..y.len() / (ow * LANES).max(1) {
        let (map, oy) = (row / oh, row % oh);
        // SAFETY: `2 * oh <= h` and `2 * ow <= w`, so the map has rows `2 * oy` and `2 * oy + 1`, with two lines for each output.
        unsafe {
            let mut top = x.as_ptr().add((map * h + 2 * oy) * w * LANES);
            let mut to = y.as_mut_ptr().add(row * ow * LANES);
            for _ in 0..ow {
                let bottom = top.add(w * LANES);
                let left = larger_lanes(_mm512_loadu_ps(top), _mm512_loadu_ps(bottom));
                let right = larger_lanes(
                    _mm512_loadu_ps(top.add(LANES)),
                    _mm512_loadu_ps(bottom.add(LANES)),
                );
                _mm512_storeu_ps(to, larger_lanes(left, right));
                (top, to) = (top.add(2 * LANES), to.add(LANES));
            }
        }
    }
}

/// 2x2 max-pooling over [`Layout::Single`]: the larger of each two rows, then of even and odd columns.
///
/// # Safety
/// The CPU has AVX-512 F. `x` holds whole maps of `h` by `w`, `y` as many of `oh` by `ow`, which are half of that, rounded down.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn max_pairs(x: &[f32], y: &mut [f32], [_, h, w]: [usize; 3], [oh, ow]: [usize; 2]) {
    use std::arch::x86_64::*;
    const LANE: usize = 16;
    let mask = |n: usize| ((1_u32 << n.min(LANE)) - 1) as __mmask16;
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for map in 0..y.len() / (oh * ow).max(1) {
        for oy in 0..oh {
            for ox in (0..ow).step_by(LANE) {
                let left = 2 * (ow - ox).min(LANE);
                let (first, second) = (mask(left), mask(left.saturating_sub(LANE)));
                // SAFETY: the masks limit loads to `left` pixels of each of two rows of this map, and the store to this row of `y`.
                unsafe {
                    let top = x.as_ptr().add(map * h * w + 2 * oy * w + 2 * ox);
                    let bottom = top.add(w);
                    let a = larger_lanes(
                        _mm512_maskz_loadu_ps(first, top),
                        _mm512_maskz_loadu_ps(first, bottom),
                    );
                    let (top, bottom) = (top.wrapping_add(LANE), bottom.wrapping_add(LANE));
                    let b = larger_lanes(
                        _mm512_maskz_loadu_ps(second, top),
                        _mm512_maskz_loadu_ps(second, bottom),
                    );
                    let out = larger_lanes(
                        _mm512_permutex2var_ps(a, even, b),
                        _mm512_permutex2var_ps(a, odd, b),
                    );
                    let to = y.as_mut_ptr().add(map * oh * ow + oy * ow + ox);
                    _mm512_mask_storeu_ps(to, mask(left / 2), out);
                }
            }
        }
    }
}

/// One output at a time: a line of sixteen samples.
#[inline(always)]
fn tiled_body(pool: &Pool, x: &[f32], y: &mut [f32]) {
    let [_, h, w] = pool.input;
    let [oh, ow] = pool.output;
    let [dy, dx] = pool.window.dilations;
    if h * w == 0 || oh * ow == 0 {
        return;
    }
    for (x, y) in x
        .chunks_exact(h * w * LANES)
        .zip(y.chunks_exact_mut(oh * ow * LANES))
    {
        for (oy, y) in y.chunks_exact_mut(ow * LANES).enumerate() {
            let (window_rows, first_row) = pool.inside(0, oy);
            for (ox, y) in y.chunks_exact_mut(LANES).enumerate() {
                let (columns, first_column) = pool.inside(1, ox);
                let mut acc = match pool.reduction {
                    Reduction::Max => [f32::NEG_INFINITY; LANES],
                    Reduction::Average => [0.0; LANES],
                };
                for row in 0..window_rows.len() {
                    let x = &x[((first_row + row * dy) * w + first_column) * LANES..];
                    for column in 0..columns.len() {
                        let line = &x[column * dx * LANES..][..LANES];
                        match pool.reduction {
                            Reduction::Max => {
                                for lane in 0..LANES {
                                    acc[lane] = larger(acc[lane], line[lane]);
                                }
                            }
                            Reduction::Average => {
                                for lane in 0..LANES {
                                    acc[lane] += line[lane];
                                }
                            }
                        }
                    }
                }
                if pool.reduction == Reduction::Average {
                    let count = (window_rows.len() * columns.len()) as f32;
                    for a in &mut acc {
                        *a /= count;
                    }
                }
                y.copy_from_slice(&acc);
            }
        }
    }
}

impl PackedKernel for Pool {
    fn run(&self, operands: Operands<'_>) {
        let count = operands.n.div_ceil(self.layout.samples());
        Self::run(self, operands.x, operands.y, count);
    }

    fn name(&self) -> String {
        "pool-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
