//! Sparse Variational Dropout and sparse inference on CPUs: the stable surface of the `sparsevd-*` crates.
#![forbid(unsafe_code)]

pub use sparsevd_compressor as compressor;
pub use sparsevd_format as format;
pub use sparsevd_model as model;
pub use sparsevd_runtime as runtime;
