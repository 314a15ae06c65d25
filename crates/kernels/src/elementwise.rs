//! Element-wise operations and softmax.

use crate::cost::Costs;
use crate::exponential::{exp, log};
use crate::isa::multiversion;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::{Clamp, Isa, LANES, Layout, length};

/// `x = clamp(x)` in place, in any layout.
pub fn clamp(isa: Isa, x: &mut [f32], clamp: Clamp) {
    let bounds = clamp.bounds();
    clamp_slice(isa, x, bounds.min, bounds.max);
}

/// A binary operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a b`.
    Mul,
    /// `a / b`.
    Div,
    /// The larger of `a` and `b`; NaN where either is.
    Max,
    /// The smaller of `a` and `b`; NaN where either is.
    Min,
}

impl Arithmetic {
    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add-f32",
            Self::Sub => "sub-f32",
            Self::Mul => "mul-f32",
            Self::Div => "div-f32",
            Self::Max => "max-f32",
            Self::Min => "min-f32",
        }
    }
}

/// `y = clamp(a op b)` element by element, in any layout.
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub fn arithmetic(isa: Isa, op: Arithmetic, a: &[f32], b: &[f32], y: &mut [f32], clamp: Clamp) {
    length::check("b", b.len(), [a.len()]);
    length::check("y", y.len(), [a.len()]);
    pairs(isa, op, a, b, y, clamp);
}

/// `x = clamp(x + b)` in place, in any layout.
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub fn add_assign(isa: Isa, x: &mut [f32], b: &[f32], clamp: Clamp) {
    length::check("b", b.len(), [x.len()]);
    sum_assign(isa, x, b, clamp);
}

/// Softmax over the `features` of each sample, in place; `x` holds `count` samples or tiles.
///
/// # Panics
/// When `x` is not `count * features * layout.samples()` long.
#[track_caller]
pub fn softmax(isa: Isa, layout: Layout, x: &mut [f32], features: usize, count: usize) {
    length::check("x", x.len(), [count, features, layout.samples()]);
    match layout {
        Layout::Tiled => softmax_tiled(isa, x, features),
        _ => softmax_single(isa, x, features),
    }
}

multiversion!(fn clamp_slice(x: &mut [f32], min: f32, max: f32) = clamp_body;);
multiversion!(
    fn pairs(op: Arithmetic, a: &[f32], b: &[f32], y: &mut [f32], clamp: Clamp) = pairs_body;
);
multiversion!(fn sum_assign(x: &mut [f32], b: &[f32], clamp: Clamp) = sum_assign_body;);
multiversion!(fn softmax_single(x: &mut [f32], features: usize) = softmax_single_body;);
multiversion!(fn softmax_inner(x: &mut [f32], size: usize, inner: usize) = softmax_inner_body;);
multiversion!(fn log_softmax_inner(x: &mut [f32], size: usize, inner: usize) = log_softmax_inner_body;);
multiversion!(fn softmax_tiled(x: &mut [f32], features: usize) = softmax_tiled_body;);

#[inline(always)]
fn clamp_body(x: &mut [f32], min: f32, max: f32) {
    let bounds = Clamp::Clip { min, max }.bounds();
    x.iter_mut().for_each(|x| *x = bounds.apply(*x));
}

#[inline(always)]
fn pairs_body(op: Arithmetic, a: &[f32], b: &[f32], y: &mut [f32], clamp: Clamp) {
    arithmetic_body(op, a.iter().zip(b), y, clamp);
}

/// `y = clamp(a op b)` over pairs, with one branch on `op` for all of them.
#[inline(always)]
pub(crate) fn arithmetic_body<'x>(
    op: Arithmetic,
    pairs: impl Iterator<Item = (&'x f32, &'x f32)>,
    y: &mut [f32],
    clamp: Clamp,
) {
    let bounds = clamp.bounds();
    let pairs = y.iter_mut().zip(pairs);
    match op {
        Arithmetic::Add => pairs.for_each(|(y, (a, b))| *y = bounds.apply(a + b)),
        Arithmetic::Sub => pairs.for_each(|(y, (a, b))| *y = bounds.apply(a - b)),
        Arithmetic::Mul => pairs.for_each(|(y, (a, b))| *y = bounds.apply(a * b)),
        Arithmetic::Div => pairs.for_each(|(y, (a, b))| *y = bounds.apply(a / b)),
        Arithmetic::Max => pairs.for_each(|(y, (a, b))| {
            *y = bounds.apply(if *a > *b || a.is_nan() { *a } else { *b });
        }),
        Arithmetic::Min => pairs.for_each(|(y, (a, b))| {
            *y = bounds.apply(if *a < *b || a.is_nan() { *a } else { *b });
        }),
    }
}

