//! Reading ONNX files.

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use sparsevd_format::{FormatError, LoadedNetwork, read_file};

use crate::error::OnnxError;
use crate::external::Folder;
use crate::import::{self, ImportError};
use crate::node_error::Invalid;
use crate::options::ImportOptions;
use crate::tensor::Decoder;
use crate::{metadata, proto, scan};

/// Most bytes of a message of protocol buffers.
const MAX_PROTOBUF: u64 = 1 << 31;

/// Reads a network from an ONNX file. The first dimension of its inputs is the batch, whatever size the file gives it.
///
/// # Errors
/// All unsupported nodes together; a file that is not valid ONNX; a file that cannot be read.
pub fn read_onnx(path: impl AsRef<Path>) -> Result<LoadedNetwork, OnnxError> {
    read_onnx_with(path, &ImportOptions::default())
}

/// [`read_onnx`] with options.
///
/// # Errors
/// Those of [`read_onnx`], and options that do not fit the file.
pub fn read_onnx_with(
    path: impl AsRef<Path>,
    options: &ImportOptions,
) -> Result<LoadedNetwork, OnnxError> {
    let path = path.as_ref();
    // Larger models keep their weights in files beside them.
    let bytes = read_file(path, MAX_PROTOBUF)?;
    read_onnx_bytes_with(path, bytes, options)
}

/// Reads a network from the bytes of an ONNX file. External data are looked up in the folder of `path`, which errors name.
///
/// # Errors
/// Those of [`read_onnx`].
pub fn read_onnx_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<LoadedNetwork, OnnxError> {
    read_onnx_bytes_with(path, bytes, &ImportOptions::default())
}

/// [`read_onnx_bytes`] with options.
///
/// # Errors
/// Those of [`read_onnx_with`].
pub fn read_onnx_bytes_with(
    path: impl AsRef<Path>,
    bytes: Vec<u8>,
    options: &ImportOptions,
) -> Result<LoadedNetwork, OnnxError> {
    let path = path.as_ref();
    let at = |invalid: Invalid| OnnxError::from(invalid.at(path));
    scan::scan(&bytes).map_err(at)?;
    let model = proto::ModelProto::decode(Bytes::from(bytes))
        .map_err(|e| at(Invalid::new("file", "an ONNX model", e.to_string())))?;
    let decoder = Decoder::new(Folder::of(path));
    let mut network = import::import(&model, &decoder, options).map_err(|error| match error {
        ImportError::Invalid(invalid) => at(invalid),
        ImportError::Unsupported(nodes) => OnnxError::Unsupported {
            path: path.into(),
            nodes,
        },
        ImportError::Model(error) => OnnxError::from(FormatError::Model {
            path: path.into(),
            error: Box::new(error),
        }),
    })?;
    let metadata = metadata::read(&model.metadata_props, &mut network).map_err(at)?;
    Ok(LoadedNetwork {
        network,
        notes: Vec::new(),
        warnings: Vec::new(),
        metadata,
    })
}
