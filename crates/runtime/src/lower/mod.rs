//! Lowering: which kernel each step of a program gets, and in which layout its values lie.
//!
//! For each step, the file of its operator lists the kernels that could compute it ([`Candidate`]), best first, by the thresholds and costs of
//! [`sparsevd_kernels::select`]. The driver in this file takes the first that can be packed, converts inputs to the layout that the kernel
//! needs, and divides the step among threads. The files of the operators read a [`Context`] and never call the driver.

mod arrange;
mod attention;
mod automatic;
mod batching;
mod byte_grids;
mod candidate;
mod choice;
mod context;
mod conv;
mod conv_geometry;
mod convert;
mod elementwise;
mod halos;
mod layer_norm;
mod linear;
mod mat_mul;
mod normalisation;
mod partition;
mod pool;
mod prelu;
mod reduce;
mod sizes;
mod weights;

use std::collections::HashSet;

use sparsevd_kernels::elementwise::Arithmetic;
use sparsevd_kernels::int8::Grid;
use sparsevd_kernels::kernel::{CallSplit, InputSplit};
use sparsevd_kernels::pool::Reduction;
use sparsevd_kernels::reorder::Reorder;
use sparsevd_kernels::{Clamp, Layout, Precision, select};
use sparsevd_model::{Network, Op};

use self::batching::Batching;
use self::candidate::Candidate;
use self::context::Context;
use self::convert::Steps;
use crate::error::RuntimeError;
use crate::lowered::{Lowered, LoweredProgram, Part, Partition, WeightUse};
use crate::options::{Int8Mode, PlanOptions, WeightType};
use crate::program::{Program, Step, Value, clamp_of};
use crate::value::Rows;

pub(crate) use self::context::Activity;

/// Chooses layouts and kernels and packs the weights.
///
/// # Errors
/// When an operator has no kernel, a weight cannot be stored as the options ask, or no memory holds the values.
pub(crate) fn lower(
    program: &Program,
    network: &Network,
    options: &PlanOptions,
    activity: &Activity,
) -> Result<LoweredProgram, RuntimeError> {
    let mut uses: Vec<Option<WeightUse>> = program
        .steps
        .iter()
        .map(|s| weights::weight_use(s, network, options))
        .collect::<Result<_, _>>()?;
    let halos = halos::halos(program);
    sizes::check_values(program, network, &halos)?;
    let bytes = !network.int8.is_empty() && options.int8 != Int8Mode::Never;
    weights::check_memory(&uses, options, bytes)?;
    let batching = Batching::new(program, &uses, options, bytes);
    if options.values == WeightType::Auto {
        automatic::choose_precisions(program, network, activity, &batching, &mut uses);
    }
    let are_automatic =
        |used: &WeightUse| options.values == WeightType::Auto && used.precision != Precision::F32;
    let one_precision = !uses.iter().flatten().any(are_automatic);
    // Parts follow each other in memory only within one sample.
    let parts = if batching.block == 1 {
        batching.parts
    } else {
        1
    };
    let mut driver = Driver {
        program,
        network,
        options,
        activity,
        halos,
        byte_grids: byte_grids::byte_grids(program, network, options),
        read_by_depthwise: halos::read_by_depthwise(program),
        lowered: Steps::new(program, options.isa, parts),
        batching,
    };
    for (step, weight) in program.steps.iter().zip(&uses) {
        driver.step(step, *weight)?;
    }
    let Driver {
        batching,
        mut lowered,
        ..
    } = driver;
    let outputs = program.outputs.iter();
    let outputs = outputs
        .map(|o| lowered.converted(o.value, Layout::Single, Rows::ONE))
        .collect();
    lowered.pack_only_what_is_read();
    leave_calls_whole_where_most_work_is_one_group(&mut lowered.steps, program.length);
    let (block, one_by_one) = batching.one_by_one(&lowered.steps, &lowered.values, program.length);
    // What multiplies int8, or was rounded for this batch, must be so for every sample of it.
    let are_int8 = lowered.steps.iter().flat_map(|step| &step.parts);
    let are_int8 = are_int8.map(|part| part.kernel.is_int8());
    let last_alone = match are_int8.into_iter().any(|bytes| bytes) {
        false if one_precision => batching.last_alone(),
        _ => 0,
    };
    let lowered = LoweredProgram {
        steps: lowered.steps,
        values: lowered.values,
        length: program.length,
        inputs: program.inputs.iter().map(|i| i.value).collect(),
        outputs,
        block,
        one_by_one,
        // Over several samples that are no tile, most layers stay whole.
        shares_blocks: batching.parts > 1 && batching.choice.layout == Layout::Tiled,
        threads: batching.threads,
        last_alone,
    };
    sizes::check_memory(&lowered, options)?;
    Ok(lowered)
}

