//! The operators a network is made of.

use serde::{Deserialize, Serialize};

/// How a convolution or pooling window moves over a feature map (ONNX attribute names).
///
/// `pads` is top, left, bottom, right, in pixels, as in ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Window height and width in pixels.
    pub kernel_shape: [usize; 2],
    /// Steps down and right in pixels.
    #[serde(default = "ones")]
    pub strides: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    #[serde(default)]
    pub pads: [usize; 4],
    /// Distance between window elements.
    #[serde(default = "ones")]
    pub dilations: [usize; 2],
}

fn ones() -> [usize; 2] {
    [1, 1]
}

fn one() -> usize {
    1
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
        #[serde(default = "one")]
        groups: usize,
    },
    /// `max(x, 0)`.
    Relu,
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
    /// Sum of two values of one shape.
    Add,
    /// Feature maps to one vector: `[c, h, w]` to `[c*h*w]`.
    Flatten,
    /// Probabilities over a vector.
    Softmax,
}

impl Op {
    /// The ONNX name of the operator.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "Linear",
            Self::Conv { .. } => "Conv",
            Self::Relu => "Relu",
            Self::MaxPool { .. } => "MaxPool",
            Self::AveragePool { .. } => "AveragePool",
            Self::GlobalAveragePool => "GlobalAveragePool",
            Self::Add => "Add",
            Self::Flatten => "Flatten",
            Self::Softmax => "Softmax",
        }
    }

    /// Tensor name of the weight matrix or filter bank, where the operator has one.
    pub fn weight(&self) -> Option<&str> {
        match self {
            Self::Linear { weight, .. } | Self::Conv { weight, .. } => Some(weight),
            _ => None,
        }
    }

    /// Tensor name of the bias, where the operator has one.
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
