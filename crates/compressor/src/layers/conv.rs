//! Convolutions: over planes ([`super::direct`]); before a max-pooling two products that share patches, and a backward pass over
//! events. Noise is that of output pixels.

use std::ops::Range;

use sparsevd_kernels::LANES;
use sparsevd_kernels::training::{
    Event, PoolMaps, Real, col2im_add, im2row, input_gradient, max_pool, reparametrize, square,
    weight_gradient,
};
use sparsevd_model::Window;

use super::direct::Direct;
use super::lane_map::Layout;
use super::size::MapSize;
use super::sparse::{Sparse, SparseConv, Vectors};
use super::{Gradients, Pass, Saved, Scratch, Weights, fill_rows, sized};

/// Patches of a group of images should stay in a core's L2 cache together with their products.
const GROUP_BYTES: usize = 512 << 10;
/// A multiply-add of an event takes as long as about this many of a product.
const EVENT_COST: f64 = 8.0;

pub(crate) struct Conv<'a, T> {
    pub weights: Weights<'a, T>,
    pub layer: usize,
    pub window: &'a Window,
    pub pool: Option<&'a Window>,
    pub input: MapSize,
    /// Size of the stage's output, after pooling.
    pub output: MapSize,
    /// How input and output lie; vectors only where this is a convolution with the weights that are left, and not pooled.
    pub layouts: [Layout; 2],
}

