//! Places of a sparse weight's values: how many zeros come before each, in C order.
//!
//! A code has four bits, two to a byte and the low half first, or eight. A code below the largest (15 or 255) means that many zeros and then a value. The
//! largest means that many zeros, and the next code goes on.

use std::path::Path;

use sparsevd_model::Csr;

use crate::FormatError;

/// Bits of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CodeBits {
    Four,
    Eight,
}

impl CodeBits {
    /// The code of zeros without a value, and how many they are.
    fn most(self) -> u8 {
        match self {
            Self::Four => 15,
            Self::Eight => 255,
        }
    }

    /// Bytes of so many codes.
    fn bytes(self, codes: usize) -> usize {
        match self {
            Self::Four => codes.div_ceil(2),
            Self::Eight => codes,
        }
    }
}

/// Whether a weight may be stored as gaps. A reader allocates for every row, so a small file must not have more rows than values.
pub(super) fn may_store(rows: usize, values: usize) -> bool {
    rows <= values
}

/// The zeros before each value.
fn gaps(csr: &Csr) -> impl Iterator<Item = usize> {
    let places = (0..csr.rows()).flat_map(move |row| {
        let columns = csr.row(row).0.iter();
        columns.map(move |column| row * csr.cols() + *column as usize)
    });
    let mut next = 0;
    places.map(move |place| place - std::mem::replace(&mut next, place + 1))
}

/// Bytes of the codes of a weight.
pub(super) fn len(csr: &Csr, bits: CodeBits) -> usize {
    let most = usize::from(bits.most());
    bits.bytes(gaps(csr).map(|gap| gap / most + 1).sum())
}

pub(super) fn encode(csr: &Csr, bits: CodeBits) -> Vec<u8> {
    let most = bits.most();
    let codes = gaps(csr).flat_map(|gap| {
        let zeros = std::iter::repeat_n(most, gap / usize::from(most));
        zeros.chain([(gap % usize::from(most)) as u8])
    });
    match bits {
        CodeBits::Eight => codes.collect(),
        CodeBits::Four => {
            let codes: Vec<u8> = codes.collect();
            let byte = |pair: &[u8]| pair[0] | pair.get(1).map_or(0, |code| code << 4);
            codes.chunks(2).map(byte).collect()
        }
    }
}

/// Row starts and columns of `values` values of a matrix.
///
/// # Errors
/// More rows than values, codes of fewer or more values, and a place behind the matrix.
pub(super) fn places(
    path: &Path,
    name: &str,
    bytes: &[u8],
    bits: CodeBits,
    [rows, cols]: [usize; 2],
    values: usize,
) -> Result<[Vec<u32>; 2], FormatError> {
    let wrong = |what: &str, expected: String, got: String| {
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    if !may_store(rows, values) {
        let expected = format!("at most as many rows as values, {values}");
        return wrong("shape", expected, format!("[{rows}, {cols}]"));
    }
    let most = bits.most();
    let mut codes = bytes.iter().flat_map(|byte| match bits {
        CodeBits::Four => [byte & 15, byte >> 4].into_iter().take(2),
        CodeBits::Eight => [*byte, 0].into_iter().take(1),
    });
    let (mut crow_indices, mut col_indices) = (vec![0], Vec::with_capacity(values));
    let mut place = 0;
    while col_indices.len() < values {
        let Some(code) = codes.next() else {
            let expected = format!("those of {values} values");
            return wrong("codes", expected, format!("{}", col_indices.len()));
        };
        place += usize::from(code);
        if code == most {
            continue;
        }
        if place >= rows * cols {
            let expected = format!(
                "places below {}, the elements of [{rows}, {cols}]",
                rows * cols
            );
            return wrong("codes", expected, place.to_string());
        }
        let row = place / cols;
        crow_indices.resize(row + 1, col_indices.len() as u32);
        col_indices.push((place % cols) as u32);
        place += 1;
    }
    crow_indices.resize(rows + 1, col_indices.len() as u32);
    let rest: Vec<u8> = codes.collect();
    // An odd number of half bytes leaves one.
    let padding = usize::from(bits == CodeBits::Four);
    if rest.len() > padding || rest.iter().any(|code| *code != 0) {
        let expected = format!("no more than those of {values} values");
        return wrong("codes", expected, format!("{} more", rest.len()));
    }
    Ok([crow_indices, col_indices])
}
