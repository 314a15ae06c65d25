//! Weights of classes in a loss.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Objective, SampleLoss, Score, Target, Targets};
use crate::error::CompressError;

/// How much each class counts in the loss, as in `class_weights = "balanced"` of a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum ClassWeights {
    /// Each as much as another: the loss of a sample counts `samples / (classes * samples of its class)` times.
    Balanced,
}

impl ClassWeights {
    /// The weight of each class among these targets; classes without a sample do not count as classes.
    ///
    /// # Errors
    /// Targets that are numbers.
    pub fn of(self, targets: &Targets<'_>) -> Result<Arc<[f64]>, CompressError> {
        let Self::Balanced = self;
        let Targets::Classes(labels) = targets else {
            let expected = "classes as targets, which it weighs";
            return Err(CompressError::setting(
                "class_weights",
                expected,
                targets.kind(),
            ));
        };
        let classes = labels.iter().max().map_or(0, |&most| usize::from(most) + 1);
        let mut samples = vec![0_usize; classes];
        labels
            .iter()
            .for_each(|&label| samples[usize::from(label)] += 1);
        let present = samples.iter().filter(|n| **n > 0).count();
        let weight = |&n: &usize| labels.len() as f64 / (present * n.max(1)) as f64;
        Ok(samples.iter().map(weight).collect())
    }
}

/// An objective of classes, each sample of which counts as often as the weight of its class says.
///
/// The mean of the weights over the training samples is 1, so that the KL term keeps its weight against the loss of the set.
#[derive(Debug)]
pub(crate) struct Weighted {
    pub objective: Box<dyn Objective<f32>>,
    pub weights: Arc<[f64]>,
}

impl Objective<f32> for Weighted {
    fn check(&self, targets: &Targets<'_>, outputs: usize) -> Result<(), CompressError> {
        self.objective.check(targets, outputs)
    }

    fn differentiate(
        &self,
        outputs: &[f32],
        target: Target<'_>,
        teacher: Option<&[f32]>,
        scale: f64,
        gradient: &mut [f32],
    ) -> SampleLoss {
        let weight = match target {
            Target::Class(label) => self.weights.get(label).copied().unwrap_or(1.0),
            Target::Vector(_) => 1.0,
        };
        let scale = scale * weight;
        let of_sample = (self.objective).differentiate(outputs, target, teacher, scale, gradient);
        SampleLoss {
            loss: weight * of_sample.loss,
            objective: weight * of_sample.objective,
            error: of_sample.error,
        }
    }

    fn mean_error(&self, sum: f64, samples: f64) -> f64 {
        self.objective.mean_error(sum, samples)
    }

    fn divergence(&self, targets: &Targets<'_>, outputs: usize) -> f64 {
        self.objective.divergence(targets, outputs)
    }

    fn score(&self, predictions: &[f32], targets: &Targets<'_>) -> Score {
        self.objective.score(predictions, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{CrossEntropy, Distillation};

    #[test]
    fn balanced_classes_count_alike_and_one_on_average() {
        let labels = [0, 0, 0, 0, 0, 0, 2, 2, 3, 0];
        let weights = ClassWeights::Balanced
            .of(&Targets::classes(&labels))
            .unwrap();
        // Seven, two and one of ten samples; class 1 has none.
        for (class, samples) in [(0, 7.0), (2, 2.0), (3, 1.0)] {
            assert_eq!(weights[class], 10.0 / (3.0 * samples));
        }
        let sum: f64 = labels.iter().map(|&l| weights[usize::from(l)]).sum();
        assert!((sum - 10.0).abs() < 1e-12);
        let numbers = ClassWeights::Balanced.of(&Targets::vectors(&[1.0, 2.0], 1));
        let error = numbers.unwrap_err().to_string();
        assert!(
            error.starts_with("class_weights: expected classes"),
            "{error}"
        );
    }

    #[test]
    fn loss_and_gradient_are_multiplied_and_the_error_is_not() {
        let plain = CrossEntropy {
            smoothing: 0.0,
            distillation: Distillation {
                share: 0.25,
                temperature: 2.0,
            },
        };
        let weighted = Weighted {
            objective: Box::new(plain),
            weights: [0.5, 4.0].into(),
        };
        let (y, teacher) = ([0.3_f32, -0.2], [1.0_f32, 0.0]);
        let (mut expected, mut got) = ([0.0_f32; 2], [0.0_f32; 2]);
        let target = Target::Class(1);
        let one = plain.differentiate(&y, target, Some(&teacher), 0.5, &mut expected);
        let four = weighted.differentiate(&y, target, Some(&teacher), 0.5, &mut got);
        assert_eq!(
            (four.loss, four.objective),
            (4.0 * one.loss, 4.0 * one.objective)
        );
        assert_eq!((got, four.error), (expected.map(|g| 4.0 * g), one.error));
    }
}
