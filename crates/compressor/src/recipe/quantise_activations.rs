//! Int8 layers that a compression ends with.

use serde::{Deserialize, Serialize};

use super::range::range;
use crate::error::CompressError;

/// Which of the numbers that a layer reads its int8 grid reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum RangeChoice {
    /// The range of the least mean squared error: a narrower one has finer steps, and cuts off more.
    #[default]
    Mse,
    /// All but one in ten thousand at each end.
    Percentile,
    /// All.
    Minmax,
}

/// How layers get int8 grids at the end of a compression: the settings of `compress quantise-activations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuantiseActivations {
    /// Training samples that ranges are found on.
    pub samples: usize,
    /// How ranges are chosen.
    pub range: RangeChoice,
    /// Layers that stay f32, by the names of their nodes or of their weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keep_f32: Vec<String>,
    /// Largest error of the outputs on these samples; layers of the largest errors stay f32 until it is kept.
    pub max_error: f64,
    /// Epochs that the weights are trained for while layers read rounded numbers; 0 only rounds.
    pub epochs: u32,
    /// Learning rate of these epochs at its highest.
    pub lr: f64,
}

impl Default for QuantiseActivations {
    fn default() -> Self {
        Self {
            samples: 128,
            range: RangeChoice::default(),
            keep_f32: vec![],
            max_error: 0.1,
            epochs: 0,
            lr: 5e-4,
        }
    }
}

impl QuantiseActivations {
    /// That every setting is in its range, in a recipe whose weights end on grids or do not.
    pub(super) fn check(&self, ends_on_grids: bool) -> Result<(), CompressError> {
        range(
            "quantise_activations.samples",
            self.samples as f64,
            1.0,
            1e6,
        )?;
        range("quantise_activations.max_error", self.max_error, 1e-9, 1e9)?;
        range(
            "quantise_activations.epochs",
            f64::from(self.epochs),
            0.0,
            100_000.0,
        )?;
        range("quantise_activations.lr", self.lr, 1e-9, 1.0)?;
        if self.epochs > 0 && ends_on_grids {
            return Err(CompressError::setting(
                "quantise_activations.epochs",
                "0 after a quantise phase, whose grids training would leave",
                self.epochs,
            ));
        }
        Ok(())
    }
}
