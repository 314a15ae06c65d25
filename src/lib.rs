//! Sparse Variational Dropout and sparse inference on CPUs: the stable surface of the `sparsevd-*` crates.
//!
//! A network goes from a file to numbers in three steps: load it, plan it, run it. A [`runtime::Session`] may be shared by
//! threads, and its runs allocate nothing.
//!
//! ```no_run
//! use sparsevd::runtime::{Plan, PlanOptions, Session};
//!
//! let network = sparsevd::load("lenet-5.spvd")?.network;
//! let pixels = vec![0_u8; 28 * 28];
//! let mut input = vec![0.0; pixels.len()];
//! let preprocessing = network.graph.preprocessing.clone().unwrap_or_default();
//! preprocessing.apply(&network.graph.inputs[0].shape, &pixels, &mut input);
//!
//! let session = Session::new(Plan::new(&network, &PlanOptions::default())?, 1)?;
//! let mut scores = vec![0.0; session.plan().output_shape().elements()];
//! session.run(1, &input, &mut scores)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A program that only runs networks needs no more than `sparsevd-format` and `sparsevd-runtime`, which bring neither the
//! training nor the command line.
#![forbid(unsafe_code)]

pub use sparsevd_compressor as compressor;
pub use sparsevd_format as format;
pub use sparsevd_model as model;
pub use sparsevd_onnx as onnx;
pub use sparsevd_runtime as runtime;

use std::path::Path;

use format::{FileType, FormatError, GraphSource, LoadedNetwork};
use onnx::{ImportOptions, OnnxError};

/// Reads a network from a file of any kind: safetensors (dense, sparse or in shards), packed or ONNX.
///
/// The content of the file decides, not its name. [`LoadedNetwork::warnings`] says what was guessed.
///
/// # Errors
/// As [`onnx::read_onnx`] and [`format::read_network`]. For a file of another kind the error says what it is and how to convert it.
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
            None => Ok(format::read_network(path, source)?),
            Some(shape) => Err(invalid(
                path,
                "--shape",
                "an ONNX file, whose inputs it gives shapes",
                format!("`{shape}`"),
            )),
        },
        GraphSource::Auto => onnx::read_onnx_with(path, options),
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

/// The examples of README.md, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
