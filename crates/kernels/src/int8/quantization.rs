//! What stands between bytes and numbers: zero points, scales and offsets, and the rows of a matrix with theirs.

use std::ops::Range;

use sparsevd_model::Csr;

use super::any4::{Entry, Unpacked};
use super::dot::Dot;
use crate::length;

/// What a layer of bytes computes: the zero point of its input, and what becomes of its sums.
#[derive(Debug, Clone, Copy)]
pub struct Quantization<'a> {
    /// The byte of the input that stands for zero.
    pub zero_point: u8,
    /// What a sum is multiplied by, for each row. For outputs in f32 that is the scale of the input times that of the row; for bytes it is also divided by
    /// the scale of the output.
    pub scale: &'a [f32],
    /// What is then added, for each row. For outputs in f32 that is the bias; for bytes it is divided by the scale of the output, plus its zero point.
    pub offset: &'a [f32],
}

impl<'a> Quantization<'a> {
    /// That of some rows.
    ///
    /// # Panics
    /// When they are out of range.
    #[must_use]
    #[track_caller]
    pub fn of_rows(self, rows: Range<usize>) -> Quantization<'a> {
        Quantization {
            scale: &self.scale[rows.clone()],
            offset: &self.offset[rows],
            ..self
        }
    }

    /// # Panics
    /// When there is not one scale and one offset for each of `rows`.
    #[track_caller]
    pub(super) fn check(&self, rows: usize) {
        length::check("the scale", self.scale.len(), [rows]);
        length::check("the offset", self.offset.len(), [rows]);
    }
}

/// # Panics
/// When `v` is not an integer from -128 to 127.
#[track_caller]
pub(super) fn level(v: f32) -> i8 {
    let level = v as i8;
    assert!(
        f32::from(level) == v,
        "a value of the weight: expected an integer from -128 to 127, got {v}"
    );
    level
}

/// What each weight adds to the first value of sums, times the weight: what the instructions subtract from bytes, less the zero point.
pub(super) fn zero(dot: Dot, zero_point: u8) -> i32 {
    dot.subtracted() - i32::from(zero_point)
}

/// A row of levels with the first value of its sums.
///
/// # Panics
/// When a sum of the row may not fit in 32 bits.
#[track_caller]
pub(super) fn unpack(
    dot: Dot,
    row: usize,
    entries: Vec<Entry>,
    zero_point: u8,
    (scale, offset): (f32, f32),
) -> Unpacked {
    assert!(
        most(&entries) <= i64::from(i32::MAX),
        "levels of row {row}: their sum with bytes does not fit in 32 bits"
    );
    let sum: i64 = entries.iter().map(|&(_, level)| i64::from(level)).sum();
    let start = sum * i64::from(zero(dot, zero_point));
    Unpacked {
        start: i32::try_from(start).expect("the bound above, as a zero point is a byte"),
        entries,
        scale,
        offset,
    }
}

/// Rows of a matrix of levels, whose `quantization` is that of all rows.
///
/// # Panics
/// When `rows` is out of range, a value is no level, a sum of a row may not fit in 32 bits, or there is not one scale and one offset per row.
#[track_caller]
pub(super) fn unpack_rows(
    dot: Dot,
    levels: &Csr,
    quantization: Quantization<'_>,
    rows: Range<usize>,
) -> Vec<Unpacked> {
    let all = levels.rows();
    quantization.check(all);
    assert!(rows.end <= all, "rows {rows:?} of {all}");
    let mut unpacked = Vec::with_capacity(rows.len());
    for row in rows {
        let (columns, values) = levels.row(row);
        let entries = columns.iter().zip(values).map(|(&c, &v)| (c, level(v)));
        let constants = (quantization.scale[row], quantization.offset[row]);
        let zero_point = quantization.zero_point;
        unpacked.push(unpack(dot, row, entries.collect(), zero_point, constants));
    }
    unpacked
}

/// What sums of rows begin with and become, in vectors of rows: of rows past the last one, which pad them, zero.
#[derive(Debug, Clone)]
pub(super) struct RowConstants {
    pub starts: Vec<i32>,
    pub scales: Vec<f32>,
    pub offsets: Vec<f32>,
}

impl RowConstants {
    /// Those of rows, padded to a multiple of `multiple`.
    pub fn of(rows: &[Unpacked], multiple: usize) -> Self {
        let padding = rows.len().next_multiple_of(multiple) - rows.len();
        let floats = |of: fn(&Unpacked) -> f32| {
            let padding = std::iter::repeat_n(0.0, padding);
            rows.iter().map(of).chain(padding).collect()
        };
        let padding = std::iter::repeat_n(0, padding);
        Self {
            starts: rows.iter().map(|row| row.start).chain(padding).collect(),
            scales: floats(|row| row.scale),
            offsets: floats(|row| row.offset),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let floats = size_of_val(&self.scales[..]) + size_of_val(&self.offsets[..]);
        size_of_val(&self.starts[..]) + floats
    }
}

/// The largest magnitude of a sum.
fn most(entries: &[Entry]) -> i64 {
    let levels = entries.iter().map(|&(_, level)| i64::from(level).abs());
    levels.sum::<i64>() * i64::from(u8::MAX)
}

/// The largest magnitude of a scaled sum of a row; NaN where there is none.
pub(super) fn largest(row: &Unpacked) -> f64 {
    let (scale, offset) = (f64::from(row.scale), f64::from(row.offset));
    most(&row.entries) as f64 * scale.abs() + offset.abs()
}

/// Whether numbers up to a magnitude may be too large for instructions that round them to 32 bits.
pub(super) fn is_large(largest: f64) -> bool {
    largest.is_nan() || largest > f64::from(1 << 30)
}
