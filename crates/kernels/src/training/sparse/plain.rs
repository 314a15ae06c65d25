//! Sparse products of any numbers, one after the other.

use std::ops::{Add, AddAssign, Mul, Range};

use super::taps::{Grid, LaneLayout, Plane, Taps, for_each_position};
use crate::LANES;
use crate::training::Begin;

/// Numbers that are added and multiplied.
pub trait Number: Copy + Default + Add<Output = Self> + AddAssign + Mul<Output = Self> {}

impl<T: Copy + Default + Add<Output = T> + AddAssign + Mul<Output = T>> Number for T {}

fn positions(a: Grid, b: Grid) -> impl Iterator<Item = [usize; 2]> {
    (0..a.size[0]).flat_map(move |y| {
        (0..a.size[1]).map(move |x| [a, b].map(|grid| y * grid.steps[0] + x * grid.steps[1]))
    })
}

pub fn sparse_product<T: Number>(
    taps: &Taps,
    weights: &[T],
    begin: Begin<'_, T>,
    from: Plane<&[T]>,
    to: Plane<&mut [T]>,
) {
    for row in 0..taps.rows() {
        let here = taps.starts[row]..taps.starts[row + 1];
        for [at, out] in positions(from.grid, to.grid) {
            let out = (row * to.plane + out) * LANES;
            for lane in 0..LANES {
                let mut sum = match begin {
                    Begin::Zero => T::default(),
                    Begin::Bias(bias) => bias[row],
                    Begin::Sum => to.array[out + lane],
                };
                for tap in here.clone() {
                    let place = taps.places[tap] as usize + at;
                    sum += weights[tap] * from.array[place * LANES + lane];
                }
                to.array[out + lane] = sum;
            }
        }
    }
}

pub fn sampled_product<T: Number>(
    taps: &Taps,
    rows: Range<usize>,
    by_output: Plane<&[T]>,
    input: Plane<&[T]>,
    gradients: &mut [T],
) {
    let begin = taps.starts[rows.start];
    for row in rows {
        for tap in taps.starts[row]..taps.starts[row + 1] {
            for [g, x] in positions(by_output.grid, input.grid) {
                let g = (row * by_output.plane + g) * LANES;
                let x = (taps.places[tap] as usize + x) * LANES;
                for lane in 0..LANES {
                    gradients[tap - begin] += by_output.array[g + lane] * input.array[x + lane];
                }
            }
        }
    }
}

pub fn to_lanes<T: Number>(from: &[T], samples: LaneLayout, to: Plane<&mut [T]>) {
    for_each_position(to.grid, samples, |vector, number| {
        for c in 0..samples.channels {
            let line = &mut to.array[(c * to.plane + vector) * LANES..][..LANES];
            for (lane, out) in line.iter_mut().enumerate() {
                *out = match lane < samples.lanes {
                    true => from[lane * samples.lane_step + number + c],
                    false => T::default(),
                };
            }
        }
    });
}

pub fn from_lanes<T: Number>(from: Plane<&[T]>, samples: LaneLayout, to: &mut [T], add: bool) {
    for_each_position(from.grid, samples, |vector, number| {
        for lane in 0..samples.lanes {
            let out = &mut to[lane * samples.lane_step + number..][..samples.channels];
            for (c, out) in out.iter_mut().enumerate() {
                let v = from.array[(c * from.plane + vector) * LANES + lane];
                *out = if add { *out + v } else { v };
            }
        }
    });
}
