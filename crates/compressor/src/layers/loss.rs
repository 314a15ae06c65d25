//! Softmax cross-entropy, optionally mixed with distillation from a teacher (Hinton, Vinyals and Dean 2015).

use sparsevd_kernels::training::Real;

/// How a teacher's scores enter the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Share of the teacher's loss, 0 to 1; the labels have the rest.
    pub share: f64,
    /// Temperature that softens both distributions.
    pub temperature: f64,
}

/// Cross-entropy of one sample with its label, in nats, and the objective, whose gradient by the scores times `scale`
/// (1 / batch) is left in `gradient`.
///
/// Without a teacher the two are one; with one the objective is
/// `(1 - share) CE(label) + share T^2 CE(softmax(teacher / T), softmax(scores / T))`.
pub(crate) fn cross_entropy<T: Real>(
    scores: &[T],
    label: usize,
    teacher: Option<(&[T], Distillation)>,
    scale: f64,
    gradient: &mut [T],
) -> [f64; 2] {
    let p = softmax(scores, 1.0);
    // Not `max`, which would hide a NaN.
    let likelihood = if p[label] < f64::MIN_POSITIVE {
        f64::MIN_POSITIVE
    } else {
        p[label]
    };
    let loss = -likelihood.ln();
    let mut objective = loss;
    let share = teacher.map_or(0.0, |(_, d)| d.share);
    for (i, (g, p)) in gradient.iter_mut().zip(&p).enumerate() {
        let target = if i == label { 1.0 } else { 0.0 };
        *g = T::of((1.0 - share) * (p - target) * scale);
    }
    if let Some((teacher, d)) = teacher {
        let (p, q) = (
            softmax(scores, d.temperature),
            softmax(teacher, d.temperature),
        );
        for (g, (p, q)) in gradient.iter_mut().zip(p.iter().zip(&q)) {
            *g += T::of(d.share * d.temperature * (p - q) * scale);
        }
        let soft: f64 = p
            .iter()
            .zip(&q)
            .map(|(p, q)| -q * p.max(f64::MIN_POSITIVE).ln())
            .sum();
        objective = (1.0 - d.share) * loss + d.share * d.temperature * d.temperature * soft;
    }
    [loss, objective]
}

fn softmax<T: Real>(scores: &[T], temperature: f64) -> Vec<f64> {
    let scores: Vec<f64> = scores.iter().map(|s| s.to_f64() / temperature).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}
