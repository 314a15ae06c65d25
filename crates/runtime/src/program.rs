//! A network as a list of steps over numbered values.

use std::collections::{HashMap, HashSet};

use sparsevd_kernels::{Activation, Clamp};
use sparsevd_model::memory;
use sparsevd_model::{DType, Network, Op, Shape, TensorType, Window, ops};

use crate::RuntimeError;
use crate::value::ValueType;

/// Number of a value: an input of the network, or the output of one step.
pub(crate) type Value = usize;

/// One operation on numbered values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Name of the node it came from.
    pub name: String,
    pub op: Op,
    /// Inputs of the operator.
    pub inputs: Vec<Value>,
    /// A summand of the shape of the output, added before the clamp: `y = clamp(op(x) + residual)`.
    pub residual: Option<Value>,
    /// The result, after clamp and pooling. Each value is the output of one step.
    pub output: Value,
    /// Shape of the first input as this operation sees it, per sample.
    pub input_shape: Shape,
    /// Shape of the output, per sample.
    pub output_shape: Shape,
    /// Applied to the result of the operator and its residual.
    pub clamp: Clamp,
    /// A max-pooling of two by two pixels, applied after the clamp.
    pub pool: Option<FusedPool>,
}

/// A max-pooling of two by two pixels that joined the convolution before it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FusedPool {
    /// Name of its node.
    pub name: String,
    /// The map that it pools. It is stored only where the kernel of the convolution cannot pool.
    pub input: Value,
    /// Shape of that map, per sample.
    pub input_shape: Shape,
}

impl FusedPool {
    /// The window of the pooling: two by two pixels, which do not overlap.
    pub fn window() -> Window {
        Window::square(2, 2)
    }
}

impl Step {
    /// All values that the step reads.
    pub fn reads(&self) -> impl Iterator<Item = Value> {
        self.inputs.iter().chain(&self.residual).copied()
    }

    /// The step without the pooling that joined it.
    pub fn without_pool(&self) -> Self {
        let mut step = self.clone();
        if let Some(pool) = step.pool.take() {
            (step.output, step.output_shape) = (pool.input, pool.input_shape);
        }
        step
    }

    /// The pooling that joined the step, as a step of its own.
    pub fn pool_alone(&self) -> Option<Self> {
        let pool = self.pool.as_ref()?;
        Some(Self {
            name: pool.name.clone(),
            op: Op::MaxPool(ops::MaxPool {
                window: FusedPool::window(),
            }),
            inputs: vec![pool.input],
            residual: None,
            output: self.output,
            input_shape: pool.input_shape.clone(),
            output_shape: self.output_shape.clone(),
            clamp: Clamp::None,
            pool: None,
        })
    }

    /// Whether the kernel of this step can clamp its results, and does not yet.
    pub fn takes_clamp(&self) -> bool {
        let can = self.op.weight().is_some()
            || matches!(
                self.op,
                Op::Add
                    | Op::Sub
                    | Op::Mul
                    | Op::Div
                    | Op::Max
                    | Op::Min
                    | Op::BatchNormalization(_)
            );
        can && self.clamp == Clamp::None
    }

    /// Channels, height and width of the input and of the output, where both are maps.
    pub fn maps(&self) -> Option<[[usize; 3]; 2]> {
        match (self.input_shape.dims(), self.output_shape.dims()) {
            (&[c, h, w], &[out, oh, ow]) => Some([[c, h, w], [out, oh, ow]]),
            _ => None,
        }
    }
}

/// The clamp that an operator is, if it is one.
pub(crate) fn clamp_of(op: &Op) -> Option<Clamp> {
    Activation::of(op)?.as_clamp()
}

/// A value that a program reads or returns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Endpoint {
    pub name: String,
    pub value: Value,
    pub tensor_type: TensorType,
    /// Of an input of ids their number.
    pub ids: Option<usize>,
}

/// Most elements of a value with a free dimension, per sample.
const MOST_ELEMENTS: usize = 1 << 32;

/// Checks that a length does not make a value larger than memory can be.
fn check_size(name: &str, value: &TensorType, length: usize) -> Result<(), RuntimeError> {
    if value.free().is_none() || value.elements(length) <= MOST_ELEMENTS {
        return Ok(());
    }
    Err(RuntimeError::Option {
        option: "length",
        expected: format!("values of at most {MOST_ELEMENTS} elements"),
        got: format!("`{name}` {value} for lengths up to {length}"),
    })
}