/// Buffers of the two products.
struct Products<'a, T> {
    rows: &'a mut Vec<T>,
    rows2: &'a mut Vec<T>,
    noise: &'a mut Vec<T>,
    vectors: &'a mut Vectors<T>,
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

    /// Whether the convolution runs over planes, without patches: where maps are not pooled at once.
    fn is_direct(&self) -> bool {
        self.pool.is_none() && self.weights.sparse.is_none()
    }

    fn sparse(&self) -> Option<&SparseConv> {
        self.weights.sparse.and_then(Sparse::conv)
    }

    fn direct(&self) -> Direct {
        Direct::new(self.window, self.input, self.map())
    }

    /// Images per group.
    fn group(&self, samples: usize) -> usize {
        match self.weights.sparse {
            Some(_) => LANES.min(samples.max(1)),
            // Filters are laid out once for all.
            None if self.is_direct() => samples.max(1),
            None => self.images_of_patches(samples),
        }
    }

    /// Images whose patches are made together.
    fn images_of_patches(&self, samples: usize) -> usize {
        let map = self.map();
        let per_image = size_of::<T>()
            * map.height
            * map.width
            * (2 * self.weights.patch + 3 * self.weights.units);
        (GROUP_BYTES / per_image.max(1)).clamp(1, samples.max(1))
    }

    fn patches(&self, images: &[T], rows: &mut [T]) {
        let per_image = self.map().area() * self.weights.patch;
        for (image, rows) in images
            .chunks_exact(self.input.elements())
            .zip(rows.chunks_exact_mut(per_image))
        {
            let all = 0..self.map().area();
            im2row(image, self.input.dims(), self.window, all, rows);
        }
    }

    /// Calls `visit` with each image that has some of the ascending `positions`, which are counted through the images, with
    /// their range, and with the positions in the image.
    fn by_image(
        &self,
        positions: &[u32],
        mut visit: impl FnMut(usize, Range<usize>, &mut dyn ExactSizeIterator<Item = usize>),
    ) {
        let area = self.map().area();
        let mut first = 0;
        for same in positions.chunk_by(|a, b| *a as usize / area == *b as usize / area) {
            let image = same[0] as usize / area;
            let rows = first..first + same.len();
            first = rows.end;
            let mut inside = same.iter().map(|p| *p as usize - image * area);
            visit(image, rows, &mut inside);
        }
    }

    /// `input` and `out` lie as [`Self::layouts`] says.
    pub fn forward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        out: &mut [T],
        saved: &mut Saved<T>,
        scratch: &mut Scratch<T>,
    ) {
        let w = &self.weights;
        if self.is_direct() {
            let factor = sized(&mut saved.factor, if w.has_noise() { out.len() } else { 0 });
            let (noise, planes) = (&mut scratch.noise, &mut scratch.planes);
            let outputs = [out, factor];
            (self.direct()).forward(pass, self.layer, w, input, outputs, noise, planes);
            return;
        }
        if let Some(sparse) = self.sparse().filter(|_| self.pool.is_none()) {
            let ([x, y], vectors) = (self.layouts, &mut scratch.vectors);
            let parameters = [w.theta, w.bias];
            sparse.forward(
                pass.isa,
                pass.samples,
                parameters,
                (x, input),
                (y, out),
                vectors,
            );
            return;
        }
        let pool = self.pool.expect("the others are done");
        let (map, group) = (self.map(), self.group(pass.samples));
        let area = map.area();
        let per_out = self.output.elements();
        let noisy = w.has_noise();
        let factor = sized(&mut saved.factor, if noisy { out.len() } else { 0 });
        let arg = sized(&mut saved.arg, out.len());
        for first in (0..pass.samples).step_by(group) {
            let images = group.min(pass.samples - first);
            let positions = images * area;
            let buffers = Products {
                rows: &mut scratch.rows,
                rows2: &mut scratch.rows2,
                noise: &mut scratch.noise,
                vectors: &mut scratch.vectors,
            };
            let x = &input[first * self.input.elements()..][..images * self.input.elements()];
            let y = sized(&mut scratch.y, positions * w.units);
            let v = sized(&mut scratch.v, if noisy { positions * w.units } else { 0 });
            self.products(pass, first, x, buffers, y, v);
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
    }

    /// Means, noise and the gradient factors of the images from `first` on, before pooling.
    fn products(
        &self,
        pass: &Pass<'_>,
        first: usize,
        input: &[T],
        buffers: Products<'_, T>,
        y: &mut [T],
        v: &mut [T],
    ) {
        let w = &self.weights;
        let Products {
            rows,
            rows2,
            noise,
            vectors,
        } = buffers;
        if let Some(sparse) = self.sparse() {
            let samples = y.len() / self.map().elements();
            let (x, y) = ((Layout::Samples, input), (Layout::Samples, y));
            sparse.forward(pass.isa, samples, [w.theta, w.bias], x, y, vectors);
            return;
        }
        let rows = sized(rows, y.len() / w.units * w.patch);
        self.patches(input, rows);
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

    /// Adds to the gradients; `gradient` is by the stage's output.
    ///
    /// Where few pre-activations carry gradient, as behind max-pooling, only those are visited; else products do the work. Vectors of samples
    /// are not searched for zeros.
    pub fn backward(
        &self,
        pass: &Pass<'_>,
        input: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        mut out: Gradients<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let per_out = self.output.elements();
        let sparse = self.sparse();
        if let Some(sparse) = sparse.filter(|_| self.layouts != [Layout::Samples; 2]) {
            let ([x, g], vectors) = (self.layouts, &mut scratch.vectors);
            let by = [out.theta, out.bias];
            sparse.backward(
                pass.isa,
                pass.samples,
                self.weights.theta,
                (x, input),
                (g, gradient),
                by,
                out.input,
                !out.is_first,
                vectors,
            );
            return;
        }
        let group = self.group(pass.samples);
        for first in (0..pass.samples).step_by(group) {
            let images = first..pass.samples.min(first + group);
            let g = &gradient[images.start * per_out..images.end * per_out];
            let by_events = match sparse {
                None => self.pool.is_some() || pass.skip_zeros && is_mostly_zero(g, 1.0),
                Some(sparse) => is_mostly_zero(g, sparse.density()),
            };
            if by_events {
                let per_in = self.input.elements();
                out.begin_input(images.start * per_in..images.end * per_in);
            }
            if by_events {
                // Patches of the images' positions are whole arrays, as products have them.
                let few = self.images_of_patches(images.len());
                for first in images.clone().step_by(few) {
                    let images = first..images.end.min(first + few);
                    self.backward_by_events(
                        pass, images, input, gradient, saved, &mut out, scratch,
                    );
                }
                continue;
            }
            match sparse {
                Some(sparse) => self.backward_of_sparse(
                    pass, sparse, images, input, gradient, saved, &mut out, scratch,
                ),
                // Not behind a pooling.
                None => {
                    let (w, planes) = (&self.weights, &mut scratch.planes);
                    (self.direct())
                        .backward(pass, w, input, gradient, saved, images, &mut out, planes);
                }
            }
        }
    }

    /// With the weights that are left alone; of a map that is pooled, with the zeros of its gradient.
    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    fn backward_of_sparse(
        &self,
        pass: &Pass<'_>,
        sparse: &SparseConv,
        images: Range<usize>,
        input: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        out: &mut Gradients<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let (per_in, per_out) = (self.input.elements(), self.output.elements());
        let here = images.start * per_out..images.end * per_out;
        let x = images.start * per_in..images.end * per_in;
        let mut g = &gradient[here.clone()];
        if self.pool.is_some() {
            let (units, per_map) = (self.weights.units, self.map().elements());
            let whole = sized(&mut scratch.y, images.len() * per_map);
            whole.fill(T::default());
            let pooled = g
                .chunks_exact(per_out)
                .zip(saved.arg[here].chunks_exact(per_out));
            for ((g, arg), map) in pooled.zip(whole.chunks_exact_mut(per_map)) {
                for (g, arg) in g.chunks_exact(units).zip(arg.chunks_exact(units)) {
                    for (unit, (&g, &position)) in g.iter().zip(arg).enumerate() {
                        map[position as usize * units + unit] += g;
                    }
                }
            }
            g = whole;
        }
        let dx = out.input.as_deref_mut().map(|dx| &mut dx[x.clone()]);
        let (theta, vectors) = (self.weights.theta, &mut scratch.vectors);
        let by = [&mut *out.theta, &mut *out.bias];
        let (x, g) = ((Layout::Samples, &input[x]), (Layout::Samples, g));
        sparse.backward(
            pass.isa,
            images.len(),
            theta,
            x,
            g,
            by,
            dx,
            !out.is_first,
            vectors,
        );
    }

    #[allow(clippy::too_many_arguments, reason = "a pass and its buffers")]
    fn backward_by_events(
        &self,
        pass: &Pass<'_>,
        images: Range<usize>,
        input: &[T],
        gradient: &[T],
        saved: &Saved<T>,
        out: &mut Gradients<'_, T>,
        scratch: &mut Scratch<T>,
    ) {
        let w = &self.weights;
        let per_in = self.input.elements();
        let x = images.start * per_in..images.end * per_in;
        let Scratch {
            events,
            sorted,
            places,
            positions,
            rows,
            rows2,
            ..
        } = scratch;
        let all = images.len() * self.map().area();
        self.collect_events(images, gradient, saved, out.bias, events);
        keep_positions(events, all, places, positions);
        let rows = sized(rows, positions.len() * w.patch);
        self.by_image(positions, |image, these, inside| {
            let map = &input[x.start + image * per_in..][..per_in];
            let rows = &mut rows[these.start * w.patch..these.end * w.patch];
            im2row(map, self.input.dims(), self.window, inside, rows);
        });
        sort_events(events, sorted, w.units, |e| e.channel);
        weight_gradient(pass.isa, rows, w.patch, sorted, out.theta, out.sigma2);
        let Some(dx) = out.input.as_deref_mut() else {
            return;
        };
        sort_events(events, sorted, positions.len(), |e| e.position);
        let d = sized(rows2, rows.len());
        input_gradient(pass.isa, rows, w.patch, sorted, w.theta, w.sigma2, d);
        self.by_image(positions, |image, these, inside| {
            let map = &mut dx[x.start + image * per_in..][..per_in];
            let rows = &d[these.start * w.patch..these.end * w.patch];
            col2im_add(rows, self.input.dims(), self.window, inside, map);
        });
    }

    /// Lists where the gradient of the convolution's own output is not zero, and adds it to the bias gradient.
    fn collect_events(
        &self,
        images: Range<usize>,
        gradient: &[T],
        saved: &Saved<T>,
        by_bias: &mut [T],
        events: &mut Vec<Event<T>>,
    ) {
        let zero = T::default();
        let (units, per_out) = (self.weights.units, self.output.elements());
        let area = self.map().area();
        let noisy = self.weights.has_noise();
        let pooled = self.pool.is_some();
        // Written without a branch per element: which ones carry gradient is random, and mispredictions would dominate.
        events.resize(images.len() * per_out + 1, Event::default());
        let mut n = 0;
        for (i, image) in images.enumerate() {
            let at = image * per_out..(image + 1) * per_out;
            let arg = saved.arg.get(at.clone()).unwrap_or(&[]);
            let factor = if noisy {
                &saved.factor[at.clone()]
            } else {
                &[]
            };
            for (pixel, gradient) in gradient[at].chunks_exact(units).enumerate() {
                for (channel, (&g, bias)) in gradient.iter().zip(&mut *by_bias).enumerate() {
                    let element = pixel * units + channel;
                    let variance = if noisy { g * factor[element] } else { zero };
                    let inside = if pooled { arg[element] } else { pixel as u32 };
                    *bias += g;
                    events[n] = Event {
                        position: (i * area) as u32 + inside,
                        channel: channel as u32,
                        mean: g,
                        variance,
                    };
                    n += usize::from(g != zero);
                }
            }
        }
        events.truncate(n);
    }
}

/// Whether so few gradients are not zero that visiting those alone, each with all weights, is cheaper than a product of all with the
/// weights that are left, of which `density` is the share.
fn is_mostly_zero<T: Real>(gradient: &[T], density: f64) -> bool {
    let most = gradient.len() as f64 * density / EVENT_COST;
    let mut found = 0_u32;
    for part in gradient.chunks(256) {
        let here = part.iter().map(|g| u32::from(*g != T::default()));
        found += here.sum::<u32>();
        if f64::from(found) > most {
            return false;
        }
    }
    true
}

/// Counts the events' positions anew, without those that no event has; `positions` become the old ones, ascending.
fn keep_positions<T>(
    events: &mut [Event<T>],
    all: usize,
    places: &mut Vec<u32>,
    positions: &mut Vec<u32>,
) {
    let places = sized(places, all);
    places.fill(0);
    for e in &*events {
        places[e.position as usize] = 1;
    }
    positions.clear();
    for (old, place) in places.iter_mut().enumerate() {
        if *place == 1 {
            *place = positions.len() as u32;
            positions.push(old as u32);
        }
    }
    for e in events {
        e.position = places[e.position as usize];
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
