//! Fully connected layers.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `y = W x + b` over the last dimension; `weight` is `[out, in]`, `bias` is `[out]` (PyTorch's layout).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// Tensor name of the weight.
    pub weight: String,
    /// Tensor name of the bias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<String>,
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn tensors(&self) -> Vec<&str> {
        [Some(&self.weight), self.bias.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    fn weight(&self) -> Option<&str> {
        Some(&self.weight)
    }

    fn bias(&self) -> Option<&str> {
        self.bias.as_deref()
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("weight", Attribute::Tensor(&mut self.weight));
        visit("bias", Attribute::Bias(&mut self.bias));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let w = node.tensor(&self.weight)?;
        let &[out, inn] = w.dims() else {
            return Err(node.mismatch("a weight [out, in]", w));
        };
        let mut dims = node.x().dims().to_vec();
        if dims.last() != Some(&inn) {
            let expected = format!(
                "an input of shape [{inn}] or [.., {inn}] for the weight `{}` {w}",
                self.weight
            );
            return Err(node.mismatch(expected, node.x()));
        }
        if let Some(bias) = &self.bias {
            node.check_vector(bias, out)?;
        }
        if let Some(last) = dims.last_mut() {
            *last = out;
        }
        Ok(Shape(dims))
    }

    fn takes_free(&self, dimension: usize, rank: usize) -> bool {
        dimension + 1 < rank
    }

    fn channels(&self) -> Channels {
        Channels::Rows
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("Gemm", vec![("transB", OnnxAttribute::Int(1))])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(2)
    }
}
