//! How the samples of a batch go through a network: how many together, in which layout, on how many threads.
//!
//! Layouts and kernels are chosen from the batch alone, never from the number of threads: each kernel adds in an order of its own, and a
//! batch must have the same bits on any number of threads.

use sparsevd_kernels::cost::Size;
use sparsevd_kernels::int8;
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_kernels::{LANES, Layout};
use sparsevd_model::Op;

use super::choice::{Choice, size};
use crate::lowered::{Lowered, Tensor, WeightUse};
use crate::options::{PlanOptions, WeightMode};
use crate::program::Program;

/// How the samples of a batch go through a network.
#[derive(Debug)]
pub(super) struct Batching {
    pub choice: Choice,
    /// Threads that a run should use.
    pub threads: usize,
    /// Samples that go through the network together.
    pub block: usize,
    /// Samples that would go through it together on one thread.
    pub block_of_one_thread: usize,
    /// Most parts into which a large layer is cut for threads.
    pub parts: usize,
    /// Whether convolutions of small maps run over tiles where others run over blocks.
    pub small_maps_in_tiles: bool,
    /// Whether maps of a whole tile of samples stay in the second-level cache.
    tile_fits: bool,
    layers: Option<LinearLayers>,
}

/// The linear layers of a network in which no other layer has weights.
#[derive(Debug)]
struct LinearLayers {
    sizes: Vec<Size>,
    /// Elements of the inputs and outputs of the network.
    edge: usize,
}

impl Batching {
    /// Chooses for a program; `uses` has the weight of each of its steps.
    ///
    /// `bytes` says whether layers may run in int8.
    pub fn new(
        program: &Program,
        uses: &[Option<WeightUse>],
        options: &PlanOptions,
        bytes: bool,
    ) -> Self {
        let sparse = options.weights == WeightMode::Sparse;
        let work: usize = uses
            .iter()
            .flatten()
            .map(|u| u.multiply_adds(sparse).saturating_mul(options.batch))
            .fold(0, usize::saturating_add);
        let threads = select::threads(work, options.threads);
        let batch = options.batch;
        let tile_fits = select::tile_fits(largest_map(program));
        let layers = LinearLayers::of(program, uses);
        let sequence = vectors_of_sequence(program, uses, sparse);
        // Samples of a network of sequences that go through it together.
        let together = sequence.map(|vectors| {
            let most = select::vectors_together(vectors, bytes).min(batch);
            // Maps, where there are some, are as large as for a tile.
            if layers.is_none() && !tile_fits {
                1
            } else {
                most
            }
        });
        let layout = match (&layers, select::batch_layout(batch)) {
            // Each layer chooses for itself, as a sample is many vectors to it.
            _ if sequence.is_some() => Layout::Single,
            (Some(layers), _) => {
                let LinearLayers { sizes, edge } = layers;
                select::linear_layout(&options.costs, sizes, sparse, *edge, batch)
            }
            (None, Layout::Tiled) if sparse && !tile_fits => Layout::Single,
            (None, layout) => layout,
        };
        let choice = Choice {
            sparse,
            layout,
            batch,
            together,
            costs: options.costs,
        };
        let dense_weights: usize = program
            .steps
            .iter()
            .zip(uses)
            .filter(|(s, u)| choice.linear(s, **u) == Some(LinearKernel::Gemm))
            .filter_map(|(_, u)| u.map(|u| u.elements))
            .sum();
        // Samples go through the network a tile at a time, so that activations stay in the nearest caches. Only where dense weights
        // do not stay in any cache between two tiles do more samples share one pass over them.
        let block = |samples: usize| match layout {
            Layout::Tiled if select::tiles_share_weights(dense_weights) => {
                samples.next_multiple_of(LANES)
            }
            // Two tiles share each load of weights, and four are a tile of bytes.
            Layout::Tiled if layers.is_some() => {
                let most = if bytes { int8::SAMPLES } else { 2 * LANES };
                samples.next_multiple_of(LANES).min(most)
            }
            Layout::Tiled => LANES,
            _ if layers.is_some() => select::vectors_together(1, bytes).min(samples),
            _ if let Some(together) = together => together.min(samples),
            _ if tile_fits => samples,
            // Large maps go sample after sample as far as that is faster.
            _ => select::even_blocks(samples),
        };
        let block_of_one_thread = block(batch);
        let block = block(batch.div_ceil(threads));
        // Threads share a batch by blocks, which costs nothing; where there are fewer blocks than threads, they share large layers by rows, or sequences by vectors.
        let parts = if batch.div_ceil(block) < threads {
            threads
        } else {
            1
        };
        Self {
            choice,
            threads,
            block,
            block_of_one_thread,
            parts,
            small_maps_in_tiles: small_maps_in_tiles(program, uses, block_of_one_thread),
            tile_fits,
            layers,
        }
    }

    /// Samples of a call of a kernel, on one thread.
    pub fn samples_of_call(&self) -> usize {
        self.block_of_one_thread.min(self.choice.batch)
    }

