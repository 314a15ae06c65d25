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
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `run` (default) | `runtime`: plans and sessions |
//! | `onnx` | `onnx`: ONNX files in and out |
//! | `compress` | `compressor` and `pipeline`: `Compression`, training, data sets; with `onnx` and `run` |
//!
//! A program that only runs networks needs no more than the default, which brings neither the trainer nor the command line.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod load;

#[cfg(feature = "compress")]
pub use sparsevd_compressor as compressor;
#[cfg(feature = "compress")]
pub use sparsevd_compressor::recipe::Recipe;
pub use sparsevd_format as format;
pub use sparsevd_model as model;
#[cfg(feature = "onnx")]
pub use sparsevd_onnx as onnx;
#[cfg(feature = "compress")]
pub use sparsevd_pipeline as pipeline;
#[cfg(feature = "compress")]
pub use sparsevd_pipeline::{Compressed, Compression, Data, MethodComparison, Observer, Silent};
#[cfg(feature = "run")]
pub use sparsevd_runtime as runtime;

pub use load::{LoadError, load};
#[cfg(feature = "onnx")]
pub use onnx::load_with;

/// The examples of README.md, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
