//! Kernels of operators on single elements, and of softmax.

use sparsevd_kernels::channels::PerChannelKernel;
use sparsevd_kernels::elementwise::{
    Arithmetic, ArithmeticKernel, ClampKernel, SoftmaxKernel, Strided, StridedSoftmaxKernel,
};
use sparsevd_kernels::{Activation, ActivationKernel, Isa, Layout};
use sparsevd_model::Shape;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;
use crate::value::{Rows, ValueType};
use crate::zeros::clamp_keeps_zero;

/// The one kernel of an activation, in the layout of its input.
pub(super) fn activation<'a>(
    context: &Context<'_>,
    step: &Step,
) -> Result<Candidate<'a>, RuntimeError> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let (layout, rows) = context.form_of_inputs(step, step.op.operator().keeps_zero());
    let function = Activation::of(&step.op).ok_or_else(|| context.unsupported(step))?;
    let candidate = match function {
        Activation::Clamp(_) => Candidate::whole([layout, layout], ClampKernel { isa }, features),
        function => {
            let kernel = ActivationKernel { isa, function };
            Candidate::whole([layout, layout], kernel, features)
        }
    };
    Ok(candidate.over(rows))
}

/// The one kernel of a softmax, over single samples.
pub(super) fn softmax<'a>(context: &Context<'_>, step: &Step, axis: usize) -> Candidate<'a> {
    let total = step.output_shape.elements();
    let isa = context.isa();
    let value = &context.program.values[step.output];
    let rows = value.rows_before(axis);
    let layouts = [Layout::Single, Layout::Single];
    let (size, inner) = size_and_inner(value, axis);
    if inner == 1 && value.free != Some(axis) {
        let kernel = SoftmaxKernel {
            isa,
            features: size,
        };
        return Candidate::whole(layouts, kernel, total).over(rows);
    }
    strided_softmax(context, step, axis, false)
}

/// The one kernel of the logarithm of a softmax, over single samples.
pub(super) fn log_softmax<'a>(context: &Context<'_>, step: &Step, axis: usize) -> Candidate<'a> {
    strided_softmax(context, step, axis, true)
}

/// The kernel that computes a softmax, or its logarithm, along any dimension.
fn strided_softmax<'a>(
    context: &Context<'_>,
    step: &Step,
    axis: usize,
    log: bool,
) -> Candidate<'a> {
    let isa = context.isa();
    let value = &context.program.values[step.output];
    let (size, inner) = size_and_inner(value, axis);
    let known = match value.free {
        Some(free) if free > axis => Strided::Size(size),
        _ => Strided::Inner(inner),
    };
    let kernel = StridedSoftmaxKernel { isa, known, log };
    let total = step.output_shape.elements();
    Candidate::whole([Layout::Single; 2], kernel, total).over(value.rows_before(axis))
}

/// The elements along a dimension, and those behind each.
fn size_and_inner(value: &ValueType, axis: usize) -> (usize, usize) {
    match &value.shape.dims()[axis..] {
        [size, inner @ ..] => (*size, inner.iter().product()),
        [] => (1, 1),
    }
}

/// Two values of one shape, or a map and one number for each of its channels.
pub(super) fn arithmetic<'a>(context: &Context<'_>, step: &Step, op: Arithmetic) -> Candidate<'a> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let [a, b] = [0, 1].map(|i| context.program.values[step.inputs[i]].shape.elements());
    let keeps = a == b && step.op.operator().keeps_zero() && clamp_keeps_zero(step.clamp);
    if a == b {
        let (layout, rows) = context.form_of_inputs(step, keeps);
        let kernel = ArithmeticKernel { isa, op };
        return Candidate::whole([layout, layout], kernel, features).over(rows);
    }
    let layout = match context.natural_rows(step) {
        Rows::ONE => context.layout_of_inputs(step, keeps),
        _ => Layout::Single,
    };
    let kernel = PerChannelKernel { isa, op, layout };
    Candidate::whole([layout, layout], kernel, features)
}

/// A sum of two values of that shape.
pub(super) fn sum(isa: Isa, shape: &Shape) -> Part {
    let op = Arithmetic::Add;
    Part::whole(ArithmeticKernel { isa, op }, shape.elements())
}
