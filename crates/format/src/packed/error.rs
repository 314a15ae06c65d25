//! What is wrong with the bytes of a packed file, before the file has a name.

use std::path::Path;

use sparsevd_model::ModelError;

use crate::FormatError;

/// Why bytes are no packed network, or a network cannot be packed.
#[derive(Debug)]
pub(super) enum PackedError {
    /// A part of the file, what the format has there and what was found.
    Part(String, String, String),
    /// A tensor, its property at fault, what it must be and what was found.
    Tensor(String, String, String, String),
    /// The network itself.
    Model(ModelError),
}

impl PackedError {
    pub fn part(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Part(what.into(), expected.into(), got.into())
    }

    pub fn tensor(
        tensor: &str,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Tensor(tensor.into(), what.into(), expected.into(), got.into())
    }

    /// Something that no writer writes.
    pub fn damaged(what: &str) -> Self {
        Self::part(what, "what a writer writes", "damaged data")
    }

    /// More than the caller's limits allow.
    pub fn limit(what: &str, most: usize, got: usize) -> Self {
        Self::part(what, format!("at most {most}, the limit"), got.to_string())
    }

    pub fn at(self, path: &Path) -> FormatError {
        match self {
            Self::Part(what, expected, got) => FormatError::invalid(path, what, expected, got),
            Self::Tensor(tensor, what, expected, got) => {
                FormatError::tensor(path, &tensor, what, expected, got)
            }
            Self::Model(error) => FormatError::model(path, error),
        }
    }
}

impl From<ModelError> for PackedError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}
