//! Time of each node of a plan.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::arguments::{Inputs, Slices};
use crate::bench::clock_cost;
use crate::{PlanNode, RuntimeError, Session};

/// The time of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeTime {
    /// The node of the plan.
    #[serde(flatten)]
    pub node: PlanNode,
    /// Microseconds per run.
    pub us: f64,
    /// Share in the time of all nodes, 0 to 1.
    pub share: f64,
    /// Billions of operations on non-zeros per second; a multiply-add counts as two.
    pub gflops: f64,
    /// The same for the operations of the dense layer: the speed at which a dense kernel would take as long.
    pub dense_gflops: f64,
}

/// The times of the nodes of a plan, on one thread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Samples per run.
    pub batch: usize,
    /// Microseconds of a whole run, timed without reading the clock between nodes.
    pub run_us: f64,
    /// The nodes in the order in which they run.
    pub nodes: Vec<NodeTime>,
}

/// Times each node over runs of `batch` samples, for about `budget`. The result is the median of several rounds.
///
/// # Errors
/// Those of [`Session::run`].
pub fn profile<'i>(
    session: &Session,
    batch: usize,
    inputs: impl Into<Inputs<'i>>,
    budget: Duration,
) -> Result<Profile, RuntimeError> {
    const ROUNDS: u128 = 21;
    const FEWEST_ROUNDS: u128 = 3;
    let clock = clock_cost();
    let inputs = inputs.into().in_order(session.plan().inputs())?;
    let length = session.length(batch, &inputs)?;
    let mut outputs = session.outputs(batch, length)?;
    let mut outputs: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
    let plan = session.plan_for(length)?;
    session.run_slices(slices([batch, length], &inputs, &mut outputs))?;
    let start = Instant::now();
    session.run_slices(slices([batch, length], &inputs, &mut outputs))?;
    let once = start.elapsed().max(Duration::from_nanos(100));
    // A round runs the network as a whole and by nodes. Slow networks have fewer rounds, of one run.
    let runs = budget.as_nanos() / 2 / once.as_nanos();
    let rounds = runs.clamp(FEWEST_ROUNDS, ROUNDS);
    let runs = (runs / rounds).clamp(1, 100_000) as u32;
    let mut whole = Vec::new();
    let mut nodes: Vec<Vec<f64>> = vec![Vec::new(); plan.nodes().len()];
    let blocks = batch.div_ceil(plan.block()) as u32;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..runs {
            session.run_slices(slices([batch, length], &inputs, &mut outputs))?;
        }
        whole.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(runs));
        let mut times = vec![Duration::ZERO; plan.nodes().len()];
        for _ in 0..runs {
            session.run_timed(slices([batch, length], &inputs, &mut outputs), &mut times)?;
        }
        for (all, time) in nodes.iter_mut().zip(&times) {
            let time = time.saturating_sub(clock * blocks * runs);
            all.push(time.as_secs_f64() * 1e6 / f64::from(runs));
        }
    }
    let times: Vec<f64> = nodes.iter_mut().map(|t| median(t)).collect();
    let total: f64 = times.iter().sum();
    // A plan for several lengths has the multiply-adds of the longest.
    let longest = plan.free().map_or(1, |(_, lengths)| *lengths.end());
    Ok(Profile {
        batch,
        run_us: median(&mut whole),
        nodes: plan
            .nodes()
            .iter()
            .zip(&plan.steps)
            .zip(times)
            .map(|((node, bound), us)| {
                let rows = |length| bound.step.rows.of(1, length).max(1) as f64;
                let run = rows(length) / rows(longest);
                let rate = |multiply_adds: usize| {
                    if us > 0.0 {
                        2.0 * run * (multiply_adds * batch) as f64 / us / 1e3
                    } else {
                        0.0
                    }
                };
                NodeTime {
                    us,
                    share: if total > 0.0 { us / total } else { 0.0 },
                    gflops: rate(node.multiply_adds),
                    dense_gflops: rate(node.dense_multiply_adds),
                    node: node.clone(),
                }
            })
            .collect(),
    })
}

fn slices<'s, 'a>(
    [batch, length]: [usize; 2],
    inputs: &'s [&'a [f32]],
    outputs: &'s mut [&'a mut [f32]],
) -> Slices<'s, 'a> {
    Slices {
        batch,
        length,
        inputs,
        outputs,
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
