//! The choices that hold for a whole plan, and the kernels of linear layers, which depend on them alone.

use sparsevd_kernels::Layout;
use sparsevd_kernels::cost::{Costs, Size};
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_model::Op;

use crate::lowered::WeightUse;
use crate::program::Step;

/// What holds for all steps of a plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// Whether kernels may be sparse.
    pub sparse: bool,
    /// The layout of values where nothing asks for another.
    pub layout: Layout,
    /// Samples of one thread.
    pub share: usize,
    pub costs: Costs,
}

impl Choice {
    /// Kernel of a linear step; `None` for any other.
    pub fn linear(&self, step: &Step, used: Option<WeightUse>) -> Option<LinearKernel> {
        let (Op::Linear { .. }, Some(used)) = (&step.op, used) else {
            return None;
        };
        Some(match (self.sparse, self.layout) {
            // A dense plan is dense for any costs.
            (false, Layout::Tiled) => LinearKernel::Gemm,
            (false, _) => LinearKernel::Gemv,
            (true, layout) => select::linear(&self.costs, size(step, used), layout, self.share),
        })
    }
}

/// Rows, columns and non-zeros of a linear step.
pub(super) fn size(step: &Step, used: WeightUse) -> Size {
    let rows = step.output_shape.elements();
    Size {
        rows,
        cols: used.elements / rows.max(1),
        nonzeros: used.nonzeros,
        precision: used.precision,
    }
}
