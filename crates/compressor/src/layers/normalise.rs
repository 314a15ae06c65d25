//! Batch normalisation as a factor and a summand per channel, and the gradient through its statistics.
//!
//! With `x^ = (x - mean) / deviation` and `y = scale x^ + bias` over `n` numbers per channel,
//! `dx = scale / deviation (g - sum g / n - x^ sum(g x^) / n)` (Ioffe and Szegedy 2015).

use sparsevd_kernels::training::{
    Real, channel_gradient, channel_sums, lane_gradient, lane_sums, relu_gradient_sums,
    relu_lane_gradient_sums, scale_channels, scale_lanes,
};

use super::Pass;
use super::lane_map::{LaneMap, Layout, blocks};
use crate::normalisation::Normalisation;

/// Sums over a batch per channel, of a value and of its product with another.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    pub values: Vec<f64>,
    pub products: Vec<f64>,
}

impl Sums {
    pub fn clear(&mut self, channels: usize) {
        for sums in [&mut self.values, &mut self.products] {
            sums.clear();
            sums.resize(channels, 0.0);
        }
    }

    /// Adds those of a value of some samples and of its squares; the value is vectors where there is a map.
    pub fn add_squares<T: Real>(&mut self, pass: &Pass<'_>, map: Option<&LaneMap>, x: &[T]) {
        let Self { values, products } = self;
        let Some(map) = map else {
            channel_sums(pass.isa, x, x, values, products);
            return;
        };
        for block in blocks(pass.samples) {
            let x = &x[map.place_of(Layout::Lanes, &block)];
            let [a, b] = [x; 2].map(|x| map.inside(x));
            lane_sums(pass.isa, block.len(), a, b, values, products);
        }
    }

    /// Adds those of a gradient `g` and of its products with `x`; before, `g` is masked by the output `y` of a ReLU.
    pub fn add_gradients<T: Real>(
        &mut self,
        pass: &Pass<'_>,
        map: Option<&LaneMap>,
        y: Option<&[T]>,
        g: &mut [T],
        x: &[T],
    ) {
        let (isa, Self { values, products }) = (pass.isa, self);
        let Some(map) = map else {
            match y {
                Some(y) => relu_gradient_sums(isa, y, g, x, values, products),
                None => channel_sums(isa, g, x, values, products),
            }
            return;
        };
        for block in blocks(pass.samples) {
            let (at, lanes) = (map.place_of(Layout::Lanes, &block), block.len());
            let (g, x) = (&mut g[at.clone()], map.inside(&x[at.clone()]));
            match y {
                Some(y) => {
                    let (y, g) = (map.inside(&y[at]), map.inside_mut(g));
                    relu_lane_gradient_sums(isa, lanes, y, g, x, values, products);
                }
                None => lane_sums(isa, lanes, map.inside(g), x, values, products),
            }
        }
    }

    pub fn add(&mut self, part: &Self) {
        let pairs = [
            (&mut self.values, &part.values),
            (&mut self.products, &part.products),
        ];
        for (sums, part) in pairs {
            sums.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
    }
}

/// What one normalisation does in one pass: its statistics, the affine map that they make of it, and the numbers by which
/// its gradient is one too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Affine<T> {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    pub factor: Vec<T>,
    pub summand: Vec<T>,
    /// Of the gradient by x: factors of g and of x, and a summand.
    pub by_g: Vec<T>,
    pub by_x: Vec<T>,
    pub constant: Vec<T>,
}

impl<T: Real> Affine<T> {
    /// By the running statistics.
    pub fn running(state: &Normalisation<T>) -> Self {
        let numbers = |v: &[T]| v.iter().map(|v| v.to_f64()).collect();
        Self::by(state, numbers(&state.mean), numbers(&state.variance))
    }

