//! Arrays in `.npy` and `.npz` files.

use std::io::{self, BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use half::f16;
use ndarray::{ArrayView, IxDyn};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{NpzWriter, WriteNpyExt};
use sparsevd_model::Shape;

use crate::array::{Array, ArrayData, MAX_BYTES, check_memory, decode};
use crate::{FormatError, open_file, write_atomically};

/// Longest `.npy` header that is parsed; numpy writes 128 bytes.
const MAX_HEADER: usize = 1 << 13;

/// Element types of `.npy` that are read, without their byte order.
const KINDS: [&str; 12] = [
    "b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8",
];

/// Reads an `.npy` file of booleans, integers or floating-point numbers.
///
/// # Errors
/// Another element type, a size that does not fit the shape, numbers that f32 or i64 cannot hold.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Array, FormatError> {
    let path = path.as_ref();
    let file = open_file(path)?;
    parse_npy_file(path, BufReader::new(file))
}

/// The array of an `.npy` file.
pub(crate) fn parse_npy_file(path: &Path, reader: impl Read) -> Result<Array, FormatError> {
    parse_npy(path, "array", reader, MAX_BYTES)
}

/// Reads all arrays of an `.npz` file, compressed or not, in the order of the file.
///
/// # Errors
/// As [`read_npy`], and where the file is no zip archive.
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Array)>, FormatError> {
    let path = path.as_ref();
    let file = open_file(path)?;
    parse_npz(path, BufReader::new(file))
}

/// The arrays of an `.npz` file.
pub(crate) fn parse_npz(
    path: &Path,
    reader: impl Read + Seek,
) -> Result<Vec<(String, Array)>, FormatError> {
    let broken = |e: zip::result::ZipError| {
        FormatError::invalid(path, "npz archive", "a zip archive", e.to_string())
    };
    let mut archive = zip::ZipArchive::new(reader).map_err(broken)?;
    let mut arrays = Vec::new();
    // Entries may share their packed bytes, so what is bounded is the sum.
    let mut left = MAX_BYTES;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().to_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let array = parse_npy(path, &name, BufReader::new(entry), left)?;
        left -= array.data.bytes().min(left);
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// One `.npy` stream. Memory grows with the data that is read, never with the size that the header gives.
fn parse_npy(
    path: &Path,
    name: &str,
    mut reader: impl Read,
    limit: u64,
) -> Result<Array, FormatError> {
    let wrong = |what: &str, expected: &str, got: String| {
        FormatError::tensor(path, name, what, expected, got)
    };
    let unreadable = |e: io::Error| wrong("npy data", "readable bytes", e.to_string());
    let text = header_bytes(&mut reader).map_err(unreadable)?;
    // The parser of the header is recursive, so nesting is refused before it.
    let nesting = text.iter().filter(|c| b"([{".contains(c)).count();
    let whole = text.len() == 10 + usize::from(text[6] != 1) * 2 + header_length(&text);
    if text.len() > MAX_HEADER || nesting > 8 || !whole {
        return Err(wrong(
            "npy header",
            "a dictionary of descr, fortran_order and shape",
            format!("{} bytes, {nesting} opening brackets", text.len()),
        ));
    }
    let header = Header::from_reader(&mut Cursor::new(&text)).map_err(|e| {
        wrong(
            "npy header",
            "a dictionary of descr, fortran_order and shape",
            one_line(&e.to_string()),
        )
    })?;
    let described = header.type_descriptor.to_string();
    let descr = header
        .type_descriptor
        .as_string()
        .map(String::as_str)
        .unwrap_or(&described);
    let unsupported = || {
        wrong(
            "npy dtype",
            "bool, an integer, or float16, float32 or float64",
            descr.to_owned(),
        )
    };
    let (order, kind) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), kind)) => (order, kind),
        _ => ("|", descr),
    };
    let big = order == ">" || (order == "=" && cfg!(target_endian = "big"));
    let size: usize = kind
        .get(1..)
        .and_then(|digits| digits.parse().ok())
        .filter(|_| KINDS.contains(&kind))
        .ok_or_else(unsupported)?;
    let elements = header
        .shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d));
    // What is widened counts with the bytes it takes then.
    let in_memory = match kind.as_bytes()[0] {
        b'b' => 1,
        b'u' if size == 1 => 1,
        b'f' => size.max(4),
        _ => 8,
    };
    let length = elements
        .filter(|n| n.checked_mul(in_memory).is_some_and(|n| n as u64 <= limit))
        .map(|n| n * size)
        .ok_or_else(|| {
            let expected = format!("at most {limit} bytes in memory, of {MAX_BYTES} a file");
            wrong(
                "npy shape",
                &expected,
                Shape(header.shape.clone()).to_string(),
            )
        })?;
    let decoded = match kind {
        "u1" => 0,
        _ => elements.unwrap_or(0) * in_memory,
    };
    check_memory(path, name, length, decoded)?;
    let mut bytes = Vec::new();
    reader
        .take(length as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() != length {
        let expected = format!("{length} for {}", Shape(header.shape.clone()));
        let more = bytes.len() > length;
        return Err(wrong(
            "npy data bytes",
            &expected,
            if more {
                "more".into()
            } else {
                bytes.len().to_string()
            },
        ));
    }
    let mut data = match (kind.as_bytes()[0], size) {
        (b'u', 1) => ArrayData::U8(bytes),
        (b'b', 1) => ArrayData::Bool(bytes.into_iter().map(|v| v != 0).collect()),
        (b'i', 1) => ArrayData::I64(decode(&bytes, big, |b| i64::from(i8::from_le_bytes(b)))),
        (b'i', 2) => ArrayData::I64(decode(&bytes, big, |b| i64::from(i16::from_le_bytes(b)))),
        (b'i', 4) => ArrayData::I64(decode(&bytes, big, |b| i64::from(i32::from_le_bytes(b)))),
        (b'i', 8) => ArrayData::I64(decode(&bytes, big, i64::from_le_bytes)),
        (b'u', 2) => ArrayData::I64(decode(&bytes, big, |b| i64::from(u16::from_le_bytes(b)))),
        (b'u', 4) => ArrayData::I64(decode(&bytes, big, |b| i64::from(u32::from_le_bytes(b)))),
        (b'u', 8) => {
            let wide = decode(&bytes, big, u64::from_le_bytes);
            match wide.iter().find(|v| i64::try_from(**v).is_err()) {
                Some(v) => return Err(wrong("element", "an integer below 2^63", v.to_string())),
                None => ArrayData::I64(wide.into_iter().map(u64::cast_signed).collect()),
            }
        }
        (b'f', 2) => ArrayData::F32(decode(&bytes, big, |b| f16::from_le_bytes(b).to_f32())),
        (b'f', 4) => ArrayData::F32(decode(&bytes, big, f32::from_le_bytes)),
        (b'f', 8) => {
            let wide = decode(&bytes, big, f64::from_le_bytes);
            match crate::safetensors::narrow(wide) {
                Ok(values) => ArrayData::F32(values),
                Err((at, v)) => {
                    let what = format!("element {at}");
                    return Err(wrong(&what, "a number that f32 can hold", v.to_string()));
                }
            }
        }
        _ => return Err(unsupported()),
    };
    if header.layout.is_fortran() && header.shape.len() > 1 {
        data = match data {
            ArrayData::U8(v) => ArrayData::U8(from_fortran(&header.shape, &v)),
            ArrayData::Bool(v) => ArrayData::Bool(from_fortran(&header.shape, &v)),
            ArrayData::I64(v) => ArrayData::I64(from_fortran(&header.shape, &v)),
            ArrayData::F32(v) => ArrayData::F32(from_fortran(&header.shape, &v)),
        };
    }
    Ok(Array {
        shape: header.shape,
        data,
    })
}

