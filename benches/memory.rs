//! Bytes of weights, activations and whole processes, sparse and dense: `cargo bench --bench memory`.
//!
//! A process is measured by running this program again: it reads the network from a file, plans it, runs it, and that is all.
#![allow(missing_docs, reason = "a benchmark")]

mod paper;

use std::path::Path;
use std::process::Command;

use sparsevd::format::{GraphSource, WriteOptions, read_network, write_network};
use sparsevd::runtime::bench::peak_rss_bytes;
use sparsevd::runtime::{Plan, PlanOptions, Session, WeightMode};

/// First argument of the program when it is to hold one plan.
const CHILD: &str = "--one-plan";

fn session(file: &Path, weights: WeightMode, batch: usize) -> Session {
    let network = read_network(file, &GraphSource::Auto)
        .expect("a file we wrote")
        .network;
    let options = PlanOptions {
        weights,
        batch,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&network, &options).expect("a preset can be planned");
    Session::new(plan, 1).expect("one thread needs no pool")
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, first, file, weights, batch] = args.as_slice()
        && first == CHILD
    {
        return child(Path::new(file), weights, batch.parse().expect("a batch"));
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    println!(
        "{:14} {:7} {:>5} {:>12} {:>12} {:>14}",
        "network", "plan", "batch", "weights, B", "arena, B", "peak RSS, KiB"
    );
    for (preset, densities) in paper::NETWORKS {
        let file = dir.path().join(format!("{preset}.safetensors"));
        let network = paper::network(preset, densities);
        write_network(&file, &network, &WriteOptions::default()).expect("a file");
        for batch in [1, 64] {
            for weights in [WeightMode::Sparse, WeightMode::Dense] {
                let session = session(&file, weights, batch);
                let rss = in_child(&file, weights, batch)
                    .map_or("not measured".into(), |b| (b / 1024).to_string());
                println!(
                    "{preset:14} {:7} {batch:>5} {:>12} {:>12} {rss:>14}",
                    weights.to_string(),
                    session.plan().weight_bytes(),
                    session.arena_bytes(),
                );
            }
        }
    }
}

fn child(file: &Path, weights: &str, batch: usize) {
    let weights = match weights {
        "dense" => WeightMode::Dense,
        _ => WeightMode::Sparse,
    };
    let session = session(file, weights, batch);
    session
        .run(batch, &vec![0.5; batch * 784], &mut vec![0.0; batch * 10])
        .expect("whole samples");
    if let Some(bytes) = peak_rss_bytes() {
        println!("{bytes}");
    }
}

fn in_child(file: &Path, weights: WeightMode, batch: usize) -> Option<u64> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg(CHILD).arg(file);
    command.args([weights.to_string(), batch.to_string()]);
    let output = command.output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
