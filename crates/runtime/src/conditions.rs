//! Whether a machine was disturbed while something was timed.
//!
//! The arithmetic peak of a core shows its clock, and little else: another process on it, neighbours that use the memory, and a hypervisor
//! that takes the core away are seen by other means.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use sparsevd_kernels::Isa;
use sparsevd_kernels::peak::fma_peak;

/// What one core could do at a moment, and counters that only grow.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    fma_peak_gflops: f64,
    memory_gb_per_s: f64,
    /// Of all cores, since the machine started; `None` on systems without `/proc/stat`.
    steal: Option<Duration>,
    /// Of this process; `None` on systems without `/proc/self/status`.
    preemptions: Option<u64>,
    at: Instant,
}

impl Reading {
    /// Takes about thirty milliseconds.
    pub fn take(isa: Isa) -> Self {
        let (fma_peak_gflops, memory_gb_per_s) = (fma_peak(isa), memory_rate());
        Self {
            fma_peak_gflops,
            memory_gb_per_s,
            steal: steal(),
            preemptions: preemptions(),
            at: Instant::now(),
        }
    }
}

/// The machine around a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Conditions {
    /// The arithmetic peak of one core in GFLOP/s.
    pub fma_peak_gflops: Change,
    /// Rate at which one core reads memory that its second-level cache does not hold, in GB/s.
    pub memory_gb_per_s: Change,
    /// Share of the time, summed over cores, in which the hypervisor ran something else; `None` where the system does not say.
    pub steal: Option<f64>,
    /// Times a second that the system ran something else on a core of this process; `None` where it does not say.
    pub preemptions_per_s: Option<f64>,
}

/// A rate before and after a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// Before.
    pub before: f64,
    /// After.
    pub after: f64,
}

