//! Exponential and logarithm in f32, by polynomials.
//!
//! Neither branches nor calls, so that loops over them vectorise.

/// e^x for x up to 88, within about two units in the last place; 0 below -87.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let low = x < -87.0;
    let y = exp_normal(if low { -87.0 } else { x });
    if low { 0.0 } else { y }
}

/// e^x for x from -87 to 88, where neither the argument nor the result leaves the normal numbers.
///
/// Cody-Waite reduction to |r| <= ln 2 / 2, then the Taylor polynomial of degree 7.
#[inline(always)]
fn exp_normal(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let n = t - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    let power = t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

/// e^x, of -87 below and of 88 above.
#[inline(always)]
pub(crate) fn exp_saturated(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    exp_normal(if x < 88.0 { x } else { 88.0 })
}

/// e^x of any number: infinity where it is larger than any f32, and 0 below -87.
#[inline(always)]
pub(crate) fn exp_full(x: f32) -> f32 {
    /// Above it e^x is no f32.
    const LAST: f32 = 88.722_83;
    let high = x > 87.0;
    let y = exp(if high { x - 2.0 } else { x });
    let y = if high {
        y * (std::f32::consts::E * std::f32::consts::E)
    } else {
        y
    };
    if x > LAST { f32::INFINITY } else { y }
}

/// Natural logarithm of any number: minus infinity of 0, and NaN below.
#[inline(always)]
pub(crate) fn log(x: f32) -> f32 {
    /// 2^23, which makes any subnormal number normal.
    const SCALE: f32 = 8_388_608.0;
    let small = x < f32::MIN_POSITIVE;
    let y = ln(if small { x * SCALE } else { x });
    let y = if small {
        y - 23.0 * std::f32::consts::LN_2
    } else {
        y
    };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x < 0.0 { f32::NAN } else { y };
    // Infinity and NaN are their own logarithms.
    if x < f32::INFINITY { y } else { x }
}

/// Natural logarithm of a positive normal number.
///
/// ln(2^e f) = e ln 2 + 2 artanh(s), s = (f - 1) / (f + 1), f in [2/3, 4/3].
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    const TWO_THIRDS: u32 = 0x3f2a_aaab;
    let bits = x.to_bits();
    let e = (bits.wrapping_sub(TWO_THIRDS) as i32) >> 23;
    let f = f32::from_bits(bits.wrapping_sub((e << 23) as u32));
    let s = (f - 1.0) / (f + 1.0);
    let s2 = s * s;
    let mut p = 1.0 / 11.0;
    for c in [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
        p = p * s2 + c;
    }
    e as f32 * std::f32::consts::LN_2 + (2.0 * s + 2.0 * s * s2 * p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_and_logarithm_agree_with_the_standard_library() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            for got in [exp(x), exp_saturated(x)] {
                assert!(
                    (f64::from(got) / want - 1.0).abs() < 4e-7,
                    "exp({x}) = {got}, not {want}"
                );
            }
            let y = want as f32;
            let (got, want) = (ln(y), f64::from(y).ln());
            assert!(
                (f64::from(got) - want).abs() <= 3e-7 * want.abs().max(0.3),
                "ln({y}) = {got}, not {want}"
            );
        }
        for y in [0.67f32, 0.9999, 1.0, 1.0001, 1.34, 1e-8, 3e-8] {
            let want = f64::from(y).ln();
            assert!(
                (f64::from(ln(y)) - want).abs() <= 3e-7 * want.abs().max(0.1),
                "ln({y})"
            );
        }
    }

    #[test]
    fn the_full_functions_take_any_number() {
        for i in -8700..=8872 {
            let x = i as f32 * 0.01;
            let want = f64::from(x).exp();
            let got = f64::from(exp_full(x));
            assert!((got / want - 1.0).abs() < 6e-7, "exp({x}) = {got}");
        }
        assert_eq!(exp_full(88.73), f32::INFINITY);
        assert_eq!(exp_full(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp_full(f32::NEG_INFINITY), 0.0);
        assert!(exp_full(f32::NAN).is_nan());
        for x in [1e-45_f32, 1e-40, f32::MIN_POSITIVE, 0.5, 1.0, 3.0, f32::MAX] {
            let want = f64::from(x).ln();
            let got = f64::from(log(x));
            assert!(
                (got - want).abs() <= 3e-7 * want.abs().max(0.3),
                "ln({x}) = {got}"
            );
        }
        assert_eq!([log(0.0), log(-0.0)], [f32::NEG_INFINITY; 2]);
        assert_eq!(log(f32::INFINITY), f32::INFINITY);
        assert!(log(-1e-45).is_nan() && log(-1.0).is_nan() && log(f32::NAN).is_nan());
        assert!(log(f32::NEG_INFINITY).is_nan());
    }

    #[test]
    fn the_exponential_ends_where_it_says() {
        assert_eq!([exp(-87.1), exp(f32::NEG_INFINITY)], [0.0, 0.0]);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp_saturated(-200.0), exp_saturated(-87.0));
        assert_eq!(exp_saturated(200.0), exp_saturated(88.0));
    }
}
