//! Softmax cross-entropy, optionally mixed with distillation from a teacher (Hinton, Vinyals and Dean 2015).

use sparsevd_kernels::training::Real;

use super::score::Score;
use super::targets::{Target, Targets};
use super::{Objective, SampleLoss};
use crate::error::CompressError;

/// How a teacher's scores enter the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    /// Share of the teacher's loss, 0 to 1; the targets have the rest.
    pub share: f64,
    /// Temperature that softens both distributions.
    pub temperature: f64,
}

impl Distillation {
    /// No teacher.
    pub const NONE: Self = Self {
        share: 0.0,
        temperature: 1.0,
    };
}

/// Classification: outputs are scores, and the loss of a sample is `-log softmax(scores)[label]`; with `smoothing` of s it is the
/// cross-entropy against `(1 - s)` of the label and `s` of the even distribution (Szegedy et al. 2016).
///
/// With a teacher the objective is
/// `(1 - share) CE(label) + share T^2 CE(softmax(teacher / T), softmax(scores / T))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropy {
    /// Weight of a teacher's scores, where a batch has them.
    pub distillation: Distillation,
    /// Share of a label that is spread evenly over all classes.
    pub smoothing: f64,
}

impl<T: Real> Objective<T> for CrossEntropy {
    fn check(&self, targets: &Targets<'_>, outputs: usize) -> Result<(), CompressError> {
        let Targets::Classes(labels) = targets else {
            let expected = "classes, which the cross-entropy is of";
            return Err(CompressError::setting("targets", expected, targets.kind()));
        };
        match labels.iter().find(|&&l| usize::from(l) >= outputs) {
            None => Ok(()),
            Some(label) => {
                let expected = format!("classes from 0 to {}", outputs.saturating_sub(1));
                Err(CompressError::setting("targets", expected, label))
            }
        }
    }

    fn differentiate(
        &self,
        outputs: &[T],
        target: Target<'_>,
        teacher: Option<&[T]>,
        scale: f64,
        gradient: &mut [T],
    ) -> SampleLoss {
        let Target::Class(label) = target else {
            panic!("the cross-entropy is of classes");
        };
        let p = softmax(outputs, 1.0);
        // Not `max`, which would hide a NaN.
        let likelihood = if p[label] < f64::MIN_POSITIVE {
            f64::MIN_POSITIVE
        } else {
            p[label]
        };
        let even = self.smoothing / p.len() as f64;
        let mut loss = -likelihood.ln();
        if self.smoothing > 0.0 {
            let spread: f64 = p.iter().map(|p| -p.max(f64::MIN_POSITIVE).ln()).sum();
            loss = (1.0 - self.smoothing) * loss + even * spread;
        }
        let mut objective = loss;
        let d = self.distillation;
        let share = teacher.map_or(0.0, |_| d.share);
        for (i, (g, p)) in gradient.iter_mut().zip(&p).enumerate() {
            let own = if i == label {
                1.0 - self.smoothing
            } else {
                0.0
            };
            let target = own + even;
            *g = T::of((1.0 - share) * (p - target) * scale);
        }
        if let Some(teacher) = teacher {
            let (p, q) = (
                softmax(outputs, d.temperature),
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
        let wrong = arg_max(outputs) != label;
        SampleLoss {
            loss,
            objective,
            error: if wrong { 1.0 } else { 0.0 },
        }
    }

    fn mean_error(&self, sum: f64, samples: f64) -> f64 {
        100.0 * sum / samples
    }

    /// Four times the loss of guessing, `ln(classes)`.
    fn divergence(&self, _targets: &Targets<'_>, outputs: usize) -> f64 {
        4.0 * (outputs as f64).ln()
    }

    fn score(&self, predictions: &[T], targets: &Targets<'_>) -> Score {
        let samples = targets.len();
        let scores = predictions.chunks_exact((predictions.len() / samples.max(1)).max(1));
        let wrong = scores
            .enumerate()
            .filter(|(i, scores)| match targets.get(*i) {
                Target::Class(label) => is_wrong(scores, label),
                Target::Vector(_) => true,
            })
            .count();
        Score::Classes { samples, wrong }
    }
}

fn softmax<T: Real>(scores: &[T], temperature: f64) -> Vec<f64> {
    let scores: Vec<f64> = scores.iter().map(|s| s.to_f64() / temperature).collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    p
}

/// Whether the largest score is that of another class, or no number.
pub(super) fn is_wrong<T: Real>(scores: &[T], label: usize) -> bool {
    let best = arg_max(scores);
    scores[best].to_f64().is_nan() || best != label
}

/// Index of the largest score; the first of equals.
pub fn arg_max<T: PartialOrd>(scores: &[T]) -> usize {
    let mut best = 0;
    for (i, s) in scores.iter().enumerate() {
        if *s > scores[best] {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smoothed_label_has_a_known_loss() {
        let objective = CrossEntropy {
            distillation: Distillation::NONE,
            smoothing: 0.3,
        };
        // Probabilities 1/2, 1/4 and 1/4, against 0.1, 0.8 and 0.1.
        let outputs = [2f64.ln(), 0.0, 0.0];
        let mut gradient = [0.0; 3];
        let got = objective.differentiate(&outputs, Target::Class(1), None, 2.0, &mut gradient);
        let want = -(0.1 * 0.5f64.ln() + 0.9 * 0.25f64.ln());
        assert!((got.loss - want).abs() < 1e-12 && got.objective == got.loss);
        assert_eq!(got.error, 1.0);
        for (g, w) in gradient.iter().zip([0.4, -0.55, 0.15]) {
            assert!((g - 2.0 * w).abs() < 1e-12, "{gradient:?}");
        }
    }
}
