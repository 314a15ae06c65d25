//! The products in f32, in vectors.
#![allow(
    clippy::needless_range_loop,
    reason = "registers are named by their number"
)]

use super::layout::{Begin, PixelGrid, Run, padded_units};
use crate::Isa;
use crate::LANES;
use crate::simd::{Simd, simd_dispatch};

/// Most vectors of units whose sums are kept in registers together.
const VECTORS: usize = 4;

/// # Safety
/// As [`super::direct_product`] checks.
#[allow(clippy::too_many_arguments, reason = "both sides of a product")]
pub unsafe fn products(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    from: (&[f32], PixelGrid),
    weights: &[f32],
    to: (&mut [f32], PixelGrid),
    units: usize,
    begin: Begin<'_, f32>,
) {
    // SAFETY: the contract of this function.
    unsafe { dispatched_products(isa, size, runs, from, weights, to, units, begin) }
}

/// # Safety
/// As [`super::direct_weight_gradient`] checks.
pub unsafe fn weight_gradients(
    isa: Isa,
    size: [usize; 2],
    runs: &[Run],
    from: (&[f32], PixelGrid),
    by: (&[f32], PixelGrid),
    units: usize,
    sums: &mut [f32],
) {
    // SAFETY: the contract of this function.
    unsafe { dispatched_sums(isa, size, runs, from, by, units, sums) }
}

simd_dispatch! {
    /// # Safety
    /// As [`super::direct_product`] checks.
    unsafe fn dispatched_products(size: [usize; 2], runs: &[Run], from: (&[f32], PixelGrid), weights: &[f32], to: (&mut [f32], PixelGrid), units: usize, begin: Begin<'_, f32>) = products_body;
}

simd_dispatch! {
    /// # Safety
    /// As [`super::direct_weight_gradient`] checks.
    unsafe fn dispatched_sums(size: [usize; 2], runs: &[Run], from: (&[f32], PixelGrid), by: (&[f32], PixelGrid), units: usize, sums: &mut [f32]) = sums_body;
}

/// One side of a multiplication of `count` columns with rows: `a` has a number for each column and each of the `P` sums, at these
/// distances, `b` a row of vectors for each column.
#[derive(Clone, Copy)]
struct Factors {
    a: *const f32,
    a_steps: [usize; 2],
    b: *const f32,
    b_step: usize,
}

/// `sums[p][u] + sum over columns of a[column][p] b[column][u]`.
///
/// Sums come and go by value: those behind a reference would be written to memory with each column.
///
/// # Safety
/// All numbers lie in their arrays.
#[inline(always)]
unsafe fn multiply<S: Simd, const P: usize, const U: usize>(
    factors: Factors,
    count: usize,
    mut sums: [[S::V; U]; P],
) -> [[S::V; U]; P] {
    let Factors {
        mut a,
        a_steps,
        mut b,
        b_step,
    } = factors;
    for _ in 0..count {
        // SAFETY: the contract of this function. Pointers past the last column are not read.
        unsafe {
            let mut row = [S::splat(0.0); U];
            for u in 0..U {
                row[u] = S::load(b.add(u * S::N));
            }
            for p in 0..P {
                let x = S::splat(*a.add(p * a_steps[1]));
                for u in 0..U {
                    sums[p][u] = S::fma(x, row[u], sums[p][u]);
                }
            }
            a = a.wrapping_add(a_steps[0]);
            b = b.wrapping_add(b_step);
        }
    }
    sums
}

/// What all tiles of a product share.
#[derive(Clone, Copy)]
struct Job<'a> {
    runs: &'a [Run],
    from: *const f32,
    steps: [usize; 2],
    weights: *const f32,
    wide: usize,
    to: *mut f32,
    out_steps: [usize; 2],
    /// Units of this block of vectors, which the output has.
    units: usize,
    begin: Begin<'a, f32>,
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "both sides of a product")]
unsafe fn products_body<S: Simd>(
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[f32], PixelGrid),
    weights: &[f32],
    (to, out): (&mut [f32], PixelGrid),
    units: usize,
    begin: Begin<'_, f32>,
) {
    let wide = padded_units(units);
    let mut unit = 0;
    // The weights of a block of units stay in a cache for all pixels.
    while unit < units {
        let vectors = (wide - unit) / S::N;
        let job = Job {
            runs,
            from: from.as_ptr().wrapping_add(at.start),
            steps: at.steps,
            weights: weights.as_ptr().wrapping_add(unit),
            wide,
            to: to.as_mut_ptr().wrapping_add(out.start + unit),
            out_steps: out.steps,
            units: units - unit,
            begin: match begin {
                Begin::Bias(bias) => Begin::Bias(&bias[unit..]),
                other => other,
            },
        };
        // SAFETY: the contract of this function: the block begins at a unit, and weights are whole vectors.
        unsafe {
            unit += S::N
                * match vectors {
                    VECTORS.. => rows::<S, 4>(job, size),
                    2.. => rows::<S, 2>(job, size),
                    _ => rows::<S, 1>(job, size),
                };
        }
    }
}

