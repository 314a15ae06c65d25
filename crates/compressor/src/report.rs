//! Reports on a run and on a network: the tables that are printed and the JSON that programs read.

mod accuracy;
mod compression;
mod encoding;
mod failure;
mod layers;
mod packed;
mod run;
mod table;
mod text;

pub use accuracy::{Accuracy, Promise, SplitError, SplitFit, SplitScore};
pub use compression::{KernelChoice, Pruning, Report, Timing};
pub use encoding::{Encoding, encodings};
pub use layers::{LayerSummary, Summary, ratio, stored_bytes};
pub use packed::{PackedResult, PackedSize};
pub use run::{RunRecord, Task};
pub use table::{Align, Table, bytes, count};
pub use text::{
    NO_TEST, encodings as encodings_table, layers as layers_table, packed as packed_table,
};

/// Version of every JSON that is written here.
pub const SCHEMA: u32 = 1;
