//! What is wrong with a file, before its path is known.

use std::fmt;
use std::path::Path;

use sparsevd_format::FormatError;
use sparsevd_model::ModelError;

/// A part of a file that is not as it must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flaw {
    pub what: String,
    pub expected: String,
    pub got: String,
}

impl Flaw {
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

impl fmt::Display for Flaw {
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
pub(crate) enum Trouble {
    /// It breaks the rules of its operator.
    Flaw(Flaw),
    /// It is valid, and there is no operator for what it does.
    Unsupported(String),
    /// The network so far does not fit it.
    Model(ModelError),
}

impl Trouble {
    pub fn unsupported(why: impl Into<String>) -> Self {
        Self::Unsupported(why.into())
    }
}

impl From<Flaw> for Trouble {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl From<ModelError> for Trouble {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}
