//! The events of a run, for progress on a terminal and for logs.

use super::history::EpochRecord;
use crate::recipe::Phase;

/// Receives the events of a run.
pub trait Observer {
    /// A phase begins: its number from 1, how many there are, and its settings.
    fn phase(&mut self, _number: usize, _of: usize, _phase: &Phase) {}
    /// Step `done` of the `of` steps of this epoch is done; `loss` is the mean over the epoch so far.
    fn step(&mut self, _epoch: u32, _done: u32, _of: u32, _loss: f64) {}
    /// An epoch is done.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// A message for the log.
    fn note(&mut self, _text: &str) {}
}

/// An observer that ignores all events.
pub struct Silent;
impl Observer for Silent {}
