//! Plans: the kernel of each node of a network, the layout of each value, and its place in memory.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use sparsevd_kernels::Layout;
use sparsevd_model::{Network, Shape, TensorType, memory, terminal};

use crate::buffers::{self, Bound};
use crate::error::RuntimeError;
use crate::expected::expected_us;
use crate::lower::{self, Activity};
use crate::options::{PlanOptions, WeightType};
use crate::passes;
use crate::program::{Endpoint, Program};

/// One step of a plan, as it is printed and serialised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanNode {
    /// Name of the node; empty for a conversion of the layout.
    pub name: String,
    /// Operator, with those that were fused into it: `Linear+Relu`.
    pub op: String,
    /// Name of the kernel: `{isa}-{format}-{dtype}-{tile}`, or what it does.
    pub kernel: String,
    /// Whether the kernel multiplies by non-zeros alone.
    pub sparse: bool,
    /// Whether the kernel makes bytes of its input and multiplies these.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_int8: bool,
    /// How the non-zeros are stored; `None` as f32, or where there are none or the kernel multiplies int8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<WeightType>,
    /// Pieces that different threads can compute: rows, channels, lines of maps, or vectors of a sequence.
    pub parts: usize,
    /// Layout of the output: `single`, `tiled`, `blocks` or `bytes`.
    pub layout: &'static str,
    /// Shape of the output, per sample.
    pub shape: Shape,
    /// Weights, zeros included.
    pub weights: usize,
    /// Weights that are not zero.
    pub nonzeros: usize,
    /// Multiply-adds per sample of the dense layer.
    pub dense_multiply_adds: usize,
    /// Multiply-adds per sample that the non-zeros need.
    pub multiply_adds: usize,
    /// Bytes of packed weights, indices and biases.
    pub weight_bytes: usize,
    /// Expected microseconds of this step in a run of the plan's batch on one thread, by [`PlanOptions::costs`].
    pub expected_us: f64,
}

impl PlanNode {
    /// Share of weights that are not zero; `None` for a node without weights.
    pub fn density(&self) -> Option<f64> {
        (self.weights > 0).then(|| self.nonzeros as f64 / self.weights as f64)
    }
}

/// An input or output of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanValue {
    /// Its name in the network.
    pub name: String,
    /// What its elements are, and the dimensions of one sample.
    #[serde(flatten)]
    pub tensor_type: TensorType,
    /// Shape of one sample, with the longest free dimension that the plan is for.
    #[serde(skip)]
    pub shape: Shape,
    /// Elements of one sample, for each element of the free dimension if it has one.
    #[serde(skip)]
    each: usize,
    #[serde(skip)]
    is_free: bool,
    /// Of an input of ids their number: each is an integer below it.
    #[serde(skip)]
    pub(crate) ids: Option<usize>,
}

impl PlanValue {
    pub(crate) fn new(name: String, tensor_type: TensorType, length: usize) -> Self {
        Self {
            name,
            shape: tensor_type.shape(length),
            each: tensor_type.elements(1),
            is_free: tensor_type.free().is_some(),
            tensor_type,
            ids: None,
        }
    }

    /// Elements of one sample whose free dimension, if it has one, has `length` elements.
    pub fn elements(&self, length: usize) -> usize {
        self.each
            .saturating_mul(if self.is_free { length } else { 1 })
    }
}

/// Longest free dimension.
pub(crate) const LONGEST: usize = 1 << 31;

/// Largest batch for which a plan is made.
const LARGEST_BATCH: usize = 1 << 32;

/// What the plans of a network with a free dimension are made of.
#[derive(Debug)]
struct Source {
    network: Network,
    activity: Activity,
    symbol: String,
}

/// Steps outside tiles, for the last samples of a batch, where those are too few for half a tile.
#[derive(Debug)]
pub(crate) struct Last {
    /// Most samples that run with these steps.
    pub samples: usize,
    pub steps: Vec<Bound>,
}

/// A network ready to run: kernels with packed weights, layouts, and a place for every value.
///
/// A plan is plain data. [`crate::Session`] runs it, any number of times. `Display` prints it as a table.
#[derive(Debug)]
pub struct Plan {
    network: String,
    options: PlanOptions,
    pub(crate) steps: Vec<Bound>,
    pub(crate) last: Option<Last>,
    pub(crate) nodes: Vec<PlanNode>,
    pub(crate) block: usize,
    pub(crate) one_by_one: usize,
    pub(crate) shares_blocks: bool,
    pub(crate) threads: usize,
    arena_bytes: usize,
    /// Most elements of the free dimension; 1 where there is none.
    longest: usize,
    /// Where there is a free dimension.
    source: Option<Arc<Source>>,
    inputs: Vec<PlanValue>,
    outputs: Vec<PlanValue>,
}

