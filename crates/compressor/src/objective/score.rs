//! Scores of predictions for a set of samples.

use std::fmt;

/// How well predictions fit their targets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Score {
    /// Classification.
    Classes {
        /// Samples.
        samples: usize,
        /// Samples whose largest output is not that of their class.
        wrong: usize,
    },
    /// Regression.
    Regression {
        /// Samples.
        samples: usize,
        /// Coefficient of determination, the mean over the outputs of `1 - (squared error) / (squared deviation from the
        /// mean)`; 1 is exact, 0 is no better than the mean of the targets.
        r2: f64,
        /// Root of the mean squared error over samples and outputs, in the units of the targets.
        rmse: f64,
    },
}

impl Score {
    /// Samples.
    pub fn samples(&self) -> usize {
        match *self {
            Self::Classes { samples, .. } | Self::Regression { samples, .. } => samples,
        }
    }

    /// Percent of wrong samples, or the root mean squared error.
    pub fn error(&self) -> f64 {
        match *self {
            Self::Classes { samples, wrong } => 100.0 * wrong as f64 / samples as f64,
            Self::Regression { rmse, .. } => rmse,
        }
    }

    /// Coefficient of determination of a regression.
    pub fn r2(&self) -> Option<f64> {
        match *self {
            Self::Classes { .. } => None,
            Self::Regression { r2, .. } => Some(r2),
        }
    }

    /// The standard error of an error in percent, as a part of a sentence; empty for a regression.
    pub(crate) fn standard_error(&self) -> String {
        match *self {
            Self::Classes { samples, .. } => {
                let n = samples.max(1) as f64;
                let p = self.error() / 100.0;
                let points = 100.0 * (p * (1.0 - p) / n).sqrt();
                format!(
                    "; with {n} validation images the standard error of that is {points:.2} points"
                )
            }
            Self::Regression { .. } => String::new(),
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classes { .. } => write!(f, "error {:.2} %", self.error()),
            Self::Regression { r2, rmse, .. } => write!(f, "R2 {r2:.4}, RMSE {rmse:.4e}"),
        }
    }
}
