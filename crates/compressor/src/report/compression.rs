//! The report of one compression.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_model::Preprocessing;

use super::accuracy::Accuracy;
use super::encoding::Encoding;
use super::int8::Int8Result;
use super::json::read_json;
use super::layers::Summary;
use super::packed::PackedResult;
use super::search::SearchReport;
use crate::error::CompressError;
use crate::magnitude::Magnitude;
use crate::recipe::Recipe;
use crate::trainer::EpochRecord;

/// `report.json`: everything about one compression. Only timings differ between two runs of the same recipe and data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this layout.
    pub schema: u32,
    /// Version of the program.
    pub version: String,
    /// Name of the network.
    pub network: String,
    /// File that was compressed.
    pub model: PathBuf,
    /// What was guessed when the file was read, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The sparse network that was written, in the interchange form.
    pub output: PathBuf,
    /// The packed file, where one was written.
    pub packed: Option<PackedResult>,
    /// Why there is no packed file, where one was to lie beside the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_packed: Option<String>,
    /// How the network was pruned before any training, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruning: Option<Pruning>,
    /// The data set, in words, where there was one.
    pub data: Option<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// Where the recipe came from, in words.
    pub recipe_source: String,
    /// The recipe, as it was followed.
    pub recipe: Recipe,
    /// Every number of weights that was tried, where the recipe searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchReport>,
    /// How pixels became the input.
    pub preprocessing: Option<Preprocessing>,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// The network that was written.
    #[serde(flatten)]
    pub summary: Summary,
    /// Kernels by layer and batch, as the runtime plans them.
    pub kernels: Vec<KernelChoice>,
    /// Scores of the runtime before and after, where there was a data set.
    pub accuracy: Option<Accuracy>,
    /// Int8 layers, where the recipe ends with such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8Result>,
    /// Bytes in several encodings.
    pub encodings: Vec<Encoding>,
    /// Latency and memory of the sparse and the dense plan; `None` where nothing was timed.
    pub timings: Option<Vec<Timing>>,
    /// Wall time of training in seconds, over all sittings.
    pub training_seconds: f64,
}

impl Report {
    /// Reads a report that was written as JSON.
    ///
    /// # Errors
    /// A file that cannot be read or is no report of this version.
    pub fn read(path: &Path) -> Result<Self, CompressError> {
        read_json(path, "a report of `compress`")?.ok_or_else(|| CompressError::Report {
            path: path.to_owned(),
            what: "expected a report of `compress`, got no file".into(),
        })
    }
}

/// How the weights to remove were chosen, where training did not choose them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "method")]
pub enum Pruning {
    /// Their magnitude.
    Magnitude(Magnitude),
    /// What it costs the outputs of the network, by the inputs of some samples.
    Calibration(Calibration),
    /// A posterior that was trained elsewhere.
    Posterior {
        /// Its file.
        file: PathBuf,
        /// Weights whose `log_alpha` was above this went.
        threshold: f64,
    },
}

/// How a network is pruned in one shot by what its layers read of some samples, and repaired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Samples that the layers are measured on, the first of the training set; in a report no more than there were.
    pub samples: usize,
    /// Share of the weights of the pruned layers that is removed: 0 or more, below 1.
    pub sparsity: f64,
    /// Prune the first convolution too, which has few weights and matters much. One with most of the weights is pruned in any case.
    pub every_layer: bool,
    /// Layers that lose no weights, by the names of their nodes or of their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_dense: Vec<String>,
}

/// The kernel of one layer at one batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelChoice {
    /// Node.
    pub layer: String,
    /// Samples per run that the plan is made for.
    pub batch: usize,
    /// Kernel, `{isa}-{format}-{dtype}-{tile}`.
    pub kernel: String,
}

/// Latency and memory of one plan at one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// `sparse` or `dense`.
    pub plan: String,
    /// Samples per run.
    pub batch: usize,
    /// Threads that the run used.
    pub threads: usize,
    /// Half of the runs took at most this, in microseconds.
    pub p50_us: f64,
    /// Nine in ten.
    pub p90_us: f64,
    /// Ninety-nine in a hundred.
    pub p99_us: f64,
    /// Samples per second.
    pub items_per_s: f64,
    /// Bytes of packed weights, indices and biases.
    pub weight_bytes: usize,
    /// Bytes of activations and scratch.
    pub arena_bytes: usize,
    /// Runs that were timed: of a slow network few, and the 99th percentile is then its slowest. Older reports do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
}
