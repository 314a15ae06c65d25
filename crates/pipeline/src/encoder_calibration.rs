//! Encoders of texts, pruned in one shot by what their layers read of some texts, and written as a folder again.

use std::fs;
use std::path::Path;

use serde::Serialize;
use sparsevd_compressor::report::Calibration;
use sparsevd_compressor::smaller;
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::{WriteOptions, read_encoder, read_file, write_atomically, write_network};
use sparsevd_kernels::Isa;
use sparsevd_model::{Network, Weights};
use sparsevd_runtime::PlanOptions;

use crate::calibrate::{Batch, Batches, calibrate};
use crate::error::PipelineError;
use crate::text_encoder::{INPUTS, TextEncoder};

/// Texts that run together, of equally many tokens.
const TEXTS: usize = 32;
/// Texts that the embeddings of the two encoders are compared on, at most.
const MOST_COMPARED: usize = 1000;
/// Largest file of a folder that is copied.
const MAX_COPIED: u64 = 1 << 28;

/// An encoder that was pruned by a calibration.
#[derive(Debug)]
pub struct CalibratedEncoder {
    /// Its network.
    pub network: Network,
    folder: std::path::PathBuf,
    compared: Vec<String>,
    threads: usize,
}

/// How near the embeddings of an encoder are to those that it had before it was pruned: cosines of the two, over texts that it was
/// not calibrated on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cosines {
    /// Texts.
    pub texts: usize,
    /// Mean.
    pub mean: f64,
    /// Mean of the tenth of the texts with the lowest.
    pub worst_decile: f64,
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
        let encoder = TextEncoder::open(folder, &options(threads)?)?;
        let mut known = std::collections::HashSet::new();
        let texts: Vec<&str> = (texts.iter().map(AsRef::as_ref))
            .filter(|text| known.insert(*text))
            .collect();
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
        Self::check_out(&self.folder, out, overwrite)?;
        let failed = |error: std::io::Error| {
            PipelineError::invalid(
                out.display(),
                "a folder that can be written",
                error.to_string(),
            )
        };
        copy_settings(&self.folder, out, 1).map_err(failed)?;
        write_network(
            out.join("model.safetensors"),
            &self.network,
            &WriteOptions::default(),
        )?;
        let open = |folder: &Path| TextEncoder::open(folder, &options(self.threads)?);
        let before = open(&self.folder)?.embed(&self.compared)?;
        let after = open(out)?.embed(&self.compared)?;
        let pairs = before
            .values
            .chunks_exact(before.width)
            .zip(after.values.chunks_exact(after.width));
        let mut cosines: Vec<f64> = pairs.map(|(a, b)| cosine(a, b)).collect();
        cosines.sort_by(f64::total_cmp);
        let mean = |cosines: &[f64]| cosines.iter().sum::<f64>() / cosines.len().max(1) as f64;
        Ok(Cosines {
            texts: cosines.len(),
            mean: mean(&cosines),
            worst_decile: mean(&cosines[..cosines.len().div_ceil(10)]),
        })
    }

    /// Whether [`Self::save`] will write there.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn check_out(folder: &Path, out: &Path, overwrite: bool) -> Result<(), PipelineError> {
        let same = fs::canonicalize(folder)
            .ok()
            .zip(fs::canonicalize(out).ok());
        if same.is_some_and(|(a, b)| a == b) {
            let expected =
                "another folder than that of the encoder, whose weights it would replace";
            return Err(PipelineError::invalid(out.display(), expected, "that one"));
        }
        if out.exists() && !overwrite {
            let expected = "a folder that does not exist, as --force is not given";
            return Err(PipelineError::invalid(
                out.display(),
                expected,
                "one that does",
            ));
        }
        Ok(())
    }
}

fn options(threads: usize) -> Result<PlanOptions, PipelineError> {
    Ok(PlanOptions {
        isa: Isa::from_env()?,
        threads,
        batch: TEXTS,
        ..PlanOptions::default()
    })
}

/// Copies the JSON and text files of a folder and, down to `depth`, of those in it: settings and vocabularies. Lists of shards stay
/// behind, since the weights are one file then.
fn copy_settings(from: &Path, to: &Path, depth: usize) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        if path.is_dir() && depth > 0 {
            copy_settings(&path, &to.join(name), depth - 1)?;
            continue;
        }
        let kept = path
            .extension()
            .is_some_and(|e| e == "json" || e == "txt" || e == "model");
        let is_list = name.to_string_lossy().ends_with(".index.json");
        if kept && !is_list && path.is_file() {
            let content = read_file(&path, MAX_COPIED).map_err(std::io::Error::other)?;
            let written = write_atomically(to.join(name), |out| out.write_all(&content));
            written.map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
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
