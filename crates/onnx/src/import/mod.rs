//! Import: the nodes of a file become nodes of a network.
//!
//! Operators that only rename, fold or reshape add no node where that can be; every other one becomes a node of the network, or a few. What
//! is not supported is collected, so that one error lists all of it.
//!
//! A file is imported in several attempts. The first takes the first dimension of its inputs as the batch, in the
//! layout that they declare. Where an operator needs an input in another layout, as after a Transpose from channels last,
//! the next attempt gives it that layout. Where operators mix samples and all sizes are fixed, another attempt takes the
//! whole input as one sample. Another keeps the shape of a Concat along an axis other than the first, which the others take as a vector. Where
//! none of these will do, values are reshaped and transposed by operators of the network.

mod activations;
mod arithmetic;
mod attention;
mod build;
mod decomposed;
mod embedding;
mod importer;
mod inputs;
mod layer_normalization;
mod layers;
mod maps;
mod normalisations;
mod parts;
mod products;
mod reduce;
mod resize;
mod shapes;
#[cfg(test)]
mod tests;
mod view;
mod whole;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use sparsevd_model::limits::MAX_NODES;
use sparsevd_model::{Graph, Input, ModelError, Network};

use crate::attributes::OnnxNode;
use crate::error::UnsupportedNode;
use crate::node_error::{Invalid, NodeError};
use crate::options::ImportOptions;
use crate::proto::{GraphProto, ModelProto, NodeProto};
use crate::tensor::{Decoder, Int, Tensor};
use crate::{constants, tensor};
use build::moved;
use importer::{Importer, Value};
use view::View;
use whole::Whole;

pub(crate) use importer::ImportError;

/// Oldest set of operators that is understood.
const OLDEST_OPSET: i64 = 7;

/// Most runs through the nodes of a file: each gives an input another layout than the declared one, or finds operators that are written as
/// several.
const MOST_RUNS: usize = 8;

/// Operators over computed values that [`Importer::activation`] imports.
const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "Attention",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Celu",
    "Clip",
    "Concat",
    "Conv",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "RMSNormalization",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "ReduceSumSquare",
    "Relu",
    "Reshape",
    "Resize",
    "Selu",
    "Shape",
    "Shrink",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// Those of them that take integers: all but `Gather` keep the elements of a value.
const OVER_IDS: &[&str] = &[
    "Cast",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// Why an operator does not take a value of integers.
fn ids(x: &View) -> NodeError {
    NodeError::unsupported(format!(
        "its input `{}` of type {}, which can only number the rows of a table",
        x.name, x.dtype
    ))
}

/// The network that a file describes.
pub(crate) fn import(
    model: &ModelProto,
    decoder: &Decoder,
    options: &ImportOptions,
) -> Result<Network, ImportError> {
    let graph = (model.graph.as_ref()).ok_or_else(|| Invalid::new("file", "a graph", "none"))?;
    if graph.node.len() > MAX_NODES {
        let expected = format!("at most {MAX_NODES}");
        return Err(
            Invalid::new("nodes of the graph", expected, graph.node.len().to_string()).into(),
        );
    }
    let moves = |attempt| Attempt {
        keeps_axes: true,
        moves: true,
        ..attempt
    };
    if inputs::has_no_batch(graph) && options.shapes.is_empty() {
        return attempts(model, graph, decoder, options, NO_BATCH)
            .or_else(|_| attempts(model, graph, decoder, options, moves(NO_BATCH)));
    }
    if inputs::have_other_batches(graph)
        && options.shapes.is_empty()
        && let Ok(network) = attempts(model, graph, decoder, options, NO_BATCH)
            .or_else(|_| attempts(model, graph, decoder, options, moves(NO_BATCH)))
    {
        return Ok(network);
    }
    if let Some(symbol) = inputs::free_symbol(graph, options)
        && let Some(network) = with_free(model, graph, decoder, options, &symbol)
    {
        return Ok(network);
    }
    let first = attempts(model, graph, decoder, options, BATCH);
    if !matches!(first, Err(ImportError::Unsupported(_))) {
        return first;
    }
    let no_batch = inputs::may_have_no_batch(graph);
    let keeps_axes = Attempt {
        keeps_axes: true,
        ..BATCH
    };
    let has_concat = graph.node.iter().any(|n| n.op_type == "Concat");
    let others = [
        no_batch.then_some(NO_BATCH),
        has_concat.then_some(keeps_axes),
        Some(moves(BATCH)),
        no_batch.then_some(moves(NO_BATCH)),
    ];
    let mut refused = first;
    for other in others.into_iter().flatten() {
        match attempts(model, graph, decoder, options, other) {
            Ok(network) => return Ok(network),
            // The nodes that no attempt with a batch can import.
            Err(error @ ImportError::Unsupported(_)) if other.batch_axes == 1 => {
                refused = Err(error);
            }
            Err(_) => {}
        }
    }
    refused
}

/// What one attempt to import a file assumes about it.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// 1 where the first dimension of every value is the batch, 0 where the file has no batch.
    batch_axes: usize,
    /// Whether a Concat along an axis other than the first keeps its shape.
    keeps_axes: bool,
    /// Whether values get another order or shape by operators of the network where nothing else will do.
    moves: bool,
    /// The size that the free dimension of the inputs gets, where they have one.
    length: Option<usize>,
}

