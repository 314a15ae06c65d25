//! Samples with their targets, of either kind.

use sparsevd_compressor::{Images, draw};
use sparsevd_format::{Dataset, FormatError, LoadedSamples, RegressionSet};
use sparsevd_model::{Input, Preprocessing, Shape};

/// Samples by what their targets are.
#[derive(Debug, Clone)]
pub(crate) enum SampleSet {
    Classes(Dataset),
    Numbers(RegressionSet),
    /// Inputs without targets; labels are zeros.
    Inputs(Dataset),
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
            LoadedSamples::Inputs(s) => {
                let parts = [s.train, s.test, s.whole];
                (parts.map(|set| set.map(SampleSet::Inputs)), s.describe)
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
            Self::Classes(set) | Self::Inputs(set) => set.len(),
            Self::Numbers(set) => set.len(),
        }
    }

    /// The samples for an input of a network, whose ids are `ids`; see [`Dataset::for_input`].
    pub fn for_input(self, input: &Input, ids: Option<usize>) -> Result<Self, FormatError> {
        Ok(match self {
            Self::Classes(set) => Self::Classes(set.for_input(input, ids)?),
            Self::Numbers(set) => Self::Numbers(set.for_input(input, ids)?),
            Self::Inputs(set) => Self::Inputs(set.for_input(input, ids)?),
        })
    }

    /// Writes the network input of one sample to `out`.
    pub fn fill_input(&self, index: usize, preprocessing: &Preprocessing, out: &mut [f32]) {
        match self {
            Self::Classes(set) | Self::Inputs(set) => set.fill_input(index, preprocessing, out),
            Self::Numbers(set) => set.fill_input(index, preprocessing, out),
        }
    }

    /// What its samples are, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classes(_) => "images",
            Self::Numbers(_) => "samples",
            Self::Inputs(_) => "inputs",
        }
    }

    /// What its targets are, for messages.
    pub fn targets(&self) -> &'static str {
        match self {
            Self::Classes(_) => "classes",
            Self::Numbers(_) => "floating-point numbers",
            Self::Inputs(_) => "none",
        }
    }

    /// Refuses inputs or targets that do not fit a network.
    pub fn check_against(&self, input: &Shape, outputs: usize) -> Result<(), FormatError> {
        match self {
            Self::Classes(set) | Self::Inputs(set) => set.check_against(input, outputs),
            Self::Numbers(set) => set.check_against(input, outputs),
        }
    }

    /// `drawn` of its samples, the same ones in every run, and the others.
    pub fn divide(&self, drawn: usize) -> [Self; 2] {
        draw(self.len(), drawn).map(|places| match self {
            Self::Classes(set) => Self::Classes(set.subset(&places)),
            Self::Numbers(set) => Self::Numbers(set.subset(&places)),
            Self::Inputs(set) => Self::Inputs(set.subset(&places)),
        })
    }

    /// Samples for a network's `input`.
    pub fn images(self, input: &Shape, preprocessing: &Preprocessing) -> Images {
        match self {
            Self::Classes(set) | Self::Inputs(set) => Images::new(set, input, preprocessing),
            Self::Numbers(set) => Images::with_numbers(set, input, preprocessing),
        }
    }
}
