//! Scores before and after, and the promise about them.

use serde::{Deserialize, Serialize};

use crate::objective::Score;
use crate::recipe::Recipe;

/// Scores of the dense and of the compressed network, both run by the runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// On the validation samples, which the promise is about.
    pub validation: SplitScore,
    /// On the test samples, where the data set has any.
    pub test: Option<SplitScore>,
    /// The promise.
    pub promise: Promise,
}

/// Scores on one set of samples.
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
}

/// How well networks fit one set of samples; see [`Score::Regression`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitFit {
    /// Samples.
    pub samples: usize,
    /// R2 of the dense network.
    pub dense_r2: f64,
    /// R2 of the compressed network.
    pub sparse_r2: f64,
    /// Root mean squared error of the dense network.
    pub dense_rmse: f64,
    /// Root mean squared error of the compressed network.
    pub sparse_rmse: f64,
}

impl SplitScore {
    /// Puts the scores of both networks on the same samples together.
    pub fn new(dense: &Score, sparse: &Score) -> Self {
        match (dense.r2(), sparse.r2()) {
            (Some(dense_r2), Some(sparse_r2)) => Self::Fit(SplitFit {
                samples: sparse.samples(),
                dense_r2,
                sparse_r2,
                dense_rmse: dense.error(),
                sparse_rmse: sparse.error(),
            }),
            _ => Self::Errors(SplitError {
                images: sparse.samples(),
                dense_percent: dense.error(),
                sparse_percent: sparse.error(),
            }),
        }
    }

    /// What compression cost: points of accuracy, or R2; negative where it helped.
    pub fn drop(&self) -> f64 {
        match self {
            Self::Errors(e) => e.sparse_percent - e.dense_percent,
            Self::Fit(f) => f.dense_r2 - f.sparse_r2,
        }
    }
}

/// What was promised about the scores, and whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Points of validation error that the result of a classification may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// R2 on validation that the result of a regression may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_r2_drop: Option<f64>,
    /// Points or R2 that it lost.
    pub drop: f64,
    /// Whether it lost no more.
    pub kept: bool,
}

impl Promise {
    /// Holds a result against what a recipe lets it lose.
    pub fn new(recipe: &Recipe, validation: &SplitScore) -> Self {
        let [accuracy, r2] = match validation {
            SplitScore::Errors(_) => [Some(recipe.max_accuracy_drop), None],
            SplitScore::Fit(_) => [None, Some(recipe.max_r2_drop())],
        };
        let drop = validation.drop();
        let most = accuracy.or(r2).unwrap_or_default();
        // Percentages of whole images: a billionth is rounding.
        Self {
            max_accuracy_drop: accuracy,
            max_r2_drop: r2,
            drop,
            kept: drop <= most + 1e-9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_up_to_its_last_image() {
        let wrong = |wrong| Score::Classes {
            samples: 1000,
            wrong,
        };
        let kept = |most, sparse| {
            let recipe = Recipe {
                max_accuracy_drop: most,
                ..Recipe::new(vec![])
            };
            let split = SplitScore::new(&wrong(18), &wrong(sparse));
            Promise::new(&recipe, &split).kept
        };
        assert!(kept(0.5, 23));
        assert!(!kept(0.5, 24));
        assert!(kept(0.0, 10), "better than before");
    }

    #[test]
    fn a_regression_promises_its_r2() {
        let fit = |r2| Score::Regression {
            samples: 10,
            r2,
            rmse: 1.0 - r2,
        };
        let recipe = Recipe {
            max_r2_drop: Some(0.05),
            ..Recipe::new(vec![])
        };
        let promise = |sparse| Promise::new(&recipe, &SplitScore::new(&fit(0.9), &fit(sparse)));
        assert!(promise(0.85).kept && !promise(0.84).kept);
        let json = serde_json::to_value(promise(0.95)).unwrap();
        assert!(json.get("max_accuracy_drop").is_none());
        assert_eq!(json["max_r2_drop"], 0.05);
        let split = SplitScore::new(&fit(0.9), &fit(0.8));
        let text = serde_json::to_string(&split).unwrap();
        assert_eq!(serde_json::from_str::<SplitScore>(&text).unwrap(), split);
    }
}
