//! The weights of a step: their size, how they are stored, and rows of them.

use std::ops::Range;

use sparsevd_kernels::Precision;
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, memory, quantised};

use crate::error::RuntimeError;
use crate::lowered::WeightUse;
use crate::options::{PlanOptions, WeightMode, WeightType};
use crate::program::Step;

/// Size and use of the weight of a step; `None` for a step without one.
///
/// # Errors
/// When a weight is too large for the type in which it should be stored.
pub(super) fn weight_use(
    step: &Step,
    network: &Network,
    options: &PlanOptions,
) -> Result<Option<WeightUse>, RuntimeError> {
    let Some(name) = step.op.weight() else {
        return Ok(None);
    };
    let Some(weight) = network.tensors.get(name) else {
        return Ok(None);
    };
    let map = step
        .pool
        .as_ref()
        .map_or(&step.output_shape, |p| &p.input_shape);
    let (pixels, precision) = if step.op.operator().window().is_some() {
        // Convolutions always store f32.
        (map.dims()[1..].iter().product(), Precision::F32)
    } else {
        let vectors = map
            .dims()
            .split_last()
            .map_or(1, |(_, d)| d.iter().product());
        (vectors, precision(network, name, weight, options)?)
    };
    Ok(Some(WeightUse {
        elements: weight.shape().elements(),
        nonzeros: weight.nonzeros(),
        pixels,
        precision,
    }))
}

/// Checks that there is memory to pack the weights of a plan: a dense plan has all zeros, and copies them once, as do layers in `int8`, of bytes, where that
/// is not many times their non-zeros.
///
/// # Errors
/// [`RuntimeError::Model`] where there is none.
pub(super) fn check_memory(
    uses: &[Option<WeightUse>],
    options: &PlanOptions,
    int8: bool,
) -> Result<(), RuntimeError> {
    /// A copy of a non-zero with its column, and its packed form.
    const SPARSE: usize = 16;
    const DENSE: usize = 2 * size_of::<f32>();
    let bytes = uses.iter().flatten().map(|used| match options.weights {
        WeightMode::Sparse => {
            let all = int8 && sparsevd_kernels::select::may_store_all(used.elements, used.nonzeros);
            let in_bytes = if all {
                used.elements.saturating_mul(2)
            } else {
                0
            };
            used.nonzeros
                .saturating_mul(SPARSE)
                .saturating_add(in_bytes)
        }
        WeightMode::Dense => used.elements.saturating_mul(DENSE),
    });
    let bytes = bytes.fold(0, usize::saturating_add);
    Ok(memory::check(|| "the packed weights".into(), bytes as u64)?)
}

/// How the non-zeros of the weight of a linear layer are stored.
fn precision(
    network: &Network,
    name: &str,
    weight: &Weights,
    options: &PlanOptions,
) -> Result<Precision, RuntimeError> {
    let largest = || weight.values().iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    Ok(match options.values {
        // Layers for which another one is better get it later.
        WeightType::F32 | WeightType::Auto => Precision::F32,
        WeightType::Bf16 => Precision::Bf16,
        WeightType::F16 if largest() <= 65_504.0 => Precision::F16,
        WeightType::F16 => {
            return Err(RuntimeError::Option {
                option: "values",
                expected: format!("a type that holds the weights of `{name}`"),
                got: format!("f16, which ends at 65504, for {}", largest()),
            });
        }
        WeightType::I8 => {
            // Weights that are already on a grid keep it, so that they are stored exactly.
            let scale = exact_scale(network, name).unwrap_or_else(|| largest() / 127.0);
            let scale = if scale > 0.0 { scale } else { 1.0 };
            Precision::I8 { scale }
        }
    })
}

/// The scale of a tensor that the file has as integers up to 127 times a scale.
pub(super) fn exact_scale(network: &Network, name: &str) -> Option<f32> {
    let (weight, scale) = (network.tensors.get(name)?, *network.scales.get(name)?);
    let levels = quantised::grid(weight.values(), scale).ok()?;
    let is_exact = scale > 0.0 && levels.iter().all(|q| q.abs() <= 127);
    is_exact.then_some(scale)
}

/// Weights of each row that a layer multiplies: its non-zeros, or all of them where it runs dense.
pub(super) fn weights_of_rows(weight: &Weights, sparse: bool) -> Vec<usize> {
    let (rows, cols) = weight.shape().matrix();
    match weight {
        Weights::Csr(csr) if sparse => (0..csr.rows()).map(|r| csr.row(r).0.len()).collect(),
        Weights::Dense(dense) if sparse => {
            let row = |r: usize| &dense.values[r * cols..(r + 1) * cols];
            let nonzeros = |r| row(r).iter().filter(|v| **v != 0.0).count();
            (0..rows).map(nonzeros).collect()
        }
        _ => vec![cols; rows],
    }
}

pub(super) fn to_csr(weight: &Weights) -> Csr {
    match weight {
        Weights::Csr(csr) => csr.clone(),
        other => Csr::from_dense(&other.to_dense()),
    }
}

/// Some rows of a matrix or filters of a convolution.
pub(super) fn rows_of(dense: &Dense, rows: Range<usize>) -> Dense {
    let (_, cols) = dense.shape.matrix();
    let mut dims = dense.shape.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = rows.len();
    }
    Dense::new(
        Shape(dims),
        dense.values[rows.start * cols..rows.end * cols].to_vec(),
    )
}
