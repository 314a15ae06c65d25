//! The safetensors container: header, offsets, and tensors as plain vectors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorInfo, TensorView};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use sparsevd_model::limits::MAX_TENSORS;
use sparsevd_model::{Shape, memory};

use crate::file::rest_of;
use crate::file_type::HEAD;
use crate::{FileType, FormatError, MAX_JSON, open_file};

/// Longest header the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// A checked safetensors file in memory.
pub(crate) struct Container<'a> {
    path: &'a Path,
    tensors: BTreeMap<String, TensorView<'a>>,
    pub metadata: BTreeMap<String, String>,
}

impl<'a> Container<'a> {
    /// Checks header and offsets; no tensor is copied.
    ///
    /// The crate's own errors do not name the tensor, so everything it checks is checked here first.
    pub fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, FormatError> {
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(FormatError::invalid(
                path,
                "safetensors file",
                "at least the 8 bytes of the header length",
                format!("{} bytes", bytes.len()),
            ));
        };
        let length = u64::from_le_bytes(*length);
        let most = (rest.len() as u64).min(MAX_HEADER);
        if length > most {
            let kind = FileType::of(bytes);
            if kind != FileType::Safetensors {
                let expected = "a network: safetensors, packed .spvd or ONNX";
                let got = kind.instead_of_network(path);
                return Err(FormatError::invalid(path, "file", expected, got));
            }
            return Err(FormatError::invalid(
                path,
                "safetensors header length",
                format!("at most {most}"),
                length.to_string(),
            ));
        }
        let (text, data) = rest.split_at(length as usize);
        let header = Header::checked(path, text, data.len())?;
        let crate_error = |e: safetensors::SafeTensorError| {
            FormatError::invalid(
                path,
                "safetensors file",
                "a file the safetensors crate accepts",
                e.to_string(),
            )
        };
        let views = SafeTensors::deserialize(bytes).map_err(crate_error)?;
        Ok(Self {
            path,
            tensors: views.tensors().into_iter().collect(),
            metadata: header.metadata,
        })
    }

    /// No tensor yet; `path` names the file in errors.
    pub fn empty(path: &'a Path) -> Self {
        Self {
            path,
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds the tensors and the metadata of another file of the same network.
    pub fn append(&mut self, other: Container<'a>) -> Result<(), FormatError> {
        for (name, tensor) in other.tensors {
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let got = "one of that name in another shard too";
                return Err(FormatError::tensor(
                    other.path, &name, "tensor", "it once", got,
                ));
            }
        }
        for (key, value) in other.metadata {
            let first = self.metadata.entry(key.clone()).or_insert(value.clone());
            if *first != value {
                return Err(FormatError::invalid(
                    other.path,
                    format!("__metadata__[\"{key}\"]"),
                    "the same in all shards",
                    "another value than in the shards before",
                ));
            }
        }
        Ok(())
    }

    /// Names and shapes in the order of the names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, Shape)> {
        self.tensors
            .iter()
            .map(|(n, t)| (n.as_str(), Shape(t.shape().to_vec())))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn dtype(&self, name: &str) -> Result<Dtype, FormatError> {
        self.get(name).map(TensorView::dtype)
    }

    pub fn shape(&self, name: &str) -> Result<Shape, FormatError> {
        self.get(name).map(|t| Shape(t.shape().to_vec()))
    }

    /// A floating-point tensor, widened or narrowed to f32.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let tensor = self.checked(name)?;
        let bytes = tensor.data();
        // Element by element from bytes: right on every alignment and byte order, and as fast as a copy on this one.
        match tensor.dtype() {
            Dtype::F32 => Ok(elements(bytes, f32::from_le_bytes)),
            Dtype::F16 => Ok(elements(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(elements(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Dtype::F64 => narrow(elements(bytes, f64::from_le_bytes)).map_err(|(index, v)| {
                FormatError::tensor(
                    self.path,
                    name,
                    format!("F64 element {index}"),
                    "a number that f32 can hold",
                    v.to_string(),
                )
            }),
            other => Err(self.wrong_dtype(name, "F32, F16, BF16 or F64", other)),
        }
    }

    /// An integer tensor of any width.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, FormatError> {
        let tensor = self.checked(name)?;
        let bytes = tensor.data();
        Ok(match tensor.dtype() {
            Dtype::BOOL | Dtype::U8 => elements(bytes, |b: [u8; 1]| i64::from(b[0])),
            Dtype::I8 => elements(bytes, |b| i64::from(i8::from_le_bytes(b))),
            Dtype::U16 => elements(bytes, |b| i64::from(u16::from_le_bytes(b))),
            Dtype::I16 => elements(bytes, |b| i64::from(i16::from_le_bytes(b))),
            Dtype::U32 => elements(bytes, |b| i64::from(u32::from_le_bytes(b))),
            Dtype::I32 => elements(bytes, |b| i64::from(i32::from_le_bytes(b))),
            Dtype::I64 => elements(bytes, i64::from_le_bytes),
            Dtype::U64 => {
                let wide = elements(bytes, u64::from_le_bytes);
                if let Some(v) = wide.iter().find(|v| i64::try_from(**v).is_err()) {
                    return Err(FormatError::tensor(
                        self.path,
                        name,
                        "U64 element",
                        "an integer below 2^63",
                        v.to_string(),
                    ));
                }
                wide.into_iter().map(|v| v as i64).collect()
            }
            other => return Err(self.wrong_dtype(name, "an integer dtype", other)),
        })
    }

    /// The bytes of a U8 tensor.
    pub fn bytes(&self, name: &str) -> Result<&'a [u8], FormatError> {
        let tensor = self.get(name)?;
        match tensor.dtype() {
            Dtype::U8 => Ok(tensor.data()),
            other => Err(self.wrong_dtype(name, "U8", other)),
        }
    }

    /// A tensor of indices: U16, U32, or I32 without negative entries.
    pub fn indices(&self, name: &str) -> Result<Vec<u32>, FormatError> {
        let tensor = self.get(name)?;
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::U16 => Ok(elements(bytes, |b| u32::from(u16::from_le_bytes(b)))),
            Dtype::U32 => Ok(elements(bytes, u32::from_le_bytes)),
            Dtype::I32 => {
                let signed = elements(bytes, i32::from_le_bytes);
                if let Some(at) = signed.iter().position(|v| *v < 0) {
                    return Err(FormatError::tensor(
                        self.path,
                        name,
                        format!("element {at}"),
                        "an index of 0 or more",
                        signed[at].to_string(),
                    ));
                }
                Ok(signed.into_iter().map(i32::cast_unsigned).collect())
            }
            other => Err(self.wrong_dtype(name, "U16, U32 or I32", other)),
        }
    }

    pub fn wrong_dtype(&self, name: &str, expected: &str, got: Dtype) -> FormatError {
        FormatError::tensor(self.path, name, "dtype", expected, got.to_string())
    }

    /// A tensor, where there is memory to widen its elements to 64 bits.
    fn checked(&self, name: &str) -> Result<&TensorView<'a>, FormatError> {
        let tensor = self.get(name)?;
        let elements = Shape(tensor.shape().to_vec()).elements();
        memory::check_elements(|| format!("tensor `{name}`"), elements, 8)
            .map_err(|e| FormatError::model(self.path, e))?;
        Ok(tensor)
    }

    fn get(&self, name: &str) -> Result<&TensorView<'a>, FormatError> {
        self.tensors.get(name).ok_or_else(|| {
            FormatError::tensor(
                self.path,
                name,
                "tensor",
                "it in the file",
                format!("only {}", sparsevd_model::bind::describe(self.shapes())),
            )
        })
    }
}

