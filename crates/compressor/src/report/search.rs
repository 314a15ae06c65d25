//! The tries of a search.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::table::{Align, Table};
use super::{count, split_score::SplitScore};

/// Every try of a search for the number of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchReport {
    /// What was to be reached, in words.
    pub goal: String,
    /// The tries, in their order.
    pub tries: Vec<Try>,
    /// Why there were no more.
    pub ended: String,
    /// Where a goal in weights or bytes was not reached: what was expected, and what the result has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// Wall time of all training in seconds, over all sittings.
    pub seconds: f64,
}

/// One number of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    /// Number of the posterior that it began with, from 1.
    #[serde(default = "first")]
    pub posterior: usize,
    /// Factor on the KL terms of the recipe in the posterior that it began with.
    pub kl_scale: f64,
    /// Weights that it was to leave.
    pub weights: usize,
    /// Weights that it left.
    pub left: usize,
    /// Weights of the original network over weights left, where any is left.
    pub ratio: Option<f64>,
    /// Bytes of its packed file, where it is on grids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Beside the dense network, on the validation samples that tries see.
    pub validation: SplitScore,
    /// Whether it keeps the promise there, or leaves no more weights or bytes than the goal.
    pub fits: bool,
    /// Whether these samples are too few to tell what this number of weights costs.
    #[serde(default)]
    pub undecided: bool,
    /// Whether it is the result.
    pub chosen: bool,
}

/// The number of a posterior where none is stored.
fn first() -> usize {
    1
}

impl fmt::Display for SearchReport {
    /// A table with a row for each try, and why there were no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            ("try", Align::Left),
            ("KL scale", Align::Right),
            ("left", Align::Right),
            ("ratio", Align::Right),
            ("packed bytes", Align::Right),
            ("before", Align::Right),
            ("after", Align::Right),
            ("drop", Align::Right),
            ("", Align::Left),
        ]);
        for (number, t) in self.tries.iter().enumerate() {
            let [before, after, drop] = match t.validation {
                SplitScore::Errors(e) => [
                    format!("{:.2} %", e.dense_percent),
                    format!("{:.2} %", e.sparse_percent),
                    format!("{:+.2}", t.validation.drop()),
                ],
                SplitScore::Fit(fit) => [
                    format!("R2 {:.4}", fit.dense_r2),
                    format!("R2 {:.4}", fit.sparse_r2),
                    format!("{:+.4}", t.validation.drop()),
                ],
            };
            let says = match (t.chosen, t.fits, t.undecided) {
                (true, true, _) => "the result",
                (true, false, _) => "the result, does not fit",
                (false, true, _) => "fits",
                (false, false, true) => "undecided",
                (false, false, false) => "",
            };
            table.row([
                (number + 1).to_string(),
                format!("x {}", t.kl_scale),
                count(t.left),
                (t.ratio).map_or("constant".into(), |ratio| format!("{ratio:.1}x")),
                t.bytes.map_or(String::new(), |b| count(b as usize)),
                before,
                after,
                drop,
                says.into(),
            ]);
        }
        write!(f, "{table}search for {}: {}", self.goal, self.ended)
    }
}
