//! The small parts of a header (flags, numbers, texts), coded with models that learn as they go.

use super::adaptive::{Family, Look, Number, ONE};
use super::error::PackedError;
use super::logistic::UNIT;
use super::range::Coder;

fn look(contexts: usize, strength: u32) -> Look {
    Look {
        contexts,
        weight: ONE,
        strength,
    }
}

/// Longest text in bytes.
const LONGEST_TEXT: usize = 4096;

/// Contexts of flags and numbers: each has its own statistics.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Field {
    Preset,
    PresetName,
    PresetPreprocessing,
    Preprocessing,
    Inputs,
    Dimensions,
    Dimension,
    Nodes,
    Operator,
    Distance,
    DefaultWeight,
    HasBias,
    DefaultBias,
    Kernel,
    Square,
    Stride,
    NoPads,
    OnePad,
    Pad,
    NoDilation,
    Dilation,
    Groups,
    Outputs,
    Prefix,
    Rows,
    Reduced,
    Dense,
    DerivedOriginal,
    HasOriginal,
    Sorted,
    Exponent,
    Significand,
    Channels,
    ChunkNonzeros,
    Symbols,
    SymbolLength,
    Operands,
    NoBound,
    SameOriginal,
    Int8,
    NoZeroPoint,
    Count,
}

/// Models of the fields.
pub(super) struct Fields {
    flags: Family<1>,
    numbers: Number,
    /// Bits of characters after the one and the two before them.
    /// Made when there is a text: presets have none.
    characters: Option<Family<2>>,
}

impl Fields {
    pub fn new() -> Self {
        let fields = Field::Count as usize;
        Self {
            flags: Family::new([look(fields, ONE)], 0),
            numbers: Number::new(fields),
            characters: None,
        }
    }

    /// A flag that is likely to be true: `UNIT * 2` of log-odds at first.
    pub fn flag(&mut self, coder: &mut impl Coder, value: bool, field: Field) -> bool {
        self.flags.code(coder, value, 2 * UNIT, [field as usize])
    }

    pub fn number(
        &mut self,
        coder: &mut impl Coder,
        value: usize,
        field: Field,
    ) -> Result<usize, PackedError> {
        let value = u32::try_from(value).unwrap_or(u32::MAX - 1);
        (self.numbers.code(coder, value, field as usize))
            .map(|n| n as usize)
            .ok_or_else(|| PackedError::damaged("header"))
    }

    /// Four bytes as they are.
    pub fn float(coder: &mut impl Coder, value: f32) -> f32 {
        f32::from_bits(coder.raw(value.to_bits(), 32))
    }

    /// A text: how much of it `like` begins with, then its other characters, then a zero.
    pub fn text<C: Coder>(
        &mut self,
        coder: &mut C,
        text: &str,
        like: &str,
    ) -> Result<String, PackedError> {
        let (have, like) = (text.as_bytes(), like.as_bytes());
        let common = have.iter().zip(like).take_while(|(a, b)| a == b).count();
        let skipped = self.number(coder, like.len() - common, Field::Prefix)?;
        let common = like
            .len()
            .checked_sub(skipped)
            .ok_or_else(|| PackedError::damaged("name"))?;
        let characters = (self.characters).get_or_insert_with(|| {
            Family::new([look(1 << 16, ONE / 2), look(1 << 18, ONE / 2)], 0)
        });
        let mut bytes = like[..common].to_vec();
        loop {
            let next = if C::READS {
                0
            } else {
                have.get(bytes.len()).copied().unwrap_or(0)
            };
            let at = |back: usize| bytes.len().checked_sub(back).map_or(0, |i| bytes[i]);
            let (last, before) = (usize::from(at(1)), usize::from(at(2)));
            let pair = (last.wrapping_mul(31) ^ before) & 1023;
            let mut node = 1_usize;
            for i in (0..8).rev() {
                // Letters are the rule: 0b01100001 to 0b01111010.
                let base = match node {
                    1 => -3 * UNIT,
                    2 | 3 => UNIT,
                    6 => UNIT,
                    _ => 0,
                };
                let contexts = [last << 8 | node, pair << 8 | node];
                let bit = characters.code(coder, next >> i & 1 != 0, base, contexts);
                node = node << 1 | usize::from(bit);
            }
            match (node & 255) as u8 {
                0 => break,
                byte => bytes.push(byte),
            }
            if bytes.len() > LONGEST_TEXT || coder.exhausted() {
                return Err(PackedError::damaged("name"));
            }
        }
        String::from_utf8(bytes).map_err(|_| PackedError::part("name", "UTF-8", "other bytes"))
    }
}