/// The attempt for a file with a batch.
const BATCH: Attempt = Attempt {
    batch_axes: 1,
    keeps_axes: false,
    moves: false,
    length: None,
};

/// The attempt for a file without one.
const NO_BATCH: Attempt = Attempt {
    batch_axes: 0,
    ..BATCH
};

/// Two sizes of the free dimension for which a file is imported.
const PROBES: [usize; 2] = [89, 97];

/// The network with the free dimension of its inputs; `None` where an operator does not take it.
///
/// The file is imported for two sizes. Where the networks differ in the shapes of their inputs alone, no node and no tensor depends on it.
fn with_free(
    model: &ModelProto,
    graph: &GraphProto,
    decoder: &Decoder,
    options: &ImportOptions,
    symbol: &str,
) -> Option<Network> {
    let import = |length| {
        let attempt = Attempt {
            // The order of a value of any length cannot be tracked.
            keeps_axes: true,
            length: Some(length),
            ..BATCH
        };
        attempts(model, graph, decoder, options, attempt).ok()
    };
    let [mut network, other] = [import(PROBES[0])?, import(PROBES[1])?];
    for (input, other) in network.graph.inputs.iter_mut().zip(&other.graph.inputs) {
        if input.shape == other.shape {
            continue;
        }
        let sizes = input.shape.dims().iter().zip(other.shape.dims());
        let is_free = |(a, b): (&usize, &usize)| [*a, *b] == PROBES;
        let dimension = sizes.into_iter().position(is_free)?;
        *input =
            Input::with_free(&input.name, input.shape.clone(), dimension, symbol).of(input.dtype);
    }
    let other = other.graph.at_length(PROBES[1]) == network.graph.at_length(PROBES[1])
        && other.tensors == network.tensors;
    (other && network.graph.free_symbol().is_some() && network.types().is_ok()).then_some(network)
}

