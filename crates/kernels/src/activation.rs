//! Clamp functions that are no clamps, element by element.

use crate::Isa;
use crate::cost::Costs;
use crate::elementwise::exp;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload};

/// A function of one number. NaN passes through each of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x` where it is not negative, else `alpha x`.
    LeakyRelu {
        /// Slope on the negative side.
        alpha: f32,
    },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `min(max(alpha x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x (1 + erf(x / sqrt(2))) / 2`.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    GeluTanh,
}

impl Activation {
    /// What the function is called in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeakyRelu { .. } => "leaky-relu",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid { .. } => "hard-sigmoid",
            Self::HardSwish => "hard-swish",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
        }
    }

    /// Applies the function in place, in any layout: within 1e-6, or 1e-6 of a result above 1.
    pub fn apply(self, isa: Isa, x: &mut [f32]) {
        apply(isa, x, self);
    }
}

multiversion!(fn apply(x: &mut [f32], function: Activation) = apply_body;);

#[inline(always)]
fn apply_body(x: &mut [f32], function: Activation) {
    match function {
        Activation::LeakyRelu { alpha } => map(x, |v| if v < 0.0 { alpha * v } else { v }),
        Activation::Sigmoid => map(x, sigmoid),
        Activation::HardSigmoid { alpha, beta } => map(x, |v| unit(alpha * v + beta)),
        Activation::HardSwish => map(x, |v| v * unit(v / 6.0 + 0.5)),
        Activation::Tanh => map(x, tanh),
        Activation::Gelu => map(x, |v| {
            0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2))
        }),
        Activation::GeluTanh => map(x, |v| {
            /// sqrt(2 / pi).
            const FACTOR: f32 = 0.797_884_6;
            0.5 * v * (1.0 + tanh(FACTOR * (v + 0.044_715 * v * v * v)))
        }),
    }
}

#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    x.iter_mut().for_each(|x| *x = f(*x));
}

/// From 0 to 1; lets NaN through.
#[inline(always)]
#[allow(
    clippy::manual_clamp,
    reason = "these are max and min, without a branch"
)]
fn unit(v: f32) -> f32 {
    let v = if v < 0.0 { 0.0 } else { v };
    if v > 1.0 { 1.0 } else { v }
}

/// The range where [`exp`] is finite; lets NaN through.
#[inline(always)]
fn exponent(v: f32) -> f32 {
    if v > 88.0 { 88.0 } else { v }
}

#[inline(always)]
fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + exp(exponent(-v)))
}

#[inline(always)]
fn tanh(v: f32) -> f32 {
    let e = exp(-2.0 * v.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(v);
    // Near 0 the difference above loses digits; the series does not.
    let s = v * v;
    let mut p = -1382.0 / 155_925.0;
    for c in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = p * s + c;
    }
    if v.abs() < 0.35 { v * p } else { far }
}

/// The error function within 2e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
fn erf(v: f32) -> f32 {
    let x = v.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_73, 0.254_829_6, 0.0] {
        p = p * t + c;
    }
    (1.0 - p * exp(-x * x)).copysign(v)
}

/// An [`Activation`] in place.
#[derive(Debug, Clone)]
pub struct ActivationKernel {
    /// Instruction set of the kernel.
    pub isa: Isa,
    /// The function.
    pub function: Activation,
}

impl PackedKernel for ActivationKernel {
    fn run(&self, operands: Operands<'_>) {
        self.function.apply(self.isa, operands.y);
    }

    fn name(&self) -> String {
        format!("{}-in-place", self.function.name())
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }

    fn in_place(&self) -> bool {
        true
    }
}
