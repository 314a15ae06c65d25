//! From a dense network, data and a recipe to a sparse network.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Calibration, Pruning, SEEN};
use sparsevd_compressor::trainer::{Observer, RunOptions, Trainer};
use sparsevd_compressor::{CompressError, Magnitude};
use sparsevd_model::Network;
use sparsevd_onnx::ImportOptions;
use sparsevd_runtime::WeightMode;

use crate::calibrate::calibrate;
use crate::calibrate::inputs::FirstSamples;
use crate::choices::TrainingChoices;
use crate::compressed::{Compressed, Origin};
use crate::data::Data;
use crate::error::PipelineError;
use crate::input::InputNetwork;
use crate::invariance::settle_augmentation;
use crate::measure::Scores;
use crate::normalised::with_batch_normalisation;
use crate::pruning::{Pruned, finish, folded, prune, remove_zeros};
use crate::quantise_activations::quantise_at_end;
use crate::recipe::{DEFAULT_GRIDS, FoundRecipe, ONLY_FINE_TUNING};
use crate::run_folder::{RecordedRun, RunFolder, record};
use crate::search::search;
use crate::split::Split;
use crate::training::{Start, train};

/// A compression that has not begun.
#[derive(Debug, Clone)]
pub struct Compression {
    input: InputNetwork,
    data: Option<Data>,
    recipe: FoundRecipe,
    pruning: Option<Pruning>,
    onto_grids: bool,
    folder: Option<RunFolder>,
    threads: usize,
    budget: Option<f64>,
    bench: bool,
}

impl Compression {
    /// Compresses `network` as `recipe` says, with validation samples held back from `data`.
    ///
    /// Data in bytes and the columns of a table become the network's input by the preprocessing of its graph, which must be set.
    /// Without data a network can only be [pruned](Self::pruned_by).
    pub fn new(
        network: impl Into<InputNetwork>,
        data: impl Into<Option<Data>>,
        recipe: impl Into<FoundRecipe>,
    ) -> Self {
        Self {
            input: network.into(),
            data: data.into(),
            recipe: recipe.into(),
            pruning: None,
            onto_grids: false,
            folder: None,
            threads: 0,
            budget: None,
            bench: true,
        }
    }

    /// Trains a network onto grids by [`Recipe::default_for_grids`]. Its zeros stay zero.
    pub fn onto_grids(network: impl Into<InputNetwork>, data: Data) -> Self {
        let mut input = network.into();
        remove_zeros(&mut input.network);
        let recipe = FoundRecipe {
            recipe: Recipe::default_for_grids(&input.network),
            source: DEFAULT_GRIDS.into(),
        };
        Self {
            onto_grids: true,
            ..Self::new(input, data, recipe)
        }
    }

    /// Goes on with the run that left a checkpoint in a folder, with the network, data and recipe that it began with. It ends
    /// with the same bytes as if it had never stopped.
    ///
    /// The folder names the files of network and data. A run whose network or data came from memory goes on by
    /// [`RunFolder::resume`] in [`Self::in_folder`].
    ///
    /// # Errors
    /// A folder without a record or checkpoint; files that are no longer where they were.
    pub fn resume(folder: impl Into<PathBuf>) -> Result<Self, PipelineError> {
        let run = RecordedRun::open(folder)?;
        let folder = RunFolder::resume(&run.folder)?;
        let mut network = run.model().clone().read(&ImportOptions::default())?;
        let record = run.record;
        let data = Data::load_for(&record.data, record.preprocessing.as_ref())?;
        network.network.graph.preprocessing = record.preprocessing;
        let recipe = FoundRecipe {
            recipe: record.recipe,
            source: record.recipe_source,
        };
        Ok(Self::new(network, data, recipe).in_folder(folder))
    }

    /// Removes weights before any training. The phases of the recipe must then be [`FoundRecipe::fine_tuning`]; without data,
    /// or with no phase, there is no training. Layers that the recipe keeps dense lose no weights here either.
    #[must_use]
    pub fn pruned_by(mut self, pruning: impl Into<Option<Pruning>>) -> Self {
        self.pruning = pruning.into();
        let kept = &self.recipe.recipe.keep_dense;
        match &mut self.pruning {
            Some(Pruning::Magnitude(Magnitude { keep_dense, .. }))
            | Some(Pruning::Calibration(Calibration { keep_dense, .. })) => {
                keep_dense.extend(kept.iter().cloned());
                keep_dense.sort_unstable();
                keep_dense.dedup();
            }
            Some(Pruning::Posterior { .. }) | None => {}
        }
        self
    }

