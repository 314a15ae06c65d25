//! Reports on a run and on a network: the tables that are printed and the JSON that programs read.

mod accuracy;
mod class_error;
mod compression;
mod encoding;
mod failure;
mod int8;
mod json;
mod layers;
mod packed;
mod paired;
mod pooled;
mod promise;
mod run;
mod search;
mod seen;
mod split_score;
mod table;
mod text;

pub use accuracy::{Accuracy, Against, Part, SEEN};
pub use class_error::ClassError;
pub use compression::{Calibration, KernelChoice, Pruning, Report, Timing};
pub use encoding::{Encoding, encodings};
pub use int8::Int8Result;
pub(crate) use json::number;
pub use json::read_json;
pub use layers::{LayerSummary, Summary, ratio, stored_bytes};
pub use packed::{PackedResult, PackedSize};
pub use paired::{DropEstimate, mcnemar_p};
pub use pooled::{PooledErrors, PooledFit, PooledScore};
pub use promise::{ClassDrop, Promise, Verdict};
pub use run::{RunRecord, Task};
pub use search::{SearchReport, Try};
pub use seen::was_trained_on;
pub use split_score::{SplitError, SplitFit, SplitScore};
pub use table::{Align, Table, bytes, count};
pub use text::{
    NO_TEST, encodings as encodings_table, layers as layers_table, packed as packed_table,
    probability, rounding,
};

/// Version of every JSON that is written here.
pub const SCHEMA: u32 = 1;