impl Change {
    /// The larger of both over the smaller, less one.
    fn size(self) -> f64 {
        let (least, most) = (self.before.min(self.after), self.before.max(self.after));
        most / least.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// Largest change of the arithmetic peak on a quiet machine: clocks of some cores step by 8 %.
const MOST_PEAK: f64 = 0.1;
/// Largest change of the memory rate: it varies more, with the pages that a buffer gets.
const MOST_MEMORY: f64 = 0.2;
/// Largest share of time that the hypervisor takes.
const MOST_STEAL: f64 = 0.01;
/// Most preemptions a second: the system's own threads need a few.
const MOST_PREEMPTIONS: f64 = 20.0;

impl Conditions {
    /// Between two readings.
    pub fn between(before: &Reading, after: &Reading) -> Self {
        let seconds = (after.at - before.at).as_secs_f64().max(f64::MIN_POSITIVE);
        let change = |of: fn(&Reading) -> f64| Change {
            before: of(before),
            after: of(after),
        };
        let grown = before.steal.zip(after.steal);
        let preempted = before.preemptions.zip(after.preemptions);
        Self {
            fma_peak_gflops: change(|r| r.fma_peak_gflops),
            memory_gb_per_s: change(|r| r.memory_gb_per_s),
            steal: grown.map(|(a, b)| b.saturating_sub(a).as_secs_f64() / seconds),
            preemptions_per_s: preempted.map(|(a, b)| b.saturating_sub(a) as f64 / seconds),
        }
    }

    /// What disturbed the measurement; empty where nothing did.
    pub fn disturbances(&self) -> Vec<String> {
        let mut all = vec![];
        let mut rate = |what: &str, unit: &str, change: Change, most: f64| {
            if change.size() > most {
                let Change { before, after } = change;
                all.push(format!("{what} went from {before:.1} to {after:.1} {unit}"));
            }
        };
        rate("the FMA peak", "GFLOP/s", self.fma_peak_gflops, MOST_PEAK);
        rate("memory", "GB/s", self.memory_gb_per_s, MOST_MEMORY);
        if let Some(steal) = self.steal.filter(|steal| *steal > MOST_STEAL) {
            all.push(format!(
                "the hypervisor took {:.1} % of the time",
                100.0 * steal
            ));
        }
        if let Some(n) = self.preemptions_per_s.filter(|n| *n > MOST_PREEMPTIONS) {
            all.push(format!("other processes took a core {n:.0} times a second"));
        }
        all
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peak, memory) = (self.fma_peak_gflops, self.memory_gb_per_s);
        write!(
            f,
            "FMA peak of one core {:.1} GFLOP/s before, {:.1} after; memory {:.1} and {:.1} GB/s",
            peak.before, peak.after, memory.before, memory.after
        )?;
        if let Some(steal) = self.steal {
            write!(f, "; steal {:.1} %", 100.0 * steal)?;
        }
        if let Some(n) = self.preemptions_per_s {
            write!(f, "; {n:.0} preemptions a second")?;
        }
        Ok(())
    }
}

/// Bytes that the memory probe reads: more than second-level caches have.
const PROBE: usize = 32 << 20;

/// The best of a few passes over a buffer, in GB/s.
fn memory_rate() -> f64 {
    let buffer = vec![1_u64; PROBE / 8];
    let mut best = 0.0_f64;
    for _ in 0..4 {
        let start = Instant::now();
        // Sixteen sums, so that loads and not additions are waited for.
        let mut sums = [0_u64; 16];
        let (parts, _) = std::hint::black_box(&buffer).as_chunks::<16>();
        for part in parts {
            for (sum, n) in sums.iter_mut().zip(part) {
                *sum = sum.wrapping_add(*n);
            }
        }
        std::hint::black_box(sums);
        best = best.max(PROBE as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

/// Time that the hypervisor took from all cores, in which the system counts hundredths of a second.
fn steal() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut fields = stat.lines().next()?.split_whitespace();
    let ticks: u64 = fields.nth(8)?.parse().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// How often the system took a core from a thread of this process that had not waited.
fn preemptions() -> Option<u64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let of_thread = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let mut lines = status.lines();
        let count = lines.find_map(|l| l.strip_prefix("nonvoluntary_ctxt_switches:"))?;
        count.trim().parse::<u64>().ok()
    };
    // A thread may end while this reads.
    Some(threads.flatten().filter_map(|t| of_thread(t.path())).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Conditions {
        let same = |rate| Change {
            before: rate,
            after: rate,
        };
        Conditions {
            fma_peak_gflops: same(100.0),
            memory_gb_per_s: same(10.0),
            steal: Some(0.0),
            preemptions_per_s: None,
        }
    }

    #[test]
    fn each_disturbance_is_named() {
        assert_eq!(quiet().disturbances(), Vec::<String>::new());
        type Case = (&'static str, fn(&mut Conditions));
        let cases: [Case; 5] = [
            ("the FMA peak went from 100.0 to 88.0 GFLOP/s", |c| {
                c.fma_peak_gflops.after = 88.0
            }),
            ("the FMA peak went from 88.0 to 100.0 GFLOP/s", |c| {
                c.fma_peak_gflops.before = 88.0
            }),
            ("memory went from 10.0 to 8.0 GB/s", |c| {
                c.memory_gb_per_s.after = 8.0
            }),
            ("the hypervisor took 3.0 % of the time", |c| {
                c.steal = Some(0.03)
            }),
            ("other processes took a core 50 times a second", |c| {
                c.preemptions_per_s = Some(50.0)
            }),
        ];
        for (want, change) in cases {
            let mut conditions = quiet();
            change(&mut conditions);
            assert_eq!(conditions.disturbances(), [want]);
        }
    }

    #[test]
    fn readings_are_of_this_machine() {
        let isa = Isa::best();
        let (before, after) = (Reading::take(isa), Reading::take(isa));
        let conditions = Conditions::between(&before, &after);
        assert!(conditions.fma_peak_gflops.before > 0.1 && conditions.memory_gb_per_s.after > 0.1);
        if cfg!(target_os = "linux") {
            let steal = conditions.steal.unwrap();
            assert!((0.0..=1024.0).contains(&steal), "{steal}");
            assert!(conditions.preemptions_per_s.unwrap() >= 0.0);
        }
        assert!(conditions.to_string().starts_with("FMA peak of one core "));
    }
}
