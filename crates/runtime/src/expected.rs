//! What a step should take, by the costs of the plan's options.

use sparsevd_kernels::cost::Size;

use crate::PlanOptions;
use crate::kernel::Kernel;
use crate::lower::Lowered;

/// How many times as long as bringing an element into tiles it takes to pool one, to bring it into blocks, or to combine it with another.
const OTHERS: usize = 3;

/// Microseconds for the plan's batch on one thread, run in blocks, of a step that reads so many elements of a sample.
pub(crate) fn expected_us(
    step: &Lowered,
    inputs: usize,
    options: &PlanOptions,
    block: usize,
) -> f64 {
    let costs = &options.costs;
    let batch = options.batch;
    let Some(used) = step.weight else {
        let elements = match &step.parts[0].kernel {
            Kernel::Pack(pack) => pack.packed(),
            Kernel::Unpack { features } => *features,
            _ => OTHERS * inputs.max(step.output_shape.elements()),
        };
        return (elements * batch) as f64 * costs.element / 1e3;
    };
    let rows = step.output_shape.elements() / used.pixels.max(1);
    let size = Size {
        rows,
        cols: used.elements / rows.max(1),
        nonzeros: used.nonzeros,
        precision: used.precision,
    };
    let each = |one: f64| one * batch as f64;
    let tiled = |tile: &dyn Fn(usize) -> f64| {
        let (whole, rest) = (batch / block, batch % block);
        whole as f64 * tile(block) + if rest > 0 { tile(rest) } else { 0.0 }
    };
    let uses = |weights: usize| (weights * used.pixels) as f64;
    let ns = match &step.parts[0].kernel {
        Kernel::Spmv(_) => each(costs.spmv(size)),
        Kernel::ByActivity(k) => each(costs.input_sparse(size, k.most()).min(costs.spmv(size))),
        Kernel::Gemv(_) => each(costs.gemv(size)),
        Kernel::Spmm(_) => tiled(&|n| costs.spmm(size, n)),
        Kernel::Gemm(_) => tiled(&|n| costs.gemm(size, n)),
        // Tiles are filled with lanes that nobody reads.
        kernel if kernel.is_sparse() => {
            let lanes = kernel.samples();
            uses(used.nonzeros) * costs.conv * batch.next_multiple_of(lanes) as f64
        }
        _ => each(uses(used.elements) * costs.dense_conv),
    };
    ns / 1e3
}
