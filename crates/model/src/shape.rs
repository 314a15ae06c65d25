//! Shapes, and how they flow through a graph.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Graph, ModelError, Node, Op};

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
    let mismatch = |expected: String, got: String| ModelError::Shape {
        node: node.name.clone(),
        op: node.op.name(),
        expected,
        got,
    };
    let map = |shape: &Shape| match shape.dims() {
        &[c, h, w] => Ok([c, h, w]),
        _ => Err(mismatch(
            "a feature map [channels, height, width]".into(),
            shape.to_string(),
        )),
    };
    let finite = |attributes: &[f32]| match attributes.iter().find(|a| !a.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(mismatch("finite attributes".into(), bad.to_string())),
    };
    let x = inputs[0];
    let out = match &node.op {
        Op::Linear { weight, bias } => {
            let w = weight_shape(node, weight)?;
            let &[out, inn] = w.dims() else {
                return Err(mismatch("a weight [out, in]".into(), w.to_string()));
            };
            if x.dims() != [inn] {
                return Err(mismatch(
                    format!("an input of shape [{inn}] for the weight `{weight}` {w}"),
                    x.to_string(),
                ));
            }
            check_bias(node, bias.as_deref(), out, weight_shape)?;
            Shape::from([out])
        }
        Op::Conv {
            weight,
            bias,
            window,
            groups,
        } => {
            let w = weight_shape(node, weight)?;
            let &[out, inn, kh, kw] = w.dims() else {
                return Err(mismatch(
                    "a weight [out, in/groups, kh, kw]".into(),
                    w.to_string(),
                ));
            };
            if [kh, kw] != window.kernel_shape {
                return Err(mismatch(
                    format!("kernel_shape {:?} of the graph", window.kernel_shape),
                    format!("weight `{weight}` {w}"),
                ));
            }
            let [c, height, width] = map(x)?;
            if *groups == 0 || inn.checked_mul(*groups) != Some(c) || !out.is_multiple_of(*groups) {
                return Err(mismatch(
                    format!(
                        "{} input channels in {groups} group(s) for the weight `{weight}` {w}",
                        inn.saturating_mul(*groups)
                    ),
                    format!("an input {x}"),
                ));
            }
            check_bias(node, bias.as_deref(), out, weight_shape)?;
            let [oh, ow] = window.output(height, width).ok_or_else(|| {
                mismatch(
                    "a window that fits the input".into(),
                    format!("{window:?} over {x}"),
                )
            })?;
            Shape::from([out, oh, ow])
        }
        Op::MaxPool { window } | Op::AveragePool { window } => {
            let [c, height, width] = map(x)?;
            let fits = window.output(height, width).filter(|_| {
                // Every window must see at least one real pixel.
                let [kh, kw] = window.kernel_shape;
                let [top, left, bottom, right] = window.pads;
                top.max(bottom) < kh && left.max(right) < kw
            });
            let [oh, ow] = fits.ok_or_else(|| {
                mismatch(
                    "a window that fits the input".into(),
                    format!("{window:?} over {x}"),
                )
            })?;
            Shape::from([c, oh, ow])
        }
        Op::GlobalAveragePool => {
            let [c, _, _] = map(x)?;
            Shape::from([c, 1, 1])
        }
        Op::Relu | Op::Sigmoid | Op::HardSwish | Op::Tanh | Op::Gelu { .. } => x.clone(),
        Op::Clip { min, max } => {
            finite(&[min.unwrap_or(0.0), max.unwrap_or(0.0)])?;
            x.clone()
        }
        Op::LeakyRelu { alpha } => {
            finite(&[*alpha])?;
            x.clone()
        }
        Op::HardSigmoid { alpha, beta } => {
            finite(&[*alpha, *beta])?;
            x.clone()
        }
        Op::Add | Op::Sub | Op::Mul | Op::Div => {
            if x != inputs[1] && !is_per_channel(inputs[1], x) {
                return Err(mismatch(
                    format!(
                        "a second input of the shape of the first, {x}, or one number per channel"
                    ),
                    inputs[1].to_string(),
                ));
            }
            x.clone()
        }
        Op::BatchNormalization { epsilon, .. } => {
            let channels = x.dims().first().copied().unwrap_or(0);
            for tensor in node.op.tensors() {
                check_vector(node, tensor, channels, weight_shape)?;
            }
            finite(&[*epsilon])?;
            x.clone()
        }
        Op::Concat => {
            let mut dims = x.dims().to_vec();
            let Some(first) = dims.first_mut() else {
                return Err(mismatch("vectors or feature maps".into(), x.to_string()));
            };
            for more in &inputs[1..] {
                let added = (more.dims().get(1..) == x.dims().get(1..))
                    .then(|| more.dims().first().and_then(|c| first.checked_add(*c)));
                *first = added.flatten().ok_or_else(|| {
                    mismatch(
                        format!("inputs that differ from {x} in the first dimension alone"),
                        more.to_string(),
                    )
                })?;
            }
            Shape(dims)
        }
        Op::Pad { pads, value } => {
            let [c, height, width] = map(x)?;
            let [top, left, bottom, right] = *pads;
            let side = |n: usize, before: usize, after: usize| {
                n.checked_add(before).and_then(|n| n.checked_add(after))
            };
            finite(&[*value])?;
            let padded = side(height, top, bottom).zip(side(width, left, right));
            let (height, width) = padded.ok_or_else(|| {
                mismatch("a border that can be counted".into(), format!("{pads:?}"))
            })?;
            Shape::from([c, height, width])
        }
        Op::Flatten => Shape::from([x.elements()]),
        Op::Softmax => match x.dims() {
            [_] => x.clone(),
            _ => return Err(mismatch("a vector".into(), x.to_string())),
        },
    };
    Ok(out)
}

fn check_bias(
    node: &Node,
    bias: Option<&str>,
    out: usize,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<(), ModelError> {
    bias.map_or(Ok(()), |name| check_vector(node, name, out, weight_shape))
}

fn check_vector(
    node: &Node,
    tensor: &str,
    elements: usize,
    weight_shape: &dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
) -> Result<(), ModelError> {
    let got = weight_shape(node, tensor)?;
    if got.dims() != [elements] {
        return Err(ModelError::TensorShape {
            tensor: tensor.into(),
            expected: Shape::from([elements]),
            got,
        });
    }
    Ok(())
}

/// Whether a shape holds one number for each channel of a feature map: `[c]` or `[c, 1, 1]` beside `[c, h, w]`.
pub fn is_per_channel(shape: &Shape, map: &Shape) -> bool {
    matches!(
        (shape.dims(), map.dims()),
        (&[c] | &[c, 1, 1], &[channels, _, _]) if c == channels
    )
}
