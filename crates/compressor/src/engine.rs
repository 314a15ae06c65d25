//! The training engine: forward and backward passes over the graph, and the update of the weights.
//!
//! A batch is cut into shards of samples whose number depends on the network and the batch alone. Each shard runs forward
//! and backward with buffers of its own; gradients are then summed in the order of the shards. Batch normalisation takes
//! the statistics of the whole batch: there shards wait for each other, and their sums are added in that order too. Together
//! with addressed noise this makes every result independent of the number of threads. Where several processes train one
//! network, [`Reduce`] adds up their sums at the same places.

mod batch;
mod gradients;
mod lower;
mod program;
mod reduce;
mod shard;
mod update;

use std::ops::Range;
use std::sync::Arc;

use rayon::ThreadPool;
use rayon::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, Real};
use sparsevd_model::Graph;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::layers::lane_map::Layout;
use crate::layers::normalise::{Affine, Sums};
use crate::layers::sparse::{Sparse, SparseConv, SparseLinear};
use crate::layers::{Noise, Pass, Weights};
use crate::state::State;
use crate::variational::Granularity;

pub use batch::{Batch, StepReport};
pub(crate) use lower::scores;
use program::{Program, Stage, Work};
pub use reduce::Reduce;
use shard::{Parameters, Shard};
pub use update::{Hyper, Rule};

/// A shard has at least this many samples, so that products keep their efficiency.
const LEAST_SAMPLES: usize = 25;
/// A batch with less work than this, in multiply-adds, stays in one shard: waking a thread would cost more.
const LEAST_WORK: usize = 4_000_000;
/// Shards a batch is cut into at most.
const MOST_SHARDS: usize = 4;
/// Samples that one thread predicts at a time, and the most elements of all their values.
const CHUNK: usize = 100;
const CHUNK_ELEMENTS: usize = 1 << 27;
/// Weights per piece of work in the update.
const PIECE: usize = 16 << 10;

/// Runs training steps of one network on one thread pool.
pub struct Engine<T> {
    isa: Isa,
    graph: Graph,
    /// Elements in the free dimension of the graph, where it has one.
    length: usize,
    program: Program,
    state: State<T>,
    granularity: Granularity,
    shards: Vec<Shard<T>>,
    /// Gradients of the last batch by theta and by sigma^2, per layer.
    gradients: Vec<[Vec<T>; 2]>,
    bias_gradients: Vec<Vec<T>>,
    /// Gradients of the last batch by the tensors of other nodes.
    plain_gradients: Vec<Vec<T>>,
    /// Gradients of the last batch by scale and by bias, and its statistics, per normalisation.
    normalisation_gradients: Vec<[Vec<T>; 2]>,
    statistics: Vec<Statistics>,
    pool: Option<Arc<ThreadPool>>,
    /// `None` for one process.
    reduce: Option<Box<dyn Reduce<T>>>,
    skip_zeros: bool,
    /// Of each layer the weights that are left, where training computes with those alone; `None` where weights were removed
    /// since.
    sparse: Option<SparseLayers>,
}

/// Of each layer the weights that are left, where passes compute with those alone, and how values lie then.
struct SparseLayers {
    layers: Vec<Option<Sparse>>,
    layouts: Vec<Layout>,
}

/// Statistics that the last batch was normalised by.
#[derive(Debug, Clone, Default)]
struct Statistics {
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// Numbers per channel.
    count: usize,
}

