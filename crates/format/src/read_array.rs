//! Arrays of a file of any kind.

use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use sparsevd_model::Shape;

use crate::array::{Array, ArrayData};
use crate::safetensors::{Container, read_model};
use crate::{FileType, FormatError, idx, image, npy, open_file};

/// Reads the arrays of an `.npy`, `.npz`, PNG, IDX (plain or gzip) or safetensors file, told apart by their first bytes.
///
/// Each comes with its name; a file that has no names in it gives its file stem. A PNG is `[channels, height, width]`.
///
/// # Errors
/// A file of another kind, or one that is not as its format has it.
pub fn read_array(path: impl AsRef<Path>) -> Result<Vec<(String, Array)>, FormatError> {
    let path = path.as_ref();
    match FileType::of_file(path)? {
        FileType::Safetensors => safetensors_arrays(path),
        kind => arrays(path, kind, BufReader::new(open_file(path)?)),
    }
}

/// Reads arrays, as [`read_array`], from the bytes of a file, which `path` names in errors.
///
/// # Errors
/// As [`read_array`].
pub fn read_array_bytes(
    path: impl AsRef<Path>,
    bytes: &[u8],
) -> Result<Vec<(String, Array)>, FormatError> {
    let path = path.as_ref();
    match FileType::of(bytes) {
        FileType::Safetensors => container_arrays(&Container::parse(path, bytes)?),
        kind => arrays(path, kind, Cursor::new(bytes)),
    }
}

/// The arrays of a file that can be read by parts.
fn arrays(
    path: &Path,
    kind: FileType,
    reader: impl BufRead + Seek,
) -> Result<Vec<(String, Array)>, FormatError> {
    let one = |array| {
        let stem = path.file_stem().unwrap_or_default();
        Ok(vec![(stem.to_string_lossy().into_owned(), array)])
    };
    match kind {
        FileType::Npy => one(npy::parse_npy_file(path, reader)?),
        FileType::Npz => npy::parse_npz(path, reader),
        FileType::Png => one(image::parse_png(path, reader)?),
        FileType::Idx | FileType::Gzip => one(idx::parse_idx(path, reader)?),
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
    container_arrays(&Container::parse(path, &bytes)?)
}

fn container_arrays(file: &Container<'_>) -> Result<Vec<(String, Array)>, FormatError> {
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
