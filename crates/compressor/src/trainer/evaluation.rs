//! Validation of the state as it is.

use super::Trainer;
use super::pruning::{survivors, under_threshold};
use crate::engine::arg_max;
use crate::error::CompressError;

impl Trainer {
    /// Validation images that the dense network has wrong, in percent.
    pub(super) fn dense_validation_error(&mut self) -> Result<f64, CompressError> {
        let now = self.engine.state().clone();
        let dense = self.dense.clone();
        self.replace_state(|state| *state = dense)?;
        let error = self.validation_error(self.recipe.threshold);
        self.replace_state(|state| *state = now)?;
        Ok(error)
    }

    /// Validation images that are wrong, in percent, without the weights over the threshold.
    pub fn validation_error(&mut self, threshold: f64) -> f64 {
        let images = self.data.validation();
        if images.is_empty() {
            return f64::NAN;
        }
        let keep = under_threshold(self.engine.layers(), threshold);
        let scores =
            self.engine
                .predict(images.len(), &|i, out| images.fill(i, [0, 0], out), &keep);
        let classes = self.engine.classes();
        let wrong = scores
            .chunks_exact(classes)
            .zip(images.labels())
            .filter(|(s, l)| arg_max(s) != usize::from(**l))
            .count();
        100.0 * wrong as f64 / images.len() as f64
    }

    /// Validation error in percent and weights left for each threshold.
    pub fn sweep(&mut self, thresholds: &[f64]) -> Vec<(f64, f64, usize)> {
        let row = |&threshold: &f64| {
            let left = survivors(self.engine.layers(), threshold);
            (threshold, self.validation_error(threshold), left)
        };
        thresholds.iter().map(row).collect()
    }
}
