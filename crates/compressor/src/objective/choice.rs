//! The objective that targets have.

use super::Objective;
use super::cross_entropy::{CrossEntropy, Distillation};
use super::score::Score;
use super::squared_error::SquaredError;
use super::targets::Targets;

/// The cross-entropy for classes, the squared error for numbers with noise of some `deviation`.
pub fn for_targets(
    targets: &Targets<'_>,
    distillation: Distillation,
    deviation: f64,
) -> Box<dyn Objective<f32>> {
    match targets {
        Targets::Classes(_) => Box::new(CrossEntropy { distillation }),
        Targets::Vectors { .. } => Box::new(SquaredError {
            deviation,
            share: distillation.share,
        }),
    }
}

/// Score of predictions, `[samples][outputs]`, which does not depend on the settings of the objective.
pub fn score_predictions(predictions: &[f32], targets: &Targets<'_>) -> Score {
    for_targets(targets, Distillation::NONE, 1.0).score(predictions, targets)
}
