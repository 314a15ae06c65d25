//! The sparse format and inner loop of products of bytes.
//!
//! **Format, "any four".** The non-zeros of a row are cut into steps of four, whichever columns they are in. A step is their four offsets, read with
//! one load, and their four weights. The four lines of bytes are interleaved at run time, so that the four bytes of a sample are side by side, and
//! one instruction sums their products. A last step of fewer than four has weights of zero.
//!
//! **Order.** Rows are sorted by their number of steps and computed two at a time, where there are registers for that. The second has as many steps as the
//! first, the last ones with weights of zero. So there are half as many ends of loops, most of which are predicted, and what becomes of the sums of one row
//! overlaps with the other.
//!
//! **Saturation.** AVX2 without VNNI sums two products in 16 bits. Bytes are at most 255, so these sums fit where the positive weights of the pair add
//! up to at most 128, and so do the negative ones: 255 * 128 < 2^15. Packing pairs the weights of a row accordingly, a large one with a
//! small or a negative one, or else with zero ([`fitting_pairs`]).

use std::ops::Range;

use super::dot::{Dot, Task};
use super::lanes::{Lanes, SAMPLES, Weights};
use super::lines::TILES;
use crate::LANES;
use crate::clamp::Bounds;
use crate::simd::Simd;

/// Rows that have as many steps each.
pub(super) const GROUP: usize = 2;

/// A packed sparse matrix.
///
/// # Invariants
/// - numbers of rows are below the number of packed rows, and each occurs once
/// - there are as many steps as the rows have in total, and as many of each row of a group
/// - an offset is the number of a column times the bytes of a line, below 4 GiB
#[derive(Debug, Clone)]
pub(super) struct Any4 {
    pub rows: Vec<Row>,
    pub steps: Steps,
}

/// A row of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub row: u32,
    pub steps: u32,
    /// The first value of its sums.
    pub start: i32,
    pub scale: f32,
    pub offset: f32,
}

#[derive(Debug, Clone)]
pub(super) enum Steps {
    Short(Vec<Short>),
    Long(Vec<Long>),
}

/// Four 16-bit offsets in units of eight bytes, which x86 addresses can scale by, the first in the lowest bits.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Short {
    offsets: u64,
    weights: Weights,
}

/// Offsets in bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Long {
    offsets: [u32; 4],
    weights: Weights,
}

/// A step of a row.
pub(super) trait Step: Copy {
    /// Where its four lines begin, in bytes.
    fn offsets(&self) -> [usize; 4];
    /// Their weights.
    fn weights(&self) -> &Weights;
}

impl Step for Short {
    #[inline(always)]
    fn offsets(&self) -> [usize; 4] {
        let q = self.offsets;
        [q & 0xffff, q >> 16 & 0xffff, q >> 32 & 0xffff, q >> 48].map(|offset| offset as usize * 8)
    }

    #[inline(always)]
    fn weights(&self) -> &Weights {
        &self.weights
    }
}

impl Step for Long {
    #[inline(always)]
    fn offsets(&self) -> [usize; 4] {
        self.offsets.map(|offset| offset as usize)
    }

    #[inline(always)]
    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// A non-zero: its column and its weight.
pub(super) type Entry = (u32, i8);

/// The non-zeros of a row of the output, and what its [`Row`] says of it.
pub(super) struct Unpacked {
    pub entries: Vec<Entry>,
    pub start: i32,
    pub scale: f32,
    pub offset: f32,
}

impl Unpacked {
    /// The weights that are not zero, each with the place that `place` gives its column, in the order of places.
    pub fn nonzeros(&self, place: impl Fn(u32) -> u32) -> Vec<(u32, i8)> {
        let there = self.entries.iter().filter(|(_, weight)| *weight != 0);
        let mut placed: Vec<_> = there.map(|&(k, weight)| (place(k), weight)).collect();
        placed.sort_unstable_by_key(|&(place, _)| place);
        placed
    }
}

impl Any4 {
    /// Packs the rows of a matrix whose columns are lines of `line` bytes, a multiple of eight.
    ///
    /// # Panics
    /// When a line begins 4 GiB or more behind the first one.
    pub fn pack(dot: Dot, rows: Vec<Unpacked>, line: usize) -> Self {
        Self::pack_some(dot, (0..).zip(rows).collect(), line)
    }