/// The kernels that could compute a step, best first.
fn candidates<'a>(
    context: &Context<'a>,
    step: &'a Step,
    weight: Option<WeightUse>,
) -> Result<Vec<Candidate<'a>>, RuntimeError> {
    let one = |candidate: Result<Candidate<'a>, RuntimeError>| candidate.map(|c| vec![c]);
    match &step.op {
        Op::Linear(_) => linear::candidates(context, step, weight),
        Op::Conv(_) => conv::candidates(context, step, weight),
        Op::MaxPool(_) => pool::candidates(context, step, Reduction::Max),
        Op::AveragePool(_) | Op::GlobalAveragePool => {
            pool::candidates(context, step, Reduction::Average)
        }
        Op::BatchNormalization(_) => Ok(normalisation::candidates(context, step)),
        Op::LayerNormalization(norm) => one(Ok(layer_norm::candidate(context, step, norm))),
        Op::PRelu(op) => one(Ok(prelu::candidate(context, step, op))),
        Op::Pad(pad) => one(arrange::pad(context, step, pad)),
        Op::Concat(concat) => one(Ok(arrange::concat(context, step, concat))),
        Op::Relu
        | Op::Clip(_)
        | Op::LeakyRelu(_)
        | Op::Sigmoid
        | Op::HardSigmoid(_)
        | Op::HardSwish
        | Op::Tanh
        | Op::Gelu(_)
        | Op::Elu(_)
        | Op::Softplus
        | Op::Exp
        | Op::Log
        | Op::Sqrt
        | Op::Erf => one(elementwise::activation(context, step)),
        Op::Add => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Add))),
        Op::Sub => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Sub))),
        Op::Mul => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Mul))),
        Op::Div => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Div))),
        Op::Max => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Max))),
        Op::Min => one(Ok(elementwise::arithmetic(context, step, Arithmetic::Min))),
        Op::MatMul => one(mat_mul::candidate(context, step)),
        Op::Slice(slice) => one(Ok(arrange::slice(context, step, slice))),
        Op::Expand(_) => one(Ok(arrange::expand(step))),
        Op::Softmax(softmax) => one(Ok(elementwise::softmax(context, step, softmax.axis))),
        Op::LogSoftmax(op) => one(Ok(elementwise::log_softmax(context, step, op.axis))),
        Op::Reshape(_) => one(Ok(arrange::reshape(step))),
        Op::Transpose(transpose) => one(Ok(arrange::transpose(context, step, transpose))),
        Op::Embedding(op) => one(arrange::embedding(context, step, op)),
        Op::Attention(op) => one(attention::candidate(context, step, op)),
        Op::ReduceMean(_) => one(Ok(reduce::mean(context, step))),
        Op::L2Normalize => one(Ok(reduce::l2_normalize(context, step))),
        // It moves no number, so that a pass took it out.
        Op::Flatten => Err(context.unsupported(step)),
    }
}

struct Driver<'a> {
    program: &'a Program,
    network: &'a Network,
    options: &'a PlanOptions,
    activity: &'a Activity,
    batching: Batching,
    halos: Vec<[usize; 4]>,
    byte_grids: Vec<Option<Grid>>,
    read_by_depthwise: HashSet<Value>,
    lowered: Steps,
}

/// A chosen candidate, packed.
struct Chosen {
    parts: Vec<Part>,
    input: Layout,
    rows: Rows,
    subsample: Option<[usize; 2]>,
    output: Layout,
    residual: Layout,
    pools: bool,
    per_input: bool,
}

