//! From a program to kernels: which kernel each step gets, and in which layout its values lie.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use sparsevd_kernels::cost::Costs;
use sparsevd_kernels::elementwise::{Arithmetic, ArithmeticKernel, ClampKernel, SoftmaxKernel};
use sparsevd_kernels::kernel::{InputSplit, PackedKernel};
use sparsevd_kernels::pool::Reduction;
use sparsevd_kernels::select::{self, LinearKernel};
use sparsevd_kernels::{Clamp, LANES, Layout, Precision};
use sparsevd_model::{Csr, Dense, Network, Op, Shape, Weights};

use crate::linear;
use crate::maps;
use crate::program::{Program, Step, Value};
use crate::{PlanOptions, RuntimeError, WeightMode};

/// Measured share of non-zero inputs of linear layers, by node.
pub(crate) type Activity = HashMap<String, f64>;

/// A value of a lowered program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tensor {
    /// Elements per sample.
    pub features: usize,
    pub layout: Layout,
}

impl Tensor {
    /// Elements for `n` samples.
    pub fn len(self, n: usize) -> usize {
        match self.layout {
            Layout::Blocks(blocks) => blocks.len() * n,
            layout => self.features * n.next_multiple_of(layout.samples()),
        }
    }
}

/// A kernel with what it reads and makes.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// Name of the node it came from.
    pub name: String,
    /// What the node computes, for people: `Linear+Relu`.
    pub op: String,
    /// The kernel, in parts that make consecutive rows of one output where threads share it.
    pub parts: Vec<Part>,
    pub partition: Partition,
    pub clamp: Clamp,
    pub inputs: Vec<Value>,
    pub output: Value,
    pub output_shape: Shape,
    /// The weight it has: elements, non-zeros, and how often each is used per sample.
    pub weight: Option<WeightUse>,
}

/// A kernel that makes the first or next rows of an output.
#[derive(Debug)]
pub(crate) struct Part {
    pub kernel: Box<dyn PackedKernel>,
    /// Elements it makes per sample, in the layout of the output.
    pub features: usize,
}

/// How a step is dealt to threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Partition {
    /// Each part makes its rows or channels of the whole input.
    Rows,
    /// Each part makes its channels of the same channels of the input.
    Channels,
    /// So many threads make the lines of a map in blocks, each some of them with all channels ([`PackedKernel::banded`]).
    Lines(usize),
}

/// Size and use of a weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeightUse {
    pub elements: usize,
    pub nonzeros: usize,
    /// Output pixels: how often each weight is multiplied per sample.
    pub pixels: usize,
    /// How sparse kernels store its non-zeros.
    pub precision: Precision,
}

impl Lowered {
    pub fn in_place(&self) -> bool {
        self.parts[0].kernel.in_place()
    }

    /// Pieces into which threads may cut it.
    pub fn shares(&self) -> usize {
        match self.partition {
            Partition::Lines(threads) => threads,
            _ => self.parts.len(),
        }
    }

    /// Elements of scratch of all parts together.
    pub fn scratch_len(&self) -> usize {
        self.parts.iter().map(|p| scratch_of(&*p.kernel)).sum()
    }
}

/// Scratch of a kernel in whole cache lines, so that parts do not share one.
pub(crate) fn scratch_of(kernel: &dyn PackedKernel) -> usize {
    kernel.scratch_len().next_multiple_of(LANES)
}

/// Kernels in an order in which they can run.
#[derive(Debug)]
pub(crate) struct Lowering {
    pub steps: Vec<Lowered>,
    pub values: Vec<Tensor>,
    pub input: Value,
    pub output: Value,
    /// Samples that go through all steps together, but for the first.
    pub block: usize,
    /// So many of the first steps run sample after sample, the others over all samples of a block.
    pub one_by_one: usize,
    /// Threads that are worth waking.
    pub threads: usize,
    /// How many of the last samples of a batch, few in their half of a tile, are better run one by one.
    pub last_alone: usize,
}

