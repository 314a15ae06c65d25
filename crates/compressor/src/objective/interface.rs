//! The interface of objectives: losses, gradients and scores.

use std::fmt::Debug;

use sparsevd_kernels::training::Real;

use super::score::Score;
use super::targets::{Target, Targets};
use crate::error::CompressError;

/// Loss and error of one sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SampleLoss {
    /// Negative log-likelihood of the target up to a constant, in nats.
    pub loss: f64,
    /// The function that is differentiated: the loss, mixed with that against the teacher where there is one.
    pub objective: f64,
    /// Error; [`Objective::mean_error`] turns sums of it into the error of several samples.
    pub error: f64,
}

/// What training minimises.
///
/// # Panics
/// Methods may panic for targets that [`Objective::check`] refuses.
pub trait Objective<T: Real>: Debug + Send + Sync {
    /// Checks that targets are those of this objective for a network of `outputs` outputs per sample.
    ///
    /// # Errors
    /// Targets of another kind, of another length, or out of range.
    fn check(&self, targets: &Targets<'_>, outputs: usize) -> Result<(), CompressError>;

    /// Loss of one sample; its gradient by the outputs, times `scale`, overwrites `gradient`.
    fn differentiate(
        &self,
        outputs: &[T],
        target: Target<'_>,
        teacher: Option<&[T]>,
        scale: f64,
        gradient: &mut [T],
    ) -> SampleLoss;

    /// Error of `samples` samples whose errors have the sum `sum`: percent of wrong classes, or root mean squared error.
    fn mean_error(&self, sum: f64, samples: f64) -> f64;

    /// Mean loss of an epoch above which a run has diverged.
    fn divergence(&self, targets: &Targets<'_>, outputs: usize) -> f64;

    /// Score of predictions, `[samples][outputs]`.
    fn score(&self, predictions: &[T], targets: &Targets<'_>) -> Score;
}
