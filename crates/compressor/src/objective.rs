//! Objectives: what training minimises, and how results are measured.
//!
//! An [`Objective`] gives the loss of a sample, the negative log-likelihood of its target up to a constant, with its gradient
//! by the network's outputs, and the [`Score`] of the outputs for a set of samples. A [`Loss`] names one in a recipe.

mod class_weights;
mod cross_entropy;
mod huber;
mod interface;
mod sample_errors;
mod scaled;
mod score;
mod squared_error;
mod targets;

use serde::{Deserialize, Serialize};

pub use class_weights::ClassWeights;
pub(crate) use class_weights::Weighted;
pub use cross_entropy::{CrossEntropy, Distillation, arg_max};
pub use huber::Huber;
pub use interface::{Objective, SampleLoss};
pub use sample_errors::{PerSample, SampleErrors};
pub(crate) use scaled::Scaled;
pub use score::Score;
pub use squared_error::SquaredError;
pub use targets::{Target, Targets};

/// The objectives by their names in recipes, as in `loss = "squared-error"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// [`CrossEntropy`].
    CrossEntropy,
    /// [`SquaredError`].
    SquaredError,
    /// [`Huber`].
    Huber,
}

impl Loss {
    /// The loss of targets where the recipe names none: the cross-entropy for classes, the squared error for numbers.
    pub fn of(targets: &Targets<'_>) -> Self {
        match targets {
            Targets::Classes(_) => Self::CrossEntropy,
            Targets::Vectors { .. } => Self::SquaredError,
        }
    }

    /// The objective, mixed with that against a teacher; `smoothing` is the share of labels that is spread over all classes, `deviation`
    /// the standard deviation of the noise of targets that are numbers.
    pub fn objective(
        self,
        distillation: Distillation,
        smoothing: f64,
        deviation: f64,
    ) -> Box<dyn Objective<f32>> {
        let share = distillation.share;
        match self {
            Self::CrossEntropy => Box::new(CrossEntropy {
                distillation,
                smoothing,
            }),
            Self::SquaredError => Box::new(SquaredError { deviation, share }),
            Self::Huber => Box::new(Huber { deviation, share }),
        }
    }
}

/// Score of predictions, `[samples][outputs]`, which does not depend on the loss that they were trained by.
pub fn score_predictions(predictions: &[f32], targets: &Targets<'_>) -> Score {
    let objective = Loss::of(targets).objective(Distillation::NONE, 0.0, 1.0);
    objective.score(predictions, targets)
}

/// The same score, with what each sample adds to it.
pub fn sample_errors(predictions: &[f32], targets: &Targets<'_>) -> SampleErrors {
    SampleErrors::new(
        score_predictions(predictions, targets),
        predictions,
        targets,
    )
}
