//! From the nodes of a file to those of a network.
//!
//! Operators that only rename, fold or reshape leave nothing behind; every other becomes one node of the network, or two.
//! What has no operator here is collected, so that one error names it all.

mod arithmetic;
mod layers;
mod maps;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use sparsevd_model::{Dense, Graph, Input, Network, Node, Op, Shape, Weights, shape};

use crate::attributes::OnnxNode;
use crate::error::UnsupportedNode;
use crate::node_error::{Invalid, NodeError};
use crate::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto, data_type};
use crate::tensor::{Decoder, Int, Tensor};
use crate::{constants, tensor};

/// Oldest set of operators that is understood.
const OLDEST_OPSET: i64 = 7;

/// Most elements of a value that flows through the network, per sample.
const MOST_ELEMENTS: usize = 1 << 32;

/// Operators over activations that [`Importer::activation`] knows.
const OPERATORS: &[&str] = &[
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "Div",
    "Dropout",
    "Flatten",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "Pad",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Softmax",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// What a name of the file stands for.
#[derive(Debug, Clone)]
enum Value {
    Constant(Rc<Tensor>),
    Activation(View),
    /// What an unsupported node makes.
    Unknown,
}

/// A value of the network, as the file sees it: reshaping moves no number.
#[derive(Debug, Clone, PartialEq)]
struct View {
    /// Name of the network's input or node.
    name: String,
    /// Its shape there, per sample.
    shape: Vec<usize>,
    /// Its shape in the file, per sample.
    dims: Vec<usize>,
}

/// Why a file has no network.
#[derive(Debug)]
pub(crate) enum ImportError {
    Invalid(Invalid),
    Unsupported(Vec<UnsupportedNode>),
    Model(sparsevd_model::ModelError),
}

impl From<Invalid> for ImportError {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

/// The network so far.
struct Importer<'m> {
    opset: i64,
    decoder: &'m Decoder,
    values: HashMap<&'m str, Value>,
    /// How often nodes and outputs of the file read a name.
    readers: HashMap<&'m str, usize>,
    /// The number of samples that the file was made for, where it says one.
    batch: Option<usize>,
    names: HashSet<String>,
    nodes: Vec<Node>,
    tensors: BTreeMap<String, Weights>,
    unsupported: Vec<UnsupportedNode>,
}

/// The network that a file describes.
pub(crate) fn import(model: &ModelProto, decoder: &Decoder) -> Result<Network, ImportError> {
    let graph = (model.graph.as_ref()).ok_or_else(|| Invalid::new("file", "a graph", "none"))?;
    let mut importer = Importer {
        opset: opset(model)?,
        decoder,
        values: HashMap::new(),
        readers: HashMap::new(),
        batch: None,
        names: HashSet::new(),
        nodes: Vec::new(),
        tensors: BTreeMap::new(),
        unsupported: Vec::new(),
    };
    importer.initializers(graph)?;
    let inputs = importer.inputs(graph)?;
    let nodes = nodes_of_outputs(graph);
    let read = nodes.iter().flat_map(|n| &n.input);
    for name in read.chain(graph.output.iter().map(|o| &o.name)) {
        *importer.readers.entry(name).or_default() += 1;
    }
    for node in nodes {
        importer.node(OnnxNode(node))?;
    }
    let outputs = importer.outputs(graph)?;
    if !importer.unsupported.is_empty() {
        return Err(ImportError::Unsupported(importer.unsupported));
    }
    let graph = Graph {
        name: if graph.name.is_empty() {
            "onnx".into()
        } else {
            graph.name.clone()
        },
        inputs,
        nodes: importer.nodes,
        outputs,
        preprocessing: None,
    };
    Network::new(graph, importer.tensors).map_err(ImportError::Model)
}

/// The nodes that an output of the graph depends on, in the order of the file. The others are never run, so their
/// operators need no support.
fn nodes_of_outputs(graph: &GraphProto) -> Vec<&NodeProto> {
    let mut needed: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    let mut nodes = Vec::new();
    // Readers come after what they read.
    for node in graph.node.iter().rev() {
        // An empty name is an optional input or output that is left out: it joins no nodes.
        let is_needed = |o: &String| !o.is_empty() && needed.contains(o.as_str());
        if node.output.iter().any(is_needed) {
            needed.extend(node.input.iter().map(String::as_str));
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

fn opset(model: &ModelProto) -> Result<i64, Invalid> {
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let mut versions = model.opset_import.iter().filter(|o| own(&o.domain));
    match versions.next().and_then(|o| o.version) {
        Some(version) if version >= OLDEST_OPSET => Ok(version),
        other => Err(Invalid::new(
            "opset_import",
            format!("a version of ONNX's operators from {OLDEST_OPSET} on"),
            other.map_or("none".into(), |v| v.to_string()),
        )),
    }
}

impl<'m> Importer<'m> {
    fn initializers(&mut self, graph: &'m GraphProto) -> Result<(), Invalid> {
        let mut define = |name: &'m str, tensor: Tensor| match self
            .values
            .insert(name, Value::Constant(Rc::new(tensor)))
        {
            None if !name.is_empty() => Ok(()),
            _ => Err(Invalid::new(
                "initializers",
                "one tensor of each name",
                format!("`{name}` again"),
            )),
        };
        for proto in &graph.initializer {
            let what = format!("initializer `{}`", proto.name);
            define(&proto.name, self.decoder.dense(&what, proto)?)?;
        }
        for proto in &graph.sparse_initializer {
            let name = proto.values.as_ref().map_or("", |v| v.name.as_str());
            let what = format!("sparse_initializer `{name}`");
            define(name, self.decoder.sparse(&what, proto)?)?;
        }
        Ok(())
    }

    /// The inputs that are no initializers, which old files list among them.
    fn inputs(&mut self, graph: &'m GraphProto) -> Result<Vec<Input>, Invalid> {
        let mut inputs = Vec::new();
        for proto in &graph.input {
            if matches!(
                self.values.get(proto.name.as_str()),
                Some(Value::Constant(_))
            ) {
                continue;
            }
            let dims = self.input_shape(proto)?;
            let view = View {
                name: proto.name.clone(),
                shape: dims.clone(),
                dims: dims.clone(),
            };
            let before = self.values.insert(&proto.name, Value::Activation(view));
            if before.is_some() || proto.name.is_empty() {
                return Err(Invalid::new(
                    "inputs",
                    "one input of each name",
                    format!("`{}` again", proto.name),
                ));
            }
            self.names.insert(proto.name.clone());
            inputs.push(Input {
                name: proto.name.clone(),
                shape: Shape(dims),
            });
        }
        if inputs.is_empty() {
            return Err(Invalid::new("inputs", "at least one", "none"));
        }
        Ok(inputs)
    }

    /// Dimensions of an input behind the batch.
    fn input_shape(&mut self, proto: &ValueInfoProto) -> Result<Vec<usize>, Invalid> {
        let what = format!("input `{}`", proto.name);
        let kind = proto.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        let kind = kind.ok_or_else(|| Invalid::new(&what, "a tensor", "another type"))?;
        let floats = [
            data_type::FLOAT,
            data_type::FLOAT16,
            data_type::DOUBLE,
            data_type::BFLOAT16,
        ];
        if !floats.contains(&kind.elem_type) {
            let got = format!("data type {}", kind.elem_type);
            return Err(Invalid::new(&what, "floating-point numbers", got));
        }
        let shape = kind.shape.as_ref().map_or(&[][..], |s| &s.dim);
        let Some((batch, rest)) = shape.split_first() else {
            return Err(Invalid::new(
                &what,
                "a batch dimension and others",
                "no shape",
            ));
        };
        self.batch = batch
            .dim_value
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n > 0);
        let known = |d: &crate::proto::DimensionProto| {
            let size = d
                .dim_value
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| *n > 0);
            size.ok_or_else(|| {
                let got = d.dim_param.as_deref().filter(|p| !p.is_empty());
                let got = got.map_or("an unknown one".into(), |name| format!("`{name}`"));
                Invalid::new(&what, "sizes of all dimensions behind the batch", got)
            })
        };
        let dims = rest.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let elements = Shape(dims.clone()).elements();
        if elements > MOST_ELEMENTS || dims.len() > 4 {
            return Err(Invalid::new(
                &what,
                format!("at most 4 dimensions of {MOST_ELEMENTS} elements in all"),
                Shape(dims).to_string(),
            ));
        }
        Ok(dims)
    }

    /// Names of the network's outputs, in the shapes that the file gives them.
    fn outputs(&mut self, graph: &'m GraphProto) -> Result<Vec<String>, ImportError> {
        let mut outputs = Vec::new();
        for output in &graph.output {
            let name = output.name.as_str();
            match self.values.get(name).cloned() {
                Some(Value::Activation(view)) => match self.materialised(&view) {
                    Ok(view) => outputs.push(view.name),
                    Err(error) => self.refuse(name, "output", error)?,
                },
                Some(Value::Unknown) => {}
                Some(Value::Constant(_)) => {
                    return Err(Invalid::new(
                        format!("output `{name}`"),
                        "a value that depends on the input",
                        "a constant",
                    )
                    .into());
                }
                None => {
                    return Err(Invalid::new(
                        format!("output `{name}`"),
                        "a value of the graph",
                        "none",
                    )
                    .into());
                }
            }
        }
        Ok(outputs)
    }

    /// Collects what is unsupported; anything else ends the import.
    fn refuse(&mut self, name: &str, op: &str, error: NodeError) -> Result<(), ImportError> {
        match error {
            NodeError::Unsupported(why) => {
                self.unsupported.push(UnsupportedNode {
                    name: name.into(),
                    op: op.into(),
                    why,
                });
                Ok(())
            }
            NodeError::Invalid(invalid) => Err(invalid.into()),
            NodeError::Model(error) => Err(ImportError::Model(error)),
        }
    }

    fn node(&mut self, node: OnnxNode<'m>) -> Result<(), ImportError> {
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
        let made = match self.make(node, &inputs) {
            Ok(value) => value,
            Err(error) => {
                self.refuse(node.name(), &node.op(), error)?;
                Value::Unknown
            }
        };
        for (i, name) in node.0.output.iter().enumerate() {
            if name.is_empty() {
                continue;
            }
            let value = if i == 0 { made.clone() } else { Value::Unknown };
            if i > 0 && self.readers.contains_key(name.as_str()) && !matches!(made, Value::Unknown)
            {
                let error = NodeError::unsupported(format!("its output `{name}`"));
                self.refuse(node.name(), &node.op(), error)?;
            }
            if self.values.insert(name, value).is_some() {
                return Err(node
                    .invalid("outputs with names of their own", format!("`{name}` again"))
                    .into());
            }
        }
        Ok(())
    }

    /// What a node makes of its inputs.
    fn make(&mut self, node: OnnxNode<'m>, inputs: &[Option<Value>]) -> Result<Value, NodeError> {
        let op = node.op();
        let known = |list: &[&str]| list.contains(&op.as_str());
        if !known(OPERATORS) && !known(constants::OPERATORS) {
            return Err(NodeError::unsupported(""));
        }
        if inputs.iter().flatten().any(|v| matches!(v, Value::Unknown)) {
            return Ok(Value::Unknown);
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
        Ok(Value::Constant(Rc::new(folded)))
    }

    /// What a node makes of inputs of which one is computed.
    fn activation(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let op = node.0.op_type.as_str();
        if matches!(op, "Add" | "Sub" | "Mul" | "Div") {
            return self.arithmetic(node, inputs).map(Value::Activation);
        }
        if op == "Concat" {
            return self.concat(node, inputs).map(Value::Activation);
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
            "MaxPool" | "AveragePool" => self.pool(node, x)?,
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node, x)?,
            "ReduceMean" => self.reduce_mean(node, x, constant(1))?,
            "Pad" => self.pad(node, x, constant)?,
            "Softmax" => self.softmax(node, x)?,
            "Neg" => self.affine(node, x, vec![-1.0], vec![0.0])?,
            "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Tanh"
            | "Gelu" => self.function(node, x, constant)?,
            "Identity" => x.clone(),
            "Dropout" => self.dropout(node, x, constant(2))?,
            "Cast" => shapes::cast(node, x)?,
            "Flatten" => shapes::flatten(node, x)?,
            "Squeeze" => shapes::squeeze(node, x, constant(1))?,
            "Unsqueeze" => shapes::unsqueeze(node, x, constant(1))?,
            "Transpose" => shapes::transpose(node, x)?,
            "Reshape" => match constant(1) {
                Some(target) => shapes::reshape(node, x, target, self.batch)?,
                None => return Err(node.invalid("a shape", "none").into()),
            },
            "Shape" => {
                let known = x.dims.iter().map(|&d| Int::Known(d as i64));
                let dims = std::iter::once(Int::Batch).chain(known).collect();
                return Ok(Value::Constant(Rc::new(constants::shape(node, dims)?)));
            }
            _ => return Err(NodeError::unsupported("computed inputs")),
        };
        Ok(Value::Activation(view))
    }

    /// A name that no value of the network has yet.
    fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}.{n}");
        }
        name
    }

    /// Adds a node to the network, named by what the node of the file makes.
    fn push(&mut self, node: OnnxNode<'m>, op: Op, inputs: &[&View]) -> Result<View, NodeError> {
        let made = node.0.output.first().map_or("", String::as_str);
        let name = self.free_name(if made.is_empty() { node.name() } else { made });
        self.push_named(name, op, inputs)
    }

    fn push_named(&mut self, name: String, op: Op, inputs: &[&View]) -> Result<View, NodeError> {
        let node = Node {
            name: name.clone(),
            inputs: inputs.iter().map(|v| v.name.clone()).collect(),
            op,
        };
        let shapes: Vec<Shape> = inputs.iter().map(|v| Shape(v.shape.clone())).collect();
        let shapes: Vec<&Shape> = shapes.iter().collect();
        let tensors = &self.tensors;
        let out = shape::output_shape(&node, &shapes, &|_, tensor| {
            Ok(tensors.get(tensor).map(Weights::shape).unwrap_or_default())
        })?;
        if out.elements() > MOST_ELEMENTS {
            let got = out.to_string();
            return Err(Invalid::new(
                format!("node `{name}`"),
                format!("values of at most {MOST_ELEMENTS} elements"),
                got,
            )
            .into());
        }
        self.nodes.push(node);
        Ok(View {
            name,
            dims: out.0.clone(),
            shape: out.0,
        })
    }

    /// The value in the shape that the file sees, by a flattening where that is needed.
    fn materialised(&mut self, x: &View) -> Result<View, NodeError> {
        if x.shape == x.dims {
            return Ok(x.clone());
        }
        if x.dims.len() != 1 {
            return Err(NodeError::unsupported(format!(
                "an input of {} reshaped to {}",
                Shape(x.shape.clone()),
                Shape(x.dims.clone())
            )));
        }
        let name = self.free_name(&format!("{}.flat", x.name));
        self.push_named(name, Op::Flatten, &[x])
    }

    /// A constant as a tensor of floating-point numbers of the network. Each copy counts towards the budget, so that time is
    /// bounded however often a file names one constant.
    fn dense(&self, node: OnnxNode<'m>, what: &str, t: &tensor::Tensor) -> Result<Dense, Invalid> {
        self.decoder.take(&node.label(), &t.dims)?;
        match t.floats() {
            Some([]) => Err(node.invalid(format!("at least one number as {what}"), t.describe())),
            Some(values) => Ok(Dense::new(Shape(t.dims.clone()), values.to_vec())),
            None => Err(node.invalid(format!("floating-point numbers as {what}"), t.describe())),
        }
    }

    /// Gives a tensor to the network, under its name in the file where that is free or holds the same.
    fn tensor(&mut self, wanted: &str, dense: Dense) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        loop {
            match self.tensors.get(&name) {
                None => {
                    self.tensors.insert(name.clone(), Weights::Dense(dense));
                    return name;
                }
                Some(Weights::Dense(there)) if *there == dense => return name,
                Some(_) => {
                    n += 1;
                    name = format!("{wanted}.{n}");
                }
            }
        }
    }
}