/// Chooses layouts and kernels and packs the weights.
pub(crate) fn lower(
    program: &Program,
    network: &Network,
    options: &PlanOptions,
    activity: &Activity,
) -> Result<Lowering, RuntimeError> {
    let uses: Vec<Option<WeightUse>> = program
        .steps
        .iter()
        .map(|s| weight_use(s, network, options))
        .collect::<Result<_, _>>()?;
    let sparse = options.weights == WeightMode::Sparse;
    let work: usize = uses
        .iter()
        .flatten()
        .map(|u| if sparse { u.nonzeros } else { u.elements } * u.pixels * options.batch)
        .sum();
    let threads = select::threads(work, options.threads);
    let share = options.batch.div_ceil(threads);
    let largest_map = maps::largest(program);
    let layers = linear::layers(program, &uses);
    let layout = match (&layers, select::batch_layout(share)) {
        (Some(layers), _) => layers.layout(options, share),
        (None, Layout::Tiled) if sparse && !select::tile_fits(largest_map) => Layout::Single,
        (None, layout) => layout,
    };
    let choice = Choice {
        sparse,
        layout,
        share,
        costs: options.costs,
    };
    let dense_weights: usize = program
        .steps
        .iter()
        .zip(&uses)
        .filter(|(s, u)| choice.linear(s, **u) == Some(LinearKernel::Gemm))
        .filter_map(|(_, u)| u.map(|u| u.elements))
        .sum();
    // Samples go through the network a tile at a time, so that activations stay in the nearest caches; only where dense weights
    // fall out of all caches between two tiles do more samples share one pass over them.
    let block = match layout {
        Layout::Tiled if select::tiles_share_weights(dense_weights) => {
            share.next_multiple_of(LANES)
        }
        // Two tiles share each load of weights.
        Layout::Tiled if layers.is_some() => share.next_multiple_of(LANES).min(2 * LANES),
        Layout::Tiled => LANES,
        _ if select::tile_fits(largest_map) => share,
        // Large maps go sample after sample as far as it pays.
        _ => select::even_blocks(share),
    };
    // Threads split a batch by blocks, which is free; where there are too few, large layers are split by rows.
    let parts = if options.batch.div_ceil(block) < threads {
        threads
    } else {
        1
    };
    let mut build = Builder {
        network,
        options,
        activity,
        choice,
        block,
        tiles: maps::worth_tiles(program, &uses, block),
        parts,
        steps: Vec::new(),
        values: program
            .elements
            .iter()
            .map(|&features| Tensor {
                features,
                layout: Layout::Single,
            })
            .collect(),
        converted: HashMap::new(),
        halos: maps::halos(program),
        depthwise: maps::read_by_depthwise(program),
        pools: maps::pools(program),
        pooled: HashMap::new(),
    };
    for (step, weight) in program.steps.iter().zip(&uses) {
        build.step(step, *weight)?;
    }
    let output = build.converted(program.output, Layout::Single);
    linear::pack_read_features(&mut build.steps, &build.values, options.isa);
    let together = block == 1 || layout == Layout::Tiled || select::tile_fits(largest_map);
    let one_by_one = if together {
        0
    } else {
        one_by_one(&build.steps, &build.values)
    };
    // Where no step is the better for it, samples go through the network one by one.
    let alone = one_by_one == build.steps.len();
    let (block, one_by_one) = if alone { (1, 0) } else { (block, one_by_one) };
    Ok(Lowering {
        steps: build.steps,
        values: build.values,
        input: program.input,
        output,
        block,
        one_by_one,
        threads,
        last_alone: match &layers {
            Some(layers) if sparse && layout == Layout::Tiled => layers.last_alone(options, share),
            _ => 0,
        },
    })
}

/// How many of the first steps should run sample after sample. Over several samples, a step takes its weights from a near cache instead of from
/// memory, but leaves its maps there; the further down, the larger weights are and the smaller maps.
fn one_by_one(steps: &[Lowered], values: &[Tensor]) -> usize {
    let (mut best, mut saved, mut split) = (0.0, 0.0, steps.len());
    for (i, step) in steps.iter().enumerate().rev() {
        let weights: usize = step.parts.iter().map(|p| p.kernel.bytes()).sum();
        let maps: usize = step
            .inputs
            .iter()
            .chain([&step.output])
            .map(|&v| values[v].len(1))
            .sum();
        saved += weights as f64 - (maps * size_of::<f32>()) as f64;
        if saved > best {
            (best, split) = (saved, i);
        }
    }
    // A tile is no tile with one sample.
    let tiled = |s: &Lowered| {
        s.inputs
            .iter()
            .chain([&s.output])
            .any(|&v| values[v].layout == Layout::Tiled)
    };
    split.min(steps.iter().position(tiled).unwrap_or(split))
}

