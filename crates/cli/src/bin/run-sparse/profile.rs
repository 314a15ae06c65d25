//! `run-sparse profile`.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json, to_value};
use sparsevd_format::LoadedNetwork;
use sparsevd_kernels::peak::fma_peak;
use sparsevd_runtime::profile::profile;

use crate::args::ProfileArgs;
use crate::bench::samples;
use crate::load::session;
use crate::{Outcome, print};

const BUDGET: Duration = Duration::from_secs(1);

pub fn run(args: &ProfileArgs) -> anyhow::Result<Outcome> {
    let args = &args.plan;
    let LoadedNetwork {
        network, warnings, ..
    } = args.model.load()?;
    let input = samples(
        args.data.as_deref(),
        &args.input,
        &network,
        [args.batch.max(1), args.length],
    )?;
    // Nodes are timed one after the other, so one thread it is.
    let session = session(
        &args.model,
        &network,
        args.weights.into(),
        [args.batch, input.length, 1],
        &input.named(),
    )?;
    let isa = session.plan().options().isa;
    let peak = fma_peak(isa);
    let profile = profile(
        &session,
        args.batch,
        &input.cycled(args.batch).named()[..],
        BUDGET,
    )?;
    if args.json {
        let mut value = to_value(&profile)?;
        value["network"] = json!(network.graph.name);
        value["plan"] = json!(session.plan().options().weights);
        value["fma_peak_gflops"] = json!(peak);
        for (node, time) in nodes(&mut value).zip(&profile.nodes) {
            node["peak_share"] = json!(time.gflops / peak);
        }
        print::json_of(&warnings, value)?;
        return Ok(Outcome::Done);
    }
    let mut text = String::new();
    writeln!(
        text,
        "{} plan of {}, batch {}: {:.3} us per run; FMA peak {peak:.1} GFLOP/s",
        session.plan().options().weights,
        network.graph.name,
        profile.batch,
        profile.run_us
    )?;
    writeln!(
        text,
        "{:12}  {:14}  {:30}  {:>10}  {:>10}  {:>6}  {:>8}  {:>6}  {:>10}",
        "node", "op", "kernel", "us", "expect us", "share", "GFLOP/s", "peak", "dense"
    )?;
    for n in &profile.nodes {
        write!(
            text,
            "{:12}  {:14}  {:30}  {:>10.3}  {:>10.3}  {:>4.1} %",
            n.node.name,
            n.node.op,
            n.node.kernel,
            n.us,
            n.node.expected_us,
            n.share * 100.0
        )?;
        if n.node.weights > 0 {
            let share = n.gflops / peak * 100.0;
            write!(
                text,
                "  {:>8.2}  {share:>4.1} %  {:>10.2}",
                n.gflops, n.dense_gflops
            )?;
        }
        writeln!(text)?;
    }
    print::text(text.trim_end())?;
    Ok(Outcome::Done)
}

/// The nodes of a profile as JSON.
fn nodes(profile: &mut Value) -> impl Iterator<Item = &mut Value> {
    profile["nodes"].as_array_mut().into_iter().flatten()
}
