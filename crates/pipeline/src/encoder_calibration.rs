//! Encoders of texts, pruned in one shot by what their layers read of some texts.

use std::path::Path;

use sparsevd_compressor::report::Calibration;
use sparsevd_compressor::smaller;
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::read_encoder;
use sparsevd_model::{Network, Weights};

use crate::calibrate::{Batch, Batches, calibrate};
use crate::cosines::Cosines;
use crate::encoder_folder::{TEXTS, different, encoder_options, write_encoder};
use crate::error::PipelineError;
use crate::text_encoder::{INPUTS, TextEncoder};

/// Texts that the embeddings of the two encoders are compared on, at most.
const MOST_COMPARED: usize = 1000;

/// An encoder that was pruned by a calibration.
#[derive(Debug)]
pub struct CalibratedEncoder {
    /// Its network.
    pub network: Network,
    folder: std::path::PathBuf,
    compared: Vec<String>,
    threads: usize,
}

impl CalibratedEncoder {
    /// Prunes the encoder of `folder` ([`read_encoder`]) as [`Calibration`] says, with the first of the `texts`; those behind them are to
    /// compare on. Texts that come twice count once. `threads` are one or more.
    ///
    /// # Errors
    /// Those of [`TextEncoder::open`]; fewer than two texts; a sparsity out of range; [`PipelineError::Interrupted`] where the observer
    /// stops.
    pub fn new(
        folder: impl AsRef<Path>,
        texts: &[impl AsRef<str>],
        settings: &Calibration,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Self, PipelineError> {
        let folder = folder.as_ref();
        let encoder = TextEncoder::open(folder, &encoder_options(threads)?)?;
        let texts = different(texts);
        let most = settings.samples.min(texts.len().saturating_sub(1));
        if most == 0 {
            let expected = "at least two different lines, of which one is to compare on";
            return Err(PipelineError::invalid(
                "texts",
                expected,
                texts.len().to_string(),
            ));
        }
        let (learned, rest) = texts.split_at(most);
        let network = read_encoder(folder)?.loaded.network;
        let inputs = Texts::new(&encoder, learned)?;
        let mut network = calibrate(&network, settings, &inputs, threads, observer)?;
        for tensor in network.tensors.values_mut() {
            if let Weights::Csr(csr) = tensor {
                *tensor = smaller(csr.to_dense());
            }
        }
        let compared = rest.iter().take(MOST_COMPARED);
        Ok(Self {
            network,
            folder: folder.to_owned(),
            compared: compared.map(|text| (*text).to_owned()).collect(),
            threads,
        })
    }

    /// Writes the encoder as a folder, with copies of the files of its own that are no weights, and compares the embeddings of what was
    /// written with those before.
    ///
    /// # Errors
    /// A folder that exists, unless `overwrite`, and then one that is that of the encoder itself; files that cannot be read or
    /// written.
    pub fn save(&self, out: impl AsRef<Path>, overwrite: bool) -> Result<Cosines, PipelineError> {
        let out = out.as_ref();
        write_encoder(&self.folder, out, &self.network, overwrite)?;
        let embed = |folder: &Path| {
            let encoder = TextEncoder::open(folder, &encoder_options(self.threads)?)?;
            encoder.embed(&self.compared)
        };
        let (before, after) = (embed(&self.folder)?, embed(out)?);
        Ok(Cosines::of(&after.values, &before.values, before.width))
    }
}

/// Texts as tokens, those of equally many together.
struct Texts {
    batches: Vec<Batch>,
}

impl Texts {
    fn new(encoder: &TextEncoder, texts: &[&str]) -> Result<Self, PipelineError> {
        let tokens = encoder.tokens(texts)?;
        let mut batches = vec![];
        for (length, same) in tokens.by_length() {
            for texts in same.chunks(TEXTS) {
                let ids = texts.iter().flat_map(|&i| &tokens.ids[i]);
                let ids: Vec<f32> = ids.map(|&id| id as f32).collect();
                let positions: Vec<f32> = (0..length).map(|i| i as f32).collect();
                let positions = positions.repeat(texts.len());
                let named = INPUTS.map(str::to_owned).into_iter().zip([ids, positions]);
                batches.push(Batch {
                    count: texts.len(),
                    length,
                    inputs: named.collect(),
                });
            }
        }
        Ok(Self { batches })
    }
}

impl Batches for Texts {
    fn sizes(&self) -> Vec<(usize, usize)> {
        self.batches.iter().map(|b| (b.count, b.length)).collect()
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(&Batch) -> Result<(), PipelineError>,
    ) -> Result<(), PipelineError> {
        self.batches.iter().try_for_each(visit)
    }
}
