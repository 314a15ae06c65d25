//! A compressed network: its files, and the report that is measured from them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sparsevd_compressor::report::{
    Accuracy, Against, Encoding, PackedResult, PackedSize, Part, Pruning, Report, SCHEMA, SEEN,
    SearchReport, Summary, encodings, stored_bytes,
};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_compressor::{CompressError, Rounding};
use sparsevd_format::{
    FormatError, GraphSource, PackOptions, Staged, inspect_encodings, read_file, read_network_bytes,
};
use sparsevd_model::Network;
use sparsevd_runtime::WeightMode;

use crate::error::PipelineError;
use crate::measure::{Scores, kernels, timings};
use crate::outputs::Outputs;
use crate::pruning::finish;
use crate::quantise_activations::QuantisationReport;
use crate::recipe::FoundRecipe;
use crate::run_folder::report_path;
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
    /// What came of int8 layers, where the recipe ends with such.
    pub int8: Option<QuantisationReport>,
    /// What their training took.
    pub(crate) int8_seconds: f64,
    /// Scores of the dense network, where there was a data set.
    pub before: Option<Scores>,
    /// The recipe that was followed.
    pub recipe: FoundRecipe,
    /// How it was pruned before any training, where it was.
    pub pruning: Option<Pruning>,
    pub(crate) dense: Network,
    /// Deviations of a posterior that was trained elsewhere, by the names of weights.
    pub(crate) sigmas: BTreeMap<String, f64>,
    pub(crate) samples: Option<Split>,
    pub(crate) threads: usize,
    /// Whether plans are timed for the report.
    pub(crate) bench: bool,
    /// The folder of the run, where it trained in one. Its lock ends with the run, so that the next can begin there while this is kept.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) origin: Origin,
}

/// What is known of the file that was compressed.
#[derive(Debug)]
pub(crate) struct Origin {
    pub model: Option<PathBuf>,
    pub warnings: Vec<String>,
    pub metadata: BTreeMap<String, String>,
}

/// The files of a result, written and measured, that do not have their names yet. Dropped, they are removed.
#[derive(Debug)]
pub struct StagedResult {
    report: Report,
    files: Staged,
}

impl StagedResult {
    /// The report on the result.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Adds a file that is to appear with the others.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn add(&mut self, path: impl Into<PathBuf>, content: &[u8]) -> Result<(), PipelineError> {
        self.files.add(path, |out| out.write_all(content))?;
        Ok(())
    }

    /// Gives the files their names; what exists is overwritten. `then` is called while the result counts as unfinished: where the process
    /// dies before its end, [`Outputs::recover`] says that it is to be called again.
    ///
    /// # Errors
    /// What the system refuses, and what `then` gives.
    pub fn commit(
        self,
        then: impl FnOnce() -> Result<(), PipelineError>,
    ) -> Result<Report, PipelineError> {
        self.files.commit(then)?;
        Ok(self.report)
    }
}

/// A packed file that was written.
struct Packed<'p> {
    path: &'p Path,
    /// Where weights were rounded, the error of that.
    rounding_error: Option<f64>,
}