fn elements<const N: usize, T>(bytes: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|b| decode(*b))
        .collect()
}

/// Narrows to f32, or says which number f32 cannot hold. NaN and infinities pass: their place is checked elsewhere.
pub(crate) fn narrow(wide: Vec<f64>) -> Result<Vec<f32>, (usize, f64)> {
    match wide
        .iter()
        .position(|v| v.is_finite() && !(*v as f32).is_finite())
    {
        Some(at) => Err((at, wide[at])),
        None => Ok(wide.into_iter().map(|v| v as f32).collect()),
    }
}

/// Checks that the tensors tile the data without holes and that each has the bytes its shape and dtype need.
fn check_offsets(
    path: &Path,
    tensors: &BTreeMap<String, TensorInfo>,
    data: usize,
) -> Result<(), FormatError> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, t)| t.data_offsets);
    let mut next = 0;
    for (name, info) in by_offset {
        let (start, end) = info.data_offsets;
        let wrong = |what: &str, expected: String, got: String| {
            Err(FormatError::tensor(path, name, what, expected, got))
        };
        if start != next {
            return wrong(
                "data_offsets",
                format!("a start at {next}, where the tensor before it ends"),
                format!("[{start}, {end}]"),
            );
        }
        if end < start || end > data {
            return wrong(
                "data_offsets",
                format!("an end from {start} to {data}, the bytes that follow the header"),
                format!("[{start}, {end}]"),
            );
        }
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |n, &d| n.checked_mul(d))
            .filter(|bits| bits % 8 == 0);
        if bits.map(|b| b / 8) != Some(end - start) {
            let shape = Shape(info.shape.clone());
            return wrong(
                "data_offsets",
                match bits {
                    Some(bits) => format!("{} bytes for {} {shape}", bits / 8, info.dtype),
                    None => format!("a size in bytes that exists for {} {shape}", info.dtype),
                },
                format!("{} bytes", end - start),
            );
        }
        next = end;
    }
    if next != data {
        return Err(FormatError::invalid(
            path,
            "safetensors data",
            format!("{next} bytes, where the last tensor ends"),
            format!("{data} bytes"),
        ));
    }
    Ok(())
}

