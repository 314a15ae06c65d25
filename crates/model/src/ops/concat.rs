//! Concatenation.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::axis::{axis_in_onnx, is_first};
use super::onnx_form::OnnxForm;
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Values behind each other along one dimension; they agree in all others. Along the first these are maps by channel, or vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Concat {
    /// The dimension, of one sample. The first where a file has none.
    #[serde(default, skip_serializing_if = "is_first")]
    pub axis: usize,
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn inputs(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let x = node.x();
        let axis = self.axis;
        let mut dims = x.dims().to_vec();
        let Some(size) = dims.get_mut(axis) else {
            return Err(node.mismatch(format!("values of a dimension {axis}"), x));
        };
        let others = |shape: &Shape| {
            let mut dims = shape.dims().to_vec();
            (axis < dims.len()).then(|| dims.remove(axis))?;
            Some(dims)
        };
        for more in &node.inputs[1..] {
            let added = (others(more) == others(x)).then(|| size.checked_add(more.dims()[axis]));
            *size = added.flatten().ok_or_else(|| {
                let which = match axis {
                    0 => "the first dimension".to_owned(),
                    axis => format!("dimension {axis}"),
                };
                let expected = format!("inputs that differ from {x} in {which} alone");
                node.mismatch(expected, more)
            })?;
        }
        Ok(Shape(dims))
    }

    fn is_identity(&self, inputs: &[&Shape]) -> bool {
        inputs.len() == 1
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("axis", Attribute::Axis(&mut self.axis));
    }

    fn takes_free(&self, dimension: usize, _rank: usize) -> bool {
        dimension != self.axis
    }

    fn channels(&self) -> Channels {
        match self.axis {
            0 => Channels::Appended,
            _ => Channels::All,
        }
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("Concat", vec![("axis", axis_in_onnx(self.axis))])
    }

    fn packed_number(&self) -> Option<usize> {
        (self.axis == 0).then_some(19)
    }
}
