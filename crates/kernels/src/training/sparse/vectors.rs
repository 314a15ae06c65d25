//! Sparse products in f32, in vectors.

use super::plain;
#[cfg(target_arch = "x86_64")]
use super::taps::for_each_position;
use super::taps::{LaneLayout, Plane, Taps};
use crate::simd::{Simd, simd_dispatch};
use crate::training::Begin;
use crate::{Isa, LANES, Level};

/// What one call reads and writes. Pointers are to floats, distances in floats.
#[derive(Clone, Copy)]
struct Job<'a> {
    taps: &'a Taps,
    size: [usize; 2],
    from: *const f32,
    from_steps: [usize; 2],
    to: *mut f32,
    to_steps: [usize; 2],
    to_plane: usize,
    /// Positions whose sums are kept in registers at a time.
    block: usize,
}

fn floats(steps: [usize; 2]) -> [usize; 2] {
    steps.map(|s| s * LANES)
}

/// # Safety
/// As [`Real::sparse_product`](super::Real::sparse_product).
pub unsafe fn sparse_product(
    isa: Isa,
    taps: &Taps,
    weights: &[f32],
    begin: Begin<'_, f32>,
    from: Plane<&[f32]>,
    to: Plane<&mut [f32]>,
) {
    let job = Job {
        taps,
        size: to.grid.size,
        from: from.array.as_ptr(),
        from_steps: floats(from.grid.steps),
        to: to.array.as_mut_ptr(),
        to_steps: floats(to.grid.steps),
        to_plane: to.plane * LANES,
        block: match isa.level() {
            Level::Avx512 | Level::Neon => 16,
            Level::Avx2 => 8,
            Level::Scalar => 2,
        },
    };
    // SAFETY: all vectors lie in their arrays, and each tap has a weight, by the contract of this function.
    unsafe { product(isa, job, weights, begin) }
}

simd_dispatch! {
    /// # Safety
    /// The vectors of the job lie in its arrays, and each tap has a weight, each row a first number where there are some.
    unsafe fn product(job: Job<'_>, weights: &[f32], begin: Begin<'_, f32>) = product_body;
}

#[inline(always)]
unsafe fn product_body<S: Simd>(job: Job<'_>, weights: &[f32], begin: Begin<'_, f32>) {
    let [height, width] = job.size;
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let left = (width - x).min(job.block);
            // SAFETY: the contract of this function; a block ends at `width` at the latest.
            unsafe {
                x += match left {
                    16.. => product_block::<S, 16>(job, weights, begin, [y, x]),
                    8.. => product_block::<S, 8>(job, weights, begin, [y, x]),
                    4.. => product_block::<S, 4>(job, weights, begin, [y, x]),
                    2.. => product_block::<S, 2>(job, weights, begin, [y, x]),
                    _ => product_block::<S, 1>(job, weights, begin, [y, x]),
                };
            }
        }
    }
}

/// `P` positions of all rows; returns `P`.
#[inline(always)]
unsafe fn product_block<S: Simd, const P: usize>(
    job: Job<'_>,
    weights: &[f32],
    begin: Begin<'_, f32>,
    [y, x]: [usize; 2],
) -> usize {
    let step = job.from_steps[1];
    let taps = job.taps;
    for row in 0..taps.rows() {
        let here = taps.starts[row]..taps.starts[row + 1];
        for part in (0..LANES).step_by(S::N) {
            // SAFETY: the contract of `product`.
            unsafe {
                let from = job.from.add(y * job.from_steps[0] + x * step + part);
                let to = job.to.add(row * job.to_plane + y * job.to_steps[0] + part);
                let to = to.add(x * job.to_steps[1]);
                let mut sums = match begin {
                    Begin::Zero => [S::splat(0.0); P],
                    Begin::Bias(bias) => [S::splat(*bias.get_unchecked(row)); P],
                    Begin::Sum => std::array::from_fn(|p| S::load(to.add(p * job.to_steps[1]))),
                };
                for tap in here.clone() {
                    let weight = S::splat(*weights.get_unchecked(tap));
                    let at = from.add(*taps.places.get_unchecked(tap) as usize * LANES);
                    for (p, sum) in sums.iter_mut().enumerate() {
                        *sum = S::fma(weight, S::load(at.add(p * step)), *sum);
                    }
                }
                for (p, sum) in sums.iter().enumerate() {
                    S::store(to.add(p * job.to_steps[1]), *sum);
                }
            }
        }
    }
    P
}

/// # Safety
/// As [`Real::sampled_product`](super::Real::sampled_product).
pub unsafe fn sampled_product(
    isa: Isa,
    taps: &Taps,
    rows: std::ops::Range<usize>,
    by_output: Plane<&[f32]>,
    input: Plane<&[f32]>,
    gradients: &mut [f32],
) {
    let job = Sampled {
        taps,
        size: input.grid.size,
        by_output: by_output.array.as_ptr(),
        by_output_steps: floats(by_output.grid.steps),
        by_output_plane: by_output.plane * LANES,
        input: input.array.as_ptr(),
        input_steps: floats(input.grid.steps),
    };
    // SAFETY: all vectors lie in their arrays, and each tap of the rows has a gradient, by the contract of this function.
    unsafe { sampled(isa, job, rows, gradients) }
}