/// The bytes of the file of a network. Of a safetensors file the header is read and checked first, so that a file that is not as long as its
/// header says is not read; of a file of another program no more is read than tells what it is.
pub(crate) fn read_model(path: &Path) -> Result<Vec<u8>, FormatError> {
    let failed = |e| FormatError::io(path, "read", e);
    let mut file = open_file(path)?;
    let mut bytes = Vec::new();
    let mut read =
        |bytes: &mut Vec<u8>, most: u64| (&mut file).take(most).read_to_end(bytes).map_err(failed);
    read(&mut bytes, HEAD as u64)?;
    match FileType::of(&bytes) {
        FileType::Packed => {}
        FileType::ShardIndex => return rest_of(path, file, bytes, MAX_JSON),
        FileType::Safetensors => {
            let length = (bytes.first_chunk()).map_or(0, |length| u64::from_le_bytes(*length));
            let end = length.saturating_add(8);
            if length <= MAX_HEADER {
                read(&mut bytes, end.saturating_sub(HEAD as u64))?;
            }
            let size = file.metadata().map_err(failed)?.len();
            // Anything else is an error of the container.
            let text = bytes.get(8..).and_then(|b| b.get(..length as usize));
            if let (Some(text), Some(data)) = (text, size.checked_sub(end)) {
                Header::checked(path, text, usize::try_from(data).unwrap_or(usize::MAX))?;
            }
        }
        _ => return Ok(bytes),
    }
    rest_of(path, file, bytes, u64::MAX)
}

#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// The header of a file that has `data` bytes behind it.
    fn checked(path: &Path, text: &[u8], data: usize) -> Result<Self, FormatError> {
        let header: Self = serde_json::from_slice(text).map_err(|e| {
            FormatError::invalid(
                path,
                "safetensors header",
                "JSON of tensors with dtype, shape and data_offsets",
                e.to_string(),
            )
        })?;
        check_offsets(path, &header.tensors, data)?;
        Ok(header)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        header.metadata = map
                            .next_value()
                            .map_err(|e| A::Error::custom(format!("__metadata__: {e}")))?;
                        continue;
                    }
                    let info = map
                        .next_value()
                        .map_err(|e| A::Error::custom(format!("tensor `{name}`: {e}")))?;
                    if header.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    if header.tensors.insert(name.clone(), info).is_some() {
                        return Err(A::Error::custom(format!("tensor `{name}` is there twice")));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
