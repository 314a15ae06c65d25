//! A part of a value along one dimension.

use serde::{Deserialize, Serialize};

use super::axis::{axis_in_onnx, is_first};
use super::onnx_form::{OnnxAttribute, OnnxConstant, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// The elements from `start` on and before `end` along one dimension. A Split is one for each of its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The dimension, of one sample. The first where a file has none.
    #[serde(default, skip_serializing_if = "is_first")]
    pub axis: usize,
    /// The first element that is kept.
    pub start: usize,
    /// The first element behind those that are kept, of which there is at least one.
    pub end: usize,
}

impl Operator for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("axis", Attribute::Axis(&mut self.axis));
        visit("start", Attribute::Size(&mut self.start));
        visit("end", Attribute::Size(&mut self.end));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let mut dims = node.x().dims().to_vec();
        if let Some(size) = dims.get_mut(self.axis)
            && self.start < self.end
            && self.end <= *size
        {
            *size = self.end - self.start;
            return Ok(Shape(dims));
        }
        let expected = format!(
            "elements {} to {} along dimension {}",
            self.start, self.end, self.axis
        );
        Err(node.mismatch(expected, node.x()))
    }

    /// Before the dimension that is cut, all its parts are alike; along it the first element, which is always there.
    fn takes_free(&self, dimension: usize, _rank: usize) -> bool {
        dimension < self.axis || (dimension == self.axis && [self.start, self.end] == [0, 1])
    }

    fn is_identity(&self, inputs: &[&Shape]) -> bool {
        let whole = |x: &&Shape| x.dims().get(self.axis) == Some(&self.end);
        self.start == 0 && inputs.iter().all(whole)
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let axes = match axis_in_onnx(self.axis) {
            OnnxAttribute::Int(axis) => vec![axis],
            _ => vec![],
        };
        let bound = |n: usize| vec![i64::try_from(n).unwrap_or(i64::MAX)];
        let ints = |values| Some(OnnxConstant::Ints(values));
        OnnxForm {
            constants: vec![
                ("starts", ints(bound(self.start))),
                ("ends", ints(bound(self.end))),
                ("axes", ints(axes)),
            ],
            ..OnnxForm::new("Slice")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }
}
