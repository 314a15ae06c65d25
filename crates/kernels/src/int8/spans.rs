//! Weights of rows without zeros, for products with single vectors of bytes.
//!
//! A step multiplies at most four non-zeros of each of sixteen rows. Their inputs lie in a span of 128 bytes of the vector, from which one instruction (AVX-512
//! VBMI) takes 64 by their places. Spans begin at cache lines and overlap by half, and each row takes its non-zeros in order: a row with few in one place goes
//! ahead of the others, as far as the span reaches, so that most steps are full: of random places at 80 % zeros an eighth to a quarter of the weights of steps is padding, and the more
//! the fewer there are (`docs/kernels.md`).

#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use super::lanes::{Lanes, SAMPLES};

/// Rows of a block: sums of 32 bits in a vector.
pub(super) const ROWS: usize = SAMPLES / FOUR;
/// Blocks of rows that share each load of a span, where several vectors share each load of weights.
pub(super) const BLOCKS: usize = 4;
/// Vectors that share each load of weights.
pub(super) const VECTORS: usize = 4;
/// Inputs of sixteen vectors whose bytes are written at once, by [`write_vectors`].
pub(super) const INPUTS: usize = FOUR * ROWS;
/// Non-zeros of a row in a step.
const FOUR: usize = 4;
/// Bytes from one span to the next.
const STRIDE: usize = 64;
/// Bytes of a span.
const SPAN: usize = 2 * STRIDE;

/// Places in the span, and weights; of padding both are zero.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Step {
    places: [u8; SAMPLES],
    weights: [i8; SAMPLES],
}

/// The weights of groups of `B` blocks of [`ROWS`] rows, which have their spans together: so one load of a span is for all of them.
///
/// # Invariants
/// - `first` has one number more than there are groups, does not fall, and ends with the number of spans
/// - each span begins at `STRIDE` times its number, ends by `len`, and has `B` steps
/// - places are below [`SPAN`]
#[derive(Debug, Clone)]
pub(super) struct Spans<const B: usize> {
    len: usize,
    first: Vec<u32>,
    spans: Vec<u32>,
    steps: Vec<Step>,
}

impl<const B: usize> Spans<B> {
    /// Packs rows, each with the places of its non-zeros in a vector of `len` bytes, in ascending order, and their weights. `None` where there would be more than
    /// `most` bytes of steps.
    pub fn pack(rows: &[Vec<(u32, i8)>], len: usize, most: usize) -> Option<Self> {
        let len = len.next_multiple_of(STRIDE).max(SPAN);
        let last = (len - SPAN) / STRIDE;
        let mut packed = Self {
            len,
            first: vec![0],
            spans: vec![],
            steps: vec![],
        };
        for group in rows.chunks(B * ROWS) {
            let mut left: Vec<&[(u32, i8)]> = group.iter().map(|row| &row[..]).collect();
            left.resize(B * ROWS, &[]);
            // The row that is furthest behind says where the next span begins.
            let next = |left: &[&[(u32, i8)]]| {
                let places = left.iter().filter_map(|row| row.first());
                places.map(|(place, _)| *place).min()
            };
            while let Some(place) = next(&left) {
                let span = (place as usize / STRIDE).min(last);
                packed.spans.push(number(span));
                let blocks = left.chunks_mut(ROWS);
                (packed.steps).extend(blocks.map(|rows| Step::take(rows, span * STRIDE)));
                if size_of_val(&packed.steps[..]) > most {
                    return None;
                }
            }
            packed.first.push(number(packed.spans.len()));
        }
        Some(packed)
    }

    /// Bytes of a vector: those of whole spans.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let numbers = size_of_val(&self.first[..]) + size_of_val(&self.spans[..]);
        numbers + size_of_val(&self.steps[..])
    }

    /// Weights of all steps, with those that pad them.
    pub fn weights(&self) -> usize {
        self.steps.len() * SAMPLES
    }

    /// Sums of the rows of a group, which begin with `starts`, for each of `T` vectors.
    ///
    /// # Safety
    /// `starts` is readable for the rows of a group, [`ROWS`] is `L::N`, each vector is readable for [`Spans::len`] bytes, [`super::Dot::looks_up`] holds, and the instruction set of `L` is enabled
    /// where this is inlined.
    ///
    /// # Panics
    /// When there is no such group.
    #[inline(always)]
    pub unsafe fn sums<L: Lanes, const T: usize>(
        &self,
        group: usize,
        starts: *const i32,
        vectors: [*const u8; T],
    ) -> [[L::Ints; T]; B] {
        debug_assert_eq!(L::N, ROWS);
        // SAFETY: no memory is accessed; the instruction set is enabled (contract of this function).
        let mut sums = [[unsafe { L::splat(0) }; T]; B];
        for b in 0..B {
            // SAFETY: starts of the group; the instruction set is enabled (contract of this function).
            sums[b] = [unsafe { L::load(starts.add(b * ROWS)) }; T];
        }
        let [first, end] = [self.first[group], self.first[group + 1]].map(|span| span as usize);
        let steps = self.steps[first * B..end * B].as_chunks::<B>().0;
        for (steps, &span) in steps.iter().zip(&self.spans[first..end]) {
            let start = span as usize * STRIDE;
            for t in 0..T {
                for b in 0..B {
                    let Step { places, weights } = &steps[b];
                    // SAFETY: spans end by `len`, and places are below `SPAN` (invariants); the rest by the contract of this function.
                    sums[b][t] = unsafe {
                        L::add_looked_up(sums[b][t], vectors[t].add(start), places, weights)
                    };
                }
            }
        }
        sums
    }
}

