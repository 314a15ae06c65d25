//! Encoders of texts: pruned in one shot by what their layers read of some texts, and trained towards the embeddings of a dense one.

mod texts;

use std::path::{Path, PathBuf};

use sparsevd_compressor::recipe::{Recipe, Validation};
use sparsevd_compressor::report::Calibration;
use sparsevd_compressor::trainer::{EpochRecord, Observer};
use sparsevd_compressor::{TrainingData, draw, smaller};
use sparsevd_format::read_encoder;
use sparsevd_model::{Network, Weights};

use crate::calibrate::calibrate;
use crate::cosines::Cosines;
use crate::encoder_folder::{different, encoder_options, write_encoder};
use crate::error::PipelineError;
use crate::pruning::remove_zeros;
use crate::run_folder::RunFolder;
use crate::text_encoder::TextEncoder;
use crate::training::{Start, train};
use texts::{Batched, TextSamples};

/// Texts that the embeddings of the two encoders are compared on, at most.
const MOST_COMPARED: usize = 1000;

/// A compression of an encoder of texts that has not begun: without labels, as it learns from embeddings.
#[derive(Debug)]
pub struct EncoderCompression {
    folder: PathBuf,
    teacher: PathBuf,
    texts: Vec<String>,
    calibration: Option<Calibration>,
    recipe: Option<Recipe>,
    run: Option<RunFolder>,
    threads: usize,
}

impl EncoderCompression {
    /// Compresses the encoder of `folder` ([`read_encoder`]) by `texts`, of which those that come twice count once. `threads` are one or more.
    pub fn new(folder: impl Into<PathBuf>, texts: &[impl AsRef<str>], threads: usize) -> Self {
        let folder = folder.into();
        Self {
            teacher: folder.clone(),
            folder,
            texts: different(texts).into_iter().map(str::to_owned).collect(),
            calibration: None,
            recipe: None,
            run: None,
            threads,
        }
    }

    /// Prunes in one shot, by the first of the texts.
    #[must_use]
    pub fn calibrated(mut self, settings: impl Into<Option<Calibration>>) -> Self {
        self.calibration = settings.into();
        self
    }

    /// Trains by a recipe towards the embeddings of the encoder as it came, after any calibration. Its validation samples are texts.
    #[must_use]
    pub fn trained_by(mut self, recipe: impl Into<Option<Recipe>>) -> Self {
        self.recipe = recipe.into();
        self
    }

    /// Learns from, and compares with, the encoder of another folder, which has the same tokens: from the dense one, where the encoder is sparse already.
    #[must_use]
    pub fn teacher(mut self, folder: impl Into<PathBuf>) -> Self {
        self.teacher = folder.into();
        self
    }

    /// Keeps checkpoints of the training in a folder.
    #[must_use]
    pub fn in_folder(mut self, run: RunFolder) -> Self {
        self.run = Some(run);
        self
    }

    /// Prunes and trains.
    ///
    /// # Errors
    /// Those of [`TextEncoder::open`]; fewer than two texts; settings out of range; a recipe that takes validation samples from another data set; a teacher of
    /// other tokens or another width; [`PipelineError::Interrupted`] where the observer stops.
    pub fn run(self, observer: &mut dyn Observer) -> Result<CompressedEncoder, PipelineError> {
        let Self {
            folder,
            teacher,
            texts,
            calibration,
            recipe,
            run,
            threads,
        } = self;
        let encoder = TextEncoder::open(&folder, &encoder_options(threads)?)?;
        let samples = calibration.as_ref().map_or(0, |settings| settings.samples);
        let (learned, compared) = match &recipe {
            None => {
                let most = samples.min(texts.len().saturating_sub(1));
                let (learned, rest) = texts.split_at(most);
                (learned.to_vec(), rest.to_vec())
            }
            Some(recipe) => {
                let [held, rest] = draw(texts.len(), held_out(recipe, texts.len())?);
                let of = |places: Vec<usize>| places.into_iter().map(|i| texts[i].clone());
                (of(rest).collect(), of(held).collect::<Vec<_>>())
            }
        };
        if learned.is_empty() || compared.is_empty() {
            let expected = "at least two different lines, of which one is to compare on";
            let got = texts.len().to_string();
            return Err(PipelineError::invalid("texts", expected, got));
        }
        let mut network = read_encoder(&folder)?.loaded.network;
        network.int8 = sparsevd_model::Int8Grids::default();
        if let Some(settings) = &calibration {
            let samples = &learned[..samples.min(learned.len())];
            let inputs = Batched::new(&encoder, samples)?;
            network = calibrate(&network, settings, &inputs, threads, observer)?;
            for tensor in network.tensors.values_mut() {
                if let Weights::Csr(csr) = tensor {
                    *tensor = smaller(csr.to_dense());
                }
            }
        }
        let mut history = vec![];
        if let Some(recipe) = &recipe {
            let dense = TextEncoder::open(&teacher, &encoder_options(threads)?)?;
            observer.note(&format!(
                "embedding {} texts by {}",
                learned.len() + compared.len(),
                teacher.display()
            ));
            let samples = |texts: &[String]| TextSamples::new(&encoder, &dense, texts);
            let data = TrainingData::new(samples(&learned)?, samples(&compared)?);
            remove_zeros(&mut network);
            let start = Start::from(&network);
            let trainer = train(start, recipe, data, run.as_ref(), None, threads, observer)?;
            history = trainer.history().to_vec();
            network = trainer.network()?;
        }
        Ok(CompressedEncoder {
            network,
            history,
            folder,
            teacher,
            compared: compared.into_iter().take(MOST_COMPARED).collect(),
            threads,
        })
    }
}

/// How many of `all` texts are held back.
fn held_out(recipe: &Recipe, all: usize) -> Result<usize, PipelineError> {
    match &recipe.validation {
        Validation::Samples(samples) => Ok((*samples).min(all / 6)),
        Validation::Share(share) => Ok((all as f64 * share).round() as usize),
        other => {
            let expected = "a share or a number of the texts";
            let got = format!("{other:?}");
            Err(PipelineError::invalid("validation", expected, got))
        }
    }
}

/// An encoder that was compressed.
#[derive(Debug)]
pub struct CompressedEncoder {
    /// Its network.
    pub network: Network,
    /// Every epoch of its training.
    pub history: Vec<EpochRecord>,
    folder: PathBuf,
    teacher: PathBuf,
    compared: Vec<String>,
    threads: usize,
}

impl CompressedEncoder {
    /// Writes the encoder as a folder, with copies of the files of its own that are no weights, and compares the embeddings of what was
    /// written with those of the teacher.
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
        let (before, after) = (embed(&self.teacher)?, embed(out)?);
        Ok(Cosines::of(&after.values, &before.values, before.width))
    }
}
