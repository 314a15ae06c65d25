//! Batch normalisation.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Normalisation of each channel by stored statistics: `(x - mean) / sqrt(variance + epsilon) * scale + bias`.
///
/// Networks are run with it folded into the layer before it where that is exact ([`crate::passes`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchNormalization {
    /// Tensor name of the factor per channel.
    pub scale: String,
    /// Tensor name of the summand per channel.
    pub bias: String,
    /// Tensor name of the running mean per channel.
    pub mean: String,
    /// Tensor name of the running variance per channel.
    pub variance: String,
    /// What is added to the variance.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
}

/// ONNX's and PyTorch's.
fn epsilon() -> f32 {
    1e-5
}

impl BatchNormalization {
    /// Factor and summand of a channel with these numbers: `scale`, `bias`, `mean`, `variance`.
    pub fn affine(&self, [scale, bias, mean, variance]: [f32; 4]) -> [f32; 2] {
        let deviation = (f64::from(variance) + f64::from(self.epsilon)).sqrt();
        let factor = f64::from(scale) / deviation;
        [
            factor as f32,
            (f64::from(bias) - f64::from(mean) * factor) as f32,
        ]
    }
}

impl Operator for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.scale, &self.bias, &self.mean, &self.variance]
    }

    fn initial(&self, tensor: &str) -> Option<f32> {
        Some(f32::from(tensor == self.scale || tensor == self.variance))
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("scale", Attribute::Tensor(&mut self.scale));
        visit("bias", Attribute::Tensor(&mut self.bias));
        visit("mean", Attribute::Tensor(&mut self.mean));
        visit("variance", Attribute::Tensor(&mut self.variance));
        visit("epsilon", Attribute::Float(&mut self.epsilon));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let channels = node.x().dims().first().copied().unwrap_or(0);
        for tensor in self.tensors() {
            node.check_vector(tensor, channels)?;
        }
        node.check_finite(&[self.epsilon])?;
        Ok(node.x().clone())
    }

    fn channels(&self) -> Channels {
        Channels::Same
    }

    fn constant(&self, inputs: &[Option<f32>], channel: &ChannelTensors<'_>) -> Option<f32> {
        let [scale, bias, mean, variance] =
            [&self.scale, &self.bias, &self.mean, &self.variance].map(|t| (channel.element)(t));
        let [factor, summand] = self.affine([scale?, bias?, mean?, variance?]);
        match inputs[0] {
            Some(x) => Some(factor * x + summand),
            None => (factor == 0.0).then_some(summand),
        }
    }

    fn onnx(&self) -> OnnxForm {
        let epsilon = OnnxAttribute::Float(self.epsilon);
        OnnxForm::with("BatchNormalization", vec![("epsilon", epsilon)])
    }

    /// It is folded before a network is packed.
    fn packed_number(&self) -> Option<usize> {
        None
    }
}
