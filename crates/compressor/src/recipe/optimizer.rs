//! How a phase goes down its gradients, and how its learning rates change.

use serde::{Deserialize, Serialize};

/// The optimizer of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam (Kingma and Ba 2015); weight decay is decoupled from the gradient (AdamW, Loshchilov and Hutter 2019).
    #[default]
    Adam,
    /// Stochastic gradient descent with Nesterov's momentum; weight decay is added to the gradient.
    Sgd,
}

impl Optimizer {
    pub(super) fn is_adam(&self) -> bool {
        *self == Self::Adam
    }
}

/// How learning rates fall to zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// In a straight line.
    #[default]
    Linear,
    /// As half a wave of the cosine (Loshchilov and Hutter 2017).
    Cosine,
}

impl Decay {
    pub(super) fn is_linear(&self) -> bool {
        *self == Self::Linear
    }

    /// The factor on the rates where the share `left` of the way is to come.
    pub(super) fn at(self, left: f64) -> f64 {
        match self {
            Self::Linear => left,
            Self::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * left).cos()),
        }
    }
}
