//! The training engine: forward and backward passes over the graph, and the update of the weights.
//!
//! A batch is cut into shards of samples whose number depends on the network and the batch alone. Each shard runs forward
//! and backward with buffers of its own; gradients are then summed in the order of the shards. Together with addressed
//! noise this makes every result independent of the number of threads.

mod lower;
mod update;

use rayon::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, Real, add, relu, relu_gradient};
use sparsevd_model::Graph;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::layers::conv::Conv;
use crate::layers::linear::{self, Linear};
use crate::layers::loss::cross_entropy;
use crate::layers::{Noise, Pass, Saved, Scratch, Weights, pool, sized};
use crate::variational::Granularity;

pub use crate::layers::loss::Distillation;
pub(crate) use lower::MapSize;
use lower::{Program, Stage, Work};
pub use update::Hyper;

/// A shard has at least this many samples, so that products keep their efficiency.
const LEAST_SAMPLES: usize = 25;
/// A batch with less work than this, in multiply-adds, stays in one shard: waking a thread would cost more.
const LEAST_WORK: usize = 4_000_000;
/// Shards a batch is cut into at most.
const MOST_SHARDS: usize = 4;
/// Weights per piece of work in the update.
const PIECE: usize = 16 << 10;

/// A batch of training samples.
pub struct Batch<'a, T> {
    /// Number of samples.
    pub samples: usize,
    /// Fills the network's input (channels last) for a sample of the batch.
    pub fill: &'a (dyn Fn(usize, &mut [T]) + Sync),
    /// Class of each sample.
    pub labels: &'a [u16],
    /// Scores of a teacher, `[samples][classes]`, and how they count.
    pub teacher: Option<(&'a [T], Distillation)>,
}

/// What one backward pass saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepReport {
    /// Sum over the batch of the cross-entropy with the labels, in nats.
    pub loss: f64,
    /// Sum over the batch of what the gradients are of, the KL term apart: that loss mixed with the teacher's.
    pub objective: f64,
    /// Samples whose largest score (under noise) was not their label's.
    pub errors: usize,
}

/// One shard's buffers.
struct Shard<T> {
    values: Vec<Vec<T>>,
    gradients: Vec<Vec<T>>,
    saved: Vec<Saved<T>>,
    scratch: Scratch<T>,
    /// Of convolutions: by theta and by sigma^2. Linear layers make theirs over the whole batch.
    weight_gradients: Vec<[Vec<T>; 2]>,
    bias_gradients: Vec<Vec<T>>,
    samples: usize,
    report: StepReport,
}

/// Runs training steps of one network on one thread pool.
pub struct Engine<T> {
    isa: Isa,
    program: Program,
    layers: Vec<Layer<T>>,
    granularity: Granularity,
    shards: Vec<Shard<T>>,
    /// Gradients of the last batch by theta and by sigma^2, per layer.
    gradients: Vec<[Vec<T>; 2]>,
    bias_gradients: Vec<Vec<T>>,
    pool: Option<std::sync::Arc<rayon::ThreadPool>>,
}

impl<T: Real> Engine<T> {
    /// An engine for `graph` with the state `layers`; `pool` runs shards side by side, `None` runs on the calling thread.
    ///
    /// # Errors
    /// An operator, or a number of inputs or outputs, that the trainer does not support.
    pub fn new(
        graph: &Graph,
        layers: Vec<Layer<T>>,
        granularity: Granularity,
        isa: Isa,
        pool: Option<std::sync::Arc<rayon::ThreadPool>>,
    ) -> Result<Self, CompressError> {
        let program = lower::lower(graph, &layers)?;
        let gradients = layers
            .iter()
            .map(|l| {
                let noise = if l.is_variational() { l.theta.len() } else { 0 };
                [vec![T::default(); l.theta.len()], vec![T::default(); noise]]
            })
            .collect();
        let bias_gradients = layers
            .iter()
            .map(|l| vec![T::default(); l.bias.len()])
            .collect();
        Ok(Self {
            isa,
            program,
            layers,
            granularity,
            shards: vec![],
            gradients,
            bias_gradients,
            pool,
        })
    }

    /// The state.
    pub fn layers(&self) -> &[Layer<T>] {
        &self.layers
    }

