//! Running networks: a [`Plan`] has the kernel of each step and the layout and place of each value, a [`Session`] runs it,
//! [`evaluate()`] counts errors, [`mod@bench`] and [`mod@profile`] measure times.
//!
//! How a network is run:
//! 1. The graph becomes a list of steps over numbered values (`program.rs`), which `passes/` simplify: identities are removed, and clamps, sums
//!    and poolings are fused into the layers before them.
//! 2. Each step gets a kernel by the thresholds of `sparsevd_kernels::select`, and each value a layout (`lower/`). A layer of a sparse plan is
//!    dense where a sparse kernel would be slower. Layouts are converted only where a kernel needs another one.
//! 3. Each value gets a place in one arena (`buffers.rs`). Values that are never needed at the same time share memory.
//! 4. A run sends blocks of samples through all steps (`session.rs`). It allocates nothing, chooses nothing and waits for no lock; [`Session`]
//!    names the exceptions.
#![forbid(unsafe_code)]

mod arena;
mod arguments;
pub mod bench;
mod buffers;
mod calibrate;
pub mod conditions;
mod error;
mod evaluate;
mod expected;
mod lower;
mod lowered;
mod options;
mod passes;
mod plan;
pub mod profile;
mod program;
mod rewrite;
mod session;
mod threads;
mod value;
mod zeros;

pub use arguments::{Inputs, Outputs};
pub use error::RuntimeError;
pub use evaluate::{Evaluation, evaluate};
pub use options::{Int8Mode, PlanOptions, WeightMode, WeightType};
pub use plan::{Plan, PlanNode, PlanValue};
pub use session::Session;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
