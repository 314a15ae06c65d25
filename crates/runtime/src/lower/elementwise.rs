//! Kernels of operators on single elements, and of softmax.

use sparsevd_kernels::channels::PerChannelKernel;
use sparsevd_kernels::elementwise::{Arithmetic, ArithmeticKernel, ClampKernel, SoftmaxKernel};
use sparsevd_kernels::{Activation, ActivationKernel, Isa, Layout};
use sparsevd_model::Shape;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;
use crate::zeros::clamp_keeps_zero;

/// The one kernel of an activation, in the layout of its input.
pub(super) fn activation<'a>(
    context: &Context<'_>,
    step: &Step,
) -> Result<Candidate<'a>, RuntimeError> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let layout = context.layout_of_inputs(step, step.op.operator().keeps_zero());
    let function = Activation::of(&step.op).ok_or_else(|| context.unsupported(step))?;
    Ok(match function {
        Activation::Clamp(_) => Candidate::whole([layout, layout], ClampKernel { isa }, features),
        function => {
            let kernel = ActivationKernel { isa, function };
            Candidate::whole([layout, layout], kernel, features)
        }
    })
}

/// The one kernel of a softmax, over single samples.
pub(super) fn softmax<'a>(context: &Context<'_>, step: &Step) -> Candidate<'a> {
    let features = step.output_shape.elements();
    let isa = context.isa();
    let kernel = SoftmaxKernel { isa, features };
    Candidate::whole([Layout::Single, Layout::Single], kernel, features)
}

/// Two values of one shape, or a map and one number for each of its channels.
pub(super) fn arithmetic<'a>(context: &Context<'_>, step: &Step, op: Arithmetic) -> Candidate<'a> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let [a, b] = [0, 1].map(|i| context.values[step.inputs[i]].features);
    let keeps = a == b && step.op.operator().keeps_zero() && clamp_keeps_zero(step.clamp);
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