    /// Samples of a block, and how many of the first steps run sample after sample.
    pub fn one_by_one(
        &self,
        steps: &[Lowered],
        values: &[Tensor],
        length: usize,
    ) -> (usize, usize) {
        let whole_blocks = self.block == 1 || self.choice.layout == Layout::Tiled || self.tile_fits;
        let first = if whole_blocks {
            0
        } else {
            one_by_one(steps, values, length)
        };
        if first == steps.len() {
            // No step gains from a block: each sample goes through the whole network alone.
            (1, 0)
        } else {
            (self.block, first)
        }
    }

    /// How many of the last samples of a batch, too few for half a tile, run faster outside a tile.
    pub fn last_alone(&self) -> usize {
        let Choice {
            sparse,
            layout,
            batch,
            costs,
            ..
        } = &self.choice;
        match &self.layers {
            Some(layers) if *sparse && *layout == Layout::Tiled => {
                select::last_alone(costs, &layers.sizes, layers.edge, *batch)
            }
            _ => 0,
        }
    }
}

impl LinearLayers {
    /// `None` where other layers have weights too, or none has.
    fn of(program: &Program, uses: &[Option<WeightUse>]) -> Option<Self> {
        let mut sizes = Vec::new();
        for (step, used) in program.steps.iter().zip(uses) {
            match (&step.op, used) {
                (Op::Linear(_), Some(used)) if used.pixels == 1 => sizes.push(size(step, *used)),
                (_, Some(_)) => return None,
                (_, None) => {}
            }
        }
        let endpoints = program.inputs.iter().chain(&program.outputs);
        let edge = endpoints
            .map(|e| program.values[e.value].shape.elements())
            .sum();
        (!sizes.is_empty()).then_some(Self { sizes, edge })
    }
}

/// Most vectors of a sample, where linear layers, some of them over several vectors, do nearly all of the work; `None` for other networks.
fn vectors_of_sequence(
    program: &Program,
    uses: &[Option<WeightUse>],
    sparse: bool,
) -> Option<usize> {
    /// Times as much work as that of convolutions, which lose their tiles.
    const NEARLY_ALL: usize = 4;
    let (mut vectors, mut linear, mut others) = (1, 0_usize, 0_usize);
    for (step, used) in program.steps.iter().zip(uses) {
        let Some(used) = used else { continue };
        let sum = match step.op {
            Op::Linear(_) => {
                vectors = vectors.max(used.pixels);
                &mut linear
            }
            _ => &mut others,
        };
        *sum = sum.saturating_add(used.multiply_adds(sparse));
    }
    (vectors > 1 && linear / NEARLY_ALL > others).then_some(vectors)
}

/// Elements of the largest map that a convolution reads or computes, per sample.
fn largest_map(program: &Program) -> usize {
    let convolutions = program.steps.iter().filter(|s| matches!(s.op, Op::Conv(_)));
    convolutions
        .map(|s| {
            let output = s.pool.as_ref().map_or(&s.output_shape, |p| &p.input_shape);
            s.input_shape.elements().max(output.elements())
        })
        .max()
        .unwrap_or(0)
}

/// Whether in blocks of `n` samples the small maps should be in tiles: where their layers read far more bytes of weights, which all samples of a
/// tile share, than of maps, which then leave the caches.
fn small_maps_in_tiles(program: &Program, uses: &[Option<WeightUse>], n: usize) -> bool {
    /// Of a non-zero weight with its offset.
    const BYTES: usize = 6;
    /// How many times as much a byte of a map costs as a byte of a weight: maps are written, and copied into tiles and back.
    const MAPS: usize = 3;
    let (mut weights, mut maps) = (0, 0);
    for (step, used) in program.steps.iter().zip(uses) {
        let step = step.without_pool();
        if let (Op::Conv(_), Some(used), Some([input, output])) = (&step.op, used, step.maps())
            && select::prefer_tiles([input, output], n)
        {
            weights += used.nonzeros * BYTES;
            maps += (step.input_shape.elements() + step.output_shape.elements()) * size_of::<f32>();
        }
    }
    n > 1 && weights > MAPS * maps
}

/// How many of the first steps should run sample after sample. Over several samples, a step reads its weights from a near cache instead of from
/// memory, but its maps no longer stay in that cache. Towards the end of a network, weights are larger and maps smaller.
fn one_by_one(steps: &[Lowered], values: &[Tensor], length: usize) -> usize {
    let (mut best, mut saved, mut split) = (0.0, 0.0, steps.len());
    for (i, step) in steps.iter().enumerate().rev() {
        let weights: usize = step.parts.iter().map(|p| p.kernel.bytes()).sum();
        let maps: usize = step
            .inputs
            .iter()
            .chain([&step.output])
            .map(|&v| values[v].len(1, length))
            .sum();
        saved += weights as f64 - (maps * size_of::<f32>()) as f64;
        if saved > best {
            (best, split) = (saved, i);
        }
    }
    // A single sample does not fill a tile.
    let tiled = |s: &Lowered| {
        s.inputs
            .iter()
            .chain([&s.output])
            .any(|&v| values[v].layout == Layout::Tiled)
    };
    split.min(steps.iter().position(tiled).unwrap_or(split))
}
