//! By what weights are pruned.

use serde::{Deserialize, Serialize};

/// By what fine-tuning chooses the weights to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneBy {
    /// The loss that removing a weight costs, by Fisher information.
    #[default]
    Fisher,
    /// Its magnitude.
    Magnitude,
}

impl PruneBy {
    pub(super) fn is_fisher(&self) -> bool {
        *self == Self::Fisher
    }
}