    /// As [`Any4::pack`], of rows with these numbers.
    pub fn pack_some(dot: Dot, mut rows: Vec<(u32, Unpacked)>, line: usize) -> Self {
        for (_, row) in &mut rows {
            if dot.saturates() {
                row.entries = fitting_pairs(std::mem::take(&mut row.entries));
            }
            let whole = row.entries.len().next_multiple_of(4);
            pad(&mut row.entries, whole);
        }
        rows.sort_by_key(|(_, row)| std::cmp::Reverse(row.entries.len()));
        for group in rows.chunks_exact_mut(GROUP) {
            let longest = group[0].1.entries.len();
            for (_, row) in group {
                pad(&mut row.entries, longest);
            }
        }
        let fours = rows
            .iter()
            .flat_map(|(_, row)| row.entries.as_chunks::<4>().0);
        let offset = |(column, _): Entry| {
            let bytes = (column as usize).checked_mul(line);
            bytes
                .and_then(|bytes| u32::try_from(bytes).ok())
                .expect("an input of less than 4 GiB")
        };
        let long = fours.map(|entries| Long {
            offsets: entries.map(offset),
            weights: Weights::new(entries.map(|(_, weight)| weight)),
        });
        let long: Vec<Long> = long.collect();
        let short = long.iter().map(Short::of).collect::<Option<Vec<_>>>();
        Self {
            rows: rows
                .iter()
                .map(|(number, row)| Row::of(*number, row))
                .collect(),
            steps: short.map_or(Steps::Long(long), Steps::Short),
        }
    }

    /// Bytes of weights, offsets and what is stored for each row.
    pub fn bytes(&self) -> usize {
        let steps = match &self.steps {
            Steps::Short(steps) => size_of_val(&steps[..]),
            Steps::Long(steps) => size_of_val(&steps[..]),
        };
        steps + size_of_val(&self.rows[..])
    }
}

impl Row {
    pub fn of(row: u32, unpacked: &Unpacked) -> Self {
        let steps = unpacked.entries.len() / 4;
        Self {
            row,
            steps: u32::try_from(steps).expect("columns fit in 32 bits"),
            start: unpacked.start,
            scale: unpacked.scale,
            offset: unpacked.offset,
        }
    }
}

impl Short {
    /// `None` where an offset does not fit.
    fn of(long: &Long) -> Option<Self> {
        let mut offsets = 0;
        for offset in long.offsets.into_iter().rev() {
            offsets = offsets << 16 | u64::from(u16::try_from(offset / 8).ok()?);
        }
        let weights = long.weights;
        Some(Self { offsets, weights })
    }
}

/// Appends weights of zero until there are `len` entries. Each repeats the last column; in an empty row, the first column of the matrix.
fn pad(entries: &mut Vec<Entry>, len: usize) {
    let column = entries.last().map_or(0, |&(column, _)| column);
    entries.resize(len, (column, 0));
}

/// The entries in an order in which the products of each pair with two bytes fit in 16 bits, with some weights of zero between them.
fn fitting_pairs(mut entries: Vec<Entry>) -> Vec<Entry> {
    let fits = |a: i8, b: i8| {
        let [a, b] = [a, b].map(i32::from);
        a.max(0) + b.max(0) <= 128 && a.min(0) + b.min(0) >= -128
    };
    entries.sort_by_key(|&(_, weight)| weight);
    let mut pairs = Vec::with_capacity(entries.len());
    let mut rest = &entries[..];
    while let [least, .., most] = *rest {
        // Weights of different signs fit, so these two do not only where both have the same sign.
        if fits(least.1, most.1) {
            pairs.extend([least, most]);
            rest = &rest[1..rest.len() - 1];
        } else if most.1 > 0 {
            pairs.extend([most, (most.0, 0)]);
            rest = &rest[..rest.len() - 1];
        } else {
            pairs.extend([least, (least.0, 0)]);
            rest = &rest[1..];
        }
    }
    pairs.extend_from_slice(rest);
    pairs
}

/// Which sums of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub tile: usize,
    pub part: usize,
    /// Which of the rows that are computed together: below [`GROUP`].
    pub member: usize,
}

