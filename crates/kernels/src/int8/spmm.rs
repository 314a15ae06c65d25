//! Batches of bytes times a sparse matrix.

use std::ops::Range;

use sparsevd_model::Csr;

use super::any4::{Any4, Bytes, Output, Product, Scaled, ScaledVectors, Sums, Unpacked};
use super::dot::{self, Dot};
use super::lanes::SAMPLES;
use super::lines::byte_tiles;
use super::quantization::{Quantization, is_large, largest, unpack_rows};
use crate::{Clamp, LANES, length, tiles};

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
        Self::of_rows(
            dot,
            levels.cols(),
            unpack_rows(dot, levels, quantization, rows),
        )
    }

    /// Packs rows of a matrix of `cols` columns.
    pub(super) fn of_rows(dot: Dot, cols: usize, unpacked: Vec<Unpacked>) -> Self {
        let large = unpacked.iter().any(|row| is_large(largest(row)));
        Self {
            dot,
            rows: unpacked.len(),
            cols,
            matrix: Any4::pack(dot, unpacked, dot.line()),
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
        let output = self.scaled(x, y, n, clamp);
        // SAFETY: the slices have the lengths that were just checked.
        unsafe { self.product(x, n, output) };
    }

    /// `y = clamp(sum * (scale * scale of the sample) + offset)` for the `n` samples of one tile of bytes: `x` is `[cols][line]`, `y` `[tile][rows][16]`. The
    /// product of the scales is rounded, and so is `y`.
    ///
    /// # Panics
    /// When there are more than [`SAMPLES`] samples, or `x` or `y` has another length.
    #[track_caller]
    pub fn run_vectors(
        &self,
        x: &[u8],
        scales: &[f32; SAMPLES],
        y: &mut [f32],
        n: usize,
        clamp: Clamp,
    ) {
        assert!(n <= SAMPLES, "{n} samples, of {SAMPLES} at most");
        let scaled = self.scaled(x, y, n, clamp);
        // SAFETY: the slices have the lengths that were just checked.
        unsafe { self.product(x, n, ScaledVectors { scaled, scales }) };
    }

    /// Floats as output.
    #[track_caller]
    fn scaled(&self, x: &[u8], y: &mut [f32], n: usize, clamp: Clamp) -> Scaled {
        self.check(x, n);
        length::check("y", y.len(), [tiles(n), self.rows, LANES]);
        Scaled {
            y: y.as_mut_ptr(),
            rows: self.rows,
            tiles: tiles(n),
            bounds: clamp.bounds(),
        }
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
            at_once: 1,
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
