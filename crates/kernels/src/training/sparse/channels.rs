//! Batch normalisation of maps that lie as vectors of samples: the loops of [`crate::training::channel_sums`] and its siblings over
//! planes.
//!
//! In a block of fewer samples than lanes the lanes without a sample count for nothing: sums leave them out, and what is written there is
//! zero. Only [`add_lane_totals`] adds up all, since in gradients they are zero.

use super::taps::{Plane, check, last_row};
use crate::LANES;
use crate::isa::multiversion;
use crate::training::Real;
use crate::training::elementwise::relu_gradient_body;

/// Checks that a plane has `channels`, whose rows of vectors are contiguous.
#[track_caller]
fn check_rows<T>(what: &str, channels: usize, plane: &Plane<&[T]>) {
    assert_eq!(plane.grid.steps[1], 1, "{what}: rows of vectors");
    check(
        what,
        plane.array.len(),
        last_row(channels, plane.plane),
        plane.grid,
    );
}

/// A plane that is written, as one that is read.
fn shared<'a, T>(plane: &'a Plane<&mut [T]>) -> Plane<&'a [T]> {
    Plane {
        array: &*plane.array,
        grid: plane.grid,
        plane: plane.plane,
    }
}

/// Where row `y` of a channel lies.
#[inline(always)]
fn row<A>(plane: &Plane<A>, c: usize, y: usize) -> std::ops::Range<usize> {
    let first = (c * plane.plane + y * plane.grid.steps[0]) * LANES;
    first..first + plane.grid.size[1] * LANES
}

/// Vectors of numbers. Not by `chunks_exact`: of that rustc 1.95 compiles [`Sums::add_row`] for AVX-512 to code that uses registers before they
/// are loaded, and the test here fails.
#[inline(always)]
fn vectors<T>(numbers: &[T]) -> &[[T; LANES]] {
    numbers.as_chunks().0
}

/// As [`vectors`], to be written.
#[inline(always)]
fn vectors_mut<T>(numbers: &mut [T]) -> &mut [[T; LANES]] {
    numbers.as_chunks_mut().0
}

/// Zeroes the lanes without a sample.
#[inline(always)]
fn clear_dead<T: Real>(lanes: usize, row: &mut [T]) {
    if lanes < LANES {
        for vector in vectors_mut(row) {
            vector[lanes..].fill(T::default());
        }
    }
}

/// Sums of one channel, by lanes.
struct Sums {
    values: [f64; LANES],
    products: [f64; LANES],
}

impl Sums {
    const ZERO: Self = Self {
        values: [0.0; LANES],
        products: [0.0; LANES],
    };

    #[inline(always)]
    fn add_row<T: Real>(&mut self, a: &[T], b: &[T]) {
        let Self { values, products } = self;
        for (a, b) in vectors(a).iter().zip(vectors(b)) {
            for lane in 0..LANES {
                let a = a[lane].to_f64();
                values[lane] += a;
                products[lane] += a * b[lane].to_f64();
            }
        }
    }

    /// Adds those of lanes with a sample.
    #[inline(always)]
    fn total(&self, lanes: usize, value: &mut f64, product: &mut f64) {
        for lane in 0..lanes.min(LANES) {
            *value += self.values[lane];
            *product += self.products[lane];
        }
    }
}

multiversion! {
    /// Adds to `sums[c]` the sum of `a` over the positions and the first `lanes` samples of channel `c`, and to `products[c]` that of
    /// `a b`, in f64.
    ///
    /// # Panics
    /// When a row lies outside its array, rows are not contiguous, or lengths disagree.
    pub fn lane_sums[T: Real](lanes: usize, a: Plane<&[T]>, b: Plane<&[T]>, sums: &mut [f64], products: &mut [f64]) = lane_sums_body::<T>;
}

