//! A checksum over decisions.

use super::crc::Crc;
use super::error::PackedError;
use super::range::{Coder, Decoder};

/// A coder with a CRC over the decisions, eight to a byte: a reader checks that it made the same decisions as the writer.
pub(super) struct Checked<C> {
    inner: C,
    crc: Crc,
    /// A one, then the decisions since the last whole byte.
    byte: u32,
}

impl<C: Coder> Checked<C> {
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            crc: Crc::new(),
            byte: 1,
        }
    }

    /// The CRC-32; the last decisions, fewer than eight, count as a byte with a one in front of them.
    pub fn crc(&self) -> u32 {
        let mut crc = self.crc.clone();
        crc.push(self.byte as u8);
        crc.value()
    }

    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl Checked<Decoder<'_>> {
    /// Checks that the stream ends here, and its checksum.
    pub fn check(&self, expected: u32) -> Result<(), PackedError> {
        self.check_end()?;
        compare(expected, self.crc())
    }

    /// The same for the low half of the checksum.
    pub fn check_low(&self, expected: u16) -> Result<(), PackedError> {
        self.check_end()?;
        compare(u32::from(expected), u32::from(self.crc() as u16))
    }

    fn check_end(&self) -> Result<(), PackedError> {
        let end = |got: String| {
            Err(PackedError::part(
                "stream",
                "its end right after the last number",
                got,
            ))
        };
        if self.inner.exhausted() {
            return end("an end before that".into());
        }
        if self.inner.left() > 0 {
            return end(format!("{} bytes more", self.inner.left()));
        }
        Ok(())
    }
}

fn compare(expected: u32, got: u32) -> Result<(), PackedError> {
    if got == expected {
        return Ok(());
    }
    let what = "checksum of the decoded data";
    Err(PackedError::part(
        what,
        format!("{expected:#010x}"),
        format!("{got:#010x}"),
    ))
}

impl<C: Coder> Coder for Checked<C> {
    const READS: bool = C::READS;

    fn bit(&mut self, bit: bool, p: u32) -> bool {
        let bit = self.inner.bit(bit, p);
        self.byte = self.byte << 1 | u32::from(bit);
        if self.byte >= 256 {
            self.crc.push(self.byte as u8);
            self.byte = 1;
        }
        bit
    }

    fn exhausted(&self) -> bool {
        self.inner.exhausted()
    }
}
