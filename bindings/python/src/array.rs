//! NumPy arrays as the slices of a run.

use std::fmt;

use numpy::{
    PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use sparsevd_model::{Dim, TensorType};

use crate::error::input_error;

/// What an array is for, in messages.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// `input` or `output`, for instance.
    pub kind: &'static str,
    pub name: &'a str,
}

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.name)
    }
}

/// An array of floating-point numbers in C order: the caller's own, or a copy where that has another order.
pub fn in_c_order<'py>(
    what: Operand<'_>,
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArrayDyn<'py, f32>> {
    let Ok(array) = array.cast::<PyArrayDyn<f32>>() else {
        return Err(input_error(
            what,
            "a NumPy array of float32",
            kind_of(array)?,
        ));
    };
    let array = match array.is_c_contiguous() && is_aligned(array) {
        true => array.clone(),
        false => copied(array)?,
    };
    let busy = |_| input_error(what, "an array that no other run writes to", "one in use");
    array.try_readonly().map_err(busy)
}

/// An array of ids, which a run takes as floating-point numbers: a copy of the caller's integers.
pub fn ids<'py>(
    what: Operand<'_>,
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArrayDyn<'py, f32>> {
    let untyped = array.cast::<PyUntypedArray>().ok();
    let is_integer = untyped.is_some_and(|a| matches!(a.dtype().kind(), b'i' | b'u'));
    if !is_integer {
        return Err(input_error(
            what,
            "a NumPy array of integers",
            kind_of(array)?,
        ));
    }
    let copy = array.call_method1("astype", ("float32", "C"))?;
    in_c_order(what, &copy)
}

/// A copy in C order.
fn copied<'py>(array: &Bound<'py, PyArrayDyn<f32>>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
    let copy = array.call_method1("copy", ("C",))?;
    Ok(copy.cast_into()?)
}

/// Whether the elements lie where `f32` may lie.
pub fn is_aligned(array: &Bound<'_, PyArrayDyn<f32>>) -> bool {
    array.data().is_aligned()
}

/// What an object is, for messages: its class, of an array its element type.
pub fn kind_of(object: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(match object.cast::<PyUntypedArray>() {
        Ok(array) => format!("an array of {}", array.dtype().str()?),
        Err(_) => format!("an object of type {}", object.get_type().qualname()?),
    })
}

/// The shape of an array in words.
pub fn in_words(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// The number of samples of an array, and the length of the free dimension where its type has one.
///
/// # Errors
/// Another shape than `[batch, ..]` with the dimensions of the type.
pub fn batch_and_length(
    what: Operand<'_>,
    expected: &TensorType,
    shape: &[usize],
) -> PyResult<(usize, Option<usize>)> {
    let wrong = || {
        let dims = std::iter::once("batch".to_owned());
        let dims: Vec<String> = dims
            .chain(expected.dims.iter().map(Dim::to_string))
            .collect();
        input_error(
            what,
            format!("shape [{}]", dims.join(", ")),
            in_words(shape),
        )
    };
    let [batch, sample @ ..] = shape else {
        return Err(wrong());
    };
    if sample.len() != expected.dims.len() {
        return Err(wrong());
    }
    let mut length = None;
    for (dim, n) in expected.dims.iter().zip(sample) {
        match dim {
            Dim::Known(known) if known != n => return Err(wrong()),
            Dim::Known(_) => {}
            Dim::Free(_) if *n == 0 => return Err(wrong()),
            Dim::Free(_) => length = Some(*n),
        }
    }
    Ok((*batch, length))
}

/// Checks that every value is finite.
///
/// # Errors
/// The first that is not, by its place.
pub fn check_finite(what: Operand<'_>, values: &[f32], shape: &[usize]) -> PyResult<()> {
    // The exponent of what is not finite is all ones. Without a branch this runs as fast as memory is read.
    const EXPONENT: u32 = 0x7f80_0000;
    let is_special = |v: &f32| v.to_bits() & EXPONENT == EXPONENT;
    let any = values.iter().fold(false, |any, v| any | is_special(v));
    if !any {
        return Ok(());
    }
    let at = values.iter().position(is_special).unwrap_or(0);
    Err(input_error(
        format_args!("{what}, element {}", in_words(&place(at, shape))),
        "a finite number",
        values[at].to_string(),
    ))
}

/// The indices of the element of that number in C order.
pub fn place(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices = vec![0; shape.len()];
    for (index, n) in indices.iter_mut().zip(shape).rev() {
        *index = at % n;
        at /= n;
    }
    indices
}
