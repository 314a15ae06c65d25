//! `compress FOLDER --calibrate --text FILE`: an encoder of texts, pruned in one shot.

use std::path::Path;

use anyhow::bail;
use serde::Serialize;
use sparsevd_compressor::report::{Calibration, Pruning};
use sparsevd_format::{MAX_JSON, read_text};
use sparsevd_pipeline::{CalibratedEncoder, Cosines, Observer, check_encoder_out};

use crate::args::CompressArgs;
use crate::print;
use crate::pruning::pruning;
use sparsevd_cli::Outcome;

/// What is printed.
#[derive(Serialize)]
struct Summary<'a> {
    pruning: Calibration,
    weights: usize,
    nonzeros: usize,
    /// Of the embeddings before and after, over texts that it was not calibrated on.
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
    let Some(Pruning::Calibration(settings)) = pruning(args)? else {
        bail!("--text: expected --calibrate, which it is for, got another");
    };
    check_encoder_out(&args.model, out, args.run.force)?;
    let text = read_text(text, MAX_JSON)?;
    let texts = lines(&text);
    let threads = match args.run.training.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut notes = Notes {
        quiet: args.run.training.verbosity.quiet,
    };
    let encoder = CalibratedEncoder::new(&args.model, &texts, &settings, threads, &mut notes)?;
    let cosine = encoder.save(out, args.run.force)?;
    let file = out.join("model.safetensors");
    let summary = Summary {
        pruning: settings.clone(),
        weights: encoder.network.original_weights(),
        nonzeros: encoder.network.nonzeros(),
        cosine,
        out,
        bytes: std::fs::metadata(&file)?.len(),
    };
    if args.run.training.json {
        print::json(&summary)?;
    } else {
        let times = summary.weights as f64 / summary.nonzeros.max(1) as f64;
        print::text(format_args!(
            "{}\n{} of {} weights left, {times:.1} times fewer\n{cosine}\nwrote {} ({} bytes of weights)",
            Pruning::Calibration(settings),
            summary.nonzeros,
            summary.weights,
            out.display(),
            summary.bytes,
        ))?;
    }
    Ok(Outcome::Done)
}
