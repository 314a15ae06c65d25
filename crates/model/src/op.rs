//! The operators a network is made of.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// How a convolution or pooling window moves over a feature map (ONNX attribute names).
///
/// `pads` is top, left, bottom, right, in pixels, as in ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Window height and width in pixels.
    pub kernel_shape: [usize; 2],
    /// Steps down and right in pixels.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub strides: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    #[serde(default, skip_serializing_if = "is_zeros")]
    pub pads: [usize; 4],
    /// Distance between window elements.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub dilations: [usize; 2],
}

fn ones() -> [usize; 2] {
    [1, 1]
}

fn one() -> usize {
    1
}

/// ONNX's and PyTorch's.
fn epsilon() -> f32 {
    1e-5
}

fn is_ones(pair: &[usize; 2]) -> bool {
    *pair == ones()
}

fn is_zeros(pads: &[usize; 4]) -> bool {
    *pads == [0; 4]
}

fn is_one(n: &usize) -> bool {
    *n == one()
}

impl Window {
    /// A square window without padding or dilation.
    pub fn square(size: usize, stride: usize) -> Self {
        Self {
            kernel_shape: [size, size],
            strides: [stride, stride],
            pads: [0; 4],
            dilations: [1, 1],
        }
    }

    /// Output height and width over an input of `height` by `width`, or `None` where the window does not fit
    /// or a stride or dilation is zero.
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let side = |n: usize, k: usize, s: usize, d: usize, before: usize, after: usize| {
            if k == 0 || s == 0 || d == 0 {
                return None;
            }
            let reach = d.checked_mul(k - 1)?.checked_add(1)?;
            let padded = n.checked_add(before)?.checked_add(after)?;
            Some(padded.checked_sub(reach)? / s + 1)
        };
        let [kh, kw] = self.kernel_shape;
        let [top, left, bottom, right] = self.pads;
        Some([
            side(height, kh, self.strides[0], self.dilations[0], top, bottom)?,
            side(width, kw, self.strides[1], self.dilations[1], left, right)?,
        ])
    }
}

/// What a node computes. Variants carry the ONNX operator's name and attributes.
///
/// Weight and bias tensors are named here and live in [`crate::Network::tensors`].
/// Shapes are per sample: feature maps are `[channels, height, width]`, vectors `[features]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op")]
#[non_exhaustive]
pub enum Op {
    /// `y = W x + b` over the last dimension; `weight` is `[out, in]`, `bias` is `[out]` (PyTorch's layout).
    Linear {
        /// Tensor name of the weight.
        weight: String,
        /// Tensor name of the bias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
    },
    /// Cross-correlation; `weight` is `[out, in/groups, kh, kw]`, `bias` is `[out]`.
    Conv {
        /// Tensor name of the weight.
        weight: String,
        /// Tensor name of the bias.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        /// Kernel size, strides, padding, dilation.
        #[serde(flatten)]
        window: Window,
        /// Number of independent channel groups.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        groups: usize,
    },
    /// Normalisation of each channel by stored statistics: `(x - mean) / sqrt(variance + epsilon) * scale + bias`.
    ///
    /// Networks are run with it folded into the layer before it where that is exact ([`crate::passes`]).
    BatchNormalization {
        /// Tensor name of the factor per channel.
        scale: String,
        /// Tensor name of the summand per channel.
        bias: String,
        /// Tensor name of the running mean per channel.
        mean: String,
        /// Tensor name of the running variance per channel.
        variance: String,
        /// What is added to the variance.
        #[serde(default = "epsilon")]
        epsilon: f32,
    },
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, min), max)`; an absent bound bounds nothing. ReLU6 is the clip from 0 to 6.
    Clip {
        /// Smallest result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<f32>,
        /// Largest result.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<f32>,
    },
    /// `x` where it is not negative, else `alpha x`.
    LeakyRelu {
        /// Slope on the negative side.
        alpha: f32,
    },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `min(max(alpha x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// Hyperbolic tangent.
    Tanh,
    /// `x Phi(x)` with the normal distribution function `Phi`.
    Gelu {
        /// How `Phi` is computed.
        #[serde(default)]
        approximate: Approximate,
    },
    /// Largest value of each window; padding never wins.
    MaxPool {
        /// Window.
        #[serde(flatten)]
        window: Window,
    },
    /// Mean of each window, padding not counted.
    AveragePool {
        /// Window.
        #[serde(flatten)]
        window: Window,
    },
    /// Mean of each feature map: `[c, h, w]` to `[c, 1, 1]`.
    GlobalAveragePool,
    /// `a + b` of two values of one shape, or with one number per channel (`[c]` or `[c, 1, 1]`) as the second.
    Add,
    /// `a - b`, with shapes as for [`Op::Add`].
    Sub,
    /// `a b`, element by element, with shapes as for [`Op::Add`].
    Mul,
    /// `a / b`, element by element, with shapes as for [`Op::Add`].
    Div,
    /// Feature maps of one size behind each other by channel, or vectors behind each other.
    Concat,
    /// A border around each feature map.
    Pad {
        /// Pixels at the top, left, bottom, right.
        pads: [usize; 4],
        /// What they hold.
        #[serde(default)]
        value: f32,
    },
    /// Feature maps to one vector: `[c, h, w]` to `[c*h*w]`.
    Flatten,
    /// Probabilities over a vector.
    Softmax,
}

/// How [`Op::Gelu`] computes the normal distribution function (ONNX attribute values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approximate {
    /// By the error function.
    #[default]
    None,
    /// `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    Tanh,
}

