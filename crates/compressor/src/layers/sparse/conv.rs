//! Convolutions with the weights that are left.

use std::ops::Range;

use sparsevd_kernels::training::{
    Begin, Grid, Plane, Real, Taps, add_lane_totals, sampled_product, sparse_product,
};
use sparsevd_kernels::{Isa, LANES};
use sparsevd_model::Window;

use super::weights::{Vectors, by_rows, gather, left, scatter};
use crate::layers::buffer::Aligned;
use crate::layers::lane_map::{LaneMap, Layout, blocks};
use crate::layers::size::MapSize;

/// The weights of a convolution that are left. Places are those of vectors of a [`LaneMap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SparseConv {
    patch: usize,
    strides: [usize; 2],
    input: LaneMap,
    output: LaneMap,
    /// The vector of the input that the first tap of the first output reads.
    first: usize,
    /// By unit, ascending.
    forward: Taps,
    /// The number of each weight of `forward` in the layer's array.
    weights: Vec<u32>,
    /// For the gradient by the input.
    backward: Vec<Class>,
}

/// Input positions of equal remainders by the strides: the same weights reach all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    /// By input channel; places in the gradient by the output.
    taps: Taps,
    weights: Vec<u32>,
    /// The first input position, and the number of positions.
    first: [usize; 2],
    size: [usize; 2],
}

/// The maps of a convolution's input and output, with the borders that its passes need.
pub(crate) fn borders(window: &Window, input: MapSize, output: MapSize) -> [LaneMap; 2] {
    let mut maps = [LaneMap::new(input), LaneMap::new(output)];
    let (size, out) = ([input.height, input.width], [output.height, output.width]);
    let pads = [window.pads[0], window.pads[1]];
    let reach = [0, 1].map(|i| (window.kernel_shape[i] - 1) * window.dilations[i]);
    let read = [0, 1].map(|i| (out[i] - 1) * window.strides[i] + reach[i] + 1);
    maps[0].widen(
        pads,
        [0, 1].map(|i| read[i].saturating_sub(pads[i] + size[i])),
    );
    // An input position reads the gradient at `(position + padding - tap) / stride`.
    let before = [0, 1].map(|i| reach[i].saturating_sub(pads[i]).div_ceil(window.strides[i]));
    let last = [0, 1].map(|i| (size[i] - 1 + pads[i]) / window.strides[i]);
    maps[1].widen(before, [0, 1].map(|i| (last[i] + 1).saturating_sub(out[i])));
    maps
}

/// A layout, and the numbers that lie so.
pub(crate) type Laid<A> = (Layout, A);

impl SparseConv {
    /// The weights for which `alive` is true, of a convolution from and to maps with at least its [`borders`]; `None` where they
    /// are too many for this to be cheaper.
    pub fn new(
        alive: impl Iterator<Item = bool>,
        window: &Window,
        [input, output]: [LaneMap; 2],
    ) -> Option<Self> {
        let units = output.map().channels;
        let vectors = [(input, input.map().channels), (output, units)];
        let counted = vectors.map(|(map, n)| u32::try_from(n.checked_mul(map.plane())?).ok());
        if counted.contains(&None) {
            return None;
        }
        let [kh, kw] = window.kernel_shape;
        let channels = input.map().channels;
        let patch = kh * kw * channels;
        let (weights, starts) = left(alive, units, patch)?;
        // The row, column and channel of a weight in its patch.
        let tap = |weight: u32| {
            let k = weight as usize % patch;
            [k / channels / kw, k / channels % kw, k % channels]
        };
        let places = weights.iter().map(|&w| {
            let [ky, kx, c] = tap(w);
            let at = [ky * window.dilations[0], kx * window.dilations[1]];
            (c * input.plane() + input.place(at)) as u32
        });
        let forward = Taps::new(starts, places.collect());
        let size = [input.map().height, input.map().width];
        let mut backward = vec![];
        for first in (0..window.strides[0].min(size[0]))
            .flat_map(|y| (0..window.strides[1].min(size[1])).map(move |x| [y, x]))
        {
            // The output that reads an input of this class through a tap, relative to the input's number in the class and counted
            // from the border on.
            let read_by = |k: [usize; 2], i: usize| {
                let padded = first[i] + window.pads[i] + output.before()[i] * window.strides[i];
                let at = padded - k[i] * window.dilations[i];
                at.is_multiple_of(window.strides[i])
                    .then(|| at / window.strides[i])
            };
            let reached = weights.iter().filter_map(|&w| {
                let [ky, kx, c] = tap(w);
                let at = [read_by([ky, kx], 0)?, read_by([ky, kx], 1)?];
                let place = w as usize / patch * output.plane() + output.place(at);
                Some((c, place as u32, w))
            });
            let (taps, weights) = by_rows(channels, reached);
            backward.push(Class {
                taps,
                weights,
                first,
                size: [0, 1].map(|i| (size[i] - first[i]).div_ceil(window.strides[i])),
            });
        }
        Some(Self {
            patch,
            strides: window.strides,
            first: input.place([0, 1].map(|i| input.before()[i] - window.pads[i])),
            input,
            output,
            forward,
            weights,
            backward,
        })
    }