/// What becomes of the sums of a row.
pub(super) trait Output: Copy {
    /// What the sums of a row begin with.
    ///
    /// # Safety
    /// As [`Output::store`].
    #[inline(always)]
    unsafe fn start<L: Lanes>(&self, row: &Row, _: At) -> [L::Ints; 4] {
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of the trait).
        unsafe { [L::splat(row.start); 4] }
    }
    /// Stores sums of a row, whose samples are not in order yet ([`Lanes::in_order`]).
    ///
    /// # Safety
    /// The instructions of `L` must be enabled where this is inlined, and what the output says of its pointer must hold.
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]);
}

/// The sums, `[tile][rows][16]`. `y` is writable for `tiles * rows * 16` integers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sums {
    pub y: *mut i32,
    pub rows: usize,
    pub tiles: usize,
}

impl Output for Sums {
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        let At { tile, part, .. } = at;
        // SAFETY: the instruction set is enabled (contract of the trait).
        let sums = unsafe { L::in_order(sums) };
        for (j, sums) in sums.into_iter().enumerate() {
            let t = tile * TILES + j;
            if t < self.tiles {
                let at = (t * self.rows + row.row as usize) * LANES + part * L::N;
                // SAFETY: part of a line of a tile that exists; the instruction set is enabled (contract of the trait).
                unsafe { L::store(self.y.add(at), sums) };
            }
        }
    }
}

/// The sums over some of the columns of one tile, not in order, `[rows][64]`: `sums` is readable and writable for all of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partial {
    pub sums: *mut i32,
    /// Whether these are the first columns.
    pub begins: bool,
}

impl Partial {
    /// Where the sums of a part of a row are.
    #[inline(always)]
    fn place<L: Lanes>(&self, row: &Row, part: usize) -> *mut i32 {
        let at = row.row as usize * SAMPLES + part * TILES * L::N;
        self.sums.wrapping_add(at)
    }

    /// The sums of the columns before.
    ///
    /// # Safety
    /// As [`Output::store`].
    #[inline(always)]
    unsafe fn load<L: Lanes>(&self, row: &Row, part: usize) -> [L::Ints; 4] {
        let sums = self.place::<L>(row, part);
        // SAFETY: the sums of a row; the instruction set is enabled (contract of this function).
        unsafe {
            let load = |j: usize| L::load(sums.add(j * L::N));
            [load(0), load(1), load(2), load(3)]
        }
    }
}

impl Output for Partial {
    #[inline(always)]
    unsafe fn start<L: Lanes>(&self, row: &Row, at: At) -> [L::Ints; 4] {
        // SAFETY: by the contract of the trait.
        unsafe {
            match self.begins {
                true => [L::splat(row.start); 4],
                false => self.load::<L>(row, at.part),
            }
        }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        let place = self.place::<L>(row, at.part);
        for (j, sums) in sums.into_iter().enumerate() {
            // SAFETY: the sums of a row; the instruction set is enabled (contract of the trait).
            unsafe { L::store(place.add(j * L::N), sums) };
        }
    }
}

/// What becomes of sums whose first columns are in `before`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last<O> {
    pub before: Partial,
    pub output: O,
}

impl<O: Output> Output for Last<O> {
    #[inline(always)]
    unsafe fn start<L: Lanes>(&self, row: &Row, at: At) -> [L::Ints; 4] {
        // SAFETY: by the contract of the trait.
        unsafe { self.before.load::<L>(row, at.part) }
    }

    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        // SAFETY: by the contract of the trait.
        unsafe { self.output.store::<L>(row, at, sums) }
    }
}

/// `clamp(sum * scale + offset)`, `[tile][rows][16]`. `y` is writable for `tiles * rows * 16` floats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scaled {
    pub y: *mut f32,
    pub rows: usize,
    pub tiles: usize,
    pub bounds: Bounds,
}

