//! How a network is made sparse: Sparse Variational Dropout training, pruning and fine-tuning.
#![forbid(unsafe_code)]

pub mod architecture;
mod arrays;
mod augmentation;
pub mod checkpoint;
mod compact;
mod data;
pub mod engine;
mod error;
mod export;
pub mod frame;
mod init;
mod keep_dense;
mod layer;
mod layers;
mod linear_algebra;
mod magnitude;
mod normalisation;
pub mod objective;
mod optimal_brain_surgeon;
pub mod parameter;
mod plain_tensor;
mod posterior;
mod quantise;
pub mod recipe;
pub mod report;
mod rounding;
mod state;
pub mod trainer;
mod units;
pub mod variational;

pub use compact::compact;
pub use data::{Images, Samples, TrainingData, draw};
pub use error::CompressError;
pub use export::smaller;
pub use init::{fit_outputs, initialise};
pub use keep_dense::is_kept_dense;
pub use layer::Layer;
pub use magnitude::{Magnitude, Scope};
pub use normalisation::Normalisation;
pub use optimal_brain_surgeon::{Moments, Surgeon};
pub use plain_tensor::PlainTensor;
pub use posterior::{ForeignPosterior, PosteriorUse};
pub use rounding::{Rounded, Rounding};
pub use state::State;
