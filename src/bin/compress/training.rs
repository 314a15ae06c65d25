//! One run of the trainer: folder, checkpoint, Ctrl-C, progress.

use std::path::Path;

use sparsevd_compressor::recipe::Method;
use sparsevd_compressor::report::RunRecord;
use sparsevd_compressor::trainer::{self, Observer, RunOptions, Trainer};
use sparsevd_model::Network;

use crate::args::RunArgs;
use crate::inputs::Images;
use crate::interrupt;
use crate::progress::Progress;
use crate::run_folder::RunFolder;

/// Trains to the end, or until Ctrl-C, which leaves a checkpoint, says how to go on and gives `None`.
pub fn run(
    network: &Network,
    images: &Images,
    folder: &RunFolder,
    record: &RunRecord,
    args: &RunArgs,
) -> anyhow::Result<Option<Trainer>> {
    let stop = interrupt::flag()?;
    folder.begin(record)?;
    let options = RunOptions {
        threads: args.threads.map_or(0, usize::from),
        run_folder: Some(folder.path.clone()),
    };
    let mut trainer = Trainer::new(
        network,
        record.recipe.clone(),
        images.training.clone(),
        &options,
    )?;
    if folder.record.is_some() {
        trainer.resume(&folder.path)?;
    }
    let mut progress = Progress::new(
        &folder.path,
        args.quiet,
        &record.recipe,
        images.training.train().len(),
        trainer.position(),
    )?;
    let has_noise = (record.recipe.phases.iter()).any(|p| p.method == Method::SparseVd);
    if let (None, Some(deviation), true) = (
        record.recipe.target_deviation,
        trainer.recipe().target_deviation,
        has_noise,
    ) {
        progress.note(&format!(
            "noise of the targets: a deviation of {deviation:.4}, by the errors of the network as it came (target_deviation sets another)"
        ));
    }
    let outcome = trainer.run(&stop, &mut progress)?;
    drop(progress);
    if outcome == trainer::Outcome::Interrupted {
        say_how_to_go_on(&folder.path);
        return Ok(None);
    }
    Ok(Some(trainer))
}

fn say_how_to_go_on(folder: &Path) {
    eprintln!(
        "compress: interrupted; the checkpoint is in {}; go on with",
        folder.display()
    );
    eprintln!("  {}", interrupt::resume_command(folder));
}
