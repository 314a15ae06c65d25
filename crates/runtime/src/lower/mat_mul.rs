//! The kernel of a product of two computed matrices.

use sparsevd_kernels::Layout;
use sparsevd_kernels::mat_mul::MatMul;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::program::Step;

/// One kernel, over all pairs of matrices of a sample.
pub(super) fn candidate<'a>(
    context: &Context<'_>,
    step: &Step,
) -> Result<Candidate<'a>, RuntimeError> {
    let (&[ref outer @ .., n, k], &[.., m]) = (step.input_shape.dims(), step.output_shape.dims())
    else {
        return Err(context.unsupported(step));
    };
    let kernel = MatMul::new(outer.iter().product(), [n, k, m]);
    let total = step.output_shape.elements();
    Ok(Candidate::whole([Layout::Single; 2], kernel, total))
}