impl Plan {
    /// Plans a network: checks it, fuses operators, chooses kernels and layouts, packs weights and places values in memory.
    ///
    /// # Errors
    /// [`RuntimeError::Model`] for a network that is not valid; [`RuntimeError::Unsupported`] for one without inputs, with an
    /// operator without a kernel, with the same output twice or with a value that no memory holds; [`RuntimeError::Option`] for a batch or a number
    /// of threads of zero, a batch that no memory holds, and weights that the type of the options cannot hold.
    pub fn new(network: &Network, options: &PlanOptions) -> Result<Self, RuntimeError> {
        Self::with_activity(network, options, &Activity::new())
    }

    /// The plan of the same network for the bucket of that length, which is at most [`LONGEST`]; `None` where no dimension is free.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub(crate) fn for_length(&self, length: usize) -> Option<Result<Self, RuntimeError>> {
        let source = self.source.as_ref()?;
        let options = PlanOptions {
            length,
            ..self.options
        };
        let longest = length.next_power_of_two();
        let plan = Self::up_to(&source.network, &options, &source.activity, longest);
        Some(plan.map(|plan| Self {
            source: Some(Arc::clone(source)),
            ..plan
        }))
    }

    /// As [`Plan::new`], with the measured activity of some layers.
    pub(crate) fn with_activity(
        network: &Network,
        options: &PlanOptions,
        activity: &Activity,
    ) -> Result<Self, RuntimeError> {
        for (option, value) in [("batch", options.batch), ("threads", options.threads)] {
            if value == 0 {
                return Err(RuntimeError::Option {
                    option,
                    expected: "at least 1".into(),
                    got: "0".into(),
                });
            }
        }
        if options.batch > LARGEST_BATCH {
            return Err(RuntimeError::Option {
                option: "batch",
                expected: format!("at most {LARGEST_BATCH}"),
                got: options.batch.to_string(),
            });
        }
        let Some(symbol) = network.graph.free_symbol() else {
            return Self::up_to(network, options, activity, 1);
        };
        if !(1..=LONGEST).contains(&options.length) {
            return Err(RuntimeError::Option {
                option: "length",
                expected: format!("1 to {LONGEST}"),
                got: options.length.to_string(),
            });
        }
        let source = Source {
            network: network.clone(),
            activity: activity.clone(),
            symbol: symbol.to_owned(),
        };
        let longest = options.length.next_power_of_two();
        let mut plan = Self::up_to(network, options, activity, longest)?;
        plan.source = Some(Arc::new(source));
        Ok(plan)
    }

    /// A plan for up to `longest` elements of the free dimension.
    fn up_to(
        network: &Network,
        options: &PlanOptions,
        activity: &Activity,
        longest: usize,
    ) -> Result<Self, RuntimeError> {
        let fused = sparsevd_model::passes::fuse_attention(network);
        // Factors of queries and keys are normalisations, so attention comes first.
        let network = &*sparsevd_model::passes::for_running(fused.as_ref().unwrap_or(network));
        let mut program = Program::new(network, longest)?;
        passes::run(&mut program);
        let lowering = lower::lower(&program, network, options, activity)?;
        let (block, threads) = (lowering.block, lowering.threads);
        let (one_by_one, shares_blocks) = (lowering.one_by_one, lowering.shares_blocks);
        let samples = lowering.last_alone;
        let (steps, mut arena_bytes) = buffers::assign(lowering);
        let mut last = None;
        if samples > 0 {
            let few = PlanOptions {
                batch: samples,
                threads: 1,
                // The other samples then have all weights in f32.
                values: match options.values {
                    WeightType::Auto => WeightType::F32,
                    values => values,
                },
                ..*options
            };
            let (steps, bytes) = buffers::assign(lower::lower(&program, network, &few, activity)?);
            last = Some(Last { samples, steps });
            arena_bytes = arena_bytes.max(bytes);
        }
        let describe = |s| describe(s, options, block, longest);
        let nodes = steps.iter().map(describe).collect();
        let values = |endpoints: Vec<Endpoint>| {
            let values = endpoints.into_iter();
            let value = |e: Endpoint| PlanValue {
                ids: e.ids,
                ..PlanValue::new(e.name, e.tensor_type, longest)
            };
            values.map(value).collect()
        };
        Ok(Self {
            network: network.graph.name.clone(),
            options: *options,
            steps,
            last,
            nodes,
            block,
            one_by_one,
            shares_blocks,
            threads,
            arena_bytes,
            longest,
            source: None,
            inputs: values(program.inputs),
            outputs: values(program.outputs),
        })
    }

    /// Name of the network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The options that the plan was made with.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// The steps in the order in which they run.
    pub fn nodes(&self) -> &[PlanNode] {
        &self.nodes
    }

    /// The inputs in the order of the graph.
    pub fn inputs(&self) -> &[PlanValue] {
        &self.inputs
    }

    /// The outputs in the order of the graph.
    pub fn outputs(&self) -> &[PlanValue] {
        &self.outputs
    }

    /// Checks that there is memory for the outputs of `batch` samples whose free dimension, if they have one, has `length` elements.
    ///
    /// # Errors
    /// [`RuntimeError::Model`] where there is none.
    pub fn check_outputs(&self, batch: usize, length: usize) -> Result<(), RuntimeError> {
        let elements = self.outputs.iter().map(|v| v.elements(length));
        let elements = elements
            .fold(0, usize::saturating_add)
            .saturating_mul(batch);
        let what = || format!("the outputs of {batch} samples");
        Ok(memory::check_elements(what, elements, size_of::<f32>())?)
    }

    /// Name of the free dimension, where there is one, and the lengths that the plan is for: more than half of the last.
    pub fn free(&self) -> Option<(&str, RangeInclusive<usize>)> {
        let symbol = self.source.as_ref()?.symbol.as_str();
        Some((symbol, self.longest / 2 + 1..=self.longest))
    }

    /// Shape of one sample of the first input.
    pub fn input_shape(&self) -> &Shape {
        &self.inputs[0].shape
    }

    /// Shape of one sample of the first output.
    pub fn output_shape(&self) -> &Shape {
        &self.outputs[0].shape
    }

    /// Samples that go through the network together; where its first maps are large, only through its last layers.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Threads that a run uses: at most those of the options, fewer for a network with too little work for them.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Bytes of packed weights, indices and biases.
    pub fn weight_bytes(&self) -> usize {
        self.nodes.iter().map(|n| n.weight_bytes).sum::<usize>() + self.last_bytes()
    }

    /// Bytes of weights that are packed a second time for the last samples of a batch, where those run faster outside a tile.
    pub fn last_bytes(&self) -> usize {
        let last = self.last.iter().flat_map(|l| &l.steps);
        last.flat_map(|s| &s.step.parts)
            .map(|p| p.kernel.bytes())
            .sum()
    }

    /// Expected microseconds of a run of the plan's batch on one thread, by [`PlanOptions::costs`].
    pub fn expected_us(&self) -> f64 {
        self.nodes.iter().map(|n| n.expected_us).sum()
    }

    /// Bytes of activations and scratch of one thread.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Multiply-adds per sample of the dense network.
    pub fn dense_multiply_adds(&self) -> usize {
        self.nodes.iter().map(|n| n.dense_multiply_adds).sum()
    }

    /// Multiply-adds per sample that the non-zeros need.
    pub fn multiply_adds(&self) -> usize {
        self.nodes.iter().map(|n| n.multiply_adds).sum()
    }
}

