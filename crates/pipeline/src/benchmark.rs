//! Sparse and dense plans of one network, timed beside each other.

use std::fmt;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use sparsevd_compressor::report::bytes;
use sparsevd_kernels::int8::{self, Dot};
use sparsevd_kernels::{Isa, peak::fma_peak};
use sparsevd_model::{ModelError, Network, terminal};
use sparsevd_runtime::bench::{Machine, Measurement, measure};
use sparsevd_runtime::conditions::{Conditions, Reading};
use sparsevd_runtime::profile::{NodeTime, Profile};
use sparsevd_runtime::{RuntimeError, Session, WeightMode};

use crate::input_samples::InputSamples;

/// What a dense plan computes where units have left the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum DenseShapes {
    /// All units of the original network, as a dense engine ran it.
    Original,
    /// Only the units that are left, which a dense engine could run too.
    Left,
}

impl DenseShapes {
    /// The network that a plan runs: a dense plan runs one of these shapes.
    ///
    /// # Errors
    /// A network whose original shapes do not fit each other.
    pub fn network(self, network: &Network, weights: WeightMode) -> Result<Network, ModelError> {
        match (weights, self) {
            (WeightMode::Dense, Self::Original) => network.in_original_shapes(),
            _ => Ok(network.clone()),
        }
    }
}

impl fmt::Display for DenseShapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Original => "original",
            Self::Left => "left",
        })
    }
}

/// Times and memory of plans of one network, at one batch size or several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Benchmark {
    /// The machine.
    pub machine: Machine,
    /// Name of the network.
    pub network: String,
    /// What ran, in words.
    pub input: String,
    /// Shapes of the dense plan.
    pub dense_shapes: DenseShapes,
    /// All measurements; those of one batch size follow each other.
    pub runs: Vec<Measurement>,
    /// The machine around those of each batch size, in their order.
    pub conditions: Vec<Around>,
}

/// The machine around the measurements of one batch size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Around {
    /// Samples per run.
    pub batch: usize,
    /// How often they were taken, the last of which counts: again where the machine was disturbed.
    pub tries: usize,
    /// What disturbed the last; empty where nothing did.
    pub disturbances: Vec<String>,
    /// The machine around the last.
    #[serde(flatten)]
    pub conditions: Conditions,
}

/// Most times that measurements are taken while the machine is disturbed.
const MOST_TRIES: usize = 3;

impl Benchmark {
    /// A benchmark without a measurement.
    pub fn new(network: &Network, isa: Isa, input: String, dense_shapes: DenseShapes) -> Self {
        Self {
            machine: Machine::this(isa),
            network: network.graph.name.clone(),
            input,
            dense_shapes,
            runs: vec![],
            conditions: vec![],
        }
    }

    /// Times runs of `batch` samples of each session, in turns, and returns the new measurements. Where the machine was disturbed they are
    /// taken again, twice at most.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn add(
        &mut self,
        isa: Isa,
        sessions: &[&Session],
        batch: usize,
        input: &InputSamples,
        budget: Duration,
    ) -> Result<&mut [Measurement], RuntimeError> {
        let first = self.runs.len();
        let input = input.named();
        let mut before = Reading::take(isa);
        for tries in 1.. {
            let runs = measure(sessions, batch, &input[..], budget)?;
            let after = Reading::take(isa);
            let conditions = Conditions::between(&before, &after);
            let disturbances = conditions.disturbances();
            if disturbances.is_empty() || tries == MOST_TRIES {
                self.runs.extend(runs);
                self.conditions.push(Around {
                    batch,
                    tries,
                    disturbances,
                    conditions,
                });
                break;
            }
            before = after;
        }
        Ok(&mut self.runs[first..])
    }
}

impl fmt::Display for Benchmark {
    /// The machine, a table of the measurements, and how two plans of one batch size compare; each line ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu, cores, isa, ..
        } = &self.machine;
        writeln!(
            f,
            "{} on {} ({cores} cores), {isa}",
            terminal::name(&self.network),
            cpu.as_deref().unwrap_or("unknown CPU"),
        )?;
        writeln!(
            f,
            "{:6}  {:>5}  {:>7}  {:>10}  {:>10}  {:>10}  {:>12}  {:>7}  {:>10}  {:>10}  {:>12}",
            "plan",
            "batch",
            "threads",
            "p50 us",
            "p90 us",
            "p99 us",
            "items/s",
            "runs",
            "weights",
            "arena",
            "peak RSS"
        )?;
        for r in &self.runs {
            let rss = r.peak_rss_bytes.map_or("not measured".into(), bytes);
            writeln!(
                f,
                "{:6}  {:>5}  {:>7}  {:>10.3}  {:>10.3}  {:>10.3}  {:>12.0}  {:>7}  {:>10}  {:>10}  {rss:>12}",
                r.plan.to_string(),
                r.batch,
                r.threads,
                r.p50_us,
                r.p90_us,
                r.p99_us,
                r.items_per_s,
                r.runs,
                bytes(r.weight_bytes as u64),
                bytes(r.arena_bytes as u64),
            )?;
        }
        for around in &self.conditions {
            let Around {
                batch,
                tries,
                disturbances,
                conditions,
            } = around;
            writeln!(f, "batch {batch}: {conditions}")?;
            if !disturbances.is_empty() {
                let what = disturbances.join(", ");
                writeln!(
                    f,
                    "batch {batch}: the machine was disturbed in each of {tries} tries: {what}"
                )?;
            }
        }
        let shapes = match self.dense_shapes {
            DenseShapes::Original => "the original shapes",
            DenseShapes::Left => "the shapes that are left",
        };
        let (pairs, _) = self.runs.as_chunks::<2>();
        for [one, other] in pairs.iter().filter(|[one, other]| one.plan != other.plan) {
            writeln!(
                f,
                "batch {}: {} over {} in {shapes}: {:.1} times faster (p50), weights {:.1} times smaller",
                one.batch,
                one.plan,
                other.plan,
                other.p50_us / one.p50_us,
                other.weight_bytes as f64 / one.weight_bytes.max(1) as f64,
            )?;
        }
        Ok(())
    }
}

