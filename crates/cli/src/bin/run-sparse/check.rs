//! `run-sparse check`.

use anyhow::bail;
use serde_json::json;
use sparsevd_format::{ArrayData, LoadedNetwork, read_array};

use crate::args::CheckArgs;
use crate::load::session;
use crate::samples::{describe, to_samples};
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
    let find = |name: &str| match arrays.iter().find(|(n, _)| n == name) {
        Some((_, array)) => Ok(array),
        None => bail!(
            "{}: expected arrays `x` and `y`, got {}",
            path.display(),
            describe(&arrays)
        ),
    };
    let (x, expected) = (find("x")?, find("y")?);
    let samples = to_samples(path, "x", x, &network)?;
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        samples.count.min(64),
        1,
        &[],
    )?;
    let out = session.plan().output_shape().elements();
    let wanted: &[f32] = match &expected.data {
        ArrayData::F32(values) if values.len() == samples.count * out => values,
        _ => bail!(
            "{}: array `y`: expected {} floating-point numbers, {out} for each of {} samples, got {} {}",
            path.display(),
            samples.count * out,
            samples.count,
            expected.data.len(),
            expected.data.kind(),
        ),
    };
    let mut y = vec![0.0; wanted.len()];
    session.run(samples.count, &samples.values, &mut y);
    let scale = wanted
        .iter()
        .fold(0.0_f64, |m, v| m.max(f64::from(v.abs())));
    let mut worst = (0.0_f64, 0);
    for (i, (&got, &want)) in y.iter().zip(wanted).enumerate() {
        let error = (f64::from(got) - f64::from(want)).abs();
        // NaN is the worst of all errors.
        if error > worst.0 || error.is_nan() {
            worst = (if error.is_nan() { f64::INFINITY } else { error }, i);
        }
    }
    let relative = if worst.0 == 0.0 { 0.0 } else { worst.0 / scale };
    let pass = relative <= args.tolerance;
    let (sample, element) = (worst.1 / out.max(1), worst.1 % out.max(1));
    if args.json {
        print::json_of(
            &warnings,
            json!({
                "pass": pass,
                "samples": samples.count,
                "max_error": worst.0,
                "max_relative_error": relative,
                "tolerance": args.tolerance,
                "worst": {"sample": sample, "element": element, "expected": wanted.get(worst.1), "got": y.get(worst.1)},
            }),
        )?;
    } else {
        print::text(format_args!(
            "{}: {} samples, largest error {:.3e} ({relative:.3e} of the largest output; tolerance {:.1e}) at output {element} of sample {sample}: expected {}, got {}",
            if pass { "ok" } else { "FAILED" },
            samples.count,
            worst.0,
            args.tolerance,
            wanted.get(worst.1).copied().unwrap_or_default(),
            y.get(worst.1).copied().unwrap_or_default(),
        ))?;
    }
    Ok(if pass {
        Outcome::Done
    } else {
        Outcome::CheckFailed
    })
}
