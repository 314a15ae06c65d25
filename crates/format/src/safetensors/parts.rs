//! The tensors of a file that hold one tensor of a network, with their numbers.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::Dtype;
use sparsevd_model::quantised::{RowBits, RowLevels, pack_int4};
use sparsevd_model::{Csr, Shape};

use super::bitmask::{BitmaskNames, Lines, mask, mask_and_offsets};
use super::gaps::{self, CodeBits};
use super::{Layout, PartNames};
use crate::FormatError;

/// How the places of a sparse weight's values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum CsrProfile {
    /// Whichever takes the fewest bytes: CSR with u16 where it suffices and u32 elsewhere, a bit for each element, or the zeros before each value; a preset's
    /// graph is named, not written out.
    #[default]
    Compact,
    /// CSR with i32, and the graph in full.
    ///
    /// torch and scipy wrap columns and row starts without a copy.
    Interop,
    /// sparse-bitmask, which compressed-tensors up to 0.14 reads, and the graph in full.
    ///
    /// A bit for each element. CSR weights must have names that end in `.weight`, and values of a floating-point type.
    Bitmask,
}

/// Numbers of one stored tensor.
pub(super) enum Source<'n> {
    Bytes(Vec<u8>),
    Floats(&'n [f32]),
    Indices(&'n [u32]),
    Levels(&'n [f32], f32),
    Scale(f32),
}

/// One tensor of a file.
pub(super) struct Part<'n> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub source: Source<'n>,
}

impl Part<'_> {
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// Checks that every number can be held by the type it is written as.
    pub fn check_values(&self, path: &Path) -> Result<(), FormatError> {
        let Source::Floats(values) = self.source else {
            return Ok(());
        };
        let fits = |v: &f32| match self.dtype {
            Dtype::F16 => f16::from_f32(*v).is_finite(),
            Dtype::BF16 => bf16::from_f32(*v).is_finite(),
            _ => true,
        };
        match values.iter().position(|v| !fits(v)) {
            None => Ok(()),
            Some(at) => Err(FormatError::tensor(
                path,
                &self.name,
                format!("element {at}"),
                format!("a number that {} can hold", self.dtype),
                values[at].to_string(),
            )),
        }
    }

    /// Writes the numbers as they are in a file.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match (&self.source, self.dtype) {
            (Source::Bytes(bytes), _) => out.write_all(bytes),
            (Source::Floats(v), Dtype::F16) => encode(out, v, |v| f16::from_f32(v).to_le_bytes()),
            (Source::Floats(v), Dtype::BF16) => encode(out, v, |v| bf16::from_f32(v).to_le_bytes()),
            (Source::Floats(v), _) => encode(out, v, f32::to_le_bytes),
            // Narrowing was checked when the plan was made; I32 has the bits of U32 below 2^31.
            (Source::Indices(v), Dtype::U16) => encode(out, v, |v| (v as u16).to_le_bytes()),
            (Source::Indices(v), _) => encode(out, v, u32::to_le_bytes),
            // The division gives back the integer that was checked when the plan was made.
            (Source::Levels(v, scale), _) => {
                encode(out, v, |v| ((v / *scale).round() as i8).to_le_bytes())
            }
            (Source::Scale(scale), _) => out.write_all(&scale.to_le_bytes()),
        }
    }
}

fn encode<T: Copy, const N: usize>(
    out: &mut dyn Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(values.len().min(4096) * N);
    for chunk in values.chunks(4096) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|v| bytes(*v)));
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// The integers of a weight whose rows were checked to be on grids of at most 127 times their scales, as bytes.
pub(super) fn levels_of_rows(csr: &Csr, rows: &[f32]) -> Vec<u8> {
    let row = |(row, scale): (usize, &f32)| {
        let level = |v: &f32| ((v / scale).round() as i8).cast_unsigned();
        csr.row(row).1.iter().map(level).collect::<Vec<_>>()
    };
    rows.iter().enumerate().flat_map(row).collect()
}

/// A table of embeddings whose rows are integers times their scales.
pub(super) fn table_parts<'n>(name: &str, shape: &Shape, rows: &RowLevels) -> [Part<'n>; 2] {
    let names = PartNames::new(name);
    let (name, dtype, shape, levels) = match rows.bits {
        RowBits::Eight => {
            let levels = rows.levels.iter().map(|q| q.cast_unsigned()).collect();
            (name.to_owned(), Dtype::I8, shape.dims().to_vec(), levels)
        }
        RowBits::Four => {
            let (count, width) = shape.matrix();
            let levels = pack_int4(&rows.levels, width);
            (
                names.int4,
                Dtype::U8,
                vec![count, width.div_ceil(2)],
                levels,
            )
        }
    };
    let scales = rows.scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    let stored = |name, dtype, shape, bytes| Part {
        name,
        dtype,
        shape,
        source: Source::Bytes(bytes),
    };
    [
        stored(name, dtype, shape, levels),
        stored(names.scale, Dtype::F32, vec![rows.scales.len()], scales),
    ]
}

/// Types of columns and of row starts.
pub(super) fn index_types(csr: &Csr, profile: CsrProfile) -> [Dtype; 2] {
    let index = |end: usize| match profile {
        CsrProfile::Compact if end <= 1 << 16 => Dtype::U16,
        CsrProfile::Compact => Dtype::U32,
        CsrProfile::Interop | CsrProfile::Bitmask => Dtype::I32,
    };
    [index(csr.cols()), index(csr.nonzeros() + 1)]
}