impl Scaled {
    /// Clamps and stores numbers of a row, whose samples are in order.
    ///
    /// # Safety
    /// As [`Output::store`].
    #[inline(always)]
    unsafe fn store_values<L: Lanes>(
        &self,
        row: &Row,
        At { tile, part, .. }: At,
        values: [<L::Floats as Simd>::V; 4],
    ) {
        // SAFETY: parts of lines of tiles that exist; the instruction set is enabled (contract of this function).
        unsafe {
            let [low, high] = [self.bounds.min, self.bounds.max].map(|v| L::Floats::splat(v));
            for (j, v) in values.into_iter().enumerate() {
                let t = tile * TILES + j;
                if t < self.tiles {
                    let at = (t * self.rows + row.row as usize) * LANES + part * L::N;
                    L::Floats::store(self.y.add(at), L::Floats::clamp(v, low, high));
                }
            }
        }
    }
}

impl Output for Scaled {
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        // SAFETY: by the contract of the trait.
        unsafe { self.store_values::<L>(row, at, scaled::<L>(row, L::in_order(sums))) };
    }
}

/// As [`Scaled`], where each sample has a scale besides: `clamp(sum * (scale * scale of the sample) + offset)`. `scales` are those of [`SAMPLES`] samples of
/// one tile of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScaledVectors<'a> {
    pub scaled: Scaled,
    pub scales: &'a [f32; SAMPLES],
}

impl Output for ScaledVectors<'_> {
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        // SAFETY: parts of the scales of a tile; by the contract of the trait.
        unsafe {
            let [of_row, offset, none] = [row.scale, row.offset, 0.0].map(|v| L::Floats::splat(v));
            let scaled = |j: usize, sum| {
                let of_samples = self.scales.as_ptr().add(j * LANES + at.part * L::N);
                let scale = L::fused(L::Floats::load(of_samples), of_row, none);
                L::fused(L::floats(sum), scale, offset)
            };
            let [s, t, u, v] = L::in_order(sums);
            let values = [scaled(0, s), scaled(1, t), scaled(2, u), scaled(3, v)];
            self.scaled.store_values::<L>(row, at, values);
        }
    }
}

/// `sum * scale + offset` as bytes, `[byte tile][rows][line]`. `y` is writable for `line` bytes of each row of each tile of bytes. `LARGE` says that
/// numbers may be above 2^30.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<const LARGE: bool> {
    pub y: *mut u8,
    pub rows: usize,
    pub line: usize,
    pub bounds: [u8; 2],
}

impl<const LARGE: bool> Output for Bytes<LARGE> {
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, row: &Row, at: At, sums: [L::Ints; 4]) {
        let At { tile, part, .. } = at;
        let at = (tile * self.rows + row.row as usize) * self.line + part * TILES * L::N;
        // SAFETY: part of a line of `y`; the instruction set is enabled (contract of the trait).
        unsafe {
            let mut values = scaled::<L>(row, L::in_order(sums));
            if LARGE {
                let [low, high] = [f32::NEG_INFINITY, 255.0].map(|v| L::Floats::splat(v));
                for v in &mut values {
                    *v = L::Floats::clamp(*v, low, high);
                }
            }
            L::store_bytes(self.y.add(at), Some(SAMPLES), values, self.bounds);
        }
    }
}

/// `sum * scale + offset` of each sum of a row, which are in order.
///
/// # Safety
/// The instructions of `L` must be enabled where this is inlined.
#[inline(always)]
pub(super) unsafe fn scaled<L: Lanes>(
    row: &Row,
    [s, t, u, v]: [L::Ints; 4],
) -> [<L::Floats as Simd>::V; 4] {
    // SAFETY: no memory is accessed; callers enable the instruction set.
    unsafe {
        let [scale, offset] = [row.scale, row.offset].map(|v| L::Floats::splat(v));
        [
            L::fused(L::floats(s), scale, offset),
            L::fused(L::floats(t), scale, offset),
            L::fused(L::floats(u), scale, offset),
            L::fused(L::floats(v), scale, offset),
        ]
    }
}

/// A product with `tiles` tiles of bytes, each `tile` bytes long: with `at_once` of them, row after row, then with the next. `x` is readable for all
/// of them, and columns of the matrix are below the number of lines of a tile.
pub(super) struct Product<'a, O> {
    pub matrix: &'a Any4,
    pub x: *const u8,
    pub tile: usize,
    pub tiles: usize,
    pub at_once: usize,
    pub output: O,
}

