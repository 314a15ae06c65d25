//! Transposition.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use super::reshape::MOST_DIMENSIONS;
use crate::{ModelError, Shape};

/// The dimensions in another order: dimension `i` of the output is dimension `perm[i]` of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transpose {
    /// Dimensions of one sample, each once.
    pub perm: Vec<usize>,
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("perm", Attribute::Sizes(&mut self.perm));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let dims = node.x().dims();
        let is_order = dims.len() <= MOST_DIMENSIONS
            && self.perm.len() == dims.len()
            && (0..dims.len()).all(|i| self.perm.contains(&i));
        if is_order {
            return Ok(Shape(self.perm.iter().map(|&p| dims[p]).collect()));
        }
        let expected = format!(
            "each of {} dimensions once, of at most {MOST_DIMENSIONS}",
            dims.len()
        );
        Err(node.mismatch(expected, format!("{:?}", self.perm)))
    }

    fn is_identity(&self, _: &[&Shape]) -> bool {
        self.perm.is_sorted()
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let behind_batch = self.perm.iter().map(|&p| p as i64 + 1);
        let perm = std::iter::once(0).chain(behind_batch).collect();
        OnnxForm::with("Transpose", vec![("perm", OnnxAttribute::Ints(perm))])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(24)
    }
}
