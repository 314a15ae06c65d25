//! Reads and writes ONNX files.
//!
//! The importer covers what exporters write for convolutional networks and multi-layer perceptrons, opset 7 and up:
//! `docs/onnx.md` lists the operators. Weights may be inline, in other files of the model's folder, or sparse. Shape
//! computations are folded to constants. One error lists every node that is not supported.
//!
//! Files are untrusted input: a file is scanned before it is decoded, which bounds the number of its parts, and all
//! constants share one memory budget.
#![forbid(unsafe_code)]

mod attributes;
mod constants;
mod error;
mod export;
mod external;
mod import;
mod load;
mod metadata;
mod node_error;
mod options;
mod order;
mod proto;
mod scan;
mod tensor;

use std::path::Path;

use bytes::Bytes;
use prost::Message;
use sparsevd_format::{FormatError, LoadedNetwork, write_atomically};
use sparsevd_model::Network;

use external::Folder;
use import::ImportError;
use node_error::Invalid;
use tensor::Decoder;

pub use error::{OnnxError, UnsupportedNode};
pub use export::ExportOptions;
pub use load::{load, load_with};
pub use options::{ImportOptions, InputShape};

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
    let bytes = std::fs::read(path).map_err(|error| FormatError::Io {
        path: path.into(),
        action: "read",
        error,
    })?;
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
        ImportError::Layout(..) => at(Invalid::new(
            "inputs",
            "few that need another layout than the declared one",
            "more",
        )),
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
