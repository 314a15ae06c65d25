//! Named arrays in a safetensors file of a run folder.

use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorView, serialize};
use sparsevd_format::write_atomically;

use crate::error::CompressError;

/// An array: name, type, dimensions and bytes.
pub(crate) type Array<'a> = (String, Dtype, Vec<usize>, &'a [u8]);

/// Writes arrays, and one entry of metadata; `fault` makes the error of a file.
pub(crate) fn write_arrays(
    file: &Path,
    arrays: Vec<Array<'_>>,
    metadata: (&str, String),
    fault: fn(&Path, String) -> CompressError,
) -> Result<(), CompressError> {
    let bytes = to_bytes(arrays, [metadata]).map_err(|e| fault(file, e.to_string()))?;
    write_atomically(file, |out| out.write_all(&bytes))?;
    Ok(())
}

/// The bytes of a file of arrays with entries of metadata.
pub(crate) fn to_bytes<const N: usize>(
    arrays: Vec<Array<'_>>,
    metadata: [(&str, String); N],
) -> Result<Vec<u8>, SafeTensorError> {
    let views = arrays
        .into_iter()
        .map(|(name, dtype, dims, bytes)| Ok((name, TensorView::new(dtype, dims, bytes)?)));
    let views: Vec<(String, TensorView<'_>)> = views.collect::<Result<_, SafeTensorError>>()?;
    let metadata = metadata.map(|(key, text)| (key.to_owned(), text));
    serialize(views, Some(metadata.into()))
}
