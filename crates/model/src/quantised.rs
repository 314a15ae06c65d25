//! Weights on a grid: every element is an integer times the scale of its tensor.
//!
//! A tensor is on the grid of a scale when each element is `q * scale` for an integer `|q| <= 32,767`, the product
//! being one IEEE multiplication of two `f32`. Elements stay `f32` in memory; [`crate::Network::scales`] holds the
//! scales, and [`grid`] gets the integers back.

use std::collections::HashSet;

use crate::{MOST_LEVEL, ModelError};

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
        level(v, scale).ok_or_else(|| ModelError::OffGrid {
            tensor: String::new(),
            scale,
            got: v,
            index,
        })
    };
    values.iter().enumerate().map(level).collect()
}

/// The largest scale on whose grid all values are, or `None` where they are on none. Zeros alone are on the grid of 1.
///
/// The smallest magnitude is `k * scale` for some integer `k`, and at most one scale of [`STEP_BITS`] bits gives it for each `k`, so every
/// grid is tried, the coarsest first. Time is bounded by the [`MAX_LEVEL`] magnitudes that a grid has, for each of as many scales; values off any grid
/// fail at their first few magnitudes.
pub fn find_scale(values: &[f32]) -> Option<f32> {
    let mut distinct = HashSet::new();
    for value in values.iter().filter(|v| **v != 0.0) {
        // A grid has no other magnitudes, and NaN and infinity are on none.
        if distinct.insert(value.abs().to_bits())
            && (!value.is_finite() || distinct.len() > MAX_LEVEL as usize)
        {
            return None;
        }
    }
    let mut magnitudes: Vec<f32> = distinct.into_iter().map(f32::from_bits).collect();
    magnitudes.sort_unstable_by(f32::total_cmp);
    let (Some(&smallest), Some(&largest)) = (magnitudes.first(), magnitudes.last()) else {
        return Some(1.0);
    };
    // One more for what rounding the quotient may cost.
    let most = f64::from(MAX_LEVEL) * f64::from(smallest) / f64::from(largest) + 1.0;
    (1..=(most as i32).min(MAX_LEVEL)).find_map(|k| {
        let scale = nearest_scale((f64::from(smallest) / f64::from(k)) as f32, STEP_BITS)?;
        let on_grid =
            value(k, scale) == smallest && magnitudes.iter().all(|m| level(*m, scale).is_some());
        on_grid.then_some(scale)
    })
}

/// Bits of the integers of a table whose rows have scales of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowBits {
    /// From -7 to 7.
    Four,
    /// From -127 to 127.
    Eight,
}

impl RowBits {
    /// All of them, the fewest first.
    pub const ALL: [Self; 2] = [Self::Four, Self::Eight];

    /// How many they are.
    pub fn count(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The largest integer.
    pub fn most_level(self) -> i32 {
        match self {
            Self::Four => 7,
            Self::Eight => MOST_LEVEL,
        }
    }

    /// Shares of the largest magnitude of a row that may become the largest integer in its place; what is larger is clipped. Of 255 integers clipping gains
    /// nothing.
    fn clipped_shares(self) -> &'static [f32] {
        match self {
            Self::Four => &[0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5],
            Self::Eight => &[],
        }
    }
}

