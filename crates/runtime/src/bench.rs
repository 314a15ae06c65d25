//! Latency, throughput and memory of sessions, measured so that sessions can be compared.
//!
//! Sessions run in turns within one process, a few milliseconds each, so that a disturbance of the machine affects all of
//! them alike. A latency is the time between two readings of the clock around one run, less the time of a reading.

use std::time::{Duration, Instant};

use serde::Serialize;
use sparsevd_kernels::Isa;

use crate::arguments::{Inputs, List, Slices};
use crate::{RuntimeError, Session, WeightMode};

/// A machine, as measurements name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Name of its CPU; `None` on systems without `/proc/cpuinfo`.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Operating system.
    pub os: &'static str,
    /// Architecture.
    pub arch: &'static str,
    /// Instruction set of the kernels.
    pub isa: &'static str,
}

impl Machine {
    /// This machine, with kernels of an instruction set.
    pub fn this(isa: Isa) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|l| l.strip_prefix("model name"));
        Self {
            cpu: name.and_then(|l| Some(l.split_once(':')?.1.trim().to_owned())),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            isa: isa.name(),
        }
    }
}

/// Times and memory of one session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Sparse or dense plan.
    pub plan: WeightMode,
    /// Samples per run.
    pub batch: usize,
    /// Threads that the run used.
    pub threads: usize,
    /// Median of the latency, in microseconds.
    pub p50_us: f64,
    /// 90th percentile of the latency, in microseconds.
    pub p90_us: f64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
    /// Samples per second over all runs.
    pub items_per_s: f64,
    /// Bytes of packed weights, indices and biases.
    pub weight_bytes: usize,
    /// Bytes of activations and scratch of all threads.
    pub arena_bytes: usize,
    /// Peak resident memory of a process with this plan alone, in bytes; `None` where it was not measured.
    pub peak_rss_bytes: Option<u64>,
    /// Runs that were timed.
    pub runs: usize,
}

/// Time of one session before the next one runs.
const TURN: Duration = Duration::from_millis(4);

/// Most runs that count for a session: enough for a stable 99th percentile.
const MOST_RUNS: usize = 1 << 20;

/// Fewest turns of a session. Each has a run that counts, so that there is a median.
const FEWEST_ROUNDS: u32 = 3;

/// A run that takes as long counts although another session ran before it: caches are filled again in milliseconds, a few per cent of it at
/// most.
const SLOW: Duration = Duration::from_millis(100);

/// Times runs of `batch` samples of each session, in turns, for about `budget` per session, runs that do not count included. Of a network that
/// is too slow for the budget three runs count, and one to three do not.
///
/// Each of `inputs` has one or more batches, `[k][batch][shape]`, which the runs use in turn. A free dimension has [`crate::PlanOptions::length`] elements.
///
/// # Errors
/// [`RuntimeError::Names`] when `inputs` are not those of each session, [`RuntimeError::Length`] when they are not a whole number of batches.
pub fn measure<'i>(
    sessions: &[&Session],
    batch: usize,
    inputs: impl Into<Inputs<'i>>,
    budget: Duration,
) -> Result<Vec<Measurement>, RuntimeError> {
    let inputs = inputs.into();
    let clock = clock_cost();
    let mut samples: Vec<Vec<Duration>> = sessions.iter().map(|_| Vec::new()).collect();
    let batches = sessions
        .iter()
        .map(|session| batches(session, batch, inputs))
        .collect::<Result<Vec<Vec<List<&[f32]>>>, _>>()?;
    let lengths = sessions
        .iter()
        .zip(&batches)
        .map(|(session, batches)| session.length(batch, &batches[0]))
        .collect::<Result<Vec<usize>, _>>()?;
    let outputs = sessions.iter().zip(&lengths);
    let mut outputs = outputs
        .map(|(s, &length)| s.outputs(batch, length))
        .collect::<Result<Vec<Vec<Vec<f32>>>, _>>()?;
    let mut outputs: Vec<Vec<&mut [f32]>> = (outputs.iter_mut())
        .map(|outputs| outputs.iter_mut().map(Vec::as_mut_slice).collect())
        .collect();
    let budget = budget.saturating_mul(u32::try_from(sessions.len()).unwrap_or(u32::MAX));
    let mut slow = vec![false; sessions.len()];
    let started = Instant::now();
    for round in 0.. {
        // A round that would end after the budget is left out.
        let spent = started.elapsed();
        if round >= FEWEST_ROUNDS && spent + spent / round > budget {
            break;
        }
        for (i, (session, samples)) in sessions.iter().zip(&mut samples).enumerate() {
            let mut batches = batches[i].iter().cycle();
            let turn = Instant::now();
            let mut last = turn;
            // The first run of a turn does not count: other sessions have replaced its weights in the caches. Of a slow session only the very first,
            // which touches its memory for the first time, does not.
            let mut warm = slow[i] && round > 0;
            let mut timed = 0;
            while timed == 0 || last - turn < TURN {
                if let Some(inputs) = batches.next() {
                    session.run_slices(Slices {
                        batch,
                        length: lengths[i],
                        inputs,
                        outputs: &mut outputs[i],
                    })?;
                }
                let now = Instant::now();
                if warm {
                    timed += 1;
                    if samples.len() < MOST_RUNS {
                        samples.push((now - last).saturating_sub(clock));
                    }
                }
                slow[i] = now - last >= SLOW;
                warm = true;
                last = now;
            }
        }
    }
    Ok(sessions
        .iter()
        .zip(&mut samples)
        .map(|(session, samples)| summarise(session, batch, samples))
        .collect())
}