    /// The share of the weights that are left.
    pub fn density(&self) -> f64 {
        self.weights.len() as f64 / (self.forward.rows() * self.patch) as f64
    }

    /// What the first tap reads, at the positions of the output.
    fn reads<'a, T>(&self, input: &'a [T]) -> Plane<&'a [T]> {
        let [rows, columns] = self.strides;
        Plane {
            array: &input[self.first * LANES..],
            grid: Grid {
                size: self.output.grid().size,
                steps: [rows * self.input.pitch(), columns],
            },
            plane: self.input.plane(),
        }
    }

    /// The outputs of some samples.
    pub fn forward<T: Real>(
        &self,
        isa: Isa,
        samples: usize,
        [theta, bias]: [&[T]; 2],
        (x_layout, x): Laid<&[T]>,
        (y_layout, y): Laid<&mut [T]>,
        vectors: &mut Vectors<T>,
    ) {
        let Vectors {
            input,
            output,
            weights,
            ..
        } = vectors;
        let weights = gather(weights, theta, &self.weights);
        for block in blocks(samples) {
            let x = vectors_of(isa, &self.input, (x_layout, x), &block, input);
            let y = &mut y[self.output.place_of(y_layout, &block)];
            let begin = Begin::Bias(bias);
            let product =
                |to| sparse_product(isa, &self.forward, weights, begin, self.reads(x), to);
            match y_layout {
                Layout::Lanes => product(self.output.inside_mut(y)),
                Layout::Samples => {
                    let to = output.sized(self.output.numbers());
                    product(self.output.inside_mut(to));
                    self.output.unpack(isa, to, y, false);
                }
            }
        }
    }

    /// Adds to the gradients of weights and bias, given that by the output; writes that by the input, or adds to it where `add` says
    /// so, which lies as the input.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn backward<T: Real>(
        &self,
        isa: Isa,
        samples: usize,
        theta: &[T],
        (x_layout, x): Laid<&[T]>,
        (g_layout, g): Laid<&[T]>,
        [by_theta, by_bias]: [&mut [T]; 2],
        mut by_input: Option<&mut [T]>,
        add: bool,
        vectors: &mut Vectors<T>,
    ) {
        let Vectors {
            input,
            output,
            by_input: to,
            weights,
        } = vectors;
        let units = self.forward.rows();
        let mut sums = vec![T::default(); self.weights.len()];
        for block in blocks(samples) {
            let g = vectors_of(isa, &self.output, (g_layout, g), &block, output);
            add_lane_totals(isa, self.output.inside(g), by_bias);
            let read = vectors_of(isa, &self.input, (x_layout, x), &block, input);
            let (read, inside) = (self.reads(read), self.output.inside(g));
            sampled_product(isa, &self.forward, 0..units, inside, read, &mut sums);
            let Some(by_input) = by_input.as_deref_mut() else {
                continue;
            };
            let dx = &mut by_input[self.input.place_of(x_layout, &block)];
            match x_layout {
                Layout::Lanes => self.input_gradient(isa, theta, g, dx, add, weights),
                Layout::Samples => {
                    let to = to.sized(self.input.numbers());
                    self.input_gradient(isa, theta, g, to, false, weights);
                    self.input.unpack(isa, to, dx, add);
                }
            }
        }
        scatter(&self.weights, &sums, 0, by_theta);
    }

    fn input_gradient<T: Real>(
        &self,
        isa: Isa,
        theta: &[T],
        by_output: &[T],
        by_input: &mut [T],
        add: bool,
        weights: &mut Vec<T>,
    ) {
        for class in &self.backward {
            let weights = gather(weights, theta, &class.weights);
            let from = Plane {
                array: by_output,
                grid: Grid {
                    size: class.size,
                    steps: [self.output.pitch(), 1],
                },
                plane: self.output.plane(),
            };
            let mut to = self.input.inside_mut(&mut *by_input);
            let first = self.input.place(class.first);
            to.array = &mut to.array[first * LANES..];
            to.grid = Grid {
                size: class.size,
                steps: [self.strides[0] * self.input.pitch(), self.strides[1]],
            };
            let begin = if add { Begin::Sum } else { Begin::Zero };
            sparse_product(isa, &class.taps, weights, begin, from, to);
        }
    }
}

/// The vectors of a block of samples, copied where it does not lie as vectors.
fn vectors_of<'a, T: Real>(
    isa: Isa,
    map: &LaneMap,
    (layout, values): Laid<&'a [T]>,
    block: &Range<usize>,
    buffer: &'a mut Aligned<T>,
) -> &'a [T] {
    let values = &values[map.place_of(layout, block)];
    match layout {
        Layout::Lanes => values,
        Layout::Samples => {
            let to = buffer.sized(map.numbers());
            map.clear_border(to);
            map.pack(isa, values, to);
            to
        }
    }
}
