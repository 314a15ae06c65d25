//! What is known of each operator, in one place per operator.
//!
//! Attributes are plain data in the variants of [`crate::Op`]; everything that other parts ask about an operator is its
//! implementation of [`Operator`] in a file here: shape rule, formula, what it does to channels and zeros, its form in ONNX and
//! its number in packed files. `docs/adding-an-op.md` says how one is added.

mod activations;
mod approximate;
mod arithmetic;
mod axis;
mod batch_normalization;
mod concat;
mod conv;
mod flatten;
mod linear;
mod onnx_form;
mod operator;
mod pad;
mod pool;
mod softmax;
mod window;

use crate::Op;

pub use activations::{Clip, Gelu, HardSigmoid, HardSwish, LeakyRelu, Relu, Sigmoid, Tanh};
pub use approximate::Approximate;
pub use arithmetic::{Add, Div, Mul, Sub, is_per_channel};
pub use batch_normalization::BatchNormalization;
pub use concat::Concat;
pub use conv::Conv;
pub use flatten::Flatten;
pub use linear::Linear;
pub use onnx_form::{OnnxAttribute, OnnxConstant, OnnxForm};
pub use operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
pub use pad::Pad;
pub use pool::{AveragePool, GlobalAveragePool, MaxPool};
pub use softmax::Softmax;
pub use window::Window;

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
    ]
}
