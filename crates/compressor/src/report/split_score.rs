//! Scores of two networks on the same samples.

use serde::{Deserialize, Serialize};

use super::json::number;
use super::paired::{DropEstimate, mcnemar_p, samples_for};
use crate::objective::{PerSample, SampleErrors};

/// Scores of the dense and of the compressed network on one set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SplitScore {
    /// Of a classification.
    Errors(SplitError),
    /// Of a regression.
    Fit(SplitFit),
}

/// Errors on one set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitError {
    /// Images.
    pub images: usize,
    /// Percent that the dense network gets wrong.
    pub dense_percent: f64,
    /// Percent that the compressed network gets wrong.
    pub sparse_percent: f64,
    /// Images that the dense network alone gets wrong.
    pub dense_only_wrong: usize,
    /// Images that the compressed network alone gets wrong.
    pub sparse_only_wrong: usize,
    /// McNemar's exact two-sided p of these two numbers.
    pub mcnemar_p: f64,
    /// Points of error that compression cost.
    #[serde(flatten)]
    pub estimate: DropEstimate,
}

/// How well networks fit one set of samples; see [`Score::Regression`](crate::objective::Score::Regression).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitFit {
    /// Samples.
    pub samples: usize,
    /// R2 of the dense network.
    #[serde(deserialize_with = "number")]
    pub dense_r2: f64,
    /// R2 of the compressed network.
    #[serde(deserialize_with = "number")]
    pub sparse_r2: f64,
    /// Root mean squared error of the dense network.
    #[serde(deserialize_with = "number")]
    pub dense_rmse: f64,
    /// Root mean squared error of the compressed network.
    #[serde(deserialize_with = "number")]
    pub sparse_rmse: f64,
    /// R2 that compression cost.
    #[serde(flatten)]
    pub estimate: DropEstimate,
}

impl SplitScore {
    /// Puts the errors of both networks on the same samples together.
    ///
    /// # Panics
    /// When one is of classes and the other of numbers.
    #[track_caller]
    pub fn new(dense: &SampleErrors, sparse: &SampleErrors) -> Self {
        match (&dense.samples, &sparse.samples) {
            (PerSample::Classes { wrong, .. }, PerSample::Classes { wrong: after, .. }) => {
                let pairs = || wrong.iter().zip(after);
                let dense_only_wrong = pairs().filter(|(dense, sparse)| **dense && !**sparse);
                let sparse_only_wrong = pairs().filter(|(dense, sparse)| !**dense && **sparse);
                let [b, c] = [dense_only_wrong.count(), sparse_only_wrong.count()];
                Self::Errors(SplitError {
                    images: wrong.len(),
                    dense_percent: dense.score.error(),
                    sparse_percent: sparse.score.error(),
                    dense_only_wrong: b,
                    sparse_only_wrong: c,
                    mcnemar_p: mcnemar_p(b, c),
                    estimate: DropEstimate::of_classes(wrong.len(), b, c),
                })
            }
            (PerSample::Regression(terms), PerSample::Regression(after)) => {
                let r2 = |errors: &SampleErrors| errors.score.r2().unwrap_or(f64::NAN);
                let (dense_r2, sparse_r2) = (r2(dense), r2(sparse));
                Self::Fit(SplitFit {
                    samples: terms.len(),
                    dense_r2,
                    sparse_r2,
                    dense_rmse: dense.score.error(),
                    sparse_rmse: sparse.score.error(),
                    estimate: DropEstimate::of_regression(dense_r2 - sparse_r2, terms, after),
                })
            }
            (PerSample::Classes { .. }, PerSample::Regression(_))
            | (PerSample::Regression(_), PerSample::Classes { .. }) => {
                panic!("errors of classes and of numbers are not of the same samples")
            }
        }
    }

    /// What compression cost: points of accuracy, or R2; negative where it helped.
    pub fn drop(&self) -> f64 {
        self.estimate().drop
    }