    /// `scale x + bias` with constants, and its gradient.
    pub fn constant(state: &Normalisation<T>) -> Self {
        let zeros = vec![T::default(); state.channels()];
        let affine = Self::running(state);
        Self {
            by_g: affine.factor.clone(),
            by_x: zeros.clone(),
            constant: zeros,
            ..affine
        }
    }

    /// By the statistics of a batch of `count` numbers per channel; products are squares.
    pub fn of_batch(state: &Normalisation<T>, sums: &Sums, count: usize) -> Self {
        let n = count as f64;
        let mean: Vec<f64> = sums.values.iter().map(|s| s / n).collect();
        let variance = sums.products.iter().zip(&mean);
        let variance = variance.map(|(s, m)| (s / n - m * m).max(0.0)).collect();
        Self::by(state, mean, variance)
    }

    fn by(state: &Normalisation<T>, mean: Vec<f64>, variance: Vec<f64>) -> Self {
        let channels = mean
            .iter()
            .zip(&variance)
            .zip(&state.scale)
            .zip(&state.bias);
        let (factor, summand) = channels
            .map(|(((mean, variance), scale), bias)| {
                let factor = scale.to_f64() / (variance + state.epsilon).sqrt();
                (T::of(factor), T::of(bias.to_f64() - mean * factor))
            })
            .unzip();
        Self {
            mean,
            variance,
            factor,
            summand,
            by_g: vec![],
            by_x: vec![],
            constant: vec![],
        }
    }

    /// `y = factor x + summand` and a fused ReLU; values are vectors where there is a map.
    pub fn scale(&self, pass: &Pass<'_>, map: Option<&LaneMap>, x: &[T], relu: bool, y: &mut [T]) {
        let (factor, summand) = (&self.factor, &self.summand);
        let Some(map) = map else {
            scale_channels(pass.isa, x, factor, summand, relu, y);
            return;
        };
        for block in blocks(pass.samples) {
            let at = map.place_of(Layout::Lanes, &block);
            let (x, y) = (map.inside(&x[at.clone()]), map.inside_mut(&mut y[at]));
            scale_lanes(pass.isa, block.len(), x, factor, summand, relu, y);
        }
    }

    /// Makes the gradient by y that by x, as it was [prepared](Self::differentiate).
    pub fn backward(&self, pass: &Pass<'_>, map: Option<&LaneMap>, g: &mut [T], x: &[T]) {
        let [by_g, by_x, constant] = [&self.by_g, &self.by_x, &self.constant];
        let Some(map) = map else {
            channel_gradient(pass.isa, g, x, by_g, by_x, constant);
            return;
        };
        for block in blocks(pass.samples) {
            let at = map.place_of(Layout::Lanes, &block);
            let (g, x) = (map.inside_mut(&mut g[at.clone()]), map.inside(&x[at]));
            lane_gradient(pass.isa, block.len(), g, x, by_g, by_x, constant);
        }
    }

    /// Prepares the gradient by x from the sums of g and of g x, and leaves the gradients by scale and bias.
    pub fn differentiate(
        &mut self,
        state: &Normalisation<T>,
        sums: &Sums,
        count: usize,
        [by_scale, by_bias]: &mut [Vec<T>; 2],
    ) {
        let n = count as f64;
        let channels = state.channels();
        for v in [&mut self.by_g, &mut self.by_x, &mut self.constant] {
            v.resize(channels, T::default());
        }
        for c in 0..channels {
            let deviation = (self.variance[c] + state.epsilon).sqrt();
            let (g, gx) = (sums.values[c], sums.products[c]);
            let g_normal = (gx - self.mean[c] * g) / deviation;
            let factor = state.scale[c].to_f64() / deviation;
            let by_x = -factor * g_normal / (n * deviation);
            (by_scale[c], by_bias[c]) = (T::of(g_normal), T::of(g));
            self.by_g[c] = T::of(factor);
            self.by_x[c] = T::of(by_x);
            self.constant[c] = T::of(-factor * g / n - by_x * self.mean[c]);
        }
    }
}
