//! One run of the trainer: its folder, its checkpoint, its observer.

use std::collections::BTreeMap;

use sparsevd_compressor::TrainingData;
use sparsevd_compressor::recipe::{Method, Recipe};
use sparsevd_compressor::report::RunRecord;
use sparsevd_compressor::trainer::{Observer, Outcome, RunOptions, Trainer};
use sparsevd_model::{Int8Grid, Network};

use crate::error::PipelineError;
use crate::run_folder::RunFolder;

/// The network that a run begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'n> {
    pub network: &'n Network,
    /// The network that distillation goes towards, where it is another.
    pub teacher: Option<&'n Network>,
    /// Deviations of a posterior that was trained elsewhere, by the names of weights.
    pub sigmas: Option<&'n BTreeMap<String, f64>>,
    /// Bytes that the inputs of layers are rounded to, by the names of their nodes.
    pub input_grids: Option<&'n BTreeMap<String, Int8Grid>>,
}

impl<'n> From<&'n Network> for Start<'n> {
    fn from(network: &'n Network) -> Self {
        Self {
            network,
            teacher: None,
            sigmas: None,
            input_grids: None,
        }
    }
}

/// Trains to the end; `record` says what the run began with.
///
/// # Errors
/// [`PipelineError::Interrupted`] where the observer stops it.
pub(crate) fn train<'n>(
    start: impl Into<Start<'n>>,
    recipe: &Recipe,
    data: TrainingData,
    folder: Option<&RunFolder>,
    record: Option<&RunRecord>,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Trainer, PipelineError> {
    let mut trainer = begin(start, recipe, data, folder, record, threads, observer)?;
    finished(trainer.run(observer)?, folder)?;
    Ok(trainer)
}

/// A run at its beginning, or where its folder has a checkpoint to go on from.
pub(crate) fn begin<'n>(
    start: impl Into<Start<'n>>,
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
    let Start {
        network,
        teacher,
        sigmas,
        input_grids,
    } = start.into();
    let mut trainer = Trainer::new(network, recipe.clone(), data, &options)?;
    if let Some(teacher) = teacher {
        trainer.set_teacher(teacher)?;
    }
    if let Some(sigmas) = sigmas {
        trainer.set_sigmas(sigmas)?;
    }
    if let Some(grids) = input_grids {
        trainer.set_input_grids(grids)?;
    }
    if let Some(folder) = folder.filter(|f| f.is_resumed()) {
        trainer.resume(folder.path(), observer)?;
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