/// The profile of a plan of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileReport<'p> {
    /// Name of the network.
    pub network: &'p str,
    /// Sparse or dense plan.
    pub plan: WeightMode,
    /// The FMA peak of one core in GFLOP/s.
    pub peak: f64,
    /// The peak of products of bytes, in billions of operations per second, where a node multiplies them.
    pub int8_peak: Option<f64>,
    /// The times of its nodes.
    pub profile: &'p Profile,
}

impl<'p> ProfileReport<'p> {
    /// Measures the peaks of one core, for the profile of a plan with kernels of that instruction set.
    pub fn new(network: &'p str, (plan, isa): (WeightMode, Isa), profile: &'p Profile) -> Self {
        let is_int8 = profile.nodes.iter().any(|n| n.node.is_int8);
        Self {
            network,
            plan,
            peak: fma_peak(isa),
            int8_peak: is_int8.then(|| int8::peak(Dot::of(isa))),
            profile,
        }
    }

    /// The share that a node reaches of the peak of what it multiplies. Operations are those on non-zeros.
    fn peak_share(&self, time: &NodeTime) -> f64 {
        let peak = match self.int8_peak {
            Some(peak) if time.node.is_int8 => peak,
            _ => self.peak,
        };
        time.gflops / peak
    }
}

impl Serialize for ProfileReport<'_> {
    /// The fields of the profile, each node with its share of the peak, and those of this report.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Node<'p> {
            #[serde(flatten)]
            time: &'p NodeTime,
            peak_share: f64,
        }
        let node = |time| Node {
            time,
            peak_share: self.peak_share(time),
        };
        let nodes: Vec<Node<'_>> = self.profile.nodes.iter().map(node).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("batch", &self.profile.batch)?;
        map.serialize_entry("run_us", &self.profile.run_us)?;
        map.serialize_entry("nodes", &nodes)?;
        map.serialize_entry("network", self.network)?;
        map.serialize_entry("plan", &self.plan)?;
        map.serialize_entry("fma_peak_gflops", &self.peak)?;
        if let Some(peak) = self.int8_peak {
            map.serialize_entry("int8_peak_gops", &peak)?;
        }
        map.end()
    }
}

impl fmt::Display for ProfileReport<'_> {
    /// A line for the run and one for each node; each ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            network,
            plan,
            peak,
            int8_peak,
            profile,
        } = self;
        write!(
            f,
            "{plan} plan of {}, batch {}: {:.3} us per run; FMA peak {peak:.1} GFLOP/s",
            terminal::name(network),
            profile.batch,
            profile.run_us
        )?;
        match int8_peak {
            Some(peak) => writeln!(f, ", int8 peak {peak:.1} GOP/s")?,
            None => writeln!(f)?,
        }
        writeln!(
            f,
            "{:12}  {:14}  {:30}  {:>10}  {:>10}  {:>6}  {:>8}  {:>6}  {:>10}",
            "node", "op", "kernel", "us", "expect us", "share", "GFLOP/s", "peak", "dense"
        )?;
        for n in &profile.nodes {
            write!(
                f,
                "{:12}  {:14}  {:30}  {:>10.3}  {:>10.3}  {:>4.1} %",
                terminal::name(&n.node.name),
                n.node.op,
                n.node.kernel,
                n.us,
                n.node.expected_us,
                n.share * 100.0
            )?;
            if n.node.weights > 0 {
                let share = self.peak_share(n) * 100.0;
                let (sparse, dense) = (n.gflops, n.dense_gflops);
                write!(f, "  {sparse:>8.2}  {share:>4.1} %  {dense:>10.2}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// The instruction sets of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IsaReport {
    /// The one that kernels use.
    pub isa: &'static str,
    /// All of them.
    pub available: Vec<IsaPeak>,
}

/// The arithmetic peak of one core with one instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IsaPeak {
    /// The instruction set.
    pub name: &'static str,
    /// GFLOP/s.
    pub fma_peak_gflops: f64,
    /// The instructions by which plans for it multiply int8.
    pub int8: &'static str,
    /// Billions of operations on bytes per second, by these.
    pub int8_peak_gops: f64,
}

impl IsaReport {
    /// Measures every instruction set of this machine, of which kernels use `chosen`.
    pub fn measure(chosen: Isa) -> Self {
        let peak = |isa: Isa| {
            let dot = Dot::of(isa);
            IsaPeak {
                name: isa.name(),
                fma_peak_gflops: fma_peak(isa),
                int8: dot.name(),
                int8_peak_gops: int8::peak(dot),
            }
        };
        Self {
            isa: chosen.name(),
            available: Isa::available().into_iter().map(peak).collect(),
        }
    }
}

impl fmt::Display for IsaReport {
    /// A line for each, with a star at the one that kernels use; each ends in a line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &IsaPeak {
            name,
            fma_peak_gflops,
            int8,
            int8_peak_gops,
        } in &self.available
        {
            let mark = if name == self.isa { "*" } else { " " };
            writeln!(
                f,
                "{mark} {name:8} peak of one core: {fma_peak_gflops:>7.1} GFLOP/s; in int8, by {int8}, {int8_peak_gops:>7.1} GOP/s"
            )?;
        }
        Ok(())
    }
}
