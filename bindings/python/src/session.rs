//! Running a network on arrays.

use std::sync::Arc;

use numpy::{
    PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sparsevd_runtime::{Plan as RuntimePlan, PlanValue, RuntimeError, Session as RuntimeSession};

use crate::array::{
    Operand, batch_and_length, check_finite, ids, in_c_order, in_words, is_aligned, kind_of,
};
use crate::error::{IntoPyErr, class, detached, input_error};
use crate::plan::{Plan, Planned};

/// A network ready to run, which threads may share.
#[pyclass(frozen, module = "sparsevd")]
pub struct Session(Arc<RuntimeSession>);

/// An input of a run.
struct Input<'py> {
    array: PyReadonlyArrayDyn<'py, f32>,
    batch: usize,
    length: Option<usize>,
}

impl<'py> Input<'py> {
    fn new(value: &PlanValue, array: &Bound<'py, PyAny>) -> PyResult<Self> {
        let what = Operand {
            kind: "input",
            name: &value.name,
        };
        let array = match value.tensor_type.dtype.is_id() {
            true => ids(what, array)?,
            false => in_c_order(what, array)?,
        };
        let shape = array.shape();
        let (batch, length) = batch_and_length(what, &value.tensor_type, shape)?;
        check_finite(what, array.as_slice()?, shape)?;
        Ok(Self {
            array,
            batch,
            length,
        })
    }
}

/// The array of an output: a new one, or that of the caller.
fn output<'py>(
    py: Python<'py>,
    value: &PlanValue,
    [batch, length]: [usize; 2],
    given: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let mut shape = Vec::with_capacity(4);
    shape.push(batch);
    shape.extend_from_slice(value.tensor_type.shape(length).dims());
    let Some(given) = given else {
        return Ok(PyArrayDyn::zeros(py, shape, false));
    };
    let what = Operand {
        kind: "output",
        name: &value.name,
    };
    let Ok(array) = given.cast::<PyArrayDyn<f32>>() else {
        let got = kind_of(&given)?;
        return Err(input_error(what, "a NumPy array of float32", got));
    };
    if array.shape() != shape {
        let expected = format!("shape {}", in_words(&shape));
        return Err(input_error(what, expected, in_words(array.shape())));
    }
    if !array.is_c_contiguous() || !is_aligned(array) {
        let expected = "an array in C order";
        return Err(input_error(what, expected, "another order or stride"));
    }
    Ok(array.clone())
}

/// An output to be written, which nothing else may read or write meanwhile.
fn to_write<'py>(
    value: &PlanValue,
    array: &Bound<'py, PyArrayDyn<f32>>,
) -> PyResult<PyReadwriteArrayDyn<'py, f32>> {
    array.try_readwrite().map_err(|error| {
        let what = Operand {
            kind: "output",
            name: &value.name,
        };
        let expected = "an array that may be written and is no input or other output of a run";
        input_error(what, expected, error.to_string())
    })
}

impl Session {
    pub fn new(py: Python<'_>, plan: RuntimePlan, threads: usize) -> PyResult<Self> {
        let session = detached(py, || RuntimeSession::new(plan, threads))?;
        Ok(Self(Arc::new(session)))
    }

    /// Runs a network with one input and one output.
    fn run_one<'py>(
        &self,
        py: Python<'py>,
        [x_value, y_value]: [&PlanValue; 2],
        x: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let x = Input::new(x_value, x)?;
        let length = x.length.unwrap_or(1);
        self.check_outputs(x.batch, length)?;
        let array = output(py, y_value, [x.batch, length], out)?;
        let mut y = to_write(y_value, &array)?;
        let (x_slice, y_slice) = (x.array.as_slice()?, y.as_slice_mut()?);
        detached(py, || self.0.run(x.batch, x_slice, y_slice))?;
        Ok(array.into_any())
    }

    /// Runs any network; the inputs are in the order of the plan.
    fn run_all<'py>(
        &self,
        py: Python<'py>,
        arrays: &[Bound<'py, PyAny>],
        out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.0.plan();
        let values = plan.inputs().iter().zip(arrays);
        let inputs: Vec<Input<'py>> = values
            .clone()
            .map(|(value, array)| Input::new(value, array))
            .collect::<PyResult<_>>()?;
        let first = plan.inputs().first().zip(inputs.first());
        let batch = first.map_or(0, |(_, input)| input.batch);
        let length = inputs.iter().find_map(|input| input.length);
        for (value, input) in plan.inputs().iter().zip(&inputs) {
            let what = Operand {
                kind: "input",
                name: &value.name,
            };
            if let Some((other, _)) = first
                && input.batch != batch
            {
                let expected = format!("{batch} samples, as of input `{}`", other.name);
                return Err(input_error(what, expected, input.batch.to_string()));
            }
            if input.length.is_some() && input.length != length {
                let expected = format!("the free dimension of {} elements", length.unwrap_or(1));
                let got = input.length.unwrap_or(1).to_string();
                return Err(input_error(what, expected, got));
            }
        }
        let length = length.unwrap_or(1);
        self.check_outputs(batch, length)?;
        let given = |value: &PlanValue| match out {
            None => Ok(None),
            Some(out) => match out.cast::<PyDict>() {
                Ok(dict) => dict.get_item(&value.name),
                Err(_) => Ok(Some(out.clone())),
            },
        };
        let arrays: Vec<_> = plan
            .outputs()
            .iter()
            .map(|value| output(py, value, [batch, length], given(value)?))
            .collect::<PyResult<_>>()?;
        let written = plan.outputs().iter().zip(&arrays);
        let mut written: Vec<_> = written
            .map(|(value, array)| to_write(value, array))
            .collect::<PyResult<_>>()?;
        let names = plan.inputs().iter().zip(&inputs);
        let x: Vec<(&str, &[f32])> = names
            .map(|(v, input)| Ok((v.name.as_str(), input.array.as_slice()?)))
            .collect::<PyResult<_>>()?;
        let names = plan.outputs().iter().zip(&mut written);
        let mut y: Vec<(&str, &mut [f32])> = names
            .map(|(v, array)| Ok((v.name.as_str(), array.as_slice_mut()?)))
            .collect::<PyResult<_>>()?;
        detached(py, || self.0.run(batch, &x[..], &mut y[..]))?;
        if let [only] = arrays.as_slice() {
            return Ok(only.clone().into_any());
        }
        let dict = PyDict::new(py);
        for (value, array) in plan.outputs().iter().zip(arrays) {
            dict.set_item(&value.name, array)?;
        }
        Ok(dict.into_any())
    }

    fn check_outputs(&self, batch: usize, length: usize) -> PyResult<()> {
        let checked = self.0.plan().check_outputs(batch, length);
        checked.map_err(RuntimeError::into_py_err)
    }

    /// Arrays by name in the order of the plan.
    fn in_order<'py>(&self, named: &Bound<'py, PyDict>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let inputs = self.0.plan().inputs();
        let mut all = Vec::with_capacity(inputs.len());
        for value in inputs {
            all.extend(named.get_item(&value.name)?);
        }
        match all.len() == inputs.len() && named.len() == inputs.len() {
            true => Ok(all),
            false => Err(names_error("inputs", inputs, named)?),
        }
    }
}

