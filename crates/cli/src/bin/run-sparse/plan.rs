//! `run-sparse plan`.

use serde_json::to_value;
use sparsevd_pipeline::InputSamples;

use crate::args::PlanArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let size = [args.batch.max(1), args.length];
    let like = match (&args.data, args.input.as_slice()) {
        (None, []) => None,
        (set, input) => Some(model.samples(set.as_deref(), input, size)?),
    };
    let length = like.as_ref().map_or(args.length, |l| l.length);
    let like = like.as_ref().map(InputSamples::named).unwrap_or_default();
    let plan = model.plan(args.weights, [args.batch, length, args.threads], &like)?;
    if args.json {
        print::json_of(&model.warnings, to_value(&plan)?)?;
    } else {
        print::text(&plan)?;
    }
    Ok(Outcome::Done)
}
