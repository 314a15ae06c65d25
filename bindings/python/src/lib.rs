//! The Python package `sparsevd`: networks loaded, planned, run and compressed, with NumPy arrays in and out.
//!
//! The module is `sparsevd._native`; the package around it is in `python/sparsevd`, with its types in `_native.pyi`. Everything here takes
//! Python's values apart, calls the libraries without the GIL, and turns what comes back into Python's values.
#![forbid(unsafe_code)]

mod array;
mod compress;
mod error;
mod json;
mod model;
mod observer;
mod plan;
mod preprocess;
mod samples;
mod session;

use pyo3::prelude::*;

/// The module `sparsevd._native`.
#[pymodule(name = "_native")]
mod native {
    use super::*;

    #[pymodule_export]
    use crate::compress::{Compressed, compress};
    #[pymodule_export]
    use crate::model::{Model, load, network};
    #[pymodule_export]
    use crate::plan::Plan;
    #[pymodule_export]
    use crate::session::Session;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
