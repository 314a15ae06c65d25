//! Reading a network from a file of any kind.

use std::path::Path;

use sparsevd_format::{FileType, FormatError, GraphSource, LoadedNetwork, read_network};

use crate::error::OnnxError;
use crate::options::ImportOptions;
use crate::read::read_onnx_with;

/// Reads a network from a file of any kind: safetensors (dense, sparse or in shards), packed or ONNX.
///
/// The content of the file decides, not its name. [`LoadedNetwork::warnings`] says what was guessed.
///
/// # Errors
/// As [`crate::read_onnx`] and [`read_network`]. For a file of another kind the error says what it is and how to convert it.
pub fn load(path: impl AsRef<Path>) -> Result<LoadedNetwork, OnnxError> {
    load_with(path, &GraphSource::Auto, &ImportOptions::default())
}

/// Reads a network as [`load`] does, with the graph that `source` names for a safetensors file and the shapes that `options`
/// give to the inputs of an ONNX file.
///
/// # Errors
/// As [`load`]; a graph that is named for a packed or an ONNX file, which has its own; shapes for a file that is not ONNX.
pub fn load_with(
    path: impl AsRef<Path>,
    source: &GraphSource,
    options: &ImportOptions,
) -> Result<LoadedNetwork, OnnxError> {
    let path = path.as_ref();
    let is_onnx = !path.is_dir()
        && match FileType::of_file(path)? {
            FileType::Onnx => true,
            // Protocol buffers have no mark of their own, so that a damaged model may look like anything.
            FileType::Unknown | FileType::Empty => path
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("onnx")),
            _ => false,
        };
    match source {
        _ if !is_onnx => match options.shapes.first() {
            None => Ok(read_network(path, source)?),
            Some(shape) => Err(invalid(
                path,
                "--shape",
                "an ONNX file, whose inputs it gives shapes",
                format!("`{shape}`"),
            )),
        },
        GraphSource::Auto => read_onnx_with(path, options),
        GraphSource::Named(name) => Err(invalid(
            path,
            "network",
            "no graph to be named: an ONNX file has its own",
            format!("`{name}`"),
        )),
    }
}

fn invalid(path: &Path, what: &str, expected: &str, got: String) -> OnnxError {
    OnnxError::from(FormatError::Invalid {
        path: path.into(),
        what: what.into(),
        expected: expected.into(),
        got,
    })
}
