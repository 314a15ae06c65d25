//! One phase of a recipe: its settings, and what they say at each step.

use serde::{Deserialize, Serialize};

use super::optimizer::{Decay, Optimizer};
use super::prune_by::PruneBy;
use super::range::range;
use crate::augmentation::Augmentation;
use crate::error::CompressError;

/// What a phase does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The loss alone, without noise and KL term.
    Dense,
    /// Sparse Variational Dropout.
    SparseVd,
    /// Weights over the threshold are removed; the survivors train without noise and KL term.
    FineTune,
    /// The same with weights and biases rounded to a grid per layer in every pass.
    Quantise,
}

impl Method {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::SparseVd => "sparse-vd",
            Self::FineTune => "fine-tune",
            Self::Quantise => "quantise",
        }
    }
}

/// One phase of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// What it does.
    pub method: Method,
    /// Passes over the training data, or rounds of several passes where `steps` asks for more.
    pub epochs: u32,
    /// Steps of the whole phase, about: for a small set, an epoch is as many passes as come nearest to them, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Samples per step.
    #[serde(default = "hundred")]
    pub batch: usize,
    /// What takes the steps.
    #[serde(default, skip_serializing_if = "Optimizer::is_adam")]
    pub optimizer: Optimizer,
    /// Momentum of `sgd`.
    #[serde(default = "nine_tenths", skip_serializing_if = "is_nine_tenths")]
    pub momentum: f64,
    /// Factor on the weights, not on biases and normalisations, by which they are drawn to zero; see [`Optimizer`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub weight_decay: f64,
    /// Learning rate for weights and biases, at its highest.
    #[serde(default = "thousandth")]
    pub lr: f64,
    /// Learning rate of Adam for log sigma^2; `lr` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_log_sigma2: Option<f64>,
    /// Fraction of the phase in which the learning rates rise linearly, from a hundredth.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warmup: f64,
    /// Fraction of the phase before the learning rates fall to zero.
    #[serde(default)]
    pub hold: f64,
    /// How they fall.
    #[serde(default, skip_serializing_if = "Decay::is_linear")]
    pub decay: Decay,
    /// Pixels by which images are shifted at random, each way.
    #[serde(default)]
    pub shift: u8,
    /// Whether images are mirrored left to right with probability 1/2.
    #[serde(default, skip_serializing_if = "is_false")]
    pub flip: bool,
    /// Side in pixels of a square, at a random place of each image, that becomes zero after preprocessing (cutout: DeVries and Taylor
    /// 2017).
    #[serde(default, skip_serializing_if = "is_no_pixel")]
    pub cutout: u8,
    /// Share of each label that is spread over all classes (Szegedy et al. 2016).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub label_smoothing: f64,
    /// Decay of a moving average of all parameters, which takes their place in validation and at the end of the phase; 0 for none
    /// (Polyak and Juditsky 1992). Without noise and grids.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ema_decay: f64,
    /// log sigma^2 that weights without noise start from.
    #[serde(default = "minus_eight")]
    pub log_sigma2: f64,
    /// Factor on the KL term; 1 is the evidence lower bound.
    #[serde(default = "one")]
    pub kl_scale: f64,
    /// Epochs over which the KL term rises from zero.
    #[serde(default)]
    pub kl_warmup: f64,
    /// From the end of this epoch on, weights over `prune_threshold` are removed for good after every epoch, and units that
    /// die leave the computation; 0 removes nothing before the phase ends.
    #[serde(default)]
    pub prune_from: u32,
    /// Threshold on `log_alpha` for that, at `prune_from`.
    #[serde(default = "three")]
    pub prune_threshold: f64,
    /// Threshold on `log_alpha` for that, at the end of the phase; `prune_threshold` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prune_threshold_end: Option<f64>,
    /// Fine-tuning prunes until this many weights are left. At the end of a sparse-vd phase this many stay, those of the lowest rates; fewer where
    /// the threshold leaves fewer, and more where layers lose none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<usize>,
    /// By what the weights to remove are chosen.
    #[serde(default, skip_serializing_if = "PruneBy::is_fisher")]
    pub prune_by: PruneBy,
    /// Fraction of the phase by which they are reached.
    #[serde(default = "half")]
    pub weights_by: f64,
    /// Quantising: scales of the grids in units of the median sigma of each layer's survivors. Of several, each is trained for
    /// `epochs`, from the coarsest, until one loses no more on validation than `max_accuracy_drop`, or `max_r2_drop` of a regression, allows.
    #[serde(default = "one_sigma")]
    pub grid: Vec<f64>,
    /// Quantising: scale of a bias in units of the scale of its layer's weights.
    #[serde(default = "one")]
    pub bias_step: f64,
    /// Share of the loss that comes from the outputs of the network that the run begins with, instead of the targets.
    #[serde(default)]
    pub distil: f64,
    /// Temperature of distillation, for classes.
    #[serde(default = "two")]
    pub temperature: f64,
}

