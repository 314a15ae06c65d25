//! The kernel of a parametric ReLU.

use sparsevd_kernels::prelu::PRelu;
use sparsevd_kernels::{Activation, ActivationKernel};
use sparsevd_model::{Weights, ops};

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;

/// One kernel, in place over any layout: that of a leaky ReLU where there is one slope for all channels.
pub(super) fn candidate<'a>(
    context: &Context<'_>,
    step: &Step,
    prelu: &ops::PRelu,
) -> Candidate<'a> {
    let layout = context.layout_of_inputs(step, true);
    let isa = context.isa();
    let features = step.output_shape.elements();
    let slope = context.network.tensors.get(&prelu.slope);
    let slope = slope.map(Weights::to_dense).unwrap_or_default().values;
    if let &[alpha] = slope.as_slice() {
        let function = Activation::LeakyRelu { alpha };
        return Candidate::whole([layout; 2], ActivationKernel { isa, function }, features);
    }
    Candidate::whole([layout; 2], PRelu::new(isa, layout, slope), features)
}
