//! Products of non-zeros with fewer vectors than a tile of bytes has: a sentence is some ten tokens, and a tile sixty-four.
//!
//! Each vector of sixteen is made of bytes by itself, and multiplied by weights of 64 rows that are looked up in it ([`super::spans`]), four vectors at a time. The time is
//! that of the vectors that are there.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use std::ops::Range;

use sparsevd_model::{Csr, Int8Input};

use super::dot::{Dot, Task};
use super::lanes::{Joined, Lanes, SAMPLES};
use super::lines::{largest, scale_of};
use super::quantization::{Quantization, level, unpack};
use super::spans::{ROWS, Spans};
use crate::clamp::Bounds;
use crate::simd::Simd;
use crate::{LANES, tiles};

/// Most vectors that are multiplied so; a tile of bytes takes no longer for more.
pub(super) const MOST: usize = 36;

/// Blocks of rows that share each load of a vector.
const BLOCKS: usize = 4;

/// Vectors that share each load of weights.
const VECTORS: usize = 4;

/// Inputs whose bytes are transposed at once.
const INPUTS: usize = 4 * ROWS;

/// The weights of a linear layer, with what is stored for each row.
///
/// # Invariants
/// - there are a start, a scale and an offset for each row of a group of blocks
#[derive(Debug, Clone)]
pub(super) struct Few {
    rows: usize,
    cols: usize,
    spans: Spans<BLOCKS>,
    starts: Vec<i32>,
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

impl Few {
    /// Packs some rows of a matrix of levels, as [`super::Spmm::pack_rows`].
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
        let mut starts = Vec::new();
        let weights = rows.clone().map(|row| {
            let (columns, values) = levels.row(row);
            let entries = columns.iter().zip(values).map(|(&c, &v)| (c, level(v)));
            let entries = entries.filter(|(_, weight)| *weight != 0).collect();
            let row = unpack(dot, row, entries, zero_point, (scale[row], offset[row]));
            starts.push(row.start);
            row.entries
        });
        let weights: Vec<_> = weights.collect();
        let padded = rows.len().next_multiple_of(BLOCKS * ROWS);
        starts.resize(padded, 0);
        let padded_with = |values: &[f32]| {
            let mut values = values[rows.clone()].to_vec();
            values.resize(padded, 0.0);
            values
        };
        let len = levels.cols().next_multiple_of(INPUTS);
        Self {
            rows: rows.len(),
            cols: levels.cols(),
            spans: Spans::pack(&weights, len, usize::MAX).expect("any number of bytes"),
            starts,
            scales: padded_with(scale),
            offsets: padded_with(offset),
        }
    }

    /// Bytes of vectors that a run needs.
    pub fn vectors_len(&self) -> usize {
        MOST.next_multiple_of(LANES) * self.spans.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let rows = size_of_val(&self.starts[..]) + size_of_val(&self.scales[..]);
        self.spans.bytes() + rows + size_of_val(&self.offsets[..])
    }
}

/// A product with at most [`MOST`] vectors.
///
/// Bytes are looked up by these instructions. `x` is readable for `[tile][cols][16]`, `y` writable for `[tile][rows][16]`, and `vectors` for [`Few::vectors_len`] bytes.
pub(super) struct FewVectors<'a> {
    pub few: &'a Few,
    pub input: Int8Input,
    pub n: usize,
    pub x: *const f32,
    pub vectors: *mut u8,
    pub y: *mut f32,
    pub bounds: Bounds,
}

/// Sums of vectors for a group of blocks, `[block][vector][row]`.
#[repr(C, align(64))]
struct Sums([[i32; MOST.next_multiple_of(LANES) * ROWS]; BLOCKS]);

