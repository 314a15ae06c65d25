//! Whether sparse plans, in f32 and in int8, are as much faster than their dense twins in f32 as they were: `taskset -c 1 cargo bench --bench guard`.
//!
//! Each case runs both plans by turns in one process, and again where the machine was disturbed. Ratios are compared with those in
//! `benches/guard.json`, by the CPU and its instruction set; one that fell by more than a tenth ends the program with 1. With
//! `SPARSEVD_WRITE_GUARD=1` they are written there instead.
#![allow(missing_docs, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use sparsevd::format::{GraphSource, read_network, read_packed};
use sparsevd::model::{Conv2d, GraphBuilder, Network};
use sparsevd::runtime::bench::{Machine, measure};
use sparsevd::runtime::conditions::{Conditions, Reading};
use sparsevd::runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_kernels::Isa;
use sparsevd_testing::arbitrary::Stream;

/// Time of each session in a look.
const BUDGET: Duration = Duration::from_millis(150);
/// Looks of a case, of which the median counts.
const LOOKS: usize = 5;
/// Looks that are taken again because the machine was disturbed.
const MOST_AGAIN: usize = 10;
/// The share of a committed ratio that is enough.
const ENOUGH: f64 = 0.9;

/// Ratios by case, by machine.
type Ratios = BTreeMap<String, BTreeMap<String, f64>>;

fn linear(units: usize, inputs: usize, density: f64) -> Network {
    let mut b = GraphBuilder::new("linear");
    let x = b.input("x", [inputs]);
    let y = b.linear("fc", &x, units);
    b.output(&y);
    let mut stream = Stream(1);
    b.network(|_, shape| stream.bernoulli(shape.clone(), density).into())
        .expect("a linear layer is valid")
}

fn conv(channels: usize, units: usize, kernel: usize, side: usize, density: f64) -> Network {
    let mut b = GraphBuilder::new("conv");
    let x = b.input("x", [channels, side, side]);
    let y = b.conv(
        "conv",
        &x,
        &Conv2d::square(units, kernel).padding(kernel / 2),
    );
    b.output(&y);
    let mut stream = Stream(2);
    b.network(|_, shape| stream.bernoulli(shape.clone(), density).into())
        .expect("a convolution is valid")
}

fn committed(model: &str) -> Network {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(model);
    let loaded = match file.extension().is_some_and(|end| end == "spvd") {
        true => read_packed(file),
        false => read_network(file, &GraphSource::Auto),
    };
    loaded.expect("a committed model").network
}

/// Names, networks and batches.
fn cases() -> Vec<(String, Network, usize)> {
    let mut cases = vec![];
    // None whose dense weights come from behind the second-level cache: that is the neighbours' as well.
    for (units, inputs, zeros, batch) in
        [(512, 512, 90, 64), (1536, 384, 80, 64), (512, 512, 95, 1)]
    {
        let density = 1.0 - f64::from(zeros) / 100.0;
        let name = format!("linear {inputs} to {units}, {zeros} %, batch {batch}");
        cases.push((name, linear(units, inputs, density), batch));
    }
    for (channels, units, kernel, side, zeros) in [
        (64, 64, 3, 28, 90),
        (128, 128, 3, 14, 80),
        (256, 256, 1, 14, 95),
        // Weights of larger ones come from a cache that other machines share.
        (128, 128, 3, 2, 90),
        (64, 256, 1, 56, 90),
    ] {
        let density = 1.0 - f64::from(zeros) / 100.0;
        let name = format!("{kernel}x{kernel} {channels} to {units} at {side}, {zeros} %, batch 1");
        cases.push((name, conv(channels, units, kernel, side, density), 1));
    }
    for (model, batch) in [
        ("lenet-300-100/sparse.safetensors", 1),
        ("lenet-300-100/sparse.safetensors", 64),
        ("lenet-5/sparse.safetensors", 1),
        ("lenet-5/sparse.safetensors", 64),
        ("resnet-8-cifar10/sparse.safetensors", 1),
        ("resnet-20-cifar10/sparse.safetensors", 1),
        // With int8 grids.
        ("resnet-20-cifar10/packed.spvd", 1),
    ] {
        cases.push((format!("{model}, batch {batch}"), committed(model), batch));
    }
    cases
}

