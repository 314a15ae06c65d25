//! Activation functions and their derivatives.

use crate::activation::Activation;
use crate::clamp::Clamp;
use crate::isa::multiversion;
use crate::math::real::{
    gelu_tanh_argument, gelu_tanh_slope, hard_sigmoid, hard_swish_gate, normal_cdf, normal_density,
    tanh,
};
use crate::training::Real;

multiversion! {
    /// `y = f(x)` for an activation `f`.
    pub fn activate[T: Real](f: Activation, x: &[T], y: &mut [T]) = activate_body::<T>;
}

multiversion! {
    /// `dx += g f'(x)` for an activation `f`. Where the left and right derivatives of a clamp differ, `f'` is zero.
    pub fn activation_gradient[T: Real](f: Activation, x: &[T], g: &[T], dx: &mut [T]) = activation_gradient_body::<T>;
}

#[inline(always)]
fn activate_body<T: Real>(f: Activation, x: &[T], y: &mut [T]) {
    let [zero, one] = [0.0, 1.0].map(T::of);
    match f {
        Activation::Clamp(Clamp::None) => y.copy_from_slice(x),
        Activation::Clamp(Clamp::Relu) => each(x, y, |x| x.larger(zero)),
        Activation::Clamp(Clamp::Clip { min, max }) => {
            let [min, max] = [min, max].map(|v| T::of(f64::from(v)));
            each(x, y, |x| x.larger(min).smaller(max));
        }
        Activation::LeakyRelu { alpha } => {
            let alpha = T::of(f64::from(alpha));
            each(x, y, |x| if x > zero { x } else { alpha * x });
        }
        Activation::Sigmoid => each(x, y, |x| x.sigmoid()),
        Activation::HardSigmoid { alpha, beta } => {
            let [alpha, beta] = [alpha, beta].map(|v| T::of(f64::from(v)));
            each(x, y, |x| hard_sigmoid(x, alpha, beta));
        }
        Activation::HardSwish => each(x, y, |x| x * hard_swish_gate(x)),
        Activation::Tanh => each(x, y, tanh),
        Activation::Gelu => each(x, y, |x| x * normal_cdf(x)),
        Activation::GeluTanh => each(x, y, |x| {
            T::of(0.5) * x * (one + tanh(gelu_tanh_argument(x)))
        }),
        Activation::Elu { alpha } => {
            let alpha = T::of(f64::from(alpha));
            each(x, y, |x| if x > zero { x } else { alpha * (x.exp() - one) });
        }
        Activation::Softplus => each(x, y, |x| {
            x.larger(zero) + (one + (-x.larger(-x)).exp()).ln()
        }),
        Activation::Exp => each(x, y, |x| x.exp()),
        Activation::Log => each(x, y, |x| x.ln()),
        Activation::Sqrt => each(x, y, |x| x.sqrt()),
        Activation::Erf => each(x, y, |x| {
            T::of(2.0) * normal_cdf(T::of(std::f64::consts::SQRT_2) * x) - one
        }),
    }
}

#[inline(always)]
fn activation_gradient_body<T: Real>(f: Activation, x: &[T], g: &[T], dx: &mut [T]) {
    let [zero, half, one] = [0.0, 0.5, 1.0].map(T::of);
    let step = |on: bool| if on { one } else { zero };
    match f {
        Activation::Clamp(Clamp::None) => slope(x, g, dx, |_| one),
        Activation::Clamp(Clamp::Relu) => slope(x, g, dx, |x| step(x > zero)),
        Activation::Clamp(Clamp::Clip { min, max }) => {
            let [min, max] = [min, max].map(|v| T::of(f64::from(v)));
            slope(x, g, dx, |x| step((x > min) & (x < max)));
        }
        Activation::LeakyRelu { alpha } => {
            let alpha = T::of(f64::from(alpha));
            slope(x, g, dx, |x| if x > zero { one } else { alpha });
        }
        Activation::Sigmoid => slope(x, g, dx, |x| {
            let s = x.sigmoid();
            s * (one - s)
        }),
        Activation::HardSigmoid { alpha, beta } => {
            let [alpha, beta] = [alpha, beta].map(|v| T::of(f64::from(v)));
            slope(x, g, dx, |x| {
                let y = alpha * x + beta;
                alpha * step((y > zero) & (y < one))
            });
        }
        Activation::HardSwish => slope(x, g, dx, |x| {
            let inside = step((x > T::of(-3.0)) & (x < T::of(3.0)));
            hard_swish_gate(x) + inside * x * T::of(1.0 / 6.0)
        }),
        Activation::Tanh => slope(x, g, dx, |x| {
            let t = tanh(x);
            one - t * t
        }),
        Activation::Gelu => slope(x, g, dx, |x| normal_cdf(x) + x * normal_density(x)),
        Activation::GeluTanh => slope(x, g, dx, |x| {
            let t = tanh(gelu_tanh_argument(x));
            half * (one + t) + half * x * (one - t * t) * gelu_tanh_slope(x)
        }),
        Activation::Elu { alpha } => {
            let alpha = T::of(f64::from(alpha));
            slope(x, g, dx, |x| if x > zero { one } else { alpha * x.exp() });
        }
        Activation::Softplus => slope(x, g, dx, |x| x.sigmoid()),
        Activation::Exp => slope(x, g, dx, |x| x.exp()),
        Activation::Log => slope(x, g, dx, |x| one / x),
        Activation::Sqrt => slope(x, g, dx, |x| half / x.sqrt()),
        Activation::Erf => slope(x, g, dx, |x| {
            let root = T::of(std::f64::consts::SQRT_2);
            T::of(2.0) * root * normal_density(root * x)
        }),
    }
}

