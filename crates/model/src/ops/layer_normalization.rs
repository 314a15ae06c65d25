//! Layer normalisation.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias` (Ba, Kiros and Hinton 2016), with mean and variance over the last dimensions.
///
/// `scale` and `bias` have the shape of the dimensions that are normalised: `[c, h, w]`, `[h, w]` or `[w]` of a map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerNormalization {
    /// Tensor name of the scale, by which normalised numbers are multiplied.
    pub scale: String,
    /// Tensor name of the bias, which is added to them; without one nothing is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<String>,
    /// How many dimensions are normalised, of those of one sample; ONNX's `axis` is minus that.
    pub dimensions: usize,
    /// What is added to the variance.
    #[serde(default = "epsilon")]
    pub epsilon: f32,
}

/// The default of ONNX and PyTorch.
fn epsilon() -> f32 {
    1e-5
}

impl LayerNormalization {
    /// The sizes of the last `dimensions` dimensions of a sample of this shape; `None` where it has fewer, or `dimensions` is 0.
    fn normalized(&self, x: &Shape) -> Option<Shape> {
        let first = x.dims().len().checked_sub(self.dimensions)?;
        (self.dimensions > 0).then(|| Shape(x.dims()[first..].to_vec()))
    }
}

impl Operator for LayerNormalization {
    fn name(&self) -> &'static str {
        "LayerNormalization"
    }

    fn tensors(&self) -> Vec<&str> {
        let scale = Some(self.scale.as_str());
        [scale, self.bias.as_deref()]
            .into_iter()
            .flatten()
            .collect()
    }

    fn initial(&self, tensor: &str) -> Option<f32> {
        Some(f32::from(tensor == self.scale))
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("scale", Attribute::Tensor(&mut self.scale));
        visit("bias", Attribute::Bias(&mut self.bias));
        visit("dimensions", Attribute::Size(&mut self.dimensions));
        visit("epsilon", Attribute::Float(&mut self.epsilon));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let Some(expected) = self.normalized(node.x()) else {
            let expected = format!("1 to {} dimensions of {}", node.x().dims().len(), node.x());
            return Err(node.mismatch(expected, self.dimensions));
        };
        for tensor in self.tensors() {
            let got = node.tensor(tensor)?;
            if got != expected {
                return Err(ModelError::TensorShape {
                    tensor: tensor.into(),
                    expected,
                    got,
                });
            }
        }
        node.check_finite(&[self.epsilon])?;
        // With a negative epsilon, `variance + epsilon` could be negative or zero.
        if self.epsilon < 0.0 {
            return Err(node.mismatch("an epsilon of at least 0", self.epsilon));
        }
        Ok(node.x().clone())
    }

    /// A dimension before those that are normalised.
    fn takes_free(&self, dimension: usize, rank: usize) -> bool {
        dimension + self.dimensions < rank
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let axis = OnnxAttribute::Int(-(self.dimensions as i64));
        let epsilon = OnnxAttribute::Float(self.epsilon);
        OnnxForm::with(
            "LayerNormalization",
            vec![("axis", axis), ("epsilon", epsilon)],
        )
    }

    fn packed_number(&self) -> Option<usize> {
        Some(21)
    }
}
