//! Why a network could not be compressed, trained, converted or inspected.

use std::path::{Path, PathBuf};

use sparsevd_compressor::CompressError;
use sparsevd_format::FormatError;
use sparsevd_kernels::IsaError;
use sparsevd_model::ModelError;
use sparsevd_onnx::OnnxError;
use sparsevd_runtime::RuntimeError;

/// What a packed file takes, for messages.
pub const NEEDS_GRID: &str =
    "weights on grids, which a `quantise` phase at the end of the recipe makes";

/// Why a pipeline could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// Training or pruning failed.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// A file could not be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An ONNX file could not be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A network is not valid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A network could not be run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// `SPARSE_ISA` names an instruction set that this machine does not have.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The observer stopped the run.
    #[error("interrupted{}", at(folder.as_ref()))]
    Interrupted {
        /// The run folder with the checkpoint to go on from, where the run has one.
        folder: Option<PathBuf>,
    },
    /// A run folder has the checkpoint of an earlier run, which a new one would replace.
    #[error("{}: expected a folder without a checkpoint, got that of an earlier run", folder.display())]
    Occupied {
        /// The run folder.
        folder: PathBuf,
    },
    /// Another process has a run in a folder.
    #[error("{}: expected a folder without a run, got one that {} has a run in", folder.display(), named(*process))]
    Locked {
        /// The run folder.
        folder: PathBuf,
        /// The process, where it is known.
        process: Option<u32>,
    },
    /// The folder of a comparison has results of another network, data set or recipe.
    #[error("{}: expected {expected}, that the comparison in this folder began with, got {got}", record.display())]
    OtherComparison {
        /// The record of what that comparison began with.
        record: PathBuf,
        /// What it has.
        expected: String,
        /// What this one has in its place.
        got: String,
    },
    /// The checkpoint of a run folder is that of another run.
    #[error("{}: expected {expected}, got {got}", folder.display())]
    OtherRun {
        /// The run folder.
        folder: PathBuf,
        /// The run that would go on.
        expected: String,
        /// The run that left the checkpoint.
        got: String,
    },
    /// A run folder has no checkpoint to go on from.
    #[error("{}: expected a run folder with a checkpoint, got none at {}", folder.display(), checkpoint.display())]
    NoCheckpoint {
        /// The run folder.
        folder: PathBuf,
        /// Where the checkpoint would be.
        checkpoint: PathBuf,
    },
    /// Data in bytes for a network that was trained elsewhere and does not say how bytes become its input.
    #[error(
        "{data}: expected floating-point numbers, as network `{network}` does not say how pixels become its input, got pixels of 0 to 255"
    )]
    NoPreprocessing {
        /// The data set.
        data: String,
        /// Name of the network.
        network: String,
    },
    /// A table for a network that does not say how its columns become its input.
    #[error(
        "{data}: expected a network that stores the columns of its table, got network `{network}` without"
    )]
    NoTable {
        /// The table.
        data: String,
        /// Name of the network.
        network: String,
    },
    /// The form of a file needs weights on grids, and a tensor is on none.
    #[error("network `{network}`: expected {}, to write {}; got tensor `{tensor}` off any grid", NEEDS_GRID, path.display())]
    OffGrid {
        /// Name of the network.
        network: String,
        /// The tensor.
        tensor: String,
        /// The file that was to be written.
        path: PathBuf,
    },
    /// A data set for a network that does not have one input and one output.
    #[error(
        "data set: expected a network with one input and one output, got {inputs} and {outputs}"
    )]
    SeveralInputs {
        /// Inputs of the network.
        inputs: usize,
        /// Its outputs.
        outputs: usize,
    },
    /// A data set cannot be that of a network.
    #[error("{data}: {error}")]
    Unfit {
        /// The data set.
        data: String,
        /// What does not fit.
        error: Box<FormatError>,
    },
    /// A file of samples is named for an input that a network does not have.
    #[error("{file}: expected NAME=FILE with a name of {inputs}")]
    InputName {
        /// The file, as it was named.
        file: String,
        /// The inputs of the network.
        inputs: String,
    },
    /// Two files have samples for one input.
    #[error("{file}: input `{input}` already has a file")]
    InputTwice {
        /// The second file, as it was named.
        file: String,
        /// The input.
        input: String,
    },
    /// No file has samples for an input.
    #[error("input `{input}`: expected a file, as the network has the inputs {inputs}")]
    NoInput {
        /// The input.
        input: String,
        /// All inputs of the network.
        inputs: String,
    },
    /// A file does not have the array of an input or output.
    #[error("{}: expected an array {expected}, got {got}", path.display())]
    NoArray {
        /// The file.
        path: PathBuf,
        /// Names that the array may have.
        expected: String,
        /// Whether another array of the file could be named.
        has_choice: bool,
        /// The arrays of the file.
        got: String,
    },
    /// A file of kernel costs cannot be used.
    #[error("{}: {what}", path.display())]
    Costs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A setting, a file or a data set is not what it must be.
    #[error("{what}: expected {expected}, got {got}")]
    Invalid {
        /// What is at fault.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
}

impl PipelineError {
    /// The error of a part of a run: an interruption names the folder of the whole.
    pub(crate) fn in_run(self, folder: Option<&Path>) -> Self {
        match self {
            Self::Interrupted { .. } => Self::Interrupted {
                folder: folder.map(Path::to_owned),
            },
            error => error,
        }
    }

    pub(crate) fn invalid(
        what: impl ToString,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            what: what.to_string(),
            expected: expected.into(),
            got: got.into(),
        }
    }
}

fn named(process: Option<u32>) -> String {
    process.map_or("another process".into(), |p| format!("process {p}"))
}

fn at(folder: Option<&PathBuf>) -> String {
    folder.map_or(String::new(), |f| {
        format!("; the checkpoint is in {}", f.display())
    })
}
