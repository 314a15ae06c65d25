//! Training the cells of a comparison: from the posterior of a seed, or alone.

use std::collections::BTreeMap;
use std::path::Path;

use sparsevd_compressor::checkpoint;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::SCHEMA;
use sparsevd_compressor::trainer::{Observer, Trainer};
use sparsevd_format::{GraphSource, read_network};
use sparsevd_model::Network;
use sparsevd_runtime::WeightMode;

use super::cell::Cell;
use super::files::files;
use super::record::CompareRecord;
use super::stored::{StoredCell, StoredErrors};
use crate::error::PipelineError;
use crate::measure::Scores;
use crate::posterior::Posterior;
use crate::pruning::finish;
use crate::run_folder::{POSTERIOR, RunFolder};
use crate::split::Split;
use crate::training::{begin, finished};

/// Trains cells one after another.
pub(super) struct CellTrainer<'a> {
    /// The network that every cell begins with.
    pub network: &'a Network,
    /// Weights of the network as it came, of which gradual pruning begins.
    pub dense: usize,
    /// The recipe of the comparison.
    pub base: &'a Recipe,
    /// What the comparison began with.
    pub record: &'a CompareRecord,
    pub samples: &'a Split,
    /// The folder of the comparison.
    pub folder: &'a Path,
    /// Metadata of the input, which goes along to every network.
    pub metadata: &'a BTreeMap<String, String>,
    pub threads: usize,
    /// The seed that was last trained with Sparse VD, at the end of its sparse-vd phases.
    pub posterior: Option<(u64, Posterior)>,
}

impl CellTrainer<'_> {
    /// Trains a cell, writes its network and its result, and removes its checkpoints.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`] where the observer stops it; errors of a run; files that cannot be written.
    pub fn train(
        &mut self,
        cell: &Cell,
        observer: &mut dyn Observer,
    ) -> Result<StoredCell, PipelineError> {
        let folder = cell.folder(self.folder);
        let mut posterior_weights = None;
        let trainer = match cell.method.gradual() {
            Some(_) => self.alone(cell, &folder, observer)?,
            None => {
                let posterior = self.posterior(cell.seed, observer)?;
                posterior_weights = Some(posterior.trainer.survivors());
                let part = RunFolder::part(folder.clone());
                let mut trainer = posterior.fork_to(cell.weights, Some(&part), observer)?;
                self.run(&mut trainer, observer)?;
                trainer
            }
        };
        let stored = self.finish(cell, posterior_weights, &trainer, &folder)?;
        clear(&folder)?;
        Ok(stored)
    }

    /// Runs a recipe from its beginning.
    fn alone(
        &self,
        cell: &Cell,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Trainer, PipelineError> {
        let recipe = cell.recipe(self.base, self.dense)?;
        let mut trainer = self.begin(&recipe, folder, observer)?;
        self.run(&mut trainer, observer)?;
        Ok(trainer)
    }

    /// The run of a seed at the end of the phases that make the posterior. Its checkpoint is kept for ratios that are added later.
    fn posterior(
        &mut self,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<&Posterior, PipelineError> {
        let known = self.posterior.take().filter(|(of, _)| *of == seed);
        let posterior = match known {
            Some((_, posterior)) => posterior,
            None => {
                let folder = self.folder.join(format!("{POSTERIOR}seed-{seed}"));
                let recipe = Recipe {
                    seed,
                    ..self.base.clone()
                };
                let trainer = self.begin(&recipe, &folder, observer)?;
                let name = format!("the posterior of seed {seed}");
                let (all, root) = (self.network.original_weights(), self.root());
                let posterior = Posterior::train(trainer, &name, all, Some(&root), observer)?;
                keep_checkpoint_alone(&folder)?;
                posterior
            }
        };
        let (_, posterior) = self.posterior.insert((seed, posterior));
        Ok(posterior)
    }

    /// A run in a folder, at its beginning or at its checkpoint.
    fn begin(
        &self,
        recipe: &Recipe,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Trainer, PipelineError> {
        let part = RunFolder::part(folder.to_owned());
        let data = self.samples.training.clone();
        let threads = self.threads;
        begin(
            self.network,
            recipe,
            data,
            Some(&part),
            None,
            threads,
            observer,
        )
    }

    fn run(&self, trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<(), PipelineError> {
        finished(trainer.run(observer)?, Some(&self.root()))
    }

    /// The folder that an interruption names.
    fn root(&self) -> RunFolder {
        RunFolder::new(self.folder)
    }

    /// Writes the network of a cell, measures what was written, and writes the result.
    fn finish(
        &self,
        cell: &Cell,
        posterior_weights: Option<usize>,
        trainer: &Trainer,
        folder: &Path,
    ) -> Result<StoredCell, PipelineError> {
        let recipe = trainer.recipe();
        let network = finish(trainer.network()?);
        let outputs = files(folder, recipe)?;
        let bytes = outputs.write(&network, self.metadata.clone(), recipe)?;
        let network = read_network(outputs.measured()?, &GraphSource::Auto)?.network;
        let scores = Scores::of(&network, WeightMode::Sparse, self.samples, self.threads)?;
        let stored = StoredCell {
            schema: SCHEMA,
            network: self.record.network.clone(),
            samples: self.record.samples.clone(),
            method: cell.method,
            ratio: cell.ratio,
            seed: cell.seed,
            weights: cell.weights,
            posterior_weights,
            left: network.nonzeros(),
            bytes,
            training_seconds: trainer.history().iter().map(|e| e.seconds).sum(),
            recipe: recipe.clone(),
            validation: StoredErrors::of(&scores.validation),
            test: scores.test.as_ref().map(StoredErrors::of),
        };
        stored.write(folder)?;
        Ok(stored)
    }
}

/// Removes the checkpoints of a finished cell.
pub(super) fn clear(folder: &Path) -> Result<(), PipelineError> {
    Ok(checkpoint::clear(folder)?)
}

/// Removes what a finished posterior does not need but its checkpoint.
fn keep_checkpoint_alone(folder: &Path) -> Result<(), PipelineError> {
    Ok(checkpoint::clear_all_but_checkpoint(folder)?)
}
