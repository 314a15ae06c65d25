//! Squared error: regression with normal noise of a known deviation.

use sparsevd_kernels::training::Real;

use super::score::Score;
use super::targets::{Target, Targets};
use super::{Objective, SampleLoss};
use crate::error::CompressError;

/// Regression: outputs are the means of normal targets, and the loss of a sample is
/// `sum over the outputs of (output - target)^2 / (2 deviation^2)`.
///
/// This is `-log p(target | input)` up to a constant, so that the KL term has its right weight against it where `deviation`
/// is that of the targets' noise. With a teacher the objective is `(1 - share)` of the loss and `share` of that against the
/// teacher's outputs. The error of a sample is its mean squared error over the outputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SquaredError {
    /// Standard deviation of the targets' noise, in the units of the targets.
    pub deviation: f64,
    /// Share of the teacher's outputs, 0 to 1, where a batch has them; the targets have the rest.
    pub share: f64,
}

/// An epoch's loss above that of predicting the mean, times this, is a divergence. A network that is not yet scaled to its
/// targets starts above the mean's, so the factor is a large one.
const DIVERGENCE: f64 = 100.0;

/// Sums over samples of squared deviations from the mean, per output.
pub(super) fn squared_deviations(values: &[f32], outputs: usize) -> Vec<f64> {
    let samples = (values.len() / outputs.max(1)).max(1) as f64;
    (0..outputs)
        .map(|j| {
            let column = || {
                values
                    .iter()
                    .skip(j)
                    .step_by(outputs)
                    .map(|&v| f64::from(v))
            };
            let mean = column().sum::<f64>() / samples;
            column().map(|v| (v - mean) * (v - mean)).sum()
        })
        .collect()
}

/// What the squared errors of each output are divided by in R2: [`squared_deviations`], but at least 2^-48 of the largest, as what is smaller is rounding. Some
/// embeddings have numbers that are zero but for that.
pub(super) fn error_units(values: &[f32], outputs: usize) -> Vec<f64> {
    const RESOLVED: f64 = (f32::EPSILON as f64 / 2.0) * (f32::EPSILON as f64 / 2.0);
    let mut deviations = squared_deviations(values, outputs);
    let least = RESOLVED * deviations.iter().copied().fold(0.0, f64::max);
    deviations.iter_mut().for_each(|d| *d = d.max(least));
    deviations
}

impl<T: Real> Objective<T> for SquaredError {
    fn check(&self, targets: &Targets<'_>, outputs: usize) -> Result<(), CompressError> {
        let fail =
            |expected: String, got: String| Err(CompressError::setting("targets", expected, got));
        let needed = format!("{outputs} numbers per sample, one per output of the network");
        match targets {
            Targets::Vectors { outputs: n, values } if *n == outputs => {
                if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                    return fail("finite numbers".into(), bad.to_string());
                }
                let constant = squared_deviations(values, outputs);
                match constant.iter().position(|d| *d == 0.0) {
                    Some(j) if !targets.is_empty() => fail(
                        "numbers that differ between samples".into(),
                        format!("equal numbers for output {j}"),
                    ),
                    _ => Ok(()),
                }
            }
            other => fail(needed, other.kind()),
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
        let Target::Vector(target) = target else {
            panic!("the squared error is of numbers");
        };
        let precision = 1.0 / (self.deviation * self.deviation);
        let share = teacher.map_or(0.0, |_| self.share);
        let (mut squares, mut of_teacher) = (0.0, 0.0);
        for (i, (g, (y, &t))) in gradient
            .iter_mut()
            .zip(outputs.iter().zip(target))
            .enumerate()
        {
            let by_target = y.to_f64() - f64::from(t);
            let by_teacher = teacher.map_or(0.0, |q| y.to_f64() - q[i].to_f64());
            squares += by_target * by_target;
            of_teacher += by_teacher * by_teacher;
            let mixed = (1.0 - share) * by_target + share * by_teacher;
            *g = T::of(precision * mixed * scale);
        }
        let loss = 0.5 * precision * squares;
        SampleLoss {
            loss,
            objective: (1.0 - share) * loss + share * 0.5 * precision * of_teacher,
            error: squares / target.len().max(1) as f64,
        }
    }

    fn mean_error(&self, sum: f64, samples: f64) -> f64 {
        (sum / samples).sqrt()
    }

    fn divergence(&self, targets: &Targets<'_>, _outputs: usize) -> f64 {
        let Targets::Vectors { outputs, values } = targets else {
            panic!("the squared error is of numbers");
        };
        let squares: f64 = squared_deviations(values, *outputs).iter().sum();
        let of_mean =
            squares / targets.len().max(1) as f64 / (2.0 * self.deviation * self.deviation);
        DIVERGENCE * of_mean
    }

