//! `run-sparse MODEL --input FILE`.

use anyhow::anyhow;
use serde_json::to_value;
use sparsevd_format::check_writable;
use sparsevd_pipeline::{InputSamples, OutputValues, PipelineError, Predictions, write_outputs};

use crate::args::InferArgs;
use crate::load::all_threads;
use crate::print;
use sparsevd_cli::Outcome;

/// Samples that a plan is made for at most; more run in several goes.
const LARGEST_BATCH: usize = 64;

pub fn run(args: &InferArgs) -> anyhow::Result<Outcome> {
    if let Some(output) = &args.output {
        check_writable(output, args.force)?;
    }
    let model = args.model.load()?;
    let samples = InputSamples::read(&args.input, args.array.as_deref(), None, &model.network)?;
    let batch = samples.count.min(LARGEST_BATCH);
    let size = [batch, samples.length, all_threads(args.threads)];
    let session = model.session(args.weights, size, &[])?;
    let outputs = OutputValues::of(&session, &samples)?;
    if let Some(path) = &args.output {
        write_outputs(path, &outputs).map_err(|error| match error {
            PipelineError::Invalid { .. } => anyhow!("--output {error}"),
            other => other.into(),
        })?;
    }
    let predictions = Predictions::of(&model.network, &outputs, args.top);
    if args.json {
        print::json_of(&model.warnings, to_value(&predictions)?)?;
    } else {
        print::text(predictions.to_string().trim_end())?;
    }
    Ok(Outcome::Done)
}
