//! Constants: decoded tensors of a file.

use std::cell::Cell;

use half::{bf16, f16};
use sparsevd_model::{Shape, memory};

use crate::external::Folder;
use crate::node_error::Invalid;
use crate::proto::{SparseTensorProto, TensorProto, data_type};

/// Most elements of all constants of a network together, copies counted: 2 GiB of numbers.
const MOST_ELEMENTS: usize = 1 << 29;

/// An integer, or the batch size, which is not known at import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Int {
    Known(i64),
    Batch,
}

/// Elements in C order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f32>),
    Int(Vec<Int>),
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Self::Float(v) => v.len(),
            Self::Int(v) => v.len(),
        }
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub dims: Vec<usize>,
    pub data: Data,
}

impl Tensor {
    /// The elements, where they are floating-point numbers.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Float(values) => Some(values),
            Data::Int(_) => None,
        }
    }

    /// The elements, where they are integers and all known.
    pub fn ints(&self) -> Option<Vec<i64>> {
        let Data::Int(values) = &self.data else {
            return None;
        };
        let known = |v: &Int| match v {
            Int::Known(n) => Some(*n),
            Int::Batch => None,
        };
        values.iter().map(known).collect()
    }

    /// The elements, where they are integers.
    pub fn sizes(&self) -> Option<&[Int]> {
        match &self.data {
            Data::Int(values) => Some(values),
            Data::Float(_) => None,
        }
    }

    /// Type and shape, for messages.
    pub fn describe(&self) -> String {
        let kind = match self.data {
            Data::Float(_) => "floating-point",
            Data::Int(_) => "integer",
        };
        format!("{kind} constant {}", Shape(self.dims.clone()))
    }
}

