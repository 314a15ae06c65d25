//! Errors of the libraries as exceptions of Python.

use std::any::Any;
use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::PyErr;
use pyo3::exceptions::{PyFileExistsError, PyMemoryError, PyUserWarning};
use pyo3::marker::Ungil;
use pyo3::prelude::*;
use sparsevd_compressor::CompressError;
use sparsevd_format::FormatError;
use sparsevd_model::ModelError;
use sparsevd_onnx::OnnxError;
use sparsevd_pipeline::PipelineError;
use sparsevd_runtime::RuntimeError;

/// The classes of `python/sparsevd/_errors.py`.
pub mod class {
    #![allow(missing_docs, reason = "documented there")]
    use pyo3::import_exception;

    import_exception!(sparsevd._errors, CompressError);
    import_exception!(sparsevd._errors, FormatError);
    import_exception!(sparsevd._errors, InputError);
    import_exception!(sparsevd._errors, InternalError);
    import_exception!(sparsevd._errors, ModelError);
}

/// Warns in Python, which may make an exception of it.
pub fn user_warning(py: Python<'_>, text: &str) -> PyResult<()> {
    let text = CString::new(text.replace('\0', " "))?;
    PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)
}

/// An error of a library that Python can raise.
pub trait IntoPyErr {
    /// The exception, with the message of the error.
    fn into_py_err(self) -> PyErr;
}

/// An exception for an array or a name of one.
pub fn input_error(what: impl Display, expected: impl AsRef<str>, got: impl AsRef<str>) -> PyErr {
    let (expected, got) = (expected.as_ref(), got.as_ref());
    class::InputError::new_err(format!("{what}: expected {expected}, got {got}"))
}

/// An exception for a setting.
pub fn setting_error(what: impl Display, expected: impl AsRef<str>, got: impl AsRef<str>) -> PyErr {
    let (expected, got) = (expected.as_ref(), got.as_ref());
    class::CompressError::new_err(format!("{what}: expected {expected}, got {got}"))
}

/// An exception of the class that Python has for an error of the operating system.
fn os_error(error: &io::Error, message: String) -> PyErr {
    io::Error::new(error.kind(), message).into()
}

impl IntoPyErr for ModelError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Memory { .. } => PyMemoryError::new_err(self.to_string()),
            _ => class::ModelError::new_err(self.to_string()),
        }
    }
}

impl IntoPyErr for FormatError {
    fn into_py_err(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Io { error, .. } => os_error(&error, message),
            Self::Exists { .. } => PyFileExistsError::new_err(message),
            Self::Model { error, .. } if matches!(*error, ModelError::Memory { .. }) => {
                PyMemoryError::new_err(message)
            }
            _ => class::FormatError::new_err(message),
        }
    }
}

impl IntoPyErr for OnnxError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Format(error) => error.into_py_err(),
            other => class::ModelError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for RuntimeError {
    fn into_py_err(self) -> PyErr {
        let message = self.to_string();
        match self {
            Self::Model(error) => error.into_py_err(),
            Self::Length { .. }
            | Self::FreeLength { .. }
            | Self::Id { .. }
            | Self::Names { .. } => class::InputError::new_err(message),
            _ => class::ModelError::new_err(message),
        }
    }
}

impl IntoPyErr for CompressError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Format(error) => error.into_py_err(),
            Self::Model(error) => error.into_py_err(),
            other @ Self::Unsupported { .. } => class::ModelError::new_err(other.to_string()),
            other => class::CompressError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for PipelineError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Compress(error) => error.into_py_err(),
            Self::Format(error) => error.into_py_err(),
            Self::Onnx(error) => error.into_py_err(),
            Self::Model(error) => error.into_py_err(),
            Self::Runtime(error) => error.into_py_err(),
            other @ Self::OffGrid { .. } => class::ModelError::new_err(other.to_string()),
            other => class::CompressError::new_err(other.to_string()),
        }
    }
}

/// Works without the GIL. A panic, which is a bug, becomes an exception as any other.
pub fn detached<T: Ungil + Send, E: IntoPyErr + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Ungil + Send,
) -> PyResult<T> {
    let done = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    match done {
        Ok(result) => result.map_err(IntoPyErr::into_py_err),
        Err(panic) => Err(class::InternalError::new_err(format!(
            "a bug of sparsevd: {}",
            what_panicked(panic.as_ref())
        ))),
    }
}

fn what_panicked(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}
