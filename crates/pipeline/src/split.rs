//! The samples of a run: to train on, to choose settings by, to measure the result on, and to test on.

use std::path::Path;

use sparsevd_compressor::recipe::Validation;
use sparsevd_compressor::{Images, Samples, TrainingData};

use crate::error::PipelineError;
use crate::sample_set::SampleSet;

/// The samples of a run.
#[derive(Debug)]
pub(crate) struct Split {
    /// Those to train on and to choose settings by.
    pub training: TrainingData,
    /// Validation samples that nothing is chosen by; `None` where nothing is chosen, as all are such then, and where there is one
    /// validation sample.
    pub holdout: Option<Images>,
    pub test: Option<Images>,
    /// Whether the targets came with the inputs; otherwise they are the network's own answers.
    pub has_targets: bool,
    /// The data set, in words.
    pub describe: String,
}

impl Split {
    /// The samples that errors are reported on: validation, and test where there are any.
    pub fn measured(&self) -> (&dyn Samples, Option<&dyn Samples>) {
        let [holdout, test] = [&self.holdout, &self.test].map(|samples| {
            let samples = samples.as_ref();
            samples.map(|samples| samples as &dyn Samples)
        });
        (holdout.unwrap_or(self.training.validation()), test)
    }
}

/// Sets to train on, for validation, and to test on.
pub(crate) struct Sets {
    pub train: SampleSet,
    pub validation: SampleSet,
    pub test: Option<SampleSet>,
}

impl Sets {
    /// Takes validation samples from where `validation` says; `load` gives those of another data set. `data` and `found` are the data set
    /// and its parts in words, for errors.
    pub fn new(
        train: SampleSet,
        mut test: Option<SampleSet>,
        validation: &Validation,
        load: impl FnOnce(&Path) -> Result<SampleSet, PipelineError>,
        [data, found]: [&str; 2],
    ) -> Result<Self, PipelineError> {
        let (all, kind) = (train.len(), train.kind());
        let held_back = |samples: usize| match samples.min(all.saturating_sub(1)) {
            0 => Err(PipelineError::invalid(
                data,
                format!(
                    "at least 6 training {kind}, of which one in six is held back for validation"
                ),
                all.to_string(),
            )),
            samples => Ok(train.divide(samples)),
        };
        let [validation, train] = match validation {
            Validation::Samples(samples) => held_back((*samples).min(all / 6))?,
            Validation::Share(share) => held_back((all as f64 * share).round().max(1.0) as usize)?,
            Validation::Data(path) => [load(path)?, train],
            Validation::FromTest { from_test } => {
                let drawn = test
                    .as_ref()
                    .filter(|test| test.len() > *from_test)
                    .map(|test| test.divide(*from_test));
                let Some([drawn, rest]) = drawn else {
                    return Err(PipelineError::invalid(
                        data,
                        format!(
                            "more than {from_test} test {kind}, of which these are for validation"
                        ),
                        found,
                    ));
                };
                test = Some(rest);
                [drawn, train]
            }
        };
        Ok(Self {
            train,
            validation,
            test,
        })
    }

    /// The validation samples to choose settings by, and those that the result is measured on, where settings are chosen: one half each.
    /// A single sample is for both.
    pub fn halves(validation: SampleSet, choose: bool) -> (SampleSet, Option<SampleSet>) {
        match validation.len() {
            samples @ 2.. if choose => {
                let [by, holdout] = validation.divide(samples / 2);
                (by, Some(holdout))
            }
            _ => (validation, None),
        }
    }
}