impl Task for FewVectors<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let few = self.few;
        let mut sums = Sums([[0; MOST.next_multiple_of(LANES) * ROWS]; BLOCKS]);
        let mut scales = [1.0_f32; MOST.next_multiple_of(LANES)];
        // SAFETY: there are vectors, scales and sums for whole tiles of sixteen; the rest by the contract of the task and the invariants of `Few`.
        unsafe {
            for (tile, scales) in scales.as_chunks_mut().0[..tiles(self.n)]
                .iter_mut()
                .enumerate()
            {
                self.quantize::<L>(tile, scales);
            }
            for group in 0..few.starts.len() / (BLOCKS * ROWS) {
                let starts = few.starts.as_ptr().add(group * BLOCKS * ROWS);
                for first in (0..self.n).step_by(VECTORS) {
                    let vectors = std::array::from_fn(|t| self.vector(first + t).cast_const());
                    let mut acc = [[L::splat(0); VECTORS]; BLOCKS];
                    for b in 0..BLOCKS {
                        acc[b] = [L::load(starts.add(b * ROWS)); VECTORS];
                    }
                    few.spans.add::<L, VECTORS>(group, vectors, &mut acc);
                    for b in 0..BLOCKS {
                        for t in 0..VECTORS {
                            let to = sums.0[b].as_mut_ptr().add((first + t) * ROWS);
                            L::store(to, acc[b][t]);
                        }
                    }
                }
                for (b, sums) in sums.0.iter().enumerate() {
                    let first = (group * BLOCKS + b) * ROWS;
                    for tile in 0..tiles(self.n) {
                        let sums = sums.as_ptr().add(tile * LANES * ROWS);
                        let scales = scales.as_ptr().add(tile * LANES);
                        self.store::<L>(first, tile, sums, scales);
                    }
                }
            }
        }
    }
}

impl FewVectors<'_> {
    /// Where a vector is.
    fn vector(&self, i: usize) -> *mut u8 {
        self.vectors.wrapping_add(i * self.few.spans.len())
    }

    /// Makes the bytes of the sixteen vectors of a tile, and finds their scales where each has its own.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined; there is such a tile.
    #[inline(always)]
    unsafe fn quantize<L: Lanes>(&self, tile: usize, scales: &mut [f32; LANES]) {
        let cols = self.few.cols;
        let mut fours = [[0_u8; SAMPLES]; ROWS];
        // SAFETY: by the contract of this function; columns past the last one, which have no weights, are not read.
        unsafe {
            let x = self.x.add(tile * cols * LANES);
            let inverses = match self.input {
                Int8Input::Grid(grid) => [grid.scale.recip(); LANES],
                Int8Input::PerVector => {
                    *scales = largest::<L>(x, cols).map(scale_of);
                    scales.map(f32::recip)
                }
            };
            let zero_point = f32::from(self.input.zero_point());
            let [zero, none, most] = [zero_point, 0.0, 255.0].map(|v| L::Floats::splat(v));
            let inverses = L::Floats::load(inverses.as_ptr());
            for input in (0..cols).step_by(INPUTS) {
                for (four, to) in fours.iter_mut().enumerate() {
                    let first = input + 4 * four;
                    if first >= cols {
                        break;
                    }
                    let scaled = |i: usize| {
                        let line = (first + i).min(cols - 1);
                        let v = L::Floats::load(x.add(line * LANES));
                        L::Floats::clamp(L::fused(v, inverses, zero), none, most)
                    };
                    let values = [scaled(0), scaled(1), scaled(2), scaled(3)];
                    let mut lines = [0_u8; SAMPLES];
                    let line = lines.as_mut_ptr();
                    L::store_lines(line, values, [0, u8::MAX], 4);
                    let lines = [0, 1, 2, 3].map(|i| line.add(i * LANES).cast_const());
                    L::interleave(lines, Joined::Four, None, to.as_mut_ptr());
                }
                let to = self.vector(tile * LANES).add(input);
                L::transpose(fours.as_ptr().cast(), to.cast(), self.few.spans.len() / 4);
            }
        }
    }

    /// Writes the outputs of sixteen rows for a tile of vectors, of sums `[vector][row]`.
    ///
    /// # Safety
    /// As for the task, and the instruction set of `L` is enabled where this is inlined; there are such rows with those that pad them, and such a tile.
    #[inline(always)]
    unsafe fn store<L: Lanes>(
        &self,
        first: usize,
        tile: usize,
        sums: *const i32,
        scales: *const f32,
    ) {
        let few = self.few;
        let mut by_rows = [[0_i32; LANES]; ROWS];
        // SAFETY: by the contract of this function.
        unsafe {
            L::transpose(sums, by_rows.as_mut_ptr().cast(), LANES);
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            let none = L::Floats::splat(0.0);
            let of_vectors = L::Floats::load(scales);
            for (i, sums) in by_rows.iter().enumerate() {
                let row = first + i;
                if row >= few.rows {
                    break;
                }
                let scale = L::Floats::splat(few.scales[row]);
                let scale = match self.input {
                    Int8Input::Grid(_) => scale,
                    Int8Input::PerVector => L::fused(of_vectors, scale, none),
                };
                let offset = L::Floats::splat(few.offsets[row]);
                let v = L::fused(L::floats(L::load(sums.as_ptr())), scale, offset);
                let y = self.y.add((tile * few.rows + row) * LANES);
                L::Floats::store(y, L::Floats::clamp(v, low, high));
            }
        }
    }
}
