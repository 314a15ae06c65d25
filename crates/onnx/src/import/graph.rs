//! A graph of a file, from its initializers to its outputs, node by node.

use std::collections::HashMap;
use std::collections::HashSet;
use std::rc::Rc;

use sparsevd_model::{Graph, ModelError, Network};

use super::build::moved;
use super::importer::{ImportError, Importer, Value};
use super::int8::with_int8;
use super::whole::Whole;
use crate::attributes::OnnxNode;
use crate::error::UnsupportedNode;
use crate::node_error::{Invalid, NodeError};
use crate::options::ImportOptions;
use crate::proto::{GraphProto, NodeProto};
use crate::tensor;

impl<'m> Importer<'m> {
    /// The network; `None` where the file has to be imported again.
    pub(super) fn network(
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
        self.read_by_others = read_by_others(graph, &nodes);
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
        let mut network = network.map_err(ImportError::Model)?;
        with_int8(&mut network, std::mem::take(&mut self.int8));
        Ok(Some(network))
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
            self.types.insert(&proto.name, proto.data_type);
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
                Some(Value::Activation(view)) if view.is_quantised => {
                    let got = "quantised integers";
                    return Err(invalid("a value of floating-point numbers", got).into());
                }
                Some(Value::Activation(view)) if view.is_merged => {
                    let got = "one whose first axis mixes samples";
                    return Err(invalid("a value of each sample", got).into());
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
        if let Err(error) = self.refuse_merged(node, reads(node.0, &self.whole)) {
            return Ok(Err(error));
        }
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

/// The values that an output of the graph or another node than a sum reads, through `DequantizeLinear` too.
fn read_by_others<'m>(graph: &'m GraphProto, nodes: &[&'m NodeProto]) -> HashSet<&'m str> {
    let mut read: HashSet<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    // Consumers come after producers.
    for node in nodes.iter().rev() {
        let is_read = |o: &String| read.contains(o.as_str());
        let counts = match OnnxNode(node).op().as_str() {
            "Add" | "Sum" => false,
            "DequantizeLinear" => node.output.iter().any(is_read),
            _ => true,
        };
        if counts {
            read.extend(node.input.iter().map(String::as_str));
        }
    }
    read
}

/// The values that a node reads; those of an operator that it is the last of, where the file writes that as several.
fn reads<'m>(node: &'m NodeProto, whole: &HashMap<&str, Whole<'m>>) -> Vec<&'m str> {
    let first = node.output.first().map_or("", String::as_str);
    match whole.get(first) {
        Some(whole) => whole.inputs().collect(),
        None => node.input.iter().map(String::as_str).collect(),
    }
}
