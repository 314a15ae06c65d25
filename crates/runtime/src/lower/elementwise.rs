//! Kernels of operators on single elements, and of softmax.

use sparsevd_kernels::channels::PerChannelKernel;
use sparsevd_kernels::elementwise::{Arithmetic, ArithmeticKernel, ClampKernel, SoftmaxKernel};
use sparsevd_kernels::{Activation, ActivationKernel, Isa, Layout};
use sparsevd_model::{Approximate, Op, Shape};

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;
use crate::zeros::{clamp_keeps_zero, keeps_zero};

/// The one kernel of an elementwise operator or softmax, in the layout of its inputs.
pub(super) fn candidates<'a>(
    context: &Context<'_>,
    step: &Step,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let layout = context.layout_of_inputs(step, keeps_zero(&step.op));
    let candidate = match &step.op {
        Op::Relu | Op::Clip { .. } => {
            Candidate::whole([layout, layout], ClampKernel { isa }, features)
        }
        Op::Add => arithmetic(context, step, Arithmetic::Add),
        Op::Sub => arithmetic(context, step, Arithmetic::Sub),
        Op::Mul => arithmetic(context, step, Arithmetic::Mul),
        Op::Div => arithmetic(context, step, Arithmetic::Div),
        Op::Softmax => {
            let kernel = SoftmaxKernel { isa, features };
            Candidate::whole([Layout::Single, Layout::Single], kernel, features)
        }
        op => {
            let function = activation(op).ok_or_else(|| context.unsupported(step))?;
            let kernel = ActivationKernel { isa, function };
            Candidate::whole([layout, layout], kernel, features)
        }
    };
    Ok(vec![candidate])
}

/// The activation function that an operator is, if it is one.
fn activation(op: &Op) -> Option<Activation> {
    Some(match *op {
        Op::LeakyRelu { alpha } => Activation::LeakyRelu { alpha },
        Op::Sigmoid => Activation::Sigmoid,
        Op::HardSigmoid { alpha, beta } => Activation::HardSigmoid { alpha, beta },
        Op::HardSwish => Activation::HardSwish,
        Op::Tanh => Activation::Tanh,
        Op::Gelu {
            approximate: Approximate::None,
        } => Activation::Gelu,
        Op::Gelu {
            approximate: Approximate::Tanh,
        } => Activation::GeluTanh,
        _ => return None,
    })
}

/// Two values of one shape, or a map and one number for each of its channels.
fn arithmetic<'a>(context: &Context<'_>, step: &Step, op: Arithmetic) -> Candidate<'a> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let [a, b] = [0, 1].map(|i| context.values[step.inputs[i]].features);
    let keeps = a == b && keeps_zero(&step.op) && clamp_keeps_zero(step.clamp);
    let layout = context.layout_of_inputs(step, keeps);
    if a == b {
        return Candidate::whole([layout, layout], ArithmeticKernel { isa, op }, features);
    }
    let kernel = PerChannelKernel {
        isa,
        op,
        layout,
        area: a / b.max(1),
    };
    Candidate::whole([layout, layout], kernel, features)
}

/// A sum of two values of that shape.
pub(super) fn sum(isa: Isa, shape: &Shape) -> Part {
    let op = Arithmetic::Add;
    Part::whole(ArithmeticKernel { isa, op }, shape.elements())
}