fn describe(bound: &Bound, options: &PlanOptions, block: usize, length: usize) -> PlanNode {
    let step = &bound.step;
    let first = &step.parts[0].kernel;
    let samples = step.rows.of(1, length).max(1);
    let inputs = bound.x.map_or(0, |x| x.tensor.elements(length) / samples);
    let (weights, nonzeros, pixels) = step
        .weight
        .map_or((0, 0, 0), |w| (w.elements, w.nonzeros, w.pixels));
    PlanNode {
        name: step.name.clone(),
        op: step.op.clone(),
        kernel: first.name(),
        sparse: first.is_sparse(),
        is_int8: first.is_int8(),
        values: (step.weight)
            .filter(|_| first.is_sparse() && !first.is_int8())
            .map(|used| WeightType::from(used.precision))
            .filter(|values| *values != WeightType::F32),
        parts: step.pieces(),
        layout: match bound.y.tensor.layout {
            Layout::Single => "single",
            Layout::Tiled => "tiled",
            Layout::Blocks(_) => "blocks",
            Layout::Bytes(..) => "bytes",
        },
        shape: step.output_shape.clone(),
        weights,
        nonzeros,
        dense_multiply_adds: weights * pixels,
        multiply_adds: nonzeros * pixels,
        weight_bytes: step.parts.iter().map(|p| p.kernel.bytes()).sum(),
        expected_us: expected_us(step, inputs, options, block, length),
    }
}

