//! How GELU is computed.

use serde::{Deserialize, Serialize};

/// How [`super::Gelu`] computes the normal distribution function (ONNX attribute values).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approximate {
    /// By the error function.
    #[default]
    None,
    /// `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    Tanh,
}
