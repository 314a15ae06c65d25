//! The methods that can be compared.

use serde::{Deserialize, Serialize};
use sparsevd_compressor::recipe::PruneBy;

/// A way to choose the weights that are removed during training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum PruningMethod {
    /// By the dropout rates that training finds; fine-tuning prunes their survivors to the number of weights.
    SparseVd,
    /// The smallest, little by little in the same epochs
    GradualMagnitude,
    /// The same by Fisher information, the loss that removing a weight costs.
    Fisher,
}

impl PruningMethod {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::SparseVd, Self::GradualMagnitude, Self::Fisher];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SparseVd => "sparse-vd",
            Self::GradualMagnitude => "gradual-magnitude",
            Self::Fisher => "fisher",
        }
    }

    /// By what it prunes a network that has no posterior; `None` where it has one.
    pub(super) fn gradual(self) -> Option<PruneBy> {
        match self {
            Self::SparseVd => None,
            Self::GradualMagnitude => Some(PruneBy::Magnitude),
            Self::Fisher => Some(PruneBy::Fisher),
        }
    }
}