    fn score(&self, predictions: &[T], targets: &Targets<'_>) -> Score {
        let Targets::Vectors { outputs, values } = targets else {
            panic!("the squared error is of numbers");
        };
        let samples = targets.len();
        let mut squares = vec![0.0; *outputs];
        for (row, target) in predictions
            .chunks_exact(*outputs)
            .zip(values.chunks_exact(*outputs))
        {
            for (sum, (y, &t)) in squares.iter_mut().zip(row.iter().zip(target)) {
                let error = y.to_f64() - f64::from(t);
                *sum += error * error;
            }
        }
        let explained = squares.iter().zip(error_units(values, *outputs));
        let r2 = explained.map(|(s, d)| 1.0 - s / d).sum::<f64>() / *outputs as f64;
        let mean = squares.iter().sum::<f64>() / (samples * outputs) as f64;
        Score::Regression {
            samples,
            r2,
            rmse: mean.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{PerSample, sample_errors};

    const OBJECTIVE: SquaredError = SquaredError {
        deviation: 0.5,
        share: 0.25,
    };

    #[test]
    fn a_score_has_known_values() {
        // Two outputs: the first is off by 1 in one of four samples, the second is the mean.
        let targets = [0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0];
        let predictions = [0.0, 2.0, 1.0, 2.0, 2.0, 2.0, 4.0, 2.0];
        let score = OBJECTIVE.score(&predictions, &Targets::vectors(&targets, 2));
        // Squared deviations are 5 and 4, squared errors 1 and 4.
        let want = Score::Regression {
            samples: 4,
            r2: (0.8 + 0.0) / 2.0,
            rmse: (5.0f64 / 8.0).sqrt(),
        };
        assert_eq!(score, want);
    }

    #[test]
    fn outputs_that_are_zero_but_for_rounding_have_no_say() {
        // Two outputs, of which the second is zero as far as a float beside 1 can tell.
        let targets = [0.0, 1e-33, 1.0, 3e-33, 1.0, 1e-33, 1.0, 2e-33];
        let mut predictions = targets;
        predictions
            .iter_mut()
            .skip(1)
            .step_by(2)
            .for_each(|v| *v += 1e-17);
        let targets = Targets::vectors(&targets, 2);
        let score = OBJECTIVE.score(&predictions, &targets);
        assert!(score.r2().unwrap() > 0.999_999, "{score}");
        // The same as the terms of the samples.
        let PerSample::Regression(terms) = sample_errors(&predictions, &targets).samples else {
            panic!("numbers")
        };
        assert!((1.0 - terms.iter().sum::<f64>() - score.r2().unwrap()).abs() < 1e-12);
        // An output of a smaller unit counts as before.
        let small = [0.0, 0.0, 1.0, 1e-6];
        let score = OBJECTIVE.score(&[0.0, 0.0, 1.0, 0.0], &Targets::vectors(&small, 2));
        assert_eq!(score.r2().unwrap(), (1.0 - 1.0) / 2.0);
    }

    #[test]
    fn loss_and_divergence_have_known_values() {
        let mut gradient = [0.0f64; 2];
        let target = Target::Vector(&[1.0, -1.0]);
        let teacher: Option<&[f64]> = Some(&[0.0, 0.0]);
        let got = OBJECTIVE.differentiate(&[2.0, 1.0], target, teacher, 0.1, &mut gradient);
        // Squared errors 1 + 4, against the teacher 4 + 1; the factor 1 / (2 0.25) is 2.
        assert_eq!((got.loss, got.objective, got.error), (10.0, 10.0, 2.5));
        let want = [
            4.0 * (0.75 + 0.25 * 2.0) * 0.1,
            4.0 * (0.75 * 2.0 + 0.25) * 0.1,
        ];
        for (g, w) in gradient.iter().zip(want) {
            assert!((g - w).abs() < 1e-12, "{gradient:?}, expected {want:?}");
        }
        // Variance 1 and loss 2 of the mean.
        let targets = Targets::vectors(&[1.0, 3.0], 1);
        let limit = Objective::<f64>::divergence(&OBJECTIVE, &targets, 1);
        assert_eq!(limit, 200.0);
    }

    #[test]
    fn targets_that_do_not_fit_are_refused() {
        let check = |targets: Targets<'_>, outputs| {
            let result = Objective::<f32>::check(&OBJECTIVE, &targets, outputs);
            result.map_err(|e| e.to_string())
        };
        assert_eq!(check(Targets::vectors(&[1.0, 2.0], 1), 1), Ok(()));
        let refused = [
            (Targets::classes(&[0, 1]), 1, "got classes"),
            (Targets::vectors(&[1.0, 2.0], 1), 2, "got 1 numbers"),
            (Targets::vectors(&[1.0, f32::NAN], 1), 1, "finite"),
            (Targets::vectors(&[1.0, 2.0, 1.0, 3.0], 2), 2, "output 0"),
        ];
        for (targets, outputs, expected) in refused {
            let error = check(targets, outputs).unwrap_err();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
    }
}
