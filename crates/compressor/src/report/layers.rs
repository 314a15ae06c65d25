//! What a network is, layer by layer.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sparsevd_format::{FileType, WEIGHT_PARTS};
use sparsevd_model::{Network, Shape};

use crate::error::CompressError;

/// One weighted node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    /// Node.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Shape of the weight as it is stored.
    pub shape: Shape,
    /// Shape of the weight before dead units were removed.
    pub original_shape: Shape,
    /// Weights of the original tensor.
    pub weights: usize,
    /// Weights that are not zero.
    pub nonzeros: usize,
    /// Share of the original weights that are not zero.
    pub density: f64,
    /// Bytes in the file, indices and bias included; `None` for a packed file, which codes all layers in one stream.
    pub bytes: Option<u64>,
}

/// A network, counted as in the papers: weights are those of matrices and filters of the original network, biases apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Weights of the original network.
    pub weights: usize,
    /// Weights that are not zero.
    pub nonzeros: usize,
    /// Weights over non-zeros; `None` where no weight is left, and the network is constant.
    pub ratio: Option<f64>,
    /// Size of the file.
    pub file_bytes: u64,
    /// The weighted nodes.
    pub layers: Vec<LayerSummary>,
    /// Weights and biases of the original network.
    pub parameters: usize,
    /// Weights and biases that are not zero.
    pub nonzero_parameters: usize,
}

impl Summary {
    /// Summarises a network whose tensors take `bytes` in a file of `file_bytes`, as [`stored_bytes`] says.
    pub fn new(network: &Network, bytes: Option<&BTreeMap<String, u64>>, file_bytes: u64) -> Self {
        let mut biases = [0, 0];
        let mut layers = vec![];
        for node in network.graph.weighted_nodes() {
            let (Some(name), Some(weight)) = (node.op.weight(), network.weight(node)) else {
                continue;
            };
            let original_shape = network.original_shape(name);
            let mut stored = bytes.map(|bytes| stored(bytes, name));
            if let (Some(bias), Some(values)) = (node.op.bias(), network.bias(node)) {
                biases[0] += original_shape.matrix().0;
                biases[1] += values.iter().filter(|v| **v != 0.0).count();
                let of_bias = bytes.and_then(|b| b.get(bias)).copied();
                stored = stored.map(|s| s + of_bias.unwrap_or(0));
            }
            let (weights, nonzeros) = (original_shape.elements(), weight.nonzeros());
            layers.push(LayerSummary {
                name: node.name.clone(),
                op: node.op.name().into(),
                shape: weight.shape(),
                original_shape,
                weights,
                nonzeros,
                density: nonzeros as f64 / weights.max(1) as f64,
                bytes: stored,
            });
        }
        let (weights, nonzeros) = (network.original_weights(), network.nonzeros());
        Self {
            weights,
            nonzeros,
            ratio: ratio(weights, nonzeros),
            file_bytes,
            layers,
            parameters: weights + biases[0],
            nonzero_parameters: nonzeros + biases[1],
        }
    }
}

/// Weights over weights left, where any is left.
pub fn ratio(weights: usize, left: usize) -> Option<f64> {
    (left > 0).then(|| weights as f64 / left as f64)
}

/// Bytes of a weight: of its dense tensor or of its parts.
fn stored(bytes: &BTreeMap<String, u64>, weight: &str) -> u64 {
    WEIGHT_PARTS
        .iter()
        .filter_map(|part| bytes.get(&format!("{weight}{part}")))
        .sum()
}

/// Size of every tensor of a safetensors file in bytes, by its name there; `None` for a packed file. `bytes` are those of the
/// file, whose `path` errors name.
///
/// # Errors
/// A file that is neither.
pub fn stored_bytes(
    path: &Path,
    bytes: &[u8],
) -> Result<Option<BTreeMap<String, u64>>, CompressError> {
    if FileType::of(bytes) == FileType::Packed {
        return Ok(None);
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| CompressError::Report {
        path: path.into(),
        what: e.to_string(),
    })?;
    let tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), view.data().len() as u64))
        .collect();
    Ok(Some(tensors))
}
