//! A network: a DAG of named nodes, and the tensors its operators name.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::fields::Fields;
use crate::limits::{self, MAX_ENDPOINTS, MAX_NODE_INPUTS, MAX_NODES, MAX_SHARED};
use crate::presets::Preset;
use crate::{
    DType, Dense, Dim, Int8Grids, ModelError, Op, Preprocessing, Shape, TensorType, Weights,
    memory, ops, shape,
};

/// A named input of a graph with its type.
///
/// In JSON the name of a free dimension stands in the place of its size, and `dtype` is left out where it is `f32`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "InputJson", into = "InputJson")]
pub struct Input {
    /// Name by which nodes refer to it.
    pub name: String,
    /// Shape of one sample, for instance `[1, 28, 28]`. A free dimension is 0.
    pub shape: Shape,
    /// What its elements are.
    pub dtype: DType,
    /// The dimension of any size, where it has one.
    pub free: Option<Free>,
}

/// The dimension of an input that each run gives its size: the length of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// Its index in the shape of a sample.
    pub dimension: usize,
    /// Its name. All free dimensions of a graph have one name, and in a run one size.
    pub symbol: String,
}

/// An input as it is in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputJson {
    name: String,
    shape: Vec<Dim>,
    #[serde(default, skip_serializing_if = "DType::is_default")]
    dtype: DType,
}

impl From<Input> for InputJson {
    fn from(input: Input) -> Self {
        let TensorType { dtype, dims } = input.tensor_type();
        Self {
            name: input.name,
            shape: dims,
            dtype,
        }
    }
}

impl TryFrom<InputJson> for Input {
    type Error = String;

    fn try_from(json: InputJson) -> Result<Self, String> {
        let InputJson { name, shape, dtype } = json;
        let mut free = None;
        let mut dims = Vec::with_capacity(shape.len());
        for (dimension, dim) in shape.into_iter().enumerate() {
            dims.push(match dim {
                Dim::Known(n) => n,
                Dim::Free(symbol) => {
                    if symbol.is_empty() || free.replace(Free { dimension, symbol }).is_some() {
                        return Err(format!(
                            "input `{name}`: expected at most one free dimension, with a name"
                        ));
                    }
                    0
                }
            });
        }
        Ok(Self {
            name,
            shape: Shape(dims),
            dtype,
            free,
        })
    }
}

impl Input {
    /// An input of floating-point numbers whose samples have that shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Shape>) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            dtype: DType::F32,
            free: None,
        }
    }

    /// An input of floating-point numbers whose dimension `dimension` is free; the size that `shape` gives there is ignored.
    pub fn with_free(
        name: impl Into<String>,
        shape: impl Into<Shape>,
        dimension: usize,
        symbol: impl Into<String>,
    ) -> Self {
        let mut input = Self::new(name, shape);
        if let Some(size) = input.shape.0.get_mut(dimension) {
            *size = 0;
        }
        let symbol = symbol.into();
        input.free = Some(Free { dimension, symbol });
        input
    }

    /// The input with elements of another type.
    #[must_use]
    pub fn of(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Its type.
    pub fn tensor_type(&self) -> TensorType {
        let mut dims: Vec<Dim> = self.shape.dims().iter().copied().map(Dim::Known).collect();
        if let Some(Free { dimension, symbol }) = &self.free
            && let Some(dim) = dims.get_mut(*dimension)
        {
            *dim = Dim::Free(symbol.clone());
        }
        TensorType {
            dtype: self.dtype,
            dims,
        }
    }
}

/// One operation: its name, what it computes and from which values. JSON with a field that its operator does not have is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Node {
    /// Unique name; also the name of the value it makes.
    pub name: String,
    /// Names of inputs or earlier nodes.
    pub inputs: Vec<String>,
    /// The operator.
    #[serde(flatten)]
    pub op: Op,
}

