//! Errors in a file, before they are given its path.

use std::fmt;
use std::path::Path;

use sparsevd_format::FormatError;
use sparsevd_model::ModelError;

use crate::order::Layout;

/// A part of a file that is not valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Invalid {
    pub what: String,
    pub expected: String,
    pub got: String,
}

impl Invalid {
    pub fn new(
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
        }
    }

    pub fn at(self, path: &Path) -> FormatError {
        FormatError::Invalid {
            path: path.into(),
            what: self.what,
            expected: self.expected,
            got: self.got,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}, got {}",
            self.what, self.expected, self.got
        )
    }
}

/// Why a node cannot be imported.
#[derive(Debug, Clone)]
pub(crate) enum NodeError {
    /// It violates the specification of its operator.
    Invalid(Invalid),
    /// It is valid, but no operator of this library can express it.
    Unsupported(String),
    /// The network does not accept the operator that it became.
    Model(ModelError),
    /// The network's input of that index has to have another layout.
    Layout(usize, Layout),
}

impl NodeError {
    pub fn unsupported(why: impl Into<String>) -> Self {
        Self::Unsupported(why.into())
    }
}

impl From<Invalid> for NodeError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<ModelError> for NodeError {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}
