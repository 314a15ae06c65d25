//! Forward and backward passes of the operators, on the samples of one shard.
//!
//! Activations are channels last, or, where layers compute with the weights that are left, vectors of samples
//! ([`lane_map`]). A forward pass stores in [`Saved`] the values that its backward pass needs; backward
//! passes add to gradients that start at zero, but for convolutions, which write the first, and elementwise stages, which change it in place.

pub(crate) mod arithmetic;
pub(crate) mod arrange;
pub(crate) mod attention;
mod buffer;
pub(crate) mod conv;
pub(crate) mod depthwise;
mod direct;
pub(crate) mod function;
#[cfg(test)]
mod golden;
pub(crate) mod grouped;
pub(crate) mod lane_map;
pub(crate) mod linear;
pub(crate) mod normalise;
pub(crate) mod pool;
pub(crate) mod size;
pub(crate) mod sparse;

use std::ops::Range;

use buffer::Planes;
pub(crate) use buffer::{Aligned, sized};
use sparse::{Sparse, Vectors};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, Real, normals};

/// Parameters of a weighted layer in one pass: means, and variances where there is noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights<'a, T> {
    pub theta: &'a [T],
    pub bias: &'a [T],
    /// Empty without noise.
    pub sigma2: &'a [T],
    pub units: usize,
    pub patch: usize,
    /// The weights that are left, where passes compute with those alone; then there is no noise.
    pub sparse: Option<&'a Sparse>,
}

impl<T> Weights<'_, T> {
    pub fn has_noise(&self) -> bool {
        !self.sigma2.is_empty()
    }
}

/// Settings of one pass of one shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub isa: Isa,
    pub noise: Noise<'a>,
    /// Samples of the shard in this pass.
    pub samples: usize,
    /// Whether gradients that are mostly zero are taken as lists; those behind a fused max-pooling always are.
    pub skip_zeros: bool,
}

/// Where the noise of a pass comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Noise<'a> {
    /// Philox at this address; `sample` is that of the shard's first sample, `layer` is set per layer.
    Addressed(NoiseKey),
    /// These normals, sample after sample, in the layer's own order: for golden vectors.
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests supply noise"))]
    Given(&'a [f64]),
}

impl Pass<'_> {
    /// Of a block of the samples; only for layers without noise, since its address is that of the first of all.
    pub fn of(&self, samples: usize) -> Self {
        Self { samples, ..*self }
    }

    /// Fills `out` with the standard normals of one sample of one layer.
    pub fn fill_noise<T: Real>(&self, layer: usize, sample: usize, out: &mut [T]) {
        match self.noise {
            Noise::Addressed(key) => {
                let key = NoiseKey {
                    layer: layer as u32,
                    sample: key.sample + sample as u32,
                    ..key
                };
                normals(self.isa, key, out);
            }
            Noise::Given(all) => {
                let given = &all[sample * out.len()..][..out.len()];
                out.iter_mut().zip(given).for_each(|(o, &g)| *o = T::of(g));
            }
        }
    }
}

/// Gradients that a backward pass adds to.
pub(crate) struct Gradients<'a, T> {
    /// `None` for the network's input, whose gradient has no consumer.
    pub input: Option<&'a mut [T]>,
    /// Whether that of the input is to be written: what is there does not count.
    pub is_first: bool,
    pub theta: &'a mut [T],
    /// Empty without noise.
    pub sigma2: &'a mut [T],
    pub bias: &'a mut [T],
}

impl<T: Real> Gradients<'_, T> {
    /// Sets a part of the input's gradient to zero, where it is to be written.
    pub fn begin_input(&mut self, part: Range<usize>) {
        if let (Some(dx), true) = (&mut self.input, self.is_first) {
            dx[part].fill(T::default());
        }
    }

    /// Adds rows of gradients by the outputs to that of the bias.
    pub fn add_bias(&mut self, gradient: &[T]) {
        for row in gradient.chunks_exact(self.bias.len()) {
            for (bias, &g) in self.bias.iter_mut().zip(row) {
                *bias += g;
            }
        }
    }
}

/// Values that the forward pass of a stage stores for its backward pass.
#[derive(Debug, Default)]
pub(crate) struct Saved<T> {
    /// Linear: gathered inputs. A group of a convolution: its channels of the input.
    pub x: Vec<T>,
    /// Linear: their squares.
    pub x2: Vec<T>,
    /// Factor from the gradient of an output to that of its variance.
    pub factor: Vec<T>,
    /// Max-pooling: position of each maximum.
    pub arg: Vec<u32>,
    /// Linear: gradients by means and by variances, for the weight gradient.
    pub mean_gradient: Vec<T>,
    pub variance_gradient: Vec<T>,
    /// Linear, with the weights that are left: inputs and gradients by outputs, as vectors.
    pub vectors: [Aligned<T>; 2],
    /// Grouped convolution: the values of each group.
    pub groups: Vec<Saved<T>>,
}

/// Buffers whose contents last for one pass of one stage.
#[derive(Debug, Default)]
pub(crate) struct Scratch<T> {
    pub rows: Vec<T>,
    pub rows2: Vec<T>,
    pub y: Vec<T>,
    pub v: Vec<T>,
    pub noise: Vec<T>,
    /// Of one group of a convolution: its output, or the gradient of it; and the gradient of its input.
    pub part: Vec<T>,
    pub part_input: Vec<T>,
    pub events: Vec<sparsevd_kernels::training::Event<T>>,
    pub sorted: Vec<sparsevd_kernels::training::Event<T>>,
    /// Of every output position, its place among those that events have; and those.
    pub places: Vec<u32>,
    pub positions: Vec<u32>,
    /// Of convolutions over planes.
    pub planes: Planes<T>,
    /// Of sparse passes.
    pub vectors: Vectors<T>,
}

/// Repeats the bias for every row of `y`.
pub(crate) fn fill_rows<T: Real>(y: &mut [T], bias: &[T]) {
    for row in y.chunks_exact_mut(bias.len()) {
        row.copy_from_slice(bias);
    }
}
