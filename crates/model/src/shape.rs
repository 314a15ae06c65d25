//! Shapes, and how they flow through a graph.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ops::NodeShapes;
use crate::{Graph, ModelError, Node};

/// Dimensions of a tensor, or of a value per sample (the batch dimension is symbolic and left out).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// Number of elements; saturates instead of overflowing, so that a cap on it always catches.
    pub fn elements(&self) -> usize {
        self.0.iter().fold(1, |n, &d| n.saturating_mul(d))
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Whether this shape has the dimensions of `larger` or less of each, as when units were removed from it.
    pub fn fits_in(&self, larger: &Self) -> bool {
        self.0.len() == larger.0.len() && self.0.iter().zip(&larger.0).all(|(n, l)| n <= l)
    }

    /// Rows and columns of the matrix a weight of this shape flattens to: `[out, in/groups * kh * kw]`.
    /// A scalar is one by one.
    pub fn matrix(&self) -> (usize, usize) {
        match self.0.split_first() {
            None => (1, 1),
            Some((&rows, rest)) => (rows, rest.iter().fold(1, |n, &d| n.saturating_mul(d))),
        }
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Self(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(usize::to_string).collect();
        write!(f, "[{}]", dims.join(", "))
    }
}

/// Shape of every input and node of a checked graph, by name, per sample.
///
/// `weight_shape` gives the shape of a weight or bias tensor by name.
///
/// # Errors
/// The first node whose inputs or weights do not fit its operator, or a tensor that is missing.
pub fn infer<'g>(
    graph: &'g Graph,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<HashMap<&'g str, Shape>, ModelError> {
    graph.check()?;
    let mut shapes: HashMap<&str, Shape> = HashMap::new();
    for input in &graph.inputs {
        shapes.insert(&input.name, input.shape.clone());
    }
    for node in &graph.nodes {
        let inputs: Vec<&Shape> = node.inputs.iter().map(|i| &shapes[i.as_str()]).collect();
        let shape = output_shape(node, &inputs, weight_shape)?;
        shapes.insert(&node.name, shape);
    }
    Ok(shapes)
}

/// Shape of the value of one node whose inputs have the given shapes, per sample.
///
/// # Errors
/// As [`infer`], for this node.
///
/// # Panics
/// When there are fewer inputs than the operator takes.
pub fn output_shape(
    node: &Node,
    inputs: &[&Shape],
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<Shape, ModelError> {
    node.op.operator().shape(&NodeShapes {
        node,
        inputs,
        tensor: weight_shape,
    })
}
