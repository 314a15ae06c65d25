//! What is known of each operator, in one place per operator.
//!
//! Attributes are plain data in the variants of [`Op`]; everything that other parts ask about an operator is its
//! implementation of [`Operator`] in a file here: shape rule, formula, what it does to channels and zeros, its form in ONNX and
//! its number in packed files. `docs/adding-an-op.md` says how one is added.

mod activations;
mod approximate;
mod arithmetic;
mod attention;
mod axis;
mod batch_normalization;
mod concat;
mod conv;
mod embedding;
mod expand;
mod flatten;
mod l2_normalize;
mod layer_normalization;
mod linear;
mod log_softmax;
mod mat_mul;
mod onnx_form;
mod operator;
mod pad;
mod pool;
mod prelu;
mod reduce_mean;
mod reshape;
mod slice;
mod softmax;
mod transpose;
mod window;

use serde::{Deserialize, Serialize};

pub use activations::{
    Clip, Elu, Erf, Exp, Gelu, HardSigmoid, HardSwish, LeakyRelu, Log, Relu, Sigmoid, Softplus,
    Sqrt, Tanh,
};
pub use approximate::Approximate;
pub use arithmetic::{Add, Div, Max, Min, Mul, Sub, is_per_channel};
pub use attention::Attention;
pub use batch_normalization::BatchNormalization;
pub use concat::Concat;
pub use conv::Conv;
pub use embedding::Embedding;
pub use expand::Expand;
pub use flatten::Flatten;
pub use l2_normalize::L2Normalize;
pub use layer_normalization::LayerNormalization;
pub use linear::Linear;
pub use log_softmax::LogSoftmax;
pub use mat_mul::MatMul;
pub use onnx_form::{OnnxAttribute, OnnxConstant, OnnxForm};
pub use operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
pub use pad::Pad;
pub use pool::{AveragePool, GlobalAveragePool, MaxPool};
pub use prelu::PRelu;
pub use reduce_mean::ReduceMean;
pub use reshape::{MOST_DIMENSIONS, Reshape};
pub use slice::Slice;
pub use softmax::Softmax;
pub use transpose::Transpose;
pub use window::Window;

