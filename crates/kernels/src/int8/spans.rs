//! Weights of rows without zeros, for products with single vectors of bytes.
//!
//! A step multiplies at most four non-zeros of each of sixteen rows. Their inputs lie in a span of 128 bytes of the vector, from which one instruction (AVX-512
//! VBMI) takes 64 by their places. Spans begin at cache lines and overlap by half, and each row takes its non-zeros in order: a row with few in one place goes
//! ahead of the others, as far as the span reaches, so that most steps are full. Of random places in 1,024 columns at 80 % zeros an eighth of the weights of
//! steps is padding, at 90 % a fifth.

use super::lanes::{Lanes, SAMPLES};

/// Rows of a block: sums of 32 bits in a vector.
pub(super) const ROWS: usize = SAMPLES / FOUR;
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

    /// Adds the products of the blocks of a group with each of `T` vectors to `sums`.
    ///
    /// # Safety
    /// The rows of a block are those of `L`, each vector is readable for [`Spans::len`] bytes, [`super::Dot::looks_up`] holds, and the instruction set of `L` is enabled
    /// where this is inlined.
    ///
    /// # Panics
    /// When there is no such group.
    #[inline(always)]
    pub unsafe fn add<L: Lanes, const T: usize>(
        &self,
        group: usize,
        vectors: [*const u8; T],
        sums: &mut [[L::Ints; T]; B],
    ) {
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
    }
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
