//! Linear layers with the weights that are left.

use sparsevd_kernels::training::{
    Begin, Grid, LaneLayout, Plane, Real, Taps, from_lanes, sampled_product, sparse_product,
    to_lanes,
};
use sparsevd_kernels::{Isa, LANES};

use super::weights::{Vectors, by_rows, gather, left, scatter};
use crate::layers::buffer::Aligned;

/// The weights of a linear layer that are left. Places are those of vectors of sixteen rows, `[feature]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseLinear {
    patch: usize,
    /// By unit, ascending.
    forward: Taps,
    /// The number of each weight of `forward` in the layer's array.
    weights: Vec<u32>,
    /// By feature, for the gradient by the input; and the numbers of those.
    backward: Taps,
    backward_weights: Vec<u32>,
}

impl SparseLinear {
    /// The weights for which `alive` is true; `None` where they are too many for this to be cheaper.
    pub fn new(alive: impl Iterator<Item = bool>, units: usize, patch: usize) -> Option<Self> {
        let (weights, starts) = left(alive, units, patch)?;
        let places = weights.iter().map(|w| w % patch as u32).collect();
        let (backward, backward_weights) = by_rows(
            patch,
            weights.iter().map(|&w| {
                let (unit, k) = (w / patch as u32, w % patch as u32);
                (k as usize, unit, w)
            }),
        );
        Some(Self {
            patch,
            forward: Taps::new(starts, places),
            weights,
            backward,
            backward_weights,
        })
    }

    /// A linear layer on `rows` rows: `y[row][unit]`. The rows are stored in `saved` as vectors, `[block][feature][lane]`.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn forward<T: Real>(
        &self,
        isa: Isa,
        [theta, bias]: [&[T]; 2],
        x: &[T],
        y: &mut [T],
        saved: &mut Aligned<T>,
        vectors: &mut Vectors<T>,
    ) {
        let rows = x.len() / self.patch;
        let weights = gather(&mut vectors.weights, theta, &self.weights);
        let input = rows_to_lanes(isa, x, rows, self.patch, saved);
        linear_product(
            isa,
            &self.forward,
            weights,
            Begin::Bias(bias),
            input,
            rows,
            y,
            &mut vectors.output,
        );
    }

    /// Stores the gradient by the output of `rows` rows in `saved` as vectors, and computes that by the rows that the layer read.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn backward<T: Real>(
        &self,
        isa: Isa,
        theta: &[T],
        gradient: &[T],
        rows: usize,
        by_input: Option<&mut [T]>,
        saved: &mut Aligned<T>,
        vectors: &mut Vectors<T>,
    ) {
        let by_output = rows_to_lanes(isa, gradient, rows, self.forward.rows(), saved);
        let Some(by_input) = by_input else {
            return;
        };
        let weights = gather(&mut vectors.weights, theta, &self.backward_weights);
        linear_product(
            isa,
            &self.backward,
            weights,
            Begin::Zero,
            by_output,
            rows,
            by_input,
            &mut vectors.output,
        );
    }

    /// The gradients of the weights of some units, for `rows` rows, from what the two passes stored: added to `by_theta`.
    pub fn weight_gradient<T: Real>(
        &self,
        isa: Isa,
        [x, by_output]: [&Aligned<T>; 2],
        rows: usize,
        units: std::ops::Range<usize>,
        by_theta: &mut [T],
    ) {
        let begin = self.forward.start(units.start);
        let mut gradients = vec![T::default(); self.forward.start(units.end) - begin];
        let input = blocks(x.read(), rows, self.patch);
        let read = blocks(by_output.read(), rows, self.forward.rows());
        sampled_product(
            isa,
            &self.forward,
            units.clone(),
            read,
            input,
            &mut gradients,
        );
        let numbers = &self.weights[begin..];
        scatter(numbers, &gradients, units.start * self.patch, by_theta);
    }
}

/// Rows as vectors, `[block][channel][lane]`: a position is a block of sixteen rows.
fn blocks<A>(array: A, rows: usize, channels: usize) -> Plane<A> {
    Plane {
        array,
        grid: Grid {
            size: [1, rows.div_ceil(LANES)],
            steps: [0, channels],
        },
        plane: 1,
    }
}

/// Calls `visit` with each block of rows: where its numbers and its vectors begin, and its shape.
fn for_each_block(rows: usize, channels: usize, mut visit: impl FnMut(usize, LaneLayout)) {
    for first in (0..rows).step_by(LANES) {
        let lanes = LANES.min(rows - first);
        visit(
            first * channels,
            LaneLayout {
                lanes,
                lane_step: channels,
                steps: [channels; 2],
                channels,
            },
        );
    }
}

/// One position, of which vectors lie one behind the other.
fn one_block<A>(array: A) -> Plane<A> {
    Plane {
        array,
        grid: Grid {
            size: [1, 1],
            steps: [0, 0],
        },
        plane: 1,
    }
}

fn rows_to_lanes<'b, T: Real>(
    isa: Isa,
    x: &[T],
    rows: usize,
    channels: usize,
    buffer: &'b mut Aligned<T>,
) -> Plane<&'b [T]> {
    let array = buffer.sized(rows.next_multiple_of(LANES) * channels);
    for_each_block(rows, channels, |first, samples| {
        to_lanes(isa, &x[first..], samples, one_block(&mut array[first..]));
    });
    blocks(array, rows, channels)
}

#[allow(clippy::too_many_arguments, reason = "a product and its buffers")]
fn linear_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    weights: &[T],
    begin: Begin<'_, T>,
    from: Plane<&[T]>,
    rows: usize,
    y: &mut [T],
    buffer: &mut Aligned<T>,
) {
    let channels = taps.rows();
    let array = buffer.sized(rows.next_multiple_of(LANES) * channels);
    sparse_product(
        isa,
        taps,
        weights,
        begin,
        from,
        blocks(&mut *array, rows, channels),
    );
    for_each_block(rows, channels, |first, samples| {
        from_lanes(
            isa,
            one_block(&array[first..]),
            samples,
            &mut y[first..],
            false,
        );
    });
}
