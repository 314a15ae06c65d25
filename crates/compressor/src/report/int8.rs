//! Int8 layers of a result.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What came of the int8 layers that a recipe ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Int8Result {
    /// Layers that may run in int8.
    pub int8_layers: usize,
    /// Layers with weights.
    pub layers: usize,
    /// Why the others stay f32, by the names of their nodes.
    pub kept_f32: BTreeMap<String, String>,
    /// Samples that outputs were compared on.
    pub held_out: usize,
    /// Share of these samples whose largest output is that of the network in f32; `None` for a single output.
    pub top1: Option<f64>,
    /// Error of the outputs on them, relative to those in f32.
    pub error: f64,
    /// Epochs of training in which layers read rounded numbers.
    pub epochs: u32,
    /// Whether the result has the weights of that training, and not those that were rounded as they came.
    pub is_trained: bool,
}

impl fmt::Display for Int8Result {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} layers in int8, on {} samples: ",
            self.int8_layers, self.layers, self.held_out
        )?;
        if let Some(top1) = self.top1 {
            write!(f, "agreement with f32 {:.2} %, ", 100.0 * top1)?;
        }
        write!(f, "error {:.2e}", self.error)?;
        match (self.epochs, self.is_trained) {
            (0, _) => Ok(()),
            (epochs, true) => write!(f, "; trained so for {epochs} epochs"),
            (epochs, false) => write!(f, "; {epochs} epochs of training so did no better"),
        }
    }
}
