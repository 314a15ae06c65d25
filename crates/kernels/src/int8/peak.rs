//! The peak rate of products of bytes.

use std::hint::black_box;
use std::time::Instant;

use super::dot::{self, Dot, Task};
use super::lanes::{Lanes, SAMPLES};

/// Peak of one core in billions of operations per second, each multiply-add of bytes counted as two; measured in a few milliseconds. Of plain Rust it is
/// what the compiler makes of the same loop.
pub fn peak(dot: Dot) -> f64 {
    let bytes = [[1_u8; SAMPLES]; REGISTERS];
    let (mut operations, mut best) = (0, 0.0_f64);
    for turn in 0..32 {
        let start = Instant::now();
        let chains = Chains {
            bytes: &bytes,
            broadcasts: turn % 2 == 1,
            operations: &mut operations,
        };
        // SAFETY: a register is no larger than a line of `bytes`.
        unsafe { dot::run(dot, chains) };
        let seconds = start.elapsed().as_secs_f64();
        best = best.max(operations as f64 / seconds / 1e9);
    }
    best
}

/// Registers of bytes of a step, each multiplied by two of weights: with that the sums are more than the latency of a product times the number of units
/// that execute it, and fit in sixteen registers.
const REGISTERS: usize = 6;
const STEPS: usize = 10_000;

/// Independent sums of products of registers of `bytes`. It writes how many operations these are.
struct Chains<'a> {
    bytes: &'a [[u8; SAMPLES]; REGISTERS],
    /// Whether the bytes of a register are the same four, which the compiler makes faster code of where there are no instructions for products of bytes.
    broadcasts: bool,
    operations: &'a mut usize,
}

impl Task for Chains<'_> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: by the contract of the task; the instruction set is enabled (contract of the trait).
        unsafe {
            match L::SUMS > 1 {
                true if self.broadcasts => self.steps::<L, REGISTERS, true>(),
                true => self.steps::<L, REGISTERS, false>(),
                // A sum is several registers.
                false if self.broadcasts => self.steps::<L, 1, true>(),
                false => self.steps::<L, 1, false>(),
            }
        }
    }
}

impl Chains<'_> {
    /// # Safety
    /// As for the task, `R` is at most [`REGISTERS`], and the instruction set of `L` is enabled where this is inlined.
    #[inline(always)]
    unsafe fn steps<L: Lanes, const R: usize, const BROADCASTS: bool>(self) {
        // SAFETY: by the contract of this function.
        unsafe {
            let fours = |bytes: &[[u8; SAMPLES]; REGISTERS], r: usize| {
                L::load_fours(bytes[r].as_ptr().cast())
            };
            let weights = [0, R - 1].map(|r| fours(black_box(self.bytes), r));
            let mut sums = [[L::splat(0); 2]; R];
            for _ in 0..STEPS {
                // Unknown to the compiler, which would else compute products that do not change once.
                let bytes = black_box(self.bytes);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = bytes[r].as_ptr();
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = match BROADCASTS {
                            true => L::add_fours(*sum, x, weights),
                            false => L::add_registers(*sum, L::load_fours(x.cast()), weights),
                        };
                    }
                }
            }
            let mut total = [0; SAMPLES / 4];
            for sum in sums.as_flattened() {
                let so_far = L::load(total.as_ptr());
                L::store(total.as_mut_ptr(), L::plus(so_far, *sum));
            }
            black_box(total);
        }
        // Two for each of four bytes of a sum.
        *self.operations = STEPS * 2 * R * L::N * 4 * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::peak::fma_peak;

    #[test]
    fn bytes_are_multiplied_at_a_rate_of_the_machine() {
        for dot in Dot::available() {
            let rate = peak(dot);
            // Plain Rust reaches 0.1 even in an emulator, and no core multiplies 10^14.
            assert!(rate > 0.01 && rate < 1e5, "{dot}: {rate}");
        }
    }

    #[test]
    fn instructions_for_products_of_four_bytes_do_more_than_those_of_floats() {
        for isa in Isa::available() {
            let dot = Dot::of(isa);
            if dot.name().ends_with("vnni") {
                let [bytes, floats] = [peak(dot), fma_peak(isa)];
                assert!(bytes > 1.2 * floats, "{dot}: {bytes}, floats {floats}");
            }
        }
    }
}
