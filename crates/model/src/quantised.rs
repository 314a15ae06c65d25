//! Weights on a grid: every element is an integer times the step of its tensor.
//!
//! A tensor is on the grid of a step when each element is `q * step` for an integer `|q| <= 32,767`, the product
//! being one IEEE multiplication of two `f32`. Elements stay `f32` in memory; [`crate::Network::steps`] holds the
//! steps, and [`grid`] gets the integers back.

use crate::ModelError;

/// Largest magnitude of an integer of the grid.
pub const MAX_LEVEL: i32 = 32_767;

/// Most significant bits that a step may have, so that files can store it briefly.
///
/// With at most 8 of them every product `q * step` is exact; with more it is rounded once, and still comes back.
pub const STEP_BITS: u32 = 16;

/// Binary exponents that a step may have: `2^-64 <= step < 2^64`.
pub const STEP_EXPONENTS: std::ops::Range<i32> = -64..64;

/// Whether a number can be the step of a grid: positive, from 2^-64 to below 2^64, of at most 16 significant bits.
pub fn is_step(step: f32) -> bool {
    let bits = step.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    STEP_EXPONENTS.contains(&exponent) && bits & ((1 << (24 - STEP_BITS)) - 1) == 0
}

/// The nearest step of at most `significant` bits (1 to 16), or `None` where there is none: the number is not
/// positive, not finite, or out of range.
///
/// Four bits place a step within 1/16 of any wish, and cost a packed file about one byte.
pub fn nearest_step(wish: f32, significant: u32) -> Option<f32> {
    let dropped = 24 - significant.clamp(1, STEP_BITS);
    let half = 1_u32 << (dropped - 1);
    let rounded = f32::from_bits((wish.to_bits().checked_add(half)? >> dropped) << dropped);
    is_step(rounded).then_some(rounded)
}

/// The value of an integer of the grid: one IEEE multiplication.
pub fn value(level: i32, step: f32) -> f32 {
    level as f32 * step
}

/// The integers of values on the grid of `step`.
///
/// # Errors
/// A step that is none (see [`is_step`]), or the first value that is not exactly an integer of magnitude at most
/// [`MAX_LEVEL`] times the step. Negative zero counts as zero.
pub fn grid(values: &[f32], step: f32) -> Result<Vec<i32>, ModelError> {
    if !is_step(step) {
        return Err(ModelError::Step {
            tensor: String::new(),
            got: step,
        });
    }
    let level = |(index, &v): (usize, &f32)| {
        // The quotient is within 1/128 of the integer that the value was made from; casts saturate.
        let q = (v / step).round() as i32;
        if q.checked_abs().is_some_and(|m| m <= MAX_LEVEL) && value(q, step) == v {
            return Ok(q);
        }
        Err(ModelError::OffGrid {
            tensor: String::new(),
            step,
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
            for wish in [0.1, 0.7e-9, 1.0 / 3.0, 7e18, 1.9999999, 3.3e-19] {
                let step = nearest_step(wish, significant).unwrap();
                assert!(
                    (step / wish - 1.0).abs() <= 0.5_f32.powi(significant as i32),
                    "{step} {wish}"
                );
                let levels: Vec<i32> = (-MAX_LEVEL..=MAX_LEVEL)
                    .step_by(97)
                    .chain([MAX_LEVEL])
                    .collect();
                let values: Vec<f32> = levels.iter().map(|&q| value(q, step)).collect();
                assert_eq!(grid(&values, step).unwrap(), levels, "step {step}");
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
            assert!(!is_step(bad), "{bad}");
            let error = grid(&[], bad).unwrap_err().for_tensor("w").to_string();
            assert!(error.contains("`w`") && error.contains("step"), "{error}");
        }
        for none in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-30] {
            assert_eq!(nearest_step(none, 4), None, "{none}");
        }
    }
}
