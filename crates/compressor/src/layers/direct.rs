//! Convolutions over planes: maps with a border of zeros, over which filters run where they lie.
//!
//! No patch is copied, squares are those of maps, and the gradient of an input is a product of its own, with the filters turned
//! around. For maps that are not pooled at once; behind max-pooling, gradients are mostly zero ([`super::conv`]).

use std::ops::Range;

use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{
    Begin, PixelGrid, Real, Run, add_square_gradient, direct_product, direct_weight_gradient,
    merge_runs, multiply, padded_units, reparametrize, square,
};
use sparsevd_model::Window;

use super::buffer::Planes;
use super::size::MapSize;
use super::{Gradients, Pass, Saved, Weights, sized};

/// A map with a border.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plane {
    map: MapSize,
    /// Rows above the map, and columns to its left.
    before: [usize; 2],
    /// Rows and columns with the border.
    size: [usize; 2],
    /// Numbers of a pixel, zeros behind those of the map.
    wide: usize,
}

impl Plane {
    fn row(&self) -> usize {
        self.size[1] * self.wide
    }

    fn elements(&self) -> usize {
        self.size[0] * self.row()
    }

    /// Place of a pixel of the map.
    fn place(&self, [y, x]: [usize; 2]) -> usize {
        (y + self.before[0]) * self.row() + (x + self.before[1]) * self.wide
    }

    /// The map in its plane; the map itself where that has no border.
    fn of<'p, T: Real>(&self, map: &'p [T], buffer: &'p mut Vec<T>) -> &'p [T] {
        if self.elements() == map.len() {
            return map;
        }
        // Empty before the first image of a pass, whose border is that of the others.
        if buffer.len() != self.elements() {
            buffer.clear();
            buffer.resize(self.elements(), T::default());
        }
        let channels = self.map.channels;
        for (y, row) in map.chunks_exact(self.map.width * channels).enumerate() {
            let to = &mut buffer[self.place([y, 0])..];
            if self.wide == channels {
                to[..row.len()].copy_from_slice(row);
                continue;
            }
            for (x, pixel) in row.chunks_exact(channels).enumerate() {
                to[x * self.wide..][..channels].copy_from_slice(pixel);
            }
        }
        buffer
    }
}

/// How much of the input's gradient comes from which taps: the pixels of one remainder by the strides.
#[derive(Debug, Clone, PartialEq)]
struct Class {
    /// Rows and columns of pixels.
    size: [usize; 2],
    /// Where they are in the plane of output gradients, and in the map of input gradients.
    from: PixelGrid,
    to: PixelGrid,
    /// Row and column of the kernel of each tap, in the order of the runs.
    taps: Vec<[usize; 2]>,
    runs: Vec<Run>,
}

/// The geometry of a convolution.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Direct {
    input: Plane,
    output: Plane,
    kernel: [usize; 2],
    /// Pixels of the output, in the input's plane.
    reads: PixelGrid,
    runs: Vec<Run>,
    classes: Vec<Class>,
}

