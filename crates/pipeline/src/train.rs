//! Dense networks from scratch.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sparsevd_compressor::architecture::Architecture;
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{NO_TEST, SCHEMA, Task};
use sparsevd_compressor::trainer::{EpochRecord, Observer};
use sparsevd_compressor::{fit_outputs, initialise};
use sparsevd_format::{GraphSource, read_network, write_network};
use sparsevd_model::{Network, passes};
use sparsevd_runtime::WeightMode;

use crate::choices::TrainingChoices;
use crate::data::Data;
use crate::error::PipelineError;
use crate::input::absolute_source;
use crate::measure::Scores;
use crate::outputs::{check_interchange, with_recipe};
use crate::recipe::FoundRecipe;
use crate::run_folder::{RunFolder, record};
use crate::split::Split;
use crate::training::train;

/// The training of a dense network that has not begun.
#[derive(Debug, Clone)]
pub struct Training {
    architecture: Architecture,
    source: Option<String>,
    data: Data,
    recipe: FoundRecipe,
    folder: Option<RunFolder>,
    threads: usize,
}

impl Training {
    /// Trains a network of this architecture from weights of the recipe's seed. Data in bytes become its input by the
    /// preprocessing of its graph; where that is not set, they become 0 to 1. So do the features of a table; where
    /// the graph does not store its columns, they get mean 0 and deviation 1.
    pub fn new(architecture: Architecture, data: Data, recipe: impl Into<FoundRecipe>) -> Self {
        Self {
            architecture,
            source: None,
            data,
            recipe: recipe.into(),
            folder: None,
            threads: 0,
        }
    }

