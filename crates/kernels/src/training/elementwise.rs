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

/// Largest byte of a grid.
const MOST_BYTE: f64 = 255.0;

multiversion! {
    /// `y` is the number of the byte of `x`: `(byte - zero_point) scale`, with the byte `clamp(round(x / scale + zero_point), 0, 255)`. The quotient is a
    /// product with `1 / scale`, in one rounding with the sum, as where a network runs in int8. NaN stays NaN.
    pub fn round_to_bytes[T: Real](x: &[T], scale: f32, zero_point: u8, y: &mut [T]) = round_to_bytes_body::<T>;
}

#[inline(always)]
fn round_to_bytes_body<T: Real>(x: &[T], scale: f32, zero_point: u8, y: &mut [T]) {
    let scale = T::of(scale.into());
    let (inverse, zero) = (T::of(1.0) / scale, T::of(zero_point.into()));
    let (least, most) = (T::of(0.0), T::of(MOST_BYTE));
    for (y, &x) in y.iter_mut().zip(x) {
        let byte = x.mul_add(inverse, zero).round_ties_even();
        // A comparison with NaN is false.
        let byte = if byte < least { least } else { byte };
        let byte = if byte > most { most } else { byte };
        *y = (byte - zero) * scale;
    }
}

multiversion! {
    /// Makes the gradient by the result of [`round_to_bytes`] that by `x`, by the straight-through estimator (Bengio, Leonard and Courville 2013): it stays where
    /// rounding alone moves `x`, and is zero where `x` is past the ends of the grid.
    pub fn round_to_bytes_gradient[T: Real](x: &[T], scale: f32, zero_point: u8, gradient: &mut [T]) = round_to_bytes_gradient_body::<T>;
}

#[inline(always)]
fn round_to_bytes_gradient_body<T: Real>(x: &[T], scale: f32, zero_point: u8, gradient: &mut [T]) {
    let scale = T::of(scale.into());
    let (inverse, zero) = (T::of(1.0) / scale, T::of(zero_point.into()));
    let (least, most) = (T::of(-0.5), T::of(MOST_BYTE + 0.5));
    for (g, &x) in gradient.iter_mut().zip(x) {
        let byte = x.mul_add(inverse, zero);
        *g = if byte < least || byte > most {
            T::of(0.0)
        } else {
            *g
        };
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::Int8Grid;

    use super::*;
    use crate::Isa;

    const GRID: Int8Grid = Int8Grid {
        scale: 0.25,
        zero_point: 3,
    };

    /// Numbers between levels, half way, at the ends and far past them.
    fn numbers() -> Vec<f32> {
        let near = (-40..600).map(|i| i as f32 * 0.125 - 1.0);
        near.chain([f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, -0.0])
            .collect()
    }

    #[test]
    fn bytes_are_those_of_the_grid() {
        let x = numbers();
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            round_to_bytes(isa, &x, GRID.scale, GRID.zero_point, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                assert_eq!(y, GRID.value(GRID.byte(x)), "{x}, {isa}");
            }
            let mut y = [0.0];
            round_to_bytes(isa, &[f32::NAN], GRID.scale, GRID.zero_point, &mut y);
            assert!(y[0].is_nan(), "a loss that is not finite is seen");
        }
    }

    #[test]
    fn gradients_end_where_the_bytes_do() {
        let x = numbers();
        for isa in Isa::available() {
            let mut g: Vec<f32> = (1..=x.len()).map(|i| i as f32).collect();
            round_to_bytes_gradient(isa, &x, GRID.scale, GRID.zero_point, &mut g);
            for (i, (&x, &g)) in x.iter().zip(&g).enumerate() {
                // Half a step past the numbers of the bytes 0 and 255.
                let want = match (-0.875..=63.125).contains(&x) {
                    true => (i + 1) as f32,
                    false => 0.0,
                };
                assert_eq!(g, want, "{x}, {isa}");
            }
        }
    }
}
