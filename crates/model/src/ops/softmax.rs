//! Softmax.

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Probabilities over a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Softmax;

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        match node.x().dims() {
            [_] => Ok(node.x().clone()),
            _ => Err(node.mismatch("a vector", node.x())),
        }
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("Softmax", vec![("axis", OnnxAttribute::Int(1))])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(8)
    }

    fn not_trained(&self) -> Option<&'static str> {
        Some("it: networks are trained on scores, and the loss has a softmax of its own")
    }
}
