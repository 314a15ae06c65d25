//! Small loops over activations and gradients.

use crate::isa::multiversion;
use crate::training::Real;

multiversion! {
    /// `y = max(y, 0)`.
    pub fn relu[T: Real](y: &mut [T]) = relu_body::<T>;
}

#[inline(always)]
fn relu_body<T: Real>(y: &mut [T]) {
    for y in y {
        *y = y.larger(T::of(0.0));
    }
}

multiversion! {
    /// Zeroes the gradient where the output `y` of a ReLU is not positive.
    pub fn relu_gradient[T: Real](y: &[T], gradient: &mut [T]) = relu_gradient_body::<T>;
}

#[inline(always)]
pub(super) fn relu_gradient_body<T: Real>(y: &[T], gradient: &mut [T]) {
    for (g, &y) in gradient.iter_mut().zip(y) {
        *g = if y > T::of(0.0) { *g } else { T::of(0.0) };
    }
}

multiversion! {
    /// `out = a * b`.
    pub fn multiply[T: Real](a: &[T], b: &[T], out: &mut [T]) = multiply_body::<T>;
}

#[inline(always)]
fn multiply_body<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = a * b;
    }
}

multiversion! {
    /// `out += 2 x d`: the gradient by `x` where `d` is that by `x^2`.
    pub fn add_square_gradient[T: Real](x: &[T], d: &[T], out: &mut [T]) = add_square_gradient_body::<T>;
}

#[inline(always)]
fn add_square_gradient_body<T: Real>(x: &[T], d: &[T], out: &mut [T]) {
    for ((o, &x), &d) in out.iter_mut().zip(x).zip(d) {
        *o += T::of(2.0) * x * d;
    }
}

multiversion! {
    /// `out += x`.
    pub fn add[T: Real](x: &[T], out: &mut [T]) = add_body::<T>;
}

#[inline(always)]
fn add_body<T: Real>(x: &[T], out: &mut [T]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o += x;
    }
}

multiversion! {
    /// `out = a + b`.
    pub fn sum[T: Real](a: &[T], b: &[T], out: &mut [T]) = sum_body::<T>;
}

#[inline(always)]
fn sum_body<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = a + b;
    }
}