#[inline(always)]
fn sum_assign_body(x: &mut [f32], b: &[f32], clamp: Clamp) {
    let bounds = clamp.bounds();
    for (x, b) in x.iter_mut().zip(b) {
        *x = bounds.apply(*x + b);
    }
}

#[inline(always)]
fn softmax_single_body(x: &mut [f32], features: usize) {
    if features == 0 {
        return;
    }
    for sample in x.chunks_exact_mut(features) {
        let max = sample
            .iter()
            .fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m });
        for v in &mut *sample {
            *v = exp(*v - max);
        }
        let total: f32 = sample.iter().sum();
        for v in sample {
            *v /= total;
        }
    }
}

#[inline(always)]
fn softmax_inner_body(x: &mut [f32], size: usize, inner: usize) {
    const L: usize = LANES;
    if size * inner == 0 {
        return;
    }
    for block in x.chunks_exact_mut(size * inner) {
        for first in (0..inner).step_by(L) {
            let lanes = L.min(inner - first);
            let mut max = [f32::NEG_INFINITY; L];
            for row in block.chunks_exact(inner) {
                for (m, v) in max.iter_mut().zip(&row[first..][..lanes]) {
                    *m = if *v > *m { *v } else { *m };
                }
            }
            let mut total = [0.0; L];
            for row in block.chunks_exact_mut(inner) {
                let row = &mut row[first..][..lanes];
                for ((v, m), t) in row.iter_mut().zip(&max).zip(&mut total) {
                    *v = exp(*v - m);
                    *t += *v;
                }
            }
            for row in block.chunks_exact_mut(inner) {
                for (v, t) in row[first..][..lanes].iter_mut().zip(&total) {
                    *v /= t;
                }
            }
        }
    }
}

#[inline(always)]
fn log_softmax_inner_body(x: &mut [f32], size: usize, inner: usize) {
    const L: usize = LANES;
    if size * inner == 0 {
        return;
    }
    for block in x.chunks_exact_mut(size * inner) {
        for first in (0..inner).step_by(L) {
            let lanes = L.min(inner - first);
            let mut max = [f32::NEG_INFINITY; L];
            for row in block.chunks_exact(inner) {
                for (m, v) in max.iter_mut().zip(&row[first..][..lanes]) {
                    *m = if *v > *m { *v } else { *m };
                }
            }
            let mut total = [0.0; L];
            for row in block.chunks_exact(inner) {
                for ((v, m), t) in row[first..][..lanes].iter().zip(&max).zip(&mut total) {
                    *t += exp(*v - m);
                }
            }
            total.iter_mut().for_each(|t| *t = log(*t));
            for row in block.chunks_exact_mut(inner) {
                let row = &mut row[first..][..lanes];
                for ((v, m), t) in row.iter_mut().zip(&max).zip(&total) {
                    *v = *v - m - t;
                }
            }
        }
    }
}

#[inline(always)]
fn softmax_tiled_body(x: &mut [f32], features: usize) {
    const L: usize = LANES;
    if features == 0 {
        return;
    }
    for sample in x.chunks_exact_mut(features * L) {
        let mut max = [f32::NEG_INFINITY; L];
        for v in sample.chunks_exact(L) {
            for (m, v) in max.iter_mut().zip(v) {
                *m = if *v > *m { *v } else { *m };
            }
        }
        let mut total = [0.0; L];
        for v in sample.chunks_exact_mut(L) {
            for ((v, m), t) in v.iter_mut().zip(&max).zip(&mut total) {
                *v = exp(*v - m);
                *t += *v;
            }
        }
        for v in sample.chunks_exact_mut(L) {
            for (v, t) in v.iter_mut().zip(&total) {
                *v /= t;
            }
        }
    }
}

