//! Convolutions.

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use super::window::Window;
use crate::{ModelError, Shape};

/// Cross-correlation; `weight` is `[out, in/groups, kh, kw]`, `bias` is `[out]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conv {
    /// Tensor name of the weight.
    pub weight: String,
    /// Tensor name of the bias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<String>,
    /// Kernel size, strides, padding, dilation.
    #[serde(flatten)]
    pub window: Window,
    /// Number of independent channel groups.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub groups: usize,
}

impl Conv {
    /// Whether every filter of a weight of this shape reads one channel of its own.
    pub fn is_depthwise(&self, weight: &Shape) -> bool {
        self.groups > 1 && weight.dims().get(1) == Some(&1)
    }
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == one()
}

impl Operator for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn tensors(&self) -> Vec<&str> {
        [Some(&self.weight), self.bias.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }

    fn weight(&self) -> Option<&str> {
        Some(&self.weight)
    }

    fn bias(&self) -> Option<&str> {
        self.bias.as_deref()
    }

    fn window(&self) -> Option<&Window> {
        Some(&self.window)
    }

    fn groups(&self) -> usize {
        self.groups
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("weight", Attribute::Tensor(&mut self.weight));
        visit("bias", Attribute::Bias(&mut self.bias));
        visit("window", Attribute::Window(&mut self.window));
        visit("groups", Attribute::Size(&mut self.groups));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let (weight, window, groups) = (&self.weight, &self.window, self.groups);
        let w = node.tensor(weight)?;
        let &[out, inn, kh, kw] = w.dims() else {
            return Err(node.mismatch("a weight [out, in/groups, kh, kw]", w));
        };
        if [kh, kw] != window.kernel_shape {
            return Err(node.mismatch(
                format!("kernel_shape {:?} of the graph", window.kernel_shape),
                format!("weight `{weight}` {w}"),
            ));
        }
        let [c, height, width] = node.map()?;
        if groups == 0 || inn.checked_mul(groups) != Some(c) || !out.is_multiple_of(groups) {
            return Err(node.mismatch(
                format!(
                    "{} input channels in {groups} group(s) for the weight `{weight}` {w}",
                    inn.saturating_mul(groups)
                ),
                format!("an input {}", node.x()),
            ));
        }
        if let Some(bias) = &self.bias {
            node.check_vector(bias, out)?;
        }
        let [oh, ow] = window.output(height, width).ok_or_else(|| {
            node.mismatch(
                "a window that fits the input",
                format!("{window:?} over {}", node.x()),
            )
        })?;
        Ok(Shape::from([out, oh, ow]))
    }

    fn channels(&self) -> Channels {
        Channels::Rows
    }

    fn onnx(&self) -> OnnxForm {
        let mut attributes = self.window.onnx(true);
        attributes.push(("group", OnnxAttribute::Int(self.groups as i64)));
        OnnxForm::with("Conv", attributes)
    }

    fn packed_number(&self) -> Option<usize> {
        Some(0)
    }
}
