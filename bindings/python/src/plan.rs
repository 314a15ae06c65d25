//! What a network would run: kernels, layouts, memory.

use std::sync::Arc;

use pyo3::prelude::*;
use sparsevd_runtime::{Plan as RuntimePlan, Session as RuntimeSession};

use crate::json;

/// The kernel of each layer, and the memory that a run takes. `print(plan)` shows it as a table.
#[pyclass(frozen, module = "sparsevd")]
pub struct Plan(pub Planned);

/// Where a plan is.
pub enum Planned {
    /// By itself.
    Alone(Box<RuntimePlan>),
    /// In a session.
    In(Arc<RuntimeSession>),
}

impl Plan {
    fn get(&self) -> &RuntimePlan {
        match &self.0 {
            Planned::Alone(plan) => plan,
            Planned::In(session) => session.plan(),
        }
    }
}

#[pymethods]
impl Plan {
    /// Bytes of packed weights, indices and biases.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.get().weight_bytes()
    }

    /// Bytes of activations and scratch of one thread.
    #[getter]
    fn arena_bytes(&self) -> usize {
        self.get().arena_bytes()
    }

    /// Multiply-adds per sample that the non-zeros need.
    #[getter]
    fn multiply_adds(&self) -> usize {
        self.get().multiply_adds()
    }

    /// Multiply-adds per sample of the dense network.
    #[getter]
    fn dense_multiply_adds(&self) -> usize {
        self.get().dense_multiply_adds()
    }

    /// What `run-sparse plan --json` prints.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, self.get())
    }

    fn __str__(&self) -> String {
        self.get().to_string()
    }

    fn __repr__(&self) -> String {
        let options = self.get().options();
        format!(
            "<sparsevd.Plan of {}: {}, batch {}, {} thread(s)>",
            self.get().network(),
            options.weights,
            options.batch,
            self.get().threads()
        )
    }
}
