//! The operators a network is made of.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ops::{self, Attribute, Operator};

/// What a node computes: an ONNX operator with its attributes.
///
/// Weight and bias tensors are named here and live in [`crate::Network::tensors`].
/// Shapes are per sample: feature maps are `[channels, height, width]`, vectors `[features]`.
/// What is known of each operator is in its file under [`crate::ops`], behind [`Op::operator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op")]
pub enum Op {
    /// A fully connected layer, ONNX's `Gemm`.
    Linear(ops::Linear),
    /// A convolution.
    Conv(ops::Conv),
    /// A batch normalisation.
    BatchNormalization(ops::BatchNormalization),
    /// `max(x, 0)`.
    Relu,
    /// A clamp; ReLU6 is the clip from 0 to 6.
    Clip(ops::Clip),
    /// A ReLU with a slope on the negative side.
    LeakyRelu(ops::LeakyRelu),
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// A piecewise linear sigmoid.
    HardSigmoid(ops::HardSigmoid),
    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x Phi(x)` with the normal distribution function `Phi`.
    Gelu(ops::Gelu),
    /// Largest value of each window.
    MaxPool(ops::MaxPool),
    /// Mean of each window.
    AveragePool(ops::AveragePool),
    /// Mean of each feature map: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAveragePool,
    /// `a + b` of two values of one shape, or with one number per channel (`[c]` or `[c, 1, 1]`) as the second.
    Add,
    /// `a - b`, with shapes as for [`Op::Add`].
    Sub,
    /// `a b`, element by element, with shapes as for [`Op::Add`].
    Mul,
    /// `a / b`, element by element, with shapes as for [`Op::Add`].
    Div,
    /// Values behind each other along one dimension.
    Concat(ops::Concat),
    /// A border around each feature map.
    Pad(ops::Pad),
    /// Feature maps to one vector: `[c, h, w]` to `[c*h*w]`.
    Flatten,
    /// Probabilities along one dimension.
    Softmax(ops::Softmax),
}

/// Evaluates `$call` with `$o` bound to the operator behind any [`Op`], by `&` or `&mut`.
///
/// This is the one list of operators; [`ops::examples`] is tested against it.
macro_rules! with_operator {
    (@match $op:expr, $o:ident, $call:expr, $borrow:tt, [$($with:ident)*], [$($plain:ident)*]) => {
        match $op {
            $(Op::$with($o) => $call,)*
            $(Op::$plain => { let $o = with_operator!(@borrow $borrow $plain); $call })*
        }
    };
    (@borrow ($($borrow:tt)+) $plain:ident) => { $($borrow)+ ops::$plain };
    ($op:expr, $borrow:tt $o:ident => $call:expr) => {
        with_operator!(@match $op, $o, $call, $borrow,
            [Linear Conv BatchNormalization Clip LeakyRelu HardSigmoid Gelu MaxPool AveragePool Pad Concat Softmax],
            [Relu Sigmoid HardSwish Tanh GlobalAveragePool Add Sub Mul Div Flatten])
    };
}

impl Op {
    /// What is known of the operator.
    pub fn operator(&self) -> &dyn Operator {
        with_operator!(self, (&) o => o as &dyn Operator)
    }

    /// Shows every attribute to `visit` by the name of its field, tensor names first, in the order of packed files.
    pub fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        with_operator!(self, (&mut) o => o.visit_attributes(visit));
    }

    /// The name of the operator: ONNX's, but for `Linear`, which is `Gemm` there.
    pub fn name(&self) -> &'static str {
        self.operator().name()
    }

    /// The attributes as numbers in a fixed order, an absent bound as `None`; tensor names are left out.
    ///
    /// Operators of one name with the same attributes compute the same from the same tensors.
    pub fn attributes(&self) -> Vec<Option<f64>> {
        let mut numbers = Vec::new();
        self.clone().visit_attributes(&mut |_, attribute| {
            let sizes = |sizes: &[usize]| sizes.iter().map(|&n| Some(n as f64)).collect();
            let more: Vec<Option<f64>> = match attribute {
                Attribute::Tensor(_) | Attribute::Bias(_) => vec![],
                Attribute::Window(w) => {
                    let pairs = [w.kernel_shape, w.strides, w.dilations];
                    sizes(&[pairs.as_flattened(), &w.pads].concat())
                }
                Attribute::Size(n) => sizes(&[*n]),
                Attribute::Axis(0) => vec![],
                Attribute::Axis(n) => sizes(&[*n]),
                Attribute::Pads(pads) => sizes(pads),
                Attribute::Float(v) => vec![Some(f64::from(*v))],
                Attribute::Bound(v) => vec![v.map(f64::from)],
                Attribute::Approximate(a) => sizes(&[*a as usize]),
            };
            numbers.extend(more);
        });
        numbers
    }

    /// How many values the operator reads.
    pub fn inputs(&self) -> RangeInclusive<usize> {
        self.operator().inputs()
    }

    /// Whether the operator changes each number by itself, whatever its place: an activation.
    pub fn is_activation(&self) -> bool {
        self.operator().activation(0.0).is_some()
    }

    /// Names of all tensors the operator reads, in the order of its ONNX inputs.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        self.operator().tensors().into_iter()
    }

    /// Tensor name of the weight matrix or filter bank, where the operator has one.
    pub fn weight(&self) -> Option<&str> {
        self.operator().weight()
    }

    /// Tensor name of the bias beside a weight, where the operator has one.
    pub fn bias(&self) -> Option<&str> {
        self.operator().bias()
    }

    /// Number of independent groups of channels of a convolution; 1 for any other operator.
    pub fn groups(&self) -> usize {
        self.operator().groups()
    }

    /// Gives the weight and bias other tensor names; does nothing for an operator without weights.
    pub fn rename_tensors(&mut self, new_weight: String, new_bias: Option<String>) {
        if let Self::Linear(ops::Linear { weight, bias })
        | Self::Conv(ops::Conv { weight, bias, .. }) = self
        {
            *weight = new_weight;
            *bias = new_bias;
        }
    }
}
