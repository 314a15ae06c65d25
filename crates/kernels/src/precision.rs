//! How non-zeros of packed layers are stored. Products and sums are f32 in every precision.

use std::borrow::Cow;

use half::{bf16, f16};
use sparsevd_model::Csr;

/// The type in which a packed layer stores its non-zeros.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Precision {
    /// Single precision: exact.
    #[default]
    F32,
    /// The upper half of an f32, rounded to the nearest even: eight significant bits.
    Bf16,
    /// IEEE half precision, rounded to the nearest even: eleven significant bits, largest 65,504.
    F16,
    /// Integers from -127 to 127 times `scale`, rounded to the nearest; exact for values on that grid.
    I8 {
        /// The number that the integer one stands for.
        scale: f32,
    },
}

impl Precision {
    /// The name in kernels' names.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I8 { .. } => "i8",
        }
    }

    /// The number that is stored for `v`.
    pub fn rounded(self, v: f32) -> f32 {
        match self {
            Self::F32 => v,
            Self::Bf16 => Bf16::of(v).get(1.0),
            Self::F16 => F16::of(v).get(1.0),
            Self::I8 { scale } => quantize(v, scale).get(scale),
        }
    }
}

impl Precision {
    /// The matrix of rounded values. Values that round to zero are removed, because zero times an infinite input is NaN.
    pub(crate) fn of(self, weight: &Csr) -> Cow<'_, Csr> {
        if self == Self::F32 {
            return Cow::Borrowed(weight);
        }
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in 0..weight.rows() {
            let (cols, stored) = weight.row(row);
            for (&c, &v) in cols.iter().zip(stored) {
                let v = self.rounded(v);
                if v != 0.0 {
                    columns.push(c);
                    values.push(v);
                }
            }
            starts.push(values.len() as u32);
        }
        let shape = weight.shape().clone();
        let rounded = Csr::try_new(shape, starts, columns, values);
        Cow::Owned(rounded.expect("a part of a valid matrix"))
    }
}

/// The nearest integer multiple of `scale`.
pub(crate) fn quantize(v: f32, scale: f32) -> i8 {
    (v / scale).round().clamp(-127.0, 127.0) as i8
}

/// A stored non-zero.
pub(crate) trait Value: Copy {
    /// The number; integers are multiplied by `scale`.
    fn get(self, scale: f32) -> f32;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct Bf16(pub u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct F16(pub u16);

impl Bf16 {
    pub fn of(v: f32) -> Self {
        Self(bf16::from_f32(v).to_bits())
    }
}

impl F16 {
    pub fn of(v: f32) -> Self {
        Self(f16::from_f32(v).to_bits())
    }
}

impl Value for f32 {
    #[inline(always)]
    fn get(self, _scale: f32) -> f32 {
        self
    }
}

impl Value for Bf16 {
    #[inline(always)]
    fn get(self, _scale: f32) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl Value for F16 {
    #[inline(always)]
    fn get(self, _scale: f32) -> f32 {
        f16::from_bits(self.0).to_f32()
    }
}

impl Value for i8 {
    #[inline(always)]
    fn get(self, scale: f32) -> f32 {
        f32::from(self) * scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_rounded_to_their_form() {
        for v in [0.0, 1.0, -0.337, 1e-3, 65_000.0, -2.5] {
            let near = |got: f32, relative: f32| (got - v).abs() <= relative * v.abs();
            assert_eq!(Precision::F32.rounded(v), v);
            assert!(near(Precision::Bf16.rounded(v), 1.0 / 256.0), "bf16 of {v}");
            assert!(near(Precision::F16.rounded(v), 1.0 / 2048.0), "f16 of {v}");
        }
        for q in -127..=127_i8 {
            let v = f32::from(q) * 0.046875;
            let values = Precision::I8 { scale: 0.046875 };
            assert_eq!(values.rounded(v), v, "level {q}");
        }
    }
}
