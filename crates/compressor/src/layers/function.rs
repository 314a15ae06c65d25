//! What training makes of each operator, and the operators of one input that are neither weighted layers nor batch normalisations.

mod embedding;
mod layer_norm;
mod pooled;
mod prelu;

use std::sync::Arc;

use sparsevd_kernels::Activation;
use sparsevd_kernels::training::{Real, activate, activation_gradient};
use sparsevd_model::{Op, Shape, Window, ops};

use embedding::Embedding;

use super::arithmetic::Arithmetic;
use super::arrange::{self, Order};
use super::size::{MapSize, all_places};
use super::{Pass, Saved, pool};

/// How an operator is trained.
pub(crate) enum Kind<'a> {
    Linear,
    Conv(&'a ops::Conv),
    BatchNormalization,
    Arithmetic(Arithmetic),
    /// Along that dimension.
    Concat(usize),
    /// With that many heads.
    Attention(usize),
    Function(Function),
    /// Not at all, as `not_trained` of the operator says.
    NotTrained,
}

impl<'a> Kind<'a> {
    /// Of an operator whose first input has these dimensions per sample, and whose tensors have these shapes.
    pub fn of(op: &'a Op, dims: &[usize], tensors: &[&Shape]) -> Self {
        let function = match op {
            Op::Linear(_) => return Self::Linear,
            Op::Conv(conv) => return Self::Conv(conv),
            Op::BatchNormalization(_) => return Self::BatchNormalization,
            Op::Add => return Self::Arithmetic(Arithmetic::Add),
            Op::Sub => return Self::Arithmetic(Arithmetic::Sub),
            Op::Mul => return Self::Arithmetic(Arithmetic::Mul),
            Op::Div => return Self::Arithmetic(Arithmetic::Div),
            Op::Max => return Self::Arithmetic(Arithmetic::Max),
            Op::Min => return Self::Arithmetic(Arithmetic::Min),
            &Op::Concat(ops::Concat { axis }) => return Self::Concat(axis),
            Op::Attention(attention) => return Self::Attention(attention.heads),
            Op::Relu
            | Op::Clip(_)
            | Op::LeakyRelu(_)
            | Op::Sigmoid
            | Op::HardSigmoid(_)
            | Op::HardSwish
            | Op::Tanh
            | Op::Gelu(_)
            | Op::Elu(_)
            | Op::Softplus
            | Op::Exp
            | Op::Log
            | Op::Sqrt
            | Op::Erf => Activation::of(op).map(Function::Activation),
            Op::MaxPool(pool) => Some(Function::MaxPool(pool.window.clone())),
            Op::AveragePool(pool) => Some(Function::AveragePool(pool.window.clone())),
            Op::GlobalAveragePool => Some(Function::GlobalAveragePool),
            Op::Pad(pad) => Some(Function::Pad(pad.pads, pad.value)),
            Op::Flatten => {
                Order::reshaped(dims, &[dims.iter().product()]).map(Function::Arrangement)
            }
            Op::Reshape(reshape) => {
                Order::reshaped(dims, &reshape.shape).map(Function::Arrangement)
            }
            Op::Transpose(transpose) => {
                Order::transposed(dims, &transpose.perm).map(Function::Arrangement)
            }
            Op::PRelu(_) => Some(Function::PRelu),
            Op::LayerNormalization(norm) => {
                let epsilon = norm.epsilon;
                all_places(dims).map(|places| Function::LayerNorm { epsilon, places })
            }
            Op::Embedding(_) => {
                let width = tensors.first().and_then(|table| table.dims().last());
                width
                    .and_then(|&width| Embedding::new(dims, width))
                    .map(Function::Embedding)
            }
            // Of a map, whose channels lie last here, it would be another sum.
            Op::ReduceMean(_) => match *dims {
                [vectors, _] => Some(Function::Mean { vectors }),
                _ => None,
            },
            Op::L2Normalize => (dims.len() != 3).then_some(Function::UnitLength),
            Op::Slice(slice) => Order::sliced(dims, *slice).map(Function::Arrangement),
            Op::Expand(expand) => Order::expanded(dims, &expand.shape).map(Function::Arrangement),
            Op::Softmax(_) | Op::LogSoftmax(_) | Op::MatMul => None,
        };
        function.map_or(Self::NotTrained, Self::Function)
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
    /// Reshaping, transposition, a part, copies, or flattening where a consumer is not a linear layer, which gathers its inputs.
    Arrangement(Order),
    /// A layer normalisation, over groups of as many elements as its scale has.
    LayerNorm {
        epsilon: f32,
        /// Places of the elements of a sample in the order of the network.
        places: Arc<[u32]>,
    },
    PRelu,
    Embedding(Embedding),
    /// The mean of the vectors of a sample.
    Mean {
        vectors: usize,
    },
    /// Vectors over their lengths.
    UnitLength,
}

impl Function {
    /// Dimensions of the output per sample; `None` where a window is larger than its map.
    pub fn output(&self, dims: &[usize]) -> Option<Vec<usize>> {
        let over = |window| MapSize::of(dims).over(window).map(MapSize::map_dims);
        Some(match self {
            Self::Activation(_) | Self::LayerNorm { .. } | Self::PRelu | Self::UnitLength => {
                dims.to_vec()
            }
            Self::Mean { .. } => dims[1..].to_vec(),
            Self::MaxPool(window) | Self::AveragePool(window) => over(window)?,
            Self::GlobalAveragePool => vec![dims[0], 1, 1],
            &Self::Pad([top, left, bottom, right], _) => {
                vec![dims[0], dims[1] + top + bottom, dims[2] + left + right]
            }
            Self::Arrangement(order) => order.dims.clone(),
            Self::Embedding(embedding) => [dims, &[embedding.width]].concat(),
        })
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
            Self::Arrangement(order) => order.forward(x, y),
            Self::LayerNorm { epsilon, places } => {
                layer_norm::forward(*epsilon, places, tensors, x, y);
            }
            Self::Embedding(embedding) => embedding.forward(tensors[0], x, y),
            Self::PRelu => prelu::forward(tensors[0], input.channels, x, y),
            Self::Mean { vectors } => pooled::mean(x, *vectors, output.elements(), y),
            Self::UnitLength => pooled::unit_length(x, input.channels, y),
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
            (Self::LayerNorm { epsilon, places }, dx) => {
                layer_norm::backward(*epsilon, places, tensors, x, g, dx, by_tensors);
            }
            (Self::Embedding(_), _) if by_tensors[0].is_empty() => {}
            (Self::Embedding(embedding), _) => embedding.backward(x, g, &mut by_tensors[0]),
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
            (Self::Arrangement(order), Some(dx)) => order.backward(g, dx),
            (Self::Mean { vectors }, Some(dx)) => {
                pooled::mean_backward(g, *vectors, output.elements(), dx);
            }
            (Self::UnitLength, Some(dx)) => {
                pooled::unit_length_backward(x, g, input.channels, dx);
            }
            // The other operators have no tensors, so without `dx` there is nothing to compute.
            (_, None) => {}
        }
    }
}
