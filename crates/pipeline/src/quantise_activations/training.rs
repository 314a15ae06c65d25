//! Training of weights while their layers read rounded numbers, as they will in int8.

use std::collections::BTreeMap;

use sparsevd_compressor::objective::sample_errors;
use sparsevd_compressor::recipe::{QuantiseActivations, Recipe};
use sparsevd_compressor::report::Int8Result;
use sparsevd_compressor::trainer::Observer;
use sparsevd_compressor::{Samples as Source, draw};
use sparsevd_model::{Int8Grid, Network};
use sparsevd_runtime::Int8Mode;

use super::report::TrainedActivations;
use super::rounding::set;
use super::samples::{Compared, Samples, Set};
use super::{ActivationQuantisation, QuantisedActivations};
use crate::data::Data;
use crate::error::PipelineError;
use crate::invariance::settle_augmentation;
use crate::labelled::{EVALUATION_BATCH, predictions};
use crate::measure::{Scores, fill_input};
use crate::pruning::remove_zeros;
use crate::run_folder::RunFolder;
use crate::split::Split;
use crate::threads;
use crate::training::{Start, train};

impl ActivationQuantisation {
    /// As [`Self::run`], and trains the weights by `recipe` while layers read the numbers of their bytes; gradients pass the rounding straight through
    /// (Bengio, Leonard and Courville 2013). The zeros of weights stay. Of the rounded and the trained weights, the result has those of the better score on
    /// validation samples, which are held back as the recipe says.
    ///
    /// # Errors
    /// Those of [`Self::run`]; [`Self::dynamic`]; a network or recipe that the trainer does not take; [`PipelineError::Interrupted`] where the observer stops
    /// the run.
    pub fn run_and_train(
        &self,
        network: Network,
        data: Data,
        recipe: &Recipe,
        folder: Option<&RunFolder>,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<QuantisedActivations, PipelineError> {
        let network = self.prepared(network)?;
        let mut recipe = recipe.clone();
        let run = || {
            let split = data.split(&network, &recipe, threads, observer)?;
            if !split.has_targets {
                recipe.learn_from_teacher();
            }
            settle_augmentation(&mut recipe, &network, &split, threads, observer)?;
            self.on_split(&network, &split, &recipe, folder, threads, observer)
        };
        run().map_err(|error| error.in_run(folder.map(RunFolder::path)))
    }

    /// Quantises on the samples of a run, and trains where the recipe has phases.
    fn on_split(
        &self,
        network: &Network,
        split: &Split,
        recipe: &Recipe,
        folder: Option<&RunFolder>,
        threads: usize,
        observer: &mut dyn Observer,
    ) -> Result<QuantisedActivations, PipelineError> {
        if self.dynamic && !recipe.phases.is_empty() {
            let expected = "grids of samples, which training rounds to";
            return Err(PipelineError::invalid(
                "scales",
                expected,
                "those of vectors",
            ));
        }
        let shape = &network.graph.inputs[0].shape;
        let (validation, test) = (split.training.validation(), split.test.as_ref());
        let test = test.map(|test| test as &dyn Source);
        let fill = |source: &dyn Source, index: usize, x: &mut [f32]| {
            fill_input(source, index, [0, 0], shape, x);
        };
        let training = split.training.train();
        // Some data sets are sorted by class.
        let [drawn, _] = draw(training.len(), self.samples);
        let compared = match (test, &split.holdout) {
            (Some(test), _) => test,
            (None, Some(holdout)) => holdout,
            (None, None) => validation,
        };
        let samples = Samples {
            sets: [
                Set {
                    samples: drawn.len(),
                    fill: &|index, x| fill(training, drawn[index], x),
                },
                Set {
                    samples: compared.len().min(self.held_out),
                    fill: &|index, x| fill(compared, index, x),
                },
            ],
            threads: threads::resolve(threads),
        };
        let mut result = self.quantise_on(network, &samples)?;
        if recipe.phases.is_empty() || result.network.int8.is_empty() {
            return Ok(result);
        }
        let grids: BTreeMap<String, Int8Grid> = (result.network.int8.inputs.iter())
            .filter_map(|(node, input)| Some((node.clone(), input.grid()?)))
            .collect();
        let mut start = network.clone();
        remove_zeros(&mut start);
        let start = Start {
            input_grids: Some(&grids),
            ..Start::from(&start)
        };
        let data = split.training.clone();
        let trainer = train(start, recipe, data, folder, None, threads, observer)?;
        let mut trained = trainer.network()?;
        trained.graph.name.clone_from(&network.graph.name);
        for (node, grid) in &grids {
            set(&mut trained, node, (*grid).into(), self.one_scale)
                .map_err(|why| PipelineError::invalid(node, "weights on an int8 grid", why))?;
        }
        let scores = |network: &Network, int8| -> Result<Scores, PipelineError> {
            let session = samples.session(network, EVALUATION_BATCH, int8)?;
            let of = |source: &dyn Source| -> Result<_, PipelineError> {
                let fill = |index: usize, x: &mut [f32]| fill(source, index, x);
                let outputs = predictions(&session, source.len(), fill)?;
                Ok(sample_errors(&outputs, &source.targets()))
            };
            Ok(Scores {
                validation: of(validation)?,
                test: test.map(of).transpose()?,
            })
        };
        let dense = scores(network, Int8Mode::Never)?;
        let rounded = scores(&result.network, Int8Mode::Always)?;
        let after = scores(&trained, Int8Mode::Always)?;
        let report = TrainedActivations {
            epochs: recipe.phases.iter().map(|phase| phase.epochs).sum(),
            against_f32: !split.has_targets,
            rounded: dense.beside(&rounded).into(),
            trained: dense.beside(&after).into(),
            kept: after.validation.score.error() <= rounded.validation.score.error(),
        };
        if report.kept {
            let [expected, outputs] = [
                samples.outputs(network, Int8Mode::Never)?,
                samples.outputs(&trained, Int8Mode::Always)?,
            ];
            result.report.error = outputs.compare(&expected, 0).error;
            result.report.agreement = outputs.compare(&expected, 1);
            result.network = trained;
        }
        result.training_seconds = trainer.history().iter().map(|e| e.seconds).sum();
        result.report.training = Some(report);
        Ok(result)
    }
}

/// Quantises the result of a run, which has `samples`, a `recipe` and perhaps a `folder`, as the recipe says of its end. With `one_scale` all rows of a weight
/// share a scale, as a packed file has it.
///
/// # Errors
/// As [`ActivationQuantisation::run_and_train`]; an interruption names the folder of the run.
pub(crate) fn quantise_at_end(
    settings: &QuantiseActivations,
    network: Network,
    (samples, recipe, folder): (&Split, &Recipe, Option<&RunFolder>),
    one_scale: bool,
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<QuantisedActivations, PipelineError> {
    let quantisation = ActivationQuantisation {
        one_scale,
        ..settings.into()
    };
    let network = quantisation.prepared(network)?;
    let mut training = Recipe {
        seed: recipe.seed,
        skip_zeros: recipe.skip_zeros,
        class_weights: recipe.class_weights,
        loss: recipe.loss,
        target_deviation: recipe.target_deviation,
        ..Recipe::default_for_activations(settings.epochs, settings.lr)
    };
    if settings.epochs == 0 {
        training.phases.clear();
    } else if !samples.has_targets {
        training.learn_from_teacher();
    }
    let part = folder.map(RunFolder::of_int8);
    let done = settle_augmentation(&mut training, &network, samples, threads, observer)
        .and_then(|()| {
            let part = part.as_ref();
            quantisation.on_split(&network, samples, &training, part, threads, observer)
        })
        .map_err(|error| error.in_run(folder.map(RunFolder::path)))?;
    observer.note(&Int8Result::from(&done.report).to_string());
    Ok(done)
}
