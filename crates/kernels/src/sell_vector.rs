//! One vector through the format of [`crate::sell`]: each row of a group gathers its own input.
//!
//! Four inputs that lie apart come with four short loads, two of which run in a cycle; four weights and four columns come with one load each. So
//! a non-zero costs some 0.7 cycles, however far apart the columns are.
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use crate::clamp::Bounds;
use crate::precision::{Bf16, F16, Precision};
use crate::sell::{Entry, Narrow, Offset, Offsets, Quad, Sell, Weight};
use crate::simd::{Simd, simd_dispatch};
use sparsevd_model::Csr;
use std::ops::Range;

/// Offsets count halves of inputs, so that short ones, which count pairs of floats, reach 65,536 columns.
const HALVES: usize = 2;

/// A sparse matrix packed for one vector at a time.
///
/// # Invariants
/// - `sell` has one block, its offsets are columns times [`HALVES`] and its rows are below `rows`
#[derive(Debug, Clone)]
pub(crate) struct SellVector {
    rows: usize,
    cols: usize,
    precision: Precision,
    sell: Sell,
}

impl SellVector {
    /// Packs a range of rows. Integers where rows are too small to be padded with integers become f32.
    pub fn pack(weight: &Csr, bias: &[f32], rows: Range<usize>, precision: Precision) -> Self {
        let entries = |row| -> Vec<Entry> {
            let (columns, stored) = weight.row(row);
            let entry = |(&c, &weight): (&u32, &f32)| Entry {
                block: 0,
                offset: c as usize * HALVES,
                weight,
            };
            columns.iter().zip(stored).map(entry).collect()
        };
        let entries: Vec<Vec<Entry>> = rows.clone().map(entries).collect();
        let bias = &bias[rows.clone()];
        // Other forms need short offsets.
        let precision = if weight.cols() <= 1 << 16 {
            precision
        } else {
            Precision::F32
        };
        let (precision, sell) = match Sell::pack_with(&entries, bias, &[0], 1, 1, precision) {
            Some(sell) => (precision, sell),
            None => (Precision::F32, Sell::pack(&entries, bias, &[0], 1, 1)),
        };
        Self {
            rows: rows.len(),
            cols: weight.cols(),
            precision,
            sell,
        }
    }

    /// Estimated cycles of a run, measured on a Zen 4 core.
    #[cfg(target_arch = "x86_64")]
    pub fn cost(&self) -> f64 {
        let steps: u32 = self.sell.groups.iter().map(|g| g.steps).sum();
        2.8 * f64::from(steps) + 6.0 * self.sell.groups.len() as f64
    }

    /// Bytes of weights, columns, row numbers and biases.
    pub fn bytes(&self) -> usize {
        self.sell.bytes()
    }

    /// The kernel's name without its instruction set.
    pub fn name(&self) -> String {
        format!("sell4-{}-4x1", self.precision.name())
    }

    /// `y = clamp(W x + b)`; `x` has one element per column, `y` one per packed row.
    pub fn run(&self, isa: crate::Isa, x: &[f32], y: &mut [f32], bounds: Bounds) {
        assert!(x.len() == self.cols && y.len() == self.rows);
        // SAFETY: lengths were just checked, the rest are the type's invariants; columns are below `cols`, which `Csr` checks.
        unsafe { run(isa, &self.sell, x.as_ptr(), y.as_mut_ptr(), bounds) }
    }
}

simd_dispatch! {
    /// # Safety
    /// The matrix has one block; `x` is readable at half of every offset, in floats, and `y` writable at every row.
    unsafe fn run(sell: &Sell, x: *const f32, y: *mut f32, bounds: Bounds) = body;
}

#[inline(always)]
unsafe fn body<S: Simd>(sell: &Sell, x: *const f32, y: *mut f32, bounds: Bounds) {
    let w = sell.weights.as_ptr();
    // SAFETY: the caller's contract; the weights and offsets are those of `sell`.
    unsafe {
        match (&sell.narrow, &sell.offsets) {
            (None, Offsets::Short8(o)) => {
                groups::<S, u64, Quad, 4>(sell, w, o.as_ptr(), x, y, bounds);
            }
            (None, Offsets::Short64(o)) => {
                groups::<S, u64, Quad, 32>(sell, w, o.as_ptr(), x, y, bounds);
            }
            (None, Offsets::Long4(o)) => {
                groups::<S, [u32; 4], Quad, 2>(sell, w, o.as_ptr(), x, y, bounds);
            }
            (Some(Narrow::Bf16(w)), Offsets::Short8(o)) => {
                groups::<S, u64, [Bf16; 4], 4>(sell, w.as_ptr(), o.as_ptr(), x, y, bounds);
            }
            (Some(Narrow::F16(w)), Offsets::Short8(o)) => {
                groups::<S, u64, [F16; 4], 4>(sell, w.as_ptr(), o.as_ptr(), x, y, bounds);
            }
            (Some(Narrow::I8(w)), Offsets::Short8(o)) => {
                groups::<S, u64, [i8; 4], 4>(sell, w.as_ptr(), o.as_ptr(), x, y, bounds);
            }
            (Some(_), _) => unreachable!("narrow weights have short offsets"),
        }
    }
}

#[inline(always)]
unsafe fn groups<S: Simd, O: Offset, W: Weight, const UNIT: usize>(
    sell: &Sell,
    mut weights: *const W,
    mut offsets: *const O,
    x: *const f32,
    y: *mut f32,
    bounds: Bounds,
) {
    let x = x.cast::<u8>();
    for group in &sell.groups {
        // SAFETY: `x` and `y` by the contract of `run`; weights, offsets and rows by the invariants of `Sell`.
        unsafe {
            // Two sums, so that a step need not wait for the one before.
            let mut acc = [group.bias, [0.0; 4]];
            let mut left = group.steps as usize;
            macro_rules! step {
                ($into:expr) => {
                    let at = O::bytes::<UNIT>(offsets);
                    let x = [
                        x.add(at[0]).cast::<f32>().read(),
                        x.add(at[1]).cast::<f32>().read(),
                        x.add(at[2]).cast::<f32>().read(),
                        x.add(at[3]).cast::<f32>().read(),
                    ];
                    $into = S::fma4(W::four::<S>(weights, sell.step), x, $into);
                    weights = weights.add(1);
                    offsets = offsets.add(1);
                };
            }
            if left % 2 == 1 {
                step!(acc[1]);
            }
            left /= 2;
            while left > 0 {
                step!(acc[0]);
                step!(acc[1]);
                left -= 1;
            }
            let mut sum = acc[0];
            for r in 0..4 {
                sum[r] += acc[1][r];
            }
            let sum = S::clamp4(sum, bounds);
            for r in 0..4 {
                *y.add(group.rows[r] as usize) = sum[r];
            }
        }
    }
}
