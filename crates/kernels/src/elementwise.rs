//! Operations on every element, and softmax.

use crate::isa::multiversion;
use crate::{Activation, Isa, LANES, Layout};

/// Applies an activation in place, in any layout.
pub fn activate(isa: Isa, x: &mut [f32], act: Activation) {
    let bounds = act.bounds();
    clamp(isa, x, bounds.min, bounds.max);
}

/// `y = act(a + b)`, in any layout.
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub fn add(isa: Isa, a: &[f32], b: &[f32], y: &mut [f32], act: Activation) {
    assert!(a.len() == b.len() && a.len() == y.len(), "lengths of a sum");
    sum(isa, a, b, y, act);
}

/// `x = act(x + b)` in place, in any layout.
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub fn add_assign(isa: Isa, x: &mut [f32], b: &[f32], act: Activation) {
    assert_eq!(x.len(), b.len(), "lengths of a sum");
    sum_assign(isa, x, b, act);
}

/// Probabilities over the `features` of each sample, in place, over `count` samples or tiles.
///
/// # Panics
/// When `x` has another length.
#[track_caller]
pub fn softmax(isa: Isa, layout: Layout, x: &mut [f32], features: usize, count: usize) {
    assert_eq!(
        x.len(),
        count * features * layout.samples(),
        "elements of x"
    );
    match layout {
        Layout::Single => softmax_single(isa, x, features),
        Layout::Tiled => softmax_tiled(isa, x, features),
    }
}

multiversion!(fn clamp(x: &mut [f32], min: f32, max: f32) = clamp_body;);
multiversion!(fn sum(a: &[f32], b: &[f32], y: &mut [f32], act: Activation) = sum_body;);
multiversion!(fn sum_assign(x: &mut [f32], b: &[f32], act: Activation) = sum_assign_body;);
multiversion!(fn softmax_single(x: &mut [f32], features: usize) = softmax_body::<1>;);
multiversion!(fn softmax_tiled(x: &mut [f32], features: usize) = softmax_body::<LANES>;);

#[inline(always)]
fn clamp_body(x: &mut [f32], min: f32, max: f32) {
    let bounds = Activation::Clip { min, max }.bounds();
    x.iter_mut().for_each(|x| *x = bounds.apply(*x));
}

#[inline(always)]
fn sum_body(a: &[f32], b: &[f32], y: &mut [f32], act: Activation) {
    let bounds = act.bounds();
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = bounds.apply(a + b);
    }
}

#[inline(always)]
fn sum_assign_body(x: &mut [f32], b: &[f32], act: Activation) {
    let bounds = act.bounds();
    for (x, b) in x.iter_mut().zip(b) {
        *x = bounds.apply(*x + b);
    }
}

#[inline(always)]
fn softmax_body<const L: usize>(x: &mut [f32], features: usize) {
    if features == 0 {
        return;
    }
    for sample in x.chunks_exact_mut(features * L) {
        let mut max = [f32::NEG_INFINITY; L];
        for v in sample.chunks_exact(L) {
            for (m, v) in max.iter_mut().zip(v) {
                *m = m.max(*v);
            }
        }
        let mut total = [0.0; L];
        for v in sample.chunks_exact_mut(L) {
            for ((v, m), t) in v.iter_mut().zip(&max).zip(&mut total) {
                *v = (*v - m).exp();
                *t += *v;
            }
        }
        for v in sample.chunks_exact_mut(L) {
            for (v, t) in v.iter_mut().zip(&total) {
                *v /= t;
            }
        }
    }
}
