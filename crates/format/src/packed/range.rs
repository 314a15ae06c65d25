//! A binary range coder of 32 bits with carry (the LZMA construction), 16-bit probabilities.

/// Where a model's decisions go to, or come from.
///
/// One function then both writes and reads a part of a file: a writer passes what it has and gets it back; a reader
/// passes anything and gets what the file has.
pub(super) trait Coder {
    /// Whether decisions come from a file.
    const READS: bool;

    /// One decision; `p` of 1 to 65,535 is the probability, of 65,536, that it is true.
    fn bit(&mut self, bit: bool, p: u32) -> bool;

    /// Whether a reader has gone further past the end than a writer could have meant.
    fn exhausted(&self) -> bool {
        false
    }

    /// Bits spent so far, in 1/65,536, where that is counted.
    fn spent(&self) -> u64 {
        0
    }

    /// `count` bits of equal probability, highest first.
    fn raw(&mut self, value: u32, count: u32) -> u32 {
        (0..count).rev().fold(0, |v, i| {
            v << 1 | u32::from(self.bit(value >> i & 1 != 0, 1 << 15))
        })
    }
}

/// Writes decisions.
pub(super) struct Encoder {
    low: u64,
    range: u32,
    /// The last byte that a carry can still change, and how many 0xFF follow it.
    held: u8,
    pending: usize,
    bytes: Vec<u8>,
}

/// Bytes that a reader may take past the end; they count as zeros.
const PAST_END: usize = 4;

impl Encoder {
    pub fn new() -> Self {
        Self {
            low: 0,
            range: u32::MAX,
            held: 0,
            pending: 0,
            bytes: Vec::new(),
        }
    }

    fn shift(&mut self) {
        let carry = (self.low >> 32) as u8;
        if self.low < 0xFF00_0000 || carry != 0 {
            self.bytes.push(self.held.wrapping_add(carry));
            let between = 0xFF_u8.wrapping_add(carry);
            self.bytes.resize(self.bytes.len() + self.pending, between);
            self.pending = 0;
            self.held = (self.low >> 24) as u8;
        } else {
            self.pending += 1;
        }
        self.low = (self.low & 0x00FF_FFFF) << 8;
    }

    /// The bytes: the shortest end that decodes, without the zeros that a reader adds for itself.
    pub fn finish(mut self) -> Vec<u8> {
        // The number of the interval with the most zeros at its end.
        let (low, high) = (self.low, self.low + u64::from(self.range));
        for zeros in (0..32).rev() {
            let mask = (1_u64 << zeros) - 1;
            let v = (low + mask) & !mask;
            if v < high {
                self.low = v;
                break;
            }
        }
        for _ in 0..5 {
            self.shift();
        }
        // The first byte is `held` as it was made: zero, and no carry reaches it.
        self.bytes.remove(0);
        for _ in 0..PAST_END {
            if self.bytes.last() == Some(&0) {
                self.bytes.pop();
            }
        }
        self.bytes
    }
}

impl Coder for Encoder {
    const READS: bool = false;

    fn bit(&mut self, bit: bool, p: u32) -> bool {
        let bound = (self.range >> 16) * p;
        if bit {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.shift();
        }
        bit
    }
}

/// Reads decisions.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    range: u32,
    code: u32,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            bytes,
            at: 0,
            range: u32::MAX,
            code: 0,
        };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | decoder.next();
        }
        decoder
    }

    fn next(&mut self) -> u32 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        u32::from(byte)
    }

    /// Bytes that nothing has read.
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }
}

impl Coder for Decoder<'_> {
    const READS: bool = true;

    fn bit(&mut self, _: bool, p: u32) -> bool {
        let bound = (self.range >> 16) * p;
        let bit = self.code < bound;
        if bit {
            self.range = bound;
        } else {
            self.code -= bound;
            self.range -= bound;
        }
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.code = self.code << 8 | self.next();
        }
        bit
    }

    fn exhausted(&self) -> bool {
        self.at > self.bytes.len() + PAST_END
    }
}

/// Counts what decisions would cost, and passes them on to another coder.
pub(super) struct Meter<C> {
    inner: C,
    /// -log2 of the probabilities so far, in 1/65,536 bits.
    spent: u64,
}

impl<C: Coder> Meter<C> {
    pub fn new(inner: C) -> Self {
        Self { inner, spent: 0 }
    }

    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl<C: Coder> Coder for Meter<C> {
    const READS: bool = C::READS;

    fn bit(&mut self, bit: bool, p: u32) -> bool {
        let bit = self.inner.bit(bit, p);
        let taken = if bit { p } else { (1 << 16) - p };
        self.spent += cost(taken);
        bit
    }

    fn exhausted(&self) -> bool {
        self.inner.exhausted()
    }

    fn spent(&self) -> u64 {
        self.spent
    }
}

/// -log2(p / 65,536) in 1/65,536 bits.
fn cost(p: u32) -> u64 {
    ((16.0 - f64::from(p).log2()) * 65_536.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_testing::arbitrary::Stream;

    #[test]
    fn decisions_come_back_whatever_their_probabilities() {
        for seed in 0..40 {
            let mut stream = Stream(seed);
            let n = (stream.bits() % 3000) as usize;
            let decisions: Vec<(bool, u32)> = (0..n)
                .map(|_| {
                    let p = match stream.bits() % 4 {
                        0 => 1,
                        1 => 65_535,
                        _ => 1 + (stream.bits() % 65_535) as u32,
                    };
                    // Mostly as likely, sometimes against all odds.
                    let bit = (stream.bits() % 65_536) < u64::from(p)
                        || stream.bits().is_multiple_of(500);
                    (bit, p)
                })
                .collect();
            let mut encoder = Meter::new(Encoder::new());
            for &(bit, p) in &decisions {
                encoder.bit(bit, p);
            }
            let spent = encoder.spent;
            let bytes = encoder.inner.finish();
            let bits = spent as f64 / 65_536.0;
            assert!(
                (8 * bytes.len()) as f64 <= bits * 1.001 + 9.0,
                "{} {bits}",
                bytes.len()
            );
            let mut decoder = Decoder::new(&bytes);
            for (i, &(bit, p)) in decisions.iter().enumerate() {
                assert_eq!(decoder.bit(false, p), bit, "seed {seed}, decision {i}");
            }
            assert!(!decoder.exhausted() && decoder.left() == 0, "seed {seed}");
        }
    }
}
