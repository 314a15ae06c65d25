//! The weights of a layer that are left, for passes that compute with those alone: training on its own zeros.

use sparsevd_kernels::training::{
    Grid, LaneLayout, Plane, Real, Taps, from_lanes, sampled_product, sparse_product, to_lanes,
};
use sparsevd_kernels::{Isa, LANES};
use sparsevd_model::Window;

use super::buffer::sized;
use super::size::MapSize;

/// Weights per one that is left from which products with those alone are cheaper; `cargo bench --bench training` has what they gain.
const LEAST_RATIO: usize = 5;

/// Which weights of a layer are left, and where they read and write.
///
/// Places are those of vectors of sixteen samples: of a convolution `[channel][row][column]` of the padded map, of a linear
/// layer `[feature]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sparse {
    patch: usize,
    /// By unit, ascending.
    forward: Taps,
    /// The number of each weight of `forward` in the layer's array.
    weights: Vec<u32>,
    /// By input channel, for the gradient by the input.
    backward: Vec<Class>,
    shape: Shape,
}

/// Input positions of equal remainders by the strides: the same weights reach all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    /// By input channel; places in the padded gradient by the output.
    taps: Taps,
    weights: Vec<u32>,
    /// The first input position, and the number of positions.
    first: [usize; 2],
    size: [usize; 2],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    Linear,
    Conv(Maps),
}

/// Vectors from one channel to the next, in maps of that size: an odd number, since channels that are a power of two apart would
/// meet in few sets of the caches.
fn plane_of(size: [usize; 2]) -> usize {
    (size[0] * size[1]) | 1
}

/// Sizes of the padded maps of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Maps {
    input: [usize; 2],
    channels: usize,
    output: [usize; 2],
    strides: [usize; 2],
    /// Padding before the input, and its size with padding.
    before: [usize; 2],
    padded: [usize; 2],
    /// Zeros before the gradient by the output, and its size with them.
    zeros: [usize; 2],
    padded_gradient: [usize; 2],
}

impl Maps {
    /// `None` where the vectors of `units` are more than places count.
    fn new(window: &Window, input: MapSize, units: usize) -> Option<Self> {
        let output = window.output(input.height, input.width)?;
        let size = [input.height, input.width];
        let before = [window.pads[0], window.pads[1]];
        let mut maps = Self {
            input: size,
            channels: input.channels,
            output,
            strides: window.strides,
            before,
            padded: [0; 2],
            zeros: [0; 2],
            padded_gradient: [0; 2],
        };
        for i in 0..2 {
            let reach = (window.kernel_shape[i] - 1) * window.dilations[i];
            let read = (output[i] - 1) * window.strides[i] + reach + 1;
            maps.padded[i] = read.max(before[i] + size[i]);
            // An input position reads the gradient at `(position + padding - tap) / stride`, from `-reach / stride` on.
            maps.zeros[i] = reach.div_ceil(window.strides[i]);
            let last = (size[i] - 1 + before[i]) / window.strides[i];
            maps.padded_gradient[i] = maps.zeros[i] + output[i].max(last + 1);
        }
        let vectors = [
            (maps.channels, maps.padded_input()),
            (units, maps.padded_output()),
        ];
        let counted = vectors.map(|(n, plane)| u32::try_from(n.saturating_mul(plane)).is_ok());
        (counted == [true; 2]).then_some(maps)
    }

    fn padded_input(&self) -> usize {
        plane_of(self.padded)
    }

    fn padded_output(&self) -> usize {
        plane_of(self.padded_gradient)
    }
}

impl Sparse {
    /// The weights of a linear layer for which `alive` is true; `None` where they are too many for this to be cheaper.
    pub fn linear(alive: impl Iterator<Item = bool>, units: usize, patch: usize) -> Option<Self> {
        let (weights, starts) = left(alive, units, patch)?;
        let places = weights.iter().map(|w| w % patch as u32).collect();
        let by_input = by_rows(
            patch,
            weights.iter().map(|&w| {
                let (unit, k) = (w / patch as u32, w % patch as u32);
                (k as usize, unit, w)
            }),
        );
        let class = Class {
            taps: by_input.0,
            weights: by_input.1,
            first: [0; 2],
            size: [1; 2],
        };
        Some(Self {
            patch,
            forward: Taps::new(starts, places),
            weights,
            backward: vec![class],
            shape: Shape::Linear,
        })
    }

