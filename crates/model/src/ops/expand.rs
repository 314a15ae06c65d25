//! Copies along dimensions of one element.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxConstant, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use super::reshape::MOST_DIMENSIONS;
use crate::limits::MAX_ELEMENTS;
use crate::{ModelError, Shape};

/// Copies along dimensions of one element, so that a value meets a larger one in arithmetic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expand {
    /// Dimensions of one sample of the output: those of the input, but where that has one element.
    pub shape: Vec<usize>,
}

impl Operator for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("shape", Attribute::Sizes(&mut self.shape));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let dims = node.x().dims();
        let fits = |(x, y): (&usize, &usize)| *x == 1 || x == y;
        let elements = (self.shape.iter()).try_fold(1_usize, |n, &d| n.checked_mul(d));
        let can_be = (1..=MOST_DIMENSIONS).contains(&dims.len())
            && dims.len() == self.shape.len()
            && dims.iter().zip(&self.shape).all(fits);
        if can_be && elements.is_some_and(|n| n <= MAX_ELEMENTS) {
            return Ok(Shape(self.shape.clone()));
        }
        let expected = format!(
            "the dimensions of {}, larger where that has one element, at most {MOST_DIMENSIONS}",
            node.x()
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
        // One leaves the batch as it is.
        let all = std::iter::once(1).chain(sizes).collect();
        OnnxForm {
            constants: vec![("shape", Some(OnnxConstant::Ints(all)))],
            ..OnnxForm::new("Expand")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }
}
