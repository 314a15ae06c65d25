//! A batch, and the report of its backward pass.

use crate::objective::{Objective, Targets};

/// A batch of training samples.
pub struct Batch<'a, T> {
    /// Number of samples.
    pub samples: usize,
    /// Fills the network's input (channels last) for a sample of the batch.
    pub fill: &'a (dyn Fn(usize, &mut [T]) + Sync),
    /// What is minimised.
    pub objective: &'a dyn Objective<T>,
    /// Target of each sample.
    pub targets: &'a Targets<'a>,
    /// Outputs of a teacher, `[samples][outputs]`.
    pub teacher: Option<&'a [T]>,
}

/// Loss and error of one backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepReport {
    /// Sum over the batch of the loss, in nats.
    pub loss: f64,
    /// Sum over the batch of the function that is differentiated, without the KL term: the loss mixed with that against the
    /// teacher.
    pub objective: f64,
    /// Sum over the batch of the samples' errors (under noise).
    pub error: f64,
}
