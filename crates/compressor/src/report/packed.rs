//! The packed form of a network: where its bits go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sparsevd_format::{PackOptions, pack, packed_breakdown};
use sparsevd_model::Network;

use super::split_score::SplitScore;
use crate::error::CompressError;

/// Bits of a packed file, by what they encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedSize {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Magic, version, checksum, graph, names, shapes and scales.
    pub header_bits: u64,
    /// How many non-zeros each unit has.
    pub liveness_bits: u64,
    /// Where they are.
    pub positions_bits: u64,
    /// Signs and magnitudes.
    pub values_bits: u64,
    /// Biases.
    pub biases_bits: u64,
}

impl PackedSize {
    /// Takes the bytes of a packed file apart.
    ///
    /// # Errors
    /// Bytes that are no packed file.
    pub fn of(bytes: &[u8]) -> Result<Self, CompressError> {
        let spent = packed_breakdown(bytes)?;
        Ok(Self {
            bytes: bytes.len() as u64,
            header_bits: spent.header,
            liveness_bits: spent.liveness,
            positions_bits: spent.positions,
            values_bits: spent.values,
            biases_bits: spent.biases,
        })
    }

    /// Packs a network and takes that apart, or gives `None` where it is not on grids.
    ///
    /// # Errors
    /// A network on grids that cannot be packed all the same.
    pub fn of_network(network: &Network) -> Result<Option<Self>, CompressError> {
        let is_on_grids = !network.scales.is_empty()
            && (network.tensors.keys()).all(|t| network.scales.contains_key(t));
        if !is_on_grids {
            return Ok(None);
        }
        let bytes = pack(network, &PackOptions::for_size_of(network))?;
        Self::of(&bytes).map(Some)
    }

    /// The parts with a name for people, in the order of the file.
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        [
            ("header and graph", self.header_bits),
            ("non-zeros per unit", self.liveness_bits),
            ("positions", self.positions_bits),
            ("values", self.values_bits),
            ("biases", self.biases_bits),
        ]
    }
}

/// A packed file that was written beside the sparse network, and its errors as the runtime computes them.
///
/// A network that was pruned before any training has its exact weights in the interchange form, and weights rounded to grids here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackedResult {
    /// The file.
    pub output: PathBuf,
    /// Where its bits go.
    #[serde(flatten)]
    pub size: PackedSize,
    /// Where its weights were rounded to grids without training, the error of that; see [`Rounded::error`](crate::Rounded::error).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding_error: Option<f64>,
    /// Scores on the validation samples, where there was a data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<SplitScore>,
    /// Scores on the test samples, where the data set has any.
    pub test: Option<SplitScore>,
}