/// All pixels of a block of `U` vectors of units; returns `U`.
#[inline(always)]
unsafe fn rows<S: Simd, const U: usize>(job: Job<'_>, [height, width]: [usize; 2]) -> usize {
    // As many pixels as registers hold: their sums, a row of weights and a number of the plane; of 32, or of 16.
    let most = if S::N == LANES { 16 / U } else { 8 / U };
    for y in 0..height {
        let mut x = 0;
        while x < width {
            // SAFETY: the contract of `products_body`; a tile ends at `width` at the latest.
            unsafe {
                x += match (width - x).min(most) {
                    16.. => tile::<S, 16, U>(job, [y, x]),
                    12.. => tile::<S, 12, U>(job, [y, x]),
                    8.. => tile::<S, 8, U>(job, [y, x]),
                    6.. => tile::<S, 6, U>(job, [y, x]),
                    4.. => tile::<S, 4, U>(job, [y, x]),
                    3 => tile::<S, 3, U>(job, [y, x]),
                    2 => tile::<S, 2, U>(job, [y, x]),
                    _ => tile::<S, 1, U>(job, [y, x]),
                };
            }
        }
    }
    U
}

/// `P` pixels of a row; returns `P`.
#[inline(always)]
unsafe fn tile<S: Simd, const P: usize, const U: usize>(job: Job<'_>, [y, x]: [usize; 2]) -> usize {
    // SAFETY: the contract of `products_body`.
    unsafe {
        let from = job.from.add(y * job.steps[0] + x * job.steps[1]);
        let to = job.to.add(y * job.out_steps[0] + x * job.out_steps[1]);
        let mut sums = [[S::splat(0.0); U]; P];
        match job.begin {
            Begin::Zero => {}
            Begin::Bias(bias) => {
                let mut row = [S::splat(0.0); U];
                for (u, v) in row.iter_mut().enumerate() {
                    *v = load_part::<S>(bias.as_ptr(), u * S::N, job.units);
                }
                sums = [row; P];
            }
            Begin::Sum => {
                for (p, sums) in sums.iter_mut().enumerate() {
                    for (u, sum) in sums.iter_mut().enumerate() {
                        let to = to.add(p * job.out_steps[1]);
                        *sum = load_part::<S>(to, u * S::N, job.units);
                    }
                }
            }
        }
        let mut weights = job.weights;
        for run in job.runs {
            let factors = Factors {
                a: from.add(run.at),
                a_steps: [1, job.steps[1]],
                b: weights,
                b_step: job.wide,
            };
            sums = multiply::<S, P, U>(factors, run.len, sums);
            weights = weights.wrapping_add(run.len * job.wide);
        }
        for (p, sums) in sums.iter().enumerate() {
            for (u, sum) in sums.iter().enumerate() {
                store_part::<S>(to.add(p * job.out_steps[1]), u * S::N, job.units, *sum);
            }
        }
    }
    P
}

/// The vector from `at` on of `len` numbers; zeros behind the last.
#[inline(always)]
unsafe fn load_part<S: Simd>(p: *const f32, at: usize, len: usize) -> S::V {
    let mut part = [0.0; LANES];
    // SAFETY: `p` is readable for `len` numbers, and a vector fits in `part`.
    unsafe {
        if at + S::N <= len {
            return S::load(p.add(at));
        }
        for i in at..len {
            part[i - at] = *p.add(i);
        }
        S::load(part.as_ptr())
    }
}

