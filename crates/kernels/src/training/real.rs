//! Floating-point numbers that training code is generic over.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::gemm::{View, gemm};

/// `f32`, in which networks are trained, or `f64`, in which gradients are checked.
///
/// The f32 functions are branch-free polynomials that compilers vectorise, accurate to about 2 units in the last place
/// over the ranges training meets; the f64 ones are the standard library's.
pub trait Real:
    Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
{
    /// Nearest value.
    fn of(x: f64) -> Self;
    /// Exact value.
    fn to_f64(self) -> f64;
    /// e^x.
    fn exp(self) -> Self;
    /// Natural logarithm of a positive normal number.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Larger of two numbers that are not NaN.
    fn larger(self, other: Self) -> Self;
    /// Smaller of two numbers that are not NaN.
    fn smaller(self, other: Self) -> Self;

    /// `c = a b`, or `c += a b`; matrices are given as (data, row stride, column stride), `c` is row-major with rows
    /// `c_stride` apart; sizes are rows of a, columns of b, inner.
    fn gemm(
        c: &mut [Self],
        c_stride: usize,
        a: (&[Self], usize, usize),
        b: (&[Self], usize, usize),
        sizes: [usize; 3],
        accumulate: bool,
    );

    /// 1 / (1 + e^-x).
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::of(1.0) / (Self::of(1.0) + (-self).exp())
    }
}

impl Real for f32 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as Self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    /// Cody-Waite reduction to |r| <= ln 2 / 2, then the Taylor polynomial of degree 7.
    #[inline(always)]
    fn exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer held in the low bits
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        let x = self.larger(-87.0).smaller(88.0);
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
        let exponent = t.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
        p * Self::from_bits(exponent)
    }
    /// ln(2^e f) = e ln 2 + 2 artanh(s), s = (f - 1) / (f + 1), f in [2/3, 4/3].
    #[inline(always)]
    fn ln(self) -> Self {
        const TWO_THIRDS: u32 = 0x3f2a_aaab;
        let bits = self.to_bits();
        let e = (bits.wrapping_sub(TWO_THIRDS) as i32) >> 23;
        let f = Self::from_bits(bits.wrapping_sub((e << 23) as u32));
        let s = (f - 1.0) / (f + 1.0);
        let s2 = s * s;
        let mut p = 1.0 / 11.0;
        for c in [1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0] {
            p = p * s2 + c;
        }
        e as Self * std::f32::consts::LN_2 + (2.0 * s + 2.0 * s * s2 * p)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    fn gemm(
        c: &mut [Self],
        c_stride: usize,
        a: (&[Self], usize, usize),
        b: (&[Self], usize, usize),
        [m, n, k]: [usize; 3],
        accumulate: bool,
    ) {
        let a = View::new(a.0, m, k, a.1, a.2);
        let b = View::new(b.0, k, n, b.1, b.2);
        gemm(c, c_stride, a, b, accumulate);
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.min(other)
    }
    fn gemm(
        c: &mut [Self],
        c_stride: usize,
        a: (&[Self], usize, usize),
        b: (&[Self], usize, usize),
        [m, n, k]: [usize; 3],
        accumulate: bool,
    ) {
        for i in 0..m {
            for j in 0..n {
                let sum: Self = (0..k)
                    .map(|l| a.0[i * a.1 + l * a.2] * b.0[l * b.1 + j * b.2])
                    .sum();
                let c = &mut c[i * c_stride + j];
                *c = if accumulate { *c + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_functions_agree_with_the_standard_library() {
        for i in -8000..8000 {
            let x = i as f32 * 0.01;
            let (got, want) = (Real::exp(x), f64::from(x).exp());
            assert!(
                (f64::from(got) / want - 1.0).abs() < 4e-7,
                "exp({x}) = {got}, not {want}"
            );
            let y = want as f32;
            let (got, want) = (Real::ln(y), f64::from(y).ln());
            assert!(
                (f64::from(got) - want).abs() <= 3e-7 * want.abs().max(0.3),
                "ln({y}) = {got}, not {want}"
            );
        }
        for y in [0.67f32, 0.9999, 1.0, 1.0001, 1.34, 1e-8, 3e-8] {
            let want = f64::from(y).ln();
            assert!(
                (f64::from(Real::ln(y)) - want).abs() <= 3e-7 * want.abs().max(0.1),
                "ln({y})"
            );
        }
    }
}