fn weight_use(
    step: &Step,
    network: &Network,
    options: &PlanOptions,
) -> Result<Option<WeightUse>, RuntimeError> {
    let Some(name) = step.op.weight() else {
        return Ok(None);
    };
    let Some(weight) = network.tensors.get(name) else {
        return Ok(None);
    };
    let (pixels, precision) = match step.op {
        // Convolutions widen what is stored.
        Op::Conv { .. } => (
            step.output_shape.dims()[1..].iter().product(),
            Precision::F32,
        ),
        _ => (1, linear::precision(network, name, weight, options)?),
    };
    Ok(Some(WeightUse {
        elements: weight.shape().elements(),
        nonzeros: weight.nonzeros(),
        pixels,
        precision,
    }))
}

impl WeightUse {
    pub fn density(self) -> f64 {
        self.nonzeros as f64 / self.elements.max(1) as f64
    }
}

/// What decides about kernels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice {
    pub sparse: bool,
    pub layout: Layout,
    /// Samples of one thread.
    pub share: usize,
    pub costs: Costs,
}

pub(crate) struct Builder<'a> {
    pub network: &'a Network,
    pub options: &'a PlanOptions,
    pub activity: &'a Activity,
    pub choice: Choice,
    pub block: usize,
    /// Whether small maps are in tiles where others are in blocks.
    pub tiles: bool,
    /// Parts into which large layers are cut for threads.
    pub parts: usize,
    pub steps: Vec<Lowered>,
    pub values: Vec<Tensor>,
    /// Copies of values in other layouts.
    pub converted: HashMap<(Value, Layout), Value>,
    /// How far windows reach out of the blocks of each value.
    pub halos: Vec<[usize; 4]>,
    /// Values that depthwise convolutions read.
    pub depthwise: HashSet<Value>,
    /// Values that are only pooled, two by two, and what becomes of them.
    pub pools: HashMap<Value, Value>,
    /// Values that are already pooled.
    pub pooled: HashMap<Value, Value>,
}

/// Kernels of a step, the layout in which they want inputs, and that of the output.
pub(crate) type Kernels = (Vec<Part>, Layout, Layout);

