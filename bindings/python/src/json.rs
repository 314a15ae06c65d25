//! What libraries serialise, as dictionaries and lists of Python.

use pyo3::prelude::*;
use pyo3::types::PyString;
use serde::Serialize;

use crate::error::class::InternalError;

/// A value as `json.loads` reads it: its keys are those of the JSON that the programs print.
pub fn to_python<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(value).map_err(|e| InternalError::new_err(e.to_string()))?;
    let loads = py.import("json")?.getattr("loads")?;
    loads.call1((PyString::new(py, &text),))
}
