//! What every operator says of itself.

use std::ops::RangeInclusive;

use super::approximate::Approximate;
use super::onnx_form::OnnxForm;
use super::window::Window;
use crate::{DType, ModelError, Node, Shape};

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

    /// The weight matrix or filter bank among its tensors.
    fn weight(&self) -> Option<&str> {
        None
    }

    /// The bias beside a weight.
    fn bias(&self) -> Option<&str> {
        None
    }

    /// The number that all elements of a tensor are before training, for a tensor that is neither weight nor bias of a layer; `None` where
    /// they are drawn from a standard normal distribution.
    fn initial(&self, _tensor: &str) -> Option<f32> {
        Some(0.0)
    }

    /// The window with which it moves over a map, where it has one.
    fn window(&self) -> Option<&Window> {
        None
    }

    /// Number of independent groups of channels of a convolution; 1 for any other.
    fn groups(&self) -> usize {
        1
    }

    /// Shows every attribute to `visit` by the name of its field, tensor names first, in the order of packed files.
    fn visit_attributes(&mut self, _visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {}

    /// Shape of its output per sample.
    ///
    /// # Errors
    /// Inputs, tensors or attributes that do not fit.
    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError>;

    /// Whether input number `input` may have elements of that type.
    fn takes(&self, _input: usize, dtype: DType) -> bool {
        dtype == DType::F32
    }

    /// Whether `dimension` may be free in an input of `rank` dimensions: the operator then computes the same of each part of
    /// the input, or over all of that dimension, whatever its size.
    fn takes_free(&self, _dimension: usize, _rank: usize) -> bool {
        self.activation(0.0).is_some()
    }

    /// `f(x)`, where the operator applies one function to each number by itself.
    fn activation(&self, _x: f32) -> Option<f32> {
        None
    }

    /// Whether the output is zero wherever all inputs are, element by element.
    fn keeps_zero(&self) -> bool {
        self.activation(0.0) == Some(0.0)
    }

    /// Whether its output is its input, number by number, for inputs of these shapes per sample.
    fn is_identity(&self, _inputs: &[&Shape]) -> bool {
        false
    }

    /// Whether a channel that is one constant everywhere is that constant in the output too, as pooling leaves it.
    fn keeps_constants(&self) -> bool {
        false
    }

    /// How channels of the output come from channels of the inputs.
    fn channels(&self) -> Channels;

    /// For [`Channels::Same`]: the constant that a channel is everywhere when its inputs are these constants, where it is one.
    /// An input is `None` where it is not constant.
    fn constant(&self, inputs: &[Option<f32>], _channel: &ChannelTensors<'_>) -> Option<f32> {
        let constant = self.activation(inputs[0]?)?;
        // An infinite one would meet weights of zero, which touch no input.
        constant.is_finite().then_some(constant)
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
    /// Each channel depends on all channels; their number may be another.
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
    /// A dimension per sample. The first, 0, is left out of files and of [`crate::Op::attributes`].
    Axis(&'a mut usize),
    /// Dimensions, or their sizes, of one sample.
    Sizes(&'a mut Vec<usize>),
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