impl Serialize for Plan {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut s = serializer.serialize_struct("Plan", 14)?;
        s.serialize_field("network", &self.network)?;
        s.serialize_field("plan", &self.options.weights)?;
        s.serialize_field("isa", self.options.isa.name())?;
        s.serialize_field("batch", &self.options.batch)?;
        s.serialize_field("threads", &self.threads)?;
        s.serialize_field("block", &self.block)?;
        s.serialize_field("values", &self.options.values)?;
        s.serialize_field("expected_us", &self.expected_us())?;
        s.serialize_field("weight_bytes", &self.weight_bytes())?;
        s.serialize_field("last_bytes", &self.last_bytes())?;
        s.serialize_field("arena_bytes", &self.arena_bytes())?;
        s.serialize_field("inputs", &self.inputs)?;
        s.serialize_field("outputs", &self.outputs)?;
        s.serialize_field("nodes", &self.nodes)?;
        s.end()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} plan of {} for batch {} on {} thread(s), {} samples at a time",
            self.options.weights,
            terminal::name(&self.network),
            self.options.batch,
            self.threads,
            self.block
        )?;
        let int8 = self.nodes.iter().filter(|n| n.is_int8).count();
        if int8 > 0 {
            let layers = self.nodes.iter().filter(|n| n.weights > 0).count();
            writeln!(f, "{int8} of {layers} layers multiply int8, the others f32")?;
        }
        if self.options.values == WeightType::Auto {
            let layers = self.nodes.iter().filter(|n| n.weights > 0).count();
            let stored = |values| {
                let nodes = self.nodes.iter();
                nodes.filter(|n| n.values == Some(values)).count()
            };
            writeln!(
                f,
                "{} of {layers} layers rounded to bf16, {} on a grid in i8, the others as they are",
                stored(WeightType::Bf16),
                stored(WeightType::I8)
            )?;
        }
        if let Some((symbol, lengths)) = self.free() {
            let (first, last) = lengths.into_inner();
            writeln!(
                f,
                "for a {} of {first} to {last}; shapes are those of {last}",
                terminal::name(symbol)
            )?;
        }
        if self.inputs.len() > 1 || self.outputs.len() > 1 || self.longest > 1 {
            let list = |values: &[PlanValue]| {
                let values: Vec<String> = values
                    .iter()
                    .map(|v| format!("{} {}", v.name, v.tensor_type))
                    .map(|v| terminal::name(&v).into_owned())
                    .collect();
                values.join(", ")
            };
            writeln!(f, "inputs {}", list(&self.inputs))?;
            writeln!(f, "outputs {}", list(&self.outputs))?;
        }
        let widest = |get: fn(&PlanNode) -> usize, title: usize| {
            self.nodes.iter().map(get).max().unwrap_or(0).max(title)
        };
        let (name, op, kernel) = (
            widest(|n| terminal::name(&n.name).len(), 4),
            widest(|n| n.op.len(), 2),
            widest(|n| n.kernel.len() + 4, 6),
        );
        writeln!(
            f,
            "{:name$}  {:op$}  {:kernel$}  {:6}  {:>14}  {:>10}  {:>8}  {:>10}  {:>10}",
            "node", "op", "kernel", "layout", "output", "nonzeros", "density", "bytes", "expect us"
        )?;
        for node in &self.nodes {
            let kernel_name = match node.parts {
                1 => node.kernel.clone(),
                parts => format!("{} x{parts}", node.kernel),
            };
            let density = node
                .density()
                .map_or(String::new(), |d| format!("{:.2} %", d * 100.0));
            let count = |n: usize| if n == 0 { String::new() } else { n.to_string() };
            writeln!(
                f,
                "{:name$}  {:op$}  {kernel_name:kernel$}  {:6}  {:>14}  {:>10}  {density:>8}  {:>10}  {:>10.3}",
                terminal::name(&node.name),
                node.op,
                node.layout,
                node.shape.to_string(),
                count(node.nonzeros),
                count(node.weight_bytes),
                node.expected_us,
            )?;
        }
        if let Some(last) = &self.last {
            writeln!(
                f,
                "the last {} of a batch run outside tiles, from {} bytes of the weights",
                last.samples,
                self.last_bytes()
            )?;
        }
        if let Some(node) = self.nodes.get(self.one_by_one)
            && self.one_by_one > 0
        {
            writeln!(
                f,
                "samples go one by one up to {}",
                terminal::name(&node.name)
            )?;
        }
        write!(
            f,
            "weights {} bytes, arena {} bytes per thread",
            self.weight_bytes(),
            self.arena_bytes()
        )
    }
}