/// What a node computes: an ONNX operator with its attributes.
///
/// Weight and bias tensors are named here and live in [`crate::Network::tensors`].
/// Shapes are per sample: feature maps are `[channels, height, width]`, vectors `[features]`.
/// What is known of each operator is in its file of this module, behind [`Op::operator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op")]
pub enum Op {
    /// A fully connected layer, ONNX's `Gemm`.
    Linear(Linear),
    /// A convolution.
    Conv(Conv),
    /// A batch normalisation.
    BatchNormalization(BatchNormalization),
    /// A layer normalisation.
    LayerNormalization(LayerNormalization),
    /// `max(x, 0)`.
    Relu,
    /// A clamp; ReLU6 is the clip from 0 to 6.
    Clip(Clip),
    /// A ReLU with a slope on the negative side.
    LeakyRelu(LeakyRelu),
    /// A ReLU with a slope on the negative side that is trained.
    PRelu(PRelu),
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// A piecewise linear sigmoid.
    HardSigmoid(HardSigmoid),
    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x Phi(x)` with the normal distribution function `Phi`.
    Gelu(Gelu),
    /// `x` where it is not negative, else `alpha (e^x - 1)`.
    Elu(Elu),
    /// `ln(1 + e^x)`.
    Softplus,
    /// `e^x`.
    Exp,
    /// The natural logarithm.
    Log,
    /// The square root.
    Sqrt,
    /// The error function.
    Erf,
    /// Largest value of each window.
    MaxPool(MaxPool),
    /// Mean of each window.
    AveragePool(AveragePool),
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
    /// The larger of `a` and `b`, with shapes as for [`Op::Add`].
    Max,
    /// The smaller of `a` and `b`, with shapes as for [`Op::Add`].
    Min,
    /// `a b` of two computed values, `[.., n, k]` and `[.., k, m]` to `[.., n, m]`.
    MatMul,
    /// Values behind each other along one dimension.
    Concat(Concat),
    /// A border around each feature map.
    Pad(Pad),
    /// Feature maps to one vector: `[c, h, w]` to `[c*h*w]`.
    Flatten,
    /// The same numbers in other dimensions.
    Reshape(Reshape),
    /// The dimensions in another order.
    Transpose(Transpose),
    /// A part of a value along one dimension.
    Slice(Slice),
    /// Copies along dimensions of one element.
    Expand(Expand),
    /// Probabilities along one dimension.
    Softmax(Softmax),
    /// Logarithms of probabilities along one dimension.
    LogSoftmax(LogSoftmax),
    /// Rows of a table by their numbers.
    Embedding(Embedding),
    /// Attention of vectors to each other, `softmax(q k^T / sqrt(w)) v` in each head: three times `[n, d]` to `[n, d]`.
    Attention(Attention),
    /// The mean along the first dimension: `[n, ..]` to `[..]`.
    ReduceMean(ReduceMean),
    /// `x / max(||x||, 1e-12)` of each vector along the last dimension.
    L2Normalize,
}

/// Evaluates `$call` with `$o` bound to the operator behind any [`Op`], by `&` or `&mut`.
///
/// This is the one list of operators; [`examples`] is tested against it.
macro_rules! with_operator {
    (@match $op:expr, $o:ident, $call:expr, $borrow:tt, [$($with:ident)*], [$($plain:ident)*]) => {
        match $op {
            $(Op::$with($o) => $call,)*
            $(Op::$plain => { let $o = with_operator!(@borrow $borrow $plain); $call })*
        }
    };
    (@borrow ($($borrow:tt)+) $plain:ident) => { $($borrow)+ $plain };
    ($op:expr, $borrow:tt $o:ident => $call:expr) => {
        with_operator!(@match $op, $o, $call, $borrow,
            [Linear Conv BatchNormalization LayerNormalization Clip LeakyRelu PRelu HardSigmoid Gelu MaxPool AveragePool Pad Concat Softmax Reshape Transpose Embedding Attention ReduceMean
                Elu Expand LogSoftmax Slice],
            [Relu Sigmoid HardSwish Tanh GlobalAveragePool Add Sub Mul Div Flatten L2Normalize Softplus Exp Log Sqrt Erf Max Min MatMul])
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
}

/// One of each operator with plain attributes, for tests and readers; tensors are called `weight`, `bias` and so on.
pub fn examples() -> Vec<Op> {
    let window = Window::square(2, 1);
    vec![
        Op::Conv(Conv {
            weight: "weight".into(),
            bias: None,
            window: window.clone(),
            groups: 1,
        }),
        Op::Relu,
        Op::Linear(Linear {
            weight: "weight".into(),
            bias: None,
        }),
        Op::MaxPool(MaxPool {
            window: window.clone(),
        }),
        Op::AveragePool(AveragePool { window }),
        Op::GlobalAveragePool,
        Op::Add,
        Op::Flatten,
        Op::Softmax(Softmax::default()),
        Op::Clip(Clip {
            min: None,
            max: None,
        }),
        Op::LeakyRelu(LeakyRelu { alpha: 0.01 }),
        Op::Sigmoid,
        Op::HardSigmoid(HardSigmoid {
            alpha: 0.2,
            beta: 0.5,
        }),
        Op::HardSwish,
        Op::Tanh,
        Op::Gelu(Gelu {
            approximate: Approximate::None,
        }),
        Op::Sub,
        Op::Mul,
        Op::Div,
        Op::Concat(Concat::default()),
        Op::Pad(Pad {
            pads: [1; 4],
            value: 0.0,
        }),
        Op::BatchNormalization(BatchNormalization {
            scale: "scale".into(),
            bias: "bias".into(),
            mean: "mean".into(),
            variance: "variance".into(),
            epsilon: 1e-5,
        }),
        Op::PRelu(PRelu {
            slope: "slope".into(),
        }),
        Op::LayerNormalization(LayerNormalization {
            scale: "scale".into(),
            bias: None,
            dimensions: 1,
            epsilon: 1e-5,
        }),
        Op::Reshape(Reshape { shape: vec![9, 4] }),
        Op::Transpose(Transpose {
            perm: vec![2, 0, 1],
        }),
        Op::Embedding(Embedding {
            table: "table".into(),
        }),
        Op::Attention(Attention { heads: 2 }),
        Op::ReduceMean(ReduceMean::default()),
        Op::L2Normalize,
        Op::Elu(Elu { alpha: 1.0 }),
        Op::Softplus,
        Op::Exp,
        Op::Log,
        Op::Sqrt,
        Op::Erf,
        Op::Max,
        Op::Min,
        Op::MatMul,
        Op::Expand(Expand {
            shape: vec![4, 3, 3],
        }),
        Op::LogSoftmax(LogSoftmax::default()),
        Op::Slice(Slice {
            axis: 0,
            start: 1,
            end: 3,
        }),
    ]
}
