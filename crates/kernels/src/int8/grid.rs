//! The numbers that bytes stand for.

use sparsevd_model::Int8Grid;

use crate::Clamp;

/// The numbers that the bytes of a value stand for, as [`Int8Grid`]: `b` is `(b - zero_point) * scale`. Layouts have it, so it can be compared.
///
/// Sums with such numbers have the same bits on every instruction set only where `byte * scale` is exact: scales of networks have at most 16 significant bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    scale_bits: u32,
    zero_point: u8,
}

impl Grid {
    /// The distance of two neighbouring numbers.
    pub fn scale(self) -> f32 {
        f32::from_bits(self.scale_bits)
    }

    /// The byte of zero.
    pub fn zero_point(self) -> u8 {
        self.zero_point
    }

    /// The bytes of the bounds of a clamp: as rounding keeps the order of numbers, bytes clamped to these are those of clamped numbers, unless they are NaN.
    pub(super) fn bounds(self, clamp: Clamp) -> [u8; 2] {
        let grid = Int8Grid {
            scale: self.scale(),
            zero_point: self.zero_point,
        };
        let bounds = clamp.bounds();
        [bounds.min, bounds.max].map(|v| grid.byte(v))
    }
}

impl From<Int8Grid> for Grid {
    fn from(Int8Grid { scale, zero_point }: Int8Grid) -> Self {
        Self {
            scale_bits: scale.to_bits(),
            zero_point,
        }
    }
}
