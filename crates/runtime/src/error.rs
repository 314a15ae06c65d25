//! Errors of planning and running.

use sparsevd_model::ModelError;

/// Why a network cannot be planned or run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The network itself is not valid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network is valid, but the runtime cannot run it.
    #[error("network `{network}`: {what}: expected {expected}, got {got}")]
    Unsupported {
        /// Name of the network.
        network: String,
        /// What is not supported.
        what: &'static str,
        /// What is supported.
        expected: String,
        /// What the network has.
        got: String,
    },
    /// An option is out of range.
    #[error("{option}: expected {expected}, got {got}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// Values that it takes.
        expected: String,
        /// Its value.
        got: String,
    },
    /// The threads of a session could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Number of threads.
        threads: usize,
        /// The error of the system.
        reason: String,
    },
    /// A slice given to a run has the wrong length.
    #[error("elements of {batch} samples of {operand} `{name}`: expected {expected}, got {got}")]
    Length {
        /// `input` or `output`.
        operand: &'static str,
        /// Name of the input or output.
        name: String,
        /// Samples of the run.
        batch: usize,
        /// Elements of that many samples; the largest `usize` where their number overflows.
        expected: usize,
        /// Elements of the slice.
        got: usize,
    },
    /// An input with a free dimension is not whole samples of one length.
    #[error(
        "elements of {batch} samples of input `{name}`: expected a multiple of {expected}, got {got}"
    )]
    FreeLength {
        /// Name of the input.
        name: String,
        /// Samples of the run.
        batch: usize,
        /// Type of the input.
        expected: String,
        /// Elements of the slice.
        got: usize,
    },
    /// An input of ids has a number that is none.
    #[error("input `{name}`, sample {sample}: expected ids from 0 to {last}, got {got}")]
    Id {
        /// Name of the input.
        name: String,
        /// Index of the sample.
        sample: usize,
        /// The last row of the smallest table that the ids number.
        last: usize,
        /// The number.
        got: f32,
    },
    /// The inputs or outputs given to a run are not those of the network.
    #[error("{operand} of the run: expected {expected}, got {got}")]
    Names {
        /// `inputs` or `outputs`.
        operand: &'static str,
        /// Names that the network has.
        expected: String,
        /// Names that were given.
        got: String,
    },
}
