//! One run of the trainer: its folder, its checkpoint, its observer.

use sparsevd_compressor::TrainingData;
use sparsevd_compressor::recipe::{Method, Recipe};
use sparsevd_compressor::report::RunRecord;
use sparsevd_compressor::trainer::{Observer, Outcome, RunOptions, Trainer};
use sparsevd_model::Network;

use crate::error::PipelineError;
use crate::run_folder::RunFolder;

/// Trains to the end; `record` says what the run began with.
///
/// # Errors
/// [`PipelineError::Interrupted`] where the observer stops it.
pub(crate) fn train(
    network: &Network,
    recipe: &Recipe,
    data: TrainingData,
    folder: Option<&RunFolder>,
    record: Option<&RunRecord>,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Trainer, PipelineError> {
    let mut trainer = begin(network, recipe, data, folder, record, threads, observer)?;
    finished(trainer.run(observer)?, folder)?;
    Ok(trainer)
}

/// A run at its beginning, or where its folder has a checkpoint to go on from.
pub(crate) fn begin(
    network: &Network,
    recipe: &Recipe,
    data: TrainingData,
    folder: Option<&RunFolder>,
    record: Option<&RunRecord>,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Trainer, PipelineError> {
    if let Some(folder) = folder {
        folder.begin(record)?;
    }
    let options = RunOptions {
        threads,
        run_folder: folder.map(|f| f.path().to_owned()),
    };
    let mut trainer = Trainer::new(network, recipe.clone(), data, &options)?;
    if let Some(folder) = folder.filter(|f| f.is_resumed()) {
        trainer.resume(folder.path())?;
    }
    let has_noise = recipe.phases.iter().any(|p| p.method == Method::SparseVd);
    if let (None, Some(deviation), true) = (
        recipe.target_deviation,
        trainer.recipe().target_deviation,
        has_noise,
    ) {
        observer.note(&format!(
            "noise of the targets: a deviation of {deviation:.4}, by the errors of the network as it came (target_deviation sets another)"
        ));
    }
    Ok(trainer)
}

/// Ends with an error where the observer stopped a run.
pub(crate) fn finished(outcome: Outcome, folder: Option<&RunFolder>) -> Result<(), PipelineError> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Interrupted => Err(PipelineError::Interrupted {
            folder: folder.map(|f| f.path().to_owned()),
        }),
    }
}
