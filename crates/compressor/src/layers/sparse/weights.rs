//! Which weights are left, by rows, and buffers of passes with them.

use sparsevd_kernels::training::{Real, Taps};

use crate::layers::buffer::Aligned;

/// Weights per one that is left from which products with those alone are cheaper; `cargo bench --bench training` has what they gain.
const LEAST_RATIO: usize = 5;

/// Buffers of these passes: vectors of inputs and outputs, and weights in the order of taps.
#[derive(Debug, Default)]
pub(crate) struct Vectors<T> {
    pub input: Aligned<T>,
    pub output: Aligned<T>,
    pub by_input: Aligned<T>,
    pub weights: Vec<T>,
}

/// The numbers of the weights that are left, and where those of each unit begin; `None` where they are many.
pub(super) fn left(
    alive: impl Iterator<Item = bool>,
    units: usize,
    patch: usize,
) -> Option<(Vec<u32>, Vec<usize>)> {
    let most = u32::try_from(units * patch).ok()? as usize / LEAST_RATIO;
    if units * patch == 0 {
        return None;
    }
    let mut weights = Vec::new();
    let mut starts = vec![0; units + 1];
    for (i, _) in alive.enumerate().filter(|(_, alive)| *alive) {
        if weights.len() == most {
            return None;
        }
        weights.push(i as u32);
        starts[i / patch + 1] += 1;
    }
    for unit in 0..units {
        starts[unit + 1] += starts[unit];
    }
    Some((weights, starts))
}

/// Sorts (row, place, weight) by rows, stable, so that sums have a fixed order.
pub(super) fn by_rows(
    rows: usize,
    taps: impl Iterator<Item = (usize, u32, u32)> + Clone,
) -> (Taps, Vec<u32>) {
    let mut starts = vec![0; rows + 1];
    for (row, ..) in taps.clone() {
        starts[row + 1] += 1;
    }
    for row in 0..rows {
        starts[row + 1] += starts[row];
    }
    let mut next = starts.clone();
    let (mut places, mut weights) = (vec![0; starts[rows]], vec![0; starts[rows]]);
    for (row, place, weight) in taps {
        places[next[row]] = place;
        weights[next[row]] = weight;
        next[row] += 1;
    }
    (Taps::new(starts, places), weights)
}

pub(super) fn gather<'a, T: Real>(
    buffer: &'a mut Vec<T>,
    values: &[T],
    numbers: &[u32],
) -> &'a [T] {
    buffer.clear();
    buffer.extend(numbers.iter().map(|&w| values[w as usize]));
    buffer
}

/// Adds gradients of the weights with these numbers to those of the layer's weights from number `first` on.
pub(super) fn scatter<T: Real>(numbers: &[u32], gradients: &[T], first: usize, by_theta: &mut [T]) {
    for (&w, &g) in numbers.iter().zip(gradients) {
        by_theta[w as usize - first] += g;
    }
}
