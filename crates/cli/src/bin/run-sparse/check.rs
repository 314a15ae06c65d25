//! `run-sparse check`.

use anyhow::bail;
use serde_json::to_value;
use sparsevd_format::read_array;
use sparsevd_pipeline::{Check, Comparison, InputSamples, OutputValues};

use crate::args::CheckArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &CheckArgs) -> anyhow::Result<Outcome> {
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        bail!(
            "--tolerance: expected a number of 0 or more, got {}",
            args.tolerance
        );
    }
    let model = args.model.load()?;
    let path = &args.expect;
    let arrays = read_array(path)?;
    let samples = InputSamples::read(&args.input, None, Some((path, &arrays)), &model.network)?;
    let size = [samples.count.min(64), samples.length, 1];
    let session = model.session(args.weights, size, &[])?;
    let outputs = OutputValues::of(&session, &samples)?;
    let check = Check {
        outputs: Comparison::of(&outputs, path, &arrays)?,
        tolerance: args.tolerance,
    };
    if args.json {
        print::json_of(&model.warnings, to_value(&check)?)?;
    } else {
        print::text(&check)?;
    }
    Ok(match check.passes() {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}
