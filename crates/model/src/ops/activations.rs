//! Activations: functions of one number. NaN passes through each of them.

use serde::{Deserialize, Serialize};

use super::approximate::Approximate;
use super::onnx_form::{OnnxAttribute, OnnxConstant, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `max(x, 0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relu;

/// `1 / (1 + e^-x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sigmoid;

/// `x min(max(x / 6 + 1/2, 0), 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardSwish;

/// Hyperbolic tangent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tanh;

/// `ln(1 + e^x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Softplus;

/// `e^x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exp;

/// The natural logarithm: minus infinity of 0, NaN below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log;

/// The square root: NaN below 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sqrt;

/// The error function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erf;

/// `min(max(x, min), max)`; an absent bound bounds nothing. ReLU6 is the clip from 0 to 6.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    /// Smallest result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f32>,
    /// Largest result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f32>,
}

/// `x` where it is not negative, else `alpha x`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LeakyRelu {
    /// Slope on the negative side.
    pub alpha: f32,
}

/// `x` where it is not negative, else `alpha (e^x - 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Elu {
    /// Minus the limit on the negative side.
    pub alpha: f32,
}

/// `min(max(alpha x + beta, 0), 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HardSigmoid {
    /// Slope.
    pub alpha: f32,
    /// Value at 0.
    pub beta: f32,
}

/// `x Phi(x)` with the normal distribution function `Phi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gelu {
    /// How `Phi` is computed.
    #[serde(default)]
    pub approximate: Approximate,
}

/// What all activations have in common.
macro_rules! activation {
    ($name:expr) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn channels(&self) -> Channels {
            Channels::Same
        }
    };
}

fn like_input(node: &NodeShapes<'_>, attributes: &[f32]) -> Result<Shape, ModelError> {
    node.check_finite(attributes)?;
    Ok(node.x().clone())
}

impl Operator for Relu {
    activation!("Relu");

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(if x < 0.0 { 0.0 } else { x })
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("Relu")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(1)
    }
}

impl Operator for Sigmoid {
    activation!("Sigmoid");

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(1.0 / (1.0 + (-x).exp()))
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("Sigmoid")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(11)
    }
}

impl Operator for HardSwish {
    activation!("HardSwish");

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(x * (x / 6.0 + 0.5).clamp(0.0, 1.0))
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("HardSwish")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(13)
    }
}

impl Operator for Tanh {
    activation!("Tanh");

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(x.tanh())
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("Tanh")
    }

    fn packed_number(&self) -> Option<usize> {
        Some(14)
    }
}

/// A function without attributes that packed files have no number for.
macro_rules! plain_function {
    ($op:ident, |$x:ident| $value:expr) => {
        impl Operator for $op {
            activation!(stringify!($op));

            fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
                like_input(node, &[])
            }

            fn activation(&self, $x: f32) -> Option<f32> {
                Some($value)
            }

            fn onnx(&self) -> OnnxForm {
                OnnxForm::new(stringify!($op))
            }

            fn packed_number(&self) -> Option<usize> {
                None
            }
        }
    };
}

plain_function!(Softplus, |x| if x > 0.0 {
    x + (-x).exp().ln_1p()
} else {
    x.exp().ln_1p()
});
plain_function!(Exp, |x| x.exp());
plain_function!(Log, |x| x.ln());
plain_function!(Sqrt, |x| x.sqrt());
plain_function!(Erf, |x| libm::erf(f64::from(x)) as f32);

impl Operator for Elu {
    activation!("Elu");

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("alpha", Attribute::Float(&mut self.alpha));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[self.alpha])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(if x < 0.0 { self.alpha * x.exp_m1() } else { x })
    }

    fn onnx(&self) -> OnnxForm {
        let alpha = OnnxAttribute::Float(self.alpha);
        OnnxForm::with("Elu", vec![("alpha", alpha)])
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }
}

impl Operator for Clip {
    activation!("Clip");

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("min", Attribute::Bound(&mut self.min));
        visit("max", Attribute::Bound(&mut self.max));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[self.min.unwrap_or(0.0), self.max.unwrap_or(0.0)])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        let x = self.min.map_or(x, |min| if x < min { min } else { x });
        Some(self.max.map_or(x, |max| if x > max { max } else { x }))
    }

    /// The bounds are inputs in ONNX, which end with the last one that is there.
    fn onnx(&self) -> OnnxForm {
        let mut constants = vec![
            ("min", self.min.map(OnnxConstant::Float)),
            ("max", self.max.map(OnnxConstant::Float)),
        ];
        while constants.pop_if(|(_, bound)| bound.is_none()).is_some() {}
        OnnxForm {
            constants,
            ..OnnxForm::new("Clip")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(9)
    }
}

impl Operator for LeakyRelu {
    activation!("LeakyRelu");

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("alpha", Attribute::Float(&mut self.alpha));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[self.alpha])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some(if x < 0.0 { self.alpha * x } else { x })
    }

    fn onnx(&self) -> OnnxForm {
        let alpha = OnnxAttribute::Float(self.alpha);
        OnnxForm::with("LeakyRelu", vec![("alpha", alpha)])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(10)
    }
}

impl Operator for HardSigmoid {
    activation!("HardSigmoid");

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("alpha", Attribute::Float(&mut self.alpha));
        visit("beta", Attribute::Float(&mut self.beta));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[self.alpha, self.beta])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        Some((self.alpha * x + self.beta).clamp(0.0, 1.0))
    }

    fn onnx(&self) -> OnnxForm {
        let [alpha, beta] = [self.alpha, self.beta].map(OnnxAttribute::Float);
        OnnxForm::with("HardSigmoid", vec![("alpha", alpha), ("beta", beta)])
    }

    fn packed_number(&self) -> Option<usize> {
        Some(12)
    }
}

impl Operator for Gelu {
    activation!("Gelu");

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("approximate", Attribute::Approximate(&mut self.approximate));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        like_input(node, &[])
    }

    fn activation(&self, x: f32) -> Option<f32> {
        let x = f64::from(x);
        let below = match self.approximate {
            Approximate::None => 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2),
            Approximate::Tanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * (1.0 + inner.tanh())
            }
        };
        Some((x * below) as f32)
    }

    fn onnx(&self) -> OnnxForm {
        let approximate = OnnxAttribute::Text(match self.approximate {
            Approximate::None => "none",
            Approximate::Tanh => "tanh",
        });
        OnnxForm {
            opset: 20,
            ..OnnxForm::with("Gelu", vec![("approximate", approximate)])
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(15)
    }
}
