//! The events of a run: progress for people and logs, and the question whether to stop.

use super::history::EpochRecord;
use super::snapshot::Position;
use crate::recipe::{Phase, Recipe};

/// Receives the events of a run, and may stop it.
pub trait Observer {
    /// Training begins, or goes on from a checkpoint: the recipe, the number of training samples, and how far the run is.
    fn begin(&mut self, _recipe: &Recipe, _samples: usize, _from: Position) {}
    /// A phase begins: its number from 1, how many there are, and its settings.
    fn phase(&mut self, _number: usize, _of: usize, _phase: &Phase) {}
    /// Step `done` of the `of` steps of this epoch is done; `loss` is the mean over the epoch so far.
    fn step(&mut self, _epoch: u32, _done: u32, _of: u32, _loss: f64) {}
    /// An epoch is done.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// A message for people.
    fn note(&mut self, _text: &str) {}
    /// What was chosen, and why, for people who ask.
    fn choice(&mut self, _text: &str) {}
    /// A message for people that they must not miss, such as that the last checkpoint was damaged and an earlier one is used.
    fn warn(&mut self, text: &str) {
        self.note(&format!("warning: {text}"));
    }
    /// Whether to stop before the next step. A run with a folder leaves a checkpoint there, from which it can go on.
    fn stop(&mut self) -> bool {
        false
    }
}

/// An observer that ignores all events and never stops a run.
pub struct Silent;
impl Observer for Silent {}
