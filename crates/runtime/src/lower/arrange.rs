//! Kernels of operators that only move numbers: padding and concatenation.

use sparsevd_kernels::place::{PadKernel, PlaceKernel};
use sparsevd_model::ops;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;

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

/// The one kernel of a concatenation, which does not run over blocks: a part for each input.
pub(super) fn concat<'a>(context: &Context<'_>, step: &Step) -> Candidate<'a> {
    let layout = context.layout_of_inputs(step, false);
    let total = step.output_shape.elements();
    let mut offset = 0;
    let part = |&input: &usize| {
        let features = context.values[input].features;
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
}