/// An exception for names that are not those of the network.
fn names_error(operands: &str, values: &[PlanValue], got: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let listed = |names: Vec<String>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    let expected = listed(values.iter().map(|v| format!("`{}`", v.name)).collect());
    let got = got
        .keys()
        .iter()
        .map(|name| Ok(format!("`{}`", name.str()?)));
    let got = listed(got.collect::<PyResult<_>>()?);
    let message = format!("{operands} of the run: expected {expected}, got {got}");
    Ok(class::InputError::new_err(message))
}

#[pymethods]
impl Session {
    /// Runs the network on one array, or on arrays by the names of its inputs.
    #[pyo3(signature = (x=None, /, **arrays))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        x: Option<&Bound<'py, PyAny>>,
        arrays: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match (x, arrays) {
            (Some(x), None) => self.run(py, x, None),
            (None, Some(arrays)) => self.run(py, arrays.as_any(), None),
            (Some(_), Some(arrays)) => {
                Err(names_error("names beside the only array", &[], arrays)?)
            }
            (None, None) => self.run(py, PyDict::new(py).as_any(), None),
        }
    }

    /// The same, into arrays of the caller where `out` has them.
    #[pyo3(signature = (inputs, *, out=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyAny>,
        out: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.0.plan();
        if let Some(out) = &out
            && let Ok(named) = out.cast::<PyDict>()
        {
            let is_output = |name: &Bound<'_, PyAny>| {
                let name = name.extract::<String>().ok();
                plan.outputs()
                    .iter()
                    .any(|v| Some(&v.name) == name.as_ref())
            };
            if named.len() != plan.outputs().len() || !named.keys().iter().all(|n| is_output(&n)) {
                return Err(names_error("outputs", plan.outputs(), named)?);
            }
        } else if out.is_some() && plan.outputs().len() != 1 {
            let count = plan.outputs().len();
            let expected = format!("a dictionary of {count} arrays");
            return Err(input_error("out", expected, "one object"));
        }
        if let Ok(named) = inputs.cast::<PyDict>() {
            return self.run_all(py, &self.in_order(named)?, out.as_ref());
        }
        match (plan.inputs(), plan.outputs()) {
            ([x], [y])
                if out
                    .as_ref()
                    .is_none_or(|out| !out.is_instance_of::<PyDict>()) =>
            {
                self.run_one(py, [x, y], inputs, out)
            }
            ([_], _) => self.run_all(py, std::slice::from_ref(inputs), out.as_ref()),
            (several, _) => {
                let names: Vec<String> = several.iter().map(|v| format!("`{}`", v.name)).collect();
                Err(input_error(
                    "inputs of the run",
                    names.join(", "),
                    "one without a name",
                ))
            }
        }
    }

    /// Threads that a run may use.
    #[getter]
    fn threads(&self) -> usize {
        self.0.threads()
    }

    /// The plan; of a network with a free dimension the first one.
    #[getter]
    fn plan(&self) -> Plan {
        Plan(Planned::In(Arc::clone(&self.0)))
    }

    fn __repr__(&self) -> String {
        let plan = self.0.plan();
        format!(
            "<sparsevd.Session of {}: {} thread(s)>",
            plan.network(),
            self.0.threads()
        )
    }
}