    /// As [`Self::linear`], of a convolution of maps of that size.
    pub fn conv(
        alive: impl Iterator<Item = bool>,
        units: usize,
        window: &Window,
        input: MapSize,
    ) -> Option<Self> {
        let maps = Maps::new(window, input, units)?;
        let [kh, kw] = window.kernel_shape;
        let channels = input.channels;
        let patch = kh * kw * channels;
        let (weights, starts) = left(alive, units, patch)?;
        // The row, column and channel of a weight in its patch.
        let tap = |weight: u32| {
            let k = weight as usize % patch;
            [k / channels / kw, k / channels % kw, k % channels]
        };
        let places = weights.iter().map(|&w| {
            let [ky, kx, c] = tap(w);
            let (y, x) = (ky * window.dilations[0], kx * window.dilations[1]);
            (c * maps.padded_input() + y * maps.padded[1] + x) as u32
        });
        let forward = Taps::new(starts, places.collect());
        let mut backward = vec![];
        for first in (0..maps.strides[0].min(maps.input[0]))
            .flat_map(|y| (0..maps.strides[1].min(maps.input[1])).map(move |x| [y, x]))
        {
            // The output that reads an input of this class through a tap, relative to the input's number in the class.
            let output = |k: [usize; 2], i: usize| {
                let padded = first[i] + maps.before[i] + maps.zeros[i] * maps.strides[i];
                let at = padded - k[i] * window.dilations[i];
                at.is_multiple_of(maps.strides[i])
                    .then(|| at / maps.strides[i])
            };
            let reached = weights.iter().filter_map(|&w| {
                let [ky, kx, c] = tap(w);
                let (y, x) = output([ky, kx], 0).zip(output([ky, kx], 1))?;
                let unit = w as usize / patch;
                let place = unit * maps.padded_output() + y * maps.padded_gradient[1] + x;
                Some((c, place as u32, w))
            });
            let (taps, weights) = by_rows(channels, reached);
            backward.push(Class {
                taps,
                weights,
                first,
                size: [0, 1].map(|i| (maps.input[i] - first[i]).div_ceil(maps.strides[i])),
            });
        }
        Some(Self {
            patch,
            forward,
            weights,
            backward,
            shape: Shape::Conv(maps),
        })
    }

    /// The share of the weights that are left.
    pub fn density(&self) -> f64 {
        self.weights.len() as f64 / (self.forward.rows() * self.patch) as f64
    }

    fn maps(&self) -> Maps {
        match self.shape {
            Shape::Conv(maps) => maps,
            Shape::Linear => unreachable!("a linear layer has no maps"),
        }
    }

    /// Adds gradients of the weights that are left, from number `begin` of them on, to those of the layer's units from `first` on.
    fn scatter<T: Real>(&self, begin: usize, gradients: &[T], first: usize, by_theta: &mut [T]) {
        for (&w, &g) in self.weights[begin..].iter().zip(gradients) {
            by_theta[w as usize - first * self.patch] += g;
        }
    }
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

/// Where vectors are loaded fast: none lies in two cache lines.
const ALIGNMENT: usize = 64;

/// The first `len` elements of a buffer from where it is aligned on, as [`sized`].
fn aligned<T: Real>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    let whole = sized(buffer, len + ALIGNMENT / size_of::<T>());
    let first = whole.as_ptr().align_offset(ALIGNMENT);
    &mut whole[first..][..len]
}

/// What [`aligned`] gave of a buffer, and what is behind it.
fn read_aligned<T: Real>(buffer: &[T]) -> &[T] {
    buffer
        .get(buffer.as_ptr().align_offset(ALIGNMENT)..)
        .unwrap_or(&[])
}

/// Buffers of these passes: vectors of inputs and outputs, and weights in the order of taps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Vectors<T> {
    input: Vec<T>,
    output: Vec<T>,
    weights: Vec<T>,
}

fn gather<'a, T: Real>(buffer: &'a mut Vec<T>, values: &[T], numbers: &[u32]) -> &'a [T] {
    buffer.clear();
    buffer.extend(numbers.iter().map(|&w| values[w as usize]));
    buffer
}

/// Maps of `[rows, columns]` positions, each with its channels, one after the other.
fn maps_of(lanes: usize, [rows, columns]: [usize; 2], channels: usize) -> LaneLayout {
    LaneLayout {
        lanes,
        lane_step: rows * columns * channels,
        steps: [columns * channels, channels],
        channels,
    }
}

