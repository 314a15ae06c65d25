//! The part of a run that a checkpoint stores.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::average::Average;
use super::history::EpochRecord;
use crate::state::State;

/// Progress of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Phase, from 0.
    pub phase: usize,
    /// Epochs of the phase that are done.
    pub epoch: u32,
    /// Steps of the current epoch that are done.
    pub step: u32,
    /// Steps of the run that are done; addresses the noise.
    pub total_steps: u32,
    /// Epochs of the run that are done; addresses order and shifts.
    pub total_epochs: u32,
    /// Steps since Adam's moments were zero.
    pub adam_step: u32,
    /// Whether the phase has been set up.
    pub started: bool,
}

impl Position {
    /// Number of phases that have begun.
    pub(crate) fn begun(&self) -> usize {
        self.phase.saturating_add(self.started.into())
    }
}

/// Everything that changes during a run. A run that is restored from a snapshot gives the same bytes as one that never
/// stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot<'a> {
    /// Progress.
    pub position: Position,
    /// Sum of losses and of errors over the current epoch so far.
    pub sums: [f64; 2],
    /// The epochs so far.
    pub history: Cow<'a, [EpochRecord]>,
    /// The trainable state.
    pub state: Cow<'a, State<f32>>,
    /// The average of the phase's parameters, where it keeps one.
    pub average: Cow<'a, Average>,
}
