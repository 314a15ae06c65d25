//! The trainer: runs the phases of a recipe over the training data, epoch by epoch.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sparsevd_kernels::Isa;
use sparsevd_model::{Graph, Network};

use crate::checkpoint;
use crate::compact::compact;
use crate::data::{EpochOrder, TrainingData};
use crate::engine::{Batch, Distillation, Engine, Hyper, arg_max};
use crate::error::CompressError;
use crate::export;
use crate::layer::Layer;
use crate::recipe::{Method, Phase, Recipe};
use crate::state::State;
use crate::variational::{Granularity, histogram};

/// Prunings by Fisher information in a phase.
const PRUNINGS: u32 = 200;

/// Progress of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Phase, from 0.
    pub phase: usize,
    /// Epochs of the phase that are done.
    pub epoch: u32,
    /// Steps of the current epoch that are done.
    pub step: u32,
    /// Steps of the run that are done; addresses the noise.
    pub total_steps: u32,
    /// Epochs of the run that are done; addresses order and shifts.
    pub total_epochs: u32,
    /// Steps since Adam's moments were zero.
    pub adam_step: u32,
    /// Whether the phase has been set up.
    pub started: bool,
}

/// One layer at the end of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Node.
    pub node: String,
    /// Weights of the original tensor.
    pub weights: usize,
    /// Weights that survive the recipe's threshold.
    pub left: usize,
    /// Units that are still computed.
    pub units: usize,
    /// Living weights by `log_alpha`, 32 bins of half a nat from -8; empty without noise.
    pub log_alpha_histogram: Vec<u64>,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Phase, from 1.
    pub phase: usize,
    /// What the phase does.
    pub method: Method,
    /// Epoch of the phase, from 1.
    pub epoch: u32,
    /// Mean cross-entropy over the epoch's training samples, in nats.
    pub loss: f64,
    /// Training samples that were wrong under noise, in percent.
    pub train_error: f64,
    /// KL divergence over all living weights at the end of the epoch, in nats; zero without noise.
    pub kl: f64,
    /// Validation images that are wrong without noise, weights over the threshold left out, in percent.
    pub validation_error: f64,
    /// The layers.
    pub layers: Vec<LayerRecord>,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl EpochRecord {
    /// Weights of the original network over weights left.
    pub fn ratio(&self) -> f64 {
        let weights: usize = self.layers.iter().map(|l| l.weights).sum();
        weights as f64 / self.left().max(1) as f64
    }

    /// Weights left.
    pub fn left(&self) -> usize {
        self.layers.iter().map(|l| l.left).sum()
    }
}

/// Receives the events of a run.
pub trait Observer {
    /// A phase begins: its number from 1, how many there are, and its settings.
    fn phase(&mut self, _number: usize, _of: usize, _phase: &Phase) {}
    /// Step `done` of the `of` steps of this epoch is done; `loss` is the mean over the epoch so far.
    fn step(&mut self, _epoch: u32, _done: u32, _of: u32, _loss: f64) {}
    /// An epoch is done.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// A message for the log.
    fn note(&mut self, _text: &str) {}
}

/// An observer that ignores all events.
pub struct Silent;
impl Observer for Silent {}

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
    pub(crate) graph: Graph,
    pub(crate) recipe: Recipe,
    pub(crate) data: TrainingData,
    pub(crate) engine: Engine<f32>,
    pub(crate) position: Position,
    pub(crate) history: Vec<EpochRecord>,
    /// Sum of losses and number of errors of the current epoch so far.
    pub(crate) sums: [f64; 2],
    pub(crate) dense: State<f32>,
    original: Network,
    pixels: HashMap<String, usize>,
    teacher: Option<Teacher>,
    isa: Isa,
    pool: Option<Arc<rayon::ThreadPool>>,
    run_folder: Option<PathBuf>,
}

/// The dense network's scores of every training image in every shift up to `shift`: `[(2 shift + 1)^2][images][classes]`.
struct Teacher {
    shift: u8,
    scores: Vec<f32>,
}

