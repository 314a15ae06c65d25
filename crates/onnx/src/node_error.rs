//! What is wrong with a file, before its path is known.

use std::fmt;
use std::path::Path;

use sparsevd_format::FormatError;
use sparsevd_model::ModelError;

/// A part of a file that is not as it must be.
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

/// Why a node cannot become part of a network.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NodeError {
    /// It breaks the rules of its operator.
    Invalid(Invalid),
    /// It is valid, and there is no operator for what it does.
    Unsupported(String),
    /// The network so far does not fit it.
    Model(ModelError),
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
