//! The inputs that layers are measured on.

use sparsevd_compressor::Samples;
use sparsevd_model::{Network, Shape};

use crate::error::PipelineError;
use crate::measure::fill_input;

/// Samples that run together.
pub(crate) const BATCH: usize = 16;
/// Inputs of a network that run together.
pub(crate) struct Batch {
    /// Samples.
    pub count: usize,
    /// The free dimension, 1 where there is none.
    pub length: usize,
    /// The numbers of all samples, by the names of the network's inputs.
    pub inputs: Vec<(String, Vec<f32>)>,
}

impl Batch {
    /// The numbers as a session takes them.
    pub fn named(&self) -> Vec<(&str, &[f32])> {
        (self.inputs.iter())
            .map(|(name, x)| (name.as_str(), &x[..]))
            .collect()
    }
}

/// The inputs that layers are measured on.
pub(crate) trait Batches {
    /// Samples and free dimension of each batch.
    fn sizes(&self) -> Vec<(usize, usize)>;
    /// Calls `visit` with each batch, until it fails.
    fn for_each(
        &self,
        visit: &mut dyn FnMut(&Batch) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError>;
}

/// The first samples of a data set.
pub(crate) struct FirstSamples<'s> {
    samples: &'s dyn Samples,
    count: usize,
    name: String,
    shape: Shape,
}

impl<'s> FirstSamples<'s> {
    pub fn new(network: &Network, samples: &'s dyn Samples, count: usize) -> Self {
        let input = &network.graph.inputs[0];
        Self {
            samples,
            count: count.min(samples.len()),
            name: input.name.clone(),
            shape: input.shape.clone(),
        }
    }
}

impl Batches for FirstSamples<'_> {
    fn sizes(&self) -> Vec<(usize, usize)> {
        vec![(self.count, 1)]
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(&Batch) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        let elements = self.shape.elements();
        for first in (0..self.count).step_by(BATCH) {
            let count = BATCH.min(self.count - first);
            let mut x = vec![0.0; count * elements];
            for (i, x) in x.chunks_exact_mut(elements).enumerate() {
                fill_input(self.samples, first + i, [0, 0], &self.shape, x);
            }
            visit(&Batch {
                count,
                length: 1,
                inputs: vec![(self.name.clone(), x)],
            })?;
        }
        Ok(())
    }
}
