//! How a network is made sparse: Sparse Variational Dropout training, pruning and fine-tuning.
#![forbid(unsafe_code)]

pub mod engine;
mod error;
mod layer;
mod layers;
pub mod variational;

pub use error::CompressError;
pub use layer::Layer;