#[inline(always)]
fn lane_sums_body<T: Real>(
    lanes: usize,
    a: Plane<&[T]>,
    b: Plane<&[T]>,
    sums: &mut [f64],
    products: &mut [f64],
) {
    assert_eq!(sums.len(), products.len(), "one number per channel");
    assert_eq!(a.grid.size, b.grid.size, "positions");
    check_rows("first", sums.len(), &a);
    check_rows("second", sums.len(), &b);
    for (c, (sum, product)) in sums.iter_mut().zip(products).enumerate() {
        let mut here = Sums::ZERO;
        for y in 0..a.grid.size[0] {
            here.add_row(&a.array[row(&a, c, y)], &b.array[row(&b, c, y)]);
        }
        here.total(lanes, sum, product);
    }
}

multiversion! {
    /// Zeroes the gradient `g` where the output `y` of a ReLU is not positive, then sums as [`lane_sums`] of `g` and `x`.
    ///
    /// # Panics
    /// When a row lies outside its array, rows are not contiguous, or lengths disagree.
    pub fn relu_lane_gradient_sums[T: Real](lanes: usize, y: Plane<&[T]>, g: Plane<&mut [T]>, x: Plane<&[T]>, sums: &mut [f64], products: &mut [f64]) = relu_lane_gradient_sums_body::<T>;
}

#[inline(always)]
fn relu_lane_gradient_sums_body<T: Real>(
    lanes: usize,
    y: Plane<&[T]>,
    g: Plane<&mut [T]>,
    x: Plane<&[T]>,
    sums: &mut [f64],
    products: &mut [f64],
) {
    assert_eq!(sums.len(), products.len(), "one number per channel");
    assert!(
        g.grid.size == x.grid.size && g.grid.size == y.grid.size,
        "positions"
    );
    check_rows("output", sums.len(), &y);
    check_rows("gradient", sums.len(), &shared(&g));
    check_rows("input", sums.len(), &x);
    for (c, (sum, product)) in sums.iter_mut().zip(products).enumerate() {
        let mut here = Sums::ZERO;
        for line in 0..g.grid.size[0] {
            let at = row(&g, c, line);
            let g = &mut g.array[at];
            relu_gradient_body(&y.array[row(&y, c, line)], g);
            here.add_row(g, &x.array[row(&x, c, line)]);
        }
        here.total(lanes, sum, product);
    }
}

multiversion! {
    /// `y = x factor + summand`, with one factor and summand per channel, and a ReLU where `relu` says so.
    ///
    /// # Panics
    /// When a row lies outside its array, rows are not contiguous, or lengths disagree.
    pub fn scale_lanes[T: Real](lanes: usize, x: Plane<&[T]>, factor: &[T], summand: &[T], relu: bool, y: Plane<&mut [T]>) = scale_lanes_body::<T>;
}

#[inline(always)]
fn scale_lanes_body<T: Real>(
    lanes: usize,
    x: Plane<&[T]>,
    factor: &[T],
    summand: &[T],
    relu: bool,
    y: Plane<&mut [T]>,
) {
    assert_eq!(factor.len(), summand.len(), "one number per channel");
    assert_eq!(x.grid.size, y.grid.size, "positions");
    check_rows("input", factor.len(), &x);
    check_rows("output", factor.len(), &shared(&y));
    for (c, (&factor, &summand)) in factor.iter().zip(summand).enumerate() {
        for line in 0..x.grid.size[0] {
            let from = &x.array[row(&x, c, line)];
            let at = row(&y, c, line);
            let to = &mut y.array[at];
            let pairs = from.iter().zip(to.iter_mut());
            match relu {
                true => pairs.for_each(|(&x, y)| *y = (x * factor + summand).larger(T::default())),
                false => pairs.for_each(|(&x, y)| *y = x * factor + summand),
            }
            clear_dead(lanes, to);
        }
    }
}

multiversion! {
    /// `g = g by_g + x by_x + constant`, with one of each per channel, as [`crate::training::channel_gradient`].
    ///
    /// # Panics
    /// When a row lies outside its array, rows are not contiguous, or lengths disagree.
    pub fn lane_gradient[T: Real](lanes: usize, g: Plane<&mut [T]>, x: Plane<&[T]>, by_g: &[T], by_x: &[T], constant: &[T]) = lane_gradient_body::<T>;
}

