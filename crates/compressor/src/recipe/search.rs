//! The search for how many weights are left.

use serde::{Deserialize, Serialize};

use super::range::range;
use crate::error::CompressError;

/// Number of tries where a recipe does not say it.
const TRIES: u32 = 7;

/// A search for the number of weights that are left.
///
/// The phases up to the last `dense` or `sparse-vd` one, which make the posterior, are trained once. From there the later phases are tried
/// with several numbers of weights. The result is the try with the fewest that keep the promise about the validation samples, or the one
/// that reaches a goal. Where these samples are too few to tell, no number below that of the posterior is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Most tries.
    #[serde(default = "tries")]
    pub tries: u32,
    /// Goal: weights of the original network over weights left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Goal: weights left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<usize>,
    /// Goal: most bytes of the packed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a search is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The fewest weights that keep the promise about the validation samples.
    Promise,
    /// This ratio of the original weights to those left.
    Ratio(f64),
    /// This many weights.
    Weights(usize),
    /// The most weights whose packed file has at most this many bytes.
    Bytes(u64),
}

impl Goal {
    /// The first goal that is given.
    pub fn of(ratio: Option<f64>, weights: Option<usize>, bytes: Option<u64>) -> Option<Self> {
        let of_weights = ratio.map(Self::Ratio).or(weights.map(Self::Weights));
        of_weights.or(bytes.map(Self::Bytes))
    }
}

fn tries() -> u32 {
    TRIES
}

impl Default for Search {
    fn default() -> Self {
        Self::towards(Goal::Promise)
    }
}

impl Search {
    /// A search for this goal.
    pub fn towards(goal: Goal) -> Self {
        let mut search = Self {
            tries: TRIES,
            ratio: None,
            weights: None,
            bytes: None,
        };
        search.set_goal(goal);
        search
    }

    /// What it is to reach.
    pub fn goal(&self) -> Goal {
        Goal::of(self.ratio, self.weights, self.bytes).unwrap_or(Goal::Promise)
    }

    /// Replaces what it is to reach.
    pub fn set_goal(&mut self, goal: Goal) {
        (self.ratio, self.weights, self.bytes) = match goal {
            Goal::Promise => (None, None, None),
            Goal::Ratio(ratio) => (Some(ratio), None, None),
            Goal::Weights(weights) => (None, Some(weights), None),
            Goal::Bytes(bytes) => (None, None, Some(bytes)),
        };
    }

    /// Checks every setting against its range.
    pub(super) fn check(&self) -> Result<(), CompressError> {
        range("search.tries", f64::from(self.tries), 1.0, 100.0)?;
        range("search.ratio", self.ratio.unwrap_or(1.0), 1.0, 1e9)?;
        let weights = self.weights.unwrap_or(1);
        range("search.weights", weights as f64, 1.0, 1e12)?;
        range("search.bytes", self.bytes.unwrap_or(1) as f64, 1.0, 1e12)?;
        let goals = [
            self.ratio.is_some(),
            self.weights.is_some(),
            self.bytes.is_some(),
        ];
        let given = goals.iter().filter(|given| **given).count();
        if given > 1 {
            let expected = "at most one of ratio, weights and bytes";
            return Err(CompressError::setting("search", expected, given));
        }
        Ok(())
    }
}
