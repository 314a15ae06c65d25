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
mod read;
mod scan;
mod tensor;
mod write;

pub use error::{OnnxError, UnsupportedNode};
pub use export::ExportOptions;
pub use load::{load, load_with};
pub use options::{ImportOptions, InputShape};
pub use read::{read_onnx, read_onnx_bytes, read_onnx_bytes_with, read_onnx_with};
pub use write::{write_onnx, write_onnx_bytes};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
