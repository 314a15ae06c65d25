//! What a network is: a DAG of named ops ([`Graph`]), the shapes that flow through it ([`shape`]),
//! the preprocessing of its input ([`Preprocessing`]) and its weights, dense or CSR ([`Weights`]).
//!
//! [`passes`] rewrite networks so that they compute the same. Everything here is plain data. Files are read and written by `sparsevd-format`, numbers are
//! multiplied by `sparsevd-kernels`, and networks are run by `sparsevd-runtime`.
#![forbid(unsafe_code)]

pub mod bind;
mod builder;
mod csr;
mod error;
mod fields;
mod grids;
mod int8;
pub mod limits;
pub mod memory;
mod nearest;
mod network;
mod op;
pub mod ops;
pub mod passes;
mod preprocessing;
pub mod presets;
pub mod quantised;
pub mod shape;
mod table;
mod tensor_type;
pub mod terminal;
mod weights;

pub use builder::{Conv2d, GraphBuilder};
pub use csr::Csr;
pub use error::ModelError;
pub use int8::{Int8Grid, Int8Grids, Int8Input, Int8Layer, MOST_LEVEL};
pub use nearest::{hint, nearest};
pub use network::{Free, Graph, Input, Network, Node};
pub use ops::{Approximate, Op, Window};
pub use preprocessing::Preprocessing;
pub use shape::Shape;
pub use table::{Column, Table};
pub use tensor_type::{DType, Dim, MOST_IDS, TensorType};
pub use weights::{Dense, Weights};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
