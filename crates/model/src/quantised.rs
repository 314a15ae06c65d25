//! Weights on a grid: every element is an integer times the scale of its tensor.
//!
//! A tensor is on the grid of a scale when each element is `q * scale` for an integer `|q| <= 32,767`, the product
//! being one IEEE multiplication of two `f32`. Elements stay `f32` in memory; [`crate::Network::scales`] holds the
//! scales, and [`grid`] gets the integers back.

use crate::ModelError;

/// Largest magnitude of an integer of the grid.
pub const MAX_LEVEL: i32 = 32_767;

/// Most significant bits that a scale may have, so that files can store it briefly.
///
/// With at most 8 of them every product `q * scale` is exact; with more it is rounded once, and still comes back.
pub const STEP_BITS: u32 = 16;

/// Binary exponents that a scale may have: `2^-64 <= scale < 2^64`.
pub const STEP_EXPONENTS: std::ops::Range<i32> = -64..64;

/// Whether a number can be the scale of a grid: positive, from 2^-64 to below 2^64, of at most 16 significant bits.
pub fn is_scale(scale: f32) -> bool {
    let bits = scale.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    STEP_EXPONENTS.contains(&exponent) && bits & ((1 << (24 - STEP_BITS)) - 1) == 0
}

/// The nearest scale of at most `significant` bits (1 to 16), or `None` where there is none: the number is not
/// positive, not finite, or out of range.
///
/// Four bits place a scale within 1/16 of any target, and cost a packed file about one byte.
pub fn nearest_scale(target: f32, significant: u32) -> Option<f32> {
    let dropped = 24 - significant.clamp(1, STEP_BITS);
    let half = 1_u32 << (dropped - 1);
    let rounded = f32::from_bits((target.to_bits().checked_add(half)? >> dropped) << dropped);
    is_scale(rounded).then_some(rounded)
}

/// The value of an integer of the grid: one IEEE multiplication.
pub fn value(level: i32, scale: f32) -> f32 {
    level as f32 * scale
}

/// The integers of values on the grid of `scale`.
///
/// # Errors
/// A scale that is none (see [`is_scale`]), or the first value that is not exactly an integer of magnitude at most
/// [`MAX_LEVEL`] times the scale. Negative zero counts as zero.
pub fn grid(values: &[f32], scale: f32) -> Result<Vec<i32>, ModelError> {
    if !is_scale(scale) {
        return Err(ModelError::Step {
            tensor: String::new(),
            got: scale,
        });
    }
    let level = |(index, &v): (usize, &f32)| {
        // The quotient is within 1/128 of the integer that the value was made from; casts saturate.
        let q = (v / scale).round() as i32;
        if q.checked_abs().is_some_and(|m| m <= MAX_LEVEL) && value(q, scale) == v {
            return Ok(q);
        }
        Err(ModelError::OffGrid {
            tensor: String::new(),
            scale,
            got: v,
            index,
        })
    };
    values.iter().enumerate().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_every_kind_of_step_comes_back() {
        for significant in 1..=STEP_BITS {
            for target in [0.1, 0.7e-9, 1.0 / 3.0, 7e18, 1.9999999, 3.3e-19] {
                let scale = nearest_scale(target, significant).unwrap();
                assert!(
                    (scale / target - 1.0).abs() <= 0.5_f32.powi(significant as i32),
                    "{scale} {target}"
                );
                let levels: Vec<i32> = (-MAX_LEVEL..=MAX_LEVEL)
                    .step_by(97)
                    .chain([MAX_LEVEL])
                    .collect();
                let values: Vec<f32> = levels.iter().map(|&q| value(q, scale)).collect();
                assert_eq!(grid(&values, scale).unwrap(), levels, "scale {scale}");
            }
        }
    }

    #[test]
    fn what_is_off_the_grid_is_named() {
        let error = grid(&[0.5, -0.0, 0.7], 0.25)
            .unwrap_err()
            .for_tensor("w")
            .to_string();
        assert!(
            error.contains("`w`") && error.contains("0.7") && error.contains("element 2"),
            "{error}"
        );
        for bad in [f32::NAN, f32::INFINITY, 32_768.0 * 0.25] {
            assert!(grid(&[bad], 0.25).is_err(), "{bad}");
        }
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-30, 1e30, 0.1] {
            assert!(!is_scale(bad), "{bad}");
            let error = grid(&[], bad).unwrap_err().for_tensor("w").to_string();
            assert!(error.contains("`w`") && error.contains("scale"), "{error}");
        }
        for none in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-30] {
            assert_eq!(nearest_scale(none, 4), None, "{none}");
        }
    }
}
