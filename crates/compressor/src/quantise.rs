//! Quantisation guided by the posterior: how finely weights are stored.
//!
//! A weight known to sigma need not be stored more finely: rounding N(theta, sigma^2) to a grid of step c sigma costs about
//! c^2 / 24 nats over the whole training set, and each halving of the step one bit per weight. Every layer gets the step
//! c times the median sigma of its survivors, and one c serves the whole network, so that a bit buys the same everywhere.

use std::sync::atomic::AtomicBool;

use sparsevd_format::{PackOptions, pack};
use sparsevd_model::quantised::nearest_step;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::recipe::Phase;
use crate::trainer::{EpochRecord, Observer, Outcome, Trainer};

/// Significant bits of a step: within a sixteenth of any wish, for about one byte in a packed file.
const STEP_BITS: u32 = 4;

/// What came of one candidate.
struct Trial {
    c: f64,
    bytes: usize,
    validation_error: f64,
    layers: Vec<Layer<f32>>,
    history: Vec<EpochRecord>,
}

impl Trainer {
    /// Puts every layer on the grid of `c` times the median sigma of its survivors, biases on `bias_step` times that.
    pub(crate) fn start_grid(&mut self, c: f64, bias_step: f64) -> Result<(), CompressError> {
        let mut steps = vec![];
        for layer in self.engine.layers() {
            let step = layer.median_sigma().and_then(|sigma| {
                let step = nearest_step((c * sigma) as f32, STEP_BITS)?;
                Some([
                    step,
                    nearest_step((f64::from(step) * bias_step) as f32, STEP_BITS)?,
                ])
            });
            steps.push(step.ok_or_else(|| {
                CompressError::setting(
                    "quantise phase",
                    format!(
                        "a sparse-vd phase before it, whose sigmas set the grid of `{}`",
                        layer.node
                    ),
                    "none",
                )
            })?);
        }
        self.replace_layers(|layers| {
            for (layer, steps) in layers.iter_mut().zip(steps) {
                layer.set_steps(Some(steps));
            }
        })
    }

    /// Trains every candidate of the phase from the same beginning and keeps the one that packs smallest within the recipe's
    /// `max_accuracy_drop` on validation; where none does, the most accurate.
    ///
    /// An interruption puts the run back to the beginning of the phase.
    pub(crate) fn search_grid(
        &mut self,
        phase: &Phase,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, CompressError> {
        let dense = self.dense_validation_error()?;
        let most = dense + self.recipe.max_accuracy_drop;
        let (layers, position, history) = (
            self.engine.layers().to_vec(),
            self.position,
            self.history.clone(),
        );
        let mut trials: Vec<Trial> = vec![];
        for &c in &phase.grid {
            let start = layers.clone();
            self.replace_layers(|layers| *layers = start)?;
            (self.position, self.history) = (position, history.clone());
            self.start_grid(c, phase.bias_step)?;
            while self.position.epoch < phase.epochs {
                if self.epoch(phase, stop, observer)? == Outcome::Interrupted {
                    self.replace_layers(|now| *now = layers)?;
                    (self.position, self.history, self.sums) = (position, history, [0.0; 2]);
                    return Ok(Outcome::Interrupted);
                }
            }
            self.remove_over(self.recipe.threshold)?;
            let trial = Trial {
                c,
                bytes: pack(&self.network()?, &PackOptions::default())?.len(),
                validation_error: self.validation_error(self.recipe.threshold),
                layers: self.engine.layers().to_vec(),
                history: self.history.clone(),
            };
            observer.note(&format!(
                "steps of {c} sigma: {} bytes packed, {:.2} % validation error",
                trial.bytes, trial.validation_error
            ));
            trials.push(trial);
        }
        let end = self.position;
        let within = trials
            .iter()
            .filter(|t| t.validation_error <= most)
            .min_by_key(|t| t.bytes);
        let best = within.or_else(|| {
            trials
                .iter()
                .min_by(|a, b| a.validation_error.total_cmp(&b.validation_error))
        });
        if let Some(best) = best {
            let images = self.data.validation().len().max(1) as f64;
            let p = best.validation_error / 100.0;
            observer.note(&format!(
                "chose steps of {} sigma: {} {:.2} % (dense {dense:.2} % and at most {} points more); with {images} \
                 validation images the standard error of that is {:.2} points",
                best.c,
                if best.validation_error <= most { "the smallest within" } else { "none stays within" },
                most,
                self.recipe.max_accuracy_drop,
                100.0 * (p * (1.0 - p) / images).sqrt()
            ));
            let (layers, history) = (best.layers.clone(), best.history.clone());
            self.replace_layers(|now| *now = layers)?;
            (self.position, self.history) = (end, history);
        }
        Ok(Outcome::Done)
    }
}
