//! Borders around feature maps.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxConstant, OnnxForm};
use super::operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// A border around each feature map.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pad {
    /// Pixels at the top, left, bottom, right.
    pub pads: [usize; 4],
    /// What they hold.
    #[serde(default)]
    pub value: f32,
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("pads", Attribute::Pads(&mut self.pads));
        visit("value", Attribute::Float(&mut self.value));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let [c, height, width] = node.map()?;
        let [top, left, bottom, right] = self.pads;
        let side = |n: usize, before: usize, after: usize| {
            n.checked_add(before).and_then(|n| n.checked_add(after))
        };
        node.check_finite(&[self.value])?;
        let padded = side(height, top, bottom).zip(side(width, left, right));
        let (height, width) = padded.ok_or_else(|| {
            node.mismatch("a border that can be counted", format!("{:?}", self.pads))
        })?;
        Ok(Shape::from([c, height, width]))
    }

    fn is_identity(&self, _: &[&Shape]) -> bool {
        self.pads == [0; 4]
    }

    fn channels(&self) -> Channels {
        Channels::Same
    }

    fn constant(&self, inputs: &[Option<f32>], _: &ChannelTensors<'_>) -> Option<f32> {
        inputs[0].filter(|x| *x == self.value)
    }

    fn onnx(&self) -> OnnxForm {
        let [top, left, bottom, right] = self.pads.map(|p| p as i64);
        OnnxForm {
            constants: vec![
                (
                    "pads",
                    Some(OnnxConstant::Ints(vec![
                        0, 0, top, left, 0, 0, bottom, right,
                    ])),
                ),
                ("value", Some(OnnxConstant::Float(self.value))),
            ],
            ..OnnxForm::new("Pad")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(20)
    }
}
