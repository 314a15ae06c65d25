//! Quantisation guided by the posterior: the scale of the grid that each layer is stored on.
//!
//! A weight known to sigma need not be stored more finely: rounding N(theta, sigma^2) to a grid of scale c sigma costs about
//! c^2 / 24 nats over the whole training set, and each halving of the scale costs one bit per weight. Every layer gets the
//! scale c times the median sigma of its survivors, with one c for the whole network, so that a bit gains the same everywhere.

use std::sync::atomic::AtomicBool;

use sparsevd_format::{PackOptions, pack};
use sparsevd_model::quantised::nearest_scale;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::recipe::Phase;
use crate::state::State;
use crate::trainer::{EpochRecord, Observer, Outcome, Trainer};

/// Significant bits of a scale: within a sixteenth of any target, for about one byte in a packed file.
const SCALE_BITS: u32 = 4;
/// Level of the largest weight of a layer that has no posterior; rounding the scale keeps it below 128.
const LEVELS: u32 = 119;

/// Result of one candidate scale.
struct Trial {
    c: f64,
    bytes: usize,
    validation_error: f64,
    state: State<f32>,
    history: Vec<EpochRecord>,
}

/// The scale that spreads numbers without a posterior over 8 bits; 1 where all are zero, where any scale is exact.
fn eight_bits(values: &[f32]) -> f64 {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    if largest > 0.0 {
        f64::from(largest) / f64::from(LEVELS)
    } else {
        1.0
    }
}

/// The exact scale of a layer's weights, before rounding to [`SCALE_BITS`]; `None` where the layer never had a posterior.
fn target_scale(layer: &Layer<f32>, c: f64, bias_step: f64) -> Option<f64> {
    if layer.is_depthwise() {
        return Some(eight_bits(layer.weights()));
    }
    if layer.last_log_sigma2.is_empty() {
        return None;
    }
    // Where no weight survived, as in a dead residual block, only biases are stored.
    let empty = || eight_bits(layer.biases()) / bias_step;
    Some(layer.median_sigma().map_or_else(empty, |sigma| c * sigma))
}

impl Trainer {
    /// Puts every layer on the grid of `c` times the median sigma of its survivors, biases on `bias_step` times that. A
    /// depthwise convolution, which has no posterior, gets 8 bits, as do the biases of a layer without survivors.
    pub(crate) fn start_grid(&mut self, c: f64, bias_step: f64) -> Result<(), CompressError> {
        let mut scales = vec![];
        for layer in self.engine.layers() {
            let scale = target_scale(layer, c, bias_step).and_then(|target| {
                let scale = nearest_scale(target as f32, SCALE_BITS)?;
                Some([
                    scale,
                    nearest_scale((f64::from(scale) * bias_step) as f32, SCALE_BITS)?,
                ])
            });
            scales.push(scale.ok_or_else(|| {
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
        self.replace_state(|state| {
            for (layer, scales) in state.layers.iter_mut().zip(scales) {
                layer.set_scales(Some(scales));
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
        let (state, position, history) = (
            self.engine.state().clone(),
            self.position,
            self.history.clone(),
        );
        let mut trials: Vec<Trial> = vec![];
        for &c in &phase.grid {
            let start = state.clone();
            self.replace_state(|state| *state = start)?;
            (self.position, self.history) = (position, history.clone());
            self.start_grid(c, phase.bias_step)?;
            while self.position.epoch < phase.epochs {
                if self.epoch(phase, stop, observer)? == Outcome::Interrupted {
                    self.replace_state(|now| *now = state)?;
                    (self.position, self.history, self.sums) = (position, history, [0.0; 2]);
                    return Ok(Outcome::Interrupted);
                }
            }
            self.remove_over(self.recipe.threshold)?;
            let trial = Trial {
                c,
                bytes: pack(&self.network()?, &PackOptions::default())?.len(),
                validation_error: self.validation_error(self.recipe.threshold),
                state: self.engine.state().clone(),
                history: self.history.clone(),
            };
            observer.note(&format!(
                "scales of {c} sigma: {} bytes packed, {:.2} % validation error",
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
                "chose scales of {} sigma: {} {:.2} % (dense {dense:.2} % and at most {} points more); with {images} \
                 validation images the standard error of that is {:.2} points",
                best.c,
                if best.validation_error <= most { "the smallest within" } else { "none stays within" },
                most,
                self.recipe.max_accuracy_drop,
                100.0 * (p * (1.0 - p) / images).sqrt()
            ));
            let (state, history) = (best.state.clone(), best.history.clone());
            self.replace_state(|now| *now = state)?;
            (self.position, self.history) = (end, history);
        }
        Ok(Outcome::Done)
    }
}