#[inline(always)]
fn each<T: Real>(x: &[T], y: &mut [T], f: impl Fn(T) -> T) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = f(x);
    }
}

#[inline(always)]
fn slope<T: Real>(x: &[T], g: &[T], dx: &mut [T], derivative: impl Fn(T) -> T) {
    for ((dx, &x), &g) in dx.iter_mut().zip(x).zip(g) {
        *dx += g * derivative(x);
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Approximate, Op, ops};

    use super::*;
    use crate::Isa;

    fn all() -> Vec<Activation> {
        let gelu = |approximate| Op::Gelu(ops::Gelu { approximate });
        let all = [
            Op::Relu,
            Op::Clip(ops::Clip {
                min: Some(-0.5),
                max: Some(1.25),
            }),
            Op::Clip(ops::Clip {
                min: None,
                max: Some(1.0),
            }),
            Op::LeakyRelu(ops::LeakyRelu { alpha: 0.1 }),
            Op::Sigmoid,
            Op::HardSigmoid(ops::HardSigmoid {
                alpha: 0.2,
                beta: 0.5,
            }),
            Op::HardSwish,
            Op::Tanh,
            gelu(Approximate::None),
            gelu(Approximate::Tanh),
            Op::Elu(ops::Elu { alpha: 0.75 }),
            Op::Softplus,
            Op::Exp,
            Op::Log,
            Op::Sqrt,
            Op::Erf,
        ];
        all.iter().map(|op| Activation::of(op).unwrap()).collect()
    }

    /// The points at which a function is finite.
    fn domain(op: Activation, x: &[f64]) -> Vec<f64> {
        match op {
            Activation::Log | Activation::Sqrt => x.iter().map(|x| x.abs() + 1.0).collect(),
            _ => x.to_vec(),
        }
    }

    #[test]
    fn derivatives_agree_with_differences() {
        // No corner of any of them lies within a step of these.
        let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) * 0.113 + 0.0173).collect();
        for op in all() {
            let x = domain(op, &x);
            let at = |d: f64| {
                let x: Vec<f64> = x.iter().map(|x| x + d).collect();
                let mut y = vec![0.0; x.len()];
                activate(Isa::SCALAR, op, &x, &mut y);
                y
            };
            let h = 1e-4;
            let mut got = vec![1.0; x.len()];
            activation_gradient(Isa::best(), op, &x, &vec![2.0; x.len()], &mut got);
            for ((x, got), (up, down)) in x.iter().zip(&got).zip(at(h).iter().zip(at(-h))) {
                let want = 1.0 + 2.0 * (up - down) / (2.0 * h);
                assert!(
                    (got - want).abs() < 1e-5,
                    "{op:?} at {x}: {got}, difference {want}"
                );
            }
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_f64() {
        let x: Vec<f64> = (-60..=60).map(|i| f64::from(i) * 0.11 + 0.013).collect();
        let points = x;
        for (isa, op) in Isa::available()
            .into_iter()
            .flat_map(|isa| all().into_iter().map(move |op| (isa, op)))
        {
            let x = domain(op, &points);
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let (mut want, mut got) = (vec![0.0f64; x.len()], vec![0.0f32; x.len()]);
            activate(Isa::SCALAR, op, &x, &mut want);
            activate(isa, op, &narrow, &mut got);
            let (mut slope, mut slope32) = (vec![0.0f64; x.len()], vec![0.0f32; x.len()]);
            activation_gradient(Isa::SCALAR, op, &x, &vec![1.0; x.len()], &mut slope);
            activation_gradient(isa, op, &narrow, &vec![1.0; x.len()], &mut slope32);
            for i in 0..x.len() {
                let close = |a: f32, b: f64| (f64::from(a) - b).abs() < 2e-6 * b.abs().max(1.0);
                assert!(
                    close(got[i], want[i]) && close(slope32[i], slope[i]),
                    "{} {op:?} at {}",
                    isa.name(),
                    x[i]
                );
            }
        }
    }
}
