//! CRC-32 as in zip and PNG.

static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 != 0 {
                0xEDB8_8320 ^ c >> 1
            } else {
                c >> 1
            };
            bit += 1;
        }
        table[i] = c;
        i += 1;
    }
    table
}

/// The state of a CRC.
#[derive(Debug, Clone)]
pub(super) struct Crc(u32);

impl Crc {
    pub fn new() -> Self {
        Self(u32::MAX)
    }

    pub fn push(&mut self, byte: u8) {
        self.0 = TABLE[(self.0 as u8 ^ byte) as usize] ^ self.0 >> 8;
    }

    pub fn value(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_standard() {
        let mut crc = super::Crc::new();
        b"123456789".iter().for_each(|b| crc.push(*b));
        assert_eq!(crc.value(), 0xCBF4_3926);
    }
}
