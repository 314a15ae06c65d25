//! Targets of samples.

use std::borrow::Cow;

/// The target of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target<'a> {
    /// A class.
    Class(usize),
    /// A number per output.
    Vector(&'a [f32]),
}

/// The targets of several samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets<'a> {
    /// Class of each sample.
    Classes(Cow<'a, [u16]>),
    /// Numbers of each sample, `[samples][outputs]`.
    Vectors {
        /// Numbers per sample.
        outputs: usize,
        /// All numbers.
        values: Cow<'a, [f32]>,
    },
}

impl<'a> Targets<'a> {
    /// Class of each sample.
    pub fn classes(labels: &'a [u16]) -> Self {
        Self::Classes(Cow::Borrowed(labels))
    }

    /// Numbers of each sample, `[samples][outputs]`.
    pub fn vectors(values: &'a [f32], outputs: usize) -> Self {
        Self::Vectors {
            outputs,
            values: Cow::Borrowed(values),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(labels) => labels.len(),
            Self::Vectors { outputs, values } => values.len() / (*outputs).max(1),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The target of one sample.
    ///
    /// # Panics
    /// When there is no such sample.
    #[track_caller]
    pub fn get(&self, sample: usize) -> Target<'_> {
        match self {
            Self::Classes(labels) => Target::Class(usize::from(labels[sample])),
            Self::Vectors { outputs, values } => {
                Target::Vector(&values[sample * outputs..(sample + 1) * outputs])
            }
        }
    }

    /// The targets of some samples, in their order.
    ///
    /// # Panics
    /// When there is no such sample.
    #[track_caller]
    pub fn select(&self, samples: impl Iterator<Item = usize>) -> Targets<'static> {
        match self {
            Self::Classes(labels) => Targets::Classes(samples.map(|i| labels[i]).collect()),
            Self::Vectors { outputs, values } => {
                let rows = samples.flat_map(|i| &values[i * outputs..(i + 1) * outputs]);
                Targets::Vectors {
                    outputs: *outputs,
                    values: rows.copied().collect(),
                }
            }
        }
    }

    /// The kind of targets, for messages.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Classes(_) => "classes".into(),
            Self::Vectors { outputs, .. } => format!("{outputs} numbers per sample"),
        }
    }
}
