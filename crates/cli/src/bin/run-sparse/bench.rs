//! `run-sparse bench`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json, to_value};
use sparsevd_kernels::Isa;
use sparsevd_pipeline::{Benchmark, InputSamples, OutputValues};
use sparsevd_runtime::bench::peak_rss_bytes;
use sparsevd_runtime::{Session, WeightMode};

use crate::args::{BenchArgs, PeakRssArgs};
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        bail!(
            "--seconds: expected more than 0 and at most 3600, got {}",
            args.seconds
        );
    }
    if let Some(0) = args.batch.iter().find(|&&b| b == 0) {
        bail!("--batch: expected at least 1, got 0");
    }
    let model = args.model.load()?;
    let isa = Isa::from_env()?;
    let mut plans = vec![WeightMode::Sparse];
    if let Some(other) = args.against {
        plans.push(other);
        plans.dedup();
    }
    let input = match (&args.data, args.input.as_slice()) {
        (Some(data), _) => data.display().to_string(),
        (None, []) => "random".into(),
        (None, files) => files.join(", "),
    };
    let mut benchmark = Benchmark::new(&model.network, isa, input, args.dense_shapes);
    for &batch in &args.batch {
        let size = [batch, args.length];
        let input = model.samples(args.data.as_deref(), &args.input, size)?;
        let size = [batch, input.length, args.threads];
        let session = |&weights: &WeightMode| {
            let model = model.shaped(args.dense_shapes, weights)?;
            model.session(weights, size, &input.named())
        };
        let sessions: Vec<Session> = plans.iter().map(session).collect::<anyhow::Result<_>>()?;
        let budget = Duration::from_secs_f64(args.seconds);
        let all: Vec<&Session> = sessions.iter().collect();
        for run in benchmark.add(isa, &all, batch, &input, budget)? {
            run.peak_rss_bytes = child(args, run.plan, [batch, input.length]);
        }
        if args.model.verbosity.talks() {
            eprintln!("batch {batch} done");
        }
    }
    if args.json {
        print::json_of(&model.warnings, to_value(&benchmark)?)?;
    } else {
        print::text(benchmark.to_string().trim_end())?;
    }
    Ok(Outcome::Done)
}

/// The hidden subcommand: one plan in a process of its own.
pub fn run_child(args: &PeakRssArgs) -> anyhow::Result<Outcome> {
    let (session, input) = {
        let model = args.model.load()?.shaped(args.dense_shapes, args.weights)?;
        let input = InputSamples::random(&model.network, args.batch, args.length);
        let size = [args.batch, args.length, args.threads];
        let session = model.session(args.weights, size, &[])?;
        (session, input)
    };
    // Further runs may allocate a little more; those of a slow network are worth more than that.
    let started = Instant::now();
    for run in 0..3 {
        if run > 0 && started.elapsed() > Duration::from_millis(100) {
            break;
        }
        OutputValues::of(&session, &input)?;
    }
    print::json(json!({"peak_rss_bytes": peak_rss_bytes()}))?;
    Ok(Outcome::Done)
}

/// Peak RSS of a plan, measured in a child; `None` where that is not possible.
fn child(args: &BenchArgs, plan: WeightMode, [batch, length]: [usize; 2]) -> Option<u64> {
    let model = &args.model;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg("peak-rss").arg("--quiet");
    command.args(["--weights", &plan.to_string()]);
    command.args(["--batch", &batch.to_string()]);
    command.args(["--length", &length.to_string()]);
    command.args(["--threads", &args.threads.to_string()]);
    command.args(["--dense-shapes", &args.dense_shapes.to_string()]);
    command.args(["--values", &model.values.to_string()]);
    command.args(["--int8", &model.int8.to_string()]);
    if let Some(network) = &model.graph.network {
        command.arg(format!("--network={network}"));
    }
    for shape in &model.graph.shapes.shapes {
        command.arg(format!("--shape={shape}"));
    }
    command.arg("--").arg(&model.model);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    answer["peak_rss_bytes"].as_u64()
}
