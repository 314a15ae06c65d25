//! Arrays of a file of any kind.

use std::path::Path;

use sparsevd_model::Shape;

use crate::array::{Array, ArrayData};
use crate::safetensors::{Container, read_model};
use crate::{FileType, FormatError, read_idx, read_npy, read_npz, read_png};

/// Reads the arrays of an `.npy`, `.npz`, PNG, IDX (plain or gzip) or safetensors file, told apart by their first bytes.
///
/// Each comes with its name; a file that has no names in it gives its file stem. A PNG is `[channels, height, width]`.
///
/// # Errors
/// A file of another kind, or one that is not as its format has it.
pub fn read_array(path: impl AsRef<Path>) -> Result<Vec<(String, Array)>, FormatError> {
    let path = path.as_ref();
    let one = |array| {
        let stem = path.file_stem().unwrap_or_default();
        Ok(vec![(stem.to_string_lossy().into_owned(), array)])
    };
    match FileType::of_file(path)? {
        FileType::Npy => one(read_npy(path)?),
        FileType::Npz => read_npz(path),
        FileType::Png => one(read_png(path)?),
        FileType::Idx | FileType::Gzip => one(read_idx(path)?),
        FileType::Safetensors => safetensors_arrays(path),
        other => Err(FormatError::invalid(
            path,
            "array file",
            "npy, npz, PNG, IDX (plain or gzip) or safetensors",
            other.instead_of_arrays(path),
        )),
    }
}

/// All arrays of a safetensors file.
pub(crate) fn safetensors_arrays(path: &Path) -> Result<Vec<(String, Array)>, FormatError> {
    let bytes = read_model(path)?;
    let file = Container::parse(path, &bytes)?;
    let names: Vec<(String, Shape)> = file.shapes().map(|(n, s)| (n.to_owned(), s)).collect();
    names
        .into_iter()
        .map(|(name, shape)| {
            let data = match file.dtype(&name)? {
                safetensors::Dtype::U8 => ArrayData::U8(file.bytes(&name)?.to_vec()),
                safetensors::Dtype::BOOL => {
                    ArrayData::Bool(file.integers(&name)?.into_iter().map(|v| v != 0).collect())
                }
                safetensors::Dtype::F32
                | safetensors::Dtype::F16
                | safetensors::Dtype::BF16
                | safetensors::Dtype::F64 => ArrayData::F32(file.floats(&name)?),
                _ => ArrayData::I64(file.integers(&name)?),
            };
            let shape = shape.0;
            Ok((name, Array { shape, data }))
        })
        .collect()
}
