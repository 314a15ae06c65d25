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
    pub batch: usize,
    /// Samples that go together through a network of sequences, in which each layer has the layout that suits it; `None` for other networks.
    pub together: Option<usize>,
    pub costs: Costs,
}

impl Choice {
    /// Kernel of a linear step; `None` for any other.
    pub fn linear(&self, step: &Step, used: Option<WeightUse>) -> Option<LinearKernel> {
        let (Op::Linear(_), Some(used)) = (&step.op, used) else {
            return None;
        };
        let size = size(step, used);
        // Each of several vectors of a sample is a sample of the kernel.
        let n = self.together.unwrap_or(self.batch);
        let n = n.saturating_mul(used.pixels);
        let layout = match (used.pixels, self.together) {
            (1, None) => self.layout,
            _ => {
                let edge = size.rows + size.cols;
                select::linear_layout(&self.costs, &[size], self.sparse, edge, n)
            }
        };
        Some(match (self.sparse, layout) {
            // A dense plan is dense for any costs.
            (false, Layout::Tiled) => LinearKernel::Gemm,
            (false, _) => select::single_dense(n),
            (true, layout) => select::linear(&self.costs, size, layout, n),
        })
    }
}

/// Rows, columns and non-zeros of a linear step.
pub(super) fn size(step: &Step, used: WeightUse) -> Size {
    let rows = step.output_shape.dims().last().copied().unwrap_or(1);
    Size {
        rows,
        cols: used.elements / rows.max(1),
        nonzeros: used.nonzeros,
        precision: used.precision,
    }
}
