//! In which type linear layers store their non-zeros where nobody names one.

use sparsevd_kernels::Precision;
use sparsevd_kernels::cost::Size;
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_model::Network;

use super::batching::Batching;
use super::choice::size;
use super::context::Activity;
use super::weights::exact_scale;
use crate::lowered::WeightUse;
use crate::program::Program;

/// Sets the precision of layers in `uses` for which fewer bytes should be faster, by the kernels and layouts that they have in f32.
pub(super) fn choose_precisions(
    program: &Program,
    network: &Network,
    activity: &Activity,
    batching: &Batching,
    uses: &mut [Option<WeightUse>],
) {
    /// Share of inputs that are taken to be no zeros where they were not counted ([`select::most_active`]).
    const ACTIVE: f64 = 0.25;
    /// Layers with fewer of the bytes that a run reads gain nothing that is worth rounding them.
    const LEAST: f64 = 1e-3;
    let choice = &batching.choice;
    // A run reads the weights of all layers before it comes back to one.
    let stored = |used: &WeightUse| {
        let size = Size {
            nonzeros: used.nonzeros,
            ..Size::default()
        };
        size.stored_bytes()
    };
    let run: f64 = uses.iter().flatten().map(stored).sum();
    for (step, used) in program.steps.iter().zip(uses) {
        let Some((kernel, used)) = choice.linear(step, *used).zip(used.as_mut()) else {
            continue;
        };
        let (size, costs) = (size(step, *used), &choice.costs);
        if size.stored_bytes() < LEAST * run {
            continue;
        }
        let share = activity.get(&step.name).copied();
        let skips =
            kernel == LinearKernel::Spmv && select::most_active(costs, size, share).is_some();
        let active = skips.then(|| (share.unwrap_or(ACTIVE) * size.cols as f64).ceil() as usize);
        let n = batching.samples_of_call().saturating_mul(used.pixels);
        let is_faster =
            |precision| select::prefer_precision(costs, (kernel, n), size, precision, run, active);
        let exact = step
            .op
            .weight()
            .filter(|_| is_faster(Precision::I8 { scale: 1.0 }));
        used.precision = match exact.and_then(|name| exact_scale(network, name)) {
            Some(scale) => Precision::I8 { scale },
            None if is_faster(Precision::Bf16) => Precision::Bf16,
            None => Precision::F32,
        };
    }
}
