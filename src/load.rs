//! Reading a network of any kind that the features know.

use std::path::Path;

use sparsevd_format::{FormatError, LoadedNetwork};

/// Why a network cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read, or is not as its format has it.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An ONNX file has nodes that are not supported.
    #[cfg(feature = "onnx")]
    #[error(transparent)]
    Onnx(#[from] sparsevd_onnx::OnnxError),
}

/// Reads a network from a file: safetensors (dense, sparse or in shards), packed or, with the feature `onnx`, ONNX.
///
/// The content of the file decides, not its name. [`LoadedNetwork::warnings`] says what was guessed.
///
/// # Errors
/// A file that cannot be read, another kind of file, with what it is and how to convert it, and anything in it that is not as
/// its format has it.
pub fn load(path: impl AsRef<Path>) -> Result<LoadedNetwork, LoadError> {
    #[cfg(feature = "onnx")]
    let loaded = sparsevd_onnx::load(path)?;
    #[cfg(not(feature = "onnx"))]
    let loaded = sparsevd_format::read_network(path, &sparsevd_format::GraphSource::Auto)?;
    Ok(loaded)
}
