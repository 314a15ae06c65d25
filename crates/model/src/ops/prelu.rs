//! The parametric ReLU.

use serde::{Deserialize, Serialize};

use super::onnx_form::OnnxForm;
use super::operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `x` where it is not negative, else `slope x`, with a slope that is trained (He, Zhang, Ren and Sun 2015).
///
/// `slope` is one number, `[1]`, or one per channel: `[c, 1, 1]` for a map `[c, h, w]`, as ONNX broadcasts it, and `[c]` for a vector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PRelu {
    /// Tensor name of the slope on the negative side.
    pub slope: String,
}

impl PRelu {
    /// The shape of a slope of one number per channel, for a value of this shape per sample.
    pub fn per_channel(x: &Shape) -> Shape {
        let channels = x.dims().first().into_iter().copied();
        let ones = x.dims().iter().skip(1).map(|_| 1);
        Shape(channels.chain(ones).collect())
    }
}

impl Operator for PRelu {
    fn name(&self) -> &'static str {
        "PRelu"
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.slope]
    }

    /// As PyTorch initialises it.
    fn initial(&self, _tensor: &str) -> Option<f32> {
        Some(0.25)
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("slope", Attribute::Tensor(&mut self.slope));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let got = node.tensor(&self.slope)?;
        let expected = Self::per_channel(node.x());
        if got.dims() != [1] && got != expected {
            return Err(ModelError::TensorShape {
                tensor: self.slope.clone(),
                expected,
                got,
            });
        }
        Ok(node.x().clone())
    }

    /// Any dimension. A slope per channel never fits a free channel dimension, so shape inference refuses it.
    fn takes_free(&self, _dimension: usize, _rank: usize) -> bool {
        true
    }

    fn keeps_zero(&self) -> bool {
        true
    }

    fn channels(&self) -> Channels {
        Channels::Same
    }

    fn constant(&self, inputs: &[Option<f32>], channel: &ChannelTensors<'_>) -> Option<f32> {
        match inputs[0]? {
            x if x >= 0.0 => Some(x),
            x => Some((channel.element)(&self.slope)? * x),
        }
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("PRelu")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(22)
    }
}
