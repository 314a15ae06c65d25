//! Scales of grids.

use sparsevd_model::quantised::{STEP_BITS, STEP_EXPONENTS, is_scale};

use super::error::PackedError;
use super::fields::{Field, Fields};
use super::range::Coder;

/// A scale: its binary exponent against the one before, how many bits follow, and those.
pub(super) fn code_scale<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    scale: f32,
    exponent: &mut i32,
) -> Result<f32, PackedError> {
    let bits = scale.to_bits();
    let e = (bits >> 23) as i32 - 127;
    let change = e - *exponent;
    let change = fields.number(
        coder,
        ((change << 1) ^ (change >> 31)) as u32 as usize,
        Field::Exponent,
    )?;
    let e = exponent.saturating_add((change >> 1) as i32 ^ -((change & 1) as i32));
    let fraction = bits & 0x7F_FFFF;
    let length = 23 - fraction.trailing_zeros().min(23);
    // Three bits, those of a scale of four significant bits, are the rule.
    let length = fields.number(coder, fold(length, 3), Field::Significand)? as u32;
    let length = unfold(length, 3);
    if !STEP_EXPONENTS.contains(&e) || length >= STEP_BITS {
        return Err(PackedError::damaged("scale"));
    }
    *exponent = e;
    let fraction = coder.raw(fraction >> (23 - length), length) << (23 - length);
    let scale = f32::from_bits(((e + 127) as u32) << 23 | fraction);
    if is_scale(scale) {
        Ok(scale)
    } else {
        Err(PackedError::damaged("scale"))
    }
}

/// Numbers by their distance from `around`: it, one more, one less, ...
fn fold(n: u32, around: u32) -> usize {
    if n > 2 * around {
        n as usize
    } else if n > around {
        (2 * (n - around) - 1) as usize
    } else {
        (2 * (around - n)) as usize
    }
}

fn unfold(n: u32, around: u32) -> u32 {
    if n > 2 * around {
        n
    } else if n % 2 == 1 {
        around + n.div_ceil(2)
    } else {
        around - n / 2
    }
}
