//! Errors of files: each is one line that names the file, what was expected and what was found.

use std::io;
use std::path::Path;

use sparsevd_model::ModelError;

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused.
    #[error("{}: cannot {action}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: Box<Path>,
        /// What was tried, for instance `read`.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The file to be written is there already.
    #[error("{}: exists already and overwriting was not asked for", path.display())]
    Exists {
        /// The file.
        path: Box<Path>,
    },
    /// Something in a file is not as its format has it.
    #[error("{}: {what}: expected {expected}, got {got}", path.display())]
    Invalid {
        /// The file.
        path: Box<Path>,
        /// The part of the file at fault.
        what: String,
        /// What the format has there.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A tensor or array is not as it must be.
    #[error("{}: tensor `{tensor}`: {what}: expected {expected}, got {got}", path.display())]
    Tensor {
        /// The file.
        path: Box<Path>,
        /// The tensor at fault.
        tensor: String,
        /// Its property at fault.
        what: String,
        /// What the property must be.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The network in a file is not valid.
    #[error("{}: {error}", path.display())]
    Model {
        /// The file.
        path: Box<Path>,
        /// What is wrong with the network.
        error: Box<ModelError>,
    },
    /// A dataset does not fit the network, or is no dataset.
    #[error("dataset: {what}: expected {expected}, got {got}")]
    Dataset {
        /// The property at fault.
        what: String,
        /// What fits.
        expected: String,
        /// What was found.
        got: String,
    },
}

impl FormatError {
    /// What is wrong, without the name of the file, for messages that have it already.
    pub fn without_path(&self) -> String {
        match self {
            Self::Io { error, .. } => error.to_string(),
            Self::Invalid {
                what,
                expected,
                got,
                ..
            } => format!("{what}: expected {expected}, got {got}"),
            Self::Model { error, .. } => error.to_string(),
            Self::Exists { .. } | Self::Tensor { .. } | Self::Dataset { .. } => self.to_string(),
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str, error: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            action,
            error,
        }
    }

    pub(crate) fn invalid(
        path: &Path,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            path: path.into(),
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(crate) fn tensor(
        path: &Path,
        tensor: &str,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            path: path.into(),
            tensor: tensor.into(),
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub(crate) fn model(path: &Path, error: ModelError) -> Self {
        Self::Model {
            path: path.into(),
            error: Box::new(error),
        }
    }
}
