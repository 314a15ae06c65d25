//! Copies.

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::length;

/// Copies a few dozen floats without a call of `memcpy`.
#[inline(always)]
pub(crate) fn copy_short(from: &[f32], to: &mut [f32]) {
    const V: usize = 8;
    let n = from.len().min(to.len());
    if n < V {
        #[allow(clippy::manual_memcpy, reason = "the call is what this avoids")]
        for i in 0..n {
            to[i] = from[i];
        }
        return;
    }
    let mut i = 0;
    while i < n {
        // The last vector overlaps the one before.
        let at = i.min(n - V);
        let mut v = [0.0; V];
        v.copy_from_slice(&from[at..at + V]);
        to[at..at + V].copy_from_slice(&v);
        i += V;
    }
}

/// A copy of a value, in any layout.
#[derive(Debug, Clone)]
pub struct CopyKernel;

impl PackedKernel for CopyKernel {
    fn run(&self, operands: Operands<'_>) {
        length::check("y", operands.y.len(), [operands.x.len()]);
        operands.y.copy_from_slice(operands.x);
    }

    fn name(&self) -> String {
        "copy".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.elementwise(costs)
    }
}