/// A DAG of named nodes in topological order, without the weights. Serialises as the graph JSON of `docs/format.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Graph {
    /// Name of the network, for people.
    pub name: String,
    /// The inputs.
    #[serde(deserialize_with = "limits::endpoints")]
    pub inputs: Vec<Input>,
    /// The nodes in topological order.
    #[serde(deserialize_with = "limits::nodes")]
    pub nodes: Vec<Node>,
    /// Names of the values that the network returns.
    #[serde(deserialize_with = "limits::endpoints")]
    pub outputs: Vec<String>,
    /// How raw pixels, or the columns of a table, become the first input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
}

impl Graph {
    /// Checks names, order and number of inputs.
    ///
    /// # Errors
    /// A name used twice, an input that is not an earlier value, a wrong number of inputs, an unknown output, more of
    /// something than [`limits`] allow.
    pub fn check(&self) -> Result<(), ModelError> {
        let node_inputs = self.nodes.iter().map(|n| n.inputs.len()).sum();
        for (what, got, most) in [
            ("nodes", self.nodes.len(), MAX_NODES),
            ("inputs of all nodes", node_inputs, MAX_NODE_INPUTS),
            ("inputs", self.inputs.len(), MAX_ENDPOINTS),
            ("outputs", self.outputs.len(), MAX_ENDPOINTS),
        ] {
            if got > most {
                return Err(ModelError::TooMany { what, most, got });
            }
        }
        let mut seen = HashSet::new();
        for input in &self.inputs {
            if !seen.insert(input.name.as_str()) {
                return Err(ModelError::DuplicateName {
                    name: input.name.clone(),
                });
            }
            if let Some(free) = &input.free
                && (input.shape.dims().get(free.dimension) != Some(&0)
                    || self.free_symbol() != Some(&free.symbol))
            {
                return Err(ModelError::FreeDimension {
                    input: input.name.clone(),
                    expected: "one free dimension, of the same name in all inputs".into(),
                    got: input.tensor_type().to_string(),
                });
            }
        }
        for node in &self.nodes {
            let expected = node.op.inputs();
            if !expected.contains(&node.inputs.len()) {
                return Err(ModelError::InputCount {
                    node: node.name.clone(),
                    op: node.op.name(),
                    expected: match (*expected.start(), *expected.end()) {
                        (least, usize::MAX) => format!("at least {least}"),
                        (_, exactly) => exactly.to_string(),
                    },
                    got: node.inputs.len(),
                });
            }
            for input in &node.inputs {
                if !seen.contains(input.as_str()) {
                    return Err(ModelError::UnknownInput {
                        node: node.name.clone(),
                        input: input.clone(),
                    });
                }
            }
            if !seen.insert(node.name.as_str()) {
                return Err(ModelError::DuplicateName {
                    name: node.name.clone(),
                });
            }
        }
        if self.outputs.is_empty() {
            return Err(ModelError::UnknownOutput {
                name: "(none)".into(),
            });
        }
        for output in &self.outputs {
            if !seen.contains(output.as_str()) {
                return Err(ModelError::UnknownOutput {
                    name: output.clone(),
                });
            }
        }
        Ok(())
    }

    /// Nodes that have a weight, in order.
    pub fn weighted_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.op.weight().is_some())
    }

    /// Name of the free dimension of its inputs, where there is one.
    pub fn free_symbol(&self) -> Option<&str> {
        let mut free = self.inputs.iter().filter_map(|i| i.free.as_ref());
        free.next().map(|f| f.symbol.as_str())
    }

    /// The graph with `length` elements in its free dimension, which is then known.
    #[must_use]
    pub fn at_length(&self, length: usize) -> Self {
        let mut graph = self.clone();
        for input in &mut graph.inputs {
            if let Some(free) = input.free.take()
                && let Some(size) = input.shape.0.get_mut(free.dimension)
            {
                *size = length;
            }
        }
        graph
    }

    /// Whether the nodes form one chain: each node reads only the value just before it, and the last is the output.
    pub fn is_chain(&self) -> bool {
        let mut before = match self.inputs.as_slice() {
            [only] => only.name.as_str(),
            _ => return false,
        };
        for node in &self.nodes {
            if node.inputs != [before] {
                return false;
            }
            before = &node.name;
        }
        self.outputs == [before]
    }
}

