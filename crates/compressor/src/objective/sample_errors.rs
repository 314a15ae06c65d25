//! Errors sample by sample, by which two networks are compared on the same samples.

use super::cross_entropy::is_wrong;
use super::score::Score;
use super::squared_error::error_units;
use super::targets::{Target, Targets};

/// A score, and what each sample adds to it.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleErrors {
    /// The score of all samples.
    pub score: Score,
    /// What each sample adds to it.
    pub samples: PerSample,
}

/// What each sample adds to a score.
#[derive(Debug, Clone, PartialEq)]
pub enum PerSample {
    /// Classification.
    Classes {
        /// Class of each sample.
        labels: Vec<u16>,
        /// Whether the largest output of each sample is that of another class.
        wrong: Vec<bool>,
    },
    /// Regression: terms with the sum `1 - R2`. That of a sample is the mean over the outputs of its squared error over the sum of
    /// the targets' squared deviations from their mean.
    Regression(Vec<f64>),
}

impl SampleErrors {
    /// Errors of predictions, `[samples][outputs]`, whose score is `score`.
    pub(super) fn new(score: Score, predictions: &[f32], targets: &Targets<'_>) -> Self {
        let outputs = (predictions.len() / targets.len().max(1)).max(1);
        let rows = predictions.chunks_exact(outputs);
        let samples = match targets {
            Targets::Classes(labels) => PerSample::Classes {
                labels: labels.to_vec(),
                wrong: rows
                    .zip(labels.iter())
                    .map(|(scores, &label)| is_wrong(scores, usize::from(label)))
                    .collect(),
            },
            Targets::Vectors { outputs, values } => {
                let deviations = error_units(values, *outputs);
                let term = |(i, row): (usize, &[f32])| {
                    let Target::Vector(target) = targets.get(i) else {
                        return f64::NAN;
                    };
                    let errors = row.iter().zip(target);
                    let errors = errors.map(|(&y, &t)| (f64::from(y) - f64::from(t)).powi(2));
                    let shares = errors.zip(&deviations).map(|(e, d)| e / d);
                    shares.sum::<f64>() / *outputs as f64
                };
                PerSample::Regression(rows.enumerate().map(term).collect())
            }
        };
        Self { score, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::sample_errors;

    #[test]
    fn classes_are_wrong_where_the_score_counts_them() {
        let labels = [1, 0, 1];
        let predictions = [0.0, 1.0, 0.0, 1.0, f32::NAN, f32::NAN];
        let got = sample_errors(&predictions, &Targets::classes(&labels));
        let (samples, wrong) = (3, 2);
        assert_eq!(got.score, Score::Classes { samples, wrong });
        let wrong = vec![false, true, true];
        let labels = labels.to_vec();
        assert_eq!(got.samples, PerSample::Classes { labels, wrong });
    }

    #[test]
    fn terms_of_a_regression_add_up_to_what_is_not_explained() {
        let targets = [0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0];
        let predictions = [0.0, 2.0, 1.0, 2.0, 2.0, 2.0, 4.0, 2.0];
        let got = sample_errors(&predictions, &Targets::vectors(&targets, 2));
        let PerSample::Regression(terms) = &got.samples else {
            panic!("{got:?}")
        };
        // Squared deviations are 5 and 4.
        let want = [0.125, 0.125, 0.125, 0.5 * (1.0 / 5.0 + 1.0 / 4.0)];
        for (got, want) in terms.iter().zip(want) {
            assert!((got - want).abs() < 1e-12, "{terms:?}");
        }
        let r2 = got.score.r2().unwrap();
        assert!((1.0 - terms.iter().sum::<f64>() - r2).abs() < 1e-12);
    }
}
