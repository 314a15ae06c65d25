//! The expected time of a step, by the costs of the plan's options.

use sparsevd_kernels::cost::Size;
use sparsevd_kernels::kernel::Workload;

use crate::lowered::Lowered;
use crate::options::PlanOptions;

/// Expected microseconds of a step for the plan's batch on one thread, in blocks of `block` samples. The first input of the step has `inputs`
/// elements per sample.
pub(crate) fn expected_us(
    step: &Lowered,
    inputs: usize,
    options: &PlanOptions,
    block: usize,
) -> f64 {
    let outputs = step.output_shape.elements();
    let (pixels, size) = match step.weight {
        Some(used) => {
            let rows = outputs / used.pixels.max(1);
            let size = Size {
                rows,
                cols: used.elements / rows.max(1),
                nonzeros: used.nonzeros,
                precision: used.precision,
            };
            (used.pixels, size)
        }
        None => (0, Size::default()),
    };
    let work = Workload {
        size,
        pixels,
        elements: inputs.max(outputs),
        batch: options.batch,
        block,
    };
    step.parts[0].kernel.expected_ns(&options.costs, &work) / 1e3
}