/// A graph with its weights: what files hold and what runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// The graph.
    pub graph: Graph,
    /// Weights and biases by tensor name. Linear weights are `[out, in]`, filters `[out, in/groups, kh, kw]`.
    pub tensors: BTreeMap<String, Weights>,
    /// Shapes that weights had before dead units were removed, by tensor name. A tensor that is absent here
    /// still has its first shape. Compression ratios count these.
    pub original_shapes: BTreeMap<String, Shape>,
    /// Scales of the tensors that are on a grid (see [`crate::quantised`]), by tensor name.
    pub scales: BTreeMap<String, f32>,
    /// The layers that may run in int8, with their grids.
    pub int8: Int8Grids,
}

impl Network {
    /// Puts a graph and its tensors together.
    ///
    /// # Errors
    /// Anything [`Graph::check`] or [`shape::infer`] rejects, and values that are not finite.
    pub fn new(graph: Graph, tensors: BTreeMap<String, Weights>) -> Result<Self, ModelError> {
        let network = Self {
            graph,
            tensors,
            original_shapes: BTreeMap::new(),
            scales: BTreeMap::new(),
            int8: Int8Grids::default(),
        };
        network.types()?;
        network.check_shared()?;
        for (name, tensor) in &network.tensors {
            tensor.check_finite().map_err(|e| e.for_tensor(name))?;
        }
        if let Some(p) = &network.graph.preprocessing {
            p.check(&network.graph.inputs[0].shape)?;
        }
        Ok(network)
    }

    /// Bounds what nodes share: many nodes of one large tensor are a small file.
    fn check_shared(&self) -> Result<(), ModelError> {
        let mut seen = HashSet::new();
        let names = self.graph.nodes.iter().flat_map(|n| n.op.tensors());
        let again = names.filter(|name| !seen.insert(*name));
        let stored = |name: &str| self.tensors.get(name).map_or(0, |t| t.values().len());
        let shared = again.map(stored).fold(0, usize::saturating_add);
        if shared > MAX_SHARED {
            return Err(ModelError::TooMany {
                what: "elements of shared tensors",
                most: MAX_SHARED,
                got: shared,
            });
        }
        Ok(())
    }

