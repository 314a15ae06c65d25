//! Writing ONNX files.

use std::path::Path;

use prost::Message;
use sparsevd_format::{FormatError, write_atomically};
use sparsevd_model::Network;

use crate::error::OnnxError;
use crate::export::{self, ExportOptions};
use crate::node_error::Invalid;

/// Writes a network as an ONNX file, atomically; returns the number of bytes.
///
/// # Errors
/// A network that is not valid or larger than 2 GiB, or a file that cannot be written.
pub fn write_onnx(
    path: impl AsRef<Path>,
    network: &Network,
    options: &ExportOptions,
) -> Result<u64, OnnxError> {
    let path = path.as_ref();
    let bytes = to_bytes(path, network, options)?;
    Ok(write_atomically(path, |out| out.write_all(&bytes))?)
}

/// The bytes of a network as an ONNX file. The same network and options give the same bytes.
///
/// # Errors
/// Those of [`write_onnx`], which call the file `(memory)`.
pub fn write_onnx_bytes(network: &Network, options: &ExportOptions) -> Result<Vec<u8>, OnnxError> {
    to_bytes(Path::new("(memory)"), network, options)
}

fn to_bytes(path: &Path, network: &Network, options: &ExportOptions) -> Result<Vec<u8>, OnnxError> {
    let model = export::export(network, options).map_err(|error| FormatError::Model {
        path: path.into(),
        error: Box::new(error),
    })?;
    let len = model.encoded_len();
    if i32::try_from(len).is_err() {
        let invalid = Invalid::new(
            "network",
            "at most 2 GiB, which a file may have",
            format!("{len} bytes"),
        );
        return Err(invalid.at(path).into());
    }
    Ok(model.encode_to_vec())
}