impl Direct {
    /// Of the convolution of a map of size `input` to one of size `output`.
    pub fn new(window: &Window, input: MapSize, output: MapSize) -> Self {
        let kernel = window.kernel_shape;
        let reach: [usize; 2] = std::array::from_fn(|i| (kernel[i] - 1) * window.dilations[i]);
        let pads = window.pads;
        let (inside, out) = ([input.height, input.width], [output.height, output.width]);
        let strides = window.strides;
        let in_plane = Plane {
            map: input,
            before: [pads[0], pads[1]],
            // As much as the last window reads, and the whole map.
            size: std::array::from_fn(|i| {
                ((out[i] - 1) * strides[i] + reach[i] + 1).max(pads[i] + inside[i])
            }),
            wide: input.channels,
        };
        // Rows and columns of output gradients that the first and the last pixel of the input reach for.
        let before: [usize; 2] =
            std::array::from_fn(|i| reach[i].saturating_sub(pads[i]).div_ceil(strides[i]));
        let last: [usize; 2] =
            std::array::from_fn(|i| ((inside[i] - 1 + pads[i]) / strides[i]).max(out[i] - 1));
        let out_plane = Plane {
            map: output,
            before,
            size: std::array::from_fn(|i| before[i] + last[i] + 1),
            wide: padded_units(output.channels),
        };
        let taps = (0..kernel[0]).flat_map(|ky| (0..kernel[1]).map(move |kx| [ky, kx]));
        let runs = taps.map(|[ky, kx]| Run {
            at: ky * window.dilations[0] * in_plane.row()
                + kx * window.dilations[1] * in_plane.wide,
            len: input.channels,
        });
        let classes = (0..strides[0]).flat_map(|y| (0..strides[1]).map(move |x| [y, x]));
        Self {
            input: in_plane,
            output: out_plane,
            kernel,
            reads: PixelGrid {
                start: 0,
                steps: [strides[0] * in_plane.row(), strides[1] * in_plane.wide],
            },
            runs: merge_runs(runs),
            classes: classes
                .filter(|first| first[0] < inside[0] && first[1] < inside[1])
                .map(|first| Class::new(window, first, &in_plane, &out_plane))
                .collect(),
        }
    }

    /// Pixels of the output in its plane.
    fn writes(&self) -> PixelGrid {
        PixelGrid {
            start: self.output.place([0, 0]),
            steps: [self.output.row(), self.output.wide],
        }
    }

