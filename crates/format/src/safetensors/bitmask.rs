//! Weights in the layout `sparse-bitmask` of compressed-tensors: a bit for each element, and the elements whose bit is set.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::Dtype;
use sparsevd_model::{Csr, Dense, Shape, Weights};

use super::{Container, MAX_ELEMENTS, metadata_keys};
use crate::FormatError;

/// Names of the tensors that a weight is stored as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BitmaskNames {
    pub shape: String,
    pub compressed: String,
    pub bitmask: String,
    pub row_offsets: String,
}

impl BitmaskNames {
    /// `None` for a name that does not end in `.weight`, as the layout has no place for such a weight.
    pub fn new(weight: &str) -> Option<Self> {
        let prefix = weight.strip_suffix(".weight")?;
        Some(Self {
            shape: format!("{prefix}.shape"),
            compressed: format!("{prefix}.compressed"),
            bitmask: format!("{prefix}.bitmask"),
            row_offsets: format!("{prefix}.row_offsets"),
        })
    }
}

/// The weights of a file that have this layout, each with its dense shape; `others` are sparse weights with a layout of this format.
pub(super) fn entries<T>(
    path: &Path,
    file: &Container<'_>,
    others: &BTreeMap<String, T>,
) -> Result<BTreeMap<String, Shape>, FormatError> {
    file.shapes()
        .filter_map(|(name, _)| name.strip_suffix(".bitmask"))
        .filter(|prefix| !others.contains_key(*prefix))
        .map(|prefix| {
            if prefix.ends_with(".weight") {
                let key = metadata_keys::SPARSE;
                let expected = format!("its dense shape in __metadata__[\"{key}\"]");
                let got = "no entry there";
                return Err(FormatError::tensor(
                    path,
                    prefix,
                    "row-bitmask",
                    expected,
                    got,
                ));
            }
            let shape = dense_shape(path, file, &format!("{prefix}.shape"))?;
            Ok((format!("{prefix}.weight"), shape))
        })
        .collect()
}

fn dense_shape(path: &Path, file: &Container<'_>, name: &str) -> Result<Shape, FormatError> {
    one_dimension(path, file, name)?;
    let stored = file.integers(name)?;
    // With no dimension of 0 every row has a byte in the file, which bounds what is allocated for it.
    let dims: Option<Vec<usize>> = (stored.iter())
        .map(|&d| usize::try_from(d).ok().filter(|d| *d > 0))
        .collect();
    match dims.map(Shape) {
        Some(shape) if !stored.is_empty() && shape.elements() <= MAX_ELEMENTS => Ok(shape),
        _ => Err(FormatError::tensor(
            path,
            name,
            "elements",
            format!("a shape of 1 to {MAX_ELEMENTS} elements"),
            format!("{stored:?}"),
        )),
    }
}

fn one_dimension(path: &Path, file: &Container<'_>, name: &str) -> Result<(), FormatError> {
    let shape = file.shape(name)?;
    match shape.dims().len() {
        1 => Ok(()),
        _ => Err(FormatError::tensor(
            path,
            name,
            "shape",
            "one dimension",
            shape.to_string(),
        )),
    }
}

/// One weight, CSR, or one vector, dense.
pub(super) fn read(
    path: &Path,
    file: &Container<'_>,
    weight: &str,
    names: &BitmaskNames,
    shape: &Shape,
) -> Result<Weights, FormatError> {
    let mask = mask_of(path, file, names, shape)?;
    let values = values_of(path, file, names, mask)?;
    let places = places(path, &names.bitmask, mask, &Lines::of(shape));
    let [crow_indices, col_indices] = places?;
    // Beyond two dimensions its writers add up along the wrong axis, and no reader looks at it.
    if let [rows, _] = *shape.dims() {
        check_offsets(path, file, &names.row_offsets, &crow_indices[..rows])?;
    }
    let matrix = match shape.dims() {
        &[width] => Shape::from([1, width]),
        _ => shape.clone(),
    };
    let csr = Csr::try_new(matrix, crow_indices, col_indices, values)
        .map_err(|e| FormatError::model(path, e.for_tensor(weight)))?;
    Ok(match shape.dims().len() {
        1 => Weights::Dense(Dense::new(shape.clone(), csr.to_dense().values)),
        _ => Weights::Csr(csr),
    })
}

