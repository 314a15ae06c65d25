//! Random inputs for benchmarks, and proptest strategies with edge cases.

use proptest::prelude::*;
use sparsevd_model::{Csr, Dense, Shape, Window};

use crate::reference;

/// A small deterministic stream of numbers (SplitMix64), so that benchmarks see the same matrix everywhere.
#[derive(Debug, Clone)]
pub struct Stream(pub u64);

impl Stream {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `n` numbers in [-1, 1).
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| (self.unit() * 2.0 - 1.0) as f32).collect()
    }

    /// A tensor whose elements are non-zero with probability `density`, each for itself.
    pub fn bernoulli(&mut self, shape: impl Into<Shape>, density: f64) -> Dense {
        let mut dense = Dense::zeros(shape);
        for v in &mut dense.values {
            if self.unit() < density {
                *v = (self.unit() * 2.0 - 1.0) as f32;
            }
        }
        dense
    }

    /// As [`Stream::bernoulli`], in CSR.
    pub fn sparse(&mut self, shape: impl Into<Shape>, density: f64) -> Csr {
        Csr::from_dense(&self.bernoulli(shape, density))
    }
}

/// Elements of a weight, of which about 5 %, 30 %, all or none are non-zero.
fn weights(n: usize) -> impl Strategy<Value = Vec<f32>> {
    prop_oneof![Just(0.05), Just(0.3), Just(1.0), Just(0.0)].prop_flat_map(move |density| {
        let weight = (any::<f64>(), -1.0_f32..1.0).prop_map(move |(_, v)| v);
        let element = prop_oneof![
            ((1000.0 * density) as u32 + u32::from(density > 0.0)) => weight,
            (1001 - (1000.0 * density) as u32) => Just(0.0_f32),
        ];
        prop::collection::vec(element, n)
    })
}

/// A matrix of up to `rows` by `cols`, with a bias: from empty to full, with empty and full rows.
pub fn matrix(rows: usize, cols: usize) -> impl Strategy<Value = (Dense, Vec<f32>)> {
    (0..=rows, prop_oneof![Just(1), 1..=cols])
        .prop_flat_map(|(rows, cols)| {
            let special = prop::collection::vec(0..8_u8, rows);
            let bias = prop::collection::vec(-1.0_f32..1.0, rows);
            (Just([rows, cols]), weights(rows * cols), special, bias)
        })
        .prop_map(|(shape, mut values, special, bias)| {
            for (row, special) in values.chunks_mut(shape[1]).zip(special) {
                match special {
                    0 => row.fill(0.0),
                    1 => row
                        .iter_mut()
                        .for_each(|v| *v += if *v == 0.0 { 0.5 } else { 0.0 }),
                    _ => {}
                }
            }
            (Dense::new(shape, values), bias)
        })
}

/// `n` activations, about a sixth of them zero; when `wild`, about one in 120 is NaN or infinite.
pub fn activations(n: usize, wild: bool) -> impl Strategy<Value = Vec<f32>> {
    let special = prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)];
    let element = prop_oneof![
        99 => -1.0_f32..1.0,
        20 => Just(0.0_f32),
        u32::from(wild) => special,
    ];
    prop::collection::vec(element, n)
}

/// A convolution: filters `[out, in/groups, kh, kw]`, bias, window, groups and an input `[c, h, w]` that it fits.
#[derive(Debug, Clone)]
pub struct ConvCase {
    /// Filters.
    pub filters: Dense,
    /// One number per output channel.
    pub bias: Vec<f32>,
    /// How the filters move.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Input channels, height and width.
    pub input: [usize; 3],
}

impl ConvCase {
    /// For each output, the sum of the sizes of what it adds; not finite where that is so of a summand.
    pub fn sizes(&self, x: &[f32]) -> Vec<f32> {
        let size = |values: &[f32]| -> Vec<f32> { values.iter().map(|v| v.abs()).collect() };
        let (filters, bias, x) = (size(&self.filters.values), size(&self.bias), size(x));
        let (window, groups) = (&self.window, self.groups);
        reference::conv(&filters, &bias, &x, self.input, window, groups, |v| v)
    }
}

/// Small convolutions with all the strides, paddings, dilations and groups there are.
pub fn convolution() -> impl Strategy<Value = ConvCase> {
    let window = (
        [1..=5_usize, 1..=5],
        [1..=3_usize, 1..=3],
        [0..=2_usize, 0..=2, 0..=2, 0..=2],
        [1..=2_usize, 1..=2],
    );
    (
        window,
        1..=3_usize,
        1..=4_usize,
        1..=6_usize,
        [0..=20_usize, 0..=36],
    )
        .prop_flat_map(
            |((kernel_shape, strides, pads, dilations), groups, inn, out, more)| {
                let window = Window {
                    kernel_shape,
                    strides,
                    pads,
                    dilations,
                };
                let side = |d: usize| {
                    let reach = dilations[d] * (kernel_shape[d] - 1) + 1;
                    reach.saturating_sub(pads[d] + pads[d + 2]).max(1) + more[d]
                };
                let input = [inn * groups, side(0), side(1)];
                let shape = [out * groups, inn, kernel_shape[0], kernel_shape[1]];
                let bias = prop::collection::vec(-1.0_f32..1.0, shape[0]);
                (weights(shape.iter().product()), bias).prop_map(move |(values, bias)| ConvCase {
                    filters: Dense::new(shape, values),
                    bias,
                    window: window.clone(),
                    groups,
                    input,
                })
            },
        )
}