fn is_false(setting: &bool) -> bool {
    !*setting
}
fn is_no_pixel(setting: &u8) -> bool {
    *setting == 0
}
fn is_zero(setting: &f64) -> bool {
    *setting == 0.0
}
fn nine_tenths() -> f64 {
    0.9
}
fn is_nine_tenths(setting: &f64) -> bool {
    *setting == nine_tenths()
}
fn hundred() -> usize {
    100
}
/// Threshold on `log_alpha` of the paper.
pub(super) fn three() -> f64 {
    3.0
}
pub(super) fn half() -> f64 {
    0.5
}
fn thousandth() -> f64 {
    1e-3
}
fn minus_eight() -> f64 {
    -8.0
}
fn one() -> f64 {
    1.0
}
fn one_sigma() -> Vec<f64> {
    vec![1.0]
}
fn two() -> f64 {
    2.0
}

/// Most pixels that images are shifted by, each way.
pub const MAX_SHIFT: u8 = 8;

impl Phase {
    /// Whether several grids are tried, from each of which training begins at the same place.
    pub(crate) fn tries_grids(&self) -> bool {
        self.method == Method::Quantise && self.grid.len() > 1
    }

    /// A phase of that method with default settings.
    pub fn new(method: Method, epochs: u32) -> Self {
        Self {
            method,
            epochs,
            steps: None,
            batch: hundred(),
            optimizer: Optimizer::Adam,
            momentum: nine_tenths(),
            weight_decay: 0.0,
            lr: thousandth(),
            lr_log_sigma2: None,
            warmup: 0.0,
            hold: 0.0,
            decay: Decay::Linear,
            shift: 0,
            flip: false,
            cutout: 0,
            label_smoothing: 0.0,
            ema_decay: 0.0,
            log_sigma2: minus_eight(),
            kl_scale: one(),
            kl_warmup: 0.0,
            prune_from: 0,
            prune_threshold: three(),
            prune_threshold_end: None,
            weights: None,
            prune_by: PruneBy::Fisher,
            weights_by: half(),
            grid: one_sigma(),
            bias_step: one(),
            distil: 0.0,
            temperature: two(),
        }
    }

    /// The number of weights that is pruned to in the course of the phase; a sparse-vd phase removes weights at its end.
    pub(crate) fn pruned_in_steps(&self) -> Option<usize> {
        self.weights.filter(|_| self.method != Method::SparseVd)
    }

    /// Leaves the coarsest of several grids.
    pub fn keep_coarsest_grid(&mut self) {
        self.grid = self
            .grid
            .iter()
            .copied()
            .reduce(f64::max)
            .into_iter()
            .collect();
    }

    /// Samples per step of a training set of `samples`.
    pub fn batch_of(&self, samples: usize) -> usize {
        self.batch.min(samples).max(1)
    }

    /// Passes over a training set of `samples` that an epoch takes.
    pub fn passes(&self, samples: usize) -> usize {
        let of_pass = samples.max(1) as f64 / self.batch_of(samples) as f64;
        let of_epoch = f64::from(self.steps.unwrap_or(0)) / f64::from(self.epochs.max(1));
        ((of_epoch / of_pass).round() as usize).max(1)
    }

    /// Steps of an epoch over a training set of `samples`.
    pub fn steps_per_epoch(&self, samples: usize) -> usize {
        self.passes(samples) * samples / self.batch_of(samples)
    }

    /// What is done to the images.
    pub(crate) fn augmentation(&self) -> Augmentation {
        Augmentation {
            shift: self.shift,
            flip: self.flip,
            cutout: self.cutout,
        }
    }

    /// Factor on the learning rates after the fraction `t` of the phase: up to one, one, then down to zero.
    pub(crate) fn rate_factor(&self, t: f64) -> f64 {
        // At a rate of zero nothing is learned.
        const LEAST: f64 = 0.01;
        let full = self.hold.max(self.warmup);
        if t < self.warmup {
            (t / self.warmup).max(LEAST)
        } else if t <= full {
            1.0
        } else {
            self.decay.at(((1.0 - t) / (1.0 - full)).clamp(0.0, 1.0))
        }
    }

