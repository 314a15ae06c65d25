//! Arrays of numbers, whatever file they come from.

use std::path::Path;

use sparsevd_model::memory;

use crate::FormatError;

/// Most bytes that the arrays of one file may unpack to.
pub(crate) const MAX_BYTES: u64 = 8 << 30;

/// Checks that there is memory for an array of `stored` bytes in a file, unpacked, and `decoded` bytes as numbers. Both are there for a moment.
pub(crate) fn check_memory(
    path: &Path,
    name: &str,
    stored: usize,
    decoded: usize,
) -> Result<(), FormatError> {
    let bytes = (stored as u64).saturating_add(decoded as u64);
    memory::check(|| format!("array `{name}`"), bytes).map_err(|e| FormatError::model(path, e))
}

/// Numbers of an [`Array`] in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum ArrayData {
    /// Unsigned bytes: pixels.
    U8(Vec<u8>),
    /// Truth values, which are no pixels.
    Bool(Vec<bool>),
    /// Every other integer type, widened.
    I64(Vec<i64>),
    /// Every floating-point type, as f32.
    F32(Vec<f32>),
}

impl ArrayData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let size = match self {
            Self::U8(_) | Self::Bool(_) => 1,
            Self::I64(_) => 8,
            Self::F32(_) => 4,
        };
        self.len() as u64 * size
    }

    /// What kind of numbers these are, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::Bool(_) => "booleans",
            Self::I64(_) => "integers of another type",
            Self::F32(_) => "f32",
        }
    }
}

/// An array with its shape; `data` has as many elements as `shape`.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Dimensions, the first of which is usually the sample.
    pub shape: Vec<usize>,
    /// The numbers.
    pub data: ArrayData,
}

/// Elements from bytes of the given byte order.
pub(crate) fn decode<const N: usize, T>(
    bytes: &[u8],
    big_endian: bool,
    from_le: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let chunks = bytes.as_chunks::<N>().0.iter();
    chunks
        .map(|b| {
            let mut b = *b;
            if big_endian {
                b.reverse();
            }
            from_le(b)
        })
        .collect()
}