impl Builder<'_> {
    fn step(&mut self, step: &Step, weight: Option<WeightUse>) -> Result<(), RuntimeError> {
        if let Some(&done) = self.pooled.get(&step.inputs[0])
            && done == step.output
        {
            return Ok(());
        }
        let same = |(parts, layout): (Vec<Part>, Layout)| (parts, layout, layout);
        let mut clamp = step.clamp;
        let (parts, from, to) = match &step.op {
            Op::Linear { weight: w, bias } => {
                same(self.linear(step, weight, w, bias.as_deref())?)
            }
            Op::Conv {
                weight: w,
                bias,
                window,
                groups,
            } => self.conv(step, weight, w, bias.as_deref(), window, *groups)?,
            Op::MaxPool { window } => self.pool(step, Reduction::Max, Some(window))?,
            Op::AveragePool { window } => self.pool(step, Reduction::Average, Some(window))?,
            Op::GlobalAveragePool => self.pool(step, Reduction::Average, None)?,
            op @ (Op::Relu | Op::Clip { .. }) => {
                clamp = clamp_of(op).unwrap_or_default();
                let isa = self.options.isa;
                same(self.in_place(step, ClampKernel { isa }))
            }
            op if op.is_activation() => same(self.function(step)?),
            Op::Add => same(self.arithmetic(step, Arithmetic::Add)),
            Op::Sub => same(self.arithmetic(step, Arithmetic::Sub)),
            Op::Mul => same(self.arithmetic(step, Arithmetic::Mul)),
            Op::Div => same(self.arithmetic(step, Arithmetic::Div)),
            Op::BatchNormalization { .. } => same(self.normalisation(step)),
            &Op::Pad { pads, value } => same(self.pad(step, pads, value)?),
            Op::Concat => {
                self.concat(step);
                return Ok(());
            }
            Op::Softmax => {
                let features = step.output_shape.elements();
                let isa = self.options.isa;
                let kernel = SoftmaxKernel { isa, features };
                same((vec![whole(kernel, step)], Layout::Single))
            }
            _ => return Err(self.unsupported(step)),
        };
        let residual = maps::residual(step);
        // There may be a copy in this layout already.
        let there = residual.map(|v| *self.converted.get(&(v, to)).unwrap_or(&v));
        if let (Some(residual), Some(there)) = (residual, there) {
            let fits = parts.iter().all(|p| p.kernel.takes_residual());
            if !fits || self.values[there].layout != to {
                return self.then_sum(step, weight, (parts, from, to), residual);
            }
        }
        let inputs = step.inputs.iter().map(|&v| match there {
            Some(there) if residual == Some(v) => there,
            _ => self.converted(v, from),
        });
        let inputs = inputs.collect();
        let pooled = self.pooled.get(&step.output).copied();
        let output = pooled.unwrap_or(step.output);
        self.values[output].layout = to;
        let pooling = if pooled.is_some() { "+MaxPool" } else { "" };
        let adding = if residual.is_some() { "+Add" } else { "" };
        let fused = [adding, suffix(step.clamp), pooling];
        self.steps.push(Lowered {
            name: step.name.clone(),
            op: std::iter::once(step.op.name()).chain(fused).collect(),
            partition: self.partition(&parts, weight),
            parts,
            clamp,
            inputs,
            output,
            output_shape: match pooled {
                Some(_) => maps::halved(&step.output_shape),
                None => step.output_shape.clone(),
            },
            weight,
        });
        Ok(())
    }

    /// A convolution and then the sum that its kernel cannot take in.
    fn then_sum(
        &mut self,
        step: &Step,
        weight: Option<WeightUse>,
        (parts, from, layout): Kernels,
        residual: Value,
    ) -> Result<(), RuntimeError> {
        let term = self.values.len();
        self.values.push(Tensor {
            features: self.values[step.output].features,
            layout,
        });
        let inputs = vec![self.converted(step.inputs[0], from)];
        let lowered = |op: String, (parts, partition), clamp, inputs, output, weight| Lowered {
            name: step.name.clone(),
            op,
            parts,
            partition,
            clamp,
            inputs,
            output,
            output_shape: step.output_shape.clone(),
            weight,
        };
        let name = step.op.name().to_owned();
        let partition = self.partition(&parts, weight);
        self.steps.push(lowered(
            name,
            (parts, partition),
            Clamp::None,
            inputs,
            term,
            weight,
        ));
        // What is in tiles goes on in tiles.
        let layout = match self.values[residual].layout {
            Layout::Tiled => Layout::Tiled,
            _ => layout,
        };
        let inputs = [term, residual].map(|v| self.converted(v, layout)).to_vec();
        let kernel = ArithmeticKernel {
            isa: self.options.isa,
            op: Arithmetic::Add,
        };
        let parts = vec![whole(kernel, step)];
        let name = format!("Add{}", suffix(step.clamp));
        self.values[step.output].layout = layout;
        self.steps.push(lowered(
            name,
            (parts, Partition::Rows),
            step.clamp,
            inputs,
            step.output,
            None,
        ));
        Ok(())
    }

    pub fn unsupported(&self, step: &Step) -> RuntimeError {
        RuntimeError::Unsupported {
            network: self.network.graph.name.clone(),
            what: "operator",
            expected: "one that the runtime has".into(),
            got: format!("{} (node `{}`)", step.op.name(), step.name),
        }
    }

    /// A bias as numbers, whatever form it is stored in.
    pub fn bias(&self, name: Option<&str>) -> Option<Vec<f32>> {
        name.and_then(|n| self.network.tensors.get(n))
            .map(|t| t.to_dense().values)
    }

    /// Rows of each part of a layer: one part, or one per thread where each has enough to do. `weights` are those of each row that are
    /// multiplied; parts have the same number of them.
    ///
    /// Parts follow each other in memory only within one sample or tile, so a layer over several stays whole.
    pub fn ranges(
        &self,
        weights: &[usize],
        used: Option<WeightUse>,
        layout: Layout,
    ) -> Vec<Range<usize>> {
        if self.block > layout.samples() {
            return std::iter::once(0..weights.len()).collect();
        }
        let pixels = used.map_or(0, |u| u.pixels);
        let work: usize = weights.iter().sum::<usize>() * pixels * layout.samples();
        split(weights, select::parts(work, self.parts.min(weights.len())))
    }

    /// How what these parts make is dealt to threads.
    fn partition(&self, parts: &[Part], used: Option<WeightUse>) -> Partition {
        match parts {
            [only] if self.block == 1 && only.kernel.banded().is_some() => {
                let work = match used {
                    Some(used) if only.kernel.is_sparse() => used.nonzeros * used.pixels,
                    Some(used) => used.elements * used.pixels,
                    None => only.features,
                };
                Partition::Lines(select::parts(work, self.parts))
            }
            [first, _, ..] if first.kernel.input_split() == InputSplit::Channels => {
                Partition::Channels
            }
            _ => Partition::Rows,
        }
    }
}