    /// What compression cost, with its bounds.
    pub fn estimate(&self) -> &DropEstimate {
        match self {
            Self::Errors(e) => &e.estimate,
            Self::Fit(f) => &f.estimate,
        }
    }

    /// Samples.
    pub fn samples(&self) -> usize {
        match self {
            Self::Errors(e) => e.images,
            Self::Fit(f) => f.samples,
        }
    }

    /// Number of samples, about, on which the standard error of the drop would be `standard_error`, if the networks differed on the same
    /// share of them.
    pub fn samples_for(&self, standard_error: f64) -> usize {
        let needed = match self {
            Self::Errors(e) => {
                let differ = e.dense_only_wrong + e.sparse_only_wrong;
                samples_for(standard_error, differ as f64 / e.images as f64)
            }
            Self::Fit(f) => f.samples as f64 * (f.estimate.standard_error / standard_error).powi(2),
        };
        needed.ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Targets, sample_errors};

    /// Errors of a network that is wrong where `wrong` says so.
    fn errors(wrong: &[bool]) -> SampleErrors {
        let scores: Vec<f32> = wrong
            .iter()
            .flat_map(|&wrong| if wrong { [0.0, 1.0] } else { [1.0, 0.0] })
            .collect();
        sample_errors(&scores, &Targets::classes(&vec![0; wrong.len()]))
    }

    #[test]
    fn pairs_of_classes_are_counted() {
        let dense = errors(&[true, true, false, false, false]);
        let sparse = errors(&[true, false, true, true, false]);
        let score = SplitScore::new(&dense, &sparse);
        let SplitScore::Errors(e) = score else {
            panic!("{score:?}")
        };
        assert_eq!(
            (e.images, e.dense_only_wrong, e.sparse_only_wrong),
            (5, 1, 2)
        );
        assert_eq!((e.dense_percent, e.sparse_percent), (40.0, 60.0));
        assert!((e.estimate.drop - 20.0).abs() < 1e-9 && e.mcnemar_p == 1.0);
        let text = serde_json::to_string(&score).unwrap();
        assert!(text.contains("\"drop_upper_95\":"), "{text}");
        assert_eq!(serde_json::from_str::<SplitScore>(&text).unwrap(), score);
    }

    #[test]
    fn a_regression_has_the_standard_error_of_its_terms() {
        let targets = [1.0, 2.0, 3.0, 4.0];
        let of =
            |predictions: [f32; 4]| sample_errors(&predictions, &Targets::vectors(&targets, 1));
        let (dense, sparse) = (of([1.0, 2.0, 3.0, 3.0]), of([1.0, 1.0, 3.0, 6.0]));
        let score = SplitScore::new(&dense, &sparse);
        // Squared deviations are 5; the terms differ by 0, 1 / 5, 0 and 3 / 5.
        let estimate = score.estimate();
        assert!((estimate.drop - 0.8).abs() < 1e-12);
        let variance = (0.04 + 0.0 + 0.04 + 0.16) / 3.0;
        assert!((estimate.standard_error - (4.0_f64 * variance).sqrt()).abs() < 1e-12);
        let text = serde_json::to_string(&score).unwrap();
        assert_eq!(serde_json::from_str::<SplitScore>(&text).unwrap(), score);
        // A quarter of the error takes sixteen times the samples.
        let needed = score.samples_for(0.25 * estimate.standard_error);
        assert!((64..=65).contains(&needed), "{needed}");
    }

    #[test]
    fn the_samples_that_a_standard_error_takes_have_it() {
        let mut wrong = vec![false; 100];
        let dense = errors(&wrong);
        for differ in [0, 3] {
            wrong[..differ].fill(true);
            let needed = SplitScore::new(&dense, &errors(&wrong)).samples_for(0.5);
            let differ = differ * needed / 100;
            let there = DropEstimate::of_classes(needed, 0, differ).standard_error;
            assert!((0.45..0.52).contains(&there), "{needed}: {there}");
        }
    }
}