impl<T: Real> Engine<T> {
    /// An engine for `graph` with its `state`; `pool` runs shards side by side, `None` runs on the calling thread. A graph with a free dimension has one element
    /// there before [`Self::set_length`].
    ///
    /// # Errors
    /// An operator, or a number of inputs or outputs, that the trainer does not support.
    pub fn new(
        graph: &Graph,
        state: impl Into<State<T>>,
        granularity: Granularity,
        isa: Isa,
        pool: Option<Arc<ThreadPool>>,
    ) -> Result<Self, CompressError> {
        let state = state.into();
        let length = 1;
        let program = lower::lower(&graph.at_length(length), &state)?;
        let zeros = |n: usize| vec![T::default(); n];
        let gradients = (state.layers)
            .iter()
            .map(|l| {
                let noise = if l.is_variational() { l.theta.len() } else { 0 };
                [zeros(l.theta.len()), zeros(noise)]
            })
            .collect();
        let bias_gradients = (state.layers.iter().map(|l| zeros(l.bias.len()))).collect();
        let normalisations = &state.normalisations;
        Ok(Self {
            isa,
            graph: graph.clone(),
            length,
            program,
            normalisation_gradients: (normalisations.iter())
                .map(|n| [zeros(n.channels()), zeros(n.channels())])
                .collect(),
            statistics: vec![Statistics::default(); normalisations.len()],
            plain_gradients: state
                .plain
                .iter()
                .map(|t| zeros(t.gradient_len()))
                .collect(),
            state,
            granularity,
            shards: vec![],
            gradients,
            bias_gradients,
            pool,
            reduce: None,
            skip_zeros: true,
            sparse: None,
        })
    }

    /// Takes samples of that many elements in the free dimension from now on; nothing changes where the graph has none. Buffers stay.
    ///
    /// # Errors
    /// An output that has the free dimension, too.
    pub fn set_length(&mut self, length: usize) -> Result<(), CompressError> {
        if self.graph.free_symbol().is_none() || self.length == length {
            return Ok(());
        }
        self.program = lower::lower(&self.graph.at_length(length), &self.state)?;
        self.length = length;
        let program = &self.program;
        if let Some(sparse) = &mut self.sparse {
            // Linear layers alone take a free dimension, and their weights do not change with it.
            sparse.layouts = program.layouts(&sparse.layers);
            for shard in &mut self.shards {
                shard.set_program(program, &sparse.layouts);
            }
        }
        Ok(())
    }

    /// Trains together with other processes: [`Self::backward`] computes a part of each batch and sums over all parts.
    pub fn reduce_by(&mut self, reduce: Box<dyn Reduce<T>>) {
        self.reduce = Some(reduce);
    }

    /// Whether layers without noise, and all in predictions, compute with the weights that are left alone where few enough are left
    /// for that to be faster, and whether gradients that are mostly zero are taken as lists. They are where this was not
    /// called. The order of sums depends on it.
    pub fn skip_zeros(&mut self, skip: bool) {
        self.skip_zeros = skip;
        self.sparse = None;
    }

    /// The state.
    pub fn state(&self) -> &State<T> {
        &self.state
    }

    /// The state of the weighted nodes.
    pub fn layers(&self) -> &[Layer<T>] {
        &self.state.layers
    }

    /// Removes for good every weight for which `removed` is true, given theta and its second moment; layers that stay dense
    /// keep theirs.
    pub fn remove_where(&mut self, removed: impl Fn(T, T) -> bool) {
        self.sparse = None;
        for layer in self.state.layers.iter_mut().filter(|l| !l.stays_dense()) {
            let second = layer.theta.iter().zip(&layer.theta_moments[1]);
            let keep: Vec<bool> = second.map(|(&t, &v)| !removed(t, v)).collect();
            layer.remove(&keep);
        }
    }

    /// Length of the network's inputs per sample, one behind the other.
    pub fn input_len(&self) -> usize {
        self.program.values[0].elements()
    }

