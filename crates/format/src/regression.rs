//! Samples with numbers as targets.

use std::path::Path;

use sparsevd_model::{Input, Preprocessing, Shape, Table};

use crate::dataset::{self, Parts, mismatch};
use crate::{Array, ArrayData, DataSplits, Dataset, FormatError, Pixels};

/// Inputs of one shape, each with the numbers that a network is to compute from it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegressionSet {
    /// The inputs. Their labels are zeros, which nothing reads.
    inputs: Dataset,
    outputs: usize,
    /// `[samples][outputs]`.
    targets: Vec<f32>,
}

impl RegressionSet {
    /// Puts inputs and targets together; `targets` is `[samples][outputs]`.
    ///
    /// # Errors
    /// [`FormatError::Dataset`] for an empty set, a number of values that is not that of the targets, or a target that is not
    /// finite.
    pub fn new(
        pixels: Pixels,
        shape: Shape,
        targets: Vec<f32>,
        outputs: usize,
    ) -> Result<Self, FormatError> {
        let samples = targets.len().checked_div(outputs).unwrap_or_default();
        let inputs = Dataset::new(pixels, shape, vec![0; samples])?;
        Self::of(inputs, targets, outputs)
    }

    /// Puts inputs, whose labels are of no account, and targets together; `targets` is `[samples][outputs]`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(inputs: Dataset, targets: Vec<f32>, outputs: usize) -> Result<Self, FormatError> {
        if Some(targets.len()) != inputs.len().checked_mul(outputs) {
            let expected = format!("{} of {outputs} numbers", inputs.len());
            return Err(mismatch(
                "targets",
                expected,
                format!("{} numbers", targets.len()),
            ));
        }
        match targets.iter().find(|t| !t.is_finite()) {
            None => Ok(Self {
                inputs,
                outputs,
                targets,
            }),
            Some(bad) => Err(mismatch("targets", "finite numbers", bad.to_string())),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Values of all inputs.
    pub fn pixels(&self) -> &Pixels {
        &self.inputs.pixels
    }

    /// Shape of one input.
    pub fn shape(&self) -> &Shape {
        &self.inputs.shape
    }

    /// Values of all inputs, and targets.
    pub fn into_parts(self) -> (Pixels, Vec<f32>) {
        (self.inputs.pixels, self.targets)
    }

    /// Numbers per sample.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Targets, `[samples][outputs]`.
    pub fn targets(&self) -> &[f32] {
        &self.targets
    }

    /// Writes the network input of one sample to `out`; see [`Dataset::fill_input`].
    ///
    /// # Panics
    /// When there is no such sample or `out` is not of its size.
    #[track_caller]
    pub fn fill_input(&self, index: usize, preprocessing: &Preprocessing, out: &mut [f32]) {
        self.inputs.fill_input(index, preprocessing, out);
    }

    /// The samples for an input of a network; see [`Dataset::for_input`].
    ///
    /// # Errors
    /// As [`Dataset::for_input`].
    pub fn for_input(mut self, input: &Input, ids: Option<usize>) -> Result<Self, FormatError> {
        self.inputs = self.inputs.for_input(input, ids)?;
        Ok(self)
    }

    /// The samples at these places, in their order.
    ///
    /// # Panics
    /// When there is no such sample.
    #[must_use]
    #[track_caller]
    pub fn subset(&self, indices: &[usize]) -> Self {
        let n = self.outputs;
        let rows = indices.iter().map(|&i| &self.targets[i * n..(i + 1) * n]);
        Self {
            inputs: self.inputs.subset(indices),
            outputs: n,
            targets: rows.flatten().copied().collect(),
        }
    }

    /// Checks that the inputs can be those of a network, and that the targets are as many as its outputs.
    ///
    /// # Errors
    /// [`FormatError::Dataset`] with the sizes.
    pub fn check_against(&self, input: &Shape, outputs: usize) -> Result<(), FormatError> {
        if self.outputs != outputs {
            let expected = format!(
                "{outputs} per sample, one per output of the network, or integers, which are classes"
            );
            let got = format!("{} (floating-point numbers)", self.outputs);
            return Err(mismatch("targets", expected, got));
        }
        self.inputs.check_against(input, 1)
    }
}

/// The parts of a set that a path holds; see [`DataSplits`].
#[derive(Debug, Clone, PartialEq)]
pub struct RegressionSplits {
    /// Samples to train on.
    pub train: Option<RegressionSet>,
    /// Samples to evaluate on.
    pub test: Option<RegressionSet>,
    /// All samples of a set that is not split; the other two are `None` then.
    pub whole: Option<RegressionSet>,
    /// The columns, of a table.
    pub table: Option<Table>,
    /// What was found, in one line for the user.
    pub describe: String,
}

impl RegressionSplits {
    pub(crate) fn of(path: &Path, kind: &str, parts: Parts<RegressionSet>) -> Self {
        Self {
            describe: parts.describe(path, kind, |name, set| {
                let (n, shape, outputs) = (set.len(), set.shape(), set.outputs());
                format!("{n} {name}samples {shape} with {outputs} numbers each")
            }),
            train: parts.train,
            test: parts.test,
            whole: parts.whole,
            table: None,
        }
    }
}

/// Samples of a path: with classes, with numbers, or without targets.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadedSamples {
    /// Each sample has a class.
    Classes(DataSplits),
    /// Each sample has numbers.
    Numbers(RegressionSplits),
    /// Samples are inputs alone. Their labels are zeros, which nothing reads.
    Inputs(DataSplits),
}