impl Sparse {
    /// A convolution of at most sixteen maps `x`: `y[map][position][unit]`.
    pub fn conv_forward<T: Real>(
        &self,
        isa: Isa,
        [theta, bias]: [&[T]; 2],
        x: &[T],
        y: &mut [T],
        vectors: &mut Vectors<T>,
    ) {
        let (maps, units) = (self.maps(), bias.len());
        let lanes = y.len() / (maps.output[0] * maps.output[1] * units);
        let weights = gather(&mut vectors.weights, theta, &self.weights);
        let input = self.padded(isa, x, lanes, &mut vectors.input);
        let plane = plane_of(maps.output);
        let output = aligned(&mut vectors.output, units * plane * LANES);
        let grid = Grid {
            size: maps.output,
            steps: [maps.output[1], 1],
        };
        let to = Plane {
            array: &mut *output,
            grid,
            plane,
        };
        sparse_product(isa, &self.forward, weights, Some(bias), input, to);
        let from = Plane {
            array: &*output,
            grid,
            plane,
        };
        from_lanes(isa, from, maps_of(lanes, maps.output, units), y, false);
    }

    /// The padded input as vectors, and the positions at which the first tap reads it.
    fn padded<'b, T: Real>(
        &self,
        isa: Isa,
        x: &[T],
        lanes: usize,
        buffer: &'b mut Vec<T>,
    ) -> Plane<&'b [T]> {
        let maps = self.maps();
        let (plane, pitch) = (maps.padded_input(), maps.padded[1]);
        let array = aligned(buffer, maps.channels * plane * LANES);
        let first = maps.before[0] * pitch + maps.before[1];
        clear_border(array, plane, pitch, first, maps.input);
        let to = Plane {
            array: &mut array[first * LANES..],
            grid: Grid {
                size: maps.input,
                steps: [pitch, 1],
            },
            plane,
        };
        to_lanes(isa, x, maps_of(lanes, maps.input, maps.channels), to);
        let steps = [maps.strides[0] * pitch, maps.strides[1]];
        Plane {
            array,
            grid: Grid {
                size: maps.output,
                steps,
            },
            plane,
        }
    }

    /// Adds to the gradients of a convolution of at most sixteen maps, given that by its output.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn conv_backward<T: Real>(
        &self,
        isa: Isa,
        theta: &[T],
        x: &[T],
        gradient: &[T],
        by_theta: &mut [T],
        by_input: Option<&mut [T]>,
        vectors: &mut Vectors<T>,
    ) {
        let maps = self.maps();
        let units = self.forward.rows();
        let lanes = gradient.len() / (maps.output[0] * maps.output[1] * units);
        let (plane, pitch) = (maps.padded_output(), maps.padded_gradient[1]);
        let by_output = aligned(&mut vectors.output, units * plane * LANES);
        let first = maps.zeros[0] * pitch + maps.zeros[1];
        clear_border(by_output, plane, pitch, first, maps.output);
        let first = first * LANES;
        let inside = Grid {
            size: maps.output,
            steps: [pitch, 1],
        };
        let to = Plane {
            array: &mut by_output[first..],
            grid: inside,
            plane,
        };
        to_lanes(isa, gradient, maps_of(lanes, maps.output, units), to);
        let input = self.padded(isa, x, lanes, &mut vectors.input);
        vectors.weights.clear();
        vectors.weights.resize(self.weights.len(), T::default());
        let read = Plane {
            array: &by_output[first..],
            grid: inside,
            plane,
        };
        sampled_product(
            isa,
            &self.forward,
            0..units,
            read,
            input,
            &mut vectors.weights,
        );
        self.scatter(0, &vectors.weights, 0, by_theta);
        let Some(by_input) = by_input else {
            return;
        };
        let to_plane = plane_of(maps.input);
        let array = aligned(&mut vectors.input, maps.channels * to_plane * LANES);
        for class in &self.backward {
            let weights = gather(&mut vectors.weights, theta, &class.weights);
            let from = Plane {
                array: &*by_output,
                grid: Grid {
                    size: class.size,
                    steps: [pitch, 1],
                },
                plane,
            };
            let at = class.first[0] * maps.input[1] + class.first[1];
            let to = Plane {
                array: &mut array[at * LANES..],
                grid: Grid {
                    size: class.size,
                    steps: [maps.strides[0] * maps.input[1], maps.strides[1]],
                },
                plane: to_plane,
            };
            sparse_product(isa, &class.taps, weights, None, from, to);
        }
        let from = Plane {
            array: &*array,
            grid: Grid {
                size: maps.input,
                steps: [maps.input[1], 1],
            },
            plane: to_plane,
        };
        from_lanes(
            isa,
            from,
            maps_of(lanes, maps.input, maps.channels),
            by_input,
            true,
        );
    }

    /// A linear layer on `rows` rows: `y[row][unit]`. The rows are stored in `saved` as vectors, `[block][feature][lane]`.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn linear_forward<T: Real>(
        &self,
        isa: Isa,
        [theta, bias]: [&[T]; 2],
        x: &[T],
        y: &mut [T],
        saved: &mut Vec<T>,
        vectors: &mut Vectors<T>,
    ) {
        let rows = x.len() / self.patch;
        let weights = gather(&mut vectors.weights, theta, &self.weights);
        let input = rows_to_lanes(isa, x, rows, self.patch, saved);
        linear_product(
            isa,
            &self.forward,
            weights,
            Some(bias),
            input,
            rows,
            y,
            &mut vectors.output,
        );
    }

    /// Stores the gradient by the output of `rows` rows in `saved` as vectors, and computes that by the rows that the layer read.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn linear_backward<T: Real>(
        &self,
        isa: Isa,
        theta: &[T],
        gradient: &[T],
        rows: usize,
        by_input: Option<&mut [T]>,
        saved: &mut Vec<T>,
        vectors: &mut Vectors<T>,
    ) {
        let by_output = rows_to_lanes(isa, gradient, rows, self.forward.rows(), saved);
        let Some(by_input) = by_input else {
            return;
        };
        let class = &self.backward[0];
        let weights = gather(&mut vectors.weights, theta, &class.weights);
        linear_product(
            isa,
            &class.taps,
            weights,
            None,
            by_output,
            rows,
            by_input,
            &mut vectors.output,
        );
    }

    /// The gradients of the weights of some units, for `rows` rows, from what the two passes stored: added to `by_theta`.
    pub fn linear_weight_gradient<T: Real>(
        &self,
        isa: Isa,
        [x, by_output]: [&[T]; 2],
        rows: usize,
        units: std::ops::Range<usize>,
        by_theta: &mut [T],
    ) {
        let begin = self.forward.start(units.start);
        let mut gradients = vec![T::default(); self.forward.start(units.end) - begin];
        let input = blocks(read_aligned(x), rows, self.patch);
        let read = blocks(read_aligned(by_output), rows, self.forward.rows());
        sampled_product(
            isa,
            &self.forward,
            units.clone(),
            read,
            input,
            &mut gradients,
        );
        self.scatter(begin, &gradients, units.start, by_theta);
    }
}

