//! Encoders of texts: pruned in one shot by what their layers read of some texts, and trained towards the embeddings of a dense one.

mod texts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_compressor::checkpoint::network_fingerprint;
use sparsevd_compressor::recipe::{Augment, Recipe, Validation};
use sparsevd_compressor::report::Calibration;
use sparsevd_compressor::trainer::{EpochRecord, Observer};
use sparsevd_compressor::{TrainingData, draw, smaller};
use sparsevd_format::read_encoder;
use sparsevd_model::{Network, Weights};

use crate::calibrate::calibrate;
use crate::cosines::Cosines;
use crate::encoder_folder::{different, encoder_options, teacher_options, write_encoder};
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
    /// Those of [`TextEncoder::open`]; fewer than two texts, or six where there is a recipe; settings out of range; a recipe that takes validation samples from
    /// another data set, distils, searches, measures augmentation or ends with int8 layers; a teacher of other tokens or another width;
    /// [`PipelineError::Interrupted`] where the observer stops.
    pub fn run(self, observer: &mut dyn Observer) -> Result<CompressedEncoder, PipelineError> {
        let run = self.run.clone();
        let done = self.run_in(run.as_ref(), observer);
        done.map_err(|error| error.in_run(run.as_ref().map(RunFolder::path)))
    }

    fn run_in(
        self,
        run: Option<&RunFolder>,
        observer: &mut dyn Observer,
    ) -> Result<CompressedEncoder, PipelineError> {
        let Self {
            folder,
            teacher,
            texts,
            mut calibration,
            recipe,
            threads,
            ..
        } = self;
        if let Some(recipe) = &recipe {
            check(recipe)?;
            if let Some(settings) = &mut calibration {
                settings
                    .keep_dense
                    .extend(recipe.keep_dense.iter().cloned());
            }
        }
        let encoder = TextEncoder::open(&folder, &teacher_options(threads)?)?;
        let dense = TextEncoder::open(&teacher, &teacher_options(threads)?)?;
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
        let data = match &recipe {
            None => None,
            Some(recipe) => {
                let tokens = TextSamples::tokens(&encoder, &dense, &learned)?;
                if let Some(note) = left_over(&tokens, recipe) {
                    observer.note(&note);
                }
                Some(tokens)
            }
        };
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
        if let (Some(recipe), Some(tokens)) = (&recipe, data) {
            let all = learned.len() + compared.len();
            observer.note(&format!("{} embeds {all} texts", teacher.display()));
            let validation = TextSamples::tokens(&encoder, &dense, &compared)?;
            let mut data = TrainingData::new(
                TextSamples::new(tokens, &dense, &learned)?,
                TextSamples::new(validation, &dense, &compared)?,
            );
            if teacher != folder || calibration.is_some() {
                let network = read_encoder(&teacher)?.loaded.network;
                data = data.answered_by(network_fingerprint(&network));
            }
            remove_zeros(&mut network);
            let start = Start::from(&network);
            let trainer = train(start, recipe, data, run, None, threads, observer)?;
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

/// Refuses what an encoder is not trained by.
fn check(recipe: &Recipe) -> Result<(), PipelineError> {
    recipe.check()?;
    let distils = recipe.phases.iter().any(|phase| phase.distil > 0.0);
    let refused = [
        (
            "distil",
            "0, as the targets are the teacher's embeddings",
            distils,
        ),
        ("search", "none, nor a goal", recipe.search.is_some()),
        ("augment", "none for texts", recipe.augment != Augment::None),
        (
            "quantise_activations",
            "none; `compress quantise-activations --dynamic --text` makes int8 layers of the result",
            recipe.quantise_activations.is_some(),
        ),
    ];
    match refused.into_iter().find(|(_, _, is_set)| *is_set) {
        None => Ok(()),
        Some((name, expected, _)) => Err(PipelineError::invalid(name, expected, "another")),
    }
}

/// How many of `all` texts are held back.
fn held_out(recipe: &Recipe, all: usize) -> Result<usize, PipelineError> {
    let held = match &recipe.validation {
        Validation::Samples(samples) => (*samples).min(all / 6),
        Validation::Share(share) => ((all as f64 * share).round() as usize).max(1),
        Validation::Data(_) | Validation::FromTest { .. } => {
            let expected = "a share or a number of the texts";
            let got = "samples of another set";
            return Err(PipelineError::invalid("validation", expected, got));
        }
    };
    match held {
        0 => Err(PipelineError::invalid(
            "texts",
            "at least 6 different lines, of which one in six is held back for validation",
            all.to_string(),
        )),
        held => Ok(held),
    }
}

/// Says how many texts are of a length that fills no batch.
fn left_over(tokens: &[Vec<u32>], recipe: &Recipe) -> Option<String> {
    let batches = recipe.phases.iter().map(|p| p.batch_of(tokens.len()));
    let batch = batches.max()?;
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for tokens in tokens {
        *counts.entry(tokens.len()).or_default() += 1;
    }
    let few: usize = counts.into_values().filter(|count| *count < batch).sum();
    (few > 0).then(|| {
        format!(
            "{few} texts are not trained on: too few have as many tokens to fill a batch of {batch}"
        )
    })
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
        let embed = |folder: &Path, options| {
            let encoder = TextEncoder::open(folder, options)?;
            encoder.embed(&self.compared)
        };
        let (before, after) = (
            embed(&self.teacher, &teacher_options(self.threads)?)?,
            embed(out, &encoder_options(self.threads)?)?,
        );
        Ok(Cosines::of(&after.values, &before.values, before.width))
    }
}
