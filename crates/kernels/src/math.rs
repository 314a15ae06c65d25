//! Scalar formulas: the functions that activations are made of, over the exponential of [`crate::exponential`].
//!
//! None of them branches or calls, so that loops over them vectorise.
//!
//! The functions of this module are those of inference: f32, and NaN passes through each of them. Those in [`real`] are those of training:
//! generic over [`Real`], so that gradients are checked in f64, for finite arguments. Some functions stand in both, because the results of
//! each must stay the same to the last bit: tanh, for one, is exact near zero in inference and cheap in training.

use crate::exponential::{exp, ln};
use crate::training::Real;

/// `sqrt(2 / pi)`, the factor in the approximation of GELU by tanh.
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
/// The factor of the cube in the approximation of GELU by tanh.
const GELU_CUBE: f64 = 0.044_715;

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    let x = if -x > 88.0 { -88.0 } else { x };
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent, within 5e-7 of itself.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    // Near 0 the difference above loses digits; the series does not.
    let s = x * x;
    let mut p = -1382.0 / 155_925.0;
    for c in [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = p * s + c;
    }
    if x.abs() < 0.35 { x * p } else { far }
}

/// `x` where it is not negative, else `alpha (e^x - 1)`.
#[inline(always)]
pub(crate) fn elu(x: f32, alpha: f32) -> f32 {
    // e^x - 1 = 2 t / (1 - t) for t = tanh(x / 2), which keeps its digits near zero.
    let t = tanh(0.5 * x);
    let below = alpha * (2.0 * t / (1.0 - t));
    if x < 0.0 { below } else { x }
}

/// `ln(1 + e^x)`.
#[inline(always)]
pub(crate) fn softplus(x: f32) -> f32 {
    let above = if x > 0.0 { x } else { 0.0 };
    // ln(1 + u) with the digits of a small u: what rounding takes from 1 + u, the quotient gives back (Higham 2002, section 1.14.1).
    let u = exp(-x.abs());
    let w = 1.0 + u;
    let y = above + if w == 1.0 { u } else { ln(w) * u / (w - 1.0) };
    if x.is_nan() { x } else { y }
}

/// The error function, within 2e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let z = x.abs();
    (1.0 - erfc_factor(z, ERFC_SEVEN_DIGITS) * exp(-z * z)).copysign(x)
}

/// The error function, exact at 0 and with the digits of small arguments, which a series gives.
#[inline(always)]
pub(crate) fn erf_of_any(x: f32) -> f32 {
    let s = x * x;
    let mut p = 1.0 / 216.0;
    for c in [-1.0 / 42.0, 0.1, -1.0 / 3.0, 1.0] {
        p = p * s + c;
    }
    let near = std::f32::consts::FRAC_2_SQRT_PI * x * p;
    let far = erf(x);
    if x.abs() < 0.35 { near } else { far }
}

/// Coefficients of the complementary error function (Abramowitz and Stegun, 7.1.26), the highest power first.
const ERFC: [f64; 5] = [
    1.061_405_429,
    -1.453_152_027,
    1.421_413_741,
    -0.284_496_736,
    0.254_829_592,
];
/// [`ERFC`] to seven digits, which inference has always had: two of them round to other f32.
const ERFC_SEVEN_DIGITS: [f64; 5] = [
    1.061_405_4,
    -1.453_152,
    1.421_413_7,
    -0.284_496_73,
    0.254_829_6,
];

/// `erfc(z) / e^(-z^2)` for z >= 0.
#[inline(always)]
fn erfc_factor<T: Real>(z: T, coefficients: [f64; 5]) -> T {
    let t = T::of(1.0) / (T::of(1.0) + T::of(0.327_591_1) * z);
    let [first, others @ ..] = coefficients;
    let mut p = T::of(first);
    for c in others {
        p = p * t + T::of(c);
    }
    p * t
}

/// `min(max(alpha x + beta, 0), 1)`.
#[inline(always)]
pub(crate) fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    unit(alpha * x + beta)
}

/// `x min(max(x / 6 + 1/2, 0), 1)`.
#[inline(always)]
pub(crate) fn hard_swish(x: f32) -> f32 {
    x * unit(x / 6.0 + 0.5)
}

/// `min(max(x, 0), 1)`.
#[inline(always)]
#[allow(
    clippy::manual_clamp,
    reason = "these are max and min, without a branch"
)]
fn unit(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    if x > 1.0 { 1.0 } else { x }
}

/// `x (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `x (1 + tanh(u)) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, as `x / (1 + e^-2u)`, which needs no series near zero.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    let twice = 2.0 * real::gelu_tanh_argument(x);
    // The sigmoid stops there, above zero.
    if twice < -87.0 {
        0.0
    } else {
        x * sigmoid(twice)
    }
}

/// The formulas of training.
pub(crate) mod real {
    use super::{ERFC, GELU_CUBE, SQRT_2_OVER_PI, erfc_factor};
    use crate::training::Real;

    /// Hyperbolic tangent, within about 1e-7.
    #[inline(always)]
    pub fn tanh<T: Real>(x: T) -> T {
        T::of(2.0) * (T::of(2.0) * x).sigmoid() - T::of(1.0)
    }

    /// `min(max(alpha x + beta, 0), 1)`.
    #[inline(always)]
    pub fn hard_sigmoid<T: Real>(x: T, alpha: T, beta: T) -> T {
        (alpha * x + beta).larger(T::of(0.0)).smaller(T::of(1.0))
    }

    /// `min(max(x / 6 + 1/2, 0), 1)`, the factor of x in hard swish.
    #[inline(always)]
    pub fn hard_swish_gate<T: Real>(x: T) -> T {
        hard_sigmoid(x, T::of(1.0 / 6.0), T::of(0.5))
    }

    /// `sqrt(2 / pi) (x + 0.044715 x^3)`.
    #[inline(always)]
    pub fn gelu_tanh_argument<T: Real>(x: T) -> T {
        T::of(SQRT_2_OVER_PI) * (x + T::of(GELU_CUBE) * x * x * x)
    }

    /// The derivative of [`gelu_tanh_argument`].
    #[inline(always)]
    pub fn gelu_tanh_slope<T: Real>(x: T) -> T {
        T::of(SQRT_2_OVER_PI) * (T::of(1.0) + T::of(3.0 * GELU_CUBE) * x * x)
    }

    /// The distribution function of the standard normal, within 1e-7.
    #[inline(always)]
    pub fn normal_cdf<T: Real>(x: T) -> T {
        let z = x.larger(-x) * T::of(std::f64::consts::FRAC_1_SQRT_2);
        let tail = T::of(0.5) * erfc_factor(z, ERFC) * (-(z * z)).exp();
        if x > T::of(0.0) {
            T::of(1.0) - tail
        } else {
            tail
        }
    }

    /// The density of the standard normal.
    #[inline(always)]
    pub fn normal_density<T: Real>(x: T) -> T {
        T::of(0.398_942_280_401_432_7) * (-(T::of(0.5) * x * x)).exp()
    }
}