impl Driver<'_> {
    fn step(&mut self, step: &Step, weight: Option<WeightUse>) -> Result<(), RuntimeError> {
        let chosen = self.choose(step, weight)?;
        if chosen.per_input {
            self.push_per_input(step, chosen);
            return Ok(());
        }
        if let Some(pool) = step.pool_alone()
            && !chosen.pools
        {
            self.push(&step.without_pool(), weight, chosen);
            return self.step(&pool, None);
        }
        match step.residual {
            Some(residual) if !self.adds(residual, &chosen) => {
                self.push_then_sum(step, weight, chosen, residual);
            }
            _ => self.push(step, weight, chosen),
        }
        Ok(())
    }

    /// Packs the first candidate that can be packed.
    fn choose(&self, step: &Step, weight: Option<WeightUse>) -> Result<Chosen, RuntimeError> {
        let context = Context {
            network: self.network,
            options: self.options,
            activity: self.activity,
            batching: &self.batching,
            halos: &self.halos,
            byte_grids: &self.byte_grids,
            read_by_depthwise: &self.read_by_depthwise,
            program: self.program,
            values: &self.lowered.values,
        };
        let mut candidates = candidates(&context, step, weight)?.into_iter();
        let chosen = candidates.find_map(|candidate| {
            let Candidate {
                input,
                rows,
                subsample,
                output,
                residual,
                pools,
                per_input,
                pack,
            } = candidate;
            Some(Chosen {
                parts: pack()?,
                input,
                rows,
                subsample,
                output,
                residual,
                pools,
                per_input,
            })
        });
        chosen.ok_or_else(|| context.unsupported(step))
    }

    /// Whether the kernels can add the residual, which is there in the layout in which they do.
    fn adds(&self, residual: Value, chosen: &Chosen) -> bool {
        let there = (self.lowered).existing(residual, chosen.residual, chosen.rows);
        let there = there.is_some();
        there && chosen.parts.iter().all(|p| p.kernel.takes_residual())
    }

    /// The first input of a step in the layout of the chosen kernel.
    fn input(&mut self, value: Value, chosen: &Chosen) -> Value {
        match (
            chosen.subsample,
            self.lowered.values[value].layout,
            chosen.input,
        ) {
            (Some(strides), Layout::Blocks(from), Layout::Blocks(to)) => {
                self.lowered.subsampled(value, [from, to], strides)
            }
            (Some(strides), Layout::Bytes(from, grid), Layout::Bytes(to, wanted))
                if grid == wanted =>
            {
                (self.lowered).subsampled_bytes(value, [from, to], strides, grid)
            }
            (Some(_), Layout::Bytes(from, _), _) => {
                let floats = Layout::Blocks(from);
                let value = self.lowered.converted(value, floats, chosen.rows);
                self.input(value, chosen)
            }
            (Some(strides), Layout::Blocks(from), Layout::Bytes(to, _)) => {
                let sampled = self.lowered.subsampled(value, [from, to], strides);
                (self.lowered).converted(sampled, chosen.input, chosen.rows)
            }
            (_, _, layout) => self.lowered.converted(value, layout, chosen.rows),
        }
    }

    /// A step with all that joined it.
    fn push(&mut self, step: &Step, weight: Option<WeightUse>, chosen: Chosen) {
        let mut inputs: Vec<Value> = step
            .inputs
            .iter()
            .map(|&v| self.input(v, &chosen))
            .collect();
        let residual = step.residual;
        inputs
            .extend(residual.and_then(|v| self.lowered.existing(v, chosen.residual, chosen.rows)));
        self.lowered.put(step.output, chosen.output, chosen.rows);
        let order: Option<Vec<&[u32]>> = chosen.parts.iter().map(|p| p.kernel.order()).collect();
        let reorder = order.map(|order| Reorder::new(order.concat()));
        let output = match reorder {
            None => step.output,
            Some(_) => self.lowered.add_value(self.lowered.values[step.output]),
        };
        let added = residual.map_or("", |_| "+Add");
        let pooled = step.pool.as_ref().map_or("", |_| "+MaxPool");
        let op = [step.op.name(), added, suffix(step.clamp), pooled].concat();
        self.lowered.steps.push(Lowered {
            name: step.name.clone(),
            op,
            partition: self.partition(step, &chosen.parts, weight, chosen.rows),
            parts: chosen.parts,
            clamp: clamp_of(&step.op).unwrap_or(step.clamp),
            inputs,
            output,
            output_shape: step.output_shape.clone(),
            rows: chosen.rows,
            weight,
        });
        if let Some(reorder) = reorder {
            self.lowered.reordered(output, step.output, reorder);
        }
    }

    /// A step for each input, which writes its place of the output.
    fn push_per_input(&mut self, step: &Step, chosen: Chosen) {
        for (&input, part) in step.inputs.iter().zip(chosen.parts) {
            let input = self.lowered.converted(input, chosen.input, chosen.rows);
            self.lowered.steps.push(Lowered {
                name: step.name.clone(),
                op: step.op.name().into(),
                parts: vec![part],
                partition: Partition::Rows,
                clamp: Clamp::None,
                inputs: vec![input],
                output: step.output,
                output_shape: step.output_shape.clone(),
                rows: chosen.rows,
                weight: None,
            });
        }
        self.lowered.put(step.output, chosen.output, chosen.rows);
    }

    /// A layer, and then the sum that its kernel cannot compute.
    fn push_then_sum(
        &mut self,
        step: &Step,
        weight: Option<WeightUse>,
        chosen: Chosen,
        residual: Value,
    ) {
        let layout = chosen.output;
        let rows = chosen.rows;
        let term = self.lowered.values[step.output].with(layout, rows);
        let term = self.lowered.add_value(term);
        let layer = Step {
            residual: None,
            clamp: Clamp::None,
            output: term,
            ..step.clone()
        };
        self.push(&layer, weight, chosen);
        // A residual in tiles keeps the sum in tiles.
        let layout = match (self.lowered.values[residual].layout, layout) {
            (Layout::Tiled, _) => Layout::Tiled,
            // Sums are those of floats.
            (_, Layout::Bytes(blocks, _)) => Layout::Blocks(blocks),
            (_, layout) => layout,
        };
        let inputs = [term, residual].map(|v| self.lowered.converted(v, layout, rows));
        self.lowered.put(step.output, layout, rows);
        self.lowered.steps.push(Lowered {
            name: step.name.clone(),
            op: format!("Add{}", suffix(step.clamp)),
            parts: vec![elementwise::sum(self.options.isa, &step.output_shape)],
            partition: Partition::Rows,
            clamp: step.clamp,
            inputs: inputs.to_vec(),
            output: step.output,
            output_shape: step.output_shape.clone(),
            rows,
            weight: None,
        });
    }

    /// How threads share a step with these parts.
    fn partition(
        &self,
        step: &Step,
        parts: &[Part],
        used: Option<WeightUse>,
        rows: Rows,
    ) -> Partition {
        let multiply_adds =
            |part: &Part| used.map(|used| used.multiply_adds(part.kernel.is_sparse()));
        match parts {
            [only] if self.batching.block == 1 && only.kernel.banded().is_some() => {
                let work = multiply_adds(only).unwrap_or(only.features);
                Partition::Lines(select::parts(work, self.batching.parts))
            }
            [only]
                if self.batching.block == 1
                    && let Some(split) = only.kernel.call_split() =>
            {
                let elements = step.output_shape.elements();
                let without_weights = || match split {
                    // Each query has a product with all keys, and one with all values.
                    CallSplit::Queries(d) => elements.saturating_mul(2 * elements / d.max(1)),
                    _ => elements.saturating_mul(select::MOVE),
                };
                let work = multiply_adds(only).unwrap_or_else(without_weights);
                let groups = match split {
                    CallSplit::Samples(group) => {
                        rows.of(1, self.program.length).div_ceil(group).max(1)
                    }
                    CallSplit::Elements(size) | CallSplit::Queries(size) => {
                        elements.div_ceil(size.max(1)).max(1)
                    }
                };
                let threads = select::parts(work, self.batching.parts);
                Partition::Call(threads.min(groups))
            }
            [first, _, ..] if first.kernel.input_split() == InputSplit::Channels => {
                Partition::Channels
            }
            _ => Partition::Rows,
        }
    }
}

/// Where most of the work is in layers whose vectors are one group ([`CallSplit::Samples`]), no call is shared: the threads would save less than it takes to fetch
/// what another wrote.
fn leave_calls_whole_where_most_work_is_one_group(steps: &mut [Lowered], length: usize) {
    let (mut one, mut several) = (0_usize, 0_usize);
    for step in &*steps {
        let kernel = &step.parts[0].kernel;
        if let (Partition::Call(_), Some(CallSplit::Samples(group)), Some(used)) =
            (step.partition, kernel.call_split(), step.weight)
        {
            let is_one = step.rows.of(1, length) <= group;
            let sum = if is_one { &mut one } else { &mut several };
            *sum = sum.saturating_add(used.multiply_adds(kernel.is_sparse()));
        }
    }
    if one > several {
        let calls = steps.iter_mut().map(|step| &mut step.partition);
        calls
            .filter(|partition| matches!(partition, Partition::Call(_)))
            .for_each(|partition| *partition = Partition::Rows);
    }
}

/// What a fused clamp adds to the name of an operator.
fn suffix(clamp: Clamp) -> &'static str {
    match clamp {
        Clamp::None => "",
        Clamp::Relu => "+Relu",
        Clamp::Clip { .. } => "+Clip",
    }
}
