//! What reading a file of a network gives.

use std::collections::BTreeMap;

use sparsevd_model::Network;

/// A network from a file, and what to tell the user about it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedNetwork {
    /// The network.
    pub network: Network,
    /// Sentences for the user: how the graph was found, which tensors were dropped.
    pub notes: Vec<String>,
    /// Sentences that the user must see: what was guessed or converted, and may be wrong.
    pub warnings: Vec<String>,
    /// Entries of `__metadata__` that the format gives no meaning to.
    pub metadata: BTreeMap<String, String>,
}