/// The bytes of a mask, as many as the shape needs.
fn mask_of<'f>(
    path: &Path,
    file: &Container<'f>,
    names: &BitmaskNames,
    shape: &Shape,
) -> Result<&'f [u8], FormatError> {
    let mut expected = shape.clone();
    if let Some(last) = expected.0.last_mut() {
        *last = last.div_ceil(8);
    }
    let got = file.shape(&names.bitmask)?;
    if got != expected {
        return Err(FormatError::tensor(
            path,
            &names.bitmask,
            "shape",
            format!("{expected}, a bit for each element of {shape} and its rows padded to bytes"),
            got.to_string(),
        ));
    }
    file.bytes(&names.bitmask)
}

/// The elements whose bit is set.
fn values_of(
    path: &Path,
    file: &Container<'_>,
    names: &BitmaskNames,
    mask: &[u8],
) -> Result<Vec<f32>, FormatError> {
    one_dimension(path, file, &names.compressed)?;
    let values = match file.dtype(&names.compressed)? {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => file.floats(&names.compressed)?,
        other => return Err(file.wrong_dtype(&names.compressed, "F32, F16 or BF16", other)),
    };
    let bits = count(mask);
    if values.len() != bits || u32::try_from(bits).is_err() {
        return Err(FormatError::tensor(
            path,
            &names.compressed,
            "length",
            format!(
                "{bits}, the bits that are set in `{}`, and below 2^32",
                names.bitmask
            ),
            values.len().to_string(),
        ));
    }
    Ok(values)
}

