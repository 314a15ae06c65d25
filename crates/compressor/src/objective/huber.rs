//! Huber's loss: regression with targets of which a few are far off.

use sparsevd_kernels::training::Real;

use super::squared_error::SquaredError;
use super::{Objective, SampleLoss, Score, Target, Targets};
use crate::error::CompressError;

/// Errors up to this many deviations of the noise count squared, larger ones linearly. With 1.345, 95 % of the efficiency of
/// the squared error is left where the noise is normal (Huber 1981, *Robust Statistics*).
const THRESHOLD: f64 = 1.345;

/// Regression whose loss grows linearly for large errors (Huber 1964): with `z = (output - target) / deviation` and `k` of 1.345
/// it is the sum over the outputs of `z^2 / 2` where `|z| <= k`, and of `k (|z| - k / 2)` elsewhere.
///
/// This is `-log p(target | input)` up to a constant for noise that is normal in its middle and has exponential tails. With a
/// teacher the objective is `(1 - share)` of the loss and `share` of that against the teacher's outputs. Targets, errors and
/// scores are those of [`SquaredError`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Huber {
    /// Standard deviation of the targets' noise in its middle, in the units of the targets.
    pub deviation: f64,
    /// Share of the teacher's outputs, 0 to 1, where a batch has them; the targets have the rest.
    pub share: f64,
}

/// The loss of `z`, and its derivative.
fn loss(z: f64) -> (f64, f64) {
    if z.abs() <= THRESHOLD {
        (0.5 * z * z, z)
    } else {
        (
            THRESHOLD * (z.abs() - 0.5 * THRESHOLD),
            THRESHOLD.copysign(z),
        )
    }
}

impl Huber {
    fn squared_error(&self) -> SquaredError {
        SquaredError {
            deviation: self.deviation,
            share: self.share,
        }
    }
}

impl<T: Real> Objective<T> for Huber {
    fn check(&self, targets: &Targets<'_>, outputs: usize) -> Result<(), CompressError> {
        Objective::<T>::check(&self.squared_error(), targets, outputs)
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
            panic!("Huber's loss is of numbers");
        };
        let share = teacher.map_or(0.0, |_| self.share);
        let (mut of_target, mut of_teacher, mut squares) = (0.0, 0.0, 0.0);
        for (i, (g, (y, &t))) in gradient
            .iter_mut()
            .zip(outputs.iter().zip(target))
            .enumerate()
        {
            let error = y.to_f64() - f64::from(t);
            let (by_target, slope) = loss(error / self.deviation);
            let (by_teacher, teacher_slope) = teacher.map_or((0.0, 0.0), |q| {
                loss((y.to_f64() - q[i].to_f64()) / self.deviation)
            });
            of_target += by_target;
            of_teacher += by_teacher;
            squares += error * error;
            let mixed = (1.0 - share) * slope + share * teacher_slope;
            *g = T::of(mixed / self.deviation * scale);
        }
        SampleLoss {
            loss: of_target,
            objective: (1.0 - share) * of_target + share * of_teacher,
            error: squares / target.len().max(1) as f64,
        }
    }

    fn mean_error(&self, sum: f64, samples: f64) -> f64 {
        Objective::<T>::mean_error(&self.squared_error(), sum, samples)
    }

    /// That of the squared error: the Huber loss of the same outputs is never larger.
    fn divergence(&self, targets: &Targets<'_>, outputs: usize) -> f64 {
        Objective::<T>::divergence(&self.squared_error(), targets, outputs)
    }

    fn score(&self, predictions: &[T], targets: &Targets<'_>) -> Score {
        self.squared_error().score(predictions, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECTIVE: Huber = Huber {
        deviation: 0.5,
        share: 0.25,
    };

    #[test]
    fn small_errors_count_squared_and_large_ones_linearly() {
        let mut gradient = [0.0f64; 2];
        let target = Target::Vector(&[1.0, -1.0]);
        let got = OBJECTIVE.differentiate(&[1.25, -6.0], target, None, 0.1, &mut gradient);
        // In deviations the errors are 0.5 and -10.
        let want = 0.125 + THRESHOLD * (10.0 - 0.5 * THRESHOLD);
        assert!((got.loss - want).abs() < 1e-12, "{got:?}");
        assert_eq!(
            (got.objective, got.error),
            (got.loss, (0.0625 + 25.0) / 2.0)
        );
        let slopes = [0.1, -THRESHOLD / 0.5 * 0.1];
        for (g, want) in gradient.iter().zip(slopes) {
            assert!(
                (g - want).abs() < 1e-12,
                "{gradient:?}, expected {slopes:?}"
            );
        }
    }

    #[test]
    fn a_teacher_has_its_share() {
        let mut gradient = [0.0f64];
        let at = |teacher: Option<&[f64]>, gradient: &mut [f64]| {
            OBJECTIVE.differentiate(&[1.0], Target::Vector(&[0.75]), teacher, 1.0, gradient)
        };
        let got = at(Some(&[9.0]), &mut gradient);
        // In deviations the errors are 0.5 and -16.
        let (by_target, by_teacher) = (0.125, THRESHOLD * (16.0 - 0.5 * THRESHOLD));
        assert_eq!(got.loss, by_target);
        assert!((got.objective - (0.75 * by_target + 0.25 * by_teacher)).abs() < 1e-12);
        assert!((gradient[0] - (0.75 * 0.5 - 0.25 * THRESHOLD) / 0.5).abs() < 1e-12);
    }

    #[test]
    fn targets_and_scores_are_those_of_the_squared_error() {
        let check = |targets: Targets<'_>| Objective::<f32>::check(&OBJECTIVE, &targets, 1);
        assert!(check(Targets::vectors(&[1.0, 2.0], 1)).is_ok());
        let error = check(Targets::classes(&[0, 1])).unwrap_err().to_string();
        assert!(error.contains("got classes"), "{error}");
        let targets = Targets::vectors(&[0.0, 1.0, 2.0], 1);
        let predictions = [0.0f32, 1.0, 9.0];
        let squared = OBJECTIVE.squared_error();
        assert_eq!(
            OBJECTIVE.score(&predictions, &targets),
            squared.score(&predictions, &targets)
        );
        let mean = |of: &dyn Objective<f32>| (of.mean_error(8.0, 2.0), of.divergence(&targets, 1));
        assert_eq!(mean(&OBJECTIVE), mean(&squared));
    }
}