    /// Puts a graph together with what `fill` makes of the name and shape of each of its tensors, in their order.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn from_preset(
        (graph, tensors): Preset,
        mut fill: impl FnMut(&str, &Shape) -> Weights,
    ) -> Result<Self, ModelError> {
        let fill = |(name, shape): (String, Shape)| {
            let weights = fill(&name, &shape);
            (name, weights)
        };
        Self::new(graph, tensors.into_iter().map(fill).collect())
    }

    /// Shape of every input and node by name, per sample.
    ///
    /// # Errors
    /// As [`shape::infer`].
    pub fn shapes(&self) -> Result<HashMap<&str, Shape>, ModelError> {
        shape::infer(&self.graph, &|node, tensor| self.tensor_shape(node, tensor))
    }

    /// Type of every input and node by name.
    ///
    /// # Errors
    /// As [`shape::infer_types`].
    pub fn types(&self) -> Result<HashMap<&str, TensorType>, ModelError> {
        shape::infer_types(&self.graph, &|node, tensor| self.tensor_shape(node, tensor))
    }

    fn tensor_shape(&self, node: &Node, tensor: &str) -> Result<Shape, ModelError> {
        let shape = self.tensors.get(tensor).map(Weights::shape);
        shape.ok_or_else(|| ModelError::MissingTensor {
            tensor: tensor.into(),
            node: node.name.clone(),
            found: crate::bind::describe(self.tensors.iter().map(|(n, t)| (n.as_str(), t.shape()))),
        })
    }

    /// The network with `length` elements in its free dimension, which is then known.
    #[must_use]
    pub fn at_length(&self, length: usize) -> Self {
        Self {
            graph: self.graph.at_length(length),
            ..self.clone()
        }
    }

    /// For each value whose elements number rows of tables the number of ids, from 0 on: the rows of the smallest of them.
    pub fn ids(&self) -> HashMap<&str, usize> {
        let mut ids: HashMap<&str, usize> = HashMap::new();
        for node in &self.graph.nodes {
            if let Op::Embedding(op) = &node.op
                && let Some(table) = self.tensors.get(&op.table)
                && let Some(&rows) = table.shape().dims().first()
            {
                let least = ids.entry(&node.inputs[0]).or_insert(rows);
                *least = rows.min(*least);
            }
        }
        ids
    }

    /// The weight of a node that has one.
    pub fn weight(&self, node: &Node) -> Option<&Weights> {
        self.tensors.get(node.op.weight()?)
    }

    /// The bias of a node that has one.
    pub fn bias(&self, node: &Node) -> Option<&[f32]> {
        match self.tensors.get(node.op.bias()?)? {
            Weights::Dense(d) => Some(&d.values),
            Weights::Csr(_) => None,
        }
    }

    /// Number of weights of the original network in weight matrices and filters, biases apart, as the papers count.
    pub fn original_weights(&self) -> usize {
        self.graph
            .weighted_nodes()
            .filter_map(|n| n.op.weight())
            .map(|name| self.original_shape(name).elements())
            .sum()
    }

    /// Shape that a weight had in the original network.
    pub fn original_shape(&self, tensor: &str) -> Shape {
        self.original_shapes
            .get(tensor)
            .cloned()
            .or_else(|| self.tensors.get(tensor).map(Weights::shape))
            .unwrap_or_default()
    }

    /// Number of weights that are not zero, biases apart.
    pub fn nonzeros(&self) -> usize {
        self.graph
            .weighted_nodes()
            .filter_map(|n| self.weight(n))
            .map(Weights::nonzeros)
            .sum()
    }

    /// The same network in the shapes it had before dead units left: weights are dense, and what left is back as zeros.
    ///
    /// Outputs are the same. This is what the network costs where zeros are not made use of.
    ///
    /// # Errors
    /// Original shapes that are smaller than what is left, or that do not fit the graph.
    pub fn in_original_shapes(&self) -> Result<Self, ModelError> {
        self.check_dense()?;
        let weights = self.graph.weighted_nodes().filter_map(|n| n.op.weight());
        let elements = weights
            .map(|name| self.original_shape(name).elements())
            .fold(0, usize::saturating_add);
        let what = || "the weights in their original shapes".into();
        memory::check_elements(what, elements, size_of::<f32>())?;
        let mut padded = self.to_dense();
        for node in &self.graph.nodes {
            if let Some(weight) = node.op.weight() {
                let shape = self.original_shape(weight);
                let out = shape.dims().first().copied().unwrap_or(1);
                pad(&mut padded.tensors, weight, shape, 0.0)?;
                if let Some(bias) = node.op.bias() {
                    pad(&mut padded.tensors, bias, Shape::from([out]), 0.0)?;
                }
            } else {
                for tensor in node.op.tensors() {
                    // Whatever a variance of one normalises, a scale of zero takes away.
                    let fill = match &node.op {
                        Op::BatchNormalization(norm) if tensor == norm.variance => 1.0,
                        _ => 0.0,
                    };
                    pad(
                        &mut padded.tensors,
                        tensor,
                        self.original_shape(tensor),
                        fill,
                    )?;
                }
            }
        }
        padded.count_groups()?;
        padded.original_shapes.clear();
        padded.shapes()?;
        Ok(padded)
    }

    /// Gives convolutions the groups that their inputs and filters ask for.
    fn count_groups(&mut self) -> Result<(), ModelError> {
        let tensors = &self.tensors;
        let weight_shape = |_: &Node, tensor: &str| {
            Ok(tensors.get(tensor).map(Weights::shape).unwrap_or_default())
        };
        let inputs = self.graph.inputs.iter();
        let mut shapes: HashMap<String, Shape> =
            inputs.map(|i| (i.name.clone(), i.shape.clone())).collect();
        for node in &mut self.graph.nodes {
            let of = |name: &String| shapes.get(name).cloned().unwrap_or_default();
            let inputs: Vec<Shape> = node.inputs.iter().map(of).collect();
            if let Op::Conv(ops::Conv { weight, groups, .. }) = &mut node.op
                && let Some(&channels) = inputs[0].dims().first()
                && let Some(&[_, of_group, _, _]) = tensors
                    .get(weight)
                    .map(Weights::shape)
                    .as_ref()
                    .map(Shape::dims)
            {
                *groups = channels / of_group.max(1);
            }
            let inputs: Vec<&Shape> = inputs.iter().collect();
            let out = shape::output_shape(node, &inputs, &weight_shape)?;
            shapes.insert(node.name.clone(), out);
        }
        Ok(())
    }

    /// Checks that there is memory for [`Network::to_dense`].
    ///
    /// # Errors
    /// [`ModelError::Memory`] where there is none.
    pub fn check_dense(&self) -> Result<(), ModelError> {
        let elements = |tensor: &Weights| match tensor {
            Weights::Csr(csr) => csr.shape().elements(),
            Weights::Dense(_) => 0,
        };
        let all = self.tensors.values().map(elements);
        let all = all.fold(0, usize::saturating_add);
        memory::check_elements(|| "the dense weights".into(), all, size_of::<f32>())
    }

    /// The same network with every weight dense, and without grids of int8 layers, whose weights are CSR.
    #[must_use]
    pub fn to_dense(&self) -> Self {
        let mut dense = self.clone();
        dense.int8 = Int8Grids::default();
        for tensor in dense.tensors.values_mut() {
            *tensor = Weights::Dense(tensor.to_dense());
        }
        dense
    }
}