/// Checks that there is memory for a value of one sample, before kernels are made for it.
fn check_memory(name: &str, elements: usize) -> Result<(), RuntimeError> {
    let what = || format!("the value `{name}`");
    Ok(memory::check_elements(what, elements, size_of::<f32>())?)
}

/// Steps in an order in which they can run, from inputs to outputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    pub steps: Vec<Step>,
    /// The inputs, each a value of its own.
    pub inputs: Vec<Endpoint>,
    /// The outputs. Several may be one value.
    pub outputs: Vec<Endpoint>,
    /// Type of each value.
    pub values: Vec<ValueType>,
    /// Most elements of the free dimension; 1 where there is none.
    pub length: usize,
}

impl Program {
    /// The steps of a network, one for each node of its graph, for up to `length` elements of its free dimension.
    ///
    /// # Errors
    /// When shapes do not fit together, there is no input, or two outputs have one name.
    pub fn new(network: &Network, length: usize) -> Result<Self, RuntimeError> {
        let types = network.types()?;
        let ids = network.ids();
        let graph = &network.graph;
        if graph.inputs.is_empty() {
            return Err(RuntimeError::Unsupported {
                network: graph.name.clone(),
                what: "inputs",
                expected: "at least one".into(),
                got: "none".into(),
            });
        }
        let mut numbers: HashMap<&str, Value> = HashMap::new();
        let mut values = Vec::with_capacity(graph.inputs.len() + graph.nodes.len());
        let value_type = |name: &String| {
            let tensor_type = &types[name.as_str()];
            ValueType {
                // Ids are carried as floating-point numbers.
                dtype: DType::F32,
                shape: tensor_type.shape(length),
                free: tensor_type.free(),
            }
        };
        for (value, input) in graph.inputs.iter().enumerate() {
            let is_id = input.dtype.is_id() && ids.contains_key(input.name.as_str());
            if input.dtype != DType::F32 && !is_id {
                return Err(RuntimeError::Unsupported {
                    network: graph.name.clone(),
                    what: "inputs",
                    expected: "f32, or ids that number rows of a table".into(),
                    got: format!("{} (`{}`)", input.tensor_type(), input.name),
                });
            }
            check_size(&input.name, &types[input.name.as_str()], length)?;
            check_memory(&input.name, types[input.name.as_str()].elements(length))?;
            numbers.insert(&input.name, value);
            values.push(value_type(&input.name));
        }
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let output = values.len();
            values.push(value_type(&node.name));
            check_size(&node.name, &types[node.name.as_str()], length)?;
            check_memory(&node.name, types[node.name.as_str()].elements(length))?;
            let input_shape = types[node.inputs[0].as_str()].shape(length);
            // Kernels may copy their input with its padding.
            if let (Some(window), &[c, h, w]) = (node.op.operator().window(), input_shape.dims()) {
                let [h, w] = window.padded(h, w);
                check_memory(&node.name, c.saturating_mul(h).saturating_mul(w))?;
            }
            steps.push(Step {
                name: node.name.clone(),
                op: node.op.clone(),
                inputs: node.inputs.iter().map(|i| numbers[i.as_str()]).collect(),
                residual: None,
                output,
                input_shape,
                output_shape: values[output].shape.clone(),
                clamp: Clamp::None,
                pool: None,
            });
            numbers.insert(&node.name, output);
        }
        let endpoint = |name: &String| Endpoint {
            name: name.clone(),
            value: numbers[name.as_str()],
            tensor_type: types[name.as_str()].clone(),
            ids: ids.get(name.as_str()).copied(),
        };
        let outputs: Vec<Endpoint> = graph.outputs.iter().map(endpoint).collect();
        let mut names = HashSet::new();
        for output in &outputs {
            if !names.insert(output.name.as_str()) {
                return Err(RuntimeError::Unsupported {
                    network: graph.name.clone(),
                    what: "outputs",
                    expected: "each value once".into(),
                    got: format!("`{}` again", output.name),
                });
            }
        }
        Ok(Self {
            steps,
            inputs: graph.inputs.iter().map(|i| endpoint(&i.name)).collect(),
            outputs,
            values,
            length: graph.free_symbol().map_or(1, |_| length),
        })
    }
}
