//! The unit that a regression is trained in.
//!
//! Steps of Adam and the noise that weights start with have absolute sizes, which fit outputs about one. So the trainer divides the
//! last layer by a power of two near the deviation of the targets, and multiplies it again when it writes the network. Both are
//! exact: only the exponents of the numbers change.

use sparsevd_model::quantised::is_scale;
use sparsevd_model::{Network, Op, Weights};

use crate::objective::Targets;

/// The unit of a network's outputs for some targets: the power of two nearest to the targets' standard deviation, as `deviation`
/// computes it.
///
/// It is 1 for classes, for a network that does not end in a layer with weights, and where that layer cannot be scaled exactly.
pub(crate) fn output_unit(network: &Network, targets: &Targets<'_>) -> f32 {
    let Some(deviation) = deviation(targets) else {
        return 1.0;
    };
    let unit = deviation.log2().round().exp2() as f32;
    let tensors = last_layer(network).map_or(vec![], |op| op.tensors().collect());
    let finite = |name: &&str| match network.tensors.get(*name) {
        Some(tensor) => tensor
            .values()
            .iter()
            .all(|v| (v / unit).is_finite() && (v * unit).is_finite()),
        None => false,
    };
    let on_grid = |name: &&str| network.scales.get(*name).is_none_or(|s| is_scale(s / unit));
    let exact = unit.is_normal() && !tensors.is_empty();
    match exact && tensors.iter().all(finite) && tensors.iter().all(on_grid) {
        true => unit,
        false => 1.0,
    }
}

/// Standard deviation of targets that are numbers: the root of the variance, averaged over the outputs; `None` for classes and for
/// targets that do not differ.
pub(crate) fn deviation(targets: &Targets<'_>) -> Option<f64> {
    let (mean, samples) = (means(targets)?, targets.len());
    let Targets::Vectors { outputs, values } = targets else {
        return None;
    };
    let squares = values.chunks_exact(*outputs).flat_map(|row| {
        row.iter()
            .zip(&mean)
            .map(|(&v, mean)| (f64::from(v) - mean).powi(2))
    });
    let variance = squares.sum::<f64>() / (samples * outputs) as f64;
    (variance > 0.0).then(|| variance.sqrt())
}

/// Mean of each output's targets; `None` for classes and without samples.
pub(crate) fn means(targets: &Targets<'_>) -> Option<Vec<f64>> {
    match targets {
        Targets::Vectors { outputs, values } if !targets.is_empty() && *outputs > 0 => {
            let mean = |output: usize| {
                let column = values.iter().skip(output).step_by(*outputs);
                column.map(|&v| f64::from(v)).sum::<f64>() / targets.len() as f64
            };
            Some((0..*outputs).map(mean).collect())
        }
        _ => None,
    }
}

/// The layer with weights that makes the network's output, where it has one.
pub(crate) fn last_layer(network: &Network) -> Option<&Op> {
    let [output] = network.graph.outputs.as_slice() else {
        return None;
    };
    let nodes = &network.graph.nodes;
    // Where another node reads the layer, scaling it would change that node too.
    let read = nodes.iter().any(|n| n.inputs.contains(output));
    let node = nodes.iter().find(|n| n.name == *output && !read)?;
    node.op.weight().map(|_| &node.op)
}

/// The network with its last layer times a power of two.
pub(crate) fn scale_outputs(mut network: Network, factor: f32) -> Network {
    if factor == 1.0 {
        return network;
    }
    let names: Vec<String> =
        last_layer(&network).map_or(vec![], |op| op.tensors().map(str::to_owned).collect());
    for name in names {
        if let Some(tensor) = network.tensors.get_mut(&name) {
            if let Weights::Csr(csr) = tensor {
                *csr = csr.map_values(|_, v| v * factor);
            } else {
                let mut dense = tensor.to_dense();
                dense.values.iter_mut().for_each(|v| *v *= factor);
                *tensor = dense.into();
            }
        }
        if let Some(scale) = network.scales.get_mut(&name) {
            *scale *= factor;
        }
    }
    network
}
