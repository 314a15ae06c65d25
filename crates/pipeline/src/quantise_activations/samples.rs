//! Samples that a network's layers are quantised on, and those that the result is compared on.

use std::collections::BTreeSet;
#[cfg(feature = "text")]
use std::path::Path;

use sparsevd_kernels::Isa;
use sparsevd_model::Network;
use sparsevd_runtime::{Int8Mode, Plan, PlanOptions, Session, WeightMode};

use super::report::Agreement;
use crate::cosines::Cosines;
#[cfg(feature = "text")]
use crate::encoder_folder::encoder_options;
use crate::error::PipelineError;
use crate::labelled::{EVALUATION_BATCH, predictions};
#[cfg(feature = "text")]
use crate::text_encoder::TextEncoder;

/// Samples that run together where the inputs of all layers are kept.
const BATCH: usize = 4;

/// Samples that layers are chosen on, and others to compare on.
pub(super) trait Compared {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError>;
}

/// Texts of an encoder.
#[cfg(feature = "text")]
pub(super) struct Texts<'a> {
    pub folder: &'a Path,
    pub sets: [&'a [&'a str]; 2],
    pub threads: usize,
}

#[cfg(feature = "text")]
impl Compared for Texts<'_> {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError> {
        let options = PlanOptions {
            int8,
            ..encoder_options(self.threads)?
        };
        let encoder = TextEncoder::with_network(self.folder, Some(network), &options)?;
        let [calibration, held_out] = self.sets;
        let [calibration, held_out] = [encoder.embed(calibration)?, encoder.embed(held_out)?];
        Ok(Outputs {
            width: calibration.width,
            values: [calibration.values, held_out.values],
            is_int8: encoder.plan().nodes().iter().any(|node| node.is_int8),
            are_scores: false,
        })
    }
}

/// Samples that ranges are found on, and others.
pub(super) struct Samples<'a> {
    pub sets: [Set<'a>; 2],
    pub threads: usize,
}

/// Inputs of a network.
pub(super) struct Set<'a> {
    pub samples: usize,
    /// Writes one of them.
    pub fill: &'a dyn Fn(usize, &mut [f32]),
}

/// Outputs for the samples that ranges are found on, and for the others, with the number of outputs of a sample.
pub(super) struct Outputs {
    values: [Vec<f32>; 2],
    width: usize,
    /// Whether a layer ran in int8.
    pub is_int8: bool,
    /// Whether the outputs are scores of classes, and no embeddings.
    pub are_scores: bool,
}

impl Outputs {
    /// Samples of one of the two sets.
    pub fn samples(&self, set: usize) -> usize {
        self.values[set].len() / self.width.max(1)
    }

    /// Compares the outputs of one of the two sets.
    pub fn compare(&self, expected: &Self, set: usize) -> Agreement {
        let [outputs, expected] = [&self.values[set], &expected.values[set]];
        Agreement::of(outputs, expected, self.width, self.are_scores)
    }

    /// The cosines of embeddings of one of the two sets.
    pub fn cosines(&self, expected: &Self, set: usize) -> Cosines {
        Cosines::of(&self.values[set], &expected.values[set], self.width)
    }
}

impl Samples<'_> {
    pub fn session(
        &self,
        network: &Network,
        batch: usize,
        int8: Int8Mode,
    ) -> Result<Session, PipelineError> {
        let options = PlanOptions {
            weights: WeightMode::Sparse,
            isa: Isa::from_env()?,
            threads: self.threads,
            batch,
            int8,
            ..PlanOptions::default()
        };
        Ok(Session::new(Plan::new(network, &options)?, self.threads)?)
    }

    /// Calls `visit` with the numbers that some values have on the samples that ranges are found on.
    pub fn visit(
        &self,
        network: &Network,
        values: &BTreeSet<&str>,
        visit: &mut dyn FnMut(&str, &[f32]),
    ) -> Result<(), PipelineError> {
        let input = &network.graph.inputs[0];
        let elements = input.shape.elements();
        let inner: Vec<String> = (values.iter())
            .filter(|value| **value != input.name)
            .map(|value| (*value).to_owned())
            .collect();
        let mut inside = network.clone();
        let session = match inner.is_empty() {
            true => None,
            false => {
                inside.graph.outputs = inner;
                Some(self.session(&inside, BATCH, Int8Mode::Never)?)
            }
        };
        let calibration = &self.sets[0];
        for first in (0..calibration.samples).step_by(BATCH) {
            let count = BATCH.min(calibration.samples - first);
            let mut x = vec![0.0; count * elements];
            for (i, x) in x.chunks_exact_mut(elements.max(1)).enumerate() {
                (calibration.fill)(first + i, x);
            }
            if values.contains(input.name.as_str()) {
                visit(&input.name, &x);
            }
            let Some(session) = &session else { continue };
            session.plan().check_outputs(count, 1)?;
            let mut outputs: Vec<(&str, Vec<f32>)> = (session.plan().outputs().iter())
                .map(|o| (o.name.as_str(), vec![0.0; count * o.elements(1)]))
                .collect();
            let mut named: Vec<(&str, &mut [f32])> = outputs
                .iter_mut()
                .map(|(name, y)| (*name, y.as_mut_slice()))
                .collect();
            session.run(count, &[(input.name.as_str(), &x[..])][..], &mut named[..])?;
            for (name, y) in &outputs {
                visit(name, y);
            }
        }
        Ok(())
    }
}

impl Compared for Samples<'_> {
    fn outputs(&self, network: &Network, int8: Int8Mode) -> Result<Outputs, PipelineError> {
        let session = self.session(network, EVALUATION_BATCH, int8)?;
        let [calibration, held_out] = &self.sets;
        let of = |set: &Set<'_>| predictions(&session, set.samples, set.fill);
        Ok(Outputs {
            values: [of(calibration)?, of(held_out)?],
            width: session.plan().output_shape().elements(),
            is_int8: session.plan().nodes().iter().any(|node| node.is_int8),
            are_scores: true,
        })
    }
}
