//! `run-sparse check`.

use anyhow::bail;
use serde_json::json;
use sparsevd_format::read_array;
use sparsevd_pipeline::{Comparison, InputSamples, OutputValues};

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
    let compared = Comparison::of(&outputs, path, &arrays)?;
    // Of equal ones the first.
    let worst = compared
        .iter()
        .reduce(|w, c| if c.relative > w.relative { c } else { w });
    let Some(worst) = worst else {
        bail!(
            "network `{}`: expected at least one output",
            model.network.graph.name
        );
    };
    let pass = worst.relative <= args.tolerance;
    if args.json {
        let mut value = json!({
            "pass": pass,
            "samples": samples.count,
            "max_error": worst.error,
            "max_relative_error": worst.relative,
            "tolerance": args.tolerance,
            "worst": {"sample": worst.sample, "element": worst.element, "expected": worst.expected, "got": worst.got},
        });
        if let Some(output) = &worst.output {
            value["worst"]["output"] = json!(output);
        }
        print::json_of(&model.warnings, value)?;
    } else {
        let lines: Vec<String> = compared.iter().map(|c| c.line(args.tolerance)).collect();
        print::text(lines.join("\n"))?;
    }
    Ok(match pass {
        true => Outcome::Done,
        false => Outcome::Failed,
    })
}
