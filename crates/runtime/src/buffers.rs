//! Memory of each value of a lowered program: in the slices of the caller or in one arena.

use sparsevd_kernels::CopyKernel;

use crate::arena::{self, Lifetime};
use crate::lowered::{Extent, Lowered, LoweredProgram, Part, Partition, Tensor};
use crate::program::Value;
use crate::value::Rows;

/// Where a value lies during a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an input of the caller, by its number.
    Input(usize),
    /// In an output of the caller, by its number.
    Output(usize),
    /// In the arena, from that byte on.
    Arena(usize),
}

/// A value and its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Operand {
    pub place: Place,
    pub tensor: Tensor,
    pub extent: Extent,
    /// Whether there is memory for all samples of a block, one after the other, or for one sample.
    pub wide: bool,
}

/// A step with the places of its inputs and its output.
#[derive(Debug)]
pub(crate) struct Bound {
    pub step: Lowered,
    /// First input; `None` where the step works in place on `y`.
    pub x: Option<Operand>,
    /// Second input; `None` where there is none or it is the first input again.
    pub x2: Option<Operand>,
    /// Third input; `None` where there is none. It may be one of the others again.
    pub x3: Option<Operand>,
    pub y: Operand,
    /// Offset of the scratch in the arena, in bytes.
    pub scratch: usize,
}

/// Assigns a place to each value. Returns the steps with their places, and the bytes of the arena.
pub(crate) fn assign(program: LoweredProgram) -> (Vec<Bound>, usize) {
    let LoweredProgram {
        mut steps,
        mut values,
        inputs,
        mut outputs,
        length,
        block,
        one_by_one,
        ..
    } = program;
    let sharing = share(&steps, values.len(), &inputs, &outputs);
    let computed = sharing.only_computed(&steps, &inputs);
    let mut times = vec![0; values.len()];
    outputs.iter().for_each(|&v| times[v] += 1);
    let in_place: Vec<bool> = outputs
        .iter()
        .map(|&v| times[v] == 1 && computed[sharing.buffer_of[v]])
        .collect();
    for (output, _) in outputs.iter_mut().zip(in_place).filter(|(_, there)| !there) {
        // This value cannot be computed in the output of the caller, so it is copied there at the end.
        let tensor = values[*output];
        steps.push(copy(*output, values.len(), tensor));
        *output = values.len();
        values.push(tensor);
    }
    let sharing = share(&steps, values.len(), &inputs, &outputs);
    let buffers = &sharing.buffer_of;
    // The first of each, where a buffer is several.
    let mut output_of = vec![None; values.len()];
    for (i, &output) in outputs.iter().enumerate().rev() {
        output_of[buffers[output]] = Some(i);
    }
    let mut input_of = vec![None; values.len()];
    for (i, &input) in inputs.iter().enumerate().rev() {
        input_of[input] = Some(i);
    }
    // Values that steps over whole blocks read or write.
    let mut wide = vec![one_by_one == 0; values.len()];
    for step in &steps[one_by_one..] {
        for &v in step.inputs.iter().chain([&step.output]) {
            wide[buffers[v]] = true;
        }
    }
    let mut lifetimes: Vec<Lifetime> = Vec::new();
    let mut arena_of: Vec<Option<usize>> = vec![None; values.len()];
    for (i, step) in steps.iter().enumerate() {
        let buffer = buffers[step.output];
        if output_of[buffer].is_some() {
            continue;
        }
        let end = sharing.last_use[step.output].max(i) + 1;
        let samples = if wide[buffer] { block } else { 1 };
        let len = values[step.output].extent().bytes(samples, length);
        // Steps that run sample after sample start again for the next sample, while results of earlier samples must stay.
        let i = if wide[buffer] && i < one_by_one { 0 } else { i };
        match arena_of[buffer] {
            Some(at) => lifetimes[at].steps.end = lifetimes[at].steps.end.max(end),
            None => {
                arena_of[buffer] = Some(lifetimes.len());
                lifetimes.push(Lifetime { steps: i..end, len });
            }
        }
    }
    let first_scratch = lifetimes.len();
    lifetimes.extend(steps.iter().enumerate().map(|(i, s)| Lifetime {
        steps: i..i + 1,
        len: s.scratch_len() * size_of::<f32>(),
    }));
    let (offsets, size) = arena::place(&lifetimes);
    let place = |v: Value| {
        let buffer = buffers[v];
        if let Some(input) = input_of[buffer] {
            return Place::Input(input);
        }
        match (output_of[buffer], arena_of[buffer]) {
            (Some(output), _) => Place::Output(output),
            (None, Some(at)) => Place::Arena(offsets[at]),
            (None, None) => unreachable!("a step reads inputs and what steps before it compute"),
        }
    };
    let operand = |v: Value| Operand {
        place: place(v),
        tensor: values[v],
        extent: values[v].extent(),
        wide: wide[buffers[v]],
    };
    let bound = steps
        .into_iter()
        .enumerate()
        .map(|(i, step)| {
            let aliased = step.in_place() && buffers[step.inputs[0]] == buffers[step.output];
            Bound {
                x: (!aliased).then(|| operand(step.inputs[0])),
                x2: step
                    .inputs
                    .get(1)
                    .filter(|&&v| v != step.inputs[0])
                    .map(|&v| operand(v)),
                x3: step.inputs.get(2).map(|&v| operand(v)),
                y: operand(step.output),
                scratch: offsets[first_scratch + i],
                step,
            }
        })
        .collect();
    (bound, size)
}

/// Which values share a buffer because a step works in place.
struct Sharing {
    /// Buffer of each value, by the first value in it.
    buffer_of: Vec<Value>,
    /// The last step that reads each value; the number of steps for an output.
    last_use: Vec<usize>,
}

fn share(steps: &[Lowered], values: usize, inputs: &[Value], outputs: &[Value]) -> Sharing {
    let mut last_use = vec![0; values];
    for (i, step) in steps.iter().enumerate() {
        for &v in &step.inputs {
            last_use[v] = i;
        }
    }
    for &output in outputs {
        last_use[output] = steps.len();
    }
    let mut is_input = vec![false; values];
    inputs.iter().for_each(|&v| is_input[v] = true);
    let mut buffer_of: Vec<Value> = (0..values).collect();
    for (i, step) in steps.iter().enumerate() {
        let v = step.inputs[0];
        if step.in_place() && !is_input[buffer_of[v]] && last_use[v] == i {
            buffer_of[step.output] = buffer_of[v];
        }
    }
    Sharing {
        buffer_of,
        last_use,
    }
}

impl Sharing {
    /// For each buffer whether it can be an output's slice of the caller: steps write it, and only steps in place read it.
    fn only_computed(&self, steps: &[Lowered], inputs: &[Value]) -> Vec<bool> {
        let mut computed = vec![true; self.buffer_of.len()];
        inputs.iter().for_each(|&v| computed[v] = false);
        for step in steps {
            for &v in &step.inputs {
                let buffer = self.buffer_of[v];
                if !step.in_place() || self.buffer_of[step.output] != buffer {
                    computed[buffer] = false;
                }
            }
        }
        computed
    }
}

fn copy(from: Value, to: Value, tensor: Tensor) -> Lowered {
    Lowered {
        name: String::new(),
        op: "Copy".into(),
        parts: vec![Part {
            kernel: Box::new(CopyKernel),
            features: tensor.features,
        }],
        rows: Rows::ONE,
        partition: Partition::Rows,
        clamp: sparsevd_kernels::Clamp::None,
        inputs: vec![from],
        output: to,
        output_shape: sparsevd_model::Shape::from([tensor.features]),
        weight: None,
    }
}
