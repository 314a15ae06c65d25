//! Kernels of operators that only move numbers: padding and concatenation.

use sparsevd_kernels::place::{PadKernel, PlaceKernel};
use sparsevd_model::Op;

use super::candidate::Candidate;
use super::context::Context;
use crate::error::RuntimeError;
use crate::lowered::Part;
use crate::program::Step;

/// The one kernel of a padding or concatenation. Neither runs over blocks.
pub(super) fn candidates<'a>(
    context: &Context<'_>,
    step: &Step,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let layout = context.layout_of_inputs(step, false);
    let total = step.output_shape.elements();
    match step.op {
        Op::Pad { pads, value } => {
            let &[_, h, w] = step.input_shape.dims() else {
                return Err(context.no_map(step));
            };
            let kernel = PadKernel {
                layout,
                map: [h, w],
                pads,
                value,
            };
            Ok(vec![Candidate::whole([layout, layout], kernel, total)])
        }
        Op::Concat => {
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
            Ok(vec![Candidate {
                per_input: true,
                ..Candidate::new(layout, move || parts)
            }])
        }
        _ => Err(context.unsupported(step)),
    }
}