/// Rounds each row of `width` finite values to integers of so many bits times a scale of its own. The largest magnitude of a row becomes the largest integer;
/// with four bits a share of it may, where that changes the row less: its larger elements are then clipped.
///
/// # Errors
/// A row whose scale would be above any. A row below any scale becomes zero.
pub fn round_rows(values: &mut [f32], width: usize, bits: RowBits) -> Result<(), ModelError> {
    let most = bits.most_level() as f32;
    let rounded = |v: f32, scale: f32| value((v / scale).round().clamp(-most, most) as i32, scale);
    for of_row in values.chunks_mut(width.max(1)) {
        let target = largest(of_row) / most;
        let Some(whole) = nearest_scale(target, STEP_BITS) else {
            if target < 1.0 {
                of_row.fill(0.0);
                continue;
            }
            return Err(ModelError::Step {
                tensor: String::new(),
                got: target,
            });
        };
        let shares = bits.clipped_shares().iter();
        let clipped = shares.filter_map(|share| nearest_scale(share * target, STEP_BITS));
        let change = |scale: f32| -> f64 {
            let differences = of_row.iter().map(|v| f64::from(v - rounded(*v, scale)));
            differences.map(|d| d * d).sum()
        };
        let mut best = (whole, change(whole));
        for scale in clipped {
            let change = change(scale);
            if change < best.1 {
                best = (scale, change);
            }
        }
        of_row.iter_mut().for_each(|v| *v = rounded(*v, best.0));
    }
    Ok(())
}

/// Rows of integers with a scale for each; what they stand for are their products.
#[derive(Debug, Clone, PartialEq)]
pub struct RowLevels {
    /// Bits of the integers.
    pub bits: RowBits,
    /// The integers in C order, `[rows * width]`, each within [`RowBits::most_level`] of zero.
    pub levels: Vec<i8>,
    /// The scale of each row, `[rows]`.
    pub scales: Vec<f32>,
}

/// The integers of values whose rows of `width` elements are as [`round_rows`] leaves them, in the fewest bits that hold every row. `None` where a row is not so, and where
/// `width` is 0. Negative zero counts as zero.
pub fn row_levels(values: &[f32], width: usize) -> Option<RowLevels> {
    RowBits::ALL
        .into_iter()
        .find_map(|bits| levels_of_bits(values, width, bits))
}

fn levels_of_bits(values: &[f32], width: usize, bits: RowBits) -> Option<RowLevels> {
    if width == 0 {
        return None;
    }
    let mut levels = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / width);
    for row in values.chunks(width) {
        let scale = match largest(row) {
            0.0 => 1.0,
            largest => largest / bits.most_level() as f32,
        };
        if !is_scale(scale) {
            return None;
        }
        for v in row {
            levels.push(i8::try_from(level(*v, scale)?).ok()?);
        }
        scales.push(scale);
    }
    Some(RowLevels {
        bits,
        levels,
        scales,
    })
}

/// Packs integers from -8 to 7 in rows of `width` into bytes, two to a byte in two's complement, the first in the low half: `width.div_ceil(2)` bytes for each
/// row. Where the width is odd, the high half of a row's last byte is zero.
pub fn pack_int4(levels: &[i8], width: usize) -> Vec<u8> {
    let half = |q: &i8| q.cast_unsigned() & 15;
    let byte = |pair: &[i8]| half(&pair[0]) | pair.get(1).map_or(0, half) << 4;
    let rows = levels.chunks(width.max(1));
    rows.flat_map(|row| row.chunks(2).map(byte)).collect()
}

/// The two integers of a byte of [`pack_int4`].
pub fn unpack_int4(byte: u8) -> [i8; 2] {
    let byte = byte.cast_signed();
    [byte << 4 >> 4, byte >> 4]
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| v.abs().max(most))
}

