//! How numbers are multiplied: sparse and dense CPU kernels, chosen once through a capability token ([`Isa`]).
//!
//! This is the only crate of the project with `unsafe`.

pub mod gemm;
mod isa;

pub use isa::{Isa, IsaError};
