//! Records of the epochs of a run.

use serde::{Deserialize, Serialize};

use crate::layer::Layer;
use crate::recipe::Method;
use crate::report::number;
use crate::variational::histogram;

/// One layer at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Node.
    pub node: String,
    /// Weights of the original tensor.
    pub weights: usize,
    /// Weights that survive the recipe's threshold.
    pub left: usize,
    /// Units that are still computed.
    pub units: usize,
    /// Living weights by `log_alpha`, 32 bins of half a nat from -8; empty without noise.
    pub log_alpha_histogram: Vec<u64>,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Phase, from 1.
    pub phase: usize,
    /// What the phase does.
    pub method: Method,
    /// Epoch of the phase, from 1.
    pub epoch: u32,
    /// Mean loss over the epoch's training samples, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Training samples that were wrong under noise, in percent; of a regression, the root mean squared error.
    #[serde(deserialize_with = "number")]
    pub train_error: f64,
    /// KL divergence over all living weights at the end of the epoch, in nats; zero without noise.
    #[serde(deserialize_with = "number")]
    pub kl: f64,
    /// The same on the validation samples, without noise and without the weights over the threshold.
    #[serde(deserialize_with = "number")]
    pub validation_error: f64,
    /// Coefficient of determination on the validation samples, of a regression; see [`crate::objective::Score`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_r2: Option<f64>,
    /// The layers.
    pub layers: Vec<LayerRecord>,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl EpochRecord {
    /// Weights of the original network over weights left, where any is left.
    pub fn ratio(&self) -> Option<f64> {
        let weights: usize = self.layers.iter().map(|l| l.weights).sum();
        let left = self.left();
        (left > 0).then(|| weights as f64 / left as f64)
    }

    /// Weights left.
    pub fn left(&self) -> usize {
        self.layers.iter().map(|l| l.left).sum()
    }
}

impl LayerRecord {
    /// The record of a layer whose weights over `threshold` count as removed.
    pub(super) fn new(layer: &Layer<f32>, threshold: f64) -> Self {
        Self {
            node: layer.node.clone(),
            weights: layer.original.elements(),
            left: layer.survivors(threshold).iter().filter(|k| **k).count(),
            units: layer.units(),
            log_alpha_histogram: if layer.is_variational() {
                histogram(&layer.posterior()).to_vec()
            } else {
                vec![]
            },
        }
    }
}
