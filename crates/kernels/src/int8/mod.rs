//! Sparse products of 8-bit weights and activations with 32-bit sums.
//!
//! **Numbers.** A weight is an integer from -128 to 127, its level on the grid of its row. An activation is a byte, which stands for the byte less the
//! zero point. Sums `sum of level * (byte - zero_point)` are exact in 32 bits, in every instruction set ([`Dot`]): the product with the zero point is a
//! constant of each row, with which its sum starts. Then a sum becomes `sum * scale + offset`, with a scale and an offset for each row,
//! rounded once.
//!
//! **Signed activations** `q` from -128 to 127 are the bytes `q + 128` with zero point 128.
//!
//! **Layout.** Activations are `[byte tile][feature][line]`: a line is one feature of [`SAMPLES`] samples, in the order that [`byte_of`] says, and has
//! [`Dot::line`] bytes. [`quantize`] makes them of [`Layout::Tiled`](crate::Layout::Tiled), to which sums and floats go back.

mod any4;
mod dot;
mod lanes;
mod lines;

use std::ops::Range;

use sparsevd_model::Csr;

use crate::{Clamp, LANES, length, tiles};
use any4::{Any4, Bytes, Entry, Output, Product, Scaled, Sums, Unpacked};

pub use dot::Dot;
pub use lanes::SAMPLES;
pub use lines::{byte_of, byte_tiles, quantize};

/// What a sparse layer of bytes computes: the zero point of its input, and what becomes of its sums.
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

/// A sparse matrix of 8-bit integers packed for batches of bytes: batched linear layers and 1x1 convolutions.
#[derive(Debug, Clone)]
pub struct Spmm {
    dot: Dot,
    rows: usize,
    cols: usize,
    matrix: Any4,
    /// Whether scaled sums may be above 2^30.
    large: bool,
}

impl Spmm {
    /// Packs `levels`, `[out, in]`, whose values are integers from -128 to 127.
    ///
    /// # Panics
    /// When `levels` has another value, a sum of a row may not fit in 32 bits, or there is not one scale and one offset per row.
    #[track_caller]
    pub fn pack(dot: Dot, levels: &Csr, quantization: Quantization<'_>) -> Self {
        Self::pack_rows(dot, levels, quantization, 0..levels.rows())
    }

    /// Packs only `rows` of the matrix, so that threads can split a product by rows: a run writes only these rows. `quantization` is that of the whole
    /// matrix.
    ///
    /// # Panics
    /// When `rows` is out of range, or as [`Spmm::pack`].
    #[track_caller]
    pub fn pack_rows(
        dot: Dot,
        levels: &Csr,
        quantization: Quantization<'_>,
        rows: Range<usize>,
    ) -> Self {
        let Quantization {
            zero_point,
            scale,
            offset,
        } = quantization;
        length::check("the scale", scale.len(), [levels.rows()]);
        length::check("the offset", offset.len(), [levels.rows()]);
        assert!(
            rows.end <= levels.rows(),
            "rows {rows:?} of {}",
            levels.rows()
        );
        let mut large = false;
        let unpacked = rows.clone().map(|row| {
            let (columns, values) = levels.row(row);
            let entries = columns.iter().zip(values).map(|(&c, &v)| (c, level(v)));
            let entries: Vec<Entry> = entries.collect();
            let sum = |of: fn(i64) -> i64| -> i64 {
                entries.iter().map(|&(_, level)| of(i64::from(level))).sum()
            };
            let most = sum(i64::abs) * i64::from(u8::MAX);
            assert!(
                most <= i64::from(i32::MAX),
                "levels of row {row}: their sum with bytes does not fit in 32 bits"
            );
            let (scale, offset) = (scale[row], offset[row]);
            let largest = most as f64 * f64::from(scale).abs() + f64::from(offset).abs();
            large |= largest.is_nan() || largest > f64::from(1 << 30);
            let zero = i64::from(dot.subtracted()) - i64::from(zero_point);
            Unpacked {
                start: i32::try_from(sum(|level| level) * zero)
                    .expect("the bound above, as a zero point is a byte"),
                entries,
                scale,
                offset,
            }
        });
        let unpacked = unpacked.collect();
        Self {
            dot,
            rows: rows.len(),
            cols: levels.cols(),
            matrix: Any4::pack(dot, unpacked),
            large,
        }
    }

