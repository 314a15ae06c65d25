//! The floating-point types of training.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Range, Sub, SubAssign};

use super::direct::layout::{Begin, PixelGrid, Run};
use super::direct::{plain as direct_plain, vectors as direct_vectors};
use super::sparse::plain;
use super::sparse::taps::{LaneLayout, Plane, Taps};
use super::sparse::vectors;
use crate::Isa;
use crate::exponential::{exp_saturated, ln};
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
    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Nearest integer, ties to even.
    fn round_ties_even(self) -> Self;

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

    /// [`super::sparse_product`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    unsafe fn sparse_product(
        isa: Isa,
        taps: &Taps,
        weights: &[Self],
        begin: Begin<'_, Self>,
        from: Plane<&[Self]>,
        to: Plane<&mut [Self]>,
    );

    /// [`super::sampled_product`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    unsafe fn sampled_product(
        isa: Isa,
        taps: &Taps,
        rows: Range<usize>,
        by_output: Plane<&[Self]>,
        input: Plane<&[Self]>,
        gradients: &mut [Self],
    );

    /// [`super::to_lanes`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    unsafe fn to_lanes(isa: Isa, from: &[Self], samples: LaneLayout, to: Plane<&mut [Self]>);

    /// [`super::from_lanes`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    unsafe fn from_lanes(
        isa: Isa,
        from: Plane<&[Self]>,
        samples: LaneLayout,
        to: &mut [Self],
        add: bool,
    );

    /// [`super::direct_product`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    #[allow(clippy::too_many_arguments, reason = "both sides of a product")]
    unsafe fn direct_product(
        isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        weights: &[Self],
        to: (&mut [Self], PixelGrid),
        units: usize,
        begin: Begin<'_, Self>,
    );

    /// [`super::direct_weight_gradient`] without checks.
    ///
    /// # Safety
    /// That function does not panic at these arguments.
    #[doc(hidden)]
    unsafe fn direct_weight_gradient(
        isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        by: (&[Self], PixelGrid),
        units: usize,
        sums: &mut [Self],
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
    #[inline(always)]
    fn exp(self) -> Self {
        exp_saturated(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        ln(self)
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
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        self.round_ties_even()
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
    unsafe fn sparse_product(
        isa: Isa,
        taps: &Taps,
        weights: &[Self],
        begin: Begin<'_, Self>,
        from: Plane<&[Self]>,
        to: Plane<&mut [Self]>,
    ) {
        // SAFETY: the contract of the trait.
        unsafe { vectors::sparse_product(isa, taps, weights, begin, from, to) };
    }
    unsafe fn sampled_product(
        isa: Isa,
        taps: &Taps,
        rows: Range<usize>,
        by_output: Plane<&[Self]>,
        input: Plane<&[Self]>,
        gradients: &mut [Self],
    ) {
        // SAFETY: the contract of the trait.
        unsafe { vectors::sampled_product(isa, taps, rows, by_output, input, gradients) };
    }
    unsafe fn direct_product(
        isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        weights: &[Self],
        to: (&mut [Self], PixelGrid),
        units: usize,
        begin: Begin<'_, Self>,
    ) {
        // SAFETY: the contract of the trait.
        unsafe { direct_vectors::products(isa, size, runs, from, weights, to, units, begin) };
    }
    unsafe fn direct_weight_gradient(
        isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        by: (&[Self], PixelGrid),
        units: usize,
        sums: &mut [Self],
    ) {
        // SAFETY: the contract of the trait.
        unsafe { direct_vectors::weight_gradients(isa, size, runs, from, by, units, sums) };
    }
    unsafe fn to_lanes(isa: Isa, from: &[Self], samples: LaneLayout, to: Plane<&mut [Self]>) {
        // SAFETY: the contract of the trait.
        unsafe { vectors::to_lanes(isa, from, samples, to) };
    }
    unsafe fn from_lanes(
        isa: Isa,
        from: Plane<&[Self]>,
        samples: LaneLayout,
        to: &mut [Self],
        add: bool,
    ) {
        // SAFETY: the contract of the trait.
        unsafe { vectors::from_lanes(isa, from, samples, to, add) };
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
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        self.round_ties_even()
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
    unsafe fn sparse_product(
        _isa: Isa,
        taps: &Taps,
        weights: &[Self],
        begin: Begin<'_, Self>,
        from: Plane<&[Self]>,
        to: Plane<&mut [Self]>,
    ) {
        plain::sparse_product(taps, weights, begin, from, to);
    }
    unsafe fn sampled_product(
        _isa: Isa,
        taps: &Taps,
        rows: Range<usize>,
        by_output: Plane<&[Self]>,
        input: Plane<&[Self]>,
        gradients: &mut [Self],
    ) {
        plain::sampled_product(taps, rows, by_output, input, gradients);
    }
    unsafe fn direct_product(
        _isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        weights: &[Self],
        to: (&mut [Self], PixelGrid),
        units: usize,
        begin: Begin<'_, Self>,
    ) {
        direct_plain::products(size, runs, from, weights, to, units, begin);
    }
    unsafe fn direct_weight_gradient(
        _isa: Isa,
        size: [usize; 2],
        runs: &[Run],
        from: (&[Self], PixelGrid),
        by: (&[Self], PixelGrid),
        units: usize,
        sums: &mut [Self],
    ) {
        direct_plain::weight_gradients(size, runs, from, by, units, sums);
    }
    unsafe fn to_lanes(_isa: Isa, from: &[Self], samples: LaneLayout, to: Plane<&mut [Self]>) {
        plain::to_lanes(from, samples, to);
    }
    unsafe fn from_lanes(
        _isa: Isa,
        from: Plane<&[Self]>,
        samples: LaneLayout,
        to: &mut [Self],
        add: bool,
    ) {
        plain::from_lanes(from, samples, to, add);
    }
}
