//! `run-sparse check`.

use anyhow::bail;
use serde_json::json;
use sparsevd_format::{ArrayData, LoadedNetwork, read_array};

use crate::args::CheckArgs;
use crate::infer::{Output, run_outputs};
use crate::load::session;
use crate::samples::{describe, samples_of};
use crate::{Outcome, print};

pub fn run(args: &CheckArgs) -> anyhow::Result<Outcome> {
    if !(args.tolerance >= 0.0 && args.tolerance.is_finite()) {
        bail!(
            "--tolerance: expected a number of 0 or more, got {}",
            args.tolerance
        );
    }
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let path = &args.expect;
    let arrays = read_array(path)?;
    let samples = samples_of(&args.input, None, Some((path, &arrays)), &network)?;
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        [samples.count.min(64), samples.length, 1],
        &[],
    )?;
    let outputs = run_outputs(&session, &samples)?;
    let is_only = outputs.len() == 1;
    let mut worst: Option<(&Output, Difference)> = None;
    let mut lines = Vec::new();
    for output in &outputs {
        let found = (is_only
            .then_some("y")
            .into_iter()
            .chain([output.name.as_str()]))
        .find_map(|name| arrays.iter().find(|(n, _)| n == name));
        let Some((name, expected)) = found else {
            let name = if is_only { "y" } else { &output.name };
            bail!(
                "{}: expected an array `{name}`, got {}",
                path.display(),
                describe(&arrays)
            );
        };
        let out = output.elements();
        let expected: &[f32] = match &expected.data {
            ArrayData::F32(values) if values.len() == output.values.len() => values,
            _ => bail!(
                "{}: array `{name}`: expected {} floating-point numbers, {out} for each of {} samples, got {} {}",
                path.display(),
                output.values.len(),
                samples.count,
                expected.data.len(),
                expected.data.kind(),
            ),
        };
        let difference = Difference::of(&output.values, expected);
        let (sample, element) = (difference.at / out.max(1), difference.at % out.max(1));
        lines.push(format!(
            "{}: {} samples, largest error {:.3e} ({:.3e} of the largest output; tolerance {:.1e}) at output {}{element} of sample {sample}: expected {}, got {}",
            if difference.relative <= args.tolerance { "ok" } else { "FAILED" },
            samples.count,
            difference.error,
            difference.relative,
            args.tolerance,
            if is_only { String::new() } else { format!("{} ", output.name) },
            difference.expected,
            difference.got,
        ));
        if worst
            .as_ref()
            .is_none_or(|(_, w)| difference.relative > w.relative)
        {
            worst = Some((output, difference));
        }
    }
    let Some((output, worst)) = worst else {
        bail!(
            "network `{}`: expected at least one output",
            network.graph.name
        );
    };
    let pass = worst.relative <= args.tolerance;
    if args.json {
        let out = output.elements().max(1);
        let mut value = json!({
            "pass": pass,
            "samples": samples.count,
            "max_error": worst.error,
            "max_relative_error": worst.relative,
            "tolerance": args.tolerance,
            "worst": {"sample": worst.at / out, "element": worst.at % out, "expected": worst.expected, "got": worst.got},
        });
        if !is_only {
            value["worst"]["output"] = json!(output.name);
        }
        print::json_of(&warnings, value)?;
    } else {
        print::text(lines.join("\n"))?;
    }
    Ok(if pass {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}

/// The largest difference between two arrays.
struct Difference {
    error: f64,
    /// As a share of the largest expected number.
    relative: f64,
    /// Where it is.
    at: usize,
    expected: f32,
    got: f32,
}

impl Difference {
    fn of(got: &[f32], expected: &[f32]) -> Self {
        let scale = (expected.iter()).fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
        let mut worst = (0.0_f64, 0);
        for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(got) - f64::from(expected)).abs();
            // NaN is the worst of all errors.
            if error > worst.0 || error.is_nan() {
                worst = (if error.is_nan() { f64::INFINITY } else { error }, i);
            }
        }
        let (error, at) = worst;
        Self {
            error,
            relative: if error == 0.0 { 0.0 } else { error / scale },
            at,
            expected: expected.get(at).copied().unwrap_or_default(),
            got: got.get(at).copied().unwrap_or_default(),
        }
    }
}