    /// Removes for good every living weight that `unwanted` says so of, given theta and its second moment.
    pub fn remove_where(&mut self, unwanted: impl Fn(T, T) -> bool) {
        for layer in &mut self.layers {
            let second = layer.theta.iter().zip(&layer.theta_moments[1]);
            let keep: Vec<bool> = second.map(|(&t, &v)| !unwanted(t, v)).collect();
            layer.remove(&keep);
        }
    }

    /// Length of the network's input per sample.
    pub fn input_len(&self) -> usize {
        self.program.values[0].elements()
    }

    /// Number of scores per sample.
    pub fn classes(&self) -> usize {
        self.program.values[self.program.output].elements()
    }

    /// Gradients of the last batch by theta and by sigma^2 (empty without noise), per layer.
    pub fn gradients(&self) -> &[[Vec<T>; 2]] {
        &self.gradients
    }

    /// Gradients of the last batch by the biases, per layer.
    pub fn bias_gradients(&self) -> &[Vec<T>] {
        &self.bias_gradients
    }

    /// Multiply-adds of one forward pass of one sample, both paths of a variational layer counted.
    pub fn work_per_sample(&self) -> usize {
        let work = |stage: &Stage| match &stage.work {
            Work::Linear { layer, .. } => self.layer_work(*layer, 1),
            Work::Conv { layer, window, .. } => {
                let input = self.program.values[stage.inputs[0]];
                let [h, w] = window.output(input.height, input.width).unwrap_or([1, 1]);
                self.layer_work(*layer, h * w)
            }
            _ => 0,
        };
        self.program.stages.iter().map(work).sum()
    }

    fn layer_work(&self, layer: usize, positions: usize) -> usize {
        let l = &self.layers[layer];
        l.theta.len() * positions * if l.is_variational() { 2 } else { 1 }
    }

    fn shard_count(&self, samples: usize) -> usize {
        let by_work = (self.work_per_sample() * samples).div_ceil(LEAST_WORK);
        by_work
            .min(samples.div_ceil(LEAST_SAMPLES))
            .clamp(1, MOST_SHARDS)
    }

    fn prepare_shards(&mut self, samples: usize) {
        let count = self.shard_count(samples);
        self.shards.resize_with(count, || Shard {
            values: vec![vec![]; self.program.values.len()],
            gradients: vec![vec![]; self.program.values.len()],
            saved: (0..self.program.stages.len())
                .map(|_| Saved::default())
                .collect(),
            scratch: Scratch::default(),
            weight_gradients: vec![[vec![], vec![]]; self.layers.len()],
            bias_gradients: self
                .layers
                .iter()
                .map(|l| vec![T::default(); l.bias.len()])
                .collect(),
            samples: 0,
            report: StepReport::default(),
        });
        for (i, shard) in self.shards.iter_mut().enumerate() {
            shard.samples = (i + 1) * samples / count - i * samples / count;
        }
    }

    /// Forward and backward pass of a batch under the noise of (`seed`, `step`); leaves the gradients of the mean loss of
    /// the data term in [`Self::gradients`].
    pub fn backward(&mut self, batch: &Batch<'_, T>, seed: u64, step: u32) -> StepReport {
        self.prepare_shards(batch.samples);
        let weights = weights(&self.layers);
        let (program, isa) = (&self.program, self.isa);
        let count = self.shards.len();
        let run = |(i, shard): (usize, &mut Shard<T>)| {
            let first = i * batch.samples / count;
            let noise = Noise::Addressed(NoiseKey {
                seed,
                step,
                layer: 0,
                sample: first as u32,
            });
            let pass = Pass {
                isa,
                noise,
                samples: shard.samples,
            };
            shard.forward(program, &weights, &pass, |sample, out| {
                (batch.fill)(first + sample, out)
            });
            shard.loss(program, batch, first);
            shard.backward(program, &weights, &pass);
        };
        match &self.pool {
            Some(pool) if count > 1 => {
                pool.install(|| self.shards.par_iter_mut().enumerate().for_each(run))
            }
            _ => self.shards.iter_mut().enumerate().for_each(run),
        }
        self.sum_gradients();
        let mut report = StepReport::default();
        for shard in &self.shards {
            report.loss += shard.report.loss;
            report.objective += shard.report.objective;
            report.errors += shard.report.errors;
        }
        report
    }

