//! An asymmetric numeral system with static frequencies: 64-bit states, words of 32 bits.

/// Bits of a probability.
pub(super) const BITS: u32 = 15;

/// All probabilities together.
pub(super) const TOTAL: u32 = 1 << BITS;

/// States are from here to below 2^32 times here; a stream begins here, and ends here for a reader.
const LEAST: u64 = 1 << 31;

/// Frequencies of the symbols 0, 1, ... (256 at most), each at least one, that add up to [`TOTAL`].
#[derive(Debug, Clone)]
pub(super) struct Table {
    starts: Vec<u32>,
    /// The symbol of each part of the range.
    symbols: Vec<u8>,
}

impl Table {
    /// Frequencies in proportion to `weights`, of which there are 1 to 256 and whose sum is below 2^40. The highest
    /// takes what rounding leaves.
    pub fn new(weights: &[u64]) -> Self {
        let sum = weights.iter().sum::<u64>().max(1);
        let free = u64::from(TOTAL) - weights.len() as u64;
        let mut frequencies: Vec<u32> = weights
            .iter()
            .map(|w| 1 + (w * free / sum) as u32)
            .collect();
        let left = TOTAL - frequencies.iter().sum::<u32>();
        let highest = (0..weights.len()).max_by_key(|&i| (weights[i], std::cmp::Reverse(i)));
        if let Some(highest) = highest {
            frequencies[highest] += left;
        }
        let mut starts = vec![0];
        let mut symbols = Vec::with_capacity(TOTAL as usize);
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            symbols.resize(symbols.len() + frequency as usize, symbol as u8);
            starts.push(symbols.len() as u32);
        }
        Self { starts, symbols }
    }

    /// Bits that symbols of these counts take.
    pub fn cost(&self, counts: &[u64]) -> f64 {
        let bits = |(symbol, &n): (usize, &u64)| {
            let frequency = self.range(symbol as u8).1;
            n as f64 * (f64::from(BITS) - f64::from(frequency).log2())
        };
        counts
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(bits)
            .sum()
    }

    fn range(&self, symbol: u8) -> (u32, u32) {
        let (start, end) = (
            self.starts[usize::from(symbol)],
            self.starts[usize::from(symbol) + 1],
        );
        (start, end - start)
    }
}

/// A writer; symbols are pushed in the opposite order of reading.
pub(super) struct Encoder {
    state: u64,
    words: Vec<u32>,
}

impl Encoder {
    pub fn new() -> Self {
        Self {
            state: LEAST,
            words: Vec::new(),
        }
    }

    fn push(&mut self, start: u32, frequency: u32) {
        let frequency = u64::from(frequency);
        if self.state >= ((LEAST >> BITS) << 32) * frequency {
            self.words.push(self.state as u32);
            self.state >>= 32;
        }
        self.state = ((self.state / frequency) << BITS) + self.state % frequency + u64::from(start);
    }

    pub fn symbol(&mut self, table: &Table, symbol: u8) {
        let (start, frequency) = table.range(symbol);
        self.push(start, frequency);
    }

    /// Eight bits of equal probability.
    pub fn byte(&mut self, byte: u8) {
        self.push(u32::from(byte) << (BITS - 8), 1 << (BITS - 8));
    }

    /// The state, then the words in the order of reading.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = self.state.to_le_bytes().to_vec();
        bytes.extend(self.words.iter().rev().flat_map(|w| w.to_le_bytes()));
        bytes
    }
}

/// A reader.
pub(super) struct Decoder<'a> {
    state: u64,
    words: std::slice::Iter<'a, [u8; 4]>,
    whole: bool,
}

impl<'a> Decoder<'a> {
    /// `None` for bytes that no writer writes.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let (state, rest) = bytes.split_first_chunk::<8>()?;
        let (words, []) = rest.as_chunks::<4>() else {
            return None;
        };
        let state = u64::from_le_bytes(*state);
        (state >= LEAST && state >> 63 == 0).then_some(Self {
            state,
            words: words.iter(),
            whole: true,
        })
    }

    fn advance(&mut self, start: u32, frequency: u32) {
        let low = self.state & u64::from(TOTAL - 1);
        self.state = u64::from(frequency) * (self.state >> BITS) + low - u64::from(start);
        if self.state < LEAST {
            let word = match self.words.next() {
                Some(word) => u32::from_le_bytes(*word),
                None => {
                    self.whole = false;
                    0
                }
            };
            self.state = self.state << 32 | u64::from(word);
        }
    }

    pub fn symbol(&mut self, table: &Table) -> u8 {
        let symbol = table.symbols[(self.state & u64::from(TOTAL - 1)) as usize];
        let (start, frequency) = table.range(symbol);
        self.advance(start, frequency);
        symbol
    }

    pub fn byte(&mut self) -> u8 {
        let byte = (self.state >> (BITS - 8) & 255) as u8;
        self.advance(u32::from(byte) << (BITS - 8), 1 << (BITS - 8));
        byte
    }

    /// Whether everything was read and nothing more.
    pub fn is_at_end(&self) -> bool {
        self.whole && self.state == LEAST && self.words.as_slice().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_testing::arbitrary::Stream;

    #[test]
    fn symbols_come_back() {
        for seed in 0..50 {
            let mut stream = Stream(seed);
            let n = 1 + (stream.bits() % 256) as usize;
            let weights: Vec<u64> = (0..n)
                .map(|_| stream.bits() >> (32 + stream.bits() % 32))
                .collect();
            let table = Table::new(&weights);
            assert_eq!(table.symbols.len(), TOTAL as usize);
            let symbols: Vec<(bool, u8)> = (0..stream.bits() % 2000)
                .map(|_| {
                    (
                        stream.bits().is_multiple_of(5),
                        (stream.bits() % n as u64) as u8,
                    )
                })
                .collect();
            let mut encoder = Encoder::new();
            for &(raw, symbol) in symbols.iter().rev() {
                if raw {
                    encoder.byte(symbol)
                } else {
                    encoder.symbol(&table, symbol)
                }
            }
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes).unwrap();
            for &(raw, symbol) in &symbols {
                assert_eq!(
                    if raw {
                        decoder.byte()
                    } else {
                        decoder.symbol(&table)
                    },
                    symbol
                );
            }
            assert!(decoder.is_at_end());
            let mut cut = Decoder::new(&bytes[..bytes.len().saturating_sub(4).max(8)]).unwrap();
            for &(raw, _) in &symbols {
                if raw {
                    cut.byte()
                } else {
                    cut.symbol(&table)
                };
            }
            assert!(bytes.len() == 8 || !cut.is_at_end());
        }
    }
}
