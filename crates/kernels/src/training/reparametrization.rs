//! Local reparametrization (Kingma, Salimans and Welling 2015, section 2.3): noise on pre-activations, not on weights.

use crate::isa::multiversion;
use crate::training::Real;

/// Added to every variance before its root, so that the root has a gradient at zero.
pub const VARIANCE_EPSILON: f64 = 1e-8;

multiversion! {
    /// Samples pre-activations, and computes the factor of the gradient of their variance.
    ///
    /// On entry `y` holds means, `v` variances; on return `y` holds `mean + sqrt(v + 1e-8) * noise` and `v` holds
    /// `noise / (2 sqrt(v + 1e-8))`, so that the gradient of the variance is that factor times the gradient of `y`.
    pub fn reparametrize[T: Real](y: &mut [T], v: &mut [T], noise: &[T]) = reparametrize_body::<T>;
}

#[inline(always)]
fn reparametrize_body<T: Real>(y: &mut [T], v: &mut [T], noise: &[T]) {
    for ((y, v), &n) in y.iter_mut().zip(v).zip(noise) {
        let deviation = (*v + T::of(VARIANCE_EPSILON)).sqrt();
        *y += deviation * n;
        *v = T::of(0.5) * n / deviation;
    }
}

multiversion! {
    /// `out = x * x`, element by element.
    pub fn square[T: Real](x: &[T], out: &mut [T]) = square_body::<T>;
}

#[inline(always)]
fn square_body<T: Real>(x: &[T], out: &mut [T]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = x * x;
    }
}
