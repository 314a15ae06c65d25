//! Errors before and after, and the promise about them.

use serde::{Deserialize, Serialize};

/// Errors of the dense and of the compressed network, both run by the runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// On the validation images, which the promise is about.
    pub validation: SplitError,
    /// On the test images, where the data set has any.
    pub test: Option<SplitError>,
    /// The promise.
    pub promise: Promise,
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

impl SplitError {
    /// Points of accuracy that compression cost; negative where it helped.
    pub fn drop(&self) -> f64 {
        self.sparse_percent - self.dense_percent
    }
}

/// What was promised about accuracy, and whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Points of validation error that the result may lose.
    pub max_accuracy_drop: f64,
    /// Points that it lost.
    pub drop: f64,
    /// Whether it lost no more.
    pub kept: bool,
}

impl Promise {
    /// Holds a result against the points that it may lose.
    pub fn new(max_accuracy_drop: f64, validation: &SplitError) -> Self {
        let drop = validation.drop();
        // Percentages of whole images: a billionth is rounding.
        Self {
            max_accuracy_drop,
            drop,
            kept: drop <= max_accuracy_drop + 1e-9,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_up_to_its_last_image() {
        let error = |sparse_percent| SplitError {
            images: 1000,
            dense_percent: 1.8,
            sparse_percent,
        };
        assert!(Promise::new(0.5, &error(2.3)).kept);
        assert!(!Promise::new(0.5, &error(2.4)).kept);
        assert!(Promise::new(0.0, &error(1.0)).kept, "better than before");
    }
}
