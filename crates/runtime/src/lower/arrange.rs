//! Kernels of operators that only move numbers: padding, concatenation, reshaping, transposition, copies, parts and rows of a table.

use sparsevd_kernels::axes::Transpose;
use sparsevd_kernels::embedding::Embedding;
use sparsevd_kernels::expand::Expand;
use sparsevd_kernels::place::{PadKernel, PlaceKernel, SliceKernel};
use sparsevd_kernels::{CopyKernel, Layout};
use sparsevd_model::{Weights, ops};

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;
use crate::value::{Rows, ValueType};

/// The one kernel of a padding, which does not run over blocks.
pub(super) fn pad<'a>(
    context: &Context<'_>,
    step: &Step,
    &ops::Pad { pads, value }: &ops::Pad,
) -> Result<Candidate<'a>, RuntimeError> {
    let layout = context.layout_of_inputs(step, false);
    let &[_, h, w] = step.input_shape.dims() else {
        return Err(context.no_map(step));
    };
    let kernel = PadKernel {
        layout,
        map: [h, w],
        pads,
        value,
    };
    let total = step.output_shape.elements();
    Ok(Candidate::whole([layout, layout], kernel, total))
}

/// The one kernel of a reshaping: a copy, since the steps that read a value know it by one shape.
pub(super) fn reshape<'a>(step: &Step) -> Candidate<'a> {
    let total = step.output_shape.elements();
    Candidate::whole([Layout::Single; 2], CopyKernel, total)
}

/// The one kernel of a transposition, over single samples.
pub(super) fn transpose<'a>(
    context: &Context<'_>,
    step: &Step,
    ops::Transpose { perm }: &ops::Transpose,
) -> Candidate<'a> {
    let kernel = Transpose::new(context.isa(), step.input_shape.dims(), perm);
    Candidate::whole([Layout::Single; 2], kernel, step.output_shape.elements())
}

/// The one kernel of a part of a value, which does not run over blocks.
pub(super) fn slice<'a>(
    context: &Context<'_>,
    step: &Step,
    &ops::Slice { axis, start, end }: &ops::Slice,
) -> Candidate<'a> {
    let input = &context.program.values[step.inputs[0]];
    let rows = input.rows_before(axis);
    let inner: usize = step.output_shape.dims()[axis + 1..].iter().product();
    let cuts_free = input.free == Some(axis);
    let layout = match rows {
        Rows::ONE if !cuts_free => context.layout_of_inputs(step, false),
        _ => Layout::Single,
    };
    let features = (end - start) * inner;
    let kernel = SliceKernel {
        layout,
        features,
        offset: start * inner,
        total: (!cuts_free).then(|| step.input_shape.dims()[axis] * inner),
    };
    Candidate::whole([layout, layout], kernel, features).over(rows)
}

/// The one kernel of copies along dimensions, over single samples.
pub(super) fn expand<'a>(step: &Step) -> Candidate<'a> {
    let kernel = Expand::new(step.input_shape.dims(), step.output_shape.dims());
    Candidate::whole([Layout::Single; 2], kernel, step.output_shape.elements())
}

/// The one kernel of an embedding, to which each id is a sample.
pub(super) fn embedding<'a>(
    context: &Context<'_>,
    step: &Step,
    ops::Embedding { table }: &ops::Embedding,
) -> Result<Candidate<'a>, RuntimeError> {
    let Some(table) = context.network.tensors.get(table).map(Weights::to_dense) else {
        return Err(context.unsupported(step));
    };
    let &[rows, width] = table.shape.dims() else {
        return Err(context.unsupported(step));
    };
    let ids = &context.program.values[step.inputs[0]];
    let ids = ids.rows_before(ids.shape.dims().len());
    let kernel = Embedding::new(table.values, [rows, width]);
    Ok(Candidate::whole([Layout::Single; 2], kernel, width).over(ids))
}

/// The one kernel of a concatenation, which does not run over blocks: a part for each input.
pub(super) fn concat<'a>(
    context: &Context<'_>,
    step: &Step,
    &ops::Concat { axis }: &ops::Concat,
) -> Candidate<'a> {
    let value = &context.program.values[step.output];
    let rows = value.rows_before(axis);
    // What a free dimension behind the axis multiplies, the kernel finds out.
    let features = |value: &ValueType| {
        let dims = value.shape.dims()[axis..].iter().zip(axis..);
        let known = dims.filter(|(_, i)| Some(*i) != value.free);
        known.map(|(size, _)| size).product::<usize>()
    };
    let layout = match (rows, value.free) {
        (Rows::ONE, None) => context.layout_of_inputs(step, false),
        _ => Layout::Single,
    };
    let total = features(value);
    let mut offset = 0;
    let part = |&input: &usize| {
        let features = features(&context.program.values[input]);
        let kernel = PlaceKernel {
            layout,
            features,
            offset,
            total,
        };
        offset += features;
        Part::whole(kernel, total)
    };
    let parts: Vec<Part> = step.inputs.iter().map(part).collect();
    Candidate {
        per_input: true,
        ..Candidate::new(layout, move || parts)
    }
    .over(rows)
}