/// The elements at the given indices.
pub(crate) fn pick(x: &Tensor, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Tensor {
    let data = match &x.data {
        Data::Float(v) => Data::Float(places.map(|i| v[i]).collect()),
        Data::Int(v) => Data::Int(places.map(|i| v[i]).collect()),
    };
    Tensor { dims, data }
}

/// Decodes the tensors of a file, within a budget of elements.
#[derive(Debug)]
pub(crate) struct Decoder {
    folder: Folder,
    left: Cell<usize>,
}

impl Decoder {
    /// A decoder that looks for external data in `folder`.
    pub fn new(folder: Folder) -> Self {
        Self {
            folder,
            left: Cell::new(MOST_ELEMENTS),
        }
    }

    /// Makes the whole budget available again.
    pub fn reset(&self) {
        self.left.set(MOST_ELEMENTS);
    }

    /// The number of elements of a shape, which is subtracted from the budget.
    pub fn take(&self, what: &str, dims: &[usize]) -> Result<usize, Invalid> {
        let elements = Shape(dims.to_vec()).elements();
        match self.left.get().checked_sub(elements) {
            Some(left) => {
                // Together with those before it, which stay.
                let all = MOST_ELEMENTS - left;
                let fits = memory::check_elements(|| what.to_owned(), all, size_of::<f32>());
                fits.map_err(|e| {
                    Invalid::new(what, "constants that fit into memory", e.to_string())
                })?;
                self.left.set(left);
                Ok(elements)
            }
            None => Err(Invalid::new(
                what,
                format!("constants of at most {MOST_ELEMENTS} elements in all"),
                format!("one {} beyond", Shape(dims.to_vec())),
            )),
        }
    }

    /// Decodes a dense tensor, inline or external.
    pub fn dense(&self, what: &str, tensor: &TensorProto) -> Result<Tensor, Invalid> {
        let dims = dimensions(what, &tensor.dims)?;
        let elements = Shape(dims.clone()).elements();
        let width = width(what, tensor.data_type)?;
        let data = if tensor.data_location == 1 {
            let len = elements.saturating_mul(width);
            self.take(what, &dims)?;
            let bytes = self.folder.read(what, &tensor.external_data, len)?;
            raw(tensor.data_type, &bytes)
        } else if let Some(bytes) = tensor.raw_data.as_ref().filter(|b| !b.is_empty()) {
            if elements.checked_mul(width) != Some(bytes.len()) {
                return Err(wrong_size(what, &dims, bytes.len() / width));
            }
            self.take(what, &dims)?;
            raw(tensor.data_type, bytes)
        } else {
            let data = typed(tensor);
            if data.len() != elements {
                return Err(wrong_size(what, &dims, data.len()));
            }
            self.take(what, &dims)?;
            data
        };
        Ok(Tensor { dims, data })
    }

    /// Decodes a sparse tensor to a dense one.
    pub fn sparse(&self, what: &str, tensor: &SparseTensorProto) -> Result<Tensor, Invalid> {
        let invalid = |expected: &str, got: String| Invalid::new(what, expected, got);
        let (Some(values), Some(indices)) = (&tensor.values, &tensor.indices) else {
            return Err(invalid("values and indices", "one or neither".into()));
        };
        let dims = dimensions(what, &tensor.dims)?;
        let values = self.dense(what, values)?;
        let indices = self.dense(what, indices)?;
        let (Some(numbers), Some(places)) = (values.floats(), indices.ints()) else {
            return Err(invalid(
                "floating-point values and integer indices",
                format!("{}, {}", values.describe(), indices.describe()),
            ));
        };
        let rank = match *indices.dims.as_slice() {
            [n] if n == numbers.len() => 1,
            [n, rank] if n == numbers.len() && rank == dims.len() => rank,
            _ => {
                return Err(invalid(
                    "indices [n] or [n, rank] for n values",
                    format!("{} for {} values", indices.describe(), numbers.len()),
                ));
            }
        };
        let elements = self.take(what, &dims)?;
        let mut dense = vec![0.0; elements];
        let extents: &[usize] = if rank == dims.len() && indices.dims.len() == 2 {
            &dims
        } else {
            &[elements]
        };
        for (value, place) in numbers.iter().zip(places.chunks(rank.max(1))) {
            let at = place.iter().zip(extents).try_fold(0, |at, (&i, &n)| {
                usize::try_from(i)
                    .ok()
                    .filter(|i| *i < n)
                    .map(|i| at * n + i)
            });
            match at {
                Some(at) => dense[at] = *value,
                None => {
                    return Err(invalid(
                        &format!("indices within {}", Shape(dims.clone())),
                        format!("{place:?}"),
                    ));
                }
            }
        }
        Ok(Tensor {
            dims,
            data: Data::Float(dense),
        })
    }
}

fn wrong_size(what: &str, dims: &[usize], got: usize) -> Invalid {
    let shape = Shape(dims.to_vec());
    Invalid::new(
        what,
        format!("{} elements for the shape {shape}", shape.elements()),
        got.to_string(),
    )
}

fn dimensions(what: &str, dims: &[i64]) -> Result<Vec<usize>, Invalid> {
    if dims.len() > 8 {
        return Err(Invalid::new(
            what,
            "at most 8 dimensions",
            dims.len().to_string(),
        ));
    }
    let dimension = |d: &i64| {
        usize::try_from(*d)
            .map_err(|_| Invalid::new(what, "dimensions of 0 or more", d.to_string()))
    };
    dims.iter().map(dimension).collect()
}

/// Whether tensors of a data type are numbers, or booleans, that can be decoded.
pub(crate) fn is_numeric(kind: i32) -> bool {
    width("", kind).is_ok()
}

/// Bytes of an element.
fn width(what: &str, kind: i32) -> Result<usize, Invalid> {
    Ok(match kind {
        data_type::UINT8 | data_type::INT8 | data_type::BOOL => 1,
        data_type::FLOAT16 | data_type::BFLOAT16 | data_type::UINT16 | data_type::INT16 => 2,
        data_type::FLOAT | data_type::INT32 | data_type::UINT32 => 4,
        data_type::DOUBLE | data_type::INT64 | data_type::UINT64 => 8,
        other => {
            return Err(Invalid::new(
                what,
                "floating-point numbers or integers",
                format!("data type {other}"),
            ));
        }
    })
}

/// Little-endian elements.
fn raw(kind: i32, bytes: &[u8]) -> Data {
    fn floats<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Data {
        Data::Float(bytes.as_chunks().0.iter().map(|b| f(*b)).collect())
    }
    fn ints<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> i64) -> Data {
        let known = |b: &[u8; N]| Int::Known(f(*b));
        Data::Int(bytes.as_chunks().0.iter().map(known).collect())
    }
    match kind {
        data_type::FLOAT => floats(bytes, f32::from_le_bytes),
        data_type::DOUBLE => floats(bytes, |b| f64::from_le_bytes(b) as f32),
        data_type::FLOAT16 => floats(bytes, |b| f16::from_le_bytes(b).to_f32()),
        data_type::BFLOAT16 => floats(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        data_type::INT8 => ints(bytes, |b| i64::from(i8::from_le_bytes(b))),
        data_type::INT16 => ints(bytes, |b| i64::from(i16::from_le_bytes(b))),
        data_type::UINT16 => ints(bytes, |b| i64::from(u16::from_le_bytes(b))),
        data_type::INT32 => ints(bytes, |b| i64::from(i32::from_le_bytes(b))),
        data_type::UINT32 => ints(bytes, |b| i64::from(u32::from_le_bytes(b))),
        data_type::INT64 | data_type::UINT64 => ints(bytes, i64::from_le_bytes),
        _ => ints(bytes, |[b]| i64::from(b)),
    }
}

/// Elements of the typed field that belongs to the data type.
fn typed(tensor: &TensorProto) -> Data {
    let bits = |f: fn(u16) -> f32| {
        let half = |b: &i32| f(*b as u16);
        Data::Float(tensor.int32_data.iter().map(half).collect())
    };
    match tensor.data_type {
        data_type::FLOAT => Data::Float(tensor.float_data.clone()),
        data_type::DOUBLE => Data::Float(tensor.double_data.iter().map(|v| *v as f32).collect()),
        data_type::FLOAT16 => bits(|b| f16::from_bits(b).to_f32()),
        data_type::BFLOAT16 => bits(|b| bf16::from_bits(b).to_f32()),
        data_type::INT64 => Data::Int(tensor.int64_data.iter().map(|v| Int::Known(*v)).collect()),
        data_type::UINT32 | data_type::UINT64 => {
            let known = |v: &u64| Int::Known(*v as i64);
            Data::Int(tensor.uint64_data.iter().map(known).collect())
        }
        _ => {
            let known = |v: &i32| Int::Known(i64::from(*v));
            Data::Int(tensor.int32_data.iter().map(known).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;

    fn decoder() -> Decoder {
        Decoder::new(Folder::of(Path::new("model.onnx")))
    }

    fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type,
            ..TensorProto::default()
        }
    }

    #[test]
    fn elements_of_every_type_come_from_raw_bytes_and_from_fields() {
        let mut wrong = Vec::new();
        let mut check = |name: &str, proto: TensorProto, want: Data| {
            let got = decoder().dense("t", &proto);
            if got.as_ref().map(|t| &t.data) != Ok(&want) {
                wrong.push(format!("{name}: expected {want:?}, got {got:?}"));
            }
        };
        let raw = |kind, bytes: &'static [u8]| TensorProto {
            raw_data: Some(Bytes::from_static(bytes)),
            ..tensor(kind, &[1])
        };
        let int = |v| Data::Int(vec![Int::Known(v)]);
        let float = |v| Data::Float(vec![v]);
        check(
            "f32",
            raw(data_type::FLOAT, &[0, 0, 0x80, 0x3f]),
            float(1.0),
        );
        check(
            "f64",
            raw(data_type::DOUBLE, &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
            float(1.0),
        );
        check("f16", raw(data_type::FLOAT16, &[0, 0x3c]), float(1.0));
        check("bf16", raw(data_type::BFLOAT16, &[0x80, 0x3f]), float(1.0));
        check("i8", raw(data_type::INT8, &[0xff]), int(-1));
        check("u8", raw(data_type::UINT8, &[0xff]), int(255));
        check("i16", raw(data_type::INT16, &[0xff, 0xff]), int(-1));
        check("u16", raw(data_type::UINT16, &[0xff, 0xff]), int(65535));
        check("i32", raw(data_type::INT32, &[0xff; 4]), int(-1));
        check("u32", raw(data_type::UINT32, &[0xff; 4]), int(0xffff_ffff));
        check(
            "i64",
            raw(data_type::INT64, &[0xfe, 255, 255, 255, 255, 255, 255, 255]),
            int(-2),
        );
        check("bool", raw(data_type::BOOL, &[1]), int(1));
        let field = |kind| tensor(kind, &[1]);
        check(
            "float_data",
            TensorProto {
                float_data: vec![2.0],
                ..field(data_type::FLOAT)
            },
            float(2.0),
        );
        check(
            "double_data",
            TensorProto {
                double_data: vec![2.0],
                ..field(data_type::DOUBLE)
            },
            float(2.0),
        );
        check(
            "half bits",
            TensorProto {
                int32_data: vec![0x4000],
                ..field(data_type::FLOAT16)
            },
            float(2.0),
        );
        check(
            "int32_data",
            TensorProto {
                int32_data: vec![-3],
                ..field(data_type::INT32)
            },
            int(-3),
        );
        check(
            "int64_data",
            TensorProto {
                int64_data: vec![-3],
                ..field(data_type::INT64)
            },
            int(-3),
        );
        check(
            "uint64_data",
            TensorProto {
                uint64_data: vec![3],
                ..field(data_type::UINT64)
            },
            int(3),
        );
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn shapes_that_promise_more_than_there_is_are_errors() {
        for (dims, expected) in [
            (&[3][..], "3 elements"),
            (&[-1], "dimensions of 0 or more"),
            (&[i64::MAX, i64::MAX], "elements for the shape"),
            (&[1; 9], "at most 8 dimensions"),
        ] {
            let proto = TensorProto {
                float_data: vec![1.0, 2.0],
                ..tensor(data_type::FLOAT, dims)
            };
            let error = decoder()
                .dense("initializer `w`", &proto)
                .unwrap_err()
                .to_string();
            assert!(error.contains("`w`") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn sparse_tensors_by_place_and_by_coordinates() {
        let ints = |dims: &[i64], v: &[i64]| TensorProto {
            int64_data: v.to_vec(),
            ..tensor(data_type::INT64, dims)
        };
        let sparse = |indices: TensorProto, dims: &[i64]| SparseTensorProto {
            values: Some(TensorProto {
                float_data: vec![1.0, 2.0],
                ..tensor(data_type::FLOAT, &[2])
            }),
            indices: Some(indices),
            dims: dims.to_vec(),
        };
        let want = [0.0, 1.0, 0.0, 0.0, 0.0, 2.0];
        for indices in [ints(&[2], &[1, 5]), ints(&[2, 2], &[0, 1, 1, 2])] {
            let t = decoder().sparse("w", &sparse(indices, &[2, 3])).unwrap();
            assert_eq!(t.floats(), Some(&want[..]));
        }
        for (indices, dims) in [
            (ints(&[2], &[1, 6]), &[2, 3][..]),
            (ints(&[2], &[-1, 5]), &[2, 3]),
            (ints(&[2, 2], &[0, 1, 2, 0]), &[2, 3]),
            (ints(&[3], &[0, 1, 2]), &[2, 3]),
            (ints(&[2], &[1, 5]), &[1 << 40, 1 << 20]),
        ] {
            let error = decoder().sparse("sparse_initializer `w`", &sparse(indices, dims));
            assert!(error.unwrap_err().to_string().contains("`w`"));
        }
    }
}