/// The parser draws pictures of its errors over several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The bytes of an `.npy` header, up to a little more than [`MAX_HEADER`].
fn header_bytes(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut text = vec![0; 10];
    reader.read_exact(&mut text)?;
    if text[6] != 1 {
        text.resize(12, 0);
        reader.read_exact(&mut text[10..])?;
    }
    let length = header_length(&text).min(MAX_HEADER + 1);
    reader.take(length as u64).read_to_end(&mut text)?;
    Ok(text)
}

/// The length that an `.npy` header of 10 bytes or more claims for its dictionary.
fn header_length(text: &[u8]) -> usize {
    match text[6] {
        1 => usize::from(u16::from_le_bytes([text[8], text[9]])),
        _ => u32::from_le_bytes([text[8], text[9], text[10], text[11]]) as usize,
    }
}

/// Column-major to row-major.
fn from_fortran<T: Copy>(shape: &[usize], values: &[T]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for &d in shape {
        strides.push(stride);
        stride *= d;
    }
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        out.push(values[at]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

/// Writes one f32 array as `.npy`, atomically; returns the number of bytes.
///
/// # Errors
/// The system refuses.
///
/// # Panics
/// When the number of values is not that of the shape.
#[track_caller]
pub fn write_npy(
    path: impl AsRef<Path>,
    shape: &[usize],
    values: &[f32],
) -> Result<u64, FormatError> {
    let array = view(shape, values);
    write_atomically(path, |out| array.write_npy(out).map_err(io::Error::other))
}

/// Writes f32 arrays as `.npz`, uncompressed, atomically; returns the number of bytes.
///
/// The same arrays give the same bytes: no time is written.
///
/// # Errors
/// The system refuses, or two arrays share a name.
///
/// # Panics
/// When the number of values is not that of the shape.
#[track_caller]
pub fn write_npz(
    path: impl AsRef<Path>,
    arrays: &[(&str, &[usize], &[f32])],
) -> Result<u64, FormatError> {
    let views: Vec<_> = arrays.iter().map(|(n, s, v)| (*n, view(s, v))).collect();
    write_atomically(path, |out: &mut dyn Write| {
        // The archive writer needs to seek, so the archive is built in memory.
        let mut archive = NpzWriter::new(Cursor::new(Vec::new()));
        for (name, array) in &views {
            archive.add_array(*name, array).map_err(io::Error::other)?;
        }
        let bytes = archive.finish().map_err(io::Error::other)?;
        out.write_all(bytes.get_ref())
    })
}

#[track_caller]
fn view<'a>(shape: &[usize], values: &'a [f32]) -> ArrayView<'a, f32, IxDyn> {
    match ArrayView::from_shape(IxDyn(shape), values) {
        Ok(view) => view,
        Err(e) => panic!("{} values of shape {shape:?}: {e}", values.len()),
    }
}
