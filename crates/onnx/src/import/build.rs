//! Building the network: names, nodes, tensors, and values in the shape that a node needs.

use std::collections::{BTreeMap, HashMap, HashSet};

use sparsevd_model::{Dense, Node, Op, Shape, Weights, ops, shape};

use super::importer::{Importer, MOST_ELEMENTS};
use super::ranges::Range;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::node_error::{Invalid, NodeError};
use crate::order::{Layout, transposition};
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    /// A name that no value of the network has yet.
    pub(super) fn free_name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}.{n}");
        }
        name
    }

    /// Adds a node to the network, with the name of the first output of the file's node.
    pub(super) fn push(
        &mut self,
        node: OnnxNode<'m>,
        op: Op,
        inputs: &[&View],
    ) -> Result<View, NodeError> {
        let made = node.0.output.first().map_or("", String::as_str);
        let name = self.free_name(if made.is_empty() { node.name() } else { made });
        self.push_named(name, op, inputs)
    }

    pub(super) fn push_named(
        &mut self,
        name: String,
        op: Op,
        inputs: &[&View],
    ) -> Result<View, NodeError> {
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
        let ranges: Vec<Range> = inputs.iter().map(|v| self.range(&v.name)).collect();
        self.ranges
            .insert(name.clone(), Range::of(&node.op, &ranges));
        self.nodes.push(node);
        Ok(View::new(name, out.0))
    }

    /// What is known of the numbers of a value of the network.
    pub(super) fn range(&self, value: &str) -> Range {
        self.ranges.get(value).copied().unwrap_or(Range::ALL)
    }

    /// Gives the nodes that make the outputs the names that those have in the file, by which outputs are told apart. An input keeps its name, and so
    /// does a node that makes several outputs.
    pub(super) fn name_outputs(&mut self, names: &[&str], outputs: &mut [String]) {
        let mut uses: HashMap<&str, usize> = HashMap::new();
        for output in &*outputs {
            *uses.entry(output).or_default() += 1;
        }
        let nodes: HashSet<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
        let mut renamed: BTreeMap<String, String> = (outputs.iter().zip(names))
            .filter(|(made, _)| uses[made.as_str()] == 1 && nodes.contains(made.as_str()))
            .filter(|(made, name)| made != *name)
            .map(|(made, name)| (made.clone(), (*name).to_owned()))
            .collect();
        // A node on the way to the outputs gives its name away.
        let is_on_the_way = |name: &str| nodes.contains(name) && !uses.contains_key(name);
        let is_taken = |name: &str| {
            self.names.contains(name) && !renamed.contains_key(name) && !is_on_the_way(name)
        };
        let mut staying: Vec<String> = (renamed.iter())
            .filter(|(_, name)| is_taken(name))
            .map(|(made, _)| made.clone())
            .collect();
        let mut by_name: HashMap<String, Vec<String>> = HashMap::new();
        for (made, name) in &renamed {
            by_name.entry(name.clone()).or_default().push(made.clone());
        }
        // What keeps its name leaves it to no other.
        while let Some(made) = staying.pop() {
            renamed.remove(&made);
            staying.extend(by_name.remove(&made).unwrap_or_default());
        }
        let given: Vec<String> = renamed.values().cloned().collect();
        let leaving: Vec<String> = (given.iter())
            .filter(|name| is_on_the_way(name))
            .cloned()
            .collect();
        self.names.extend(given);
        for name in leaving {
            let other = self.free_name(&name);
            renamed.insert(name, other);
        }
        let inputs_and_names =
            (self.nodes.iter_mut()).flat_map(|n| n.inputs.iter_mut().chain([&mut n.name]));
        for value in inputs_and_names.chain(outputs) {
            if let Some(name) = renamed.get(value) {
                name.clone_into(value);
            }
        }
    }

    /// The value with the dimensions `dims` both in the file and in the network, in the network's order.
    ///
    /// # Errors
    /// `NodeError::Layout` where an input must get another layout first; a value that has another shape or order in the network.
    pub(super) fn in_shape(&mut self, x: &View, dims: &[usize]) -> Result<View, NodeError> {
        if x.order.is_none() && x.shape == dims {
            return Ok(x.reshaped(dims.to_vec()));
        }
        if x.order.is_none() && dims.len() == 1 {
            return self.flat(x);
        }
        if let Some(input) = x.input
            && !self.layouts.contains_key(&input)
            && let Some(layout) = Layout::new(&self.declared[input], dims, x.order.as_ref())
        {
            return Err(NodeError::Layout(input, layout));
        }
        if self.moves {
            return self.moved_to(x, dims);
        }
        if x.order.is_some() {
            return Err(moved(x));
        }
        Err(NodeError::unsupported(format!(
            "an input of {} reshaped to {}",
            Shape(x.shape.clone()),
            Shape(dims.to_vec())
        )))
    }

    /// The value in the file's order, with the dimensions `dims`, by operators that move its numbers.
    pub(super) fn moved_to(&mut self, x: &View, dims: &[usize]) -> Result<View, NodeError> {
        let mut made = x.picked(View::new(x.name.clone(), x.shape.clone()));
        if let Some(order) = &x.order {
            self.decoder
                .take(&format!("value `{}`", x.name), &[order.len()])?;
            let Some((sizes, perm)) = transposition(order) else {
                let dims = Shape(x.dims.clone());
                let why = format!("an input of {dims} in an order that no Transpose makes");
                return Err(NodeError::unsupported(why));
            };
            made = self.in_dimensions(&made, sizes)?;
            let name = self.free_name(&format!("{}.transposed", x.name));
            let turned = self.push_named(name, Op::Transpose(ops::Transpose { perm }), &[&made])?;
            made = x.picked(turned);
        }
        self.in_dimensions(&made, dims.to_vec())
    }

    /// The value with other dimensions in the network.
    fn in_dimensions(&mut self, x: &View, shape: Vec<usize>) -> Result<View, NodeError> {
        if x.shape == shape {
            return Ok(x.clone());
        }
        let name = self.free_name(&format!("{}.reshaped", x.name));
        let made = self.push_named(name, Op::Reshape(ops::Reshape { shape }), &[x])?;
        Ok(x.picked(made))
    }

    /// The value as a vector, in the order that it has in the network.
    pub(super) fn flat(&mut self, x: &View) -> Result<View, NodeError> {
        if x.shape.len() == 1 {
            return Ok(x.reshaped(x.shape.clone()));
        }
        let name = self.free_name(&format!("{}.flat", x.name));
        let made = self.push_named(name, Op::Flatten, &[x])?;
        Ok(View {
            order: x.order.clone(),
            input: x.input,
            ..x.picked(made)
        })
    }

    /// A constant as a tensor of floating-point numbers of the network. Each copy counts towards the budget, so that time is
    /// bounded however often a file names one constant.
    pub(super) fn dense(
        &self,
        node: OnnxNode<'m>,
        what: &str,
        t: &Tensor,
    ) -> Result<Dense, Invalid> {
        self.decoder.take(&node.label(), &t.dims)?;
        match t.floats() {
            Some([]) => Err(node.invalid(format!("at least one number as {what}"), t.describe())),
            Some(values) => Ok(Dense::new(Shape(t.dims.clone()), values.to_vec())),
            None => Err(node.invalid(format!("floating-point numbers as {what}"), t.describe())),
        }
    }

    /// Adds a tensor to the network, under its name in the file where that is free or holds the same, and returns the name.
    pub(super) fn tensor(&mut self, wanted: &str, dense: Dense) -> String {
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

/// Why a value cannot be used whose axes were permuted.
pub(super) fn moved(x: &View) -> NodeError {
    NodeError::unsupported(format!(
        "a Transpose before it moves numbers: {} of the network's {}",
        Shape(x.dims.clone()),
        Shape(x.shape.clone())
    ))
}
