//! Networks as safetensors: dense tensors under their own names, sparse weights as two to four tensors each.
//!
//! The format is documented in `docs/format.md`.

mod bitmask;
mod container;
mod encodings;
mod gaps;
mod graph;
mod int4;
mod parts;
mod read;
mod shards;
mod stored;
mod write;

#[cfg(feature = "data")]
pub(crate) use container::narrow;
pub(crate) use container::{Container, read_model};
pub use encodings::inspect_encodings;
pub use graph::GraphSource;
pub use parts::CsrProfile;
pub(crate) use read::read_container;
pub(crate) use shards::ShardList;
pub use shards::network_files;
pub use write::{ValueType, WriteOptions, write_network, write_network_bytes};

use serde::{Deserialize, Serialize};
use sparsevd_model::Shape;

/// Keys of `__metadata__` that the format gives a meaning to.
pub mod metadata_keys {
    /// The graph as JSON.
    pub const NETWORK: &str = "sparsevd.network";
    /// Layout and dense shape of every sparse weight, as JSON.
    pub const SPARSE: &str = "sparsevd.sparse";
    /// Shapes that weights had before dead units were removed, as JSON.
    pub const ORIGINAL: &str = "sparsevd.original";
    /// Scales of the grids that tensors stored as floating-point numbers are on, as JSON.
    pub const STEPS: &str = "sparsevd.steps";
    /// Grids of the inputs of layers that may run in int8, as JSON.
    pub const INT8: &str = "sparsevd.int8";
    /// Shapes of the tables whose integers have four bits, as JSON.
    pub const INT4: &str = "sparsevd.int4";
    /// `pt`, which other readers require.
    pub const FORMAT: &str = "format";

    /// All of them.
    pub const ALL: [&str; 7] = [INT4, INT8, FORMAT, NETWORK, ORIGINAL, SPARSE, STEPS];
}

pub(crate) use sparsevd_model::limits::MAX_ELEMENTS;

/// How the places of a sparse weight's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// The column of each value, and where rows start.
    Csr,
    /// A bit for each element of the matrix, whose rows are padded to bytes.
    RowBitmask,
    /// The zeros before each value, in codes of four bits.
    Gaps4,
    /// The same in codes of eight bits.
    Gaps8,
}

/// What the metadata say of a sparse weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SparseEntry {
    pub layout: Layout,
    /// The dense shape.
    pub shape: Shape,
}

/// What follows the name of a weight in those of the tensors that it is stored as; of a dense one, nothing.
pub const WEIGHT_PARTS: [&str; 8] = [
    "",
    VALUES,
    SCALE,
    COL_INDICES,
    CROW_INDICES,
    BITMASK,
    GAPS,
    INT4,
];

const VALUES: &str = ".values";
const SCALE: &str = ".scale";
const COL_INDICES: &str = ".col_indices";
const CROW_INDICES: &str = ".crow_indices";
const BITMASK: &str = ".bitmask";
const GAPS: &str = ".gaps";
const INT4: &str = ".int4";

/// Names of the tensors that a sparse weight, or a table of integers, is stored as.
pub(crate) struct PartNames {
    pub values: String,
    pub scale: String,
    pub col_indices: String,
    pub crow_indices: String,
    pub bitmask: String,
    pub gaps: String,
    pub int4: String,
}

impl PartNames {
    pub fn new(weight: &str) -> Self {
        Self {
            values: format!("{weight}{VALUES}"),
            scale: format!("{weight}{SCALE}"),
            col_indices: format!("{weight}{COL_INDICES}"),
            crow_indices: format!("{weight}{CROW_INDICES}"),
            bitmask: format!("{weight}{BITMASK}"),
            gaps: format!("{weight}{GAPS}"),
            int4: format!("{weight}{INT4}"),
        }
    }
}
