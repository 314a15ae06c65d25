//! Validation error and ratio of a run at other thresholds.

use std::fmt;

use serde::Serialize;
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::report::{Align, SCHEMA, Table, count, ratio};
use sparsevd_compressor::trainer::{Observer, RunOptions, Silent, Trainer};
use sparsevd_compressor::{Layer, checkpoint};
use sparsevd_model::Network;

use crate::data::Data;
use crate::error::PipelineError;
use crate::normalised::with_batch_normalisation;
use crate::pruning::folded;
use crate::run_folder::RecordedRun;

/// What other thresholds would have given.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// Version of this layout.
    pub schema: u32,
    /// Weights of the original network.
    pub weights: usize,
    /// The threshold of the recipe.
    pub recipe_threshold: f64,
    /// One for each threshold, in their order.
    pub points: Vec<SweepPoint>,
}

/// What one threshold would have given, before fine-tuning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SweepPoint {
    /// Weights whose log alpha is above this are removed.
    pub threshold: f64,
    /// On the validation samples.
    #[serde(flatten)]
    pub score: SweepScore,
    /// Weights over weights left, where any is left.
    pub ratio: Option<f64>,
    /// Weights left.
    pub left: usize,
}

/// A validation score of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SweepScore {
    /// Of a classification.
    Error {
        /// Percent of wrong samples.
        validation_error_percent: f64,
    },
    /// Of a regression.
    Fit {
        /// Coefficient of determination.
        validation_r2: f64,
        /// Root mean squared error.
        validation_rmse: f64,
    },
}

impl From<Score> for SweepScore {
    fn from(score: Score) -> Self {
        match score {
            Score::Classes { .. } => Self::Error {
                validation_error_percent: score.error(),
            },
            Score::Regression { r2, rmse, .. } => Self::Fit {
                validation_r2: r2,
                validation_rmse: rmse,
            },
        }
    }
}

impl fmt::Display for Sweep {
    /// A table with a row for each threshold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("threshold", Align::Right),
            ("validation error", Align::Right),
            ("left", Align::Right),
            ("ratio", Align::Right),
        ]);
        for point in &self.points {
            table.row([
                point.threshold.to_string(),
                match point.score {
                    SweepScore::Error {
                        validation_error_percent,
                    } => format!("{validation_error_percent:.2} %"),
                    SweepScore::Fit { validation_r2, .. } => format!("R2 {validation_r2:.4}"),
                },
                count(point.left),
                (point.ratio).map_or("constant".into(), |ratio| format!("{ratio:.1}x")),
            ]);
        }
        table.fmt(f)
    }
}

/// Refuses thresholds that no rate can pass.
///
/// # Errors
/// A number that is not from -8 to 8.
pub fn check_thresholds(thresholds: &[f64]) -> Result<(), PipelineError> {
    match thresholds.iter().find(|t| !(-8.0..=8.0).contains(*t)) {
        None => Ok(()),
        Some(t) => Err(PipelineError::invalid(
            "thresholds",
            "numbers from -8 to 8",
            t.to_string(),
        )),
    }
}

impl RecordedRun {
    /// Scores the state at the end of the last `sparse-vd` phase, before fine-tuning, on the validation samples at other thresholds. Weights that were
    /// removed earlier stay removed.
    ///
    /// `network` is that of [`Self::model`]; `data` must be what the run began with, and may have moved since. `threads` of 0 is one for each core.
    ///
    /// # Errors
    /// Thresholds out of range, another network than that of the run, a run that has not done an epoch of `sparse-vd`.
    pub fn sweep(
        &self,
        mut network: Network,
        data: Data,
        thresholds: &[f64],
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Sweep, PipelineError> {
        check_thresholds(thresholds)?;
        let record = &self.record;
        network
            .graph
            .preprocessing
            .clone_from(&record.preprocessing);
        // As it was when the run began.
        let network = folded(network);
        let recipe = &record.recipe;
        let samples = data.split(&network, recipe, threads, &mut Silent)?;
        let network = with_batch_normalisation(&network, recipe, &samples, &mut Silent)?;
        let options = RunOptions {
            threads,
            run_folder: None,
        };
        let weights = network.original_weights();
        let mut trainer =
            Trainer::new(&network, record.recipe.clone(), samples.training, &options)?;
        trainer.resume(&self.folder, observer)?;
        let posterior = checkpoint::posterior_path(&self.folder);
        if !trainer.layers().iter().any(Layer::is_variational) && posterior.is_file() {
            trainer.resume_from(&posterior, observer)?;
        }
        if !trainer.layers().iter().any(Layer::is_variational) {
            return Err(PipelineError::invalid(
                self.folder.display(),
                "a run that has done an epoch of sparse-vd",
                "one without dropout rates",
            ));
        }
        let points = trainer.sweep(thresholds).into_iter();
        let points = points.map(|(threshold, score, left)| SweepPoint {
            threshold,
            score: score.into(),
            ratio: ratio(weights, left),
            left,
        });
        Ok(Sweep {
            schema: SCHEMA,
            weights,
            recipe_threshold: record.recipe.threshold,
            points: points.collect(),
        })
    }
}
