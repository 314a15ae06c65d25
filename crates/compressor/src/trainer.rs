//! The trainer: runs the phases of a recipe over the training data, epoch by epoch.

pub(crate) mod average;
mod checks;
mod epoch;
mod evaluation;
mod folding;
mod fork;
mod form;
mod grid_search;
pub(crate) mod history;
mod inputs;
mod lines;
mod observer;
mod prediction;
mod pruning;
mod resume;
mod schedule;
pub(crate) mod snapshot;
mod teacher;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use sparsevd_kernels::Isa;
use sparsevd_model::{Int8Grid, Int8Input, Network, Node, Op, Shape};

use crate::checkpoint::{self, Begun};
use crate::compact::compact;
use crate::data::TrainingData;
use crate::engine::{Engine, scores};
use crate::error::CompressError;
use crate::export;
use crate::keep_dense;
use crate::layer::Layer;
use crate::objective::{
    Distillation, Loss, Objective, SampleErrors, Scaled, Targets, Weighted, sample_errors,
};
use crate::plain_tensor::PlainTensor;
use crate::quantise;
use crate::recipe::{Method, Phase, Recipe};
use crate::state::State;
use crate::units;

use average::Average;
use checks::{
    check_augmentation, check_classes, check_ids, check_lengths, check_normalisation,
    check_smoothing, check_weights,
};
use form::{Fold, Form};
pub use history::{EpochRecord, LayerRecord};
pub use observer::{Observer, Silent};
pub use snapshot::{Position, Snapshot};
use teacher::Teacher;

/// Least error that a result is allowed where the noise of targets is set by it, in units of their variance: noise of zero would
/// keep all weights.
const LEAST_NOISE: f64 = 1e-6;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All phases are done.
    Done,
    /// It was asked to stop; a checkpoint was written where there is a run folder.
    Interrupted,
}

/// A run: a network, its recipe and data, and its progress.
pub struct Trainer {
    /// The network that the run began with.
    came: Arc<Form>,
    /// The same as quantise phases train it, where that is another.
    folded: Option<Arc<Form>>,
    /// Whether the state is one of `folded`.
    is_folded: bool,
    /// Standard deviation of targets that are numbers.
    spread: Option<f64>,
    recipe: Recipe,
    data: TrainingData,
    engine: Engine<f32>,
    position: Position,
    history: Vec<EpochRecord>,
    /// Sum of losses and number of errors of the current epoch so far.
    sums: [f64; 2],
    /// Of the phase that keeps one.
    average: Average,
    /// What an output of 1 in training stands for; see [`units`].
    unit: f32,
    /// How much each class counts in the loss, where the recipe says it.
    class_weights: Option<Arc<[f64]>>,
    /// The recipe that the run began with.
    begun_by: Recipe,
    /// What else it began with, once it was asked for. Shared with the forks of a run.
    begun: Arc<OnceLock<Begun>>,
    /// Shapes of the values of the network that came.
    shapes: HashMap<String, Shape>,
    /// The state of the network whose outputs distillation goes towards, where it is not the one that the run began with.
    taught_by: Option<Arc<State<f32>>>,
    /// Shared with the forks of a run.
    teacher: Option<Arc<Teacher>>,
    /// Mean loss of an epoch above which the run has diverged, where it is above twice the dense network's too.
    divergence: f64,
    isa: Isa,
    pool: Option<Arc<rayon::ThreadPool>>,
    run_folder: Option<PathBuf>,
}

