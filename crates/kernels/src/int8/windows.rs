//! Weights of rows without zeros, for products with single vectors.
//!
//! A step multiplies at most four non-zeros of each of sixteen rows. Their inputs lie in a window of 128 bytes of the vector, from which one instruction (AVX-512
//! VBMI) takes 64 by their places. Windows begin at cache lines and overlap by half, and each row takes its non-zeros in order: a row with few in one place
//! goes ahead of the others, as far as the window reaches, so that most steps are full. At 80 % zeros of random places in 1,024 columns 8 of 64 weights of a step are padding, at 90 % 14.

use super::lanes::{Lanes, SAMPLES};

/// Rows of a block: sums of 32 bits in a vector.
pub(super) const ROWS: usize = SAMPLES / FOUR;
/// Non-zeros of a row in a step.
const FOUR: usize = 4;
/// Bytes from one window to the next.
const STRIDE: usize = 64;
/// Bytes of a window.
pub(super) const WINDOW: usize = 2 * STRIDE;

/// Places in the window, and weights; of padding both are zero.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Step {
    places: [u8; SAMPLES],
    weights: [i8; SAMPLES],
}

/// The weights of blocks of [`ROWS`] rows.
///
/// # Invariants
/// - `first` has one number more than there are blocks, does not fall, and ends with the number of steps
/// - each step has a window, which begins at `STRIDE` times its number and ends by `len`
/// - places are below [`WINDOW`]
#[derive(Debug, Clone)]
pub(super) struct Windows {
    len: usize,
    first: Vec<u32>,
    windows: Vec<u32>,
    steps: Vec<Step>,
}

impl Windows {
    /// Packs rows, each with the places of its non-zeros in a vector of `len` bytes, in ascending order, and their weights. `None` where there would be more than
    /// `most` bytes of steps.
    pub fn pack(rows: &[Vec<(u32, i8)>], len: usize, most: usize) -> Option<Self> {
        let len = len.next_multiple_of(STRIDE).max(WINDOW);
        let last = (len - WINDOW) / STRIDE;
        let mut packed = Self {
            len,
            first: vec![0],
            windows: vec![],
            steps: vec![],
        };
        for block in rows.chunks(ROWS) {
            let mut left: Vec<&[(u32, i8)]> = block.iter().map(|row| &row[..]).collect();
            // The row that is furthest behind says where the next window begins.
            while let Some(place) = left.iter().filter_map(|row| row.first()).map(|w| w.0).min() {
                let window = (place as usize / STRIDE).min(last);
                packed.windows.push(number(window));
                packed.steps.push(Step::take(&mut left, window * STRIDE));
                if size_of_val(&packed.steps[..]) > most {
                    return None;
                }
            }
            packed.first.push(number(packed.steps.len()));
        }
        Some(packed)
    }

    /// Bytes of a vector: those of whole windows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let numbers = size_of_val(&self.first[..]) + size_of_val(&self.windows[..]);
        numbers + size_of_val(&self.steps[..])
    }

    /// Weights of all steps, with those that pad them.
    pub fn weights(&self) -> usize {
        self.steps.len() * SAMPLES
    }

    /// Adds the products of block `block` with each of `T` vectors to `sums`.
    ///
    /// # Safety
    /// There is such a block of [`Windows`] whose rows are those of `L`, each vector is readable for [`Windows::len`] bytes, and the instruction set of `L` is enabled where
    /// this is inlined.
    #[inline(always)]
    pub unsafe fn add<L: Lanes, const T: usize>(
        &self,
        block: usize,
        vectors: [*const u8; T],
        sums: &mut [L::Ints; T],
    ) {
        const { assert!(T > 0) }
        let [first, end] = [self.first[block], self.first[block + 1]].map(|step| step as usize);
        let steps = &self.steps[first..end];
        for (step, &window) in steps.iter().zip(&self.windows[first..end]) {
            let start = window as usize * STRIDE;
            for t in 0..T {
                // SAFETY: windows end by `len`, and places are below `WINDOW` (invariants); the rest by the contract of this function.
                sums[t] = unsafe {
                    let window = vectors[t].add(start);
                    L::add_looked_up(sums[t], window, &step.places, &step.weights)
                };
            }
        }
    }
}

impl Step {
    /// Takes the next non-zeros of each row which are in the window that begins at `start`.
    fn take(left: &mut [&[(u32, i8)]], start: usize) -> Self {
        let mut step = Self {
            places: [0; SAMPLES],
            weights: [0; SAMPLES],
        };
        for (row, left) in left.iter_mut().enumerate() {
            let there = left.iter().take(FOUR);
            let count = there
                .take_while(|(place, _)| (*place as usize) < start + WINDOW)
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
    u32::try_from(of).expect("fewer than 2^32 steps")
}
