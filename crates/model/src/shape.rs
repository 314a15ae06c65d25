//! Shapes, and how they flow through a graph.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ops::NodeShapes;
use crate::{DType, Dim, Graph, ModelError, Node, TensorType};

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

    /// Rows and columns of the matrix a weight of this shape flattens to: `[out, in/groups * kh * kw]`. Of a value, its channels and the
    /// pixels of each.
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
/// `weight_shape` gives the shape of a tensor that a node names.
///
/// # Errors
/// The first node whose inputs or weights do not fit its operator, a tensor that is missing, or an input with a free dimension.
pub fn infer<'g>(
    graph: &'g Graph,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<HashMap<&'g str, Shape>, ModelError> {
    graph.check()?;
    infer_checked(graph, weight_shape)
}

/// [`infer`] for a graph that was checked.
fn infer_checked<'g>(
    graph: &'g Graph,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<HashMap<&'g str, Shape>, ModelError> {
    let mut shapes: HashMap<&str, Shape> =
        HashMap::with_capacity(graph.inputs.len() + graph.nodes.len());
    for input in &graph.inputs {
        if input.free.is_some() {
            return Err(ModelError::FreeDimension {
                input: input.name.clone(),
                expected: "a known size in each dimension".into(),
                got: input.tensor_type().to_string(),
            });
        }
        shapes.insert(&input.name, input.shape.clone());
    }
    for node in &graph.nodes {
        let inputs: Vec<&Shape> = node.inputs.iter().map(|i| &shapes[i.as_str()]).collect();
        let shape = output_shape(node, &inputs, weight_shape)?;
        shapes.insert(&node.name, shape);
    }
    Ok(shapes)
}

/// Two sizes of a free dimension that no dimension of a network happens to have, the second in place of the first.
const PROBES: [usize; 2] = [10_007, 20_011];

/// Type of every input and node of a graph, by name.
///
/// Shapes are inferred for two sizes of the free dimension: a dimension of a value is free where it is that size in both, and
/// known where it is the same in both.
///
/// # Errors
/// As [`infer`]; a node whose operator does not take the type of an input or its free dimension
/// ([`crate::ops::Operator::takes`], [`crate::ops::Operator::takes_free`]); a node whose output depends on the free dimension in
/// another way.
pub fn infer_types<'g>(
    graph: &'g Graph,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<HashMap<&'g str, TensorType>, ModelError> {
    graph.check()?;
    let symbol = graph.free_symbol().unwrap_or_default();
    let graphs = (!symbol.is_empty()).then(|| PROBES.map(|length| graph.at_length(length)));
    let (short, long) = match &graphs {
        None => (infer_checked(graph, weight_shape)?, None),
        Some([short, long]) => (
            infer_checked(short, weight_shape)?,
            Some(infer_checked(long, weight_shape)?),
        ),
    };
    let mut types: HashMap<&str, TensorType> = HashMap::with_capacity(short.len());
    for input in &graph.inputs {
        types.insert(&input.name, input.tensor_type());
    }
    for node in &graph.nodes {
        let operator = node.op.operator();
        let wrong = |expected: String, got: String| ModelError::Shape {
            node: node.name.clone(),
            op: node.op.name(),
            expected,
            got,
        };
        for (i, name) in node.inputs.iter().enumerate() {
            let input = &types[name.as_str()];
            if !operator.takes(i, input.dtype) {
                let expected = match operator.takes(i, DType::F32) {
                    true => "an input of f32",
                    false => "an input of ids, i32 or i64",
                };
                return Err(wrong(expected.into(), input.to_string()));
            }
            if let Some(free) = input.free()
                && !operator.takes_free(free, input.dims.len())
            {
                let expected = "a known size in each dimension".to_owned();
                return Err(wrong(expected, input.to_string()));
            }
        }
        let short = &short[node.name.as_str()];
        let long = long
            .as_ref()
            .map_or(short, |long| &long[node.name.as_str()]);
        let dims: Option<Vec<Dim>> = (short.dims().len() == long.dims().len())
            .then(|| {
                let sizes = short.dims().iter().zip(long.dims());
                sizes
                    .map(|(&a, &b)| match [a, b] {
                        PROBES if !symbol.is_empty() => Some(Dim::Free(symbol.to_owned())),
                        _ if a == b => Some(Dim::Known(a)),
                        _ => None,
                    })
                    .collect()
            })
            .flatten();
        let tensor_type = dims.map(|dims| TensorType {
            dtype: DType::F32,
            dims,
        });
        let is_one = |t: &TensorType| {
            let free = t.dims.iter().filter(|d| matches!(d, Dim::Free(_)));
            free.count() <= 1
        };
        let tensor_type = tensor_type.filter(is_one).ok_or_else(|| {
            let expected = format!("at most one dimension of `{symbol}`, and no other made of it");
            wrong(expected, format!("{short} where it is {}", PROBES[0]))
        })?;
        types.insert(&node.name, tensor_type);
    }
    Ok(types)
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
