//! Concatenation.

use std::ops::RangeInclusive;

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Feature maps of one size behind each other by channel, or vectors behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concat;

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn inputs(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let x = node.x();
        let mut dims = x.dims().to_vec();
        let Some(first) = dims.first_mut() else {
            return Err(node.mismatch("vectors or feature maps", x));
        };
        for more in &node.inputs[1..] {
            let added = (more.dims().get(1..) == x.dims().get(1..))
                .then(|| more.dims().first().and_then(|c| first.checked_add(*c)));
            *first = added.flatten().ok_or_else(|| {
                let expected = format!("inputs that differ from {x} in the first dimension alone");
                node.mismatch(expected, more)
            })?;
        }
        Ok(Shape(dims))
    }

    fn is_identity(&self, inputs: &[&Shape]) -> bool {
        inputs.len() == 1
    }

    fn channels(&self) -> Channels {
        Channels::Appended
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("Concat", vec![("axis", OnnxAttribute::Int(1))])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(19)
    }
}
