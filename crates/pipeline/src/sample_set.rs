//! Samples with their targets, of either kind.

use sparsevd_compressor::{Images, draw};
use sparsevd_format::{Dataset, FormatError, LoadedSamples, RegressionSet};
use sparsevd_model::{Preprocessing, Shape};

/// Samples by what their targets are.
#[derive(Debug, Clone)]
pub(crate) enum SampleSet {
    Classes(Dataset),
    Numbers(RegressionSet),
}

/// The parts of a data set.
#[derive(Debug)]
pub(crate) struct Parts {
    pub train: Option<SampleSet>,
    pub test: Option<SampleSet>,
    /// All samples of a set that is not split.
    pub whole: Option<SampleSet>,
    /// What was found, in words.
    pub describe: String,
}

impl From<LoadedSamples> for Parts {
    fn from(samples: LoadedSamples) -> Self {
        let ([train, test, whole], describe) = match samples {
            LoadedSamples::Classes(s) => {
                let parts = [s.train, s.test, s.whole];
                (parts.map(|set| set.map(SampleSet::Classes)), s.describe)
            }
            LoadedSamples::Numbers(s) => {
                let parts = [s.train, s.test, s.whole];
                (parts.map(|set| set.map(SampleSet::Numbers)), s.describe)
            }
        };
        Self {
            train,
            test,
            whole,
            describe,
        }
    }
}

impl SampleSet {
    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(set) => set.len(),
            Self::Numbers(set) => set.len(),
        }
    }

    /// What its samples are, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classes(_) => "images",
            Self::Numbers(_) => "samples",
        }
    }

    /// What its targets are, for messages.
    pub fn targets(&self) -> &'static str {
        match self {
            Self::Classes(_) => "classes",
            Self::Numbers(_) => "floating-point numbers",
        }
    }

    /// Refuses inputs or targets that do not fit a network.
    pub fn check_against(&self, input: &Shape, outputs: usize) -> Result<(), FormatError> {
        match self {
            Self::Classes(set) => set.check_against(input, outputs),
            Self::Numbers(set) => set.check_against(input, outputs),
        }
    }

    /// `drawn` of its samples, the same ones in every run, and the others.
    pub fn divide(&self, drawn: usize) -> [Self; 2] {
        draw(self.len(), drawn).map(|places| match self {
            Self::Classes(set) => Self::Classes(set.subset(&places)),
            Self::Numbers(set) => Self::Numbers(set.subset(&places)),
        })
    }

    /// Samples for a network's `input`.
    pub fn images(self, input: &Shape, preprocessing: &Preprocessing) -> Images {
        match self {
            Self::Classes(set) => Images::new(set, input, preprocessing),
            Self::Numbers(set) => Images::with_numbers(set, input, preprocessing),
        }
    }
}