    /// Says where the architecture came from, a preset's name or a file, for the record of the run.
    #[must_use]
    pub fn of(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Keeps checkpoints in a folder, so that the run can go on after an interruption.
    #[must_use]
    pub fn in_folder(mut self, folder: RunFolder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Uses this many threads; 0, the default, is one for each core. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Trains.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`] where the observer stops the run; settings, data or files that are at fault.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Trained, PipelineError> {
        if let Some(folder) = &self.folder {
            folder.check()?;
        }
        let Architecture { graph, tensors } = self.architecture;
        let mut network = initialise(graph, &tensors, self.recipe.recipe.seed)?;
        let takes_ids = network.graph.inputs.iter().any(|i| i.dtype.is_id());
        let preprocessing = &mut network.graph.preprocessing;
        if self.data.is_bytes() && !takes_ids {
            preprocessing.get_or_insert_with(Default::default);
        } else if let Some(standardised) = self.data.standardised() {
            // Presets store how pixels become their input, which says nothing of columns.
            let stored = preprocessing.take().filter(|p| p.table.is_some());
            *preprocessing = stored.or(Some(standardised));
        }
        let recipe = &self.recipe.recipe;
        if recipe.quantise_activations.is_some() {
            let expected = "none in training; `compress` ends with int8 layers";
            let got = "a table of that name";
            return Err(PipelineError::invalid(
                "quantise_activations",
                expected,
                got,
            ));
        }
        let data = self.data.path().map(PathBuf::from);
        if !self.data.has_targets() {
            let expected = "labels or numbers as targets to train on";
            return Err(PipelineError::invalid("data set", expected, "inputs alone"));
        }
        let samples = (self.data).split(&network, recipe, self.threads, observer)?;
        let network = fit_outputs(network, &samples.training.train().targets());
        TrainingChoices {
            recipe,
            network: &network,
            pruned: None,
            samples: Some(&samples),
            threads: self.threads,
        }
        .tell(observer)?;
        let record = match (&self.source, &data) {
            (Some(source), Some(data)) => {
                let task = Task::Train {
                    network: absolute_source(source)?,
                };
                let preprocessing = network.graph.preprocessing.clone();
                Some(record(task, data, &self.recipe, preprocessing)?)
            }
            _ => None,
        };
        let trainer = train(
            &network,
            recipe,
            samples.training.clone(),
            self.folder.as_ref(),
            record.as_ref(),
            self.threads,
            observer,
        )?;
        let trained = trainer.network()?.to_dense();
        Ok(Trained {
            network: passes::fold_batch_normalization(&trained).unwrap_or(trained),
            history: trainer.history().to_vec(),
            recipe: self.recipe,
            samples,
            threads: self.threads,
        })
    }
}

/// The result of a [`Training`].
#[derive(Debug)]
pub struct Trained {
    /// The dense network. Batch normalisation is part of the layer before it, where that is exact.
    pub network: Network,
    /// Every epoch.
    pub history: Vec<EpochRecord>,
    /// The recipe that was followed.
    pub recipe: FoundRecipe,
    samples: Split,
    threads: usize,
}

impl Trained {
    /// Writes the network as a safetensors file, reads it back, and measures what came back. A file that exists is overwritten.
    ///
    /// # Errors
    /// Another ending than `.safetensors`; a file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<TrainingReport<'_>, PipelineError> {
        let path = path.as_ref();
        Self::check(path)?;
        let recipe = &self.recipe.recipe;
        write_network(path, &self.network, &with_recipe(BTreeMap::new(), recipe))?;
        let written = read_network(path, &GraphSource::Auto)?.network;
        let scores = Scores::of(&written, WeightMode::Dense, &self.samples, self.threads)?;
        Ok(TrainingReport {
            schema: SCHEMA,
            weights: written.original_weights(),
            network: written.graph.name,
            output: path.to_owned(),
            seed: recipe.seed,
            recipe,
            validation: scores.validation.score.into(),
            test: scores.test.as_ref().map(|test| test.score.into()),
            history: &self.history,
            scores,
        })
    }

    /// Checks that a trained network can be written in the form that the ending of `path` names.
    ///
    /// # Errors
    /// Another ending than `.safetensors`.
    pub fn check(path: &Path) -> Result<(), PipelineError> {
        check_interchange(path)
    }
}

/// Everything about one training.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingReport<'a> {
    /// Version of this layout.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// The file that was written.
    pub output: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// The recipe, as it was followed.
    pub recipe: &'a Recipe,
    /// Weights.
    pub weights: usize,
    /// On the validation samples.
    pub validation: ScoreReport,
    /// On the test samples, where the data set has any.
    pub test: Option<ScoreReport>,
    /// Every epoch.
    pub history: &'a [EpochRecord],
    /// The scores once more, as they are computed.
    #[serde(skip)]
    pub scores: Scores,
}

impl fmt::Display for TrainingReport<'_> {
    /// The scores, and the file that was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let validation = self.scores.validation.score;
        let test = self.scores.test.as_ref().map(|test| test.score);
        let samples = match validation {
            Score::Classes { .. } => "images",
            Score::Regression { .. } => "samples",
        };
        let test = test.map_or(format!(" ({NO_TEST})"), |t| {
            format!(", test {t} of {}", t.samples())
        });
        write!(
            f,
            "{}: validation {validation} of {} {samples}{test}; wrote {}",
            self.network,
            validation.samples(),
            self.output.display()
        )
    }
}

/// A score in a report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScoreReport {
    /// Of a classification.
    Classes {
        /// Images.
        images: usize,
        /// Percent that the network gets wrong.
        error_percent: f64,
    },
    /// Of a regression.
    Regression {
        /// Samples.
        samples: usize,
        /// Coefficient of determination.
        r2: f64,
        /// Root mean squared error.
        rmse: f64,
    },
}

impl From<Score> for ScoreReport {
    fn from(score: Score) -> Self {
        match score {
            Score::Classes { samples, .. } => Self::Classes {
                images: samples,
                error_percent: score.error(),
            },
            Score::Regression { samples, r2, rmse } => Self::Regression { samples, r2, rmse },
        }
    }
}
