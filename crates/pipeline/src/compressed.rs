//! A compressed network: its files, and the report that is measured from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_compressor::CompressError;
use sparsevd_compressor::report::{
    Accuracy, Encoding, PackedResult, PackedSize, Part, Pruning, Report, SCHEMA, SEEN,
    SearchReport, Summary, encodings, stored_bytes,
};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_format::{
    FormatError, GraphSource, inspect_encodings, read_network_bytes, write_atomically,
};
use sparsevd_model::Network;
use sparsevd_runtime::WeightMode;

use crate::error::PipelineError;
use crate::measure::{Scores, timings};
use crate::outputs::Outputs;
use crate::recipe::FoundRecipe;
use crate::split::Split;

/// The result of a [`Compression`](crate::Compression).
#[derive(Debug)]
pub struct Compressed {
    /// The sparse network.
    pub network: Network,
    /// Every epoch of its training.
    pub history: Vec<EpochRecord>,
    /// Every number of weights that was tried, where the recipe searched; [`Self::recipe`] is then that of the best try.
    pub search: Option<SearchReport>,
    /// Scores of the dense network, where there was a data set.
    pub before: Option<Scores>,
    /// The recipe that was followed.
    pub recipe: FoundRecipe,
    /// How it was pruned before any training, where it was.
    pub pruning: Option<Pruning>,
    pub(crate) dense: Network,
    pub(crate) samples: Option<Split>,
    pub(crate) threads: usize,
    pub(crate) origin: Origin,
}

/// What is known of the file that was compressed.
#[derive(Debug)]
pub(crate) struct Origin {
    pub model: Option<PathBuf>,
    pub warnings: Vec<String>,
    pub metadata: BTreeMap<String, String>,
}

impl Compressed {
    /// Writes the network to `path`, `.safetensors` or `.spvd`, with its other files beside it; see [`Outputs::new`] and
    /// [`Self::write`]. What exists is overwritten.
    ///
    /// # Errors
    /// As [`Outputs::new`] and [`Self::write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Report, PipelineError> {
        self.write(&Outputs::new(path, &self.recipe.recipe)?)
    }

    /// Writes the network and reads it back, measures what came back, and writes and returns the report on it. What exists is
    /// overwritten.
    ///
    /// # Errors
    /// Files that cannot be written; weights that their form does not hold.
    pub fn write(&self, outputs: &Outputs) -> Result<Report, PipelineError> {
        let metadata = self.origin.metadata.clone();
        outputs.write(&self.network, metadata, &self.recipe.recipe)?;
        let report = self.report(outputs)?;
        let json = serde_json::to_string_pretty(&report).map_err(|e| CompressError::Report {
            path: outputs.report.clone(),
            what: e.to_string(),
        })?;
        write_atomically(&outputs.report, |out| writeln!(out, "{json}"))?;
        Ok(report)
    }

    /// Reads the written files back and measures them through the runtime.
    fn report(&self, outputs: &Outputs) -> Result<Report, PipelineError> {
        let path = &outputs.network;
        let file = read(path)?;
        let sparse = read_network_bytes(path, &file, &GraphSource::Auto)?.network;
        let stored = stored_bytes(path, &file)?;
        let summary = Summary::new(&sparse, stored.as_ref(), file.len() as u64);
        let measured = self.samples.as_ref().zip(self.before.as_ref());
        let packed = match (&outputs.packed, measured) {
            (Some(path), Some((samples, before))) => Some(self.packed(path, samples, before)?),
            _ => None,
        };
        let accuracy = match measured {
            Some((samples, before)) => {
                let after = Scores::of(&sparse, WeightMode::Sparse, samples, self.threads)?;
                Some(Accuracy::new(
                    &self.recipe.recipe,
                    before.saw_validation(),
                    before.beside(&after),
                    packed.as_ref().map(|p| (p.validation, p.test)),
                    before.classes_beside(&after),
                ))
            }
            None => None,
        };
        let seen = accuracy.as_ref().map(|a| a.promise_about) == Some(Part::Test);
        let warnings = self.origin.warnings.iter().cloned();
        let as_it_came = inspect_encodings(&self.dense).into_iter().take(1);
        let as_it_came = as_it_came.map(|(label, bytes)| Encoding {
            encoding: format!("as it came: {label}"),
            bytes,
        });
        let encodings = as_it_came.chain(encodings(&sparse, packed.as_ref().map(|p| p.size.bytes)));
        let samples = self.samples.as_ref().map(|samples| {
            let (validation, test) = samples.measured();
            test.unwrap_or(validation)
        });
        let (kernels, timings) = timings(&sparse, &self.dense, samples)?;
        let recipe = &self.recipe.recipe;
        Ok(Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            network: sparse.graph.name.clone(),
            model: self.origin.model.clone().unwrap_or_default(),
            warnings: warnings.chain(seen.then(|| SEEN.into())).collect(),
            output: path.clone(),
            packed,
            pruning: self.pruning.clone(),
            data: self.samples.as_ref().map(|s| s.describe.clone()),
            seed: recipe.seed,
            recipe_source: self.recipe.source.clone(),
            recipe: recipe.clone(),
            preprocessing: sparse.graph.preprocessing.clone(),
            training_seconds: match &self.search {
                Some(search) => search.seconds,
                None => self.history.iter().map(|e| e.seconds).sum(),
            },
            search: self.search.clone(),
            history: self.history.clone(),
            summary,
            kernels,
            accuracy,
            encodings: encodings.collect(),
            timings,
        })
    }

    /// The packed file, taken apart and run.
    fn packed(
        &self,
        path: &Path,
        samples: &Split,
        before: &Scores,
    ) -> Result<PackedResult, PipelineError> {
        let file = read(path)?;
        let network = read_network_bytes(path, &file, &GraphSource::Auto)?.network;
        let after = Scores::of(&network, WeightMode::Sparse, samples, self.threads)?;
        let (validation, test) = before.beside(&after);
        Ok(PackedResult {
            output: path.to_owned(),
            size: PackedSize::of(&file)?,
            validation,
            test,
        })
    }
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FormatError> {
    std::fs::read(path).map_err(|error| FormatError::Io {
        path: path.into(),
        action: "read",
        error,
    })
}
