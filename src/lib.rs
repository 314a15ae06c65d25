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
//! session.run(1, &input, &mut scores);
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
pub use sparsevd_onnx::{load, load_with};
pub use sparsevd_runtime as runtime;

/// The examples of README.md, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
