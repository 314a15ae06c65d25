//! How a command ends.

use std::process::ExitCode;

/// How a command ended, for its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    PromiseBroken,
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::PromiseBroken => Self::from(1),
            Outcome::Interrupted => Self::from(130),
        }
    }
}