/// The layout that says where the values are in the fewest bytes, those of the header aside; CSR where the profile does not ask for few.
pub(super) fn layout(csr: &Csr, profile: CsrProfile) -> Layout {
    if profile != CsrProfile::Compact || csr.cols() == 0 {
        return Layout::Csr;
    }
    let [columns, starts] = index_types(csr, profile).map(|t| t.bitsize() / 8);
    let of_csr = columns * csr.nonzeros() + starts * (csr.rows() + 1);
    let of_mask = Lines::of_rows(csr.cols()).mask_len(csr.rows());
    let mut least = (Layout::Csr, of_csr);
    let mut or = |layout, bytes| {
        if bytes < least.1 {
            least = (layout, bytes);
        }
    };
    or(Layout::RowBitmask, of_mask);
    if gaps::may_store(csr.rows(), csr.nonzeros()) {
        or(Layout::Gaps4, gaps::len(csr, CodeBits::Four));
        or(Layout::Gaps8, gaps::len(csr, CodeBits::Eight));
    }
    least.0
}

/// The values of a weight beside the bytes that say where they are.
fn values_and<'n>(
    csr: &'n Csr,
    (values, dtype): (String, Dtype),
    (places, shape, bytes): (String, Vec<usize>, Vec<u8>),
) -> Vec<Part<'n>> {
    let values = Part {
        name: values,
        dtype,
        shape: vec![csr.nonzeros()],
        source: Source::Floats(csr.values()),
    };
    let places = Part {
        name: places,
        dtype: Dtype::U8,
        shape,
        source: Source::Bytes(bytes),
    };
    vec![values, places]
}

pub(super) fn gaps_parts<'n>(
    name: &str,
    csr: &'n Csr,
    values: Dtype,
    bits: CodeBits,
) -> Vec<Part<'n>> {
    let names = PartNames::new(name);
    let codes = gaps::encode(csr, bits);
    let shape = vec![codes.len()];
    values_and(csr, (names.values, values), (names.gaps, shape, codes))
}

pub(super) fn row_bitmask_parts<'n>(name: &str, csr: &'n Csr, values: Dtype) -> Vec<Part<'n>> {
    let names = PartNames::new(name);
    let shape = vec![csr.rows(), csr.cols().div_ceil(8)];
    let bits = mask(csr, &Lines::of_rows(csr.cols()));
    values_and(csr, (names.values, values), (names.bitmask, shape, bits))
}

pub(super) fn csr_parts<'n>(
    path: &Path,
    name: &str,
    csr: &'n Csr,
    values: Dtype,
    profile: CsrProfile,
) -> Result<[Part<'n>; 3], FormatError> {
    let [columns, starts] = index_types(csr, profile);
    let most = i32::MAX as usize;
    if profile == CsrProfile::Interop && (csr.cols() > most || csr.nonzeros() > most) {
        return Err(FormatError::tensor(
            path,
            name,
            "interop profile",
            format!("at most {most} columns and non-zeros"),
            format!("{} columns, {} non-zeros", csr.cols(), csr.nonzeros()),
        ));
    }
    let names = PartNames::new(name);
    let stored = |name, dtype, source, len| Part {
        name,
        dtype,
        shape: vec![len],
        source,
    };
    let nonzeros = csr.nonzeros();
    Ok([
        stored(names.values, values, Source::Floats(csr.values()), nonzeros),
        stored(
            names.col_indices,
            columns,
            Source::Indices(csr.col_indices()),
            nonzeros,
        ),
        stored(
            names.crow_indices,
            starts,
            Source::Indices(csr.crow_indices()),
            csr.rows() + 1,
        ),
    ])
}

pub(super) fn bitmask_parts<'n>(
    path: &Path,
    name: &str,
    csr: &'n Csr,
    values: Dtype,
) -> Result<[Part<'n>; 4], FormatError> {
    let Some(names) = BitmaskNames::new(name) else {
        return Err(FormatError::tensor(
            path,
            name,
            "sparse-bitmask",
            "a name that ends in `.weight`",
            "another",
        ));
    };
    let dims = csr.shape().dims();
    let (Some((width, lines)), true) = (dims.split_last(), csr.shape().elements() > 0) else {
        return Err(FormatError::tensor(
            path,
            name,
            "sparse-bitmask",
            "one element or more",
            csr.shape().to_string(),
        ));
    };
    let (mask, offsets) = mask_and_offsets(csr);
    let shape = dims.iter().flat_map(|&d| (d as i64).to_le_bytes());
    let stored = |name, dtype, shape, source| Part {
        name,
        dtype,
        shape,
        source,
    };
    Ok([
        stored(
            names.shape,
            Dtype::I64,
            vec![dims.len()],
            Source::Bytes(shape.collect()),
        ),
        stored(
            names.compressed,
            values,
            vec![csr.nonzeros()],
            Source::Floats(csr.values()),
        ),
        stored(
            names.bitmask,
            Dtype::U8,
            [lines, &[width.div_ceil(8)]].concat(),
            Source::Bytes(mask),
        ),
        stored(
            names.row_offsets,
            Dtype::I64,
            lines.to_vec(),
            Source::Bytes(offsets),
        ),
    ])
}