/// Imports a file, and again where an input has to have another layout, or an operator was found that the file writes as several.
fn attempts(
    model: &ModelProto,
    graph: &GraphProto,
    decoder: &Decoder,
    options: &ImportOptions,
    attempt: Attempt,
) -> Result<Network, ImportError> {
    let mut layouts = HashMap::new();
    let mut whole = HashMap::new();
    for _ in 0..MOST_RUNS {
        decoder.reset();
        let mut importer = Importer {
            opset: opset(model, graph)?,
            decoder,
            values: HashMap::new(),
            uses: HashMap::new(),
            batch_axes: attempt.batch_axes,
            batch: None,
            layouts: layouts.clone(),
            keeps_axes: attempt.keeps_axes,
            moves: attempt.moves,
            length: attempt.length,
            declared: Vec::new(),
            names: HashSet::new(),
            nodes: Vec::new(),
            tensors: BTreeMap::new(),
            transposed: HashMap::new(),
            tables: HashMap::new(),
            unsupported: Vec::new(),
            wanted: None,
            producers: producers(graph),
            whole: whole.clone(),
            found: HashMap::new(),
            others: Vec::new(),
        };
        if let Some(network) = importer.network(graph, options)? {
            return Ok(network);
        }
        // What reads an input inside such an operator needs no layout of it.
        match (importer.found, importer.wanted) {
            (found, Some((input, layout))) if found.is_empty() => {
                layouts.insert(input, layout);
            }
            (found, _) => whole.extend(found),
        }
    }
    let expected =
        format!("layouts of inputs and operators of several nodes that {MOST_RUNS} runs settle");
    Err(Invalid::new("file", expected, "more").into())
}

/// The node that makes each value.
fn producers(graph: &GraphProto) -> HashMap<&str, OnnxNode<'_>> {
    let all = (graph.node.iter()).flat_map(|node| {
        node.output
            .iter()
            .map(move |o| (o.as_str(), OnnxNode(node)))
    });
    all.filter(|(output, _)| !output.is_empty()).collect()
}

