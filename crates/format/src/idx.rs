//! The IDX format of MNIST, plain or gzip.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use sparsevd_model::Shape;

use crate::array::{Array, ArrayData, MAX_BYTES, check_memory, decode};
use crate::{FormatError, open_file};

/// Reads an IDX file, plain or gzip; its content decides which, not its name.
///
/// The file may unpack to what its header says and no more, at most 8 GiB.
///
/// # Errors
/// A magic number that is not IDX's, a length that does not fit the header, numbers that f32 cannot hold.
pub fn read_idx(path: impl AsRef<Path>) -> Result<Array, FormatError> {
    let path = path.as_ref();
    parse_idx(path, BufReader::new(open_file(path)?))
}

/// The array of an IDX file, plain or gzip.
pub(crate) fn parse_idx(path: &Path, mut file: impl BufRead) -> Result<Array, FormatError> {
    let failed = |e| FormatError::io(path, "read", e);
    let gzip = file.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    if gzip {
        parse(path, MultiGzDecoder::new(file))
    } else {
        parse(path, file)
    }
}

fn parse(path: &Path, mut reader: impl Read) -> Result<Array, FormatError> {
    let truncated = |what: &'static str| {
        move |e: io::Error| {
            let got = match e.kind() {
                io::ErrorKind::UnexpectedEof => "the end of the file".into(),
                _ => e.to_string(),
            };
            FormatError::invalid(path, format!("IDX {what}"), "readable bytes", got)
        }
    };
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).map_err(truncated("magic"))?;
    let size = match magic {
        [0, 0, 0x08 | 0x09, _] => 1,
        [0, 0, 0x0b, _] => 2,
        [0, 0, 0x0c | 0x0d, _] => 4,
        [0, 0, 0x0e, _] => 8,
        _ => {
            return Err(FormatError::invalid(
                path,
                "IDX magic",
                "00 00, a type of 08 to 0e, and the number of dimensions",
                format!("{magic:02x?}"),
            ));
        }
    };
    let mut dims = vec![0; usize::from(magic[3]) * 4];
    reader
        .read_exact(&mut dims)
        .map_err(truncated("dimensions"))?;
    let shape: Vec<usize> = decode(&dims, true, |b| u32::from_le_bytes(b) as usize);
    // Integers but unsigned bytes are widened to 64 bits.
    let widened = match magic[2] {
        0x09 | 0x0b | 0x0c => 8 / size as u64,
        _ => 1,
    };
    let length = shape
        .iter()
        .try_fold(size, |n: usize, &d| n.checked_mul(d))
        .filter(|n| (*n as u64).saturating_mul(widened) <= MAX_BYTES)
        .ok_or_else(|| {
            FormatError::invalid(
                path,
                "IDX dimensions",
                format!("at most {MAX_BYTES} bytes"),
                Shape(shape.clone()).to_string(),
            )
        })?;
    let decoded = match magic[2] {
        0x08 => 0,
        _ => length * widened as usize,
    };
    check_memory(path, "array", length, decoded)?;
    // The vector grows with the bytes that come, never with what the header says.
    let mut bytes = Vec::new();
    reader
        .take(length as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(truncated("data"))?;
    if bytes.len() != length {
        let more = bytes.len() > length;
        return Err(FormatError::invalid(
            path,
            "IDX data bytes",
            format!("{length} for the dimensions {}", Shape(shape)),
            if more {
                "more".into()
            } else {
                bytes.len().to_string()
            },
        ));
    }
    let data = match magic[2] {
        0x08 => ArrayData::U8(bytes),
        0x09 => ArrayData::I64(decode(&bytes, true, |b| i64::from(i8::from_le_bytes(b)))),
        0x0b => ArrayData::I64(decode(&bytes, true, |b| i64::from(i16::from_le_bytes(b)))),
        0x0c => ArrayData::I64(decode(&bytes, true, |b| i64::from(i32::from_le_bytes(b)))),
        0x0d => ArrayData::F32(decode(&bytes, true, f32::from_le_bytes)),
        _ => match crate::safetensors::narrow(decode(&bytes, true, f64::from_le_bytes)) {
            Ok(values) => ArrayData::F32(values),
            Err((at, v)) => {
                return Err(FormatError::invalid(
                    path,
                    format!("IDX element {at}"),
                    "a number that f32 can hold",
                    v.to_string(),
                ));
            }
        },
    };
    Ok(Array { shape, data })
}
