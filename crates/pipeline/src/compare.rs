//! A comparison of pruning methods: the same numbers of weights, epochs and distillation for each, over several seeds, by pairs of errors.
//!
//! The folder of a comparison has the record of what it began with, a folder for the posterior of each seed, and one for each cell, which
//! is a method, a ratio and a seed. Finished cells keep their networks and errors, so that a comparison goes on where it was, and ratios,
//! seeds and methods can be added.

mod cell;
mod files;
mod method;
mod record;
mod report;
mod stored;
mod text;
mod train;

use std::path::PathBuf;

use sparsevd_compressor::checkpoint::{network_fingerprint, samples_fingerprint};
use sparsevd_compressor::objective::SampleErrors;
use sparsevd_compressor::report::{Part, PooledScore, SCHEMA, SEEN, count, ratio};
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::recover;
use sparsevd_model::Network;
use sparsevd_runtime::WeightMode;

use crate::choices::TrainingChoices;
use crate::data::Data;
use crate::error::PipelineError;
use crate::input::{InputNetwork, absolute};
use crate::invariance::settle_augmentation;
use crate::lock::FolderLock;
use crate::measure::Scores;
use crate::normalised::with_batch_normalisation;
use crate::pruning::folded;
use crate::recipe::FoundRecipe;
use crate::split::Split;
use cell::{Cell, cells, check_recipe};
use files::files;
use record::CompareRecord;
use stored::StoredCell;
use train::{CellTrainer, clear};

pub use method::PruningMethod;
pub use report::{ComparedMethods, MethodResult, PairedMethods, SeedResult};

/// A comparison of methods that has not begun, or goes on where it was.
#[derive(Debug, Clone)]
pub struct MethodComparison {
    input: InputNetwork,
    data: Data,
    recipe: FoundRecipe,
    folder: PathBuf,
    methods: Vec<PruningMethod>,
    ratios: Vec<f64>,
    seeds: Vec<u64>,
    threads: usize,
}

/// A finished cell with its errors.
struct Finished {
    cell: Cell,
    stored: StoredCell,
    scores: Scores,
}

impl MethodComparison {
    /// Compares the methods on a network, as `recipe` says but for its search and its seed, in `folder`, where an earlier comparison goes
    /// on. All methods, ratios of 20, 50 and 100 and seed 0 where nothing else is said.
    pub fn new(
        network: impl Into<InputNetwork>,
        data: Data,
        recipe: impl Into<FoundRecipe>,
        folder: impl Into<PathBuf>,
    ) -> Self {
        Self {
            input: network.into(),
            data,
            recipe: recipe.into(),
            folder: folder.into(),
            methods: PruningMethod::ALL.into(),
            ratios: vec![20.0, 50.0, 100.0],
            seeds: vec![0],
            threads: 0,
        }
    }

    /// The methods. The others are held against the first.
    #[must_use]
    pub fn methods(mut self, methods: impl Into<Vec<PruningMethod>>) -> Self {
        self.methods = methods.into();
        self
    }

    /// Weights of the network over weights that are to be left.
    #[must_use]
    pub fn ratios(mut self, ratios: impl Into<Vec<f64>>) -> Self {
        self.ratios = ratios.into();
        self
    }