/// The integer that a value is on the grid of `scale`.
fn level(v: f32, scale: f32) -> Option<i32> {
    // The quotient is within 1/128 of the integer that the value was made from; casts saturate.
    let q = (v / scale).round() as i32;
    let fits = q.checked_abs().is_some_and(|m| m <= MAX_LEVEL);
    (fits && value(q, scale) == v).then_some(q)
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

    /// Numbers from a seed, for scales and levels.
    fn stream(mut state: u64) -> impl FnMut() -> u32 {
        move || {
            state = state
                .wrapping_mul(0x5851_F42D_4C95_7F2D)
                .wrapping_add(0x1405_7B7E_F767_814F);
            (state >> 33) as u32
        }
    }

    #[test]
    fn a_scale_is_found_for_values_of_any_grid() {
        let mut next = stream(5);
        for round in 0..400 {
            let target =
                (0.5 + next() as f32 / (1_u64 << 31) as f32) * 2_f32.powi(next() as i32 % 40 - 20);
            let scale = nearest_scale(target, 1 + next() % STEP_BITS).unwrap();
            let most = 1 + next() % MAX_LEVEL as u32;
            let level = |n: u32| (n % (2 * most + 1)) as i32 - most as i32;
            let levels: Vec<i32> = (0..1 + next() % 200).map(|_| level(next())).collect();
            let values: Vec<f32> = levels.iter().map(|&q| value(q, scale)).collect();
            let found =
                find_scale(&values).unwrap_or_else(|| panic!("{round}: {scale} {levels:?}"));
            let back = grid(&values, found).unwrap();
            assert!(
                values
                    .iter()
                    .zip(&back)
                    .all(|(v, q)| value(*q, found) == *v),
                "{round}"
            );
            let any = levels.iter().any(|q| *q != 0);
            assert!(
                !any || found >= scale,
                "{round}: {found} is finer than {scale}"
            );
        }
        // The largest: of even levels that of twice the scale.
        assert_eq!(
            find_scale(&[6.0 * 0.3125, -0.0, -8.0 * 0.3125]),
            Some(0.625)
        );
        for zeros in [&[][..], &[0.0, -0.0]] {
            assert_eq!(find_scale(zeros), Some(1.0));
        }
    }

    #[test]
    fn rows_that_were_rounded_are_found_again() {
        let mut next = stream(3);
        let (rows, width) = (300, 17);
        let magnitude = |row: usize| 2_f32.powi(row as i32 % 60 - 30);
        let mut values: Vec<f32> = (0..rows * width)
            .map(|i| (next() as f32 / (1_u64 << 30) as f32 - 1.0) * magnitude(i / width))
            .collect();
        // A row of zeros.
        values[..width].fill(0.0);
        assert_eq!(row_levels(&values, width), None);
        let before = values.clone();
        round_rows(&mut values, width, RowBits::Eight).unwrap();
        let RowLevels {
            bits,
            levels,
            scales,
        } = row_levels(&values, width).unwrap();
        assert_eq!(bits, RowBits::Eight);
        assert_eq!((scales.len(), levels.len()), (rows, rows * width));
        for (row, scale) in scales.iter().enumerate().skip(1) {
            let of_row = row * width..(row + 1) * width;
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.51 * scale;
            assert!(
                before[of_row.clone()]
                    .iter()
                    .zip(&values[of_row.clone()])
                    .all(near)
            );
            let of_grid = grid(&values[of_row.clone()], *scale).unwrap();
            assert!(
                of_grid
                    .iter()
                    .zip(&levels[of_row])
                    .all(|(a, b)| *a == i32::from(*b))
            );
            assert_eq!(of_grid.iter().map(|q| q.abs()).max(), Some(127), "{row}");
        }
        let twice = values.clone();
        round_rows(&mut values, width, RowBits::Eight).unwrap();
        assert_eq!(values, twice);
        values[40] *= 1.01;
        assert_eq!(row_levels(&values, width), None);
        for bad in [f32::NAN, f32::INFINITY, 1e-30] {
            assert_eq!(row_levels(&[1.0, bad], 2), None, "{bad}");
        }
        assert_eq!(row_levels(&[], 0), None);
        // What is below any scale is zero, and what is above is said.
        let mut small = [1.0, 0.5, 1e-18, -1e-30];
        round_rows(&mut small, 2, RowBits::Eight).unwrap();
        assert!((small[0] - 1.0).abs() < 1e-4);
        assert_eq!(small[2..], [0.0, 0.0]);
        assert_eq!(row_levels(&small, 2).unwrap().levels, [127, 64, 0, 0]);
        for bits in RowBits::ALL {
            assert!(round_rows(&mut [1e30, 1.0], 2, bits).is_err());
        }
        // Clipping makes no scale of a row that has none.
        assert!(round_rows(&mut [2e20, 1.0], 2, RowBits::Four).is_err());
    }

    #[test]
    fn rows_of_four_bits_are_clipped_where_that_changes_them_least() {
        let mut next = stream(7);
        // Sums of uniform numbers: few are large.
        let mut values: Vec<f32> = (0..40 * 33)
            .map(|_| {
                (0..6)
                    .map(|_| next() as f32 / (1_u64 << 31) as f32 - 0.5)
                    .sum()
            })
            .collect();
        values[..33].fill(0.0);
        let before = values.clone();
        round_rows(&mut values, 33, RowBits::Four).unwrap();
        let found = row_levels(&values, 33).unwrap();
        assert_eq!(found.bits, RowBits::Four);
        let change = |of_row: &[f32], rounded: &dyn Fn(f32) -> f32| -> f64 {
            let squares = of_row.iter().map(|v| f64::from(v - rounded(*v)).powi(2));
            squares.sum()
        };
        let mut clipped = 0;
        for (row, scale) in found.scales.iter().enumerate().skip(1) {
            let of_row = row * 33..(row + 1) * 33;
            let levels = &found.levels[of_row.clone()];
            assert_eq!(levels.iter().map(|q| q.abs()).max(), Some(7), "{row}");
            let to = |scale: f32| move |v: f32| (v / scale).round().clamp(-7.0, 7.0) * scale;
            let plain = largest(&before[of_row.clone()]) / 7.0;
            let (chosen, whole) = (
                change(&before[of_row.clone()], &to(*scale)),
                change(&before[of_row], &to(plain)),
            );
            // A scale of 16 bits is as good as the plain one but for rounding.
            assert!(chosen <= 1.001 * whole, "{row}: {chosen} {whole}");
            clipped += usize::from(chosen < 0.9 * whole);
        }
        assert!(clipped > 10, "{clipped}");
        let twice = values.clone();
        round_rows(&mut values, 33, RowBits::Four).unwrap();
        assert_eq!(values, twice);
    }

    #[test]
    fn two_integers_of_four_bits_are_a_byte() {
        assert_eq!(
            pack_int4(&[1, -1, 7, -7, 0, 3], 3),
            [0xf1, 0x07, 0x09, 0x03]
        );
        for [low, high] in [[-7, 7], [0, -1], [3, 0], [-8, -8]] {
            let byte = pack_int4(&[low, high], 2)[0];
            assert_eq!(unpack_int4(byte), [low, high]);
        }
        assert!(pack_int4(&[], 0).is_empty());
    }

    #[test]
    fn no_scale_is_found_for_values_off_any_grid() {
        let mut next = stream(9);
        for round in 0..50 {
            let values: Vec<f32> = (0..64).map(|_| next() as f32 / 3.0e8 - 3.5).collect();
            assert_eq!(find_scale(&values), None, "{round}");
            // One value that is off the grid of the others.
            let mut values: Vec<f32> = (1..200).map(|q| value(q, 0.3125)).collect();
            values[round] = f32::from_bits(values[round].to_bits() + 1);
            assert_eq!(find_scale(&values), None, "{round}");
        }
        for bad in [
            f32::NAN,
            f32::INFINITY,
            -f32::INFINITY,
            f32::MIN_POSITIVE,
            1e-45,
        ] {
            assert_eq!(find_scale(&[1.0, bad]), None, "{bad}");
        }
        // More magnitudes than a grid has, and a range that is wider.
        let many: Vec<f32> = (1..=MAX_LEVEL + 1).map(|q| q as f32).collect();
        assert_eq!(find_scale(&many[..MAX_LEVEL as usize]), Some(1.0));
        assert_eq!(find_scale(&many), None);
        assert_eq!(find_scale(&[1.0, 65_537.0]), None);
    }
}