    /// Means, noise and the gradient factors of some samples; `y` and `factor` are whole.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn forward<T: Real>(
        &self,
        pass: &Pass<'_>,
        layer: usize,
        w: &Weights<'_, T>,
        input: &[T],
        [y, factor]: [&mut [T]; 2],
        noise: &mut Vec<T>,
        planes: &mut Planes<T>,
    ) {
        let map = self.output.map;
        let size = [map.height, map.width];
        planes.start();
        let [of_mean, of_variance] = &mut planes.filters;
        transposed(w.theta, w.units, of_mean);
        transposed(w.sigma2, w.units, of_variance);
        let out = PixelGrid {
            start: 0,
            steps: [map.width * w.units, w.units],
        };
        let [plane, squares] = &mut planes.input;
        let images = input.chunks_exact(self.input.map.elements());
        let per_image = map.elements();
        for (i, (x, y)) in images.zip(y.chunks_exact_mut(per_image)).enumerate() {
            let x = self.input.of(x, plane);
            let product = |from: &[T], filters: &[T], to: &mut [T], begin| {
                let (from, to) = ((from, self.reads), (to, out));
                direct_product(
                    pass.isa, size, &self.runs, from, filters, to, w.units, begin,
                );
            };
            product(x, of_mean, y, Begin::Bias(w.bias));
            if w.has_noise() {
                let v = &mut factor[i * per_image..(i + 1) * per_image];
                let squares = sized(squares, x.len());
                square(pass.isa, x, squares);
                product(squares, of_variance, v, Begin::Zero);
                let noise = sized(noise, per_image);
                pass.fill_noise(layer, i, noise);
                reparametrize(pass.isa, y, v, noise);
            }
        }
    }

    /// Adds to the gradients; `gradient` is by the output.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    pub fn backward<T: Real>(
        &self,
        pass: &Pass<'_>,
        w: &Weights<'_, T>,
        input: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        images: Range<usize>,
        out: &mut Gradients<'_, T>,
        planes: &mut Planes<T>,
    ) {
        let (per_in, per_out) = (self.input.map.elements(), self.output.map.elements());
        let map = self.output.map;
        let size = [map.height, map.width];
        let noisy = w.has_noise();
        planes.start();
        for sums in &mut planes.sums {
            sums.clear();
            sums.resize(w.patch * self.output.wide, T::default());
        }
        if out.input.is_some() {
            for (filters, values) in planes.filters.iter_mut().zip([w.theta, w.sigma2]) {
                self.flipped(values, filters);
            }
        }
        for image in images {
            let g = &gradient[image * per_out..(image + 1) * per_out];
            out.add_bias(g);
            let [plane, squares] = &mut planes.input;
            let [by_mean, by_variance] = &mut planes.output;
            let x = self
                .input
                .of(&input[image * per_in..(image + 1) * per_in], plane);
            let mean = self.output.of(g, by_mean);
            let gv = sized(&mut planes.variance, if noisy { g.len() } else { 0 });
            let mut variance = &[][..];
            if noisy {
                let factor = &saved.factor[image * per_out..(image + 1) * per_out];
                multiply(pass.isa, g, factor, gv);
                variance = self.output.of(gv, by_variance);
                square(pass.isa, x, sized(squares, x.len()));
            }
            let [sums, sums2] = &mut planes.sums;
            let add = |from: &[T], by: &[T], sums: &mut [T]| {
                let (from, by) = ((from, self.reads), (by, self.writes()));
                direct_weight_gradient(pass.isa, size, &self.runs, from, by, w.units, sums);
            };
            add(x, mean, sums);
            if noisy {
                add(squares, variance, sums2);
            }
            let Some(dx) = out.input.as_deref_mut() else {
                continue;
            };
            let dx = &mut dx[image * per_in..(image + 1) * per_in];
            let begin = match out.is_first {
                true => Begin::Zero,
                false => Begin::Sum,
            };
            self.input_gradient(pass.isa, mean, &planes.filters[0], dx, begin);
            if noisy {
                let by_square = sized(&mut planes.map, per_in);
                let filters = &planes.filters[1];
                self.input_gradient(pass.isa, variance, filters, by_square, Begin::Zero);
                let x = &input[image * per_in..(image + 1) * per_in];
                add_square_gradient(pass.isa, x, by_square, dx);
            }
        }
        add_transposed(&planes.sums[0], w.units, out.theta);
        if noisy {
            add_transposed(&planes.sums[1], w.units, out.sigma2);
        }
    }

    /// What output gradients in a plane make of the gradient of the input.
    fn input_gradient<T: Real>(
        &self,
        isa: Isa,
        plane: &[T],
        filters: &[T],
        to: &mut [T],
        begin: Begin<'_, T>,
    ) {
        let channels = self.input.map.channels;
        let mut first = 0;
        for class in &self.classes {
            let numbers: usize = class.runs.iter().map(|run| run.len).sum();
            let filters = &filters[first..first + numbers * padded_units(channels)];
            first += filters.len();
            let (from, to) = ((plane, class.from), (&mut *to, class.to));
            direct_product(
                isa,
                class.size,
                &class.runs,
                from,
                filters,
                to,
                channels,
                begin,
            );
        }
    }

    /// Filters `[unit][row][column][channel]` for the gradient of the input: for each tap of the classes and each unit, its
    /// channels in whole vectors.
    fn flipped<T: Real>(&self, filters: &[T], to: &mut Vec<T>) {
        let (channels, units) = (self.input.map.channels, self.output.map.channels);
        to.clear();
        if filters.is_empty() {
            return;
        }
        let [_, columns] = self.kernel;
        let patch = self.kernel[0] * columns * channels;
        for [ky, kx] in self.classes.iter().flat_map(|class| &class.taps) {
            for unit in 0..units {
                let end = to.len() + padded_units(channels);
                let at = unit * patch + (ky * columns + kx) * channels;
                to.extend_from_slice(&filters[at..at + channels]);
                to.resize(end, T::default());
            }
        }
    }
}