/// Threads and files of a run; nothing here changes its result.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Threads; 0 takes one per core.
    pub threads: usize,
    /// Folder for checkpoints and frames; created where absent.
    pub run_folder: Option<PathBuf>,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// A recipe out of range, a network the trainer does not support, targets that are not those of the network's outputs, a run
    /// folder that cannot be made.
    pub fn new(
        network: &Network,
        recipe: Recipe,
        data: TrainingData,
        options: &RunOptions,
    ) -> Result<Self, CompressError> {
        recipe.check()?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let pool = if threads > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            Some(Arc::new(pool.map_err(|e| {
                CompressError::setting("threads", "a number the system can start", e)
            })?))
        } else {
            None
        };
        if let Some(folder) = &options.run_folder {
            checkpoint::make_folder(folder)?;
        }
        let isa = Isa::from_env().map_err(|e| {
            CompressError::setting("SPARSE_ISA", "an instruction set of this machine", e)
        })?;
        if network.graph.inputs.len() != 1 && network.graph.free_symbol().is_none() {
            let got = network.graph.inputs.len();
            return Err(CompressError::setting("network", "one input", got));
        }
        // What is one element or more in a free dimension makes no difference to channels.
        let at_one = network.graph.free_symbol().map(|_| network.at_length(1));
        let shapes = at_one.as_ref().unwrap_or(network).shapes()?;
        let shapes = shapes.into_iter();
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape));
        let shapes = shapes.collect();
        let unit = units::output_unit(network, &data.train().targets());
        let class_weights = recipe.class_weights;
        let class_weights = class_weights.map(|weights| weights.of(&data.train().targets()));
        let mut state = State::from_network(&units::scale_outputs(network.clone(), 1.0 / unit))?;
        if recipe.freeze_embeddings {
            let tables = network.graph.nodes.iter();
            let tables = tables.filter(|node| matches!(node.op, Op::Embedding(_)));
            let tables: Vec<&str> = tables.map(|node| node.name.as_str()).collect();
            for tensor in &mut state.plain {
                if tables.contains(&tensor.node.as_str()) {
                    tensor.freeze();
                }
            }
        }
        let kept = keep_dense::weights_of(network, &recipe.keep_dense)?;
        for layer in &mut state.layers {
            layer.keep_dense = kept.contains(layer.weight.as_str());
        }
        let mut engine = Engine::new(
            &network.graph,
            state.clone(),
            recipe.alpha,
            isa,
            pool.clone(),
        )?;
        engine.skip_zeros(recipe.skip_zeros);
        for samples in [data.train(), data.validation()] {
            let longest = (0..samples.len()).map(|i| samples.length(i)).max();
            engine.set_length(longest.unwrap_or(1))?;
        }
        let came = Form {
            network: network.clone(),
            dense: state,
        };
        let mut run = Self {
            folded: came.folded(),
            came: Arc::new(came),
            is_folded: false,
            spread: units::deviation(&data.train().targets()),
            begun_by: recipe.clone(),
            begun: Arc::default(),
            recipe,
            data,
            engine,
            position: Position::default(),
            history: vec![],
            sums: [0.0; 2],
            average: Average::default(),
            unit,
            class_weights: class_weights.transpose()?,
            shapes,
            taught_by: None,
            teacher: None,
            divergence: f64::INFINITY,
            isa,
            pool,
            run_folder: options.run_folder.clone(),
        };
        check_weights(&run.came.dense.layers, &run.recipe)?;
        check_augmentation(&network.graph, &run.recipe)?;
        check_normalisation(network, &run.recipe)?;
        for samples in [run.data.train(), run.data.validation()] {
            check_ids(network, samples)?;
        }
        check_lengths(run.data.train(), &run.recipe)?;
        let targets = run.data.train().targets();
        let loss = run.recipe.loss.unwrap_or_else(|| Loss::of(&targets));
        check_smoothing(loss, &run.recipe)?;
        let graph = &network.graph;
        let makes_output = |n: &&Node| Some(&n.name) == graph.outputs.first();
        let last = graph.nodes.iter().find(makes_output);
        if let (Some(_), Some(last), false) = (scores(graph), last, loss == Loss::CrossEntropy) {
            return Err(CompressError::Unsupported {
                node: graph.outputs[0].clone(),
                op: last.op.name(),
                what: "it under another loss than the cross-entropy".into(),
            });
        }
        let (objective, outputs) = (run.plain_objective(), run.engine.outputs());
        for samples in [run.data.train(), run.data.validation()] {
            objective.check(&samples.targets(), outputs)?;
        }
        check_classes(run.data.train())?;
        if let Some(noise) = run.noise_of_targets() {
            run.recipe.target_deviation.get_or_insert(noise);
        }
        let objective = run.plain_objective();
        run.divergence = objective.divergence(&run.data.train().targets(), outputs);
        Ok(run)
    }

    /// Gives weights, by their names, the deviations of a posterior that was trained elsewhere: a quantise phase takes its scales from
    /// them.
    ///
    /// # Errors
    /// None for a state that is valid already.
    pub fn set_sigmas(&mut self, sigmas: &BTreeMap<String, f64>) -> Result<(), CompressError> {
        let last = units::last_layer(self.original()).and_then(Op::weight);
        let last = last.map(str::to_owned);
        let unit = f64::from(self.unit);
        let folds = self.folds();
        self.replace_state(|state| {
            for layer in &mut state.layers {
                let sigma = sigmas.get(&layer.weight).filter(|sigma| **sigma > 0.0);
                if let Some(sigma) = sigma {
                    let scaled = last.as_ref() == Some(&layer.weight);
                    let sigma = if scaled { sigma / unit } else { *sigma };
                    let normalisation = Fold::of(&folds, &layer.node, &state.normalisations);
                    layer.set_sigma(sigma, normalisation);
                }
            }
        })
    }

    /// Rounds the inputs of layers, by the names of their nodes, to the numbers of bytes from now on, as where they run in int8. Checkpoints are those of a
    /// run with these grids; a teacher rounds nothing.
    ///
    /// # Errors
    /// A name that no layer has.
    pub fn set_input_grids(
        &mut self,
        grids: &BTreeMap<String, Int8Grid>,
    ) -> Result<(), CompressError> {
        let is_layer = |name: &&String| self.layers().iter().any(|l| l.node == **name);
        if let Some(name) = grids.keys().find(|name| !is_layer(name)) {
            let expected = "names of layers";
            return Err(CompressError::setting("input grids", expected, name));
        }
        let inputs = grids.iter();
        let inputs = inputs.map(|(node, grid)| (node.clone(), Int8Input::from(*grid)));
        let inputs: BTreeMap<_, _> = inputs.collect();
        for form in [Some(&mut self.came), self.folded.as_mut()]
            .into_iter()
            .flatten()
        {
            Arc::make_mut(form).network.int8.inputs.clone_from(&inputs);
        }
        self.begun = Arc::default();
        self.replace_state(|state| {
            for layer in &mut state.layers {
                layer.input_grid = grids.get(&layer.node).copied();
            }
        })
    }

    /// Lets phases that distil learn from another network of the same graph than the one that the run begins with: from the dense one,
    /// where that was pruned already. A checkpoint does not know of it.
    ///
    /// # Errors
    /// A network of another graph.
    pub fn set_teacher(&mut self, network: &Network) -> Result<(), CompressError> {
        let graph = &self.original().graph;
        if network.graph.nodes != graph.nodes || network.graph.inputs != graph.inputs {
            let expected = "a network of the same nodes";
            let got = &network.graph.name;
            return Err(CompressError::setting("teacher", expected, got));
        }
        let scaled = units::scale_outputs(network.clone(), 1.0 / self.unit);
        let mut state = State::from_network(&scaled)?;
        // It does not train.
        state.plain.iter_mut().for_each(PlainTensor::freeze);
        (self.taught_by, self.teacher) = (Some(Arc::new(state)), None);
        Ok(())
    }

    /// Progress of the run.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The epochs so far.
    pub fn history(&self) -> &[EpochRecord] {
        &self.history
    }

    /// The recipe; that of a regression with the deviation of the targets' noise that the run takes.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The state of the weighted nodes.
    pub fn layers(&self) -> &[Layer<f32>] {
        self.engine.layers()
    }

    /// The trainable state of all nodes.
    pub fn state(&self) -> &State<f32> {
        self.engine.state()
    }

    /// The network that the run began with.
    pub fn original(&self) -> &Network {
        &self.came.network
    }

    /// Trains until all phases are done or [`Observer::stop`] says so.
    ///
    /// # Errors
    /// A loss that diverges, a checkpoint that cannot be written.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome, CompressError> {
        if self.run_until(self.recipe.phases.len(), observer)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
        self.remove_over(self.threshold())?;
        self.keep_frame(0.0)?;
        self.save()?;
        Ok(Outcome::Done)
    }

    /// Trains until the first `phases` phases are done or [`Observer::stop`] says so. Weights over the threshold stay.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_until(
        &mut self,
        phases: usize,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        observer.begin(&self.recipe, self.data.train().len(), self.position);
        if self.position == Position::default() {
            self.keep_frame(0.0)?;
        }
        let end = phases.min(self.recipe.phases.len());
        while self.position.phase < end {
            let phase = self.recipe.phases[self.position.phase].clone();
            observer.phase(self.position.phase + 1, self.recipe.phases.len(), &phase);
            if !self.position.started {
                self.start_phase(&phase)?;
            }
            let outcome = if self.teach(&phase, observer)? == Outcome::Interrupted {
                Outcome::Interrupted
            } else if phase.tries_grids() {
                self.search_grid(&phase, observer)?
            } else {
                self.epochs(&phase, observer)?
            };
            if outcome == Outcome::Interrupted {
                self.save()?;
                return Ok(outcome);
            }
            self.take_average()?;
            if let (Method::SparseVd, Some(weights)) = (phase.method, phase.weights) {
                self.remove(&pruning::lowest_rates(self.engine.layers(), weights))?;
                self.save()?;
            }
            if phase.method == Method::Quantise {
                // Weights that were rounded to zero are removed.
                self.remove_over(self.threshold())?;
            }
            if phase.tries_grids() {
                self.keep_frame(0.0)?;
            }
            if let (Method::SparseVd, Some(folder)) = (phase.method, &self.run_folder) {
                checkpoint::keep_posterior(folder)?;
            }
            self.position.phase += 1;
            (self.position.epoch, self.position.started) = (0, false);
        }
        if end == 0 {
            // No epoch writes the checkpoint by which a search that begins here goes on.
            self.save()?;
        }
        Ok(Outcome::Done)
    }

    /// Threshold on `log_alpha` at the end of the sparse-vd phases; infinite without a KL term, where rates remove nothing.
    pub fn threshold(&self) -> f64 {
        match self.recipe.has_kl_term() {
            true => self.recipe.threshold,
            false => f64::INFINITY,
        }
    }

    /// The epochs of a phase that are left, each with a checkpoint.
    fn epochs(
        &mut self,
        phase: &Phase,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        while self.position.epoch < phase.epochs {
            if self.epoch(phase, observer)? == Outcome::Interrupted {
                return Ok(Outcome::Interrupted);
            }
            self.save()?;
        }
        Ok(Outcome::Done)
    }

    /// The objective of a phase, for the targets of the training samples.
    fn objective(&self, phase: &Phase) -> Box<dyn Objective<f32>> {
        let distillation = Distillation {
            share: phase.distil,
            temperature: phase.temperature,
        };
        self.objective_with(distillation, phase.label_smoothing)
    }

    /// The objective without a teacher, for labels as they are.
    fn plain_objective(&self) -> Box<dyn Objective<f32>> {
        self.objective_with(Distillation::NONE, 0.0)
    }

    fn objective_with(
        &self,
        distillation: Distillation,
        smoothing: f64,
    ) -> Box<dyn Objective<f32>> {
        let targets = self.data.train().targets();
        let deviation = self.recipe.target_deviation.unwrap_or(1.0);
        let loss = self.recipe.loss.unwrap_or_else(|| Loss::of(&targets));
        let objective = loss.objective(distillation, smoothing, deviation);
        let weights = self.class_weights.clone();
        match (self.unit, weights) {
            (_, Some(weights)) => Box::new(Weighted { objective, weights }),
            (1.0, None) => objective,
            (unit, None) => Box::new(Scaled { objective, unit }),
        }
    }

    /// Factor on the learning rate of gradient descent: squared errors in units of the targets' spread have gradients as large as those of classes,
    /// while the deviation of their noise makes them larger by its square.
    fn descent(&self) -> f64 {
        match (self.recipe.target_deviation, self.spread) {
            (Some(deviation), Some(spread)) => (deviation / spread).powi(2),
            _ => 1.0,
        }
    }

    /// Errors of outputs of the engine.
    fn errors(&self, mut outputs: Vec<f32>, targets: &Targets<'_>) -> SampleErrors {
        outputs.iter_mut().for_each(|y| *y *= self.unit);
        sample_errors(&outputs, targets)
    }

    /// Standard deviation of the noise of targets that are numbers, as far as the network that the run begins with can tell:
    /// its mean squared error on the validation samples, at most the variance of the targets, and the error that the result may
    /// have beside it.
    fn noise_of_targets(&mut self) -> Option<f64> {
        let deviation = units::deviation(&self.data.train().targets())?;
        let error = self.validation_score(self.threshold()).error();
        // `min` passes over NaN, which no validation samples give.
        let unexplained = (error / deviation).powi(2).min(1.0);
        let allowed = self.recipe.max_r2_drop().max(LEAST_NOISE);
        Some(deviation * (unexplained + allowed).sqrt())
    }

    /// The network in the form that the state is one of.
    fn form(&self) -> &Form {
        match &self.folded {
            Some(folded) if self.is_folded => folded,
            _ => &self.came,
        }
    }

    /// An engine of a state of the network as it is trained now, with the run's threads.
    fn engine_of(&self, state: State<f32>) -> Result<Engine<f32>, CompressError> {
        self.engine_in(self.form(), state)
    }

    /// An engine of a state of the network in one of its forms.
    fn engine_in(&self, form: &Form, state: State<f32>) -> Result<Engine<f32>, CompressError> {
        let (graph, pool) = (&form.network.graph, self.pool.clone());
        let mut engine = Engine::new(graph, state, self.recipe.alpha, self.isa, pool)?;
        engine.skip_zeros(self.recipe.skip_zeros);
        Ok(engine)
    }

    /// Replaces the state and rebuilds what depends on it.
    fn replace_state(&mut self, change: impl FnOnce(&mut State<f32>)) -> Result<(), CompressError> {
        let mut state = self.engine.state().clone();
        change(&mut state);
        self.engine = self.engine_of(state)?;
        Ok(())
    }

    fn start_phase(&mut self, phase: &Phase) -> Result<(), CompressError> {
        if matches!(phase.method, Method::FineTune | Method::Quantise) {
            self.remove_over(self.threshold())?;
        }
        if phase.method == Method::Quantise {
            self.fold_normalisations()?;
        }
        let granularity = self.recipe.alpha;
        let folds = self.folds();
        self.replace_state(|state| {
            for layer in &mut state.layers {
                match phase.method {
                    Method::SparseVd if !layer.is_variational() => {
                        layer.start_noise(phase.log_sigma2, granularity)
                    }
                    Method::SparseVd => {}
                    Method::Dense | Method::FineTune | Method::Quantise => {
                        let normalisation = Fold::of(&folds, &layer.node, &state.normalisations);
                        layer.stop_noise(normalisation);
                    }
                }
                if phase.method != Method::Quantise {
                    layer.set_scales(None);
                }
            }
            state.reset_moments();
        })?;
        if let (Method::Quantise, [c]) = (phase.method, phase.grid.as_slice()) {
            self.start_grid(*c, phase.bias_step)?;
        }
        if phase.ema_decay > 0.0 {
            self.average = Average::new(self.engine.state());
        }
        (self.position.adam_step, self.position.started) = (0, true);
        Ok(())
    }

    /// Puts the average of the phase, where it kept one, in the parameters' place.
    fn take_average(&mut self) -> Result<(), CompressError> {
        let average = std::mem::take(&mut self.average);
        match average.is_empty() {
            true => Ok(()),
            false => self.replace_state(|state| average.apply(state)),
        }
    }

    /// Puts every layer on the grid of `c` times the median sigma of its survivors; see [`quantise::scales`].
    fn start_grid(&mut self, c: f64, bias_step: f64) -> Result<(), CompressError> {
        let scales = quantise::scales(self.engine.layers(), c, bias_step)?;
        self.replace_state(|state| {
            for (layer, scales) in state.layers.iter_mut().zip(scales) {
                layer.set_scales(Some(scales));
            }
        })
    }

    /// Makes the teacher of a phase that distils, where the one that is there is for other images.
    fn teach(
        &mut self,
        phase: &Phase,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let augmentation = phase.augmentation();
        // Samples of several lengths are answered batch by batch: a batch has one length.
        let few_views =
            augmentation.has_few_views() && self.original().graph.free_symbol().is_none();
        let known = (self.teacher.as_ref()).is_some_and(|t| t.covers(augmentation, few_views));
        if phase.distil == 0.0 || known {
            return Ok(Outcome::Done);
        }
        let state = self.taught_by.as_deref().unwrap_or(&self.came.dense);
        let mut engine = self.engine_in(&self.came, state.clone())?;
        let teacher = if few_views {
            let images = self.data.train();
            observer.note(&format!(
                "computing the dense network's scores of {} images",
                Teacher::samples(images, phase.shift)
            ));
            Teacher::of_shifts(&mut engine, images, phase.shift, &mut || observer.stop())
        } else {
            observer.note("the dense network answers the samples of each step");
            Some(Teacher::of_each_step(engine))
        };
        let Some(teacher) = teacher else {
            return Ok(Outcome::Interrupted);
        };
        self.teacher = Some(Arc::new(teacher));
        Ok(Outcome::Done)
    }

    /// Removes weights over the threshold for good, and dead units with them.
    fn remove_over(&mut self, threshold: f64) -> Result<(), CompressError> {
        self.remove(&pruning::under_threshold(self.engine.layers(), threshold))
    }

    fn remove(&mut self, keep: &[Vec<bool>]) -> Result<(), CompressError> {
        let (graph, shapes) = (self.form().network.graph.clone(), self.shapes.clone());
        // An average has the shape that parameters had as the phase began.
        let shrink = pruning::may_compact(self.engine.layers(), self.recipe.alpha)
            && self.average.is_empty();
        self.replace_state(|state| {
            for (layer, keep) in state.layers.iter_mut().zip(keep) {
                layer.remove(keep);
            }
            if shrink {
                compact(&graph, &mut state.layers, &shapes);
            }
        })
    }

    /// The network as trained: weights over the threshold removed, dead units gone, sparse weights as CSR.
    ///
    /// # Errors
    /// What is left does not make a valid network.
    pub fn network(&self) -> Result<Network, CompressError> {
        let state = self.engine.state();
        let network = export::network(&self.form().network, state, &self.shapes)?;
        Ok(units::scale_outputs(network, self.unit))
    }

    /// Channels, height and width of the input, where it is a map.
    fn image_size(&self) -> Option<[usize; 3]> {
        let shape = self.original().graph.inputs.first()?.shape.dims();
        shape.try_into().ok()
    }
}