/// The nodes that an output of the graph depends on, in the order of the file. The others are never run, so their
/// operators need no support.
fn nodes_of_outputs<'m>(
    graph: &'m GraphProto,
    whole: &HashMap<&str, Whole<'m>>,
) -> Vec<&'m NodeProto> {
    let mut needed: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let mut nodes = Vec::new();
    // Consumers come after producers.
    for node in graph.node.iter().rev() {
        // An empty name is an optional input or output that is left out: it joins no nodes.
        let is_needed = |o: &String| !o.is_empty() && needed.contains(o.as_str());
        if node.output.iter().any(is_needed) {
            needed.extend(reads(node, whole));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

/// The values that a node reads; those of an operator that it is the last of, where the file writes that as several.
fn reads<'m>(node: &'m NodeProto, whole: &HashMap<&str, Whole<'m>>) -> Vec<&'m str> {
    let first = node.output.first().map_or("", String::as_str);
    match whole.get(first) {
        Some(whole) => whole.inputs().collect(),
        None => node.input.iter().map(String::as_str).collect(),
    }
}

fn opset(model: &ModelProto, graph: &GraphProto) -> Result<i64, Invalid> {
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let mut versions = model.opset_import.iter().filter(|o| own(&o.domain));
    match versions.next().map(|o| o.version) {
        Some(Some(version)) if version >= OLDEST_OPSET => Ok(version),
        // Operators of other domains are unsupported by name.
        None if !graph.node.iter().any(|n| own(&n.domain)) => Ok(OLDEST_OPSET),
        other => Err(Invalid::new(
            "opset_import",
            format!("a version of ONNX's operators from {OLDEST_OPSET} on"),
            other.flatten().map_or("none".into(), |v| v.to_string()),
        )),
    }
}

impl<'m> Importer<'m> {
    /// The network; `None` where the file has to be imported again.
    fn network(
        &mut self,
        graph: &'m GraphProto,
        options: &ImportOptions,
    ) -> Result<Option<Network>, ImportError> {
        self.initializers(graph)?;
        let nodes = nodes_of_outputs(graph, &self.whole);
        let read = nodes.iter().flat_map(|n| reads(n, &self.whole)).collect();
        let mut inputs = self.inputs(graph, options, &read)?;
        let outputs = graph.output.iter().map(|o| o.name.as_str());
        for name in nodes
            .iter()
            .flat_map(|n| reads(n, &self.whole))
            .chain(outputs)
        {
            *self.uses.entry(name).or_default() += 1;
        }
        for node in nodes {
            self.node(OnnxNode(node))?;
        }
        let outputs = self.outputs(graph)?;
        if self.wanted.is_some() || !self.found.is_empty() {
            return Ok(None);
        }
        if !self.unsupported.is_empty() {
            return Err(ImportError::Unsupported(std::mem::take(
                &mut self.unsupported,
            )));
        }
        if inputs.is_empty() {
            let expected = "at least one of floating-point numbers or ids";
            return Err(Invalid::new("inputs", expected, "none").into());
        }
        let nodes = std::mem::take(&mut self.nodes);
        let used: HashSet<&String> = nodes
            .iter()
            .flat_map(|n| &n.inputs)
            .chain(&outputs)
            .collect();
        if inputs.iter().any(|i| used.contains(&i.name)) {
            inputs.retain(|i| used.contains(&i.name));
        }
        let graph = Graph {
            name: if graph.name.is_empty() {
                "onnx".into()
            } else {
                graph.name.clone()
            },
            inputs,
            nodes,
            outputs,
            preprocessing: None,
        };
        let network = Network::new(graph, std::mem::take(&mut self.tensors));
        network.map(Some).map_err(ImportError::Model)
    }

    fn initializers(&mut self, graph: &'m GraphProto) -> Result<(), Invalid> {
        let mut define = |name: &'m str, value: Value| match self.values.insert(name, value) {
            None if !name.is_empty() => Ok(()),
            _ => Err(Invalid::new(
                "initializers",
                "one tensor of each name",
                format!("`{name}` again"),
            )),
        };
        for proto in &graph.initializer {
            let what = format!("initializer `{}`", proto.name);
            let value = if tensor::is_numeric(proto.data_type) {
                Value::Constant(Rc::new(self.decoder.dense(&what, proto)?))
            } else {
                let why = format!(
                    "its {what} of data type {}, which is not numeric",
                    proto.data_type
                );
                Value::Unusable(why.into())
            };
            define(&proto.name, value)?;
        }
        for proto in &graph.sparse_initializer {
            let name = proto.values.as_ref().map_or("", |v| v.name.as_str());
            let what = format!("sparse_initializer `{name}`");
            let tensor = self.decoder.sparse(&what, proto)?;
            define(name, Value::Constant(Rc::new(tensor)))?;
        }
        Ok(())
    }

    /// Names of the network's outputs.
    fn outputs(&mut self, graph: &'m GraphProto) -> Result<Vec<String>, ImportError> {
        let (mut names, mut outputs) = (Vec::new(), Vec::new());
        for output in &graph.output {
            let name = output.name.as_str();
            let invalid =
                |expected: &str, got: &str| Invalid::new(format!("output `{name}`"), expected, got);
            let view = match self.values.get(name).cloned() {
                Some(Value::Activation(view)) if view.dtype.is_id() => {
                    return Err(invalid("a value of floating-point numbers", "ids").into());
                }
                Some(Value::Activation(view)) => view,
                Some(Value::Unknown) => continue,
                Some(Value::Constant(_)) => {
                    return Err(invalid("a value that depends on the input", "a constant").into());
                }
                Some(Value::Unusable(_)) => {
                    return Err(invalid("a value of floating-point numbers", "another type").into());
                }
                None => return Err(invalid("a value of the graph", "none").into()),
            };
            // The numbers are the same in any shape; vectors are given back as vectors.
            let made = match view.order {
                Some(_) if self.moves => self.moved_to(&view, &view.dims.clone()),
                Some(_) => Err(moved(&view)),
                None if view.dims.len() == 1 => self.in_shape(&view, &view.dims),
                None => Ok(view),
            };
            match made {
                Ok(view) => {
                    names.push(name);
                    outputs.push(view.name);
                }
                Err(error) => {
                    let last = graph
                        .node
                        .iter()
                        .find(|n| n.output.iter().any(|o| o == name));
                    let (name, op) = last.map_or((name, "output".into()), |n| {
                        (OnnxNode(n).name(), OnnxNode(n).op())
                    });
                    self.refuse(name, &op, error);
                }
            }
        }
        if graph.output.len() > 1 {
            self.name_outputs(&names, &mut outputs);
        }
        Ok(outputs)
    }

    /// Collects what is unsupported or does not fit its operator.
    fn refuse(&mut self, name: &str, op: &str, error: NodeError) {
        let why = match error {
            NodeError::Unsupported(why) => why,
            NodeError::Invalid(Invalid {
                what,
                expected,
                got,
            }) if what == format!("node `{name}` ({op})") => {
                format!("expected {expected}, got {got}")
            }
            NodeError::Invalid(invalid) => invalid.to_string(),
            NodeError::Model(ModelError::Shape { expected, got, .. }) => {
                format!("expected {expected}, got {got}")
            }
            NodeError::Model(error) => error.to_string(),
            NodeError::Layout(input, layout) => {
                self.wanted.get_or_insert((input, layout));
                return;
            }
        };
        self.unsupported.push(UnsupportedNode {
            name: name.into(),
            op: op.into(),
            why,
        });
    }

    fn node(&mut self, node: OnnxNode<'m>) -> Result<(), ImportError> {
        self.others.clear();
        let made = match self.value(node)? {
            Ok(value) => value,
            Err(error) => {
                self.refuse(node.name(), &node.op(), error);
                Value::Unknown
            }
        };
        for (i, name) in node.0.output.iter().enumerate() {
            if name.is_empty() {
                continue;
            }
            let other = i.checked_sub(1).and_then(|i| self.others.get(i)?.clone());
            let value = match other {
                _ if i == 0 => made.clone(),
                Some(view) => Value::Activation(view),
                None => Value::Unknown,
            };
            let is_missing = i > 0 && matches!(value, Value::Unknown);
            if is_missing
                && self.uses.contains_key(name.as_str())
                && !matches!(made, Value::Unknown)
            {
                let error = NodeError::unsupported(format!("its output `{name}`"));
                self.refuse(node.name(), &node.op(), error);
            }
            if self.values.insert(name, value).is_some() {
                return Err(node
                    .invalid("outputs with names of their own", format!("`{name}` again"))
                    .into());
            }
        }
        Ok(())
    }

    /// The value of a node, or why it cannot be imported.
    fn value(&mut self, node: OnnxNode<'m>) -> Result<Result<Value, NodeError>, ImportError> {
        let first = node.0.output.first().map_or("", String::as_str);
        if let Some(whole) = self.whole.get(first).cloned() {
            let made = self.import_whole(node, &whole);
            return Ok(made.map_or(Ok(Value::Unknown), |m| m.map(Value::Activation)));
        }
        let mut inputs: Vec<Option<Value>> = Vec::with_capacity(node.0.input.len());
        for name in &node.0.input {
            let name = name.as_str();
            inputs.push(match self.values.get(name) {
                _ if name.is_empty() => None,
                Some(value) => Some(value.clone()),
                None => {
                    let got = format!("`{name}`, which neither the file nor an earlier node has");
                    return Err(node.invalid("inputs that are there", got).into());
                }
            });
        }
        Ok(match self.decomposed(node) {
            Some(view) => Ok(Value::Activation(view)),
            None => self.make(node, &inputs),
        })
    }

    /// The value of a node by itself.
    fn make(&mut self, node: OnnxNode<'m>, inputs: &[Option<Value>]) -> Result<Value, NodeError> {
        let op = node.op();
        let known = |list: &[&str]| list.contains(&op.as_str());
        if !known(OPERATORS) && !known(constants::OPERATORS) {
            return Err(NodeError::unsupported(""));
        }
        for input in inputs.iter().flatten() {
            if let Value::Unusable(why) = input {
                return Err(NodeError::unsupported(&**why));
            }
        }
        if inputs.iter().flatten().any(|v| matches!(v, Value::Unknown)) {
            return Ok(Value::Unknown);
        }
        if op == "CastLike" {
            return self.cast_like(node, inputs);
        }
        let constant = |v: &Option<Value>| match v {
            Some(Value::Constant(t)) => Some(Rc::clone(t)),
            _ => None,
        };
        let is_activation = |v: &Value| matches!(v, Value::Activation(_));
        if inputs.iter().flatten().any(is_activation) {
            return self.activation(node, inputs);
        }
        if !known(constants::OPERATORS) {
            return Err(NodeError::unsupported("constants alone as inputs"));
        }
        let tensors: Vec<Option<Rc<Tensor>>> = inputs.iter().map(constant).collect();
        let tensors: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_deref).collect();
        let folded = constants::fold(node, &tensors, self.decoder)?;
        if let ("Transpose", Some(made), Some(of)) =
            (op.as_str(), node.0.output.first(), node.input(0))
        {
            self.transposed.insert(made, of);
        }
        Ok(Value::Constant(Rc::new(folded)))
    }

    /// The value of a node of which at least one input is computed.
    fn activation(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let op = node.0.op_type.as_str();
        let is_id = |v: &&Value| matches!(v, Value::Activation(view) if view.dtype.is_id());
        if !OVER_IDS.contains(&op)
            && let Some(Value::Activation(x)) = inputs.iter().flatten().find(is_id)
        {
            return Err(ids(x));
        }
        if let ("Gather", [Some(Value::Constant(table)), Some(Value::Activation(x)), ..]) =
            (op, inputs)
        {
            return Ok(Value::Activation(self.gather(node, table, x)?));
        }
        let view = match op {
            "Add" | "Sub" | "Mul" | "Div" => Some(self.arithmetic(node, inputs)?),
            "Sum" | "Mean" => Some(self.sum(node, inputs)?),
            "Max" | "Min" => Some(self.bound(node, inputs)?),
            "Concat" => Some(self.concat(node, inputs)?),
            _ => self.of_computed(node, inputs)?,
        };
        if let Some(view) = view {
            return Ok(Value::Activation(view));
        }
        let Some(Some(Value::Activation(x))) = inputs.first() else {
            return Err(NodeError::unsupported("a constant as its first input"));
        };
        if let Some(Some(Value::Activation(_))) = inputs.get(1) {
            return Err(NodeError::unsupported("a computed second input"));
        }
        let constant = |i: usize| match inputs.get(i) {
            Some(Some(Value::Constant(t))) => Some(&**t),
            _ => None,
        };
        let view = match op {
            "Conv" => self.conv(node, x, constant)?,
            "Gemm" => self.gemm(node, x, constant)?,
            "MatMul" => self.matmul(node, x, constant)?,
            "BatchNormalization" => self.batch_normalization(node, x, constant)?,
            "LayerNormalization" => self.layer_normalization(node, x, constant)?,
            "MaxPool" | "AveragePool" => self.pool(node, x)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node, x)?,
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
            | "ReduceMean" | "ReduceMin" | "ReduceSum" | "ReduceSumSquare" => {
                self.reduce(node, x, constant(1))?
            }
            "Pad" => self.pad(node, x, constant)?,
            "Softmax" | "LogSoftmax" => self.softmax(node, x)?,
            "Celu" => self.celu(node, x)?,
            "Selu" => self.selu(node, x)?,
            "Mish" => self.mish(node, x)?,
            "LpNormalization" => self.lp_normalization(node, x)?,
            "DepthToSpace" | "SpaceToDepth" => self.depth_and_space(node, x)?,
            "Resize" => self.resize(node, x, constant)?,
            "Neg" => self.affine(node, x, vec![-1.0], vec![0.0])?,
            "Pow" => self.power(node, x, constant(1))?,
            "PRelu" => self.prelu(node, x, constant(1))?,
            "Reciprocal" => self.quotient(node, vec![1.0], x)?,
            "Shrink" => self.shrink(node, x)?,
            "Softsign" => self.softsign(node, x)?,
            "Swish" => self.swish(node, x)?,
            "Abs" | "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "HardSigmoid" | "HardSwish"
            | "Tanh" | "Gelu" | "Elu" | "Erf" | "Exp" | "Log" | "Softplus" | "Sqrt" => {
                self.function(node, x, constant)?
            }
            "Identity" => x.clone(),
            "Dropout" => self.dropout(node, x, constant(2))?,
            "Cast" => shapes::cast(node, x)?,
            "Expand" => self.expand(node, x, constant(1))?,
            "Flatten" => self.flatten(node, x)?,
            "Squeeze" => self.squeeze(node, x, constant(1))?,
            "Unsqueeze" => self.unsqueeze(node, x, constant(1))?,
            "Transpose" => self.transpose(node, x)?,
            "Slice" => self.slice(node, x, constant)?,
            "Split" => self.split(node, x, constant(1))?,
            "Gather" => match constant(1) {
                Some(indices) => self.elements_of(node, x, indices)?,
                None => return Err(NodeError::unsupported("computed inputs")),
            },
            "Reshape" => match constant(1) {
                Some(target) => self.reshape(node, x, target)?,
                None => return Err(node.invalid("a shape", "none").into()),
            },
            "Shape" => {
                let batch = vec![Int::Batch; self.batch_axes];
                let known = x.dims.iter().map(|&d| Int::Known(d as i64));
                let dims = batch.into_iter().chain(known).collect();
                return Ok(Value::Constant(Rc::new(constants::shape(node, dims)?)));
            }
            _ => return Err(NodeError::unsupported("computed inputs")),
        };
        Ok(Value::Activation(view))
    }

    /// The value of an operator that takes computed values in the place of constants, where it has such, or makes several outputs.
    fn of_computed(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Option<View>, NodeError> {
        let is_computed = |i: usize| matches!(inputs.get(i), Some(Some(Value::Activation(_))));
        let op = node.0.op_type.as_str();
        if op == "MatMul" && is_computed(1) {
            return self.product_of(node, inputs).map(Some);
        }
        if op == "Attention" {
            return self.attention(node, inputs).map(Some);
        }
        let Some(Some(Value::Activation(x))) = inputs.first() else {
            return Ok(None);
        };
        let made = match (op, inputs) {
            ("Gemm", [_, Some(Value::Activation(b)), rest @ ..]) => {
                let summand = rest.first().and_then(Option::as_ref);
                self.gemm_of(node, x, b, summand)
            }
            ("Clip", _) if is_computed(1) || is_computed(2) => self.clip_between(node, x, inputs),
            ("PRelu", [_, Some(Value::Activation(slope))]) => self.prelu_of(node, x, slope),
            ("BatchNormalization", _) if (1..=4).any(is_computed) => {
                self.batch_normalization_of(node, x, inputs)
            }
            ("LayerNormalization", _)
                if is_computed(1) || is_computed(2) || self.reads_others(node) =>
            {
                self.layer_normalization_of(node, x, inputs)
            }
            ("RMSNormalization", _) => self.rms_normalization(node, x, inputs),
            ("InstanceNormalization" | "GroupNormalization", _) => {
                self.instance_normalization(node, x, inputs)
            }
            _ => return Ok(None),
        };
        made.map(Some)
    }

    /// Whether an output of a node but the first is read.
    fn reads_others(&self, node: OnnxNode<'m>) -> bool {
        let mut others = node.0.output.iter().skip(1);
        others.any(|name| !name.is_empty() && self.uses.contains_key(name.as_str()))
    }
}
