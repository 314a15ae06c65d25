//! What is known of each operator, in one place per operator.
//!
//! Attributes are plain data in the variants of [`crate::Op`]; everything that other parts ask about an operator is its
//! implementation of [`Operator`] in a file here: shape rule, formula, what it does to channels and zeros, its form in ONNX and
//! its number in packed files. `docs/adding-an-op.md` says how one is added.

mod activations;
mod arithmetic;
mod batch_normalization;
mod concat;
mod conv;
mod flatten;
mod linear;
mod pad;
mod pool;
mod softmax;
mod window;

use std::ops::RangeInclusive;

use crate::{ModelError, Node, Op, Shape};

pub use activations::{
    Approximate, Clip, Gelu, HardSigmoid, HardSwish, LeakyRelu, Relu, Sigmoid, Tanh,
};
pub use arithmetic::{Add, Div, Mul, Sub, is_per_channel};
pub use batch_normalization::BatchNormalization;
pub use concat::Concat;
pub use conv::Conv;
pub use flatten::Flatten;
pub use linear::Linear;
pub use pad::Pad;
pub use pool::{AveragePool, GlobalAveragePool, MaxPool};
pub use softmax::Softmax;
pub use window::Window;

/// What is known of an operator.
///
/// A default holds for most operators, and `crates/model/tests/operators.rs` checks each against the others.
pub trait Operator {
    /// Its name in graphs: ONNX's, but for `Linear`.
    fn name(&self) -> &'static str;

    /// How many values it reads.
    fn inputs(&self) -> RangeInclusive<usize> {
        1..=1
    }

    /// Names of the tensors it reads, in the order of its ONNX inputs.
    fn tensors(&self) -> Vec<&str> {
        vec![]
    }

    /// Shows every attribute to `visit` by the name of its field, tensor names first, in the order of packed files.
    fn visit_attributes(&mut self, _visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {}

    /// Shape of its output per sample.
    ///
    /// # Errors
    /// Inputs, tensors or attributes that do not fit.
    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError>;

    /// `f(x)`, where the operator applies one function to each number by itself.
    fn activation(&self, _x: f32) -> Option<f32> {
        None
    }

    /// Whether the output is zero wherever all inputs are, element by element.
    fn keeps_zero(&self) -> bool {
        self.activation(0.0) == Some(0.0)
    }

    /// How channels of the output come from channels of the inputs.
    fn channels(&self) -> Channels;

    /// For [`Channels::Same`]: the constant that a channel is everywhere when its inputs are these constants, where it is one.
    /// An input is `None` where it is not constant.
    fn constant(&self, inputs: &[Option<f32>], _channel: &ChannelTensors<'_>) -> Option<f32> {
        self.activation(inputs[0]?)
    }

    /// Its form in ONNX.
    fn onnx(&self) -> OnnxForm;

    /// Its number in packed files (`docs/format.md`); `None` where version 1 of the format has none.
    fn packed_number(&self) -> Option<usize>;

    /// Why it cannot be trained, for people, where it cannot.
    fn not_trained(&self) -> Option<&'static str> {
        None
    }
}

/// How channels (the first dimension) of an output come from channels of the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Each channel is made by a row of the weight.
    Rows,
    /// Each channel is made of the same channel of every input.
    Same,
    /// Each channel of the input becomes consecutive channels, one per pixel.
    Flattened,
    /// Those of the inputs one behind the other.
    Appended,
    /// Each channel depends on all channels.
    All,
}

