//! `compress FOLDER --text FILE`: an encoder of texts, pruned in one shot, trained towards embeddings, or both.

use std::fmt;
use std::path::Path;

use anyhow::bail;
use serde::Serialize;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Calibration, Pruning};
use sparsevd_format::{MAX_JSON, read_text};
use sparsevd_pipeline::{
    Cosines, EncoderCompression, Observer, PipelineError, RunFolder, TrainingLog,
    check_encoder_out, encoder_run,
};

use crate::args::CompressArgs;
use crate::interrupt::unfinished;
use crate::progress::Progress;
use crate::pruning::pruning;
use crate::{interrupt, print};
use sparsevd_cli::Outcome;

/// What is printed.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pruning: Option<Calibration>,
    /// Of training; 0 without.
    epochs: usize,
    training_seconds: f64,
    /// Of embeddings, at the end of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    validation_r2: Option<f64>,
    weights: usize,
    nonzeros: usize,
    /// Of the embeddings before and after, over texts that it was neither calibrated nor trained on.
    cosine: Cosines,
    out: &'a Path,
    /// Bytes of the file of weights.
    bytes: u64,
}

/// Says on stderr which layer is done.
struct Notes {
    quiet: bool,
}

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        if !self.quiet {
            sparsevd_cli::note(&format!("compress: {text}"));
        }
    }
}

/// The texts of a file: its lines that are not blank.
pub fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines.filter(|line| !line.trim().is_empty()).collect()
}

pub fn run(args: &CompressArgs, text: &Path, out: &Path) -> anyhow::Result<Outcome> {
    let calibration = match pruning(args)? {
        Some(Pruning::Calibration(settings)) => Some(settings),
        Some(_) => bail!("--text: expected --calibrate or --recipe, which it is for, got another"),
        None => None,
    };
    let training = &args.run.training;
    let recipe = match &training.recipe {
        Some(path) => Some(Recipe::read(path)?.with(&args.overrides())?),
        None if calibration.is_none() => {
            bail!("--text: expected --calibrate, --recipe or both, which it is for, got neither")
        }
        None => None,
    };
    check_encoder_out(&args.model, out, args.run.force)?;
    let text = read_text(text, MAX_JSON)?;
    let texts = lines(&text);
    let threads = match training.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut compression = EncoderCompression::new(&args.model, &texts, threads)
        .calibrated(calibration.clone())
        .trained_by(recipe.clone());
    if let Some(teacher) = &args.teacher {
        compression = compression.teacher(teacher);
    }
    let (encoder, run) = match recipe {
        None => {
            let quiet = training.verbosity.quiet;
            (compression.run(&mut Notes { quiet })?, None)
        }
        Some(_) => {
            let run = args.run.run.clone().unwrap_or_else(|| encoder_run(out));
            let run = RunFolder::resume_or_new(run)?;
            run.check_unrecorded("compress FOLDER --text")?;
            let log = TrainingLog::in_folder(run.path());
            let mut progress = Progress::new(log, training.verbosity).by_same_command();
            let done = compression.in_folder(run.clone()).run(&mut progress);
            drop(progress);
            match done {
                Err(PipelineError::Interrupted { folder }) => {
                    return Ok(interrupt::ended(folder, true));
                }
                done => (done.map_err(|e| unfinished(e, run.path()))?, Some(run)),
            }
        }
    };
    let cosine = encoder.save(out, args.run.force)?;
    if let Some(run) = run {
        run.clear()?;
    }
    let file = out.join("model.safetensors");
    let summary = Summary {
        pruning: calibration,
        epochs: encoder.history.len(),
        training_seconds: (encoder.history.iter()).fold(0.0, |sum, epoch| sum + epoch.seconds),
        validation_r2: encoder.history.last().and_then(|epoch| epoch.validation_r2),
        weights: encoder.network.original_weights(),
        nonzeros: encoder.network.nonzeros(),
        cosine,
        out,
        bytes: std::fs::metadata(&file)?.len(),
    };
    match training.json {
        true => print::json(&summary)?,
        false => print::text(format_args!("{summary}"))?,
    }
    Ok(Outcome::Done)
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(pruning) = &self.pruning {
            writeln!(f, "{}", Pruning::Calibration(pruning.clone()))?;
        }
        if self.epochs > 0 {
            let (epochs, seconds) = (self.epochs, self.training_seconds);
            write!(f, "trained for {epochs} epochs, {seconds:.0} s")?;
            match self.validation_r2 {
                Some(r2) => writeln!(f, "; R2 of embeddings on validation {r2:.4}")?,
                None => writeln!(f)?,
            }
        }
        let Self {
            weights, nonzeros, ..
        } = self;
        let times = *weights as f64 / (*nonzeros).max(1) as f64;
        writeln!(
            f,
            "{nonzeros} of {weights} weights left, {times:.1} times fewer\n{}",
            self.cosine
        )?;
        let (out, bytes) = (self.out.display(), self.bytes);
        write!(f, "wrote {out} ({bytes} bytes of weights)")
    }
}