/// Threads and files of a run; nothing here changes its result.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Threads; 0 takes one per core.
    pub threads: usize,
    /// Folder for checkpoints and the arrays of pictures; created where absent.
    pub run_folder: Option<PathBuf>,
}

impl Trainer {
    /// A run at its beginning.
    ///
    /// # Errors
    /// A recipe out of range, a network the trainer does not support, a run folder that cannot be made.
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
        let shapes = network.shapes()?;
        let pixels = shapes.iter().map(|(name, shape)| {
            let pixels = shape.dims().get(1..).map_or(1, |d| d.iter().product());
            ((*name).to_owned(), pixels)
        });
        let pixels = pixels.collect();
        let state = State::from_network(network)?;
        let engine = Engine::new(
            &network.graph,
            state.clone(),
            recipe.alpha,
            isa,
            pool.clone(),
        )?;
        Ok(Self {
            graph: network.graph.clone(),
            recipe,
            data,
            engine,
            position: Position::default(),
            history: vec![],
            sums: [0.0; 2],
            dense: state,
            original: network.clone(),
            pixels,
            teacher: None,
            isa,
            pool,
            run_folder: options.run_folder.clone(),
        })
    }

    /// Progress of the run.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The epochs so far.
    pub fn history(&self) -> &[EpochRecord] {
        &self.history
    }

    /// The recipe.
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
        &self.original
    }

    /// Trains until all phases are done or `stop` is set.
    ///
    /// # Errors
    /// A loss that diverges, a checkpoint that cannot be written.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        while let Some(phase) = self.recipe.phases.get(self.position.phase).cloned() {
            observer.phase(self.position.phase + 1, self.recipe.phases.len(), &phase);
            if !self.position.started {
                self.start_phase(&phase)?;
            }
            self.teach(&phase, observer)?;
            let outcome = if phase.grid.len() > 1 && phase.method == Method::Quantise {
                self.search_grid(&phase, stop, observer)?
            } else {
                self.epochs(&phase, stop, observer)?
            };
            if outcome == Outcome::Interrupted {
                self.save()?;
                return Ok(outcome);
            }
            if phase.method == Method::Quantise {
                // Weights that were rounded to zero are removed.
                self.remove_over(self.recipe.threshold)?;
            }
            if let (Method::SparseVd, Some(folder)) = (phase.method, &self.run_folder) {
                checkpoint::keep_posterior(folder)?;
            }
            self.position.phase += 1;
            (self.position.epoch, self.position.started) = (0, false);
        }
        self.remove_over(self.recipe.threshold)?;
        self.save()?;
        Ok(Outcome::Done)
    }

    /// The epochs of a phase that are left, each with a checkpoint.
    fn epochs(
        &mut self,
        phase: &Phase,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        while self.position.epoch < phase.epochs {
            if self.epoch(phase, stop, observer)? == Outcome::Interrupted {
                return Ok(Outcome::Interrupted);
            }
            self.save()?;
        }
        Ok(Outcome::Done)
    }

    /// Replaces the state and rebuilds what depends on it.
    pub(crate) fn replace_state(
        &mut self,
        change: impl FnOnce(&mut State<f32>),
    ) -> Result<(), CompressError> {
        let mut state = self.engine.state().clone();
        change(&mut state);
        self.engine = Engine::new(
            &self.graph,
            state,
            self.recipe.alpha,
            self.isa,
            self.pool.clone(),
        )?;
        Ok(())
    }

    fn start_phase(&mut self, phase: &Phase) -> Result<(), CompressError> {
        if matches!(phase.method, Method::FineTune | Method::Quantise) {
            self.remove_over(self.recipe.threshold)?;
        }
        let granularity = self.recipe.alpha;
        self.replace_state(|state| {
            for layer in &mut state.layers {
                match phase.method {
                    Method::SparseVd if !layer.is_variational() => {
                        layer.start_noise(phase.log_sigma2, granularity)
                    }
                    Method::SparseVd => {}
                    Method::Dense | Method::FineTune | Method::Quantise => layer.stop_noise(),
                }
                if phase.method != Method::Quantise {
                    layer.set_scales(None);
                }
            }
            state.reset_moments();
        })?;
        if let (Method::Quantise, [steps]) = (phase.method, phase.grid.as_slice()) {
            self.start_grid(*steps, phase.bias_step)?;
        }
        (self.position.adam_step, self.position.started) = (0, true);
        Ok(())
    }

    /// Removes weights over the threshold for good, and dead units with them.
    pub(crate) fn remove_over(&mut self, threshold: f64) -> Result<(), CompressError> {
        let keep: Vec<Vec<bool>> = self
            .engine
            .layers()
            .iter()
            .map(|l| l.survivors(threshold))
            .collect();
        self.remove(&keep)
    }

    fn remove(&mut self, keep: &[Vec<bool>]) -> Result<(), CompressError> {
        let (graph, pixels) = (self.graph.clone(), self.pixels.clone());
        // Shared rates belong to whole units or layers, whose arrays must stay whole.
        let shrink = self.recipe.alpha == Granularity::Weight
            || !self.engine.layers().iter().any(Layer::is_variational);
        self.replace_state(|state| {
            for (layer, keep) in state.layers.iter_mut().zip(keep) {
                layer.remove(keep);
            }
            if shrink {
                compact(&graph, &mut state.layers, &|value| pixels[value]);
            }
        })
    }

    /// The dense network's scores of every training image in every shift of the phase, where it distils.
    fn teach(&mut self, phase: &Phase, observer: &mut dyn Observer) -> Result<(), CompressError> {
        let known = self.teacher.as_ref().map(|t| t.shift);
        if phase.distil == 0.0 || known == Some(phase.shift) {
            return Ok(());
        }
        let images = self.data.train();
        let side = 2 * usize::from(phase.shift) + 1;
        observer.note(&format!(
            "computing the dense network's scores of {} images",
            images.len() * side * side
        ));
        let mut engine = Engine::new(
            &self.graph,
            self.dense.clone(),
            Granularity::Weight,
            self.isa,
            self.pool.clone(),
        )?;
        let fill = |i: usize, out: &mut [f32]| {
            let (variant, image) = (i / images.len(), i % images.len());
            let shift = [variant / side, variant % side].map(|v| v as i32 - i32::from(phase.shift));
            images.fill(image, shift, out);
        };
        self.teacher = Some(Teacher {
            shift: phase.shift,
            scores: engine.predict(images.len() * side * side, &fill, &[]),
        });
        Ok(())
    }

    pub(crate) fn epoch(
        &mut self,
        phase: &Phase,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let started = Instant::now();
        let seed = self.recipe.seed;
        let images = self.data.train().len();
        let order = EpochOrder::new(images, phase.shift, seed, self.position.total_epochs);
        let batch = phase.batch.min(images);
        let steps = (images / batch) as u32;
        while self.position.step < steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
            self.step(phase, &order, batch, steps)?;
            let done = self.position.step;
            observer.step(
                self.position.epoch + 1,
                done,
                steps,
                self.sums[0] / f64::from(done) / batch as f64,
            );
        }
        let [loss, errors] = self.sums;
        // Guessing costs ln(classes); a run far beyond that does not recover.
        if loss / (f64::from(steps) * batch as f64) > 4.0 * (self.engine.classes() as f64).ln() {
            return Err(self.diverged(loss / (f64::from(steps) * batch as f64)));
        }
        let samples = f64::from(steps) * batch as f64;
        self.position.epoch += 1;
        self.position.total_epochs += 1;
        self.position.step = 0;
        self.sums = [0.0; 2];
        if let Some(threshold) = phase.prune_threshold_after(self.position.epoch) {
            self.remove_over(threshold)?;
        } else if phase.weights.is_some() {
            let keep: Vec<Vec<bool>> = self
                .engine
                .layers()
                .iter()
                .map(|l| l.survivors(0.0))
                .collect();
            self.remove(&keep)?;
        }
        let record = self.record(
            phase,
            loss / samples,
            100.0 * errors / samples,
            started.elapsed().as_secs_f64(),
        );
        if let Some(folder) = &self.run_folder {
            checkpoint::write_pictures(folder, self.position.total_epochs, self.engine.layers())?;
        }
        observer.epoch(&record);
        self.history.push(record);
        Ok(Outcome::Done)
    }

    fn step(
        &mut self,
        phase: &Phase,
        order: &EpochOrder,
        batch: usize,
        steps: u32,
    ) -> Result<(), CompressError> {
        let images = self.data.train();
        let first = self.position.step as usize * batch;
        let places = first..first + batch;
        let labels: Vec<u16> = places
            .clone()
            .map(|p| images.labels()[order.samples[p] as usize])
            .collect();
        let fill = |i: usize, out: &mut [f32]| {
            let shift = order.shift(first + i).map(i32::from);
            images.fill(order.samples[first + i] as usize, shift, out);
        };
        let teacher = self.teacher.as_ref().filter(|_| phase.distil > 0.0);
        let scores = teacher.map(|teacher| {
            let (classes, side) = (self.engine.classes(), 2 * usize::from(phase.shift) + 1);
            let mut scores = Vec::with_capacity(batch * classes);
            for place in places {
                let [dy, dx] = order
                    .shift(place)
                    .map(|s| (i32::from(s) + i32::from(phase.shift)) as usize);
                let row = (dy * side + dx) * images.len() + order.samples[place] as usize;
                scores.extend_from_slice(&teacher.scores[row * classes..(row + 1) * classes]);
            }
            scores
        });
        let distillation = Distillation {
            share: phase.distil,
            temperature: phase.temperature,
        };
        let data = Batch {
            samples: batch,
            fill: &fill,
            labels: &labels,
            teacher: scores.as_deref().map(|s| (s, distillation)),
        };
        let report = self
            .engine
            .backward(&data, self.recipe.seed, self.position.total_steps);
        if !report.objective.is_finite() {
            return Err(self.diverged(report.objective));
        }
        let epoch =
            f64::from(self.position.epoch) + f64::from(self.position.step) / f64::from(steps);
        let factor = phase.rate_factor(epoch / f64::from(phase.epochs));
        self.position.adam_step += 1;
        self.engine.update(&Hyper {
            learning_rate: phase.lr * factor,
            learning_rate_log_sigma2: phase.lr_log_sigma2.unwrap_or(phase.lr) * factor,
            kl_weight: phase.kl_factor(epoch) / images.len() as f64,
            adam_step: self.position.adam_step,
        });
        self.sums[0] += report.loss;
        self.sums[1] += report.errors as f64;
        self.position.step += 1;
        self.position.total_steps += 1;
        if let Some(target) = phase.weights
            && self
                .position
                .adam_step
                .is_multiple_of((steps * phase.epochs / PRUNINGS).max(1))
        {
            let t = epoch / f64::from(phase.epochs) / phase.weights_by.max(1e-9);
            self.prune_by_fisher(target, t.min(1.0));
        }
        Ok(())
    }

    fn diverged(&self, loss: f64) -> CompressError {
        CompressError::Diverged {
            loss,
            phase: self.position.phase + 1,
            epoch: self.position.epoch as usize + 1,
            checkpoint: match &self.run_folder {
                Some(folder) if checkpoint::path(folder).is_file() => {
                    checkpoint::path(folder).display().to_string()
                }
                Some(_) => "none, as no epoch was done".into(),
                None => "none, as the run has no folder".into(),
            },
        }
    }

    /// Removes the weights with the lowest `theta^2 E[g^2] / 2`, with Adam's second moment for the expectation. The number
    /// left falls from that at the start of the phase to `target` as the cube of the remaining time.
    fn prune_by_fisher(&mut self, target: usize, t: f64) {
        let layers = self.engine.layers();
        let fixed: usize = (layers.iter().filter(|l| l.is_depthwise()))
            .map(Layer::alive)
            .sum();
        let alive: usize = layers.iter().map(Layer::alive).sum();
        let begin = self
            .history
            .iter()
            .rev()
            .find(|r| r.phase != self.position.phase + 1)
            .map_or(alive, EpochRecord::left);
        let begin = begin.max(target) as f64;
        let left = (target as f64 + (begin - target as f64) * (1.0 - t).powi(3)).round() as usize;
        // Depthwise convolutions stay whole; only the others lose weights.
        let left = left.max(fixed);
        if left >= alive {
            return;
        }
        let mut scores: Vec<f32> = vec![];
        for l in layers.iter().filter(|l| !l.is_depthwise()) {
            let score = l.theta.iter().zip(&l.theta_moments[1]).zip(&l.mask);
            scores.extend(
                score
                    .filter(|(_, m)| **m > 0.0)
                    .map(|((t, v), _)| t * t * v),
            );
        }
        let cut = *scores
            .select_nth_unstable_by(alive - left, f32::total_cmp)
            .1;
        self.engine
            .remove_where(|theta, second| theta * theta * second < cut);
    }

    fn record(&mut self, phase: &Phase, loss: f64, train_error: f64, seconds: f64) -> EpochRecord {
        let threshold = self.recipe.threshold;
        let validation_error = self.validation_error(threshold);
        let layers: Vec<LayerRecord> = self
            .engine
            .layers()
            .iter()
            .map(|l| layer_record(l, threshold))
            .collect();
        let kl = self
            .engine
            .layers()
            .iter()
            .filter(|l| l.is_variational())
            .fold(0.0, |kl, l| kl + l.posterior().kl());
        EpochRecord {
            phase: self.position.phase + 1,
            method: phase.method,
            epoch: self.position.epoch,
            loss,
            train_error,
            kl,
            validation_error,
            layers,
            seconds,
        }
    }

    /// Validation images that the dense network has wrong, in percent.
    pub(crate) fn dense_validation_error(&mut self) -> Result<f64, CompressError> {
        let now = self.engine.state().clone();
        let dense = self.dense.clone();
        self.replace_state(|state| *state = dense)?;
        let error = self.validation_error(self.recipe.threshold);
        self.replace_state(|state| *state = now)?;
        Ok(error)
    }

    /// Validation images that are wrong, in percent, with weights over the threshold left out.
    pub fn validation_error(&mut self, threshold: f64) -> f64 {
        let images = self.data.validation();
        if images.is_empty() {
            return f64::NAN;
        }
        let keep: Vec<Vec<bool>> = self
            .engine
            .layers()
            .iter()
            .map(|l| l.survivors(threshold))
            .collect();
        let scores =
            self.engine
                .predict(images.len(), &|i, out| images.fill(i, [0, 0], out), &keep);
        let classes = self.engine.classes();
        let wrong = scores
            .chunks_exact(classes)
            .zip(images.labels())
            .filter(|(s, l)| arg_max(s) != usize::from(**l))
            .count();
        100.0 * wrong as f64 / images.len() as f64
    }

    /// Validation error in percent and weights left for each threshold.
    pub fn sweep(&mut self, thresholds: &[f64]) -> Vec<(f64, f64, usize)> {
        let row = |&threshold: &f64| {
            let left = self
                .engine
                .layers()
                .iter()
                .map(|l| l.survivors(threshold).iter().filter(|k| **k).count())
                .sum();
            (threshold, self.validation_error(threshold), left)
        };
        thresholds.iter().map(row).collect()
    }

    /// The network as trained: weights over the threshold removed, dead units gone, sparse weights as CSR.
    ///
    /// # Errors
    /// What is left does not make a valid network.
    pub fn network(&self) -> Result<Network, CompressError> {
        export::network(&self.graph, self.engine.state(), &self.original, &|value| {
            self.pixels[value]
        })
    }

    fn save(&self) -> Result<(), CompressError> {
        match &self.run_folder {
            Some(folder) => checkpoint::save(folder, self),
            None => Ok(()),
        }
    }
}

fn layer_record(layer: &Layer<f32>, threshold: f64) -> LayerRecord {
    LayerRecord {
        node: layer.node.clone(),
        weights: layer.original.elements(),
        left: layer.survivors(threshold).iter().filter(|k| **k).count(),
        units: layer.units(),
        log_alpha_histogram: if layer.is_variational() {
            histogram(&layer.posterior()).to_vec()
        } else {
            vec![]
        },
    }
}