#[inline(always)]
fn lane_gradient_body<T: Real>(
    lanes: usize,
    g: Plane<&mut [T]>,
    x: Plane<&[T]>,
    by_g: &[T],
    by_x: &[T],
    constant: &[T],
) {
    let channels = by_g.len();
    assert!(
        by_x.len() == channels && constant.len() == channels,
        "one number per channel"
    );
    assert_eq!(g.grid.size, x.grid.size, "positions");
    check_rows("gradient", channels, &shared(&g));
    check_rows("input", channels, &x);
    for c in 0..channels {
        let (by_g, by_x, constant) = (by_g[c], by_x[c], constant[c]);
        for line in 0..g.grid.size[0] {
            let at = row(&g, c, line);
            let here = &mut g.array[at];
            for (g, &x) in here.iter_mut().zip(&x.array[row(&x, c, line)]) {
                *g = *g * by_g + x * by_x + constant;
            }
            clear_dead(lanes, here);
        }
    }
}

multiversion! {
    /// Adds to `sums[c]` the sum of channel `c` over its positions and lanes: the gradient of a bias.
    ///
    /// # Panics
    /// When a row lies outside its array, or rows are not contiguous.
    pub fn add_lane_totals[T: Real](g: Plane<&[T]>, sums: &mut [T]) = add_lane_totals_body::<T>;
}

