//! The kernel of a parametric ReLU.

use sparsevd_kernels::prelu::PRelu;
use sparsevd_kernels::{Activation, ActivationKernel};
use sparsevd_model::{Weights, ops};

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;

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
    // The elements of a flattened map have slopes of their own, but lie in the blocks of its channels.
    let is_map = step.output_shape.dims().len() > 1;
    let layout = context.layout_of_inputs(step, is_map || slope.len() == 1);
    if let &[alpha] = slope.as_slice() {
        let function = Activation::LeakyRelu { alpha };
        return Candidate::whole([layout; 2], ActivationKernel { isa, function }, features);
    }
    Candidate::whole([layout; 2], PRelu::new(isa, layout, slope), features)
}
