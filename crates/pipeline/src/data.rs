//! Data sets, and their split into samples to train on, to choose settings on, and to report errors on.

use std::path::{Path, PathBuf};

use sparsevd_compressor::TrainingData;
use sparsevd_compressor::architecture::{self, Architecture};
use sparsevd_compressor::objective::Loss;
use sparsevd_compressor::recipe::{Recipe, Validation};
use sparsevd_compressor::report::NO_TEST;
use sparsevd_compressor::trainer::Observer;
use sparsevd_format::{
    FormatError, LoadedSamples, Pixels, TableOptions, load_samples_with, standardise,
};
use sparsevd_model::{Graph, Network, Preprocessing, Shape, Table};

use crate::answers::{Answers, are_classes};
use crate::error::PipelineError;
use crate::labelled::{DataSplit, LabelledSamples};
use crate::preprocessing::{of_pixels, of_table};
use crate::sample_set::{Parts, SampleSet};
use crate::split::{Sets, Split};

/// A data set with labels or numbers as targets, or of inputs alone.
#[derive(Debug, Clone)]
pub struct Data {
    samples: LoadedSamples,
    path: Option<PathBuf>,
}

impl Data {
    /// Reads a data set of any kind that [`load_samples_with`] knows. The last column of a table holds its targets.
    ///
    /// # Errors
    /// As [`load_samples_with`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FormatError> {
        Self::load_with(path, &TableOptions::default())
    }

    /// Reads a data set as [`Self::load`] does; of a table by the columns that the preprocessing of a network stores.
    ///
    /// # Errors
    /// As [`load_samples_with`].
    pub fn load_for(
        path: impl AsRef<Path>,
        preprocessing: Option<&Preprocessing>,
    ) -> Result<Self, FormatError> {
        let table = preprocessing.and_then(|p| p.table.as_ref());
        let target = None;
        Self::load_with(path, &TableOptions { target, table })
    }

    /// Reads a data set; `options` says what is known of a table.
    ///
    /// # Errors
    /// As [`load_samples_with`].
    pub fn load_with(
        path: impl AsRef<Path>,
        options: &TableOptions<'_>,
    ) -> Result<Self, FormatError> {
        let path = path.as_ref();
        Ok(Self {
            samples: load_samples_with(path, options)?,
            path: Some(path.to_owned()),
        })
    }

    /// Where it was read from.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether its samples have targets; otherwise a network is compressed by its own answers.
    pub fn has_targets(&self) -> bool {
        !matches!(self.samples, LoadedSamples::Inputs(_))
    }

    /// Refuses a promise of agreement, `percent`, about samples that have targets, as errors are against those, and about answers of a
    /// network that are numbers by the `loss` of a recipe.
    ///
    /// # Errors
    /// A promise, and data or a network that it cannot be about.
    pub fn check_agreement(
        data: Option<&Self>,
        percent: Option<f64>,
        network: &Network,
        loss: Option<Loss>,
    ) -> Result<(), PipelineError> {
        if percent.is_none() {
            return Ok(());
        }
        let fail = |expected: &str, got: String| {
            Err(PipelineError::invalid("min_agreement", expected, got))
        };
        let expected = "inputs without labels, which it is promised of";
        match data {
            None => fail(expected, "no data".into()),
            Some(data) if data.has_targets() => {
                fail(expected, format!("{} with targets", data.name()))
            }
            Some(_) => {
                let shapes = network.shapes()?;
                let outputs = network.graph.outputs.iter().map(|o| &shapes[o.as_str()]);
                match are_classes(outputs.map(Shape::elements).sum(), loss) {
                    true => Ok(()),
                    false => fail(
                        "outputs that are scores of classes",
                        "numbers, of which max_r2_drop promises".into(),
                    ),
                }
            }
        }
    }

    /// Whether its inputs are bytes, which a network's preprocessing turns into numbers.
    pub fn is_bytes(&self) -> bool {
        matches!(self.pixels(), Some(Pixels::U8(_)))
    }

    /// The columns of a table, which a network's preprocessing turns into its input; `None` for other data.
    pub fn table(&self) -> Option<&Table> {
        match &self.samples {
            LoadedSamples::Classes(s) | LoadedSamples::Inputs(s) => s.table.as_ref(),
            LoadedSamples::Numbers(s) => s.table.as_ref(),
        }
    }

    /// The preprocessing that gives every feature of a table mean 0 and deviation 1 over its training rows; `None` for other
    /// data.
    pub fn standardised(&self) -> Option<Preprocessing> {
        match (self.pixels(), self.table()) {
            (Some(Pixels::Table(rows)), Some(table)) => Some(standardise(rows, table.clone())),
            _ => None,
        }
    }

    /// The preprocessing for this data that a network stores, else the default: what single settings may then replace. That of a
    /// table has its columns. `None` for numbers, which are the input as they are.
    pub fn preprocessing_or_default(&self, stored: Option<Preprocessing>) -> Option<Preprocessing> {
        match self.table() {
            // What is stored for pixels says nothing of columns.
            Some(table) => Some(Preprocessing {
                table: Some(table.clone()),
                ..stored.filter(|p| p.table.is_some()).unwrap_or_default()
            }),
            None => self.is_bytes().then(|| stored.unwrap_or_default()),
        }
    }

    /// A multi-layer perceptron with inputs and outputs for this data; `name` is `mlp`, or `mlp-300-100` with the widths of its hidden layers.
    ///
    /// # Errors
    /// Data without a sample; another name.
    pub fn mlp(&self, name: &str) -> Result<Architecture, PipelineError> {
        let sizes = self.shape_and_outputs();
        match sizes.and_then(|(input, outputs)| architecture::mlp(name, input, outputs)) {
            Some(architecture) => Ok(architecture?),
            None => Err(PipelineError::invalid(
                name,
                "data with samples and their targets, to take its sizes from",
                self.describe(),
            )),
        }
    }

    /// Shape of an input and number of outputs: classes, or numbers per sample; `None` where there is no sample.
    pub fn shape_and_outputs(&self) -> Option<(&Shape, usize)> {
        self.samples.shape_and_outputs()
    }

    /// The inputs to train on, else those to test on.
    fn pixels(&self) -> Option<&Pixels> {
        match &self.samples {
            LoadedSamples::Classes(s) | LoadedSamples::Inputs(s) => {
                let set = s.train.as_ref().or(s.whole.as_ref()).or(s.test.as_ref());
                set.map(|set| &set.pixels)
            }
            LoadedSamples::Numbers(s) => {
                let set = s.train.as_ref().or(s.whole.as_ref()).or(s.test.as_ref());
                set.map(|set| set.pixels())
            }
        }
    }

    /// The part of the samples that `split` names, for a network with one input and one output.
    ///
    /// # Errors
    /// A network with several inputs or outputs; data without that part, of other inputs or outputs than those of the network, or of
    /// pixels or a table for a network that does not say how they become its input.
    pub fn part(
        self,
        split: DataSplit,
        network: &Network,
    ) -> Result<LabelledSamples, PipelineError> {
        let graph = &network.graph;
        let (input, output) = match (graph.inputs.as_slice(), graph.outputs.as_slice()) {
            ([input], [output]) => (&input.shape, output.as_str()),
            (inputs, outputs) => {
                return Err(PipelineError::SeveralInputs {
                    inputs: inputs.len(),
                    outputs: outputs.len(),
                });
            }
        };
        let outputs = network.shapes()?[output].elements();
        let name = self.name();
        let unfit = |error: FormatError| PipelineError::Unfit {
            data: name.clone(),
            error: Box::new(error),
        };
        let preprocessing = self.preprocessing(graph);
        let Parts {
            train,
            test,
            whole,
            describe,
        } = self.samples.into();
        let (set, part) = split.of(&name, [train, test, whole], &describe)?;
        if let SampleSet::Inputs(_) = set {
            return Err(PipelineError::invalid(
                name,
                "labels or numbers as targets",
                describe,
            ));
        }
        set.check_against(input, outputs).map_err(unfit)?;
        let ids = network.ids().get(graph.inputs[0].name.as_str()).copied();
        let set = set.for_input(&graph.inputs[0], ids).map_err(unfit)?;
        Ok(LabelledSamples {
            set,
            part,
            preprocessing: preprocessing?,
        })
    }

    /// Samples to calibrate a network with one input and one output on, drawn from those to train on where there are such, and samples to compare it on: those
    /// to test on, else the others. Targets are not needed.
    pub(crate) fn calibration_and_held_out(
        self,
        network: &Network,
        count: usize,
    ) -> Result<[LabelledSamples; 2], PipelineError> {
        let graph = &network.graph;
        let ([input], [output]) = (graph.inputs.as_slice(), graph.outputs.as_slice()) else {
            return Err(PipelineError::SeveralInputs {
                inputs: graph.inputs.len(),
                outputs: graph.outputs.len(),
            });
        };
        let outputs = network.shapes()?[output.as_str()].elements();
        let name = self.name();
        let preprocessing = self.preprocessing(graph)?;
        let ids = network.ids().get(input.name.as_str()).copied();
        let Parts {
            train,
            test,
            whole,
            describe,
        } = self.samples.into();
        let (drawn, others) = match (train.or(whole), test) {
            (Some(train), Some(test)) => (train, Some(test)),
            (Some(all), None) | (None, Some(all)) => (all, None),
            (None, None) => return Err(PipelineError::invalid(name, "samples", describe)),
        };
        let least = if others.is_some() { count } else { count + 1 };
        if drawn.len() < least {
            let expected = format!("at least {least} samples, {count} of them to find ranges on");
            return Err(PipelineError::invalid(
                name,
                expected,
                drawn.len().to_string(),
            ));
        }
        let [drawn, rest] = drawn.divide(count);
        let part = |set: SampleSet, part| -> Result<LabelledSamples, PipelineError> {
            let unfit = |error: FormatError| PipelineError::Unfit {
                data: name.clone(),
                error: Box::new(error),
            };
            set.check_against(&input.shape, outputs).map_err(unfit)?;
            Ok(LabelledSamples {
                set: set.for_input(input, ids).map_err(unfit)?,
                part,
                preprocessing: preprocessing.clone(),
            })
        };
        Ok([
            part(drawn, "calibration")?,
            part(others.unwrap_or(rest), "held-out")?,
        ])
    }

    /// What was found, in words.
    fn describe(&self) -> &str {
        match &self.samples {
            LoadedSamples::Classes(s) | LoadedSamples::Inputs(s) => &s.describe,
            LoadedSamples::Numbers(s) => &s.describe,
        }
    }

    /// Name of the data set in errors.
    fn name(&self) -> String {
        self.path
            .as_ref()
            .map_or("data set".into(), |p| p.display().to_string())
    }

    /// Divides it into samples to train `network` on, validation samples and test samples, as the recipe says; where the recipe chooses
    /// settings, one half of the validation samples is for that. Bytes and the features of a table become its input by its preprocessing,
    /// which must be set. Inputs without targets get the network's own answers, by `threads`, of which 0 are all cores.
    pub(crate) fn split(
        self,
        network: &Network,
        recipe: &Recipe,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<Split, PipelineError> {
        let (validation, choose) = (&recipe.validation, recipe.chooses());
        let outputs = network.shapes()?[network.graph.outputs[0].as_str()].elements();
        let first = &network.graph.inputs[0];
        let (input, ids) = (
            &first.shape,
            network.ids().get(first.name.as_str()).copied(),
        );
        let name = self.name();
        let answers = match self.has_targets() {
            true => None,
            false => Some(Answers::of(network, recipe.loss, threads)?),
        };
        let preprocessing = self.preprocessing(&network.graph)?;
        let Parts {
            train,
            test,
            whole,
            mut describe,
        } = self.samples.into();
        // A set that is not split gives training and validation samples; nothing is left to report a test error on.
        let Some(train) = train.or(whole) else {
            return Err(PipelineError::invalid(
                &name,
                match answers {
                    None => {
                        "training images (train-* IDX files, arrays x_train and y_train or x and y, a train/ folder or class folders)"
                    }
                    Some(_) => "inputs to train on (array x_train, or x)",
                },
                describe,
            ));
        };
        for set in test.iter().chain([&train]) {
            set.check_against(input, outputs)?;
        }
        let train = train.for_input(first, ids)?;
        let test = test.map(|test| test.for_input(first, ids)).transpose()?;
        let mut origin = "held back for validation".to_owned();
        let (kind, targets) = (train.kind(), train.targets());
        let mut of_other = preprocessing.clone();
        let found = describe.clone();
        let load = |path: &Path| {
            let other = Self::load_for(path, network.graph.preprocessing.as_ref())?;
            of_other = other.preprocessing(&network.graph)?;
            let (set, found) = other.only_part(targets)?;
            let unfit = |error| PipelineError::Unfit {
                data: path.display().to_string(),
                error: Box::new(error),
            };
            set.check_against(input, outputs).map_err(unfit)?;
            let set = set.for_input(first, ids).map_err(unfit)?;
            origin = format!("of {} for validation", path.display());
            describe = format!("{describe}; for validation, {found}");
            Ok(set)
        };
        let mut sets = Sets::new(train, test, validation, load, [&name, &found])?;
        if let Validation::FromTest { .. } = validation {
            origin = "of the test set for validation".into();
        }
        let [trained_on, held] = [&sets.train, &sets.validation].map(SampleSet::len);
        let (mut by, mut holdout) = Sets::halves(sets.validation, choose);
        let halves = holdout.as_ref().map_or(String::new(), |holdout| {
            let (by, holdout) = (by.len(), holdout.len());
            format!(": {by} to choose settings by, {holdout} to measure the result on")
        });
        observer.note(&describe);
        observer.note(&format!(
            "{trained_on} {kind} to train on, {held} {origin}{halves}"
        ));
        if sets.test.is_none() {
            observer.note(NO_TEST);
        }
        let has_targets = answers.is_none();
        if let Some(answers) = answers {
            observer.note(&answers.describe(network, recipe));
            let mut answered = |set, by| answers.to(set, by, observer);
            sets.train = answered(sets.train, &preprocessing)?;
            by = answered(by, &of_other)?;
            holdout = (holdout.map(|set| answered(set, &of_other))).transpose()?;
            sets.test = (sets.test.map(|set| answered(set, &preprocessing))).transpose()?;
        }
        let images = |set: SampleSet, by| match has_targets {
            true => set.images(input, by),
            false => set.images(input, by).answered(),
        };
        let of = |set| images(set, &preprocessing);
        let for_validation = |set| images(set, &of_other);
        Ok(Split {
            training: TrainingData::new(of(sets.train), for_validation(by)),
            holdout: holdout.map(for_validation),
            test: sets.test.map(of),
            has_targets,
            describe,
        })
    }

    /// The samples of a set for validation, with `targets` as targets, and the set in words.
    fn only_part(self, targets: &str) -> Result<(SampleSet, String), PipelineError> {
        let name = self.name();
        let Parts {
            train,
            test,
            whole,
            describe,
        } = self.samples.into();
        let mut parts = [train, test, whole].into_iter().flatten();
        match (parts.next(), parts.next()) {
            (Some(set), None) if set.targets() == targets => Ok((set, describe)),
            (Some(set), None) => Err(PipelineError::invalid(
                name,
                format!("targets like those of the training set ({targets})"),
                set.targets(),
            )),
            _ => Err(PipelineError::invalid(
                name,
                "a data set for validation with one part",
                describe,
            )),
        }
    }

    /// How its inputs become those of the network.
    fn preprocessing(&self, graph: &Graph) -> Result<Preprocessing, PipelineError> {
        let takes_ids = graph.inputs.iter().any(|input| input.dtype.is_id());
        let preprocessing = match self.table() {
            None if !self.is_bytes() || takes_ids => return Ok(Preprocessing::default()),
            None => of_pixels(graph, &self.name())?,
            Some(table) => {
                let stored = of_table(graph, &self.name())?;
                if stored.table.as_ref() != Some(table) {
                    let expected = format!(
                        "a table that was read by the columns which network `{}` stores",
                        graph.name
                    );
                    return Err(PipelineError::invalid(
                        self.name(),
                        expected,
                        "other columns",
                    ));
                }
                stored
            }
        };
        preprocessing.check(&graph.inputs[0].shape)?;
        Ok(preprocessing.clone())
    }
}

impl From<LoadedSamples> for Data {
    fn from(samples: LoadedSamples) -> Self {
        Self {
            samples,
            path: None,
        }
    }
}
