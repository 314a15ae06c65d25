//! A batch, and the report of its backward pass.

use crate::layers::loss::Distillation;

/// A batch of training samples.
pub struct Batch<'a, T> {
    /// Number of samples.
    pub samples: usize,
    /// Fills the network's input (channels last) for a sample of the batch.
    pub fill: &'a (dyn Fn(usize, &mut [T]) + Sync),
    /// Class of each sample.
    pub labels: &'a [u16],
    /// Scores of a teacher, `[samples][classes]`, and how they count.
    pub teacher: Option<(&'a [T], Distillation)>,
}

/// Loss and errors of one backward pass.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepReport {
    /// Sum over the batch of the cross-entropy with the labels, in nats.
    pub loss: f64,
    /// Sum over the batch of the function that is differentiated, without the KL term: that loss mixed with the teacher's.
    pub objective: f64,
    /// Samples whose largest score (under noise) was not their label's.
    pub errors: usize,
}

/// Index of the largest score; the first of equals.
pub fn arg_max<T: PartialOrd>(scores: &[T]) -> usize {
    let mut best = 0;
    for (i, s) in scores.iter().enumerate() {
        if *s > scores[best] {
            best = i;
        }
    }
    best
}