/// The clamp that an operator is, if it is one.
pub(crate) fn clamp_of(op: &Op) -> Option<Clamp> {
    match *op {
        Op::Relu => Some(Clamp::Relu),
        Op::Clip { min, max } => Some(Clamp::Clip {
            min: min.unwrap_or(f32::NEG_INFINITY),
            max: max.unwrap_or(f32::INFINITY),
        }),
        _ => None,
    }
}

/// What a fused activation adds to the name of an operator.
fn suffix(clamp: Clamp) -> &'static str {
    match clamp {
        Clamp::None => "",
        Clamp::Relu => "+Relu",
        Clamp::Clip { .. } => "+Clip",
    }
}

/// Cuts rows into so many ranges that hold about the same number of weights.
pub(crate) fn split(weights: &[usize], parts: usize) -> Vec<Range<usize>> {
    let total: usize = weights.iter().sum();
    let (mut ranges, mut row, mut seen) = (Vec::new(), 0, 0);
    for part in 1..=parts {
        let first = row;
        // Every part has a row, and leaves one for each that comes after it.
        while row < weights.len()
            && (part == parts
                || row == first
                || (weights.len() - row > parts - part
                    && (2 * seen + weights[row]) * parts < 2 * total * part))
        {
            seen += weights[row];
            row += 1;
        }
        ranges.push(first..row);
    }
    ranges
}

/// Non-zeros of each row.
pub(crate) fn nonzeros_of_rows(csr: &Csr) -> Vec<usize> {
    (0..csr.rows()).map(|r| csr.row(r).0.len()).collect()
}

/// Weights of each row that a layer multiplies: its non-zeros, or all of them where it runs dense.
pub(crate) fn weights_of_rows(weight: &Weights, sparse: bool) -> Vec<usize> {
    let (rows, cols) = weight.shape().matrix();
    match weight {
        Weights::Csr(csr) if sparse => nonzeros_of_rows(csr),
        Weights::Dense(dense) if sparse => {
            let row = |r: usize| &dense.values[r * cols..(r + 1) * cols];
            let nonzeros = |r| row(r).iter().filter(|v| **v != 0.0).count();
            (0..rows).map(nonzeros).collect()
        }
        _ => vec![cols; rows],
    }
}

pub(crate) fn boxed(kernel: impl PackedKernel + 'static) -> Box<dyn PackedKernel> {
    Box::new(kernel)
}

/// A kernel that makes a step's whole output.
pub(crate) fn whole(kernel: impl PackedKernel + 'static, step: &Step) -> Part {
    Part {
        kernel: Box::new(kernel),
        features: step.output_shape.elements(),
    }
}

pub(crate) fn to_csr(weight: &Weights) -> Csr {
    match weight {
        Weights::Csr(csr) => csr.clone(),
        other => Csr::from_dense(&other.to_dense()),
    }
}

/// Some rows of a matrix or filter bank.
pub(crate) fn rows_of(dense: &Dense, rows: Range<usize>) -> Dense {
    let (_, cols) = dense.shape.matrix();
    let mut dims = dense.shape.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = rows.len();
    }
    Dense::new(
        Shape(dims),
        dense.values[rows.start * cols..rows.end * cols].to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_layer_have_the_same_weights_not_the_same_rows() {
        // Weights of rows, parts, and where the parts end.
        let cases: [(&[usize], usize, &[usize]); 5] = [
            (&[1, 1, 1, 1], 2, &[2, 4]),
            (&[9, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2, &[1, 10]),
            (&[0, 0, 0, 8], 2, &[3, 4]),
            (&[5], 1, &[1]),
            (&[3, 3, 3, 3, 3, 3], 3, &[2, 4, 6]),
        ];
        for (weights, parts, want) in cases {
            let ranges = split(weights, parts);
            let ends: Vec<usize> = ranges.iter().map(|r| r.end).collect();
            assert_eq!(ends, want, "{weights:?} in {parts}");
            let starts: Vec<usize> = ranges.iter().map(|r| r.start).collect();
            assert_eq!(starts[1..], want[..parts - 1], "parts follow each other");
        }
    }
}
