//! The products of any numbers, one after the other.

use super::layout::{Begin, PixelGrid, Run, padded_units};
use crate::training::sparse::plain::Number;

/// Places of all pixels in two arrays.
fn pixels(
    [rows, columns]: [usize; 2],
    a: PixelGrid,
    b: PixelGrid,
) -> impl Iterator<Item = [usize; 2]> {
    let place = |p: PixelGrid, y: usize, x: usize| p.start + y * p.steps[0] + x * p.steps[1];
    (0..rows).flat_map(move |y| (0..columns).map(move |x| [place(a, y, x), place(b, y, x)]))
}

/// Places of what a pixel reads.
fn numbers(runs: &[Run]) -> impl Iterator<Item = usize> + '_ {
    runs.iter().flat_map(|run| run.at..run.at + run.len)
}

pub fn products<T: Number>(
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], PixelGrid),
    weights: &[T],
    (to, out): (&mut [T], PixelGrid),
    units: usize,
    begin: Begin<'_, T>,
) {
    for [pixel, out] in pixels(size, at, out) {
        for unit in 0..units {
            let mut sum = T::default();
            let weights = weights.chunks_exact(padded_units(units));
            for (n, weights) in numbers(runs).zip(weights) {
                sum += from[pixel + n] * weights[unit];
            }
            let to = &mut to[out + unit];
            *to = match begin {
                Begin::Zero => sum,
                Begin::Bias(bias) => bias[unit] + sum,
                Begin::Sum => *to + sum,
            };
        }
    }
}

pub fn weight_gradients<T: Number>(
    size: [usize; 2],
    runs: &[Run],
    (from, at): (&[T], PixelGrid),
    (by, of): (&[T], PixelGrid),
    units: usize,
    sums: &mut [T],
) {
    for (n, sums) in numbers(runs).zip(sums.chunks_exact_mut(padded_units(units))) {
        for [pixel, of] in pixels(size, at, of) {
            for (unit, sum) in sums[..units].iter_mut().enumerate() {
                *sum += from[pixel + n] * by[of + unit];
            }
        }
    }
}