    /// Keeps checkpoints in a folder, so that the run can go on after an interruption.
    #[must_use]
    pub fn in_folder(mut self, folder: RunFolder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Uses this many threads; 0, as where nothing is said, is one for each core. The result does not depend on it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Ends the search of a recipe before the next try once training has taken this many minutes. The result depends on it. A recipe
    /// without a search is refused.
    #[must_use]
    pub fn budget(mut self, minutes: impl Into<Option<f64>>) -> Self {
        self.budget = minutes.into();
        self
    }

    /// Whether the sparse and the dense plan are timed for the report, as where nothing is said. Where they are not, [`Report::timings`] is
    /// `None`. The files of the network do not depend on it.
    ///
    /// [`Report::timings`]: sparsevd_compressor::report::Report::timings
    #[must_use]
    pub fn bench(mut self, bench: bool) -> Self {
        self.bench = bench;
        self
    }

    /// Measures the dense network, prunes, trains, and removes what no output depends on.
    ///
    /// # Errors
    /// [`PipelineError::Interrupted`] where the observer stops the run; settings, a network, data or files that are at fault.
    pub fn run(self, observer: &mut dyn Observer) -> Result<Compressed, PipelineError> {
        self.check()?;
        let Self {
            input,
            data,
            mut recipe,
            mut pruning,
            onto_grids,
            folder,
            threads,
            budget,
            bench,
        } = self;
        if let Some(minutes) = budget {
            check_budget(minutes, &recipe.recipe)?;
        }
        input.notes.iter().for_each(|note| observer.note(note));
        let mut pruned = match &pruning {
            Some(pruning) => prune(pruning, &input.network)?,
            None => None,
        };
        let dense = folded(input.network);
        let data_path = data.as_ref().and_then(Data::path).map(PathBuf::from);
        let samples = data
            .map(|data| data.split(&dense, &recipe.recipe, threads, observer))
            .transpose();
        let samples = samples.map_err(|error| match (error, &folder) {
            // A run that was to go on still can.
            (PipelineError::Interrupted { .. }, Some(folder)) if folder.is_resumed() => {
                let folder = Some(folder.path().to_owned());
                PipelineError::Interrupted { folder }
            }
            (error, _) => error,
        })?;
        let answered = samples.as_ref().is_some_and(|s| !s.has_targets);
        if answered {
            recipe.recipe.learn_from_teacher();
        }
        let before = samples
            .as_ref()
            .map(|samples| Scores::of(&dense, WeightMode::Dense, samples, threads))
            .transpose()?;
        if let (Some(Pruning::Calibration(settings)), Some(samples)) = (&mut pruning, &samples) {
            settings.samples = settings.samples.min(samples.training.train().len());
            let inputs = FirstSamples::new(&dense, samples.training.train(), settings.samples);
            let network = calibrate(&dense, settings, &inputs, threads, observer)?;
            pruned = Some(Pruned::without_sigmas(network));
        }
        for note in pruned.iter().flat_map(|pruned| &pruned.notes) {
            observer.note(note);
        }
        if let Some(before @ Scores { validation, test }) = before.as_ref().filter(|_| !answered) {
            let name = match &input.file {
                Some(file) => file.path.display().to_string(),
                None => dense.graph.name.clone(),
            };
            let test = test.as_ref();
            let test = test.map_or(String::new(), |test| format!(", test {}", test.score));
            let validation = validation.score;
            observer.note(&format!("{name} as it came: validation {validation}{test}"));
            if before.saw_validation() {
                observer.note(SEEN);
            }
        }
        if let Some(samples) = &samples
            && !recipe.recipe.phases.is_empty()
        {
            settle_augmentation(&mut recipe.recipe, &dense, samples, threads, observer)?;
        }
        let mut warnings = input.warnings;
        if let (Some(pruned), Some(samples)) = (&pruned, &samples)
            && recipe.source == DEFAULT_GRIDS
            && !recipe.recipe.phases.is_empty()
            && let Some(why) = untrainable(&pruned.network, &recipe.recipe, samples)?
        {
            let warning = format!("weights are rounded to grids without training: {why}");
            observer.note(&warning);
            warnings.push(warning);
            recipe.recipe.phases.clear();
        }
        TrainingChoices {
            recipe: &recipe.recipe,
            network: &dense,
            pruned: pruned.as_ref().map(|pruned| &pruned.network),
            samples: samples.as_ref(),
            threads,
        }
        .tell(observer)?;
        let trained = match &samples {
            Some(samples) if !recipe.recipe.phases.is_empty() => {
                let record = match (&input.file, &data_path) {
                    (Some(file), Some(data)) => {
                        let preprocessing = dense.graph.preprocessing.clone();
                        let task = file.task(onto_grids)?;
                        Some(record(task, data, &recipe, preprocessing)?)
                    }
                    _ => None,
                };
                let plan = &recipe.recipe;
                let network = pruned.as_ref().map_or(&dense, |pruned| &pruned.network);
                let network = &*with_batch_normalisation(network, plan, samples, observer)?;
                let folder = folder.as_ref();
                let (training, record) = (samples.training.clone(), record.as_ref());
                if let (true, Some(folder), Some(record)) = (onto_grids, folder, record) {
                    folder.check_data(record)?;
                }
                Some(if plan.search.is_some() {
                    let limits = (threads, budget);
                    let searched =
                        search(network, plan, training, folder, record, limits, observer)?;
                    (searched.trainer, Some(searched.report))
                } else {
                    let sigmas = pruned.as_ref().map(|pruned| &pruned.sigmas);
                    let teacher = match pruned {
                        Some(_) => Some(with_batch_normalisation(&dense, plan, samples, observer)?),
                        None => None,
                    };
                    let start = Start {
                        network,
                        teacher: teacher.as_deref(),
                        sigmas,
                        input_grids: None,
                    };
                    let trainer = train(start, plan, training, folder, record, threads, observer)?;
                    (trainer, None)
                })
            }
            _ => None,
        };
        let (pruned, sigmas) = match pruned {
            Some(pruned) => (Some(pruned.network), pruned.sigmas),
            None => (None, BTreeMap::new()),
        };
        let trains = trained.is_some();
        let (network, history, search) = match trained {
            Some((trainer, search)) => {
                recipe.recipe = trainer.recipe().clone();
                (trainer.network()?, trainer.history().to_vec(), search)
            }
            None => (pruned.unwrap_or_else(|| dense.clone()), vec![], None),
        };
        let folder = folder.filter(|_| trains);
        let mut network = finish(network);
        let (mut int8, mut int8_seconds) = (None, 0.0);
        if let (Some(settings), Some(samples)) = (&recipe.recipe.quantise_activations, &samples) {
            let run = (samples, &recipe.recipe, folder.as_ref());
            // Of a network that was pruned before, a packed file is written wherever one can be.
            let one_scale = recipe.recipe.ends_on_grids() || pruning.is_some();
            let done = quantise_at_end(settings, network, run, one_scale, threads, observer)?;
            (network, int8, int8_seconds) =
                (done.network, Some(done.report), done.training_seconds);
        }
        Ok(Compressed {
            network,
            history,
            search,
            int8,
            int8_seconds,
            before,
            recipe,
            pruning,
            dense,
            sigmas,
            samples,
            threads,
            bench,
            folder: folder.map(|f| f.path().to_owned()),
            origin: Origin {
                model: input.file.map(|file| file.path),
                warnings,
                metadata: input.metadata,
            },
        })
    }

    /// What can be refused before any work.
    fn check(&self) -> Result<(), PipelineError> {
        let kept = &self.recipe.recipe.keep_dense;
        if let (Some(Pruning::Posterior { .. }), Some(layer)) = (&self.pruning, kept.first()) {
            let expected = "none beside a posterior, which says what goes";
            return Err(PipelineError::invalid("keep_dense", expected, layer));
        }
        if self.recipe.recipe.quantise_activations.is_some() && self.data.is_none() {
            let expected = "one with inputs to find the ranges of int8 layers on";
            return Err(PipelineError::invalid("data set", expected, "none"));
        }
        // Training and pruning are dense.
        self.input.network.check_dense()?;
        match &self.pruning {
            None | Some(Pruning::Calibration(_)) if self.data.is_none() => {
                return Err(PipelineError::invalid(
                    "data set",
                    "one with inputs to train or calibrate on",
                    "none",
                ));
            }
            None => self.recipe.recipe.check()?,
            Some(_) => {
                let (_, left_out) = self.recipe.clone().fine_tuning();
                if !left_out.is_empty() {
                    return Err(PipelineError::invalid(
                        &self.recipe.source,
                        ONLY_FINE_TUNING,
                        left_out.join(", "),
                    ));
                }
            }
        }
        let trains = self.data.is_some() && !self.recipe.recipe.phases.is_empty();
        match &self.folder {
            Some(folder) if trains => {
                folder.check()?;
                folder.check_task(self.onto_grids)
            }
            _ => Ok(()),
        }
    }
}

/// Why the trainer does not take a network, where it does not.
fn untrainable(
    network: &Network,
    recipe: &Recipe,
    samples: &Split,
) -> Result<Option<CompressError>, CompressError> {
    let options = RunOptions::default();
    match Trainer::new(network, recipe.clone(), samples.training.clone(), &options) {
        Ok(_) => Ok(None),
        Err(error @ CompressError::Unsupported { .. }) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// Refuses a budget that is no number of minutes, and one for a recipe that does not search.
fn check_budget(minutes: f64, recipe: &Recipe) -> Result<(), PipelineError> {
    if minutes.is_nan() || minutes < 0.0 {
        let expected = "minutes, 0 or more";
        return Err(PipelineError::invalid(
            "budget",
            expected,
            minutes.to_string(),
        ));
    }
    if recipe.search.is_none() {
        let expected = "a recipe with a search, or a goal";
        return Err(PipelineError::invalid("budget", expected, "neither"));
    }
    Ok(())
}