    /// The seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: impl Into<Vec<u64>>) -> Self {
        self.seeds = seeds.into();
        self
    }

    /// Uses this many threads; 0, as where nothing is said, is one for each core. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Trains the cells that are not finished, and puts all together.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`] where the observer stops it; methods, ratios or seeds that are at fault; a folder with a comparison
    /// of another network, data set or recipe, or one that another process is at; a recipe that a method cannot follow.
    pub fn run(self, observer: &mut dyn Observer) -> Result<ComparedMethods, PipelineError> {
        let lock = FolderLock::new(&self.folder);
        if self.folder.is_dir() {
            lock.take()?;
        }
        self.input.notes.iter().for_each(|note| observer.note(note));
        self.input.network.check_dense()?;
        let dense_weights = self.input.network.nonzeros();
        let network = folded(self.input.network.clone());
        let cells = cells(&self.methods, &self.ratios, &self.seeds, &network)?;
        let mut base = self.recipe.recipe.clone();
        (base.search, base.seed) = (None, 0);
        // Methods are compared in f32.
        base.quantise_activations = None;
        check_recipe(&base, &cells, dense_weights)?;
        let data_path = self.data.path().map(absolute).transpose()?;
        let data = self.data.clone();
        let samples = data.split(&network, &base, self.threads, observer)?;
        if !samples.has_targets {
            base.learn_from_teacher();
        }
        settle_augmentation(&mut base, &network, &samples, self.threads, observer)?;
        let model = self.input.file.as_ref().map(|file| absolute(&file.path));
        let model = model.transpose()?;
        let record = CompareRecord {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            model: model.clone(),
            network: network_fingerprint(&network),
            data: data_path,
            samples: fingerprint(&samples, &network),
            recipe_source: self.recipe.source.clone(),
            recipe: base.without_data(),
        };
        let mut warnings = self.input.warnings.clone();
        lock.take()?;
        recover(&self.folder)?;
        if let Some(warning) = record.write_or_check(&self.folder)? {
            observer.note(&warning);
            warnings.push(warning);
        }
        let dense = Scores::of(&network, WeightMode::Dense, &samples, self.threads)?;
        if dense.saw_validation() {
            observer.note(SEEN);
            warnings.push(SEEN.to_owned());
        }
        TrainingChoices {
            recipe: &base,
            network: &network,
            pruned: None,
            samples: Some(&samples),
            threads: self.threads,
        }
        .tell(observer)?;
        let to_train = with_batch_normalisation(&network, &base, &samples, observer)?;
        let mut trainer = CellTrainer {
            network: &to_train,
            dense: dense_weights,
            base: &base,
            record: &record,
            samples: &samples,
            folder: &self.folder,
            metadata: &self.input.metadata,
            threads: self.threads,
            posterior: None,
        };
        let mut finished = vec![];
        for (number, cell) in cells.iter().enumerate() {
            let folder = cell.folder(&self.folder);
            recover(&folder)?;
            let recipe = cell.recipe(&base, dense_weights)?;
            let all = network.original_weights();
            let stored = match StoredCell::read(&folder, cell, &record, &recipe, all)? {
                Some(stored) => {
                    // What an end between the result and this would have left.
                    clear(&folder)?;
                    stored
                }
                None => {
                    let (number, of, weights) = (number + 1, cells.len(), count(cell.weights));
                    observer.note(&format!(
                        "cell {number} of {of}: {cell}: to {weights} weights"
                    ));
                    trainer.train(cell, observer)?
                }
            };
            let scores = stored.scores(&folder, &dense)?;
            finished.push(Finished {
                cell: *cell,
                stored,
                scores,
            });
        }
        self.report(&network, model, warnings, &samples, &dense, &finished)
    }

    /// Puts the finished cells together.
    fn report(
        &self,
        network: &Network,
        model: Option<PathBuf>,
        warnings: Vec<String>,
        samples: &Split,
        dense: &Scores,
        finished: &[Finished],
    ) -> Result<ComparedMethods, PipelineError> {
        let (mut results, mut paired) = (vec![], vec![]);
        let all = network.original_weights();
        for &asked in &self.ratios {
            let of = |method: PruningMethod| -> Vec<&Finished> {
                let is = |f: &&Finished| f.cell.ratio == asked && f.cell.method == method;
                finished.iter().filter(is).collect()
            };
            let reference = self.methods.first().map_or(vec![], |&first| of(first));
            for (place, &method) in self.methods.iter().enumerate() {
                let cells = of(method);
                results.extend(self.result(&cells, dense, all)?);
                if place > 0 {
                    paired.extend(pair(&reference, &cells));
                }
            }
        }
        let test = dense.test.as_ref().map(|test| test.score.into());
        Ok(ComparedMethods {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            network: network.graph.name.clone(),
            model,
            warnings,
            data: samples.describe.clone(),
            recipe_source: self.recipe.source.clone(),
            weights: all,
            seeds: self.seeds.clone(),
            part: match test {
                Some(_) => Part::Test,
                None => Part::Validation,
            },
            validation: dense.validation.score.into(),
            test,
            results,
            paired,
        })
    }

    /// What a method gave at a ratio, from the cells of its seeds; `None` without one.
    fn result(
        &self,
        cells: &[&Finished],
        dense: &Scores,
        all: usize,
    ) -> Result<Option<MethodResult>, PipelineError> {
        let pairs: Vec<_> = cells.iter().map(|f| (dense, &f.scores)).collect();
        let (Some(first), Some((validation, test))) = (cells.first(), pooled(&pairs)) else {
            return Ok(None);
        };
        let mut seeds = vec![];
        for f in cells {
            let (validation, test) = dense.beside(&f.scores);
            let (cell, stored) = (&f.cell, &f.stored);
            let files = files(&cell.folder(&self.folder), &stored.recipe)?;
            seeds.push(SeedResult {
                seed: cell.seed,
                left: stored.left,
                ratio: ratio(all, stored.left),
                bytes: stored.bytes,
                posterior_weights: stored.posterior_weights,
                training_seconds: stored.training_seconds,
                validation,
                test,
                file: files.measured()?.to_owned(),
                packed: files.packed,
            });
        }
        let left = mean_left(cells);
        let bytes: Option<Vec<f64>> = (cells.iter())
            .map(|f| f.stored.bytes.map(|bytes| bytes as f64))
            .collect();
        Ok(Some(MethodResult {
            method: first.cell.method,
            asked_ratio: first.cell.ratio,
            asked_weights: first.cell.weights,
            left,
            ratio: (left > 0.0).then(|| all as f64 / left),
            bytes: bytes.map(|bytes| bytes.iter().sum::<f64>() / bytes.len() as f64),
            validation,
            test,
            recipe: first.stored.recipe.clone(),
            seeds,
        }))
    }
}

