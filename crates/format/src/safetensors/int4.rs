//! Tables of embeddings whose integers have four bits, two to a byte.

use std::path::Path;

use sparsevd_model::quantised::unpack_int4;
use sparsevd_model::{Shape, memory};

use super::{Container, PartNames};
use crate::FormatError;

/// The integers of a table in C order, from -7 to 7.
///
/// # Errors
/// Bytes of another type or number than the shape needs, -8, and padding that is not zero.
pub(super) fn levels(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    shape: &Shape,
) -> Result<Vec<i8>, FormatError> {
    let (rows, cols) = shape.matrix();
    let stored = PartNames::new(name).int4;
    let wrong = |what: String, expected: String, got: String| {
        Err(FormatError::tensor(path, &stored, what, expected, got))
    };
    let got = file.shape(&stored)?;
    let expected = Shape::from([rows, cols.div_ceil(2)]);
    // Without a column a small file could have any number of rows.
    if cols == 0 || got != expected {
        let expected = format!("{expected}, two elements to a byte, of at least one column");
        return wrong("shape".into(), expected, got.to_string());
    }
    let bytes = file.bytes(&stored)?;
    // The caller makes numbers of four bytes of them.
    memory::check_elements(|| format!("tensor `{stored}`"), rows * cols, 5)
        .map_err(|e| FormatError::model(path, e))?;
    let mut levels = Vec::with_capacity(rows * cols);
    for (row, bytes) in bytes.chunks(cols.div_ceil(2)).enumerate() {
        let mut of_row = bytes.iter().flat_map(|b| unpack_int4(*b));
        levels.extend(of_row.by_ref().take(cols));
        // The high half of the last byte of an odd row.
        if let Some(padding) = of_row.find(|padding| *padding != 0) {
            let expected = "0 in the padding of its last byte".to_owned();
            return wrong(format!("row {row}"), expected, padding.to_string());
        }
    }
    match levels.iter().position(|q| *q == -8) {
        None => Ok(levels),
        Some(at) => wrong(
            format!("element {at}"),
            "from -7 to 7".into(),
            "-8".to_owned(),
        ),
    }
}
