//! How a network is run: [`Plan`] chooses a kernel, a layout and a place for every value once, [`Session`] runs it,
//! [`evaluate()`] counts its errors, [`mod@bench`] and [`mod@profile`] time it.
//!
//! From a network to numbers:
//! 1. the graph becomes a list of steps over numbered values, and `passes/` rewrite it (identities go, ReLUs join the layers before them);
//! 2. every step gets a kernel by the thresholds of `sparsevd_kernels::select`, and values get layouts; a sparse plan is dense where
//!    sparse would lose, and layouts are converted only where they differ;
//! 3. values get places in one arena, shared by those that are never needed together;
//! 4. a run sends blocks of samples through all steps, without allocation, decision or lock.
#![forbid(unsafe_code)]

mod arena;
pub mod bench;
mod buffers;
mod calibrate;
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
mod session;
mod threads;
mod zeros;

pub use error::RuntimeError;
pub use evaluate::{Evaluation, evaluate};
pub use options::{PlanOptions, WeightMode, WeightType};
pub use plan::{Plan, PlanNode};
pub use session::Session;
