//! Flattening.

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Feature maps to one vector: `[c, h, w]` to `[c*h*w]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flatten;

impl Operator for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        Ok(Shape::from([node.x().elements()]))
    }

    /// It moves no number: those of a map lie in the order of the vector.
    fn is_identity(&self, _: &[&Shape]) -> bool {
        true
    }

    fn channels(&self) -> Channels {
        Channels::Flattened
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("Flatten", vec![("axis", OnnxAttribute::Int(1))])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(7)
    }
}
