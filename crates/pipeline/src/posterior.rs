//! The run that makes a posterior, and the runs that go on from it.

use sparsevd_compressor::trainer::{Observer, Trainer};

use crate::error::PipelineError;
use crate::run_folder::RunFolder;
use crate::training::finished;

/// A run at the end of the phases that make the posterior, with a checkpoint there where it has a folder.
pub(crate) struct Posterior {
    /// The run.
    pub trainer: Trainer,
}

impl Posterior {
    /// Trains what is left of these phases. `name` is the posterior's in a note, `all` the weights of the network, and `folder` what an
    /// interruption names.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`] where the observer stops it; errors of a run.
    pub fn train(
        mut trainer: Trainer,
        name: &str,
        all: usize,
        folder: Option<&RunFolder>,
        observer: &mut dyn Observer,
    ) -> Result<Self, PipelineError> {
        let phases = trainer.recipe().behind_posterior();
        finished(trainer.run_until(phases, observer)?, folder)?;
        trainer.save()?;
        let left = trainer.survivors();
        observer.note(&format!("{name} leaves {left} of {all} weights"));
        Ok(Self { trainer })
    }

    /// A run that goes on from here to this many weights, or where `folder` has a checkpoint from there.
    ///
    /// # Errors
    /// A folder that cannot be made, or a checkpoint of another run.
    pub fn fork_to(
        &self,
        weights: usize,
        folder: Option<&RunFolder>,
        observer: &mut dyn Observer,
    ) -> Result<Trainer, PipelineError> {
        let recipe = self.trainer.recipe().of_try(1.0, weights);
        let path = folder.map(|f| f.path().to_owned());
        let mut trainer = self.trainer.fork(recipe, path)?;
        if let Some(folder) = folder.filter(|f| f.is_resumed()) {
            trainer.resume(folder.path(), observer)?;
        }
        Ok(trainer)
    }
}
