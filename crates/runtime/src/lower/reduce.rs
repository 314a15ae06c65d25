//! Kernels of means along a dimension and of norms.

use sparsevd_kernels::Layout;
use sparsevd_kernels::reduce::{L2Normalize, Mean};

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;

/// The one kernel of a mean, over single samples.
pub(super) fn mean<'a>(context: &Context<'_>, step: &Step) -> Candidate<'a> {
    let inner = step.output_shape.elements();
    let kernel = Mean::new(context.isa(), inner);
    Candidate::whole([Layout::Single; 2], kernel, inner)
}

/// The one kernel of a normalisation by the norm, in place over vectors of single samples.
pub(super) fn l2_normalize<'a>(context: &Context<'_>, step: &Step) -> Candidate<'a> {
    let width = step.output_shape.dims().last().copied().unwrap_or(1);
    let kernel = L2Normalize::new(context.isa(), width);
    let candidate = Candidate::whole([Layout::Single; 2], kernel, width);
    candidate.over(context.vectors(step))
}
