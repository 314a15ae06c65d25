//! The kernel of a parametric ReLU.

use sparsevd_kernels::prelu::PRelu;
use sparsevd_kernels::{Activation, ActivationKernel, Layout};
use sparsevd_model::{Weights, ops};

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;
use crate::value::Rows;

/// One kernel, in place over any layout of its channels: that of a leaky ReLU where there is one slope for all channels.
pub(super) fn candidate<'a>(
    context: &Context<'_>,
    step: &Step,
    prelu: &ops::PRelu,
) -> Candidate<'a> {
    let isa = context.isa();
    let features = step.output_shape.elements();
    let slope = context.network.tensors.get(&prelu.slope);
    let slope = slope.map(Weights::to_dense).unwrap_or_default().values;
    if let &[alpha] = slope.as_slice() {
        let (layout, rows) = context.form_of_inputs(step, true);
        let function = Activation::LeakyRelu { alpha };
        let kernel = ActivationKernel { isa, function };
        return Candidate::whole([layout; 2], kernel, features).over(rows);
    }
    // The elements of a flattened map have slopes of their own, but lie in the blocks of its channels.
    let is_map = step.output_shape.dims().len() > 1;
    // The vectors of a sample do not have all channels each, so that the kernel takes whole samples.
    let layout = match context.natural_rows(step) {
        Rows::ONE => context.layout_of_inputs(step, is_map),
        _ => Layout::Single,
    };
    Candidate::whole([layout; 2], PRelu::new(isa, layout, slope), features)
}