impl Class {
    fn new(window: &Window, first: [usize; 2], input: &Plane, output: &Plane) -> Self {
        let (strides, dilations) = (window.strides, window.dilations);
        let inside = [input.map.height, input.map.width];
        // Output pixel that the first pixel of the class reaches through a row or column of the kernel, in the plane.
        let through = |axis: usize, k: usize| {
            let at = first[axis] + window.pads[axis] + output.before[axis] * strides[axis];
            let at = at - k * dilations[axis];
            at.is_multiple_of(strides[axis]).then(|| at / strides[axis])
        };
        let mut taps = vec![];
        for ky in 0..window.kernel_shape[0] {
            for kx in 0..window.kernel_shape[1] {
                if let (Some(y), Some(x)) = (through(0, ky), through(1, kx)) {
                    taps.push((y * output.row() + x * output.wide, [ky, kx]));
                }
            }
        }
        taps.sort_unstable();
        let runs = taps.iter().map(|&(at, _)| Run {
            at,
            len: output.map.channels,
        });
        let step = [inside[1] * input.map.channels, input.map.channels];
        Self {
            size: std::array::from_fn(|i| (inside[i] - first[i]).div_ceil(strides[i])),
            from: PixelGrid {
                start: 0,
                steps: [output.row(), output.wide],
            },
            to: PixelGrid {
                start: first[0] * step[0] + first[1] * step[1],
                steps: [strides[0] * step[0], strides[1] * step[1]],
            },
            runs: merge_runs(runs),
            taps: taps.into_iter().map(|(_, tap)| tap).collect(),
        }
    }
}

/// Filters `[unit][number]` as `[number][padded_units(units)]`; empty where there are none.
fn transposed<T: Real>(filters: &[T], units: usize, to: &mut Vec<T>) {
    let (numbers, wide) = (filters.len() / units, padded_units(units));
    to.clear();
    to.resize(numbers * wide, T::default());
    for (unit, filter) in filters.chunks_exact(numbers.max(1)).enumerate() {
        for (to, &value) in to.chunks_exact_mut(wide).zip(filter) {
            to[unit] = value;
        }
    }
}