impl Compressed {
    /// Writes the network to `path`, `.safetensors` or `.spvd`, with its other files beside it; see [`Outputs::new`] and
    /// [`Self::write`]. What exists is overwritten.
    ///
    /// # Errors
    /// As [`Outputs::new`] and [`Self::write`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Report, PipelineError> {
        self.write(&match self.pruning {
            Some(_) => Outputs::of_pruned(path)?,
            None => Outputs::new(path, &self.recipe.recipe)?,
        })
    }

    /// Writes the network and reads it back, measures what came back, and writes and returns the report on it. What exists is
    /// overwritten. The files appear together, once all are written; see [`Staged`].
    ///
    /// # Errors
    /// Files that cannot be written; weights that their form does not hold.
    pub fn write(&self, outputs: &Outputs) -> Result<Report, PipelineError> {
        self.stage(outputs)?.commit(|| Ok(()))
    }

    /// Does as [`Self::write`] but for the names of the files: these appear by [`StagedResult::commit`], perhaps with others.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn stage(&self, outputs: &Outputs) -> Result<StagedResult, PipelineError> {
        let metadata = self.origin.metadata.clone();
        let mut files = Staged::new();
        outputs.stage_interchange(&mut files, &self.network, metadata, &self.recipe.recipe)?;
        let packed = outputs.packed.as_deref();
        let packed = match packed.map(|path| self.pack(path, &mut files)) {
            Some(Err(PipelineError::Format(error @ FormatError::Io { .. }))) => {
                return Err(error.into());
            }
            Some(Err(error)) if outputs.packs_if_possible => Err(Some(error.to_string())),
            Some(packed) => Ok(packed?),
            None => Err(None),
        };
        let report = self.report(outputs, packed, &files)?;
        let json = serde_json::to_string_pretty(&report).map_err(|e| CompressError::Report {
            path: outputs.report.clone(),
            what: e.to_string(),
        })?;
        // The run folder has the report too, so that it says all of the run.
        let in_folder = self.folder.as_deref().map(report_path);
        for path in [Some(outputs.report.clone()), in_folder]
            .into_iter()
            .flatten()
        {
            files.add(path, |out| writeln!(out, "{json}"))?;
        }
        Ok(StagedResult { report, files })
    }

    /// Writes the packed file, of weights that are rounded to grids where they are on none.
    fn pack<'p>(&self, path: &'p Path, files: &mut Staged) -> Result<Packed<'p>, PipelineError> {
        let on_grid = |tensor| self.network.scales.contains_key(tensor);
        let (network, rounding_error) = if self.network.layer_tensors().iter().all(on_grid) {
            (Cow::Borrowed(&self.network), None)
        } else {
            let rounding = Rounding {
                sigmas: self.sigmas.clone(),
                ..Rounding::default()
            };
            let rounded = rounding.round(&self.network)?;
            let mut network = rounded.network;
            if network.int8.is_empty() {
                network = finish(network);
            } else {
                // Of int8 layers, whose weights were on grids, nothing leaves, and no form changes.
                for weight in self.network.int8.rows.keys() {
                    let tensor = self.network.tensors[weight].clone();
                    network.tensors.insert(weight.clone(), tensor);
                }
            }
            (Cow::Owned(network), rounded.error)
        };
        files.add_packed(path, &network, &PackOptions::for_size_of(&network))?;
        Ok(Packed {
            path,
            rounding_error,
        })
    }

    /// Reads the written files back and measures them through the runtime; without a packed file there may be a reason for that.
    fn report(
        &self,
        outputs: &Outputs,
        packed: Result<Packed<'_>, Option<String>>,
        files: &Staged,
    ) -> Result<Report, PipelineError> {
        let path = outputs.measured()?;
        let file = read(files.content_of(path))?;
        let sparse = read_network_bytes(path, &file, &GraphSource::Auto)?.network;
        let stored = match &outputs.network {
            Some(path) => stored_bytes(path, &file)?,
            None => None,
        };
        let summary = Summary::new(&sparse, stored.as_ref(), file.len() as u64);
        let measured = self.samples.as_ref().zip(self.before.as_ref());
        let (packed, not_packed) = match packed {
            Ok(packed) => (Some(self.packed(&packed, measured, files)?), None),
            Err(why) => (None, why),
        };
        let accuracy = match measured {
            Some((samples, before)) => {
                let after = Scores::of(&sparse, WeightMode::Sparse, samples, self.threads)?;
                Some(Accuracy::new(
                    &self.recipe.recipe,
                    match samples.has_targets {
                        true => Against::Targets,
                        false => Against::DenseNetwork,
                    },
                    before.saw_validation(),
                    before.beside(&after),
                    packed.as_ref().and_then(|p| Some((p.validation?, p.test))),
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
        let (kernels, timings) = match self.bench {
            true => {
                let (kernels, timings) = timings(&sparse, &self.dense, samples)?;
                (kernels, Some(timings))
            }
            false => (kernels(&sparse, &self.dense)?, None),
        };
        let recipe = &self.recipe.recipe;
        Ok(Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            network: sparse.graph.name.clone(),
            model: self.origin.model.clone().unwrap_or_default(),
            warnings: warnings.chain(seen.then(|| SEEN.into())).collect(),
            output: path.to_owned(),
            packed,
            not_packed,
            pruning: self.pruning.clone(),
            data: self.samples.as_ref().map(|s| s.describe.clone()),
            seed: recipe.seed,
            recipe_source: self.recipe.source.clone(),
            recipe: recipe.clone(),
            preprocessing: sparse.graph.preprocessing.clone(),
            training_seconds: match &self.search {
                Some(search) => search.seconds,
                None => self.history.iter().map(|e| e.seconds).sum(),
            } + self.int8_seconds,
            search: self.search.clone(),
            history: self.history.clone(),
            summary,
            kernels,
            accuracy,
            int8: self.int8.as_ref().map(Into::into),
            encodings: encodings.collect(),
            timings,
        })
    }

    /// The packed file, taken apart and run.
    fn packed(
        &self,
        packed: &Packed<'_>,
        measured: Option<(&Split, &Scores)>,
        files: &Staged,
    ) -> Result<PackedResult, PipelineError> {
        let Packed {
            path,
            rounding_error,
        } = *packed;
        let file = read(files.content_of(path))?;
        let network = read_network_bytes(path, &file, &GraphSource::Auto)?.network;
        let (validation, test) = match measured {
            Some((samples, before)) => {
                let after = Scores::of(&network, WeightMode::Sparse, samples, self.threads)?;
                let (validation, test) = before.beside(&after);
                (Some(validation), test)
            }
            None => (None, None),
        };
        Ok(PackedResult {
            output: path.to_owned(),
            size: PackedSize::of(&file)?,
            rounding_error,
            validation,
            test,
        })
    }
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FormatError> {
    read_file(path, u64::MAX)
}