    /// Sums the shards' gradients in their order, each piece of each layer by one thread.
    fn sum_gradients(&mut self) {
        let (shards, program, layers, isa) = (&self.shards, &self.program, &self.layers, self.isa);
        let mut pieces: Vec<Piece<T>> = vec![];
        for (stage, s) in program.stages.iter().enumerate() {
            let (layer, linear) = match s.work {
                Work::Linear { layer, .. } => (layer, true),
                Work::Conv { layer, .. } => (layer, false),
                _ => continue,
            };
            // Each layer belongs to one stage, so the arrays can be taken out of their places.
            let patch = layers[layer].patch();
            let rows_per_piece = (PIECE / patch.max(1)).max(1);
            let chunk = (rows_per_piece * patch).max(1);
            let [theta, sigma2] = &mut self.gradients[layer];
            let [theta, sigma2] = [std::mem::take(theta), std::mem::take(sigma2)];
            pieces.push(Piece {
                stage,
                layer,
                linear,
                patch,
                chunk,
                theta,
                sigma2,
            });
        }
        let run = |piece: &mut Piece<T>| {
            let (layer, patch, chunk) = (piece.layer, piece.patch, piece.chunk);
            let units = layers[layer].units();
            let noisy = !piece.sigma2.is_empty();
            let sigma2_chunks: Vec<&mut [T]> = if noisy {
                piece.sigma2.chunks_mut(chunk).collect()
            } else {
                vec![]
            };
            let mut sigma2_chunks = sigma2_chunks.into_iter();
            let work: Vec<(usize, &mut [T], &mut [T])> = piece
                .theta
                .chunks_mut(chunk)
                .enumerate()
                .map(|(i, t)| (i * chunk, t, sigma2_chunks.next().unwrap_or_default()))
                .collect();
            let one = |(at, theta, sigma2): (usize, &mut [T], &mut [T])| {
                for (i, shard) in shards.iter().enumerate() {
                    if piece.linear {
                        let rows = at / patch..(at + theta.len()) / patch;
                        let saved = &shard.saved[piece.stage];
                        linear::weight_gradient(
                            saved,
                            shard.samples,
                            [units, patch],
                            rows,
                            theta,
                            sigma2,
                            i > 0,
                        );
                    } else {
                        let [t, s] = &shard.weight_gradients[layer];
                        let here = at..at + theta.len();
                        for (sum, part) in [(&mut *theta, t), (&mut *sigma2, s)] {
                            if sum.is_empty() {
                                continue;
                            }
                            if i == 0 {
                                sum.copy_from_slice(&part[here.clone()]);
                            } else {
                                add(isa, &part[here.clone()], sum);
                            }
                        }
                    }
                }
            };
            match &self.pool {
                Some(pool) if work.len() > 1 && shards.len() > 1 => {
                    pool.install(|| work.into_par_iter().for_each(one))
                }
                _ => work.into_iter().for_each(one),
            }
        };
        pieces.iter_mut().for_each(run);
        for piece in pieces {
            self.gradients[piece.layer] = [piece.theta, piece.sigma2];
        }
        for (layer, sum) in self.bias_gradients.iter_mut().enumerate() {
            sum.fill(T::default());
            for shard in shards {
                add(isa, &shard.bias_gradients[layer], sum);
            }
        }
    }

