//! Errors of training and compression.

use std::path::PathBuf;

/// Why a network could not be compressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// A network, given or produced, is not valid.
    #[error(transparent)]
    Model(#[from] sparsevd_model::ModelError),
    /// A file could not be read or written.
    #[error(transparent)]
    Format(#[from] sparsevd_format::FormatError),
    /// The trainer has no gradient for this.
    #[error("node `{node}` ({op}): the trainer does not support {what}")]
    Unsupported {
        /// The node.
        node: String,
        /// Its operator.
        op: &'static str,
        /// What is not supported.
        what: String,
    },
    /// A setting is out of range.
    #[error("{name}: expected {expected}, got {got}")]
    Setting {
        /// Its name on the command line or in the recipe.
        name: String,
        /// Its range.
        expected: String,
        /// What came.
        got: String,
    },
    /// The data does not fit the network.
    #[error("data set: {0}")]
    Data(String),
    /// The processes that train a network together could not add up their sums.
    #[error("sums over the processes: {0}")]
    Reduce(std::io::Error),
    /// The loss became NaN or infinite, or grew far beyond that of a constant prediction.
    #[error(
        "the loss diverged ({loss}) in phase {phase}, epoch {epoch}; the last good checkpoint is {checkpoint}; \
         try a lower learning rate (`lr`, `lr_log_sigma2`), a lower `kl_scale` or a longer `kl_warmup` in the recipe, and begin anew"
    )]
    Diverged {
        /// The loss.
        loss: f64,
        /// Phase of the recipe, from 1.
        phase: usize,
        /// Epoch of the phase, from 1.
        epoch: usize,
        /// Where to go on from, in words.
        checkpoint: String,
    },
    /// The loss diverged, and the inputs are far from the scale that networks train on.
    #[error(
        "the loss diverged ({loss}) in phase {phase}, epoch {epoch}, and the inputs are not scaled: expected mean about 0 and deviation \
         about 1, got mean {mean:.3e} and deviation {deviation:.3e} in {column}; scale them in the data set, or pixels by --mean and --std"
    )]
    Unscaled {
        /// The loss.
        loss: f64,
        /// Phase of the recipe, from 1.
        phase: usize,
        /// Epoch of the phase, from 1.
        epoch: usize,
        /// The input with the largest numbers, in words.
        column: String,
        /// Its mean over training samples.
        mean: f64,
        /// Its standard deviation.
        deviation: f64,
    },
    /// A checkpoint belongs to another run or is damaged.
    #[error("checkpoint {}: {what}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong: expected and got.
        what: String,
    },
    /// A record of a run, or a file to report on, could not be read or written.
    #[error("{}: {what}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong: expected and got.
        what: String,
    },
    /// A recipe could not be understood.
    #[error("recipe {}: {what}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl CompressError {
    pub(crate) fn setting(name: &str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Setting {
            name: name.into(),
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}
