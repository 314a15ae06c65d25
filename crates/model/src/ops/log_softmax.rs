//! Logarithms of probabilities.

use serde::{Deserialize, Serialize};

use super::axis::{axis_in_onnx, is_first};
use super::onnx_form::OnnxForm;
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// The logarithms of the probabilities along one dimension: `x_i - ln(sum_j e^x_j)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogSoftmax {
    /// The dimension, of one sample. The first where a file has none.
    #[serde(default, skip_serializing_if = "is_first")]
    pub axis: usize,
}

impl Operator for LogSoftmax {
    fn name(&self) -> &'static str {
        "LogSoftmax"
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        if self.axis < node.x().dims().len() {
            return Ok(node.x().clone());
        }
        Err(node.mismatch(format!("a dimension {}", self.axis), node.x()))
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("axis", Attribute::Axis(&mut self.axis));
    }

    fn takes_free(&self, _dimension: usize, _rank: usize) -> bool {
        true
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("LogSoftmax", vec![("axis", axis_in_onnx(self.axis))])
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }

    fn not_trained(&self) -> Option<&'static str> {
        Some(
            "it, unless it makes the output of the one dimension of scores that nothing else reads: the loss has a softmax of its own",
        )
    }
}
