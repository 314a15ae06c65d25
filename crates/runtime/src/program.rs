//! A network as a list of steps over numbered values: what the passes rewrite.

use std::collections::HashMap;

use sparsevd_kernels::Clamp;
use sparsevd_model::{Network, Op, Shape};

use crate::RuntimeError;

/// Number of a value: the network's input, or what one step makes.
pub(crate) type Value = usize;

/// One operation on numbered values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Name of the node it came from.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// What it makes; each value is made once.
    pub output: Value,
    /// Shape of the first input as this operation sees it, per sample.
    pub input_shape: Shape,
    /// Shape of the output, per sample.
    pub output_shape: Shape,
    /// What is applied to its result inside the same step.
    pub clamp: Clamp,
}

/// Steps in an order in which they can run, from one input to one output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// The steps.
    pub steps: Vec<Step>,
    /// The value that the caller gives.
    pub input: Value,
    /// The value that the caller wants.
    pub output: Value,
    /// Shape of the input, per sample.
    pub input_shape: Shape,
    /// Shape of the output, per sample.
    pub output_shape: Shape,
    /// Elements of each value, per sample.
    pub elements: Vec<usize>,
}

impl Program {
    /// The steps of a network as they stand in its graph.
    pub fn new(network: &Network) -> Result<Self, RuntimeError> {
        let shapes = network.shapes()?;
        let graph = &network.graph;
        let one = |what, names: Vec<&str>| match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => Err(RuntimeError::Unsupported {
                network: graph.name.clone(),
                what,
                expected: "one".into(),
                got: format!("{} ({})", names.len(), names.join(", ")),
            }),
        };
        let input_name = one(
            "number of inputs",
            graph.inputs.iter().map(|i| i.name.as_str()).collect(),
        )?;
        let output_name = one(
            "number of outputs",
            graph.outputs.iter().map(String::as_str).collect(),
        )?;
        let mut numbers: HashMap<&str, Value> = HashMap::from([(input_name.as_str(), 0)]);
        let mut elements = vec![shapes[input_name.as_str()].elements()];
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let output = elements.len();
            let output_shape = shapes[node.name.as_str()].clone();
            elements.push(output_shape.elements());
            steps.push(Step {
                name: node.name.clone(),
                op: node.op.clone(),
                inputs: node.inputs.iter().map(|i| numbers[i.as_str()]).collect(),
                output,
                input_shape: shapes[node.inputs[0].as_str()].clone(),
                output_shape,
                clamp: Clamp::None,
            });
            numbers.insert(&node.name, output);
        }
        Ok(Self {
            steps,
            input: 0,
            output: numbers[output_name.as_str()],
            input_shape: shapes[input_name.as_str()].clone(),
            output_shape: shapes[output_name.as_str()].clone(),
            elements,
        })
    }

    /// How many steps read a value; the caller counts as a reader of the output.
    pub fn readers(&self, value: Value) -> usize {
        let inside: usize = self
            .steps
            .iter()
            .map(|s| s.inputs.iter().filter(|&&i| i == value).count())
            .sum();
        inside + usize::from(value == self.output)
    }

    /// Index of the step that makes a value; `None` for the input.
    pub fn maker(&self, value: Value) -> Option<usize> {
        self.steps.iter().position(|s| s.output == value)
    }

    /// Removes a step; whoever read its output now reads its first input.
    pub fn bypass(&mut self, step: usize) {
        let removed = self.steps.remove(step);
        let (from, to) = (removed.output, removed.inputs[0]);
        for later in &mut self.steps {
            for input in &mut later.inputs {
                if *input == from {
                    *input = to;
                }
            }
        }
        if self.output == from {
            self.output = to;
        }
    }
}