/// How many times as fast the sparse plan is; the median of some looks at a quiet machine, or `None` where it never was.
fn ratio_of(network: &Network, batch: usize, isa: Isa) -> Option<f64> {
    let session = |weights| {
        let options = PlanOptions {
            weights,
            batch,
            ..PlanOptions::default()
        };
        let plan = Plan::new(network, &options).expect("the network can be planned");
        Session::new(plan, 1).expect("one thread needs no pool")
    };
    let [sparse, dense] = [WeightMode::Sparse, WeightMode::Dense].map(session);
    let elements = sparse.plan().input_shape().elements();
    let x = Stream(3).floats(batch * elements);
    let mut ratios = vec![];
    let mut before = Reading::take(isa);
    for _ in 0..LOOKS + MOST_AGAIN {
        let runs = measure(&[&sparse, &dense], batch, &x, BUDGET).expect("a whole batch");
        let after = Reading::take(isa);
        let quiet = Conditions::between(&before, &after)
            .disturbances()
            .is_empty();
        before = after;
        if quiet {
            ratios.push(runs[1].p50_us / runs[0].p50_us);
        }
        if ratios.len() == LOOKS {
            break;
        }
    }
    ratios.sort_by(f64::total_cmp);
    ratios.get(LOOKS / 2).copied()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/guard.json")
}

fn main() -> ExitCode {
    let isa = Isa::from_env().expect("an instruction set of this machine");
    let machine = Machine::this(isa);
    let name = format!(
        "{}, {}",
        machine.cpu.as_deref().unwrap_or("unknown CPU"),
        machine.isa
    );
    let text = fs::read_to_string(file()).expect("benches/guard.json");
    let mut all: Ratios = serde_json::from_str(&text).expect("ratios by machine and case");
    let write = std::env::var_os("SPARSEVD_WRITE_GUARD").is_some_and(|v| v == "1");
    let before = all.remove(&name).unwrap_or_default();
    if before.is_empty() && !write {
        let known: Vec<&String> = all.keys().collect();
        eprintln!(
            "benches/guard.json: expected ratios of this machine, {name}, got those of {known:?}; SPARSEVD_WRITE_GUARD=1 writes them"
        );
        return ExitCode::FAILURE;
    }
    println!("{name}; times as fast as the dense twin");
    let (mut now, mut kept) = (BTreeMap::new(), true);
    for (case, network, batch) in cases() {
        let was = before.get(&case).copied();
        let mut ratio = ratio_of(&network, batch, isa);
        if ratio < was.map(|was| ENOUGH * was) {
            // Once more, since not all that disturbs is seen.
            ratio = ratio_of(&network, batch, isa);
        }
        let verdict = match (ratio, was) {
            (None, _) => "the machine was disturbed in all looks",
            (Some(_), None) if !write => "not committed",
            (Some(ratio), Some(was)) if ratio < ENOUGH * was => "slower",
            _ => "",
        };
        kept &= verdict.is_empty() || write && ratio.is_some();
        let number = |ratio: Option<f64>| ratio.map_or("-".into(), |r| format!("{r:.2}"));
        println!(
            "{case:50} {:>7} {:>7}  {verdict}",
            number(ratio),
            number(was)
        );
        now.extend(ratio.map(|ratio| (case, (ratio * 100.0).round() / 100.0)));
    }
    if write && kept {
        all.insert(name, now);
        let text = serde_json::to_string_pretty(&all).expect("numbers") + "\n";
        fs::write(file(), text).expect("benches/guard.json can be written");
    }
    match kept {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