/// Writes the bytes of [`INPUTS`] inputs of sixteen vectors: `fours[i]` has of each vector the bytes of inputs `4 i` to `4 i + 3`, and `to` is where the first vector has the first of them.
///
/// # Safety
/// [`ROWS`] is `L::N`, `to` is writable for [`INPUTS`] bytes of each of sixteen vectors, `len` bytes apart, and the instruction set of `L` is enabled where this is
/// inlined.
#[inline(always)]
pub(super) unsafe fn write_vectors<L: Lanes>(
    fours: &[[u8; SAMPLES]; ROWS],
    to: *mut u8,
    len: usize,
) {
    debug_assert_eq!(L::N, ROWS);
    // SAFETY: sixteen times sixteen groups of four bytes; the rest by the contract of this function.
    unsafe { L::transpose(fours.as_ptr().cast(), to.cast(), len / FOUR) }
}

impl Step {
    /// Takes the next non-zeros of each row which are in the span that begins at `start`.
    fn take(left: &mut [&[(u32, i8)]], start: usize) -> Self {
        let mut step = Self {
            places: [0; SAMPLES],
            weights: [0; SAMPLES],
        };
        for (row, left) in left.iter_mut().enumerate() {
            let there = left.iter().take(FOUR);
            let count = there
                .take_while(|(place, _)| (*place as usize) < start + SPAN)
                .count();
            let (taken, later) = left.split_at(count);
            for (i, &(place, weight)) in taken.iter().enumerate() {
                step.places[FOUR * row + i] = (place as usize - start) as u8;
                step.weights[FOUR * row + i] = weight;
            }
            *left = later;
        }
        step
    }
}

fn number(of: usize) -> u32 {
    u32::try_from(of).expect("fewer than 2^32 spans")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::int8::lanes::Scalar;

    type Rows = Vec<Vec<(u32, i8)>>;

    /// Non-zeros where `there` says.
    fn rows(rows: u32, len: u32, there: impl Fn(u32, u32) -> bool) -> Rows {
        let row = |row: u32| {
            let places = (0..len).filter(|&place| there(row, place));
            let weights = places.map(|place| (place, ((7 * row + place) % 127) as i8 + 1));
            weights.collect()
        };
        (0..rows).map(row).collect()
    }

    fn check<const B: usize, const T: usize>(rows: &Rows, len: usize) {
        let spans = Spans::<B>::pack(rows, len, usize::MAX).expect("any number of bytes");
        assert!(spans.len() >= len.max(SPAN) && spans.len().is_multiple_of(STRIDE));
        let ends = spans.spans.iter().map(|&s| s as usize * STRIDE + SPAN);
        assert!(ends.max().is_none_or(|end| end <= spans.len()));
        let nonzeros: usize = rows.iter().map(Vec::len).sum();
        let weights = spans.steps.iter().flat_map(|step| step.weights);
        assert_eq!(weights.filter(|w| *w != 0).count(), nonzeros);
        let byte = |t: usize, i: usize| ((31 * i + 101 * t) % 256) as u8;
        let vectors: Vec<Vec<u8>> = (0..T)
            .map(|t| (0..spans.len()).map(|i| byte(t, i)).collect())
            .collect();
        let groups = rows.len().div_ceil(B * ROWS);
        let starts: Vec<i32> = (0..).take(groups * B * ROWS).collect();
        for group in 0..groups {
            let pointers = std::array::from_fn(|t| vectors[t].as_ptr());
            let starts = &starts[group * B * ROWS..];
            // SAFETY: plain Rust, vectors of the length, and starts of the group.
            let sums = unsafe { spans.sums::<Scalar, T>(group, starts.as_ptr(), pointers) };
            for (b, t, i) in (0..B * T * ROWS).map(|k| (k / ROWS / T, k / ROWS % T, k % ROWS)) {
                let row = (group * B + b) * ROWS + i;
                let weights = rows.get(row).map_or(&[][..], |row| row);
                let products = (weights.iter())
                    .map(|&(p, w)| i32::from(w) * i32::from(vectors[t][p as usize]));
                assert_eq!(sums[b][t][i], starts[b * ROWS + i] + products.sum::<i32>());
            }
        }
    }

    #[test]
    fn sums_are_those_of_plain_loops() {
        for (count, len) in [
            (0, 0),
            (1, 1),
            (16, 64),
            (17, 65),
            (64, 127),
            (70, 400),
            (3, 1000),
        ] {
            let all = [
                rows(count, len, |row, place| (13 * row + 7 * place) % 5 == 0),
                rows(count, len, |row, place| place / 50 == row % 7),
                rows(count, len, |row, place| row % 3 == 0 && place + 1 == len),
                rows(count, len, |_, _| true),
                rows(count, len, |_, _| false),
            ];
            for rows in &all {
                check::<1, 1>(rows, len as usize);
                check::<4, 4>(rows, len as usize);
            }
        }
    }

    #[test]
    fn more_bytes_than_are_wanted_are_not_packed() {
        let rows = rows(16, 256, |row, place| (row + place) % 4 == 0);
        let bytes = size_of::<Step>() * 16;
        assert!(Spans::<1>::pack(&rows, 256, bytes).is_some());
        assert!(Spans::<1>::pack(&rows, 256, bytes - 1).is_none());
    }
}
