//! Named arrays in a safetensors file of a run folder.

use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView, serialize};
use sparsevd_format::write_atomically;

use crate::error::CompressError;

/// Writes arrays with their names, types, dimensions and bytes, and one entry of metadata; `fault` makes the error of a file.
pub(crate) fn write_arrays(
    file: &Path,
    arrays: Vec<(String, Dtype, Vec<usize>, &[u8])>,
    (key, text): (&str, String),
    fault: fn(&Path, String) -> CompressError,
) -> Result<(), CompressError> {
    let fail = |e: SafeTensorError| fault(file, e.to_string());
    let views = arrays.into_iter().map(|(name, dtype, dims, bytes)| {
        Ok((name, TensorView::new(dtype, dims, bytes).map_err(fail)?))
    });
    let views: Vec<(String, TensorView<'_>)> = views.collect::<Result<_, CompressError>>()?;
    let bytes = serialize(views, Some([(key.to_owned(), text)].into())).map_err(fail)?;
    write_atomically(file, |out| out.write_all(&bytes))?;
    Ok(())
}
