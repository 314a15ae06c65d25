//! The kernel of a batch normalisation that could not join a layer.

use sparsevd_kernels::channels::{Affine, AffineKernel};
use sparsevd_model::passes;

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;

/// One kernel, which scales and shifts each channel in place. It maps zeros to the shift, so it does not run over blocks.
pub(super) fn candidates<'a>(context: &Context<'_>, step: &Step) -> Vec<Candidate<'a>> {
    let layout = context.layout_of_inputs(step, false);
    let (scale, shift) = passes::normalisation(context.network, &step.op).unwrap_or_default();
    let area = step.output_shape.matrix().1;
    let affine = Affine::new(context.isa(), scale, shift, area);
    let kernel = AffineKernel { affine, layout };
    vec![Candidate::whole(
        [layout, layout],
        kernel,
        step.output_shape.elements(),
    )]
}
