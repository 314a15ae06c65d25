//! Whole networks of linear layers: every batch from 1 to 64, sparse plans against dense ones at every density, and two threads against one.
//!
//! ```sh
//! taskset -c 1 cargo bench --bench networks -- batches     # exits with 1 where a batch breaks a rule
//! taskset -c 1 cargo bench --bench networks -- densities   # likewise
//! cargo bench --bench networks -- threads                  # on two idle cores
//! ```
//!
//! Rules of batches: a larger batch never takes less time in all, nor more than 1.3 times as long per item as any smaller one. Rule of densities: a
//! sparse plan is never slower than the dense one by more than 3 %.
#![allow(missing_docs, reason = "a benchmark")]

mod paper;

use std::time::Duration;

use sparsevd::model::{Network, Shape, presets};
use sparsevd::runtime::bench::measure;
use sparsevd::runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

const BUDGET: Duration = Duration::from_millis(40);
/// Measurements are repeated so often where a rule looks broken, since neighbours are noisy.
const TRIES: usize = 5;

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let want = |kind: &str| wanted.is_empty() || wanted.iter().any(|w| w == kind);
    let mut kept = true;
    if want("batches") {
        let (name, densities) = paper::NETWORKS[0];
        kept &= batches(name, &paper::network(name, densities));
        for density in [0.1, 0.02] {
            let name = format!("1024-1024-1024-10 at {density}");
            kept &= batches(&name, &mlp(&[1024, 1024, 10], 1024, density));
        }
    }
    if want("densities") {
        kept &= densities();
    }
    if want("threads") {
        threads();
    }
    std::process::exit(i32::from(!kept));
}

/// An MLP with random weights of one density; the last layer is dense.
fn mlp(widths: &[usize], input: usize, density: f64) -> Network {
    let preset = presets::mlp("mlp", Shape::from([input]), widths);
    let mut stream = Stream(11);
    Network::from_preset(preset, |_, shape| {
        let last = shape.dims()[0] == widths[widths.len() - 1];
        let density = if last { 1.0 } else { density };
        stream.bernoulli(shape.clone(), density).into()
    })
    .expect("an MLP is valid")
}

fn session(network: &Network, weights: WeightMode, batch: usize, threads: usize) -> Session {
    let options = PlanOptions {
        weights,
        batch,
        threads,
        ..PlanOptions::default()
    };
    let plan = Plan::new(network, &options).expect("an MLP can be planned");
    Session::new(plan, threads).expect("threads can be started")
}

/// Median microseconds of each session, run by turns.
fn times(sessions: &[&Session], batch: usize, budget: Duration) -> Vec<f64> {
    let inputs = sessions[0].plan().input_shape().elements();
    let x = Stream(1).floats(batch * inputs);
    let runs = measure(sessions, batch, &x, budget).expect("whole batches");
    runs.into_iter().map(|m| m.p50_us).collect()
}

fn batches(name: &str, network: &Network) -> bool {
    let sessions: Vec<Session> = (1..=64)
        .map(|n| session(network, WeightMode::Sparse, n, 1))
        .collect();
    let time = |n: usize| times(&[&sessions[n - 1]], n, BUDGET)[0];
    let mut us: Vec<f64> = (1..=64).map(time).collect();
    // The quietest of several looks, where neighbours may have disturbed one.
    let broken = |us: &[f64], n: usize| {
        let best = (1..n)
            .map(|m| us[m - 1] / m as f64)
            .fold(f64::INFINITY, f64::min);
        let falls = n > 1 && us[n - 1] < 0.97 * us[n - 2];
        (falls || us[n - 1] / n as f64 > 1.3 * best).then_some(best)
    };
    for _ in 0..TRIES {
        for n in 1..=64 {
            if broken(&us, n).is_some() {
                for m in [n.max(2) - 1, n] {
                    us[m - 1] = us[m - 1].min(time(m));
                }
            }
        }
    }
    println!("{name}: batch, us, us per item");
    let mut kept = true;
    for n in 1..=64 {
        let item = us[n - 1] / n as f64;
        let mark = match broken(&us, n) {
            Some(best) if item > 1.3 * best => {
                format!(" {:.2} times the best smaller", item / best)
            }
            Some(_) => " less than the batch before".into(),
            None => String::new(),
        };
        kept &= mark.is_empty();
        println!("{n:3} {:9.2} {item:8.3}{mark}", us[n - 1]);
    }
    kept
}

fn densities() -> bool {
    let mut kept = true;
    println!("density, batch: sparse plan over dense plan, times as fast");
    for (input, widths) in [(512, [512, 512, 10]), (1024, [2048, 1024, 10])] {
        for density in [
            0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0,
        ] {
            let network = mlp(&widths, input, density);
            print!("{input}-{widths:?} {density:4}:");
            for batch in [1, 4, 16, 64] {
                let plans = [WeightMode::Sparse, WeightMode::Dense]
                    .map(|weights| session(&network, weights, batch, 1));
                let ratio = || {
                    let us = times(&[&plans[0], &plans[1]], batch, BUDGET);
                    us[1] / us[0]
                };
                let mut best = ratio();
                for _ in 0..TRIES {
                    if best < 0.97 {
                        best = best.max(ratio());
                    }
                }
                kept &= best >= 0.97;
                let mark = if best < 0.97 { " SLOWER" } else { "" };
                print!("  b{batch} {best:.2}{mark}");
            }
            println!();
        }
    }
    kept
}

fn threads() {
    println!("network, batch: one thread, two threads, times as fast");
    for (density, batch) in [(0.1, 256), (0.5, 64), (0.1, 1), (0.02, 1024)] {
        let network = mlp(&[2048, 2048, 10], 2048, density);
        let sessions = [1, 2].map(|t| session(&network, WeightMode::Sparse, batch, t));
        let us = times(&[&sessions[0], &sessions[1]], batch, 10 * BUDGET);
        println!(
            "2048-2048-2048-10 at {density}, {batch}: {:.0} us, {:.0} us with {} threads, {:.2}",
            us[0],
            us[1],
            sessions[1].threads(),
            us[0] / us[1]
        );
    }
}
