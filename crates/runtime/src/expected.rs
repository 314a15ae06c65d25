//! The expected time of a step, by the costs of the plan's options.

use sparsevd_kernels::cost::Size;
use sparsevd_kernels::kernel::Workload;

use crate::lowered::Lowered;
use crate::options::PlanOptions;

/// Expected microseconds of a step for the plan's batch on one thread, in blocks of `block` samples. The first input of the step has `inputs`
/// elements for each sample of the kernel. A free dimension has `length` elements.
pub(crate) fn expected_us(
    step: &Lowered,
    inputs: usize,
    options: &PlanOptions,
    block: usize,
    length: usize,
) -> f64 {
    let outputs = step.output_shape.elements();
    // Samples of the kernel per sample of the network.
    let kernel_samples = step.rows.of(1, length).max(1);
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
        pixels: pixels.div_ceil(kernel_samples),
        elements: inputs.max(outputs.div_ceil(kernel_samples)),
        batch: options.batch * kernel_samples,
        block: block * kernel_samples,
    };
    step.parts[0].kernel.expected_ns(&options.costs, &work) / 1e3
}
