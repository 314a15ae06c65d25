//! The kernel of attention.

use sparsevd_kernels::Layout;
use sparsevd_kernels::attention::Attention;
use sparsevd_model::ops;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::program::Step;

/// One kernel, over all vectors of a sample together.
pub(super) fn candidate<'a>(
    context: &Context<'_>,
    step: &Step,
    &ops::Attention { heads }: &ops::Attention,
) -> Result<Candidate<'a>, RuntimeError> {
    let d = step.input_shape.dims().last();
    let Some(width) = d.and_then(|d| d.checked_div(heads)).filter(|w| *w > 0) else {
        return Err(context.unsupported(step));
    };
    let kernel = Attention::new(context.isa(), heads, width);
    let total = step.output_shape.elements();
    Ok(Candidate::whole([Layout::Single; 2], kernel, total))
}
