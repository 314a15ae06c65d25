//! `run-sparse MODEL --input FILE`.

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;
use serde_json::{Value, json};
use sparsevd_format::{LoadedNetwork, check_writable, write_npy, write_npz};
use sparsevd_model::{Network, Op};
use sparsevd_runtime::Session;

use crate::args::InferArgs;
use crate::load::{all_threads, session};
use crate::samples::{Samples, read_samples};
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
        [batch, samples.length, all_threads(args.threads)],
        &[],
    )?;
    let outputs = run_outputs(&session, &samples)?;
    if let Some(path) = &args.output {
        write(path, &outputs)?;
    }
    let results: Vec<Vec<Top>> = outputs
        .iter()
        .map(|output| {
            let is_probability = is_softmax(&network, &output.name);
            let samples = output.values.chunks_exact(output.elements().max(1));
            samples.map(|y| top(y, args.top, is_probability)).collect()
        })
        .collect();
    if args.json {
        let mut value = json!({"network": network.graph.name, "samples": samples.count});
        match (outputs.as_slice(), results.as_slice()) {
            ([output], [results]) => {
                value["output_shape"] = json!(output.sample_shape());
                value["results"] = to_json(results);
            }
            _ => {
                let outputs = outputs.iter().zip(&results).map(|(output, results)| {
                    json!({
                        "name": output.name,
                        "shape": output.sample_shape(),
                        "results": to_json(results),
                    })
                });
                value["outputs"] = outputs.collect();
            }
        }
        print::json_of(&warnings, value)?;
    } else {
        let mut text = String::new();
        for (output, results) in outputs.iter().zip(&results) {
            for (sample, top) in results.iter().enumerate() {
                if outputs.len() > 1 {
                    write!(text, "{} ", output.name)?;
                }
                write!(text, "{sample}:")?;
                for (class, value, p) in top {
                    write!(text, "  {class} ({:.1} %, {value:.4})", p * 100.0)?;
                }
                writeln!(text)?;
            }
        }
        print::text(text.trim_end())?;
    }
    Ok(Outcome::Done)
}

/// The values of an output.
pub struct Output {
    pub name: String,
    /// `[samples, ...]`.
    shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Output {
    pub fn sample_shape(&self) -> &[usize] {
        &self.shape[1..]
    }

    /// Numbers of one sample.
    pub fn elements(&self) -> usize {
        self.sample_shape().iter().product()
    }
}

/// Runs all samples; the outputs are in the order of the graph.
pub fn run_outputs(session: &Session, samples: &Samples) -> anyhow::Result<Vec<Output>> {
    let mut outputs: Vec<Output> = (session.plan().outputs().iter())
        .map(|value| Output {
            name: value.name.clone(),
            shape: [
                &[samples.count],
                value.tensor_type.shape(samples.length).dims(),
            ]
            .concat(),
            values: vec![0.0; samples.count * value.elements(samples.length)],
        })
        .collect();
    let mut named: Vec<(&str, &mut [f32])> = (outputs.iter_mut())
        .map(|o| (o.name.as_str(), o.values.as_mut_slice()))
        .collect();
    session.run(samples.count, &samples.named()[..], &mut named[..])?;
    Ok(outputs)
}

/// One output as an .npy or as array `y` of an .npz, several as arrays of their names.
fn write(path: &Path, outputs: &[Output]) -> anyhow::Result<()> {
    let is_npy = path.extension().is_some_and(|e| e == "npy");
    match outputs {
        [Output { shape, values, .. }] if is_npy => write_npy(path, shape, values)?,
        [Output { shape, values, .. }] => write_npz(path, &[("y", shape, values)])?,
        several if is_npy => bail!(
            "--output {}: expected an .npz for {} outputs, got an .npy, which holds one array",
            path.display(),
            several.len()
        ),
        several => {
            let arrays: Vec<(&str, &[usize], &[f32])> = (several.iter())
                .map(|o| (o.name.as_str(), o.shape.as_slice(), o.values.as_slice()))
                .collect();
            write_npz(path, &arrays)?
        }
    };
    Ok(())
}

/// The largest outputs of a sample: class, value, probability.
type Top = Vec<(usize, f32, f64)>;

fn to_json(results: &[Top]) -> Value {
    let result = |(sample, top): (usize, &Top)| {
        let top: Vec<_> = top
            .iter()
            .map(|(class, value, p)| json!({"class": class, "value": value, "probability": p}))
            .collect();
        json!({"sample": sample, "top": top})
    };
    results.iter().enumerate().map(result).collect()
}

fn is_softmax(network: &Network, output: &str) -> bool {
    let node = network.graph.nodes.iter().find(|n| n.name == output);
    node.is_some_and(|n| matches!(n.op, Op::Softmax(_)))
}

/// The `k` largest of the outputs `y` of a sample.
fn top(y: &[f32], k: usize, is_probability: bool) -> Top {
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