/// The inputs of each batch.
fn batches<'i>(
    session: &Session,
    batch: usize,
    inputs: Inputs<'i>,
) -> Result<Vec<List<&'i [f32]>>, RuntimeError> {
    let values = session.plan().inputs();
    let inputs = inputs.in_order(values)?;
    let length = session.plan().options().length;
    let lengths: Vec<usize> = values.iter().map(|v| batch * v.elements(length)).collect();
    let count = inputs[0].len() / lengths[0].max(1);
    for ((value, x), len) in values.iter().zip(&*inputs).zip(&lengths) {
        if count == 0 || x.len() != count * len {
            return Err(RuntimeError::Length {
                operand: "input",
                name: value.name.clone(),
                batch: batch * count.max(1),
                expected: len * count.max(1),
                got: x.len(),
            });
        }
    }
    let of_batch = |k: usize| {
        let x = inputs.iter().zip(&lengths);
        List::from_iter(x.map(|(x, &len)| &x[k * len..][..len]))
    };
    Ok((0..count).map(of_batch).collect())
}

fn summarise(session: &Session, batch: usize, samples: &mut [Duration]) -> Measurement {
    samples.sort_unstable();
    let at = |percent: usize| {
        let index = (samples.len() * percent / 100).min(samples.len().saturating_sub(1));
        samples.get(index).map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    let total: f64 = samples.iter().map(Duration::as_secs_f64).sum();
    Measurement {
        plan: session.plan().options().weights,
        batch,
        threads: session.threads(),
        p50_us: at(50),
        p90_us: at(90),
        p99_us: at(99),
        items_per_s: (samples.len() * batch) as f64 / total.max(f64::MIN_POSITIVE),
        weight_bytes: session.plan().weight_bytes(),
        arena_bytes: session.arena_bytes(),
        peak_rss_bytes: None,
        runs: samples.len(),
    }
}

/// Time of one reading of the clock.
pub(crate) fn clock_cost() -> Duration {
    let mut costs: Vec<Duration> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            start.elapsed()
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

/// Peak resident memory of this process in bytes, from `/proc/self/status`; `None` on systems without that file.
///
/// It is the peak since the process started, so each plan must be measured in a process of its own.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Dense, GraphBuilder};

    use super::*;
    use crate::{Plan, PlanOptions};

    #[test]
    fn three_runs_count_where_there_is_no_time_for_them() {
        let mut b = GraphBuilder::new("wide");
        let x = b.input("x", [1024]);
        let y = b.linear("fc", &x, 1024);
        b.output(&y);
        let network = b.network(|_, shape| Dense::zeros(shape.clone()).into());
        let options = PlanOptions {
            weights: WeightMode::Dense,
            batch: 512,
            ..PlanOptions::default()
        };
        let plan = Plan::new(&network.unwrap(), &options).unwrap();
        let session = Session::new(plan, 1).unwrap();
        let x = vec![0.5; 512 * 1024];
        let both = [&session, &session];
        let measured = measure(&both, 512, x.as_slice(), Duration::ZERO).unwrap();
        for m in &measured {
            assert!(m.runs >= 3 && m.p50_us > 0.0, "{m:?}");
            // Shorter runs may share a turn.
            let mean = m.items_per_s.recip() * 512.0 * 1e6;
            assert!(mean < 4e3 || m.runs <= 6, "{m:?}");
        }
    }
}
