//! Convolutions: two products that share patches, noise per output pixel, and backward passes over events.

use sparsevd_kernels::training::{
    Event, PoolMaps, Real, col2im_add, im2row, input_gradient, max_pool, relu, reparametrize,
    square, weight_gradient,
};
use sparsevd_model::Window;

use super::{Pass, Saved, Scratch, Weights, fill_rows, sized};
use crate::engine::MapSize;

/// Patches of a group of images are to stay in a core's L2 cache together with what is made of them.
const GROUP_BYTES: usize = 512 << 10;

pub(crate) struct Conv<'a, T> {
    pub weights: Weights<'a, T>,
    pub layer: usize,
    pub window: &'a Window,
    pub pool: Option<&'a Window>,
    pub relu: bool,
    pub input: MapSize,
    /// Size of the stage's output, after pooling.
    pub output: MapSize,
}

/// Buffers of the two products.
struct Products<'a, T> {
    rows: &'a [T],
    rows2: &'a mut Vec<T>,
    noise: &'a mut Vec<T>,
}

impl<T: Real> Conv<'_, T> {
    /// Size of the convolution's own output, before pooling.
    fn map(&self) -> MapSize {
        let [height, width] = self
            .window
            .output(self.input.height, self.input.width)
            .expect("checked when the graph was lowered");
        MapSize {
            height,
            width,
            channels: self.weights.units,
        }
    }

    /// Images per group.
    fn group(&self, samples: usize) -> usize {
        let map = self.map();
        let per_image = size_of::<T>()
            * map.height
            * map.width
            * (2 * self.weights.patch + 3 * self.weights.units);
        (GROUP_BYTES / per_image.max(1)).clamp(1, samples.max(1))
    }

    fn patches(&self, images: &[T], rows: &mut [T]) {
        let per_image = self.map().height * self.map().width * self.weights.patch;
        for (image, rows) in images
            .chunks_exact(self.input.elements())
            .zip(rows.chunks_exact_mut(per_image))
        {
            im2row(image, self.input.dims(), self.window, rows);
        }
    }

    /// `input` and `out` are `[samples][height][width][channels]`.
    pub fn forward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        out: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut Scratch<T>,
    ) {
        let w = &self.weights;
        let (map, group) = (self.map(), self.group(pass.samples));
        let area = map.height * map.width;
        let per_out = self.output.elements();
        let noisy = w.has_noise();
        let factor = sized(&mut saved.factor, if noisy { out.len() } else { 0 });
        let arg = sized(
            &mut saved.arg,
            if self.pool.is_some() { out.len() } else { 0 },
        );
        for first in (0..pass.samples).step_by(group) {
            let images = group.min(pass.samples - first);
            let positions = images * area;
            let rows = sized(&mut scratch.rows, positions * w.patch);
            self.patches(
                &input[first * self.input.elements()..][..images * self.input.elements()],
                rows,
            );
            let here = first * per_out..(first + images) * per_out;
            let scratch_rows = Products {
                rows,
                rows2: &mut scratch.rows2,
                noise: &mut scratch.noise,
            };
            let Some(pool) = self.pool else {
                let v = if noisy {
                    &mut factor[here.clone()]
                } else {
                    &mut [][..]
                };
                self.products(pass, first, scratch_rows, &mut out[here], v);
                continue;
            };
            let y = sized(&mut scratch.y, positions * w.units);
            let v = sized(&mut scratch.v, if noisy { positions * w.units } else { 0 });
            self.products(pass, first, scratch_rows, y, v);
            let images = y.chunks_exact(map.elements()).enumerate();
            for (i, y) in images {
                let pooled = (first + i) * per_out..(first + i + 1) * per_out;
                let maps = PoolMaps {
                    y: &mut out[pooled.clone()],
                    arg: &mut arg[pooled.clone()],
                    factor: if noisy { &mut factor[pooled] } else { &mut [] },
                };
                let v = if noisy {
                    &v[i * map.elements()..][..map.elements()]
                } else {
                    &[]
                };
                max_pool(pass.isa, y, v, map.dims(), pool, maps);
            }
        }
        if self.relu {
            relu(pass.isa, out);
        }
    }

    /// Means, noise and the gradient factors of the images from `first` on, before pooling.
    fn products(
        &self,
        pass: &Pass<'_>,
        first: usize,
        buffers: Products<'_, T>,
        y: &mut [T],
        v: &mut [T],
    ) {
        let w = &self.weights;
        let Products { rows, rows2, noise } = buffers;
        fill_rows(y, w.bias);
        let sizes = [y.len() / w.units, w.units, w.patch];
        T::gemm(
            y,
            w.units,
            (rows, w.patch, 1),
            (w.theta, 1, w.patch),
            sizes,
            true,
        );
        if w.has_noise() {
            let rows2 = sized(rows2, rows.len());
            square(pass.isa, rows, rows2);
            T::gemm(
                v,
                w.units,
                (rows2, w.patch, 1),
                (w.sigma2, 1, w.patch),
                sizes,
                false,
            );
            let noise = sized(noise, y.len());
            for (i, noise) in noise.chunks_exact_mut(self.map().elements()).enumerate() {
                pass.fill_noise(self.layer, first + i, noise);
            }
            reparametrize(pass.isa, y, v, noise);
        }
    }

    /// Adds to the gradients of the input (where wanted), of the weights and of the bias.
    #[allow(
        clippy::too_many_arguments,
        reason = "a backward pass reads and writes all of these"
    )]
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        y: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        mut input_gradient_out: Option<&mut [T]>,
        [by_theta, by_sigma2, by_bias]: [&mut [T]; 3],
        scratch: &mut Scratch<T>,
    ) {
        let w = &self.weights;
        let (map, group) = (self.map(), self.group(pass.samples));
        let area = map.height * map.width;
        let per_in = self.input.elements();
        for first in (0..pass.samples).step_by(group) {
            let images = group.min(pass.samples - first);
            let positions = images * area;
            self.collect_events(
                first..first + images,
                y,
                gradient,
                saved,
                by_bias,
                &mut scratch.events,
            );
            let rows = sized(&mut scratch.rows, positions * w.patch);
            self.patches(&input[first * per_in..][..images * per_in], rows);
            sort_events(&scratch.events, &mut scratch.sorted, w.units, |e| e.channel);
            weight_gradient(
                pass.isa,
                rows,
                w.patch,
                &scratch.sorted,
                by_theta,
                by_sigma2,
            );
            if let Some(dx) = input_gradient_out.as_deref_mut() {
                sort_events(&scratch.events, &mut scratch.sorted, positions, |e| {
                    e.position
                });
                let d = sized(&mut scratch.rows2, positions * w.patch);
                input_gradient(
                    pass.isa,
                    rows,
                    w.patch,
                    &scratch.sorted,
                    w.theta,
                    w.sigma2,
                    d,
                );
                for (d, dx) in d
                    .chunks_exact(area * w.patch)
                    .zip(dx[first * per_in..].chunks_exact_mut(per_in))
                {
                    col2im_add(d, self.input.dims(), self.window, dx);
                }
            }
        }
    }

    /// Lists where the gradient of the convolution's own output is not zero, and adds it to the bias gradient.
    fn collect_events(
        &self,
        images: std::ops::Range<usize>,
        y: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        by_bias: &mut [T],
        events: &mut Vec<Event<T>>,
    ) {
        let zero = T::default();
        let (units, per_out) = (self.weights.units, self.output.elements());
        let area = self.map().height * self.map().width;
        let (pooled, noisy) = (self.pool.is_some(), self.weights.has_noise());
        // Written without a branch per element: which ones carry gradient is random, and mispredictions would dominate.
        events.resize(images.len() * per_out + 1, Event::default());
        let mut n = 0;
        for (i, image) in images.enumerate() {
            let at = image * per_out..(image + 1) * per_out;
            let arg = if pooled { &saved.arg[at.clone()] } else { &[] };
            let factor = if noisy {
                &saved.factor[at.clone()]
            } else {
                &[]
            };
            let pixels = y[at.clone()]
                .chunks_exact(units)
                .zip(gradient[at].chunks_exact(units));
            for (pixel, (y, gradient)) in pixels.enumerate() {
                for (channel, ((&y, &g), bias)) in
                    y.iter().zip(gradient).zip(&mut *by_bias).enumerate()
                {
                    let element = pixel * units + channel;
                    let counts = (g != zero) & (!self.relu | (y > zero));
                    let position = if pooled { arg[element] as usize } else { pixel };
                    let variance = if noisy { g * factor[element] } else { zero };
                    *bias += if counts { g } else { zero };
                    events[n] = Event {
                        position: (i * area + position) as u32,
                        channel: channel as u32,
                        mean: g,
                        variance,
                    };
                    n += usize::from(counts);
                }
            }
        }
        events.truncate(n);
    }
}

/// Counting sort, stable, so that sums have a fixed order.
fn sort_events<T: Real>(
    events: &[Event<T>],
    sorted: &mut Vec<Event<T>>,
    buckets: usize,
    key: impl Fn(&Event<T>) -> u32,
) {
    let mut starts = vec![0u32; buckets + 1];
    for e in events {
        starts[key(e) as usize + 1] += 1;
    }
    for i in 0..buckets {
        starts[i + 1] += starts[i];
    }
    sorted.clear();
    sorted.resize(events.len(), Event::default());
    for e in events {
        let at = &mut starts[key(e) as usize];
        sorted[*at as usize] = *e;
        *at += 1;
    }
}
