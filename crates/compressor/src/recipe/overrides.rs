//! Settings of a command line or a program over those of a recipe.

use super::search::Goal;
use super::validation::Validation;
use crate::objective::ClassWeights;
use crate::variational::Granularity;

/// Settings that replace those of a recipe; `None` keeps the recipe's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// Seed.
    pub seed: Option<u64>,
    /// Where validation samples come from.
    pub validation: Option<Validation>,
    /// Threshold on `log_alpha`. Pruning during a phase keeps every weight that this threshold keeps.
    pub threshold: Option<f64>,
    /// Factor on the KL term of every sparse-vd phase.
    pub kl_scale: Option<f64>,
    /// Which weights share a dropout rate.
    pub alpha: Option<Granularity>,
    /// Layers that lose no weights.
    pub keep_dense: Option<Vec<String>>,
    /// Points of validation error that the result may lose.
    pub max_accuracy_drop: Option<f64>,
    /// Percent of validation samples to which the result must answer as the dense network does, of samples without targets: 100 less
    /// the points of error.
    pub min_agreement: Option<f64>,
    /// Regression: R2 on validation that the result may lose.
    pub max_r2_drop: Option<f64>,
    /// Points of recall that the result may lose of any class.
    pub max_class_drop: Option<f64>,
    /// How much each class counts in the loss.
    pub class_weights: Option<ClassWeights>,
    /// Epochs of every phase.
    pub epochs: Option<u32>,
    /// Whether layers get int8 grids at the end, as a recipe without settings of its own for that does by default.
    pub int8: bool,
    /// What a search is to reach; a recipe without a search gets one.
    pub goal: Option<Goal>,
}
