//! Pixels and rows of tables as input.

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::prelude::*;
use sparsevd_model::Network;

use crate::array::{Operand, batch_and_length, in_c_order, kind_of};
use crate::error::input_error;

/// An array of pixels or rows, `[batch, ..]`, as input of the network, by the preprocessing that it stores.
pub fn preprocess<'py>(
    py: Python<'py>,
    network: &Network,
    pixels: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let graph = &network.graph;
    let ([input], Some(preprocessing)) = (graph.inputs.as_slice(), &graph.preprocessing) else {
        return Err(input_error(
            "preprocess",
            "a network with one input that stores how pixels become it",
            format!("network `{}` without", graph.name),
        ));
    };
    let what = Operand {
        kind: "input",
        name: &input.name,
    };
    let apply = |shape: &[usize], fill: &dyn Fn(&mut [f32])| {
        batch_and_length(what, &input.tensor_type(), shape)?;
        let array = PyArrayDyn::<f32>::zeros(py, shape, false);
        if let Ok(out) = array.readwrite().as_slice_mut() {
            fill(out);
        }
        Ok(array)
    };
    if let Ok(bytes) = pixels.cast::<PyArrayDyn<u8>>() {
        let bytes = match bytes.is_c_contiguous() {
            true => bytes.clone(),
            false => bytes.call_method1("copy", ("C",))?.cast_into()?,
        };
        let bytes = bytes
            .try_readonly()
            .map_err(|_| input_error(what, "an array that no other run writes to", "one in use"))?;
        let values = bytes.as_slice()?;
        return apply(bytes.shape(), &|out| {
            preprocessing.apply(&input.shape, values, out);
        });
    }
    if preprocessing.table.is_some() {
        let rows = in_c_order(what, pixels)?;
        let values = rows.as_slice()?;
        return apply(rows.shape(), &|out| {
            preprocessing.apply(&input.shape, values, out);
        });
    }
    Err(input_error(
        what,
        "a NumPy array of uint8 pixels",
        kind_of(pixels)?,
    ))
}
