//! The kernel of a layer normalisation.

use sparsevd_kernels::layer_norm::LayerNorm;
use sparsevd_model::ops;

use super::candidate::Candidate;
use super::context::Context;
use crate::program::Step;

/// One kernel, in place over single samples, vectors of a sample, or tiles of either. It maps zeros to the bias, so it does not run over blocks.
pub(super) fn candidate<'a>(
    context: &Context<'_>,
    step: &Step,
    norm: &ops::LayerNormalization,
) -> Candidate<'a> {
    let (layout, rows) = context.form_of_inputs(step, false);
    let value = &context.program.values[step.output];
    let groups = value.rows_before(value.shape.dims().len().saturating_sub(norm.dimensions));
    // A row of the kernel holds whole groups: the vectors of a sample do not where several dimensions are normalised.
    let rows = match rows.count <= groups.count && rows.free <= groups.free {
        true => rows,
        false => groups,
    };
    let numbers = |name: &str| Some(context.network.tensors.get(name)?.to_dense().values);
    let scale = numbers(&norm.scale).unwrap_or_default();
    let bias = norm.bias.as_deref().and_then(numbers);
    let kernel = LayerNorm::new(context.isa(), layout, scale, bias, norm.epsilon);
    Candidate::whole([layout, layout], kernel, step.output_shape.elements()).over(rows)
}
