//! Products of non-zeros with fewer vectors than a tile of bytes has: a sentence is some ten tokens, and a tile sixty-four.
//!
//! Bytes of a vector lie together, and non-zeros of 64 rows are looked up in them ([`super::spans`]), in four vectors at a time. So the time is that of the vectors that are
//! there.

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use sparsevd_model::Int8Input;

use super::any4::Unpacked;
use super::dot::Task;
use super::lanes::{Joined, Lanes, SAMPLES};
use super::lines::{largest, scale_of};
use super::quantization::RowConstants;
use super::spans::{BLOCKS, INPUTS, ROWS, Spans, VECTORS, write_vectors};
use crate::clamp::Bounds;
use crate::simd::Simd;
use crate::{LANES, tiles};

/// Most vectors that are multiplied so.
pub(super) const MOST: usize = 36;

/// Vectors of tiles of sixteen.
const ALL: usize = MOST.next_multiple_of(LANES);

/// Of steps without padding this many vectors take as long as a tile of bytes, by measurement.
const TILE: usize = 48;

/// The weights of a linear layer, with what is stored for each row.
///
/// # Invariants
/// - there are a start, a scale and an offset for each row of a group of blocks
#[derive(Debug, Clone)]
pub(super) struct Few {
    rows: usize,
    cols: usize,
    most: usize,
    spans: Spans<BLOCKS>,
    constants: RowConstants,
}

impl Few {
    /// Packs rows of a matrix of `cols` columns. `None` where steps are so far from full that a tile of bytes is faster for almost any number of vectors.
    pub fn of_rows(cols: usize, rows: &[Unpacked]) -> Option<Self> {
        /// Weights of steps over non-zeros that are worth their memory: with more, a tile is faster from eight vectors on.
        const PADDED: usize = 6;
        let weights: Vec<_> = rows.iter().map(|row| row.nonzeros(|k| k)).collect();
        let nonzeros: usize = weights.iter().map(Vec::len).sum();
        // A weight has a byte for its place.
        let spans = Spans::pack(
            &weights,
            cols.next_multiple_of(INPUTS),
            2 * PADDED * nonzeros,
        )?;
        Some(Self {
            rows: rows.len(),
            cols,
            most: MOST.min(TILE * nonzeros / spans.weights().max(1)),
            spans,
            constants: RowConstants::of(rows, BLOCKS * ROWS),
        })
    }

    /// Most vectors for which it is faster than a tile of bytes.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes of vectors that a run needs.
    pub fn vectors_len(&self) -> usize {
        ALL * self.spans.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.spans.bytes() + self.constants.bytes()
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
struct Sums([[i32; ALL * ROWS]; BLOCKS]);

impl Task for FewVectors<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let few = self.few;
        let mut sums = Sums([[0; ALL * ROWS]; BLOCKS]);
        let mut scales = [1.0_f32; ALL];
        let of_tiles = &mut scales.as_chunks_mut().0[..tiles(self.n)];
        // SAFETY: there are vectors, scales and sums for whole tiles of sixteen, so for the four of which the last vector is one; a block has `L::N` rows where bytes are looked
        // up; the rest by the contract of the task and the invariants of `Few`.
        unsafe {
            for (tile, scales) in of_tiles.iter_mut().enumerate() {
                self.quantize::<L>(tile, scales);
            }
            for group in 0..few.constants.starts.len() / (BLOCKS * ROWS) {
                let starts = few.constants.starts.as_ptr().add(group * BLOCKS * ROWS);
                for first in (0..self.n).step_by(VECTORS) {
                    let vectors = std::array::from_fn(|t| self.vector(first + t).cast_const());
                    let acc = few.spans.sums::<L, VECTORS>(group, starts, vectors);
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
                write_vectors::<L>(&fours, to, self.few.spans.len());
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
                let scale = L::Floats::splat(few.constants.scales[row]);
                let scale = match self.input {
                    Int8Input::Grid(_) => scale,
                    Int8Input::PerVector => L::fused(of_vectors, scale, none),
                };
                let offset = L::Floats::splat(few.constants.offsets[row]);
                let v = L::fused(L::floats(L::load(sums.as_ptr())), scale, offset);
                let y = self.y.add((tile * few.rows + row) * LANES);
                L::Floats::store(y, L::Floats::clamp(v, low, high));
            }
        }
    }
}
