//! `run-sparse MODEL --input FILE`.

use std::fmt::Write;

use serde_json::json;
use sparsevd_format::{LoadedNetwork, check_writable, write_npy, write_npz};
use sparsevd_model::{Network, Op};

use crate::args::InferArgs;
use crate::load::{all_threads, session};
use crate::samples::read_samples;
use crate::{Outcome, print};

/// Samples that a plan is made for at most; more run in several goes.
const LARGEST_BATCH: usize = 64;

pub fn run(args: &InferArgs) -> anyhow::Result<Outcome> {
    if let Some(output) = &args.output {
        check_writable(output, args.force)?;
    }
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let samples = read_samples(&args.input, args.array.as_deref(), &network)?;
    let batch = samples.count.min(LARGEST_BATCH);
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        batch,
        all_threads(args.threads),
        &[],
    )?;
    let out = session.plan().output_shape().clone();
    let mut y = vec![0.0; samples.count * out.elements()];
    session.run(samples.count, &samples.values, &mut y);

    if let Some(path) = &args.output {
        let mut shape = vec![samples.count];
        shape.extend(out.dims());
        let is_npy = path.extension().is_some_and(|e| e == "npy");
        if is_npy {
            write_npy(path, &shape, &y)?;
        } else {
            write_npz(path, &[("y", &shape, &y)])?;
        }
    }
    let is_probability = ends_in_softmax(&network);
    let results: Vec<Vec<(usize, f32, f64)>> = y
        .chunks_exact(out.elements().max(1))
        .map(|y| top(y, args.top, is_probability))
        .collect();
    if args.json {
        let results: Vec<_> = results
            .iter()
            .enumerate()
            .map(|(sample, top)| {
                let top: Vec<_> = top
                    .iter()
                    .map(|(class, value, p)| json!({"class": class, "value": value, "probability": p}))
                    .collect();
                json!({"sample": sample, "top": top})
            })
            .collect();
        print::json_of(
            &warnings,
            json!({
                "network": network.graph.name,
                "samples": samples.count,
                "output_shape": out,
                "results": results,
            }),
        )?;
    } else {
        let mut text = String::new();
        for (sample, top) in results.iter().enumerate() {
            write!(text, "{sample}:")?;
            for (class, value, p) in top {
                write!(text, "  {class} ({:.1} %, {value:.4})", p * 100.0)?;
            }
            writeln!(text)?;
        }
        print::text(text.trim_end())?;
    }
    Ok(Outcome::Done)
}

fn ends_in_softmax(network: &Network) -> bool {
    let output = network.graph.outputs.first();
    let last = network.graph.nodes.iter().find(|n| Some(&n.name) == output);
    last.is_some_and(|n| n.op == Op::Softmax)
}

/// The largest outputs: class, value, probability.
fn top(y: &[f32], k: usize, is_probability: bool) -> Vec<(usize, f32, f64)> {
    let max = y.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |v: f32| f64::from(v - max).exp();
    let total: f64 = y.iter().map(|&v| exp(v)).sum();
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|&a, &b| y[b].total_cmp(&y[a]).then(a.cmp(&b)));
    order
        .into_iter()
        .take(k)
        .map(|i| {
            let p = if is_probability {
                f64::from(y[i])
            } else {
                exp(y[i]) / total
            };
            (i, y[i], p)
        })
        .collect()
}
