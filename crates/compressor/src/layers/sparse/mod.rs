//! The weights of a layer that are left, for passes that compute with those alone: training on its own zeros.

mod conv;
mod linear;

use sparsevd_kernels::training::{Real, Taps};

use super::buffer::Aligned;

pub(crate) use conv::{SparseConv, borders};
pub(crate) use linear::SparseLinear;

/// Weights per one that is left from which products with those alone are cheaper; `cargo bench --bench training` has what they gain.
const LEAST_RATIO: usize = 5;

/// Which weights of a layer are left, and where they read and write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sparse {
    Linear(SparseLinear),
    Conv(SparseConv),
}

impl Sparse {
    pub fn conv(&self) -> Option<&SparseConv> {
        match self {
            Self::Conv(conv) => Some(conv),
            Self::Linear(_) => None,
        }
    }

    pub fn linear(&self) -> Option<&SparseLinear> {
        match self {
            Self::Linear(linear) => Some(linear),
            Self::Conv(_) => None,
        }
    }
}

/// Buffers of these passes: vectors of inputs and outputs, and weights in the order of taps.
#[derive(Debug, Default)]
pub(crate) struct Vectors<T> {
    input: Aligned<T>,
    output: Aligned<T>,
    by_input: Aligned<T>,
    weights: Vec<T>,
}

/// The numbers of the weights that are left, and where those of each unit begin; `None` where they are many.
fn left(
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
fn by_rows(rows: usize, taps: impl Iterator<Item = (usize, u32, u32)> + Clone) -> (Taps, Vec<u32>) {
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

fn gather<'a, T: Real>(buffer: &'a mut Vec<T>, values: &[T], numbers: &[u32]) -> &'a [T] {
    buffer.clear();
    buffer.extend(numbers.iter().map(|&w| values[w as usize]));
    buffer
}

/// Adds gradients of the weights with these numbers to those of the layer's weights from number `first` on.
fn scatter<T: Real>(numbers: &[u32], gradients: &[T], first: usize, by_theta: &mut [T]) {
    for (&w, &g) in numbers.iter().zip(gradients) {
        by_theta[w as usize - first] += g;
    }
}
