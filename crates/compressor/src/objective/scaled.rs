//! An objective of outputs in another unit.

use super::{Objective, SampleLoss, Score, Target, Targets};
use crate::error::CompressError;

/// An objective of outputs that are divided by `unit`: it multiplies them by `unit` before it compares them with targets.
///
/// So a network may be trained with outputs about one, whatever the size of the targets.
#[derive(Debug)]
pub(crate) struct Scaled {
    pub objective: Box<dyn Objective<f32>>,
    pub unit: f32,
}

impl Scaled {
    fn scaled(&self, outputs: &[f32]) -> Vec<f32> {
        outputs.iter().map(|y| y * self.unit).collect()
    }
}

impl Objective<f32> for Scaled {
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
        let teacher = teacher.map(|teacher| self.scaled(teacher));
        self.objective.differentiate(
            &self.scaled(outputs),
            target,
            teacher.as_deref(),
            scale * f64::from(self.unit),
            gradient,
        )
    }

    fn mean_error(&self, sum: f64, samples: f64) -> f64 {
        self.objective.mean_error(sum, samples)
    }

    fn divergence(&self, targets: &Targets<'_>, outputs: usize) -> f64 {
        self.objective.divergence(targets, outputs)
    }

    fn score(&self, predictions: &[f32], targets: &Targets<'_>) -> Score {
        self.objective.score(&self.scaled(predictions), targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::SquaredError;

    #[test]
    fn outputs_in_units_have_the_loss_and_the_score_of_the_outputs() {
        let plain = SquaredError {
            deviation: 3.0,
            share: 0.25,
        };
        let scaled = Scaled {
            objective: Box::new(plain),
            unit: 8.0,
        };
        let target = Target::Vector(&[10.0, -4.0]);
        let (y, teacher) = ([9.0f32, 2.0], [12.0f32, 0.0]);
        let in_units = |v: [f32; 2]| v.map(|v| v / 8.0);
        let (mut expected, mut got) = ([0.0f32; 2], [0.0f32; 2]);
        let loss = plain.differentiate(&y, target, Some(&teacher), 0.5, &mut expected);
        let loss_in_units = scaled.differentiate(
            &in_units(y),
            target,
            Some(&in_units(teacher)),
            0.5,
            &mut got,
        );
        assert_eq!(loss, loss_in_units);
        // By the chain rule.
        assert_eq!(got, expected.map(|g| g * 8.0));
        let targets = Targets::vectors(&[10.0, -4.0, 3.0, 0.0], 2);
        let predictions = [9.0, 2.0, 1.0, 1.0];
        assert_eq!(
            scaled.score(&predictions.map(|y| y / 8.0), &targets),
            plain.score(&predictions, &targets)
        );
    }
}
