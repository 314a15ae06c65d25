//! What the core can do at most, as the unit of every fraction in a benchmark.

use std::time::Instant;

use crate::Isa;
use crate::isa::multiversion;

/// Fused multiply-adds of one core in GFLOP/s, measured in a few milliseconds.
pub fn fma_peak(isa: Isa) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..8 {
        let start = Instant::now();
        let steps = 20_000;
        std::hint::black_box(chains(isa, std::hint::black_box(0.5), steps));
        let flops = 2.0 * (steps * CHAINS * WIDTH) as f64;
        best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

const CHAINS: usize = 12;
const WIDTH: usize = 16;

multiversion!(fn chains(by: f32, steps: usize) -> f32 = chains_body;);

#[inline(always)]
fn chains_body(by: f32, steps: usize) -> f32 {
    let mut acc = [[1.0_f32; WIDTH]; CHAINS];
    for _ in 0..steps {
        for chain in &mut acc {
            for a in chain {
                *a = a.mul_add(by, by);
            }
        }
    }
    acc.iter().flatten().sum()
}