    /// The sums of `n` samples: `x` is `[byte tile][cols][line]`, `y` `[tile][rows][16]`. Threads can split a batch by tiles of bytes.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run_sums(&self, x: &[u8], y: &mut [i32], n: usize) {
        self.check(x, n);
        length::check("y", y.len(), [tiles(n), self.rows, LANES]);
        if y.is_empty() {
            return;
        }
        let output = Sums {
            y: y.as_mut_ptr(),
            rows: self.rows,
            tiles: tiles(n),
        };
        // SAFETY: the slices have the lengths that were just checked.
        unsafe { self.product(x, n, output) };
    }

    /// `y = clamp(sum * scale + offset)` for `n` samples: `x` is `[byte tile][cols][line]`, `y` `[tile][rows][16]`.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[u8], y: &mut [f32], n: usize, clamp: Clamp) {
        self.check(x, n);
        length::check("y", y.len(), [tiles(n), self.rows, LANES]);
        if y.is_empty() {
            return;
        }
        let output = Scaled {
            y: y.as_mut_ptr(),
            rows: self.rows,
            tiles: tiles(n),
            bounds: clamp.bounds(),
        };
        // SAFETY: the slices have the lengths that were just checked.
        unsafe { self.product(x, n, output) };
    }

    /// `y = sum * scale + offset` as bytes for `n` samples: `x` is `[byte tile][cols][line]`, `y` `[byte tile][rows][line]`.
    ///
    /// Numbers are rounded half to even, saturated to 0..=255, and clamped to the two `bounds`: a ReLU is a lower bound at the zero point of the output.
    /// The byte of NaN is that of zero.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run_bytes(&self, x: &[u8], y: &mut [u8], n: usize, bounds: [u8; 2]) {
        self.check(x, n);
        length::check("y", y.len(), [byte_tiles(n), self.rows, self.dot.line()]);
        if y.is_empty() {
            return;
        }
        let (y, rows, line) = (y.as_mut_ptr(), self.rows, self.dot.line());
        // SAFETY: the slices have the lengths that were just checked; unless `large`, no scaled sum is above 2^30.
        unsafe {
            if self.large {
                let output = Bytes::<true> {
                    y,
                    rows,
                    line,
                    bounds,
                };
                self.product(x, n, output);
            } else {
                let output = Bytes::<false> {
                    y,
                    rows,
                    line,
                    bounds,
                };
                self.product(x, n, output);
            }
        }
    }

    #[track_caller]
    fn check(&self, x: &[u8], n: usize) {
        length::check("x", x.len(), [byte_tiles(n), self.cols, self.dot.line()]);
    }

    /// # Safety
    /// `x` must have passed [`Spmm::check`], and what `output` says of its pointer must hold for `n` samples.
    unsafe fn product(&self, x: &[u8], n: usize, output: impl Output) {
        let product = Product {
            matrix: &self.matrix,
            x: x.as_ptr(),
            tile: self.cols * self.dot.line(),
            tiles: byte_tiles(n),
            output,
        };
        // SAFETY: `Csr` keeps columns below `cols`, of which each tile of `x` has lines; the rest is left to the caller.
        unsafe { dot::run(self.dot, product) };
    }

    /// Rows of the packed part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `{instructions}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> String {
        format!("{}-any4-i8i8-1x{SAMPLES}", self.dot)
    }

    /// Bytes of packed weights, offsets, row numbers, scales and offsets that one run over a tile reads.
    pub fn bytes(&self) -> usize {
        self.matrix.bytes()
    }
}

/// # Panics
/// When `v` is not an integer from -128 to 127.
#[track_caller]
fn level(v: f32) -> i8 {
    let level = v as i8;
    assert!(
        f32::from(level) == v,
        "a value of the weight: expected an integer from -128 to 127, got {v}"
    );
    level
}
