//! Sparse matrix times one vector in the format of [`crate::sell`]: each row of a group loads its own input.
//!
//! A step takes four scalar loads of inputs, at two per cycle, and one load each of four weights and four columns. So a non-zero costs about 0.7
//! cycles, wherever its column is.
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

/// Offsets are in halves of inputs, so that short offsets, whose unit is two floats, reach 65,536 columns.
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
    pub fn pack(weight: &Csr, bias: &[f32], precision: Precision) -> Self {
        let entries = |row| -> Vec<Entry> {
            let (columns, stored) = weight.row(row);
            let entry = |(&c, &weight): (&u32, &f32)| Entry {
                block: 0,
                offset: c as usize * HALVES,
                weight,
            };
            columns.iter().zip(stored).map(entry).collect()
        };
        let entries: Vec<Vec<Entry>> = (0..weight.rows()).map(entries).collect();
        // Other precisions need short offsets.
        let precision = if weight.cols() <= 1 << 16 {
            precision
        } else {
            Precision::F32
        };
        let sell = Sell::pack(&entries, bias, &[0], 1, 1, precision);
        Self {
            rows: weight.rows(),
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

    /// Steps of each group.
    pub fn groups(&self) -> Vec<usize> {
        self.sell.groups.iter().map(|g| g.steps as usize).collect()
    }

    /// Some of the groups alone, and the numbers of their rows in the order in which they are written.
    pub fn part(&self, groups: Range<usize>) -> (Self, Vec<u32>) {
        let (sell, order) = self.sell.part(groups);
        let part = Self {
            rows: order.len(),
            sell,
            ..*self
        };
        (part, order)
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
        // SAFETY: lengths were just checked. Offsets are columns times `HALVES`, which `Csr` keeps below `cols`, and rows are below `rows` (invariants).
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
    // SAFETY: pointers by the contract of `run`; weights and offsets are those of `sell`, in half the unit of their variant.
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
            // Two sums, to hide the latency of a multiply-add.
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
                    $into = S::fma4(W::four::<S>(weights, sell.scale), x, $into);
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