/// Puts `fill` behind the elements of a tensor in each dimension until it has `shape`.
fn pad(
    tensors: &mut BTreeMap<String, Weights>,
    name: &str,
    shape: Shape,
    fill: f32,
) -> Result<(), ModelError> {
    let Some(tensor) = tensors.get_mut(name) else {
        return Ok(());
    };
    let small = tensor.to_dense();
    let fits = small.shape.dims().len() == shape.dims().len()
        && small
            .shape
            .dims()
            .iter()
            .zip(shape.dims())
            .all(|(s, o)| s <= o);
    if !fits {
        return Err(ModelError::TensorShape {
            tensor: name.into(),
            expected: shape,
            got: small.shape,
        });
    }
    let mut large = Dense::zeros(shape);
    large.values.fill(fill);
    for (i, &v) in small.values.iter().enumerate() {
        let (mut rest, mut at, mut stride) = (i, 0, 1);
        for (&s, &o) in small.shape.dims().iter().zip(large.shape.dims()).rev() {
            at += rest % s * stride;
            rest /= s;
            stride *= o;
        }
        large.values[at] = v;
    }
    *tensor = Weights::Dense(large);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn what_left_comes_back_as_zeros() {
        let preset = presets::mlp("small", Shape::from([3]), &[2, 2]);
        let mut network = Network::from_preset(preset, |_, shape| {
            let values = (1..=shape.elements()).map(|i| i as f32).collect();
            Dense::new(shape.clone(), values).into()
        })
        .unwrap();
        network
            .original_shapes
            .insert("fc1.weight".into(), Shape::from([4, 3]));
        network
            .original_shapes
            .insert("fc2.weight".into(), Shape::from([2, 4]));
        let padded = network.in_original_shapes().unwrap();
        let values = |name: &str| padded.tensors[name].values().to_vec();
        assert_eq!(
            values("fc1.weight"),
            [1., 2., 3., 4., 5., 6., 0., 0., 0., 0., 0., 0.]
        );
        assert_eq!(values("fc1.bias"), [1., 2., 0., 0.]);
        assert_eq!(values("fc2.weight"), [1., 2., 0., 0., 3., 4., 0., 0.]);
        network
            .original_shapes
            .insert("fc2.weight".into(), Shape::from([2, 1]));
        assert!(network.in_original_shapes().is_err());
    }
}