impl<O: Output> Task for Product<'_, O> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: by the contract of the task.
        unsafe {
            match &self.matrix.steps {
                Steps::Short(steps) => self.rows::<L, Short>(steps.as_ptr()),
                Steps::Long(steps) => self.rows::<L, Long>(steps.as_ptr()),
            }
        }
    }
}

impl<O: Output> Product<'_, O> {
    #[inline(always)]
    unsafe fn rows<L: Lanes, S: Step>(&self, steps: *const S) {
        let constants = L::constants();
        let mut first = 0;
        while first < self.tiles {
            let tiles = first..self.tiles.min(first + self.at_once);
            let mut step = steps;
            let (groups, rest) = self.matrix.rows.as_chunks::<GROUP>();
            // SAFETY: `step` is the first step of the rows, of which there are as many as there are steps in total.
            unsafe {
                for group in groups {
                    if L::TWO_ROWS {
                        step = self.group::<L, S, GROUP>(constants, group, step, &tiles);
                    } else {
                        for row in group {
                            step = self.group::<L, S, 1>(constants, &[*row], step, &tiles);
                        }
                    }
                }
                for row in rest {
                    step = self.group::<L, S, 1>(constants, &[*row], step, &tiles);
                }
            }
            first = tiles.end;
        }
    }

    /// Rows with as many steps each, from `step` on. Returns the step after them.
    #[inline(always)]
    unsafe fn group<L: Lanes, S: Step, const R: usize>(
        &self,
        constants: L::Constants,
        rows: &[Row; R],
        step: *const S,
        tiles: &Range<usize>,
    ) -> *const S {
        // SAFETY: `step` is the first of as many steps as the rows have; offsets are those of lines of a tile, of which parts are read.
        unsafe {
            let steps = rows[0].steps as usize;
            for tile in tiles.clone() {
                for part in 0..SAMPLES / (TILES * L::N) {
                    // A matrix without columns has no steps, and an input without bytes.
                    let x = self.x.wrapping_add(tile * self.tile + part * TILES * L::N);
                    let at = |member| At { tile, part, member };
                    let mut sums = [[L::splat(0); 4]; R];
                    for (member, (sums, row)) in sums.iter_mut().zip(rows).enumerate() {
                        *sums = self.output.start::<L>(row, at(member));
                    }
                    for i in 0..steps {
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let step = &*step.add(r * steps + i);
                            let lines = step.offsets().map(|offset| x.add(offset));
                            *sums =
                                L::add_products(constants, *sums, lines, SAMPLES, step.weights());
                        }
                    }
                    for (member, (row, sums)) in rows.iter().zip(sums).enumerate() {
                        self.output.store::<L>(row, at(member), sums);
                    }
                }
            }
            step.add(R * steps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_fit_in_sixteen_bits_and_keep_all_weights() {
        let rows: [&[i8]; 8] = [
            &[],
            &[127],
            &[-128, -128, -128],
            &[127, 127, 127, 127],
            &[-128, 127, -128, 127, 3],
            &[64, 64, 65, 64, 1],
            &[-64, -64, -65, 0],
            &[127, 1, 2, 3, -128, -1, 126],
        ];
        for weights in rows {
            let entries: Vec<Entry> = (0..).zip(weights.iter().copied()).collect();
            let paired = fitting_pairs(entries.clone());
            let mut kept: Vec<Entry> = paired.iter().copied().filter(|e| e.1 != 0).collect();
            kept.sort_unstable();
            let all: Vec<Entry> = entries.into_iter().filter(|e| e.1 != 0).collect();
            assert_eq!(kept, all);
            for pair in paired.chunks(2) {
                for bytes in [[0, 0], [255, 0], [0, 255], [255, 255]] {
                    let products = pair.iter().zip(bytes).map(|(&(_, w), x)| i32::from(w) * x);
                    let sum: i32 = products.sum();
                    assert!(i16::try_from(sum).is_ok(), "{pair:?} times {bytes:?}");
                }
            }
        }
    }
}
