//! What the consumers of a value need of it: the width of its halo, and whether one of them is a depthwise convolution.

use std::collections::HashSet;

use sparsevd_kernels::blocks::Blocks;
use sparsevd_model::{Op, ops};

use crate::program::{FusedPool, Program, Value};

/// For each value the halo that the windows of its consumers need, directly or through elementwise steps, if they run over blocks:
/// top, left, bottom, right.
pub(super) fn halos(program: &Program) -> Vec<[usize; 4]> {
    let mut halos = vec![[0; 4]; program.values.len()];
    let widen = |halo: &mut [usize; 4], needed: [usize; 4]| {
        for (old, needed) in halo.iter_mut().zip(needed) {
            *old = needed.max(*old);
        }
    };
    for step in program.steps.iter().rev() {
        if let Some(pool) = &step.pool {
            widen(
                &mut halos[pool.input],
                Blocks::halo_of(&FusedPool::window()),
            );
        }
        let step = step.without_pool();
        if let Some(residual) = step.residual {
            let needed = halos[step.output];
            widen(&mut halos[residual], needed);
        }
        let operator = step.op.operator();
        let needed = if let Op::Conv(ops::Conv { window, .. }) = &step.op {
            // For an output of fewer pixels than the strides give, the input is converted to other blocks, with the halo that its windows
            // need.
            let (from, to) = (step.input_shape.dims(), step.output_shape.dims());
            let covers = |d: usize| to[d + 1] * window.strides[d] >= from[d + 1];
            if from.len() == 3 && (0..2).all(covers) {
                widen(&mut halos[step.inputs[0]], Blocks::halo_of(window));
            }
            continue;
        } else if let Some(window) = operator.window() {
            match step.input_shape.dims() {
                // The pooling of whole maps reads no halo.
                &[_, h, w] if window.is_whole(h, w) => continue,
                _ => Blocks::halo_of(window),
            }
        } else if operator.keeps_zero() {
            halos[step.output]
        } else {
            continue;
        };
        for &input in &step.inputs {
            widen(&mut halos[input], needed);
        }
    }
    halos
}

/// The values that depthwise convolutions read.
pub(super) fn read_by_depthwise(program: &Program) -> HashSet<Value> {
    let depthwise = program.steps.iter().filter(|s| {
        let groups = s.op.groups();
        groups > 1 && s.input_shape.dims().first() == Some(&groups)
    });
    depthwise.map(|s| s.inputs[0]).collect()
}
