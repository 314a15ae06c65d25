//! Why an ONNX file cannot be read or written.

use std::fmt;
use std::path::Path;

use sparsevd_format::FormatError;

/// A node that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// The node's name, or the name of its first output.
    pub name: String,
    /// Its operator, with the domain where that is not ONNX's own.
    pub op: String,
    /// Why it is not supported; empty where the operator as a whole is not.
    pub why: String,
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.op)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

/// Why an ONNX file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file cannot be read or is not valid ONNX.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Nodes that no operator of this library can express.
    #[error("{}: {} unsupported node(s): {}", path.display(), nodes.len(), list(nodes))]
    Unsupported {
        /// The file.
        path: Box<Path>,
        /// Every such node, in the order of the file.
        nodes: Vec<UnsupportedNode>,
    },
}

fn list(nodes: &[UnsupportedNode]) -> String {
    let all: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    all.join("; ")
}
