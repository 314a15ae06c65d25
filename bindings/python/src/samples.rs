//! NumPy arrays as a data set.

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sparsevd_format::{Array, ArrayData, samples_of_arrays};
use sparsevd_pipeline::Data;

use crate::array::{Operand, kind_of};
use crate::error::{IntoPyErr, input_error};

/// A data set of arrays by their names in an `.npz`.
pub fn data_of_arrays(arrays: &Bound<'_, PyDict>) -> PyResult<Data> {
    let named = arrays.iter().map(|(name, array)| {
        let name: String = name.extract()?;
        let array = to_array(&name, &array)?;
        Ok((name, array))
    });
    let named = named.collect::<PyResult<_>>()?;
    let samples = samples_of_arrays("data", named).map_err(IntoPyErr::into_py_err)?;
    Ok(samples.into())
}

/// The numbers of an array, in the types that files are read in.
fn to_array(name: &str, object: &Bound<'_, PyAny>) -> PyResult<Array> {
    let what = Operand { kind: "data", name };
    let Ok(array) = object.cast::<PyUntypedArray>() else {
        return Err(input_error(what, "a NumPy array", kind_of(object)?));
    };
    let kind: String = array.dtype().getattr("kind")?.extract()?;
    let itemsize: usize = array.dtype().getattr("itemsize")?.extract()?;
    let data = match (kind.as_str(), itemsize) {
        ("u", 1) => ArrayData::U8(values(object, "uint8")?),
        ("b", _) => ArrayData::Bool(values(object, "bool")?),
        ("i" | "u", 1..=8) if (kind.as_str(), itemsize) != ("u", 8) => {
            ArrayData::I64(values(object, "int64")?)
        }
        ("f", 2..=8) => ArrayData::F32(values(object, "float32")?),
        _ => {
            let expected =
                "an array of uint8, integers or floating-point numbers of at most 64 bits";
            return Err(input_error(what, expected, kind_of(object)?));
        }
    };
    Ok(Array {
        shape: array.shape().to_vec(),
        data,
    })
}

/// The elements of an array in C order, as elements of that type.
fn values<T: numpy::Element + Copy>(array: &Bound<'_, PyAny>, dtype: &str) -> PyResult<Vec<T>> {
    let array = array.call_method1("astype", (dtype, "C"))?;
    let array = array.cast_into::<PyArrayDyn<T>>()?;
    let values = array.try_readonly()?.as_slice()?.to_vec();
    Ok(values)
}
