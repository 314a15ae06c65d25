//! Decisions whose probabilities are learned as they are coded.

use super::logistic::{LIMIT, UNIT, ln, squash};
use super::range::Coder;

/// One, as a count or a weight.
pub(super) const ONE: i32 = 1 << 16;

/// Decisions after which the counts of a context are halved.
const MOST: u32 = (1 << 14) * ONE as u32;

/// What happened in a context, against what was expected there before the context was looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    seen: u32,
    ones: u32,
    expected: u32,
}

impl Slot {
    /// By how much the context changes the log-odds. `strength` is how many decisions of each kind, in 1/65,536,
    /// the expectation is worth.
    fn effect(&self, strength: u32) -> i32 {
        if self.seen == 0 {
            return 0;
        }
        let (seen, ones, expected) = (self.seen, self.ones, self.expected);
        ln(ones + strength) - ln(expected + strength) - ln(seen - ones + strength)
            + ln(seen - expected + strength)
    }

    fn learn(&mut self, bit: bool, expected: u32) {
        if self.seen >= MOST {
            *self = Self {
                seen: self.seen / 2,
                ones: self.ones / 2,
                expected: self.expected / 2,
            };
            self.expected = self.expected.min(self.seen);
        }
        self.seen += ONE as u32;
        self.ones += if bit { ONE as u32 } else { 0 };
        self.expected += expected;
    }
}

/// Decisions of one kind: `N` contexts each, looked at one after the other, each correcting the odds so far.
#[derive(Debug, Clone)]
pub(super) struct Family<const N: usize> {
    slots: Vec<Slot>,
    weights: [i32; N],
    strengths: [u32; N],
    rate: i32,
}

impl<const N: usize> Family<N> {
    /// `slots` contexts in all; `weights` and `strengths` (in 1/65,536) of each look; `rate` of learning the weights.
    pub fn new(slots: usize, weights: [i32; N], strengths: [u32; N], rate: i32) -> Self {
        Self {
            slots: vec![Slot::default(); slots],
            weights,
            strengths,
            rate,
        }
    }

    /// Codes one decision that, before its contexts, has log-odds `base`.
    pub fn code(
        &mut self,
        coder: &mut impl Coder,
        bit: bool,
        base: i32,
        contexts: [usize; N],
    ) -> bool {
        let mut odds = base.clamp(-LIMIT, LIMIT);
        let mut effects = [0; N];
        let mut before = [0; N];
        for k in 0..N {
            before[k] = squash(odds);
            effects[k] = self.slots[contexts[k]].effect(self.strengths[k]);
            odds = (odds + ((effects[k] * (self.weights[k] >> 4)) >> 12)).clamp(-LIMIT, LIMIT);
        }
        let p = squash(odds);
        let bit = coder.bit(bit, p);
        let error = if bit { ONE - p as i32 } else { -(p as i32) };
        for k in 0..N {
            let step = (i64::from(error) * i64::from(effects[k]) * i64::from(self.rate)) >> 16;
            self.weights[k] = (self.weights[k] + step as i32).clamp(0, 2 * ONE);
            self.slots[contexts[k]].learn(bit, before[k]);
        }
        bit
    }
}

/// Numbers from 0 of unknown size: the length in bits is learned, in unary, and so is the bit below the highest.
#[derive(Debug, Clone)]
pub(super) struct Number {
    family: Family<1>,
    base: i32,
}

/// Bits of the longest number.
const LONGEST: usize = 32;

impl Number {
    /// `contexts` kinds of numbers; `base` is the log-odds, at first, that a number is longer than it is so far.
    pub fn new(contexts: usize, base: i32) -> Self {
        Self {
            family: Family::new(contexts * 3 * LONGEST, [ONE], [ONE as u32], 0),
            base,
        }
    }

    /// Codes a number below 2^32 - 1; a reader gets `None` for a number that no writer writes.
    pub fn code(&mut self, coder: &mut impl Coder, value: u32, context: usize) -> Option<u32> {
        let first = context * 3 * LONGEST;
        let plus = u64::from(value) + 1;
        let length = 63 - plus.leading_zeros() as usize;
        let mut n = 0;
        while self.family.code(coder, length > n, self.base, [first + n]) {
            n += 1;
            if n == LONGEST {
                return None;
            }
        }
        let mut got = 1_u64;
        if n > 0 {
            let slot = first + LONGEST + n;
            let bit = self.family.code(coder, plus >> (n - 1) & 1 != 0, 0, [slot]);
            got = got << 1 | u64::from(bit);
            for i in (0..n - 1).rev() {
                got = got << 1 | u64::from(coder.bit(plus >> i & 1 != 0, 1 << 15));
            }
        }
        u32::try_from(got - 1).ok()
    }
}

/// Log-odds of one in `n + 1`, roughly: `n` doubles take 0.7 each.
pub(super) const fn odds(tenths: i32) -> i32 {
    tenths * UNIT / 10
}
