//! Decisions whose probabilities are learned as they are coded.

use super::logistic::{LIMIT, ln, squash};
use super::range::Coder;

/// One, as a count, a weight or a strength.
pub(super) const ONE: u32 = 1 << 16;

/// Decisions after which the counts of a context are halved.
const MOST: u32 = ONE << 14;

/// Counts of a context: its outcomes, and what was expected before its correction.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seen: u32,
    ones: u32,
    expected: u32,
    /// By how much the context changes the log-odds, as of when it was last computed.
    effect: i32,
    /// What `seen` is when it is computed next.
    due: u32,
}

impl Slot {
    const EMPTY: Self = Self {
        seen: 0,
        ones: 0,
        expected: 0,
        effect: 0,
        due: 0,
    };

    fn learn(&mut self, bit: bool, expected: u32, strength: u32) {
        self.seen += ONE;
        self.ones += if bit { ONE } else { 0 };
        self.expected += expected;
        if bit || self.seen >= self.due {
            if self.seen >= MOST {
                self.seen /= 2;
                self.ones /= 2;
                self.expected /= 2;
            }
            self.compute(strength);
            self.due = self.seen + (self.seen >> 5);
        }
    }

    fn compute(&mut self, strength: u32) {
        let zeros = |ones: u32| self.seen.saturating_sub(ones) + strength;
        self.effect =
            ln(self.ones + strength) - ln(self.expected + strength) - ln(zeros(self.ones))
                + ln(zeros(self.expected));
    }
}

/// One of the contexts that correct the odds of a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// How many contexts of this kind there are.
    pub contexts: usize,
    /// How much of their effect counts at first, in 1/65,536.
    pub weight: u32,
    /// How many decisions of each outcome, in 1/65,536, the expectation is worth.
    pub strength: u32,
}

/// Decisions of one kind. `N` contexts correct the odds of each, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Family<const N: usize> {
    slots: Vec<Slot>,
    first: [usize; N],
    weights: [i32; N],
    strengths: [u32; N],
    rate: i64,
}

impl<const N: usize> Family<N> {
    /// `rate` is how fast the weights are learned.
    pub fn new(looks: [Look; N], rate: i64) -> Self {
        let mut first = [0; N];
        let mut slots = 0;
        for (first, look) in first.iter_mut().zip(&looks) {
            *first = slots;
            slots += look.contexts;
        }
        Self {
            slots: vec![Slot::EMPTY; slots],
            first,
            weights: looks.map(|l| l.weight as i32),
            strengths: looks.map(|l| l.strength),
            rate,
        }
    }

    /// Lets a context begin as if it had seen 32 times `weight` decisions, of which `weight` were expected to be
    /// true, and `ratio` (in 1/16) times as many were.
    pub fn expect(&mut self, look: usize, context: usize, weight: u32, ratio: u32) {
        let slot = &mut self.slots[self.first[look] + context];
        slot.seen = 32 * weight;
        slot.expected = weight;
        slot.ones = weight / 16 * ratio;
        slot.compute(self.strengths[look]);
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
        let (mut effects, mut before) = ([0; N], [0; N]);
        for k in 0..N {
            before[k] = squash(odds);
            effects[k] = self.slots[self.first[k] + contexts[k]].effect;
            odds += (effects[k] * (self.weights[k] >> 4)) >> 12;
            odds = odds.clamp(-LIMIT, LIMIT);
        }
        let p = squash(odds);
        let bit = coder.bit(bit, p);
        let error = if bit {
            i64::from(ONE - p)
        } else {
            -i64::from(p)
        };
        for k in 0..N {
            let step = (error * i64::from(effects[k]) * self.rate) >> 16;
            self.weights[k] = (self.weights[k] + step as i32).clamp(0, 2 * ONE as i32);
            self.slots[self.first[k] + contexts[k]].learn(bit, before[k], self.strengths[k]);
        }
        bit
    }
}

/// Numbers from 0 of unknown size: the length in bits is learned, in unary, and so is the bit below the highest.
#[derive(Debug, Clone)]
pub(super) struct Number {
    lengths: Family<1>,
    seconds: Family<1>,
}

/// Bits of the longest number.
const LONGEST: usize = 32;

impl Number {
    /// `kinds` of numbers, each with statistics of its own.
    pub fn new(kinds: usize) -> Self {
        let look = Look {
            contexts: kinds * LONGEST,
            weight: ONE,
            strength: ONE,
        };
        Self {
            lengths: Family::new([look], 0),
            seconds: Family::new([look], 0),
        }
    }

    /// Codes a number below 2^32 - 1; a reader gets `None` for a number that no writer writes.
    pub fn code(&mut self, coder: &mut impl Coder, value: u32, kind: usize) -> Option<u32> {
        let plus = u64::from(value) + 1;
        let length = 63 - plus.leading_zeros() as usize;
        let mut n = 0;
        while self
            .lengths
            .code(coder, length > n, 0, [kind * LONGEST + n])
        {
            n += 1;
            if n == LONGEST {
                return None;
            }
        }
        let mut got = 1_u64;
        if let Some(rest) = n.checked_sub(1) {
            let second =
                self.seconds
                    .code(coder, plus >> rest & 1 != 0, 0, [kind * LONGEST + rest]);
            let low = coder.raw((plus & ((1 << rest) - 1)) as u32, rest as u32);
            got = (2 | u64::from(second)) << rest | u64::from(low);
        }
        u32::try_from(got - 1).ok()
    }
}
