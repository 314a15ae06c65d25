//! `run-sparse eval`.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use serde_json::json;
use sparsevd_format::{Dataset, LoadedNetwork, load_data};
use sparsevd_model::{Graph, Network};
use sparsevd_runtime::evaluate;

use crate::args::{EvalArgs, Split};
use crate::load::{all_threads, preprocessing, session};
use crate::{Outcome, print};

/// Samples per run.
const BATCH: usize = 64;

pub fn run(args: &EvalArgs) -> anyhow::Result<Outcome> {
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let (data, part) = load_split(&args.data, args.split, &network)?;
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        [BATCH, 1, all_threads(args.threads)],
        &[],
    )?;
    let preprocessing = preprocessing(&data, &args.data, &network)?;
    let start = Instant::now();
    let result = evaluate(&session, &data.labels, |i, x| {
        data.fill_input(i, &preprocessing, x);
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let options = session.plan().options();
    if args.json {
        print::json_of(
            &warnings,
            json!({
                "images": result.images,
                "error_percent": result.error_percent(),
                "top1": result.top1(),
                "wrong": result.wrong,
                "network": network.graph.name,
                "plan": options.weights,
                "isa": options.isa.name(),
                "seconds": seconds,
                "part": part,
            }),
        )?;
    } else {
        print::text(format_args!(
            "{}: {} of {} images wrong, error {:.2} %, top-1 {:.2} % ({} plan, {}){}",
            network.graph.name,
            result.wrong,
            result.images,
            result.error_percent(),
            result.top1() * 100.0,
            options.weights,
            options.isa,
            match part {
                "whole" =>
                    "; the set is not split, so these may be images that the network was trained on",
                _ => "",
            },
        ))?;
    }
    Ok(Outcome::Done)
}

/// A labelled set that fits the network, and which part of the data it is: `test`, `train`, or `whole` where there is no split.
pub fn load_split(
    path: &Path,
    split: Split,
    network: &Network,
) -> anyhow::Result<(Dataset, &'static str)> {
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
    let splits = load_data(path)?;
    let (set, name, part) = match split {
        Split::Test => (splits.test, "test", "test"),
        Split::Train => (splits.train, "training", "train"),
    };
    let found = match (set, splits.whole, split) {
        (Some(set), _, _) => Some((set, part)),
        (None, Some(whole), Split::Test) => Some((whole, "whole")),
        _ => None,
    };
    let Some((set, part)) = found else {
        bail!(
            "{}: expected {name} images, got {}",
            path.display(),
            splits.describe
        );
    };
    let shapes = network.shapes()?;
    let classes = shapes[network.graph.outputs[0].as_str()].elements();
    set.check_against(&network.graph.inputs[0].shape, classes)?;
    Ok((set, part))
}
