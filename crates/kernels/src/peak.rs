//! The peak arithmetic rate of a core, of which benchmarks print the fraction that is reached.

use std::time::Instant;

use crate::Isa;
use crate::simd::{Simd, simd_dispatch};

/// Peak of one core in GFLOP/s, each fused multiply-add counted as two; measured in a few milliseconds.
pub fn fma_peak(isa: Isa) -> f64 {
    let mut sums = [0.0_f32; 16];
    let mut best = 0.0_f64;
    for _ in 0..16 {
        let start = Instant::now();
        // SAFETY: `sums` holds sixteen floats.
        unsafe { chains(isa, std::hint::black_box(0.5), sums.as_mut_ptr()) };
        let seconds = start.elapsed().as_secs_f64();
        std::hint::black_box(&sums);
        let width = isa.level().lanes();
        best = best.max((2 * STEPS * CHAINS * width) as f64 / seconds / 1e9);
    }
    best
}

/// Independent sums: more than the latency of a multiply-add times the number of units that execute it.
const CHAINS: usize = 12;
const STEPS: usize = 20_000;

simd_dispatch! {
    /// # Safety
    /// `out` must be writable for sixteen floats.
    unsafe fn chains(by: f32, out: *mut f32) = chains_body;
}

#[inline(always)]
unsafe fn chains_body<S: Simd>(by: f32, out: *mut f32) {
    // SAFETY: `out` is writable for sixteen floats, at least a vector; the instruction set is enabled where this is inlined.
    unsafe {
        let by = S::splat(by);
        let mut acc = [by; CHAINS];
        for _ in 0..STEPS {
            for a in &mut acc {
                *a = S::fma(*a, by, by);
            }
        }
        for a in acc {
            S::store(out, S::fma(a, by, S::load(out)));
        }
    }
}