/// One attribute, so that files can be written and read without knowing the operator.
#[derive(Debug)]
pub enum Attribute<'a> {
    /// Name of a tensor.
    Tensor(&'a mut String),
    /// Name of the bias beside the weight that came just before.
    Bias(&'a mut Option<String>),
    /// How a window moves.
    Window(&'a mut Window),
    /// A positive count.
    Size(&'a mut usize),
    /// Pixels at the top, left, bottom, right.
    Pads(&'a mut [usize; 4]),
    /// A number.
    Float(&'a mut f32),
    /// A bound that may be absent.
    Bound(&'a mut Option<f32>),
    /// How the normal distribution function is computed.
    Approximate(&'a mut Approximate),
}

/// A node with the shapes that its operator's shape rule reads.
pub struct NodeShapes<'a> {
    /// The node.
    pub node: &'a Node,
    /// Shapes of its inputs, per sample.
    pub inputs: &'a [&'a Shape],
    /// Shape of a tensor by name.
    pub tensor: &'a dyn Fn(&Node, &str) -> Result<Shape, ModelError>,
}

impl NodeShapes<'_> {
    /// The first input.
    pub(crate) fn x(&self) -> &Shape {
        self.inputs[0]
    }

    pub(crate) fn mismatch(
        &self,
        expected: impl Into<String>,
        got: impl std::fmt::Display,
    ) -> ModelError {
        ModelError::Shape {
            node: self.node.name.clone(),
            op: self.node.op.name(),
            expected: expected.into(),
            got: got.to_string(),
        }
    }

    /// Channels, height and width of the first input.
    pub(crate) fn map(&self) -> Result<[usize; 3], ModelError> {
        match self.x().dims() {
            &[c, h, w] => Ok([c, h, w]),
            _ => Err(self.mismatch("a feature map [channels, height, width]", self.x())),
        }
    }

    pub(crate) fn check_finite(&self, attributes: &[f32]) -> Result<(), ModelError> {
        match attributes.iter().find(|a| !a.is_finite()) {
            None => Ok(()),
            Some(bad) => Err(self.mismatch("finite attributes", bad)),
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<Shape, ModelError> {
        (self.tensor)(self.node, name)
    }

    /// That a tensor is a vector of `elements`.
    pub(crate) fn check_vector(&self, name: &str, elements: usize) -> Result<(), ModelError> {
        let got = self.tensor(name)?;
        if got.dims() == [elements] {
            return Ok(());
        }
        Err(ModelError::TensorShape {
            tensor: name.into(),
            expected: Shape::from([elements]),
            got,
        })
    }
}

/// The tensors of a node, read at one channel.
pub struct ChannelTensors<'a> {
    /// Element of a vector tensor by the tensor's name, at this channel.
    pub element: &'a dyn Fn(&str) -> Option<f32>,
}

/// How an operator is written as an ONNX node, beside its inputs and tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxForm {
    /// ONNX operator.
    pub op_type: &'static str,
    /// First version of ONNX's operators that has it like this.
    pub opset: i64,
    /// Attributes by name.
    pub attributes: Vec<(&'static str, OnnxAttribute)>,
    /// Constants that are inputs behind all others, by what they are; one that is left out is `None`.
    pub constants: Vec<(&'static str, Option<OnnxConstant>)>,
}

impl OnnxForm {
    /// An operator without attributes or constants.
    pub fn new(op_type: &'static str) -> Self {
        Self {
            op_type,
            opset: 17,
            attributes: vec![],
            constants: vec![],
        }
    }

    pub(crate) fn with(
        op_type: &'static str,
        attributes: Vec<(&'static str, OnnxAttribute)>,
    ) -> Self {
        Self {
            attributes,
            ..Self::new(op_type)
        }
    }
}

/// Value of an ONNX attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxAttribute {
    /// An integer.
    Int(i64),
    /// Integers.
    Ints(Vec<i64>),
    /// A number.
    Float(f32),
    /// A word.
    Text(&'static str),
}

/// A constant among the inputs of an ONNX node.
#[derive(Debug, Clone, PartialEq)]
pub enum OnnxConstant {
    /// A scalar of type float.
    Float(f32),
    /// A vector of int64.
    Ints(Vec<i64>),
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
        Op::Softmax,
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
        Op::Concat,
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
