//! Mean along a dimension.

use serde::{Deserialize, Serialize};

use super::axis::is_first;
use super::onnx_form::{OnnxAttribute, OnnxConstant, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// The mean along the first dimension, which leaves: `[n, ..]` to `[..]`.
///
/// Of a sequence of vectors `[n, d]` that is their mean `[d]`, which sentence encoders call mean pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReduceMean {
    /// The dimension, of one sample: the first, 0, is the only one that it can be. A file need not say it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub axis: usize,
}

impl Operator for ReduceMean {
    fn name(&self) -> &'static str {
        "ReduceMean"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("axis", Attribute::Axis(&mut self.axis));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        if !is_first(&self.axis) {
            return Err(node.mismatch("the first dimension, 0, as its axis", self.axis));
        }
        match node.x().dims() {
            [n, rest @ ..] if *n > 0 && !rest.is_empty() => Ok(Shape(rest.to_vec())),
            _ => Err(node.mismatch("one or more values [n, ..]", node.x())),
        }
    }

    /// The dimension that leaves.
    fn takes_free(&self, dimension: usize, _rank: usize) -> bool {
        dimension == self.axis
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let axes = i64::try_from(self.axis).map_or(i64::MAX, |axis| axis.saturating_add(1));
        OnnxForm {
            // The axes are an input from that version on.
            opset: 18,
            constants: vec![("axes", Some(OnnxConstant::Ints(vec![axes])))],
            ..OnnxForm::with("ReduceMean", vec![("keepdims", OnnxAttribute::Int(0))])
        }
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }

    fn not_trained(&self) -> Option<&'static str> {
        Some("a mean of other values than the vectors [n, d] of a sample")
    }
}
