//! Validation of the state as it is.

use super::Trainer;
use super::prediction::predict_until;
use super::pruning::{survivors, under_threshold};
use crate::error::CompressError;
use crate::objective::{SampleErrors, Score};

/// Training samples that the loss of the dense network is the mean of.
const LOSS_SAMPLES: usize = 1000;

impl Trainer {
    /// Errors on the validation samples of the network that the run began with.
    ///
    /// # Errors
    /// None that a run which began does not give.
    pub fn dense_validation_errors(&mut self) -> Result<SampleErrors, CompressError> {
        let errors = self.dense_validation_errors_until(&mut || false)?;
        Ok(errors.unwrap_or_else(|| unreachable!("nothing stops it")))
    }

    /// The same; `None` where `stop` says so in between.
    pub(super) fn dense_validation_errors_until(
        &mut self,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<SampleErrors>, CompressError> {
        let dense = self.engine_in(&self.came, self.came.dense.clone())?;
        let now = std::mem::replace(&mut self.engine, dense);
        let errors = self.validation_errors_until(self.threshold(), stop);
        self.engine = now;
        Ok(errors)
    }

    /// Mean loss of the dense network without noise, in nats, on the first training samples.
    pub(super) fn dense_loss(&self) -> Result<f64, CompressError> {
        let samples = self.data.train();
        let count = samples.len().min(LOSS_SAMPLES);
        let mut engine = self.engine_in(&self.came, self.came.dense.clone())?;
        let fill = |i: usize, out: &mut [f32]| samples.fill(i, [0, 0], out);
        let length = |i| samples.length(i);
        let outputs = predict_until(&mut engine, count, &length, &fill, &[], &mut || false);
        let outputs = outputs.unwrap_or_else(|| unreachable!("nothing stops it"));
        let (objective, targets) = (self.plain_objective(), samples.targets());
        let mut gradient = vec![0.0; engine.outputs()];
        let rows = outputs.chunks_exact(engine.outputs()).enumerate();
        let losses = rows.map(|(i, outputs)| {
            let of_sample =
                objective.differentiate(outputs, targets.get(i), None, 1.0, &mut gradient);
            of_sample.loss
        });
        Ok(losses.sum::<f64>() / count as f64)
    }

    /// Score on the validation samples, without noise and without the weights over the threshold. Its numbers are NaN where
    /// there are no validation samples.
    pub fn validation_score(&mut self, threshold: f64) -> Score {
        self.validation_errors(threshold).score
    }

    /// The same with the errors of each sample.
    pub fn validation_errors(&mut self, threshold: f64) -> SampleErrors {
        let errors = self.validation_errors_until(threshold, &mut || false);
        errors.unwrap_or_else(|| unreachable!("nothing stops it"))
    }

    /// The same; `None` where `stop` says so in between.
    pub(super) fn validation_errors_until(
        &mut self,
        threshold: f64,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<SampleErrors> {
        let samples = self.data.validation();
        let keep = under_threshold(self.engine.layers(), threshold);
        let fill = |i: usize, out: &mut [f32]| samples.fill(i, [0, 0], out);
        let outputs = predict_until(
            &mut self.engine,
            samples.len(),
            &|i| samples.length(i),
            &fill,
            &keep,
            stop,
        )?;
        Some(self.errors(outputs, &samples.targets()))
    }

    /// The same with the average of the phase's parameters, where it keeps one.
    pub(super) fn averaged_validation_errors(
        &mut self,
        threshold: f64,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Option<SampleErrors>, CompressError> {
        if self.average.is_empty() {
            return Ok(self.validation_errors_until(threshold, stop));
        }
        let now = self.engine.state().clone();
        let average = std::mem::take(&mut self.average);
        self.replace_state(|state| average.apply(state))?;
        self.average = average;
        let errors = self.validation_errors_until(threshold, stop);
        self.replace_state(|state| *state = now)?;
        Ok(errors)
    }

    /// Validation score and weights left for each threshold.
    pub fn sweep(&mut self, thresholds: &[f64]) -> Vec<(f64, Score, usize)> {
        let row = |&threshold: &f64| {
            let left = survivors(self.engine.layers(), threshold);
            (threshold, self.validation_score(threshold), left)
        };
        thresholds.iter().map(row).collect()
    }
}