#[inline(always)]
fn add_lane_totals_body<T: Real>(g: Plane<&[T]>, sums: &mut [T]) {
    check_rows("gradient", sums.len(), &g);
    for (c, sum) in sums.iter_mut().enumerate() {
        let mut by_lane = [T::default(); LANES];
        for y in 0..g.grid.size[0] {
            for g in vectors(&g.array[row(&g, c, y)]) {
                for lane in 0..LANES {
                    by_lane[lane] += g[lane];
                }
            }
        }
        for of_lane in by_lane {
            *sum += of_lane;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::training::{
        Grid, LaneLayout, channel_gradient, channel_sums, from_lanes, relu_gradient_sums,
        scale_channels, to_lanes,
    };

    /// Maps `[lane][position][channel]` as vectors with a border of ones, which nothing may read or write.
    struct Maps {
        vectors: Vec<f32>,
        samples: LaneLayout,
    }

    const SIZE: [usize; 2] = [2, 5];
    const PITCH: usize = 7;
    const PLANE: usize = 31;
    const FIRST: usize = (PITCH + 1) * LANES;
    const GRID: Grid = Grid {
        size: SIZE,
        steps: [PITCH, 1],
    };

    impl Maps {
        fn new(maps: &[f32], lanes: usize, channels: usize) -> Self {
            let samples = LaneLayout {
                lanes,
                lane_step: SIZE[0] * SIZE[1] * channels,
                steps: [SIZE[1] * channels, channels],
                channels,
            };
            let mut new = Self {
                vectors: vec![1.0; channels * PLANE * LANES],
                samples,
            };
            to_lanes(Isa::SCALAR, maps, samples, new.write());
            new
        }
        fn read(&self) -> Plane<&[f32]> {
            Plane {
                array: &self.vectors[FIRST..],
                grid: GRID,
                plane: PLANE,
            }
        }
        fn write(&mut self) -> Plane<&mut [f32]> {
            Plane {
                array: &mut self.vectors[FIRST..],
                grid: GRID,
                plane: PLANE,
            }
        }
        /// Where the vectors inside the border begin.
        fn places(&self) -> impl Iterator<Item = usize> + use<> {
            let rows = (0..self.samples.channels)
                .flat_map(|c| (0..SIZE[0]).map(move |y| c * PLANE + y * PITCH));
            rows.flat_map(|row| (0..SIZE[1]).map(move |x| FIRST + (row + x) * LANES))
        }
        /// Sets the lanes without a sample.
        fn fill_dead(&mut self, number: f32) {
            for at in self.places() {
                self.vectors[at + self.samples.lanes..at + LANES].fill(number);
            }
        }
        /// The maps, after a check that the border is as it was and lanes without a sample are zero.
        fn back(&self) -> Vec<f32> {
            let (samples, mut inside) = (self.samples, vec![false; self.vectors.len()]);
            for at in self.places() {
                inside[at..at + LANES].fill(true);
                let dead = &self.vectors[at + samples.lanes..at + LANES];
                assert!(dead.iter().all(|v| *v == 0.0), "{dead:?}");
            }
            let border = self.vectors.iter().zip(inside).filter(|(_, i)| !i);
            assert!(border.into_iter().all(|(v, _)| *v == 1.0));
            let mut maps = vec![0.0; samples.lanes * samples.lane_step];
            from_lanes(Isa::SCALAR, self.read(), samples, &mut maps, false);
            maps
        }
    }

    #[test]
    fn planes_give_what_rows_of_channels_do() {
        for (lanes, channels) in [(16, 3), (5, 1), (15, 17)] {
            let count = lanes * SIZE[0] * SIZE[1] * channels;
            let values = |seed: usize, n: usize| -> Vec<f32> {
                let value = |i| ((i * 37 + seed * 11) % 23) as f32 - 11.0;
                (0..n).map(value).collect()
            };
            let [a, b, y] = [1, 2, 3].map(|seed| values(seed, count));
            let per = [3, 4, 5].map(|seed| values(seed, channels));
            let maps = |values: &[f32]| Maps::new(values, lanes, channels);
            // Values may be anything in lanes without a sample.
            let value = |values: &[f32]| {
                let mut maps = maps(values);
                maps.fill_dead(3.0);
                maps
            };
            for (isa, flag) in
                (Isa::available().into_iter()).flat_map(|isa| [(isa, false), (isa, true)])
            {
                let start = || [vec![1.0; channels], vec![2.0; channels]];
                let ([mut sums, mut products], [mut want, mut want_products]) = (start(), start());
                let (mut g, mut g_rows) = (maps(&a), a.clone());
                if flag {
                    let (g, of_relu, x) = (g.write(), maps(&y), value(&b));
                    relu_lane_gradient_sums(
                        isa,
                        lanes,
                        of_relu.read(),
                        g,
                        x.read(),
                        &mut sums,
                        &mut products,
                    );
                    relu_gradient_sums(isa, &y, &mut g_rows, &b, &mut want, &mut want_products);
                } else {
                    let (first, x) = (value(&a), value(&b));
                    lane_sums(isa, lanes, first.read(), x.read(), &mut sums, &mut products);
                    channel_sums(isa, &a, &b, &mut want, &mut want_products);
                }
                assert_eq!((&sums, &products), (&want, &want_products), "{isa}");
                assert_eq!(g.back(), g_rows, "{isa}");

                let (mut scaled, mut rows) = (maps(&y), y.clone());
                let x = value(&a);
                scale_lanes(isa, lanes, x.read(), &per[0], &per[1], flag, scaled.write());
                scale_channels(isa, &a, &per[0], &per[1], flag, &mut rows);
                assert_eq!(scaled.back(), rows, "{isa}");

                let (mut dx, mut rows) = (maps(&a), a.clone());
                let (g, x, [by_g, by_x, constant]) = (maps(&a), value(&b), &per);
                lane_gradient(isa, lanes, dx.write(), x.read(), by_g, by_x, constant);
                channel_gradient(isa, &mut rows, &b, by_g, by_x, constant);
                assert_eq!(dx.back(), rows, "{isa}");

                let mut totals = vec![1.0; channels];
                add_lane_totals(isa, g.read(), &mut totals);
                for (c, total) in totals.iter().enumerate() {
                    let want: f32 = a.iter().skip(c).step_by(channels).sum();
                    assert_eq!(*total, 1.0 + want, "{isa}");
                }
            }
        }
    }
}