/// A method beside the first one; `None` without a cell.
fn pair(reference: &[&Finished], cells: &[&Finished]) -> Option<PairedMethods> {
    let pairs = reference.iter().zip(cells);
    let pairs: Vec<_> = pairs.map(|(r, c)| (&r.scores, &c.scores)).collect();
    let (validation, test) = pooled(&pairs)?;
    let (of_reference, of_method) = (reference.first()?, cells.first()?);
    Some(PairedMethods {
        method: of_method.cell.method,
        reference: of_reference.cell.method,
        asked_ratio: of_method.cell.ratio,
        left: mean_left(cells),
        reference_left: mean_left(reference),
        validation,
        test,
    })
}

/// Scores over the seeds on the validation and on the test samples.
fn pooled(pairs: &[(&Scores, &Scores)]) -> Option<(PooledScore, Option<PooledScore>)> {
    let validation: Vec<_> = (pairs.iter())
        .map(|(a, b)| (&a.validation, &b.validation))
        .collect();
    let test: Option<Vec<(&SampleErrors, &SampleErrors)>> = (pairs.iter())
        .map(|(a, b)| a.test.as_ref().zip(b.test.as_ref()))
        .collect();
    let test = test.and_then(|test| PooledScore::new(&test));
    Some((PooledScore::new(&validation)?, test))
}

fn mean_left(cells: &[&Finished]) -> f64 {
    let left: f64 = cells.iter().map(|f| f.stored.left as f64).sum();
    left / cells.len().max(1) as f64
}

/// A fingerprint of all samples of a comparison.
fn fingerprint(samples: &Split, network: &Network) -> String {
    let (validation, test) = samples.measured();
    let training = &samples.training;
    let sets = [training.train(), training.validation(), validation];
    samples_fingerprint(sets.into_iter().chain(test), &network.graph)
}
