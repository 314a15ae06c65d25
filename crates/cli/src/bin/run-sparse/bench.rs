//! `run-sparse bench`.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json, to_value};
use sparsevd_format::LoadedNetwork;
use sparsevd_kernels::{Isa, peak::fma_peak};
use sparsevd_model::Network;
use sparsevd_runtime::bench::{Measurement, measure, peak_rss_bytes};
use sparsevd_runtime::{Session, WeightMode, WeightType};

use crate::args::{BenchArgs, DenseShapes, PeakRssArgs, Split};
use crate::eval::load_split;
use crate::infer::run_outputs;
use crate::load::{preprocessing, session};
use crate::samples::{Samples, read_samples};
use crate::{Outcome, print};

/// Samples of input that runs take by turns, at least as many as one batch.
const SAMPLES: usize = 256;

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
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let isa = Isa::from_env()?;
    let mut plans = vec![WeightMode::Sparse];
    if let Some(other) = args.against {
        plans.push(other.into());
        plans.dedup();
    }
    let before = fma_peak(isa);
    let mut runs: Vec<Measurement> = Vec::new();
    for &batch in &args.batch {
        let input = samples(
            args.data.as_deref(),
            &args.input,
            &network,
            [batch, args.length],
        )?;
        let length = input.length;
        let input = input.named();
        let sessions = plans
            .iter()
            .map(|&weights| {
                let network = shaped(&network, weights, args.dense_shapes)?;
                session(
                    &args.model,
                    &network,
                    weights,
                    [batch, length, args.threads],
                    &input,
                )
            })
            .collect::<anyhow::Result<Vec<Session>>>()?;
        let budget = Duration::from_secs_f64(args.seconds);
        let all: Vec<&Session> = sessions.iter().collect();
        for mut run in measure(&all, batch, &input[..], budget)? {
            run.peak_rss_bytes = child(args, run.plan, [batch, length]);
            runs.push(run);
        }
        if args.model.talks() {
            eprintln!("batch {batch} done");
        }
    }
    let after = fma_peak(isa);
    let machine = machine(isa);
    if args.json {
        print::json_of(
            &warnings,
            json!({
                "machine": machine,
                "network": network.graph.name,
                "input": match (&args.data, args.input.as_slice()) {
                    (Some(data), _) => data.display().to_string(),
                    (None, []) => "random".into(),
                    (None, files) => files.join(", "),
                },
                "dense_shapes": dense_shapes(args.dense_shapes),
                "fma_peak_gflops": {"before": before, "after": after},
                "runs": to_value(&runs)?,
            }),
        )?;
        return Ok(Outcome::Done);
    }
    let mut text = String::new();
    writeln!(
        text,
        "{} on {} ({} cores), {isa}; FMA peak of one core {before:.1} GFLOP/s before, {after:.1} after",
        network.graph.name,
        machine["cpu"].as_str().unwrap_or("unknown CPU"),
        machine["cores"],
    )?;
    writeln!(
        text,
        "{:6}  {:>5}  {:>7}  {:>10}  {:>10}  {:>10}  {:>12}  {:>10}  {:>10}  {:>12}",
        "plan",
        "batch",
        "threads",
        "p50 us",
        "p90 us",
        "p99 us",
        "items/s",
        "weights",
        "arena",
        "peak RSS"
    )?;
    for r in &runs {
        let rss = r.peak_rss_bytes.map_or("not measured".into(), print::bytes);
        writeln!(
            text,
            "{:6}  {:>5}  {:>7}  {:>10.3}  {:>10.3}  {:>10.3}  {:>12.0}  {:>10}  {:>10}  {rss:>12}",
            r.plan.to_string(),
            r.batch,
            r.threads,
            r.p50_us,
            r.p90_us,
            r.p99_us,
            r.items_per_s,
            print::bytes(r.weight_bytes as u64),
            print::bytes(r.arena_bytes as u64),
        )?;
    }
    for pair in runs.chunks_exact(plans.len()).filter(|p| p.len() == 2) {
        writeln!(
            text,
            "batch {}: {} over {} in {}: {:.1} times faster (p50), weights {:.1} times smaller",
            pair[0].batch,
            pair[0].plan,
            pair[1].plan,
            match args.dense_shapes {
                DenseShapes::Original => "the original shapes",
                DenseShapes::Left => "the shapes that are left",
            },
            pair[1].p50_us / pair[0].p50_us,
            pair[1].weight_bytes as f64 / pair[0].weight_bytes.max(1) as f64,
        )?;
    }
    print::text(text.trim_end())?;
    Ok(Outcome::Done)
}

/// The hidden subcommand: one plan in a process of its own.
pub fn run_child(args: &PeakRssArgs) -> anyhow::Result<Outcome> {
    let (session, input) = {
        let weights = args.weights.into();
        let network = shaped(&args.model.load()?.network, weights, args.dense_shapes)?;
        let input = Samples::generate(&network, args.batch, args.length, random_input);
        let session = session(
            &args.model,
            &network,
            weights,
            [args.batch, args.length, args.threads],
            &[],
        )?;
        (session, input)
    };
    for _ in 0..3 {
        run_outputs(&session, &input)?;
    }
    print::json(json!({"peak_rss_bytes": peak_rss_bytes()}))?;
    Ok(Outcome::Done)
}

/// The network that a plan runs: a dense one in the shapes that were asked for.
fn shaped(network: &Network, weights: WeightMode, shapes: DenseShapes) -> anyhow::Result<Network> {
    Ok(match (weights, shapes) {
        (WeightMode::Dense, DenseShapes::Original) => network.in_original_shapes()?,
        _ => network.clone(),
    })
}

fn dense_shapes(shapes: DenseShapes) -> &'static str {
    match shapes {
        DenseShapes::Original => "original",
        DenseShapes::Left => "left",
    }
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
    command.args(["--dense-shapes", dense_shapes(args.dense_shapes)]);
    command.args(["--values", &WeightType::from(model.values).to_string()]);
    if let Some(network) = &model.network {
        command.arg(format!("--network={network}"));
    }
    for shape in &model.shapes.shapes {
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

/// Whole batches of samples: test images where a set is given, those of files where they are given, else random numbers, with `length` elements
/// in a free dimension.
pub fn samples(
    data: Option<&Path>,
    files: &[String],
    network: &Network,
    [batch, length]: [usize; 2],
) -> anyhow::Result<Samples> {
    let count = batch * (SAMPLES / batch).max(1);
    if !files.is_empty() {
        return Ok(read_samples(files, None, network)?.cycled(count));
    }
    let Some(path) = data else {
        return Ok(Samples::generate(network, count, length, random_input));
    };
    let (set, _) = load_split(path, Split::Test, network).context("--data")?;
    let preprocessing = preprocessing(set.pixels(), path, network)?;
    Ok(Samples::generate(network, count, length, |len| {
        let mut input = vec![0.0; len];
        for (i, x) in input.chunks_exact_mut((len / count).max(1)).enumerate() {
            set.fill_input(i % set.len(), &preprocessing, x);
        }
        input
    }))
}

/// Numbers from 0 to 1, the same in every run.
fn random_input(len: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        })
        .collect()
}

fn machine(isa: Isa) -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .and_then(|l| l.split_once(':'))
        .map(|(_, name)| name.trim().to_owned());
    json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "isa": isa.name(),
    })
}
