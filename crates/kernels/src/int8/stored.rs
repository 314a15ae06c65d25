//! Weights of four inputs each, for vectors of rows.
//!
//! They are stored as they are, or, where enough are zero, as a bit for each and the others one after the other, which one instruction puts back in
//! place (AVX-512 VBMI2). So there are fewer bytes to read, which is what takes the time where each weight is used few times.

use super::dot::Dot;
use super::lanes::{Lanes, SAMPLES};

/// Weights that begin at a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([i8; SAMPLES]);

/// Vectors of weights, in parts that are read from the first one on.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    Dense(Vec<Line>),
    Bitmask(Expanding),
}

/// Weights without zeros: a bit for each in each vector, the place of the first weight of each part, and the weights.
#[derive(Debug, Clone)]
pub(super) struct Expanding {
    there: Vec<u64>,
    first: Vec<u32>,
    weights: Vec<i8>,
}

impl Stored {
    /// Weights in vectors of [`Dot::rows_at_once`] rows, each part `part` bytes long.
    pub fn new(dot: Dot, bytes: &[i8], part: usize) -> Self {
        /// Bytes that stay in the second-level cache: reading all of them is faster than expanding some.
        const CACHE: usize = 1 << 18;
        let zeros = bytes.iter().filter(|w| **w == 0).count();
        match dot.expands() && bytes.len() > CACHE && 2 * zeros > bytes.len() {
            true => Self::nonzeros(bytes, part),
            false => Self::all(bytes),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense(all) => size_of_val(&all[..]),
            Self::Bitmask(Expanding {
                there,
                first,
                weights,
            }) => size_of_val(&there[..]) + size_of_val(&first[..]) + weights.len(),
        }
    }

    /// Whether zeros are not stored.
    pub fn expands(&self) -> bool {
        matches!(self, Self::Bitmask(_))
    }

    /// Products that take as long as loading a vector of weights.
    pub fn load(&self) -> usize {
        match self {
            Self::Dense(_) => 1,
            Self::Bitmask(_) => 5,
        }
    }

    fn all(bytes: &[i8]) -> Self {
        let vector = |bytes: &[i8]| {
            let mut vector = [0; SAMPLES];
            vector[..bytes.len()].copy_from_slice(bytes);
            Line(vector)
        };
        Self::Dense(bytes.chunks(SAMPLES).map(vector).collect())
    }

    /// Vectors are those of AVX-512.
    fn nonzeros(bytes: &[i8], part: usize) -> Self {
        let (mut there, mut first, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for part in bytes.chunks_exact(part.max(1)) {
            first.push(u32::try_from(weights.len()).expect("less than 2^32 weights"));
            for vector in part.chunks_exact(SAMPLES) {
                let bits = vector.iter().enumerate().filter(|(_, w)| **w != 0);
                there.push(bits.map(|(bit, _)| 1_u64 << bit).sum());
                weights.extend(vector.iter().filter(|w| **w != 0));
            }
        }
        // Vectors are read whole.
        weights.resize(weights.len() + SAMPLES, 0);
        Self::Bitmask(Expanding {
            there,
            first,
            weights,
        })
    }
}

/// The parts of weights.
pub(super) trait Weights: Copy {
    type Cursor: Cursor;
    /// The vectors of a part; each part has `vectors` of them.
    ///
    /// # Safety
    /// There is such a part.
    unsafe fn part<L: Lanes>(self, part: usize, vectors: usize) -> Self::Cursor;
}

/// The weights of a part, vector after vector.
pub(super) trait Cursor {
    /// # Safety
    /// As many vectors follow as are read, and the instruction set of `L` is enabled where this is inlined.
    unsafe fn next<L: Lanes>(&mut self) -> L::Fours;
}

/// Weights as they are.
#[derive(Clone, Copy)]
pub(super) struct All(*const i8);

impl All {
    pub fn of(all: &[Line]) -> Self {
        Self(all.as_ptr().cast())
    }
}

impl Weights for All {
    type Cursor = Self;
    #[inline(always)]
    unsafe fn part<L: Lanes>(self, part: usize, vectors: usize) -> Self {
        // SAFETY: by the contract of the trait.
        Self(unsafe { self.0.add(part * vectors * 4 * L::N) })
    }
}

impl Cursor for All {
    #[inline(always)]
    unsafe fn next<L: Lanes>(&mut self) -> L::Fours {
        // SAFETY: by the contract of the trait.
        unsafe {
            let fours = L::load_fours(self.0);
            self.0 = self.0.add(4 * L::N);
            fours
        }
    }
}

/// Weights without zeros.
#[derive(Clone, Copy)]
pub(super) struct Nonzeros {
    there: *const u64,
    first: *const u32,
    weights: *const i8,
}

impl Nonzeros {
    pub fn of(weights: &Expanding) -> Self {
        Self {
            there: weights.there.as_ptr(),
            first: weights.first.as_ptr(),
            weights: weights.weights.as_ptr(),
        }
    }
}

/// Those of a part.
pub(super) struct NonzerosOfPart {
    there: *const u64,
    weights: *const i8,
}

impl Weights for Nonzeros {
    type Cursor = NonzerosOfPart;
    #[inline(always)]
    unsafe fn part<L: Lanes>(self, part: usize, vectors: usize) -> NonzerosOfPart {
        // SAFETY: by the contract of the trait.
        unsafe {
            NonzerosOfPart {
                there: self.there.add(part * vectors),
                weights: self.weights.add(self.first.add(part).read() as usize),
            }
        }
    }
}

impl Cursor for NonzerosOfPart {
    #[inline(always)]
    unsafe fn next<L: Lanes>(&mut self) -> L::Fours {
        // SAFETY: by the contract of the trait.
        unsafe {
            let there = self.there.read();
            let fours = L::expand_fours(there, self.weights);
            self.there = self.there.add(1);
            self.weights = self.weights.add(there.count_ones() as usize);
            fours
        }
    }
}
