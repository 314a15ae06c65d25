//! Pooling.

use serde::{Deserialize, Serialize};

use super::onnx_form::OnnxForm;
use super::operator::{Attribute, ChannelTensors, Channels, NodeShapes, Operator};
use super::window::Window;
use crate::{ModelError, Shape};

/// Largest value of each window; padding never wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPool {
    /// Window.
    #[serde(flatten)]
    pub window: Window,
}

/// Mean of each window, padding not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AveragePool {
    /// Window.
    #[serde(flatten)]
    pub window: Window,
}

/// Mean of each feature map: `[c, h, w]` to `[c, 1, 1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GlobalAveragePool;

fn pooled(node: &NodeShapes<'_>, window: &Window) -> Result<Shape, ModelError> {
    let [c, height, width] = node.map()?;
    let fits = window.output(height, width).filter(|_| {
        // Every window must see at least one real pixel.
        let [kh, kw] = window.kernel_shape;
        let [top, left, bottom, right] = window.pads;
        top.max(bottom) < kh && left.max(right) < kw
    });
    let [oh, ow] = fits.ok_or_else(|| {
        node.mismatch(
            "a window that fits the input",
            format!("{window:?} over {}", node.x()),
        )
    })?;
    Ok(Shape::from([c, oh, ow]))
}

/// What all pooling has in common: a constant map stays that constant.
macro_rules! pooling {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn channels(&self) -> Channels {
            Channels::Same
        }

        fn keeps_constants(&self) -> bool {
            true
        }

        fn constant(&self, inputs: &[Option<f32>], _: &ChannelTensors<'_>) -> Option<f32> {
            inputs[0]
        }
    };
}

impl Operator for MaxPool {
    pooling!("MaxPool");

    fn window(&self) -> Option<&Window> {
        Some(&self.window)
    }

    fn is_identity(&self, _: &[&Shape]) -> bool {
        self.window == Window::square(1, 1)
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("window", Attribute::Window(&mut self.window));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        pooled(node, &self.window)
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::with("MaxPool", self.window.onnx(true))
    }

    fn packed_number(&self) -> Option<usize> {
        Some(3)
    }
}

impl Operator for AveragePool {
    pooling!("AveragePool");

    fn window(&self) -> Option<&Window> {
        Some(&self.window)
    }

    fn is_identity(&self, _: &[&Shape]) -> bool {
        self.window == Window::square(1, 1)
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("window", Attribute::Window(&mut self.window));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        pooled(node, &self.window)
    }

    fn onnx(&self) -> OnnxForm {
        let dilated = self.window.dilations != [1, 1];
        let form = OnnxForm::with("AveragePool", self.window.onnx(dilated));
        OnnxForm {
            opset: if dilated { 19 } else { form.opset },
            ..form
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(4)
    }
}

impl Operator for GlobalAveragePool {
    pooling!("GlobalAveragePool");

    fn is_identity(&self, inputs: &[&Shape]) -> bool {
        matches!(inputs[0].dims(), [_, 1, 1])
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let [c, _, _] = node.map()?;
        Ok(Shape::from([c, 1, 1]))
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("GlobalAveragePool")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(5)
    }
}
