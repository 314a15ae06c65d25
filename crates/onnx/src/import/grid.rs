//! Grids of a file: what the integers of `QuantizeLinear` and `DequantizeLinear` stand for.

use sparsevd_model::{Int8Grid, quantised};

use super::ranges::Range;
use crate::proto::data_type;

/// The integers that a value may be quantised to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Integers {
    U8,
    I8,
    U16,
    I16,
}

impl Integers {
    /// Those of a data type of the file.
    pub fn of(kind: i32) -> Option<Self> {
        Some(match kind {
            data_type::UINT8 => Self::U8,
            data_type::INT8 => Self::I8,
            data_type::UINT16 => Self::U16,
            data_type::INT16 => Self::I16,
            _ => return None,
        })
    }

    /// The data type of the file.
    pub fn data_type(self) -> i32 {
        match self {
            Self::U8 => data_type::UINT8,
            Self::I8 => data_type::INT8,
            Self::U16 => data_type::UINT16,
            Self::I16 => data_type::INT16,
        }
    }

    /// The least and the most of them.
    pub fn ends(self) -> (i64, i64) {
        match self {
            Self::U8 => (0, 255),
            Self::I8 => (-128, 127),
            Self::U16 => (0, 65_535),
            Self::I16 => (-32_768, 32_767),
        }
    }
}

/// Integers `q` that stand for `(q - zero_point) * scale`, with the numbers of the file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub scale: f32,
    pub zero_point: i64,
    pub integers: Integers,
}

impl Grid {
    /// From the number of the least integer to that of the most.
    pub fn range(self) -> Range {
        let scale = nearest(self.scale);
        let number = |q: i64| (q - self.zero_point) as f32 * scale;
        let (least, most) = self.integers.ends();
        Range {
            least: number(least),
            most: number(most),
        }
    }

    /// The same in unsigned bytes, which int8 layers read; `None` where there are more than 256 integers.
    pub fn bytes(self) -> Option<Int8Grid> {
        let offset = match self.integers {
            Integers::U8 => 0,
            Integers::I8 => 128,
            Integers::U16 | Integers::I16 => return None,
        };
        Some(Int8Grid {
            scale: nearest(self.scale),
            zero_point: u8::try_from(self.zero_point + offset).ok()?,
        })
    }
}

/// The nearest scale that our files can hold; where there is none, the scale itself, which no int8 layer takes.
pub(super) fn nearest(scale: f32) -> f32 {
    quantised::nearest_scale(scale, quantised::STEP_BITS).unwrap_or(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_integers_become_bytes_of_the_same_numbers() {
        let grid = |integers, zero_point| Grid {
            scale: 0.25,
            zero_point,
            integers,
        };
        for (integers, zero_point, byte, least, most) in [
            (Integers::U8, 0, 0, 0.0, 63.75),
            (Integers::U8, 128, 128, -32.0, 31.75),
            (Integers::I8, 0, 128, -32.0, 31.75),
            (Integers::I8, -128, 0, 0.0, 63.75),
            (Integers::I8, 127, 255, -63.75, 0.0),
        ] {
            let grid = grid(integers, zero_point);
            assert_eq!(grid.range(), Range { least, most });
            let bytes = grid.bytes().unwrap();
            assert_eq!((bytes.scale, bytes.zero_point), (0.25, byte));
            assert_eq!((bytes.value(0), bytes.value(255)), (least, most));
        }
        assert_eq!(grid(Integers::I16, 0).bytes(), None);
        assert_eq!(grid(Integers::U16, 32_768).range().least, -8192.0);
    }

    #[test]
    fn scales_have_the_bits_that_files_hold() {
        for scale in [0.1, 0.030_288_212, 1.0 / 255.0, 3e-9] {
            let there = nearest(scale);
            assert!(quantised::is_scale(there));
            assert!((there / scale - 1.0).abs() < 0.5_f32.powi(16), "{scale}");
        }
        assert_eq!(nearest(1e-30), 1e-30);
    }
}
