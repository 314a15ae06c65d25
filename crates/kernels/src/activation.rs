//! Activation functions, element by element.

use sparsevd_model::{Approximate, Op, ops};

use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::{Clamp, Isa, LANES, exponential, math};

/// An activation function. NaN passes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// ReLU and Clip.
    Clamp(Clamp),
    /// `x` if `x >= 0`, else `alpha x`.
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
    /// `x` where it is not negative, else `alpha (e^x - 1)`.
    Elu {
        /// Minus the limit on the negative side.
        alpha: f32,
    },
    /// `ln(1 + e^x)`.
    Softplus,
    /// `e^x`.
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// The error function.
    Erf,
}

impl Activation {
    /// The activation function that an operator is; `None` for any that is no activation ([`Op::is_activation`]).
    pub fn of(op: &Op) -> Option<Self> {
        Some(match *op {
            Op::Relu => Self::Clamp(Clamp::Relu),
            Op::Clip(ops::Clip { min, max }) => Self::Clamp(Clamp::Clip {
                min: min.unwrap_or(f32::NEG_INFINITY),
                max: max.unwrap_or(f32::INFINITY),
            }),
            Op::LeakyRelu(ops::LeakyRelu { alpha }) => Self::LeakyRelu { alpha },
            Op::Sigmoid => Self::Sigmoid,
            Op::HardSigmoid(ops::HardSigmoid { alpha, beta }) => Self::HardSigmoid { alpha, beta },
            Op::HardSwish => Self::HardSwish,
            Op::Tanh => Self::Tanh,
            Op::Gelu(ops::Gelu { approximate }) => match approximate {
                Approximate::None => Self::Gelu,
                Approximate::Tanh => Self::GeluTanh,
            },
            Op::Elu(ops::Elu { alpha }) => Self::Elu { alpha },
            Op::Softplus => Self::Softplus,
            Op::Exp => Self::Exp,
            Op::Log => Self::Log,
            Op::Sqrt => Self::Sqrt,
            Op::Erf => Self::Erf,
            _ => return None,
        })
    }

    /// The clamp that it is, where it is one: kernels fuse those.
    pub fn as_clamp(self) -> Option<Clamp> {
        match self {
            Self::Clamp(clamp) => Some(clamp),
            _ => None,
        }
    }

    /// The name in plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clamp(_) => "clamp",
            Self::LeakyRelu { .. } => "leaky-relu",
            Self::Sigmoid => "sigmoid",
            Self::HardSigmoid { .. } => "hard-sigmoid",
            Self::HardSwish => "hard-swish",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::Elu { .. } => "elu",
            Self::Softplus => "softplus",
            Self::Exp => "exp",
            Self::Log => "log",
            Self::Sqrt => "sqrt",
            Self::Erf => "erf",
        }
    }

    /// Applies the function to each element in place, in any layout. The error is at most 1e-6, of results above 1 relative.
    pub fn apply(self, isa: Isa, x: &mut [f32]) {
        apply(isa, x, self);
    }
}

multiversion!(fn apply(x: &mut [f32], function: Activation) = apply_body;);

#[inline(always)]
fn apply_body(x: &mut [f32], function: Activation) {
    match function {
        Activation::Clamp(clamp) => {
            let bounds = clamp.bounds();
            map(x, |v| bounds.apply(v));
        }
        Activation::LeakyRelu { alpha } => map(x, |v| if v < 0.0 { alpha * v } else { v }),
        Activation::Sigmoid => map(x, math::sigmoid),
        Activation::HardSigmoid { alpha, beta } => map(x, |v| math::hard_sigmoid(v, alpha, beta)),
        Activation::HardSwish => map(x, math::hard_swish),
        Activation::Tanh => map(x, math::tanh),
        Activation::Gelu => map(x, math::gelu),
        Activation::GeluTanh => map(x, math::gelu_tanh),
        Activation::Elu { alpha } => map(x, |v| math::elu(v, alpha)),
        Activation::Softplus => map(x, math::softplus),
        Activation::Exp => map(x, exponential::exp_full),
        Activation::Log => map(x, exponential::log),
        Activation::Sqrt => map(x, f32::sqrt),
        Activation::Erf => map(x, math::erf_of_any),
    }
}

#[inline(always)]
fn map(x: &mut [f32], f: impl Fn(f32) -> f32) {
    x.iter_mut().for_each(|x| *x = f(*x));
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

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Elements(LANES))
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