/// As [`Job`], for gradients.
#[derive(Clone, Copy)]
struct Sampled<'a> {
    taps: &'a Taps,
    size: [usize; 2],
    by_output: *const f32,
    by_output_steps: [usize; 2],
    by_output_plane: usize,
    input: *const f32,
    input_steps: [usize; 2],
}

simd_dispatch! {
    /// # Safety
    /// The vectors of the job lie in its arrays, and each tap of the rows has a gradient.
    unsafe fn sampled(job: Sampled<'_>, rows: std::ops::Range<usize>, gradients: &mut [f32]) = sampled_body;
}

#[inline(always)]
unsafe fn sampled_body<S: Simd>(
    job: Sampled<'_>,
    rows: std::ops::Range<usize>,
    gradients: &mut [f32],
) {
    let taps = job.taps;
    let mut rest = gradients;
    for row in rows {
        let mut tap = taps.starts[row];
        let end = taps.starts[row + 1];
        while tap < end {
            // SAFETY: the contract of this function; taps from `tap` on are of this row.
            let done = unsafe {
                match end - tap {
                    8.. => sampled_taps::<S, 8>(job, row, tap, rest),
                    4.. => sampled_taps::<S, 4>(job, row, tap, rest),
                    2.. => sampled_taps::<S, 2>(job, row, tap, rest),
                    _ => sampled_taps::<S, 1>(job, row, tap, rest),
                }
            };
            tap += done;
            rest = &mut std::mem::take(&mut rest)[done..];
        }
    }
}

/// The gradients of `J` taps of a row; returns `J`.
#[inline(always)]
unsafe fn sampled_taps<S: Simd, const J: usize>(
    job: Sampled<'_>,
    row: usize,
    tap: usize,
    gradients: &mut [f32],
) -> usize {
    // SAFETY: the contract of `sampled`.
    unsafe {
        let mut from = [job.input; J];
        for (j, from) in from.iter_mut().enumerate() {
            let place = *job.taps.places.get_unchecked(tap + j) as usize;
            *from = job.input.add(place * LANES);
        }
        let by_output = job.by_output.add(row * job.by_output_plane);
        let mut sums = [S::splat(0.0); J];
        for y in 0..job.size[0] {
            for x in 0..job.size[1] {
                let g = y * job.by_output_steps[0] + x * job.by_output_steps[1];
                let at = y * job.input_steps[0] + x * job.input_steps[1];
                for part in (0..LANES).step_by(S::N) {
                    let g = S::load(by_output.add(g + part));
                    for (sum, from) in sums.iter_mut().zip(&from) {
                        *sum = S::fma(g, S::load(from.add(at + part)), *sum);
                    }
                }
            }
        }
        for (gradient, sum) in gradients.iter_mut().zip(sums) {
            *gradient += S::sum(sum);
        }
    }
    J
}

/// # Safety
/// As [`Real::to_lanes`](super::Real::to_lanes).
pub unsafe fn to_lanes(isa: Isa, from: &[f32], samples: LaneLayout, to: Plane<&mut [f32]>) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 {
        let LaneLayout {
            lanes, channels, ..
        } = samples;
        for_each_position(to.grid, samples, |vector, number| {
            for c in (0..channels).step_by(LANES) {
                let size = [lanes, LANES.min(channels - c)];
                let line = to.array[(c * to.plane + vector) * LANES..].as_mut_ptr();
                let from = from[number + c..].as_ptr();
                // SAFETY: the machine has AVX-512, and the numbers of all lanes and channels lie in their arrays.
                unsafe {
                    let pitch = samples.lane_step;
                    let plane = to.plane * LANES;
                    crate::transpose::transpose(from, pitch, size, line, plane, LANES);
                }
            }
        });
        return;
    }
    let _ = isa;
    plain::to_lanes(from, samples, to);
}

/// # Safety
/// As [`Real::from_lanes`](super::Real::from_lanes).
pub unsafe fn from_lanes(
    isa: Isa,
    from: Plane<&[f32]>,
    samples: LaneLayout,
    to: &mut [f32],
    add: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if isa.level() == Level::Avx512 {
        let LaneLayout {
            lanes, channels, ..
        } = samples;
        let mut square = [0.0; LANES * LANES];
        for_each_position(from.grid, samples, |vector, number| {
            for c in (0..channels).step_by(LANES) {
                let width = LANES.min(channels - c);
                let line = from.array[(c * from.plane + vector) * LANES..].as_ptr();
                let (plane, size) = (from.plane * LANES, [width, lanes]);
                let to = &mut to[number + c..];
                let (start, pitch) = match add {
                    true => (square.as_mut_ptr(), LANES),
                    false => (to.as_mut_ptr(), samples.lane_step),
                };
                // SAFETY: the machine has AVX-512, vectors and numbers lie in their arrays, and the square holds sixteen
                // lines.
                unsafe { crate::transpose::transpose(line, plane, size, start, pitch, width) };
                if add {
                    for (lane, line) in square.chunks_exact(LANES).take(lanes).enumerate() {
                        let to = &mut to[lane * samples.lane_step..][..width];
                        to.iter_mut().zip(line).for_each(|(to, v)| *to += v);
                    }
                }
            }
        });
        return;
    }
    let _ = isa;
    plain::from_lanes(from, samples, to, add);
}
