//! How long kernels are timed.

use std::time::Instant;

/// How long each kernel is timed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Rounds of calls, of which the fastest counts: what disturbs a machine only takes time.
    pub rounds: usize,
    /// Nanoseconds of a round, which is at least one call.
    pub round_ns: f64,
}

impl Budget {
    pub const DEFAULT: Self = Self {
        rounds: 9,
        round_ns: 1e6,
    };

    /// Enough to compare costs that differ by several times.
    #[cfg(test)]
    pub const TINY: Self = Self {
        rounds: 5,
        round_ns: 2e4,
    };

    /// Time of a call, in nanoseconds.
    pub fn nanoseconds(self, mut run: impl FnMut()) -> f64 {
        let mut time = |times: usize| {
            let start = Instant::now();
            for _ in 0..times {
                run();
            }
            start.elapsed().as_secs_f64() * 1e9
        };
        let once = time(1).min(time(1)).max(10.0);
        let times = (self.round_ns / once).clamp(1.0, 1e6) as usize;
        let rounds = (0..self.rounds).map(|_| time(times) / times as f64);
        rounds.fold(f64::INFINITY, f64::min)
    }
}