impl LoadedSamples {
    /// Shape of an input and number of outputs: classes, or numbers per sample; `None` where there is no sample or no target.
    pub fn shape_and_outputs(&self) -> Option<(&Shape, usize)> {
        match self {
            Self::Inputs(_) => None,
            Self::Classes(splits) => {
                let sets = [&splits.train, &splits.whole, &splits.test];
                let sets = || sets.into_iter().flatten();
                let named = splits.table.as_ref().and_then(|t| t.classes.as_ref());
                let classes =
                    named.map_or_else(|| sets().map(Dataset::classes).max(), |c| Some(c.len()));
                Some((&sets().next()?.shape, classes?))
            }
            Self::Numbers(splits) => {
                let mut sets = [&splits.train, &splits.whole, &splits.test]
                    .into_iter()
                    .flatten();
                sets.next().map(|set| (set.shape(), set.outputs()))
            }
        }
    }
}

/// Inputs and targets from arrays.
pub(crate) fn join(
    path: &Path,
    inputs_name: &str,
    inputs: Array,
    targets_name: &str,
    targets: Array,
) -> Result<RegressionSet, FormatError> {
    let fail = |what: &str, expected: String, got: String| {
        FormatError::tensor(path, targets_name, what, expected, got)
    };
    let samples = inputs.shape.first().copied().unwrap_or_default();
    let outputs = match targets.shape.as_slice() {
        &[n] if n == samples => 1,
        &[n, outputs] if n == samples && outputs > 0 => outputs,
        other => {
            let expected =
                format!("[{samples}] or [{samples}, outputs], as `{inputs_name}` has samples");
            return Err(fail("shape", expected, Shape(other.to_vec()).to_string()));
        }
    };
    let values = match targets.data {
        ArrayData::F32(values) => values,
        other => {
            let expected = "floating-point numbers, as the other targets";
            return Err(fail("element type", expected.into(), other.kind().into()));
        }
    };
    let labels = Array {
        shape: vec![samples],
        data: ArrayData::U8(vec![0; samples]),
    };
    let inputs = dataset::join(path, inputs_name, inputs, targets_name, labels)?;
    RegressionSet::of(inputs, values, outputs).map_err(|e| match e {
        FormatError::Dataset {
            what,
            expected,
            got,
        } => fail(&what, expected, got),
        other => other,
    })
}
