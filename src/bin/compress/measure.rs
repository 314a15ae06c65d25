//! Measurements of a network by the runtime: errors, kernels, latency and memory.

use std::time::Duration;

use sparsevd_compressor::report::{KernelChoice, SplitError, Timing};
use sparsevd_format::Dataset;
use sparsevd_kernels::Isa;
use sparsevd_model::Network;
use sparsevd_runtime::bench::measure;
use sparsevd_runtime::{Evaluation, Plan, PlanOptions, Session, WeightMode, evaluate};

/// Batches that latencies are measured at.
const BATCHES: [usize; 2] = [1, 64];

/// Samples per run when errors are counted.
const EVALUATION_BATCH: usize = 64;

/// Time per plan and batch.
const BUDGET: Duration = Duration::from_millis(200);

fn session(
    network: &Network,
    weights: WeightMode,
    batch: usize,
    threads: usize,
) -> anyhow::Result<Session> {
    let options = PlanOptions {
        weights,
        isa: Isa::from_env()?,
        threads,
        batch,
        ..PlanOptions::default()
    };
    Ok(Session::new(Plan::new(network, &options)?, threads)?)
}

/// Errors of a network on labelled images.
pub fn errors(
    network: &Network,
    weights: WeightMode,
    images: &Dataset,
    threads: usize,
) -> anyhow::Result<Evaluation> {
    let session = session(network, weights, EVALUATION_BATCH, threads)?;
    let preprocessing = network.graph.preprocessing.clone().unwrap_or_default();
    Ok(evaluate(&session, &images.labels, |i, x| {
        images.fill_input(i, &preprocessing, x)
    }))
}

/// Errors before and after on the same images.
pub fn compare(dense: Evaluation, sparse: Evaluation) -> SplitError {
    SplitError {
        images: sparse.images,
        dense_percent: dense.error_percent(),
        sparse_percent: sparse.error_percent(),
    }
}

/// The kernels of a sparse plan by layer and batch.
pub fn kernels(network: &Network) -> anyhow::Result<Vec<KernelChoice>> {
    let mut choices = vec![];
    for batch in BATCHES {
        let options = PlanOptions {
            isa: Isa::from_env()?,
            batch,
            ..PlanOptions::default()
        };
        let plan = Plan::new(network, &options)?;
        let weighted = plan.nodes().iter().filter(|n| n.weights > 0);
        choices.extend(weighted.map(|n| KernelChoice {
            layer: n.name.clone(),
            batch,
            kernel: n.kernel.clone(),
        }));
    }
    Ok(choices)
}

/// Latency and memory of the sparse plan of `sparse` and the dense plan of `dense`, on one thread, over `images`, or over
/// numbers from 0 to 1 where there are none.
pub fn timings(
    sparse: &Network,
    dense: &Network,
    images: Option<&Dataset>,
) -> anyhow::Result<Vec<Timing>> {
    let preprocessing = sparse.graph.preprocessing.clone().unwrap_or_default();
    let size = sparse.graph.inputs[0].shape.elements();
    let mut timings = vec![];
    for batch in BATCHES {
        let mut input = vec![0.0; 4 * batch * size];
        for (i, x) in input.chunks_exact_mut(size).enumerate() {
            match images {
                Some(images) => images.fill_input(i % images.len(), &preprocessing, x),
                None => (x.iter_mut().enumerate())
                    .for_each(|(j, x)| *x = ((i + j) * 7919 % 1009) as f32 / 1009.0),
            }
        }
        let sessions = [
            session(sparse, WeightMode::Sparse, batch, 1)?,
            session(dense, WeightMode::Dense, batch, 1)?,
        ];
        let measured = measure(&[&sessions[0], &sessions[1]], batch, &input, BUDGET);
        timings.extend(measured.into_iter().map(|m| Timing {
            plan: m.plan.to_string(),
            batch: m.batch,
            threads: m.threads,
            p50_us: m.p50_us,
            p90_us: m.p90_us,
            p99_us: m.p99_us,
            items_per_s: m.items_per_s,
            weight_bytes: m.weight_bytes,
            arena_bytes: m.arena_bytes,
        }));
    }
    Ok(timings)
}