/// Writes what of a vector is among the `len` numbers, from `at` on.
#[inline(always)]
unsafe fn store_part<S: Simd>(p: *mut f32, at: usize, len: usize, v: S::V) {
    let mut part = [0.0; LANES];
    // SAFETY: `p` is writable for `len` numbers, and a vector fits in `part`.
    unsafe {
        if at + S::N <= len {
            S::store(p.add(at), v);
            return;
        }
        S::store(part.as_mut_ptr(), v);
        for i in at..len {
            *p.add(i) = part[i - at];
        }
    }
}

/// What all tiles of a sum over pixels share.
#[derive(Clone, Copy)]
struct Sums {
    size: [usize; 2],
    from: *const f32,
    steps: [usize; 2],
    by: *const f32,
    by_steps: [usize; 2],
    sums: *mut f32,
    wide: usize,
}

#[inline(always)]
unsafe fn sums_body<S: Simd>(
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[f32], PixelGrid),
    (by, of): (&[f32], PixelGrid),
    units: usize,
    sums: &mut [f32],
) {
    let wide = padded_units(units);
    let mut number = 0;
    for run in runs {
        let mut unit = 0;
        while unit < units {
            let job = Sums {
                size,
                from: from.as_ptr().wrapping_add(at.start + run.at),
                steps: at.steps,
                by: by.as_ptr().wrapping_add(of.start + unit),
                by_steps: of.steps,
                sums: sums.as_mut_ptr().wrapping_add(number * wide + unit),
                wide,
            };
            // SAFETY: the contract of this function: the block begins at a unit, and sums and gradients are whole vectors.
            unsafe {
                unit += S::N
                    * match (wide - unit) / S::N {
                        VECTORS.. => numbers::<S, 4>(job, run.len),
                        2.. => numbers::<S, 2>(job, run.len),
                        _ => numbers::<S, 1>(job, run.len),
                    };
            }
        }
        number += run.len;
    }
}

/// The sums of all numbers of a run with a block of `U` vectors of units; returns `U`.
#[inline(always)]
unsafe fn numbers<S: Simd, const U: usize>(job: Sums, len: usize) -> usize {
    let most = if S::N == LANES { 16 / U } else { 8 / U };
    let mut number = 0;
    while number < len {
        // SAFETY: the contract of `sums_body`; a tile ends at `len` at the latest.
        unsafe {
            number += match (len - number).min(most) {
                16.. => sum_tile::<S, 16, U>(job, number),
                8.. => sum_tile::<S, 8, U>(job, number),
                4.. => sum_tile::<S, 4, U>(job, number),
                2.. => sum_tile::<S, 2, U>(job, number),
                _ => sum_tile::<S, 1, U>(job, number),
            };
        }
    }
    U
}

/// `P` numbers of a run; returns `P`.
#[inline(always)]
unsafe fn sum_tile<S: Simd, const P: usize, const U: usize>(job: Sums, number: usize) -> usize {
    // SAFETY: the contract of `sums_body`.
    unsafe {
        let to = job.sums.add(number * job.wide);
        let mut sums = [[S::splat(0.0); U]; P];
        for (p, sums) in sums.iter_mut().enumerate() {
            for (u, sum) in sums.iter_mut().enumerate() {
                *sum = S::load(to.add(p * job.wide + u * S::N));
            }
        }
        for y in 0..job.size[0] {
            let factors = Factors {
                a: job.from.add(y * job.steps[0] + number),
                a_steps: [job.steps[1], 1],
                b: job.by.add(y * job.by_steps[0]),
                b_step: job.by_steps[1],
            };
            sums = multiply::<S, P, U>(factors, job.size[1], sums);
        }
        for (p, sums) in sums.iter().enumerate() {
            for (u, sum) in sums.iter().enumerate() {
                S::store(to.add(p * job.wide + u * S::N), *sum);
            }
        }
    }
    P
}
