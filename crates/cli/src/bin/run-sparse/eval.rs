//! `run-sparse eval`.

use serde_json::to_value;

use crate::args::EvalArgs;
use crate::load::all_threads;
use crate::print;
use sparsevd_cli::Outcome;

/// Samples per run.
const BATCH: usize = 64;

pub fn run(args: &EvalArgs) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let set = model.labelled(&args.data, args.split)?;
    let session = model.session(args.weights, [BATCH, 1, all_threads(args.threads)], &[])?;
    let evaluation = set.evaluate(&model.network.graph.name, &session)?;
    if args.json {
        print::json_of(&model.warnings, to_value(evaluation)?)?;
    } else {
        print::text(evaluation)?;
    }
    Ok(Outcome::Done)
}