    /// Number of outputs per sample.
    pub fn outputs(&self) -> usize {
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

    /// Gradients of the last batch by scale and by bias, per normalisation.
    pub fn normalisation_gradients(&self) -> &[[Vec<T>; 2]] {
        &self.normalisation_gradients
    }

    /// Gradients of the last batch by the tensors of nodes that are neither layers nor normalisations.
    pub fn plain_gradients(&self) -> &[Vec<T>] {
        &self.plain_gradients
    }

    /// Multiply-adds of one forward pass of one sample, both paths of a variational layer counted.
    pub fn work_per_sample(&self) -> usize {
        let work = |stage: &Stage| {
            let Some(layer) = stage.work.layer() else {
                return 0;
            };
            let input = self.program.values[stage.inputs[0]];
            let positions = match &stage.work {
                Work::Conv { window, .. }
                | Work::GroupedConv { window, .. }
                | Work::DepthwiseConv { window, .. } => window
                    .output(input.height, input.width)
                    .map_or(1, |[h, w]| h * w),
                Work::Linear { vectors, .. } => *vectors,
                _ => 1,
            };
            let layer = &self.state.layers[layer];
            layer.theta.len() * positions * if layer.is_variational() { 2 } else { 1 }
        };
        self.program.stages.iter().map(work).sum()
    }

    fn shard_count(&self, samples: usize) -> usize {
        let by_work = (self.work_per_sample() * samples).div_ceil(LEAST_WORK);
        by_work
            .min(samples.div_ceil(LEAST_SAMPLES))
            .clamp(1, MOST_SHARDS)
    }

    fn prepare_shards(&mut self, samples: usize) {
        let count = self.shard_count(samples);
        let (program, state, skip) = (&self.program, &self.state, self.skip_zeros);
        let shards = &mut self.shards;
        let sparse = self.sparse.get_or_insert_with(|| {
            // Their values may lie in another way now.
            shards.clear();
            SparseLayers::new(program, &state.layers, |i| {
                let layer = &state.layers[i];
                let quiet = skip && !layer.is_variational();
                quiet.then(|| layer.mask.iter().map(|m| *m > T::default()))
            })
        });
        let new = || Shard::new(program, &sparse.layouts, Some(state));
        self.shards.resize_with(count, new);
        for (i, shard) in self.shards.iter_mut().enumerate() {
            shard.samples = (i + 1) * samples / count - i * samples / count;
        }
    }

    /// Forward and backward pass of a batch under the noise of (`seed`, `step`); stores the gradients of the mean of the
    /// data term in [`Self::gradients`].
    ///
    /// # Errors
    /// A process of [`Self::reduce_by`] without samples, or one that can no longer be reached.
    pub fn backward(
        &mut self,
        batch: &Batch<'_, T>,
        seed: u64,
        step: u32,
    ) -> Result<StepReport, CompressError> {
        let mut reduce = self.reduce.take();
        let report = self.backward_of_part(batch, seed, step, &mut reduce);
        self.reduce = reduce;
        report
    }

    fn backward_of_part(
        &mut self,
        batch: &Batch<'_, T>,
        seed: u64,
        step: u32,
        reduce: &mut Option<Box<dyn Reduce<T>>>,
    ) -> Result<StepReport, CompressError> {
        let part = match &reduce {
            Some(reduce) => part_of(batch.samples, reduce.part(batch.samples))?,
            None => 0..batch.samples,
        };
        self.prepare_shards(part.len());
        let (program, isa, state) = (&self.program, self.isa, &self.state);
        let skip = self.skip_zeros;
        let sparse = self.sparse.as_ref().expect("shards are prepared");
        let (count, pool) = (self.shards.len(), self.pool.as_deref());
        let first = |i: usize| part.start + i * part.len() / count;
        let pass = |i: usize, samples| Pass {
            isa,
            noise: Noise::Addressed(NoiseKey {
                seed,
                step,
                layer: 0,
                sample: first(i) as u32,
            }),
            samples,
            skip_zeros: skip,
        };
        let mut parameters = Parameters {
            weights: weights(&state.layers, &sparse.layers),
            affine: (state.normalisations.iter())
                .map(|n| {
                    if n.constant {
                        Affine::constant(n)
                    } else {
                        Affine::default()
                    }
                })
                .collect(),
            plain: plain(state),
        };
        let parts = program.parts();
        let normalisation = |part: usize| {
            let start = parts.get(part)?.start;
            (part > 0)
                .then(|| program.normalisation_at(start))
                .flatten()
        };
        for (i, stages) in parts.iter().enumerate() {
            let next = normalisation(i + 1);
            for_each_shard(&mut self.shards, pool, |j, shard| {
                if i == 0 {
                    shard.fill(program, |sample, out| (batch.fill)(first(j) + sample, out));
                }
                let (pass, next) = (pass(j, shard.samples), next.map(|(stage, _)| stage));
                shard.forward(program, stages.clone(), next, &parameters, &pass);
                if stages.end == program.stages.len() {
                    shard.loss(program, batch, first(j));
                }
            });
            let Some((stage, place)) = next else { continue };
            let state = &state.normalisations[place];
            let mut sums = sum_over_shards(&self.shards);
            sum_over_processes(reduce, &mut sums)?;
            let n = batch.samples * program.values[stage.output].area();
            parameters.affine[place] = Affine::of_batch(state, &sums, n);
        }
        for (i, stages) in parts.iter().enumerate().rev() {
            // From the normalisation that the part above begins with, whose gradients are prepared, down to that of this one.
            let start = stages.start + usize::from(i > 0);
            let end = stages.end + usize::from(i + 1 < parts.len());
            let before = normalisation(i);
            for_each_shard(&mut self.shards, pool, |j, shard| {
                let (pass, before) = (pass(j, shard.samples), before.map(|(stage, _)| stage));
                shard.backward(program, start..end, before, &parameters, &pass);
            });
            let Some((stage, place)) = before else {
                continue;
            };
            let mut sums = sum_over_shards(&self.shards);
            sum_over_processes(reduce, &mut sums)?;
            let n = batch.samples * program.values[stage.output].area();
            let affine = &mut parameters.affine[place];
            let gradients = &mut self.normalisation_gradients[place];
            affine.differentiate(&state.normalisations[place], &sums, n, gradients);
            self.statistics[place] = Statistics {
                mean: affine.mean.clone(),
                variance: affine.variance.clone(),
                count: n,
            };
        }
        self.sum_gradients();
        let mut report = StepReport::default();
        for shard in &self.shards {
            report.loss += shard.report.loss;
            report.objective += shard.report.objective;
            report.error += shard.report.error;
        }
        if let Some(reduce) = reduce {
            self.reduce_gradients(&mut **reduce, &mut report)
                .map_err(CompressError::Reduce)?;
        }
        Ok(report)
    }

    /// Sums the gradients and the report over the processes. Those of normalisations are made of sums already.
    fn reduce_gradients(
        &mut self,
        reduce: &mut dyn Reduce<T>,
        report: &mut StepReport,
    ) -> std::io::Result<()> {
        let of_layers = self.gradients.iter_mut().flatten();
        let others = self
            .bias_gradients
            .iter_mut()
            .chain(&mut self.plain_gradients);
        for gradients in of_layers.chain(others) {
            reduce.sum(gradients)?;
        }
        let mut sums = [report.loss, report.objective, report.error];
        reduce.sum_statistics(&mut sums)?;
        [report.loss, report.objective, report.error] = sums;
        Ok(())
    }

    /// Outputs of `samples` samples without noise, with running statistics. Weights for which `keep` is false count as zero; an
    /// empty `keep` keeps all.
    ///
    /// The result is `[samples][outputs]`.
    pub fn predict(
        &mut self,
        samples: usize,
        fill: &(dyn Fn(usize, &mut [T]) + Sync),
        keep: &[Vec<bool>],
    ) -> Vec<T> {
        let kept: Vec<Vec<T>> = (self.state.layers.iter().zip(keep))
            .map(|(l, keep)| {
                let weights = l.weights().iter().zip(keep);
                let kept = weights.map(|(&t, &k)| if k { t } else { T::default() });
                kept.collect()
            })
            .collect();
        let theta = |i: usize| {
            kept.get(i)
                .map_or(self.state.layers[i].weights(), Vec::as_slice)
        };
        let sparse = SparseLayers::new(&self.program, &self.state.layers, |i| {
            let living = theta(i).iter().map(|t| *t != T::default());
            self.skip_zeros.then_some(living)
        });
        let weights = weights(&self.state.layers, &sparse.layers)
            .into_iter()
            .enumerate();
        let parameters = Parameters {
            weights: weights
                .map(|(i, w)| Weights {
                    theta: theta(i),
                    sigma2: &[],
                    ..w
                })
                .collect(),
            affine: self
                .state
                .normalisations
                .iter()
                .map(Affine::running)
                .collect(),
            plain: plain(&self.state),
        };
        let chunk = CHUNK.min((CHUNK_ELEMENTS / self.program.elements()).max(1));
        let width = self.outputs();
        let mut outputs = vec![T::default(); samples * width];
        let (program, isa) = (&self.program, self.isa);
        let shard = || Shard::new(program, &sparse.layouts, None);
        let run = |shard: &mut Shard<T>, (first, out): (usize, &mut [T])| {
            shard.samples = out.len() / width;
            let pass = Pass {
                isa,
                noise: Noise::Given(&[]),
                samples: shard.samples,
                skip_zeros: false,
            };
            shard.fill(program, |sample, out| fill(first * chunk + sample, out));
            shard.forward(program, 0..program.stages.len(), None, &parameters, &pass);
            out.copy_from_slice(shard.value(program, program.output));
        };
        match &self.pool {
            Some(pool) => pool.install(|| {
                outputs
                    .par_chunks_mut(chunk * width)
                    .enumerate()
                    .for_each_init(shard, run)
            }),
            None => {
                let mut shard = shard();
                let chunks = outputs.chunks_mut(chunk * width).enumerate();
                chunks.for_each(|work| run(&mut shard, work));
            }
        }
        outputs
    }
}

/// Runs `work` on every shard with its number, side by side where there are threads.
fn for_each_shard<T: Real>(
    shards: &mut [Shard<T>],
    pool: Option<&ThreadPool>,
    work: impl Fn(usize, &mut Shard<T>) + Sync,
) {
    match pool {
        Some(pool) if shards.len() > 1 => pool.install(|| {
            let shards = shards.par_iter_mut().enumerate();
            shards.for_each(|(i, shard)| work(i, shard));
        }),
        _ => (shards.iter_mut().enumerate()).for_each(|(i, shard)| work(i, shard)),
    }
}

/// The part of a batch that a process computes, which must not be empty.
fn part_of(samples: usize, part: Range<usize>) -> Result<Range<usize>, CompressError> {
    if part.start < part.end && part.end <= samples {
        return Ok(part);
    }
    Err(CompressError::Setting {
        name: "batch".into(),
        expected: "samples for every process".into(),
        got: format!(
            "samples {} to {} of {samples} for one",
            part.start, part.end
        ),
    })
}

/// Adds the sums of the other processes, where there are any.
fn sum_over_processes<T: Real>(
    reduce: &mut Option<Box<dyn Reduce<T>>>,
    sums: &mut Sums,
) -> Result<(), CompressError> {
    let Some(reduce) = reduce else {
        return Ok(());
    };
    for sums in [&mut sums.values, &mut sums.products] {
        reduce.sum_statistics(sums).map_err(CompressError::Reduce)?;
    }
    Ok(())
}

/// The shards' sums, added up in their order.
fn sum_over_shards<T>(shards: &[Shard<T>]) -> Sums {
    let mut sums = Sums::default();
    sums.clear(shards[0].sums.values.len());
    for shard in shards {
        sums.add(&shard.sums);
    }
    sums
}

fn plain<T>(state: &State<T>) -> Vec<&[T]> {
    state.plain.iter().map(|t| t.values.as_slice()).collect()
}

fn weights<'a, T: Real>(
    layers: &'a [Layer<T>],
    sparse: &'a [Option<Sparse>],
) -> Vec<Weights<'a, T>> {
    (layers.iter().zip(sparse))
        .map(|(l, sparse)| Weights {
            theta: l.weights(),
            bias: l.biases(),
            sigma2: &l.sigma2,
            units: l.units(),
            patch: l.patch(),
            sparse: sparse.as_ref(),
        })
        .collect()
}

impl SparseLayers {
    /// Those for which passes with the weights that are left are cheaper. `alive` says of a layer which of its weights are, or `None`
    /// where passes take all.
    fn new<T: Real, A: Iterator<Item = bool>>(
        program: &Program,
        layers: &[Layer<T>],
        alive: impl Fn(usize) -> Option<A>,
    ) -> Self {
        let mut sparse = vec![None; layers.len()];
        for stage in &program.stages {
            let (Work::Linear { layer, .. } | Work::Conv { layer, .. }) = stage.work else {
                continue;
            };
            let Some(alive) = alive(layer) else {
                continue;
            };
            sparse[layer] = match &stage.work {
                Work::Conv { window, .. } => {
                    SparseConv::new(alive, window, program.lane_maps_of(stage, window))
                        .map(Sparse::Conv)
                }
                _ => {
                    let (units, patch) = (layers[layer].units(), layers[layer].patch());
                    SparseLinear::new(alive, units, patch).map(Sparse::Linear)
                }
            };
        }
        let layouts = program.layouts(&sparse);
        Self {
            layers: sparse,
            layouts,
        }
    }
}
