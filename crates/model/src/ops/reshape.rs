//! Reshaping.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxConstant, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Most dimensions of a sample that is reshaped or transposed.
pub const MOST_DIMENSIONS: usize = 8;

/// The same numbers in other dimensions: element `i` in C order stays element `i`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// Dimensions of one sample.
    pub shape: Vec<usize>,
}

impl Operator for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("shape", Attribute::Sizes(&mut self.shape));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let elements = (self.shape.iter()).try_fold(1_usize, |n, &d| n.checked_mul(d));
        let can_be = (1..=MOST_DIMENSIONS).contains(&self.shape.len());
        if can_be && elements == Some(node.x().elements()) {
            return Ok(Shape(self.shape.clone()));
        }
        let expected = format!(
            "1 to {MOST_DIMENSIONS} dimensions of {} elements",
            node.x().elements()
        );
        Err(node.mismatch(expected, Shape(self.shape.clone())))
    }

    fn is_identity(&self, inputs: &[&Shape]) -> bool {
        inputs.iter().all(|x| x.dims() == self.shape)
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let sizes = self.shape.iter().map(|&d| d as i64);
        // A zero keeps the batch.
        let all = std::iter::once(0).chain(sizes).collect();
        OnnxForm {
            constants: vec![("shape", Some(OnnxConstant::Ints(all)))],
            ..OnnxForm::new("Reshape")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(23)
    }
}
