//! What training makes of each operator, and the operators of one input that are neither weighted layers nor batch normalisations.

mod layer_norm;
mod prelu;

use sparsevd_kernels::Activation;
use sparsevd_kernels::training::{Real, activate, activation_gradient};
use sparsevd_model::{Op, Window, ops};

use super::arithmetic::Arithmetic;
use super::size::MapSize;
use super::{Pass, Saved, arrange, pool};

/// How an operator is trained.
pub(crate) enum Kind<'a> {
    Linear,
    Conv(&'a ops::Conv),
    BatchNormalization,
    Arithmetic(Arithmetic),
    /// Along that dimension.
    Concat(usize),
    Function(Function),
    /// Not at all, as `not_trained` of the operator says.
    NotTrained,
}

impl<'a> Kind<'a> {
    pub fn of(op: &'a Op) -> Self {
        match op {
            Op::Linear(_) => Self::Linear,
            Op::Conv(conv) => Self::Conv(conv),
            Op::BatchNormalization(_) => Self::BatchNormalization,
            Op::Add => Self::Arithmetic(Arithmetic::Add),
            Op::Sub => Self::Arithmetic(Arithmetic::Sub),
            Op::Mul => Self::Arithmetic(Arithmetic::Mul),
            Op::Div => Self::Arithmetic(Arithmetic::Div),
            &Op::Concat(ops::Concat { axis }) => Self::Concat(axis),
            Op::Relu
            | Op::Clip(_)
            | Op::LeakyRelu(_)
            | Op::Sigmoid
            | Op::HardSigmoid(_)
            | Op::HardSwish
            | Op::Tanh
            | Op::Gelu(_) => Activation::of(op).map_or(Self::NotTrained, |activation| {
                Self::Function(Function::Activation(activation))
            }),
            Op::MaxPool(pool) => Self::Function(Function::MaxPool(pool.window.clone())),
            Op::AveragePool(pool) => Self::Function(Function::AveragePool(pool.window.clone())),
            Op::GlobalAveragePool => Self::Function(Function::GlobalAveragePool),
            Op::Pad(pad) => Self::Function(Function::Pad(pad.pads, pad.value)),
            Op::Flatten => Self::Function(Function::Flatten),
            Op::PRelu(_) => Self::Function(Function::PRelu),
            Op::LayerNormalization(norm) => Self::Function(Function::LayerNorm(norm.epsilon)),
            Op::Reshape(_) | Op::Transpose(_) | Op::Embedding(_) | Op::Softmax(_) => {
                Self::NotTrained
            }
        }
    }
}

/// An operator of one input that is neither a weighted layer nor a batch normalisation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Function {
    /// An activation that is no fused ReLU.
    Activation(Activation),
    MaxPool(Window),
    AveragePool(Window),
    GlobalAveragePool,
    /// A border: pixels at the top, left, bottom and right, and what they hold.
    Pad([usize; 4], f32),
    /// Conversion to channels first, where a consumer is not a linear layer, which gathers its inputs.
    Flatten,
    /// A layer normalisation with this epsilon, over groups of as many elements as its scale has.
    LayerNorm(f32),
    PRelu,
}

impl Function {
    /// Size of the output; `None` where a window is larger than its map.
    pub fn output(&self, input: MapSize) -> Option<MapSize> {
        match self {
            Self::Activation(_) | Self::LayerNorm(_) | Self::PRelu => Some(input),
            Self::MaxPool(window) | Self::AveragePool(window) => input.over(window),
            Self::GlobalAveragePool => Some(MapSize::vector(input.channels)),
            &Self::Pad([top, left, bottom, right], _) => Some(MapSize {
                height: input.height + top + bottom,
                width: input.width + left + right,
                ..input
            }),
            Self::Flatten => Some(MapSize::vector(input.elements())),
        }
    }

    /// `y` of `x`; `tensors` are those of the node.
    pub fn forward<T: Real>(
        &self,
        pass: &Pass<'_>,
        tensors: &[&[T]],
        x: &[T],
        y: &mut [T],
        [input, output]: [MapSize; 2],
        saved: &mut Saved<T>,
    ) {
        match self {
            Self::Activation(f) => activate(pass.isa, *f, x, y),
            Self::MaxPool(window) => {
                pool::max_forward(pass.isa, x, input, window, y, output, saved);
            }
            Self::AveragePool(window) => pool::average_forward(x, input, window, y, output),
            Self::GlobalAveragePool => {
                pool::average_forward(x, input, &pool::global(input), y, output);
            }
            Self::Pad(pads, value) => arrange::pad_forward(x, input, *pads, *value, y, output),
            Self::Flatten => arrange::flatten_forward(x, input, y),
            Self::LayerNorm(epsilon) => layer_norm::forward(*epsilon, tensors, x, y, input),
            Self::PRelu => prelu::forward(tensors[0], input.channels, x, y),
        }
    }

    /// Adds the gradients by `x`, where there is a `dx`, and by the tensors.
    #[allow(clippy::too_many_arguments, reason = "a stage and its buffers")]
    pub fn backward<T: Real>(
        &self,
        pass: &Pass<'_>,
        tensors: &[&[T]],
        x: &[T],
        g: &[T],
        [input, output]: [MapSize; 2],
        saved: &Saved<T>,
        dx: Option<&mut [T]>,
        by_tensors: &mut [Vec<T>],
    ) {
        match (self, dx) {
            (Self::LayerNorm(epsilon), dx) => {
                layer_norm::backward(*epsilon, tensors, x, g, input, dx, by_tensors);
            }
            (Self::PRelu, dx) => {
                prelu::backward(tensors[0], input.channels, x, g, dx, &mut by_tensors[0]);
            }
            (Self::Activation(f), Some(dx)) => activation_gradient(pass.isa, *f, x, g, dx),
            (Self::MaxPool(_), Some(dx)) => pool::max_backward(g, input, dx, output, saved),
            (Self::AveragePool(window), Some(dx)) => {
                pool::average_backward(g, input, window, dx, output);
            }
            (Self::GlobalAveragePool, Some(dx)) => {
                pool::average_backward(g, input, &pool::global(input), dx, output);
            }
            (Self::Pad(pads, _), Some(dx)) => arrange::pad_backward(g, output, *pads, dx, input),
            (Self::Flatten, Some(dx)) => arrange::flatten_backward(g, dx, input),
            // The other operators have no tensors, so without `dx` there is nothing to compute.
            (_, None) => {}
        }
    }
}