impl Op {
    /// The ONNX name of the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "Linear",
            Self::Conv { .. } => "Conv",
            Self::BatchNormalization { .. } => "BatchNormalization",
            Self::Relu => "Relu",
            Self::Clip { .. } => "Clip",
            Self::LeakyRelu { .. } => "LeakyRelu",
            Self::Sigmoid => "Sigmoid",
            Self::HardSigmoid { .. } => "HardSigmoid",
            Self::HardSwish => "HardSwish",
            Self::Tanh => "Tanh",
            Self::Gelu { .. } => "Gelu",
            Self::MaxPool { .. } => "MaxPool",
            Self::AveragePool { .. } => "AveragePool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
            Self::Concat => "Concat",
            Self::Pad { .. } => "Pad",
            Self::Flatten => "Flatten",
            Self::Softmax => "Softmax",
        }
    }

    /// The attributes as numbers in a fixed order, an absent bound as `None`.
    ///
    /// Operators of one name with the same attributes compute the same from the same tensors.
    pub fn attributes(&self) -> Vec<Option<f64>> {
        let of = |numbers: &[f32]| numbers.iter().map(|&v| Some(f64::from(v))).collect();
        let sizes = |sizes: &[usize]| -> Vec<Option<f64>> {
            sizes.iter().map(|&n| Some(n as f64)).collect()
        };
        let moves = |w: &Window| {
            let pairs = [w.kernel_shape, w.strides, w.dilations];
            sizes(&[pairs.as_flattened(), &w.pads].concat())
        };
        match self {
            Self::Conv { window, groups, .. } => [moves(window), sizes(&[*groups])].concat(),
            Self::MaxPool { window } | Self::AveragePool { window } => moves(window),
            Self::BatchNormalization { epsilon, .. } => of(&[*epsilon]),
            Self::Clip { min, max } => vec![min.map(f64::from), max.map(f64::from)],
            Self::LeakyRelu { alpha } => of(&[*alpha]),
            Self::HardSigmoid { alpha, beta } => of(&[*alpha, *beta]),
            Self::Gelu { approximate } => sizes(&[*approximate as usize]),
            Self::Pad { pads, value } => [sizes(pads), of(&[*value])].concat(),
            Self::Linear { .. }
            | Self::Relu
            | Self::Sigmoid
            | Self::HardSwish
            | Self::Tanh
            | Self::GlobalAveragePool
            | Self::Add
            | Self::Sub
            | Self::Mul
            | Self::Div
            | Self::Concat
            | Self::Flatten
            | Self::Softmax => vec![],
        }
    }

    /// How many values the operator reads.
    pub fn inputs(&self) -> RangeInclusive<usize> {
        match self {
            Self::Add | Self::Sub | Self::Mul | Self::Div => 2..=2,
            Self::Concat => 1..=usize::MAX,
            _ => 1..=1,
        }
    }

    /// Whether the operator changes each number by itself, whatever its place: an activation.
    pub fn is_activation(&self) -> bool {
        matches!(
            self,
            Self::Relu
                | Self::Clip { .. }
                | Self::LeakyRelu { .. }
                | Self::Sigmoid
                | Self::HardSigmoid { .. }
                | Self::HardSwish
                | Self::Tanh
                | Self::Gelu { .. }
        )
    }

    /// Names of all tensors the operator reads.
    pub fn tensors(&self) -> impl Iterator<Item = &str> {
        let normal = match self {
            Self::BatchNormalization {
                scale,
                bias,
                mean,
                variance,
                ..
            } => [Some(scale), Some(bias), Some(mean), Some(variance)],
            _ => [None; 4],
        };
        let normal = normal.into_iter().flatten().map(String::as_str);
        self.weight().into_iter().chain(self.bias()).chain(normal)
    }

    /// Tensor name of the weight matrix or filter bank, where the operator has one.
    pub fn weight(&self) -> Option<&str> {
        match self {
            Self::Linear { weight, .. } | Self::Conv { weight, .. } => Some(weight),
            _ => None,
        }
    }

    /// Tensor name of the bias beside a weight, where the operator has one.
    pub fn bias(&self) -> Option<&str> {
        match self {
            Self::Linear { bias, .. } | Self::Conv { bias, .. } => bias.as_deref(),
            _ => None,
        }
    }

    /// Gives the weight and bias other tensor names; does nothing for an operator without weights.
    pub fn rename_tensors(&mut self, new_weight: String, new_bias: Option<String>) {
        if let Self::Linear { weight, bias } | Self::Conv { weight, bias, .. } = self {
            *weight = new_weight;
            *bias = new_bias;
        }
    }
}