    /// That every setting is in its range, and that they go together.
    pub(super) fn check(&self) -> Result<(), CompressError> {
        range("epochs", f64::from(self.epochs), 1.0, 100_000.0)?;
        range("batch", self.batch as f64, 1.0, 65_536.0)?;
        let steps = self.steps.unwrap_or(1);
        range("steps", f64::from(steps), 1.0, 10_000_000.0)?;
        // The order of an epoch is held in memory.
        let order = f64::from(steps) / f64::from(self.epochs) * self.batch as f64;
        range("steps / epochs * batch", order, 0.0, 1e8)?;
        range("lr", self.lr, 1e-9, 1.0)?;
        range(
            "lr_log_sigma2",
            self.lr_log_sigma2.unwrap_or(self.lr),
            0.0,
            1.0,
        )?;
        range("hold", self.hold, 0.0, 1.0)?;
        range("warmup", self.warmup, 0.0, 1.0)?;
        range("shift", f64::from(self.shift), 0.0, MAX_SHIFT.into())?;
        range("momentum", self.momentum, 0.0, 0.9999)?;
        range("weight_decay", self.weight_decay, 0.0, 1.0)?;
        range("label_smoothing", self.label_smoothing, 0.0, 0.9)?;
        range("ema_decay", self.ema_decay, 0.0, 0.999_999)?;
        let averages = matches!(self.method, Method::Dense | Method::FineTune);
        if self.ema_decay > 0.0 && !averages {
            return Err(CompressError::setting(
                "ema_decay",
                "0 but in a dense or fine-tune phase",
                format!("{} in {}", self.ema_decay, self.method.name()),
            ));
        }
        self.check_optimizer()?;
        range("log_sigma2", self.log_sigma2, -20.0, 5.0)?;
        range("kl_scale", self.kl_scale, 0.0, 1000.0)?;
        range("kl_warmup", self.kl_warmup, 0.0, 100_000.0)?;
        range("prune_threshold", self.prune_threshold, -8.0, 8.0)?;
        range(
            "prune_threshold_end",
            self.prune_threshold_end.unwrap_or(0.0),
            -8.0,
            8.0,
        )?;
        range("weights", self.weights.unwrap_or(1) as f64, 1.0, 1e12)?;
        range("weights_by", self.weights_by, 0.0, 1.0)?;
        range("bias_step", self.bias_step, 1e-3, 1e3)?;
        range("grid", self.grid.len() as f64, 1.0, 32.0)?;
        for &c in &self.grid {
            range("grid", c, 1e-3, 1e3)?;
        }
        let expected = match self.method {
            Method::Dense => Some("none in a dense phase, which prunes nothing"),
            Method::SparseVd if self.kl_scale == 0.0 => {
                Some("none in a sparse-vd phase without a KL term, whose rates say nothing")
            }
            Method::SparseVd | Method::FineTune | Method::Quantise => None,
        };
        if let (Some(weights), Some(expected)) = (self.weights, expected) {
            return Err(CompressError::setting("weights", expected, weights));
        }
        range("distil", self.distil, 0.0, 1.0)?;
        range("temperature", self.temperature, 0.1, 100.0)?;
        Ok(())
    }

    /// That no setting asks for what its optimizer does not do.
    fn check_optimizer(&self) -> Result<(), CompressError> {
        let has_noise = self.method == Method::SparseVd;
        let fail =
            |name, expected: &str, got: &str| Err(CompressError::setting(name, expected, got));
        match self.optimizer {
            Optimizer::Sgd if has_noise => fail("optimizer", "adam in a sparse-vd phase", "sgd"),
            _ if has_noise && self.weight_decay > 0.0 => fail(
                "weight_decay",
                "none in a sparse-vd phase, whose KL term is in its place",
                &self.weight_decay.to_string(),
            ),
            _ => Ok(()),
        }
    }

    /// KL scale after `epoch` epochs (with fraction) of the phase.
    pub(crate) fn kl_factor(&self, epoch: f64) -> f64 {
        let warm = if self.kl_warmup > 0.0 {
            (epoch / self.kl_warmup).min(1.0)
        } else {
            1.0
        };
        self.kl_scale * warm
    }

    /// Threshold by which weights are removed after `done` epochs, or `None` where none are, as without a KL term.
    pub(crate) fn prune_threshold_after(&self, done: u32) -> Option<f64> {
        if self.method != Method::SparseVd
            || self.kl_scale == 0.0
            || self.prune_from == 0
            || done < self.prune_from
            || done >= self.epochs
        {
            return None;
        }
        let end = self.prune_threshold_end.unwrap_or(self.prune_threshold);
        let span = f64::from(self.epochs - self.prune_from).max(1.0);
        let t = f64::from(done - self.prune_from) / span;
        Some(self.prune_threshold + (end - self.prune_threshold) * t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_stay_and_fall() {
        let mut phase = Phase {
            hold: 0.5,
            ..Phase::new(Method::Dense, 10)
        };
        let factors = |phase: &Phase| [0.0, 0.1, 0.5, 0.75, 1.0].map(|t| phase.rate_factor(t));
        assert_eq!(factors(&phase), [1.0, 1.0, 1.0, 0.5, 0.0]);
        phase.warmup = 0.2;
        assert_eq!(factors(&phase), [0.01, 0.5, 1.0, 0.5, 0.0]);
        (phase.warmup, phase.hold, phase.decay) = (0.4, 0.0, Decay::Cosine);
        let half = 0.5f64.sqrt();
        for (t, want) in [
            (0.2, 0.5),
            (0.4, 1.0),
            (0.7, 0.5),
            (0.85, 0.5 - half / 2.0),
            (1.0, 0.0),
        ] {
            let got = phase.rate_factor(t);
            assert!((got - want).abs() < 1e-12, "{t}: {got}, expected {want}");
        }
    }
}