fn check_offsets(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    starts: &[u32],
) -> Result<(), FormatError> {
    one_dimension(path, file, name)?;
    let offsets = file.integers(name)?;
    let wrong = |what: String, expected: String, got: String| {
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    if offsets.len() != starts.len() {
        let expected = format!("{}, one for each row", starts.len());
        return wrong("length".into(), expected, offsets.len().to_string());
    }
    let mut pairs = offsets.iter().zip(starts);
    match pairs.position(|(&offset, &start)| offset != i64::from(start)) {
        None => Ok(()),
        Some(row) => wrong(
            format!("element {row}"),
            format!("{}, the bits that are set before the row", starts[row]),
            offsets[row].to_string(),
        ),
    }
}

/// Row starts and columns of the bits of a mask, of which there are fewer than 2^32.
///
/// # Errors
/// A bit in the padding of a line.
fn places(
    path: &Path,
    name: &str,
    mask: &[u8],
    lines: &Lines,
) -> Result<[Vec<u32>; 2], FormatError> {
    let (mut crow_indices, mut col_indices) = (vec![0], vec![]);
    for (line, bytes) in mask.chunks_exact(lines.bytes).enumerate() {
        let first = line % lines.per_row * lines.width;
        for column in set_bits(bytes) {
            if column >= lines.width {
                return Err(FormatError::tensor(
                    path,
                    name,
                    format!("row {line}"),
                    format!("no bit set from {} on, in its padding", lines.width),
                    format!("bit {column}"),
                ));
            }
            col_indices.push((first + column) as u32);
        }
        if (line + 1) % lines.per_row == 0 {
            crow_indices.push(col_indices.len() as u32);
        }
    }
    Ok([crow_indices, col_indices])
}

/// Row starts and columns of `values` values of a matrix whose rows are the lines of the mask.
///
/// # Errors
/// A matrix without columns, a mask of another shape, more or fewer bits than values, and a bit in the padding of a row.
pub(super) fn row_places(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    [rows, cols]: [usize; 2],
    values: usize,
) -> Result<[Vec<u32>; 2], FormatError> {
    let wrong = |what: &str, expected: String, got: String| {
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    // Else a small file could have any number of rows.
    if cols == 0 {
        let got = format!("[{rows}, {cols}]");
        return wrong("shape", "one column or more".into(), got);
    }
    let got = file.shape(name)?;
    let expected = Shape::from([rows, cols.div_ceil(8)]);
    if got != expected {
        let expected = format!("{expected}, a bit for each element of the matrix [{rows}, {cols}]");
        return wrong("shape", expected, got.to_string());
    }
    let mask = file.bytes(name)?;
    // Each bit becomes a column of four bytes.
    let bits = count(mask);
    if bits != values {
        let expected = format!("{values} set, the number of values");
        return wrong("bits", expected, bits.to_string());
    }
    places(path, name, mask, &Lines::of_rows(cols))
}

/// Number of bits that are set.
fn count(mask: &[u8]) -> usize {
    mask.iter().map(|byte| byte.count_ones() as usize).sum()
}

/// Places of the bits that are set, the lowest bit of a byte first.
fn set_bits(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.iter().enumerate().flat_map(|(i, &byte)| {
        (0..8)
            .filter(move |bit| byte >> bit & 1 == 1)
            .map(move |bit| 8 * i + bit)
    })
}

/// A tensor as lines, which the mask pads to whole bytes.
pub(super) struct Lines {
    width: usize,
    bytes: usize,
    /// Lines in a row of the matrix.
    per_row: usize,
}

impl Lines {
    /// A line for each row of a matrix.
    pub fn of_rows(cols: usize) -> Self {
        Self {
            width: cols,
            bytes: cols.div_ceil(8),
            per_row: 1,
        }
    }

    /// Bytes of the mask of `rows` rows.
    pub fn mask_len(&self, rows: usize) -> usize {
        rows * self.per_row * self.bytes
    }

    /// Lines along the last dimension.
    fn of(shape: &Shape) -> Self {
        let dims = shape.dims();
        let width = dims.last().copied().unwrap_or(1);
        let inner = dims.len().saturating_sub(1);
        Self {
            width,
            bytes: width.div_ceil(8),
            per_row: dims[1.min(inner)..inner].iter().product(),
        }
    }
}

/// A bit for each element, the lowest bit of a byte first.
pub(super) fn mask(csr: &Csr, lines: &Lines) -> Vec<u8> {
    let row_bytes = lines.mask_len(1);
    let mut mask = vec![0_u8; lines.mask_len(csr.rows())];
    for row in 0..csr.rows() {
        let bytes = &mut mask[row * row_bytes..][..row_bytes];
        for &column in csr.row(row).0 {
            let (line, bit) = (column as usize / lines.width, column as usize % lines.width);
            bytes[line * lines.bytes + bit / 8] |= 1 << (bit % 8);
        }
    }
    mask
}

/// The mask and the row offsets of a weight, as numbers of their file.
///
/// Beyond two dimensions the offsets are what compressed-tensors writes: each line's count, added up over the first
/// dimension alone.
pub(super) fn mask_and_offsets(csr: &Csr) -> (Vec<u8>, Vec<u8>) {
    let lines = Lines::of(csr.shape());
    let mask = mask(csr, &lines);
    let mut before = vec![0_i64; lines.per_row];
    let mut offsets = Vec::with_capacity(csr.rows() * lines.per_row * 8);
    for (line, bytes) in mask.chunks_exact(lines.bytes).enumerate() {
        let sum = &mut before[line % lines.per_row];
        offsets.extend(sum.to_le_bytes());
        *sum += bytes.iter().map(|b| i64::from(b.count_ones())).sum::<i64>();
    }
    (mask, offsets)
}