/// Adds `[number][padded_units(units)]` to `[unit][number]`.
fn add_transposed<T: Real>(sums: &[T], units: usize, to: &mut [T]) {
    let numbers = to.len() / units;
    for (unit, to) in to.chunks_exact_mut(numbers.max(1)).enumerate() {
        for (to, sums) in to.iter_mut().zip(sums.chunks_exact(padded_units(units))) {
            *to += sums[unit];
        }
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_kernels::training::{VARIANCE_EPSILON, philox4x32};

    use super::super::{Noise, Scratch};
    use super::*;

    fn numbers(count: usize, stream: u32) -> Vec<f64> {
        let number = |i| f64::from(philox4x32([i, stream, 0, 0], [0; 2])[0]) / 2f64.powi(31) - 1.0;
        (0..count as u32).map(number).collect()
    }

    /// Calls `visit` with the places of each product of a convolution: output, filter, input.
    fn products(window: &Window, input: MapSize, map: MapSize, mut visit: impl FnMut([usize; 3])) {
        let [kh, kw] = window.kernel_shape;
        let inside = |o: usize, k: usize, axis: usize, size: usize| {
            let at = o * window.strides[axis] + k * window.dilations[axis];
            at.checked_sub(window.pads[axis]).filter(|at| *at < size)
        };
        for (oy, ox) in (0..map.height).flat_map(|y| (0..map.width).map(move |x| (y, x))) {
            for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                let (y, x) = (
                    inside(oy, ky, 0, input.height),
                    inside(ox, kx, 1, input.width),
                );
                let (Some(y), Some(x)) = (y, x) else { continue };
                for unit in 0..map.channels {
                    for c in 0..input.channels {
                        visit([
                            (oy * map.width + ox) * map.channels + unit,
                            ((unit * kh + ky) * kw + kx) * input.channels + c,
                            (y * input.width + x) * input.channels + c,
                        ]);
                    }
                }
            }
        }
    }

    /// Windows of all kinds against the definition, forward and backward, with noise; two images, so that borders are used twice.
    #[test]
    fn planes_compute_what_a_convolution_is() {
        // Kernel, strides, pads, dilations; height, width and channels; units.
        let cases = [
            ([3, 3], [1, 1], [1, 1, 1, 1], [1, 1], [5, 6, 4], 3),
            ([3, 3], [2, 2], [1, 1, 1, 1], [1, 1], [8, 8, 2], 16),
            ([3, 3], [2, 2], [0, 0, 1, 1], [1, 1], [8, 7, 2], 5),
            ([1, 1], [1, 1], [0, 0, 0, 0], [1, 1], [3, 4, 5], 16),
            ([1, 1], [2, 2], [0, 0, 0, 0], [1, 1], [7, 6, 3], 17),
            ([5, 2], [3, 1], [2, 0, 1, 1], [1, 2], [9, 6, 2], 4),
            ([1, 5], [1, 1], [0, 4, 0, 0], [1, 1], [1, 20, 3], 6),
            ([2, 3], [3, 4], [0, 0, 0, 0], [2, 1], [10, 12, 1], 2),
            // A border that is wider than what the window reaches.
            ([1, 3], [2, 1], [3, 4, 1, 5], [1, 1], [5, 6, 2], 3),
        ];
        for (i, (kernel_shape, strides, pads, dilations, [height, width, channels], units)) in
            cases.into_iter().enumerate()
        {
            let window = Window {
                kernel_shape,
                strides,
                pads,
                dilations,
            };
            let input = MapSize {
                height,
                width,
                channels,
            };
            let map = MapSize {
                channels: units,
                ..input.over(&window).unwrap()
            };
            let direct = Direct::new(&window, input, map);
            let patch = kernel_shape[0] * kernel_shape[1] * channels;
            let x = numbers(2 * input.elements(), 1);
            let (theta, bias) = (numbers(units * patch, 2), numbers(units, 3));
            let sigma2: Vec<f64> = numbers(units * patch, 4).iter().map(|s| s * s).collect();
            let weights = Weights {
                theta: &theta,
                bias: &bias,
                sigma2: &sigma2,
                units,
                patch,
                sparse: None,
            };
            let given = numbers(2 * map.elements(), 5);
            let pass = Pass {
                isa: Isa::best(),
                noise: Noise::Given(&given),
                samples: 2,
                skip_zeros: false,
            };
            let mut scratch = Scratch::default();
            let planes = &mut scratch.planes;
            let mut y = numbers(2 * map.elements(), 6);
            let mut saved = Saved {
                factor: vec![0.0; y.len()],
                ..Saved::default()
            };
            let outputs = [&mut y[..], &mut saved.factor];
            direct.forward(&pass, 0, &weights, &x, outputs, &mut scratch.noise, planes);
            let g = numbers(y.len(), 7);
            // Of every second case the gradient of the input is written, of the others added to.
            let is_first = i % 2 == 0;
            let mut gradients = [
                numbers(x.len(), 8),
                numbers(theta.len(), 9),
                numbers(theta.len(), 10),
                numbers(units, 11),
            ];
            let mut want = gradients.clone();
            if is_first {
                want[0].fill(0.0);
            }
            let [dx, by_theta, by_sigma2, by_bias] = &mut gradients;
            let mut out = Gradients {
                input: Some(dx),
                is_first,
                theta: by_theta,
                sigma2: by_sigma2,
                bias: by_bias,
            };
            direct.backward(&pass, &weights, &x, &g, &saved, 0..2, &mut out, planes);

            let mut want_y: Vec<f64> = bias.iter().copied().cycle().take(y.len()).collect();
            let mut variance = vec![0.0; y.len()];
            for image in 0..2 {
                let (o, n) = (image * map.elements(), image * input.elements());
                products(&window, input, map, |[to, f, from]| {
                    let (g, gv) = (g[o + to], g[o + to] * saved.factor[o + to]);
                    let x = x[n + from];
                    want_y[o + to] += theta[f] * x;
                    variance[o + to] += sigma2[f] * x * x;
                    want[0][n + from] += g * theta[f] + 2.0 * x * gv * sigma2[f];
                    want[1][f] += g * x;
                    want[2][f] += gv * x * x;
                });
            }
            for (j, g) in g.iter().enumerate() {
                want[3][j % units] += g;
            }
            for ((y, v), e) in want_y.iter_mut().zip(&variance).zip(&given) {
                *y += (v + VARIANCE_EPSILON).sqrt() * e;
            }
            let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(near(&y, &want_y), "case {i}: outputs");
            for (name, (got, want)) in ["input", "theta", "sigma2", "bias"]
                .iter()
                .zip(gradients.iter().zip(&want))
            {
                assert!(near(got, want), "case {i}: {name}");
            }
        }
    }
}