/// Fills what is around each map of `size`, which begins at vector `first` of its plane, with zeros.
fn clear_border<T: Real>(
    array: &mut [T],
    plane: usize,
    pitch: usize,
    first: usize,
    [rows, columns]: [usize; 2],
) {
    for map in array.chunks_exact_mut(plane * LANES) {
        let mut at = 0;
        for row in 0..rows {
            let inside = first + row * pitch;
            map[at * LANES..inside * LANES].fill(T::default());
            at = inside + columns;
        }
        map[at * LANES..].fill(T::default());
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
fn for_each_block(rows: usize, channels: usize, mut visit: impl FnMut(usize, usize, LaneLayout)) {
    for first in (0..rows).step_by(LANES) {
        let lanes = LANES.min(rows - first);
        visit(
            first * channels,
            first * channels,
            maps_of(lanes, [1, 1], channels),
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
    buffer: &'b mut Vec<T>,
) -> Plane<&'b [T]> {
    let array = aligned(buffer, rows.next_multiple_of(LANES) * channels);
    for_each_block(rows, channels, |numbers, vectors, samples| {
        to_lanes(
            isa,
            &x[numbers..],
            samples,
            one_block(&mut array[vectors..]),
        );
    });
    blocks(array, rows, channels)
}

#[allow(clippy::too_many_arguments, reason = "a product and its buffers")]
fn linear_product<T: Real>(
    isa: Isa,
    taps: &Taps,
    weights: &[T],
    bias: Option<&[T]>,
    from: Plane<&[T]>,
    rows: usize,
    y: &mut [T],
    buffer: &mut Vec<T>,
) {
    let channels = taps.rows();
    let array = aligned(buffer, rows.next_multiple_of(LANES) * channels);
    sparse_product(
        isa,
        taps,
        weights,
        bias,
        from,
        blocks(&mut *array, rows, channels),
    );
    for_each_block(rows, channels, |numbers, vectors, samples| {
        from_lanes(
            isa,
            one_block(&array[vectors..]),
            samples,
            &mut y[numbers..],
            false,
        );
    });
}