/// [`clamp()`] in place.
#[derive(Debug, Clone)]
pub struct ClampKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
}

impl PackedKernel for ClampKernel {
    fn run(&self, operands: Operands<'_>) {
        clamp(self.isa, operands.y, operands.clamp);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Elements(LANES))
    }

    fn name(&self) -> String {
        "clamp-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn in_place(&self) -> bool {
        true
    }
}

/// [`arithmetic`] on two inputs, or on one and itself.
#[derive(Debug, Clone)]
pub struct ArithmeticKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// The operation.
    pub op: Arithmetic,
}

impl PackedKernel for ArithmeticKernel {
    fn run(&self, operands: Operands<'_>) {
        let Operands {
            x, x2, y, clamp, ..
        } = operands;
        arithmetic(self.isa, self.op, x, x2.unwrap_or(x), y, clamp);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Elements(LANES))
    }

    fn name(&self) -> String {
        self.op.name().into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}

/// Softmax along the middle dimension of `x`, `[count][size][inner]`, in place.
///
/// # Panics
/// When `x` is not a whole number of `size * inner`.
#[track_caller]
pub fn softmax_strided(isa: Isa, x: &mut [f32], size: usize, inner: usize) {
    if !x.is_empty() {
        check_strided(x, size, inner);
        softmax_inner(isa, x, size, inner);
    }
}

/// The logarithm of the softmax along the middle dimension of `x`, `[count][size][inner]`, in place.
///
/// # Panics
/// When `x` is not a whole number of `size * inner`.
#[track_caller]
pub fn log_softmax_strided(isa: Isa, x: &mut [f32], size: usize, inner: usize) {
    if !x.is_empty() {
        check_strided(x, size, inner);
        log_softmax_inner(isa, x, size, inner);
    }
}

#[track_caller]
fn check_strided(x: &[f32], size: usize, inner: usize) {
    let rows = x
        .len()
        .checked_div(size)
        .and_then(|rest| rest.checked_div(inner));
    length::check("x", x.len(), [rows.unwrap_or(0), size, inner]);
}

/// Softmax, or its logarithm, in place over [`Layout::Single`], along the first dimension of `[size][inner]` elements of each sample.
///
/// One of the two is known, the other is what the operands have.
#[derive(Debug, Clone)]
pub struct StridedSoftmaxKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// The known one.
    pub known: Strided,
    /// Whether it is the logarithm.
    pub log: bool,
}

/// The known one of the two dimensions of [`StridedSoftmaxKernel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strided {
    /// Elements of a softmax.
    Size(usize),
    /// Elements between those of a softmax.
    Inner(usize),
}

impl PackedKernel for StridedSoftmaxKernel {
    fn run(&self, operands: Operands<'_>) {
        let each = operands.y.len() / operands.n.max(1);
        length::check("y", operands.y.len(), [operands.n, each]);
        let (size, inner) = match self.known {
            Strided::Size(size) => (size, each / size.max(1)),
            Strided::Inner(inner) => (each / inner.max(1), inner),
        };
        match self.log {
            true => log_softmax_strided(self.isa, operands.y, size, inner),
            false => softmax_strided(self.isa, operands.y, size, inner),
        }
    }

    fn name(&self) -> String {
        match self.log {
            true => "log-softmax-in-place",
            false => "softmax-strided-in-place",
        }
        .into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn in_place(&self) -> bool {
        true
    }
}

/// [`softmax`] in place, over [`Layout::Single`].
#[derive(Debug, Clone)]
pub struct SoftmaxKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// Elements of a sample.
    pub features: usize,
}

impl PackedKernel for SoftmaxKernel {
    fn run(&self, operands: Operands<'_>) {
        softmax(
            self.isa,
            Layout::Single,
            operands.y,
            self.features,
            operands.n,
        );
    }

    fn name(&self) -> String {
        "softmax-in-place".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn in_place(&self) -> bool {
        true
    }
}
