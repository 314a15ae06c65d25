//! Why a network cannot be planned or run.

use sparsevd_model::ModelError;

/// Why a network cannot be planned or run here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The network itself is not valid.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network is valid, and this runtime does not run it.
    #[error("network `{network}`: {what}: expected {expected}, got {got}")]
    Unsupported {
        /// The network at fault.
        network: String,
        /// What is not supported.
        what: &'static str,
        /// What is.
        expected: String,
        /// What came.
        got: String,
    },
    /// An option is out of range.
    #[error("{option}: expected {expected}, got {got}")]
    Option {
        /// The option at fault.
        option: &'static str,
        /// What it takes.
        expected: String,
        /// What came.
        got: String,
    },
    /// The threads of a session could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}