    /// Scores of `samples` samples without noise, from `theta` where `keep` says so (all of it where `keep` is empty).
    ///
    /// The result is `[samples][classes]`.
    pub fn predict(
        &mut self,
        samples: usize,
        fill: &(dyn Fn(usize, &mut [T]) + Sync),
        keep: &[Vec<bool>],
    ) -> Vec<T> {
        let kept: Vec<Vec<T>> = self
            .layers
            .iter()
            .zip(keep)
            .map(|(l, keep)| {
                l.weights()
                    .iter()
                    .zip(keep)
                    .map(|(&t, &k)| if k { t } else { T::default() })
                    .collect()
            })
            .collect();
        let weights: Vec<Weights<'_, T>> = weights(&self.layers)
            .into_iter()
            .enumerate()
            .map(|(i, w)| Weights {
                theta: kept.get(i).map_or(w.theta, Vec::as_slice),
                sigma2: &[],
                ..w
            })
            .collect();
        const CHUNK: usize = 100;
        let classes = self.classes();
        let mut scores = vec![T::default(); samples * classes];
        let (program, isa) = (&self.program, self.isa);
        let shard = || Shard {
            values: vec![vec![]; program.values.len()],
            gradients: vec![],
            saved: (0..program.stages.len())
                .map(|_| Saved::default())
                .collect(),
            scratch: Scratch::default(),
            weight_gradients: vec![],
            bias_gradients: vec![],
            samples: CHUNK,
            report: StepReport::default(),
        };
        let run = |shard: &mut Shard<T>, (chunk, out): (usize, &mut [T])| {
            shard.samples = out.len() / classes;
            let noise = Noise::Given(&[]);
            let pass = Pass {
                isa,
                noise,
                samples: shard.samples,
            };
            shard.forward(program, &weights, &pass, |sample, out| {
                fill(chunk * CHUNK + sample, out)
            });
            out.copy_from_slice(&shard.values[program.output][..out.len()]);
        };
        match &self.pool {
            Some(pool) => pool.install(|| {
                scores
                    .par_chunks_mut(CHUNK * classes)
                    .enumerate()
                    .for_each_init(shard, run)
            }),
            None => {
                let mut shard = shard();
                let chunks = scores.chunks_mut(CHUNK * classes).enumerate();
                chunks.for_each(|work| run(&mut shard, work));
            }
        }
        scores
    }
}

/// The gradients of one layer while they are summed.
struct Piece<T> {
    stage: usize,
    layer: usize,
    linear: bool,
    patch: usize,
    chunk: usize,
    theta: Vec<T>,
    sigma2: Vec<T>,
}

fn weights<T: Real>(layers: &[Layer<T>]) -> Vec<Weights<'_, T>> {
    layers
        .iter()
        .map(|l| Weights {
            theta: l.weights(),
            bias: l.biases(),
            sigma2: &l.sigma2,
            units: l.units(),
            patch: l.patch(),
        })
        .collect()
}

