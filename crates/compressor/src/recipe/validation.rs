//! Where validation samples come from.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The samples that settings are chosen on, and that the promise about a result is about.
///
/// Those of a training or test set are drawn the same way in every run, so that the validation samples of one seed are never training
/// samples of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a number of samples, a share of the training set from 0 to 1, the path of a data set, or { from_test = N }"
)]
pub enum Validation {
    /// This many samples of the training set, at most a sixth of it; they are not trained on.
    Samples(usize),
    /// This share of the training set, which is not trained on.
    Share(f64),
    /// All samples of another data set; a relative path counts from the recipe's folder.
    Data(PathBuf),
    /// Samples of the test set, for a network that has seen every training sample. The other test samples remain for testing, and all
    /// training samples are trained on.
    FromTest {
        /// This many.
        from_test: usize,
    },
}

impl Validation {
    /// This many samples of the test set.
    pub fn from_test(from_test: usize) -> Self {
        Self::FromTest { from_test }
    }

    /// The path of another data set.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Data(path) => Some(path),
            Self::Samples(_) | Self::Share(_) | Self::FromTest { .. } => None,
        }
    }
}

impl From<usize> for Validation {
    fn from(samples: usize) -> Self {
        Self::Samples(samples)
    }
}

impl FromStr for Validation {
    type Err = Infallible;

    /// A whole number is one of samples, another number a share, anything else a path.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match (text.parse(), text.parse()) {
            (Ok(samples), _) => Self::Samples(samples),
            (_, Ok(share)) => Self::Share(share),
            _ => Self::Data(text.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_samples_or_shares_and_words_are_paths() {
        let of = |text: &str| text.parse::<Validation>().unwrap();
        assert_eq!(of("5000"), Validation::Samples(5000));
        assert_eq!(of("0.1"), Validation::Share(0.1));
        assert_eq!(of("-1"), Validation::Share(-1.0), "which a recipe refuses");
        assert_eq!(of("held.npz"), Validation::Data("held.npz".into()));
        assert_eq!(of("./0.1").path(), Some(Path::new("./0.1")));
    }
}
