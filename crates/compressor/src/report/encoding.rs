//! The size of a network by encoding.

use serde::{Deserialize, Serialize};
use sparsevd_format::inspect_encodings;
use sparsevd_model::Network;

/// Label of the packed form among other encodings.
const PACKED: &str = "packed, .spvd file";

/// The size of the network in one encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// The encoding, in words.
    pub encoding: String,
    /// Exact bytes, biases included.
    pub bytes: u64,
}

/// Bytes of a network in every encoding that it can be written in, the dense one first; `packed` is the size of its packed
/// file, where it has one.
pub fn encodings(network: &Network, packed: Option<u64>) -> Vec<Encoding> {
    let packed = packed.map(|bytes| (PACKED.to_owned(), bytes));
    inspect_encodings(network)
        .into_iter()
        .chain(packed)
        .map(|(encoding, bytes)| Encoding { encoding, bytes })
        .collect()
}
