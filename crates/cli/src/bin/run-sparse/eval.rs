//! `run-sparse eval`.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sparsevd_compressor::objective::{Targets, score_predictions};
use sparsevd_format::{
    Dataset, LoadedNetwork, LoadedSamples, Pixels, RegressionSet, TableOptions, load_samples_with,
};
use sparsevd_model::{Graph, Network, Preprocessing};
use sparsevd_runtime::{RuntimeError, Session, evaluate};

use crate::args::{EvalArgs, Split};
use crate::load::{all_threads, preprocessing, session};
use crate::{Outcome, print};

/// Samples per run.
const BATCH: usize = 64;

pub fn run(args: &EvalArgs) -> anyhow::Result<Outcome> {
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let (set, part) = load_split(&args.data, args.split, &network)?;
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        [BATCH, 1, all_threads(args.threads)],
        &[],
    )?;
    let preprocessing = preprocessing(set.pixels(), &args.data, &network)?;
    let fill = |i: usize, x: &mut [f32]| set.fill_input(i, &preprocessing, x);
    let start = Instant::now();
    let (result, text) = match &set {
        Set::Classes(set) => {
            let result = evaluate(&session, &set.labels, fill)?;
            let text = format!(
                "{} of {} images wrong, error {:.2} %, top-1 {:.2} %",
                result.wrong,
                result.images,
                result.error_percent(),
                result.top1() * 100.0,
            );
            let json = json!({
                "images": result.images,
                "error_percent": result.error_percent(),
                "top1": result.top1(),
                "wrong": result.wrong,
            });
            (json, text)
        }
        Set::Numbers(set) => {
            let targets = Targets::vectors(set.targets(), set.outputs());
            let score = score_predictions(&predictions(&session, set.len(), fill)?, &targets);
            let json = json!({
                "samples": score.samples(),
                "r2": score.r2(),
                "rmse": score.error(),
            });
            (json, format!("{score} of {} samples", score.samples()))
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let options = session.plan().options();
    if args.json {
        let run = json!({
            "network": network.graph.name,
            "plan": options.weights,
            "isa": options.isa.name(),
            "seconds": seconds,
            "part": part,
        });
        let all = [result, run].into_iter().filter_map(|v| match v {
            Value::Object(fields) => Some(fields),
            _ => None,
        });
        print::json_of(&warnings, Value::Object(all.flatten().collect()))?;
    } else {
        print::text(format_args!(
            "{}: {text} ({} plan, {}){}",
            network.graph.name,
            options.weights,
            options.isa,
            match part {
                "whole" =>
                    "; the set is not split, so these may be samples that the network was trained on",
                _ => "",
            },
        ))?;
    }
    Ok(Outcome::Done)
}

/// Outputs of a session for `samples` samples, `[samples][outputs]`.
fn predictions(
    session: &Session,
    samples: usize,
    fill: impl Fn(usize, &mut [f32]),
) -> Result<Vec<f32>, RuntimeError> {
    let (inn, out) = (
        session.plan().input_shape().elements(),
        session.plan().output_shape().elements(),
    );
    let mut x = vec![0.0; BATCH * inn];
    let mut outputs = vec![0.0; samples * out];
    for (chunk, y) in outputs.chunks_mut((BATCH * out).max(1)).enumerate() {
        let n = y.len() / out;
        for (i, x) in x.chunks_exact_mut(inn).take(n).enumerate() {
            fill(chunk * BATCH + i, x);
        }
        session.run(n, &x[..n * inn], y)?;
    }
    Ok(outputs)
}

/// Samples with their targets.
#[derive(Debug)]
pub enum Set {
    Classes(Dataset),
    Numbers(RegressionSet),
}

impl Set {
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(set) => set.len(),
            Self::Numbers(set) => set.len(),
        }
    }

    pub fn pixels(&self) -> &Pixels {
        match self {
            Self::Classes(set) => &set.pixels,
            Self::Numbers(set) => set.pixels(),
        }
    }

    pub fn fill_input(&self, index: usize, preprocessing: &Preprocessing, out: &mut [f32]) {
        match self {
            Self::Classes(set) => set.fill_input(index, preprocessing, out),
            Self::Numbers(set) => set.fill_input(index, preprocessing, out),
        }
    }
}

/// A set that fits the network, and which part of the data it is: `test`, `train`, or `whole` where there is no split.
pub fn load_split(
    path: &Path,
    split: Split,
    network: &Network,
) -> anyhow::Result<(Set, &'static str)> {
    let Graph {
        inputs, outputs, ..
    } = &network.graph;
    if inputs.len() != 1 || outputs.len() != 1 {
        bail!(
            "--data: expected a network with one input and one output, got {} and {}",
            inputs.len(),
            outputs.len()
        );
    }
    let stored = network.graph.preprocessing.as_ref();
    let options = TableOptions {
        target: None,
        table: stored.and_then(|p| p.table.as_ref()),
    };
    let shapes = network.shapes()?;
    let outputs = shapes[network.graph.outputs[0].as_str()].elements();
    let input = &network.graph.inputs[0].shape;
    let name = || path.display().to_string();
    Ok(match load_samples_with(path, &options)? {
        LoadedSamples::Classes(s) => {
            let (set, part) = part(path, split, [s.train, s.test, s.whole], &s.describe)?;
            set.check_against(input, outputs).with_context(name)?;
            (Set::Classes(set), part)
        }
        LoadedSamples::Numbers(s) => {
            let (set, part) = part(path, split, [s.train, s.test, s.whole], &s.describe)?;
            set.check_against(input, outputs).with_context(name)?;
            (Set::Numbers(set), part)
        }
    })
}

/// The part that is asked for of the training samples, the test samples and those that are not split.
fn part<S>(
    path: &Path,
    split: Split,
    [train, test, whole]: [Option<S>; 3],
    found: &str,
) -> anyhow::Result<(S, &'static str)> {
    let (set, name, part) = match split {
        Split::Test => (test, "test", "test"),
        Split::Train => (train, "training", "train"),
    };
    match (set, whole, split) {
        (Some(set), _, _) => Ok((set, part)),
        (None, Some(whole), Split::Test) => Ok((whole, "whole")),
        _ => bail!("{}: expected {name} images, got {found}", path.display()),
    }
}