impl<T: Real> Shard<T> {
    fn forward(
        &mut self,
        program: &Program,
        weights: &[Weights<'_, T>],
        pass: &Pass<'_>,
        fill: impl Fn(usize, &mut [T]),
    ) {
        let samples = pass.samples;
        for (value, size) in self.values.iter_mut().zip(&program.values) {
            sized(value, samples * size.elements());
        }
        let input = program.values[0].elements();
        for (sample, out) in self.values[0][..samples * input]
            .chunks_exact_mut(input)
            .enumerate()
        {
            fill(sample, out);
        }
        for (i, stage) in program.stages.iter().enumerate() {
            let mut out = std::mem::take(&mut self.values[stage.output]);
            let size = program.values[stage.output];
            let input_size = program.values[stage.inputs[0]];
            let y = &mut out[..samples * size.elements()];
            let x = &self.values[stage.inputs[0]][..samples * input_size.elements()];
            let saved = &mut self.saved[i];
            match &stage.work {
                Work::Linear {
                    layer,
                    gather,
                    relu,
                } => {
                    let linear = Linear {
                        weights: weights[*layer],
                        layer: *layer,
                        gather,
                        relu: *relu,
                    };
                    linear.forward(pass, x, y, saved, &mut self.scratch);
                }
                Work::Conv {
                    layer,
                    window,
                    pool,
                    relu,
                } => {
                    let conv = Conv {
                        weights: weights[*layer],
                        layer: *layer,
                        window,
                        pool: pool.as_ref(),
                        relu: *relu,
                        input: input_size,
                        output: size,
                    };
                    conv.forward(pass, x, y, saved, &mut self.scratch);
                }
                Work::Relu => {
                    y.copy_from_slice(x);
                    relu(pass.isa, y);
                }
                Work::MaxPool(window) => {
                    pool::max_forward(pass.isa, x, input_size, window, y, size, saved)
                }
                Work::AveragePool(window) => pool::average_forward(x, input_size, window, y, size),
                Work::GlobalAveragePool => {
                    pool::average_forward(x, input_size, &pool::global(input_size), y, size)
                }
                Work::Add => {
                    y.copy_from_slice(x);
                    add(pass.isa, &self.values[stage.inputs[1]][..y.len()], y);
                }
            }
            self.values[stage.output] = out;
        }
    }

    fn loss(&mut self, program: &Program, batch: &Batch<'_, T>, first: usize) {
        for (gradient, size) in self.gradients.iter_mut().zip(&program.values) {
            sized(gradient, self.samples * size.elements()).fill(T::default());
        }
        let classes = program.values[program.output].elements();
        let scores = self.values[program.output].chunks_exact(classes);
        let gradients = self.gradients[program.output].chunks_exact_mut(classes);
        self.report = StepReport::default();
        for (i, (scores, gradient)) in scores.zip(gradients).take(self.samples).enumerate() {
            let sample = first + i;
            let label = usize::from(batch.labels[sample]);
            let teacher = batch
                .teacher
                .map(|(t, d)| (&t[sample * classes..(sample + 1) * classes], d));
            let [loss, objective] =
                cross_entropy(scores, label, teacher, 1.0 / batch.samples as f64, gradient);
            self.report.loss += loss;
            self.report.objective += objective;
            self.report.errors += usize::from(arg_max(scores) != label);
        }
    }

    fn backward(&mut self, program: &Program, weights: &[Weights<'_, T>], pass: &Pass<'_>) {
        let samples = pass.samples;
        self.bias_gradients
            .iter_mut()
            .for_each(|b| b.fill(T::default()));
        for (i, stage) in program.stages.iter().enumerate().rev() {
            let (size, input) = (program.values[stage.output], stage.inputs[0]);
            let input_size = program.values[input];
            let mut gradient = std::mem::take(&mut self.gradients[stage.output]);
            let g = &mut gradient[..samples * size.elements()];
            let x = &self.values[input][..samples * input_size.elements()];
            let y = &self.values[stage.output][..g.len()];
            let saved = &mut self.saved[i];
            // Nobody asks for the gradient of the network's input.
            let dx = (input != 0).then(|| &mut self.gradients[input][..x.len()]);
            match (&stage.work, dx) {
                (
                    Work::Linear {
                        layer,
                        gather,
                        relu,
                    },
                    dx,
                ) => {
                    let linear = Linear {
                        weights: weights[*layer],
                        layer: *layer,
                        gather,
                        relu: *relu,
                    };
                    linear.backward(
                        pass,
                        y,
                        g,
                        saved,
                        dx,
                        &mut self.bias_gradients[*layer],
                        &mut self.scratch,
                    );
                }
                (
                    Work::Conv {
                        layer,
                        window,
                        pool,
                        relu,
                    },
                    dx,
                ) => {
                    let w = weights[*layer];
                    let conv = Conv {
                        weights: w,
                        layer: *layer,
                        window,
                        pool: pool.as_ref(),
                        relu: *relu,
                        input: input_size,
                        output: size,
                    };
                    let [theta, sigma2] = &mut self.weight_gradients[*layer];
                    let (theta, sigma2) =
                        (sized(theta, w.theta.len()), sized(sigma2, w.sigma2.len()));
                    theta.fill(T::default());
                    sigma2.fill(T::default());
                    let out = [theta, sigma2, &mut self.bias_gradients[*layer]];
                    conv.backward(pass, x, y, g, saved, dx, out, &mut self.scratch);
                }
                (Work::Add, _) => {
                    for &input in stage.inputs.iter().filter(|i| **i != 0) {
                        add(pass.isa, g, &mut self.gradients[input][..g.len()]);
                    }
                }
                (_, None) => {}
                (Work::Relu, Some(dx)) => {
                    relu_gradient(pass.isa, y, g);
                    add(pass.isa, g, dx);
                }
                (Work::MaxPool(_), Some(dx)) => pool::max_backward(g, input_size, dx, size, saved),
                (Work::AveragePool(window), Some(dx)) => {
                    pool::average_backward(g, input_size, window, dx, size)
                }
                (Work::GlobalAveragePool, Some(dx)) => {
                    pool::average_backward(g, input_size, &pool::global(input_size), dx, size)
                }
            }
            self.gradients[stage.output] = gradient;
        }
    }
}

/// Index of the largest score; the first of equals.
pub fn arg_max<T: PartialOrd>(scores: &[T]) -> usize {
    let mut best = 0;
    for (i, s) in scores.iter().enumerate() {
        if *s > scores[best] {
            best = i;
        }
    }
    best
}
