//! Recipes: all settings that a result depends on, as TOML beside the model.

mod defaults;
mod difference;
mod gradual;
mod optimizer;
mod overrides;
mod prune_by;
mod range;
mod replace;
mod search;
mod tries;
mod validation;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_format::{MAX_TEXT, read_text};

use crate::augmentation::Augmentation;
use crate::error::CompressError;
use crate::objective::{ClassWeights, Loss};
use crate::variational::Granularity;
use range::range;

pub use optimizer::{Decay, Optimizer};
pub use overrides::Overrides;
pub use prune_by::PruneBy;
pub use search::{Goal, Search};
pub use validation::Validation;

/// How a network is trained or compressed: settings, then phases in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Data set; a relative path counts from the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Samples to choose settings by, and to measure the result on; 10,000 of the training set where absent, at most a sixth.
    #[serde(default = "ten_thousand")]
    pub validation: Validation,
    /// Weights whose `log_alpha` is above this at the end of the sparse-vd phases are removed; none where all of these have a
    /// `kl_scale` of 0.
    #[serde(default = "three")]
    pub threshold: f64,
    /// Which weights share a dropout rate.
    #[serde(default)]
    pub alpha: Granularity,
    /// Whether layers without noise compute with the weights that are left alone, where that is faster, and gradients that are
    /// mostly zero are taken as lists. The order of sums depends on it, and so do the last bits of the result.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub skip_zeros: bool,
    /// Layers that lose no weights, by the names of their nodes or of their weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_dense: Vec<String>,
    /// Points by which the validation error of the result may exceed that of the dense network.
    #[serde(default = "half")]
    pub max_accuracy_drop: f64,
    /// Regression: R2 on validation that the result may lose; 0.02 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_r2_drop: Option<f64>,
    /// Points of recall that the result may lose of any class of a classification; not limited where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_class_drop: Option<f64>,
    /// How much each class counts in the loss; by its samples where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// What training minimises; where absent, the cross-entropy for classes, and the squared error for numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Regression: standard deviation of the targets' noise, in their units. The KL term weighs against squared errors over twice
    /// its square. Where absent, the root of the mean squared error on validation of the network that the run begins with and of what
    /// `max_r2_drop` allows beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_deviation: Option<f64>,
    /// Tries several numbers of weights with the phases after the last dense or sparse-vd one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// The phases.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

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
    /// Fine-tuning prunes until this many weights are left.
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

fn yes() -> bool {
    true
}
fn is_yes(setting: &bool) -> bool {
    *setting
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
fn ten_thousand() -> Validation {
    Validation::Samples(10_000)
}
fn hundred() -> usize {
    100
}
fn three() -> f64 {
    3.0
}
fn half() -> f64 {
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

    /// That no setting asks for what its optimizer does not do.
    fn check_optimizer(&self) -> Result<(), CompressError> {
        let has_noise = self.method == Method::SparseVd;
        let by_fisher = self.weights.is_some() && self.prune_by == PruneBy::Fisher;
        let fail =
            |name, expected: &str, got: &str| Err(CompressError::setting(name, expected, got));
        match self.optimizer {
            Optimizer::Sgd if has_noise => fail("optimizer", "adam in a sparse-vd phase", "sgd"),
            Optimizer::Sgd if by_fisher => fail(
                "optimizer",
                "adam, whose moments Fisher information is taken from, or `prune_by = \"magnitude\"`",
                "sgd",
            ),
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

impl Recipe {
    /// A recipe of these phases, with default settings.
    pub fn new(phases: Vec<Phase>) -> Self {
        Self {
            data: None,
            seed: 0,
            validation: ten_thousand(),
            threshold: three(),
            alpha: Granularity::Weight,
            skip_zeros: true,
            keep_dense: vec![],
            max_accuracy_drop: half(),
            max_r2_drop: None,
            max_class_drop: None,
            class_weights: None,
            loss: None,
            target_deviation: None,
            search: None,
            phases,
        }
    }

    /// Most steps of the whole run over a training set of `samples`: a phase of several grids ends with the first that keeps the promise.
    pub fn total_steps(&self, samples: usize) -> u64 {
        let steps = |p: &Phase| u64::from(p.epochs) * p.steps_per_epoch(samples) as u64;
        let trials = |p: &Phase| match p.method {
            Method::Quantise => p.grid.len() as u64,
            Method::Dense | Method::SparseVd | Method::FineTune => 1,
        };
        self.phases.iter().map(|p| trials(p) * steps(p)).sum()
    }

    /// R2 on validation that the result of a regression may lose.
    pub fn max_r2_drop(&self) -> f64 {
        self.max_r2_drop.unwrap_or(0.02)
    }

    /// Whether rates may remove weights: without a KL term in any sparse-vd phase they say nothing.
    pub(crate) fn has_kl_term(&self) -> bool {
        let with_kl = |p: &Phase| p.method == Method::SparseVd && p.kl_scale > 0.0;
        self.phases.iter().any(with_kl)
    }

    /// Reads and checks a recipe; its data path is resolved against its folder.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, has an unknown key or a value out of range.
    pub fn read(path: &Path) -> Result<Self, CompressError> {
        let text = read_text(path, MAX_TEXT).map_err(|e| CompressError::Recipe {
            path: path.into(),
            what: e.without_path(),
        })?;
        let mut recipe = Self::from_toml(&text, path)?;
        if let Some(folder) = path.parent() {
            recipe.data = recipe.data.map(|data| folder.join(data));
            if let Validation::Data(data) = &mut recipe.validation {
                *data = folder.join(&data);
            }
        }
        Ok(recipe)
    }

    /// Reads and checks the text of a recipe, which errors say is from the file `source`.
    ///
    /// # Errors
    /// A text that is no TOML, has an unknown key or a value out of range.
    pub fn from_toml(text: &str, source: &Path) -> Result<Self, CompressError> {
        let fail = |what: String| CompressError::Recipe {
            path: source.into(),
            what,
        };
        let recipe: Self =
            toml::from_str(text).map_err(|e| fail(e.to_string().trim_end().replace('\n', " ")))?;
        recipe.check().map_err(|e| fail(e.to_string()))?;
        Ok(recipe)
    }

    /// The recipe without the places of data sets on this machine: of another data set for validation, its name is left.
    #[must_use]
    pub fn without_places(&self) -> Self {
        let mut recipe = Self {
            data: None,
            ..self.clone()
        };
        if let Validation::Data(path) = &mut recipe.validation {
            *path = path.file_name().unwrap_or_default().into();
        }
        recipe
    }

    /// The recipe without data sets, neither their places nor their names: files that were moved or renamed are the same recipe.
    #[must_use]
    pub fn without_data(&self) -> Self {
        let mut recipe = self.without_places();
        if let Validation::Data(path) = &mut recipe.validation {
            *path = PathBuf::new();
        }
        recipe
    }

    /// Whether settings are chosen on validation samples. They are then halved: one half to choose by, the other to measure the result on.
    pub fn chooses(&self) -> bool {
        let several = |p: &Phase| p.method == Method::Quantise && p.grid.len() > 1;
        self.search.is_some() || self.phases.iter().any(several)
    }

    /// Lets every phase learn from the outputs of the network that the run begins with alone, as samples without targets have nothing else.
    ///
    /// Under noise at temperature 1: there the cross-entropy against the teacher's probabilities is the expected negative
    /// log-likelihood of a label that is drawn from them, so that the KL term has its right weight beside it.
    pub fn learn_from_teacher(&mut self) {
        for phase in &mut self.phases {
            phase.distil = 1.0;
            if phase.method == Method::SparseVd {
                phase.temperature = 1.0;
            }
        }
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    /// The first setting out of range, with its name and range.
    pub fn check(&self) -> Result<(), CompressError> {
        if self.phases.is_empty() {
            return Err(CompressError::setting(
                "phase",
                "at least one [[phase]]",
                "none",
            ));
        }
        match self.validation {
            Validation::Samples(n) | Validation::FromTest { from_test: n } => {
                range("validation", n as f64, 1.0, 1e9)?;
            }
            Validation::Share(share) => range("validation", share, 1e-6, 0.9)?,
            Validation::Data(_) => {}
        }
        range("threshold", self.threshold, -8.0, 8.0)?;
        range("max_accuracy_drop", self.max_accuracy_drop, 0.0, 100.0)?;
        range("max_r2_drop", self.max_r2_drop(), 0.0, 2.0)?;
        let of_class = self.max_class_drop.unwrap_or_default();
        range("max_class_drop", of_class, 0.0, 100.0)?;
        if let Some(deviation) = self.target_deviation {
            range("target_deviation", deviation, 1e-30, 1e30)?;
        }
        for p in &self.phases {
            range("epochs", f64::from(p.epochs), 1.0, 100_000.0)?;
            range("batch", p.batch as f64, 1.0, 65_536.0)?;
            let steps = p.steps.unwrap_or(1);
            range("steps", f64::from(steps), 1.0, 10_000_000.0)?;
            // The order of an epoch is held in memory.
            let order = f64::from(steps) / f64::from(p.epochs) * p.batch as f64;
            range("steps / epochs * batch", order, 0.0, 1e8)?;
            range("lr", p.lr, 1e-9, 1.0)?;
            range("lr_log_sigma2", p.lr_log_sigma2.unwrap_or(p.lr), 0.0, 1.0)?;
            range("hold", p.hold, 0.0, 1.0)?;
            range("warmup", p.warmup, 0.0, 1.0)?;
            range("shift", f64::from(p.shift), 0.0, 8.0)?;
            range("momentum", p.momentum, 0.0, 0.9999)?;
            range("weight_decay", p.weight_decay, 0.0, 1.0)?;
            range("label_smoothing", p.label_smoothing, 0.0, 0.9)?;
            p.check_optimizer()?;
            range("log_sigma2", p.log_sigma2, -20.0, 5.0)?;
            range("kl_scale", p.kl_scale, 0.0, 1000.0)?;
            range("kl_warmup", p.kl_warmup, 0.0, 100_000.0)?;
            range("prune_threshold", p.prune_threshold, -8.0, 8.0)?;
            range(
                "prune_threshold_end",
                p.prune_threshold_end.unwrap_or(0.0),
                -8.0,
                8.0,
            )?;
            range("weights", p.weights.unwrap_or(1) as f64, 1.0, 1e12)?;
            range("weights_by", p.weights_by, 0.0, 1.0)?;
            range("bias_step", p.bias_step, 1e-3, 1e3)?;
            range("grid", p.grid.len() as f64, 1.0, 32.0)?;
            for &c in &p.grid {
                range("grid", c, 1e-3, 1e3)?;
            }
            let prunes = matches!(p.method, Method::FineTune | Method::Quantise);
            if p.weights.is_some() && !prunes {
                return Err(CompressError::setting(
                    "weights",
                    "only in a fine-tune or quantise phase",
                    p.method.name(),
                ));
            }
            range("distil", p.distil, 0.0, 1.0)?;
            range("temperature", p.temperature, 0.1, 100.0)?;
        }
        if let Some(search) = &self.search {
            search.check()?;
            self.check_search(search)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_survives_its_own_toml() {
        let mut recipe = Recipe::default_for_compression();
        assert!(recipe.to_toml().contains("validation = 10000\n"));
        for validation in [
            Validation::Samples(7),
            Validation::Share(0.25),
            Validation::Data("held/x.npz".into()),
            Validation::FromTest { from_test: 9 },
        ] {
            recipe.validation = validation;
            let toml = recipe.to_toml();
            assert_eq!(toml::from_str::<Recipe>(&toml).unwrap(), recipe, "{toml}");
        }
        recipe.data = Some("/home/me/data".into());
        recipe.validation = Validation::Data("/home/me/x.npz".into());
        let bare = recipe.without_places();
        assert_eq!(bare.validation, Validation::Data("x.npz".into()));
        assert!(!bare.to_toml().contains("/home"));
        let mut renamed = recipe.clone();
        renamed.validation = Validation::Data("/home/me/y.npz".into());
        assert_ne!(bare, renamed.without_places());
        let unnamed = recipe.without_data();
        assert_eq!(unnamed, renamed.without_data());
        renamed.validation = Validation::Samples(7);
        assert_ne!(unnamed, renamed.without_data());
        let json = serde_json::to_string(&unnamed).unwrap();
        assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), unnamed);
    }

    #[test]
    fn validation_samples_out_of_range_are_named() {
        let check = |validation: &str| {
            let text =
                format!("validation = {validation}\n[[phase]]\nmethod = \"dense\"\nepochs = 1");
            let recipe = toml::from_str::<Recipe>(&text).map_err(|e| e.to_string())?;
            recipe.check().map_err(|e| e.to_string())
        };
        assert_eq!(check("0.2"), Ok(()));
        assert_eq!(check("{ from_test = 100 }"), Ok(()));
        for (text, words) in [
            ("0", "validation: expected 1 to"),
            ("1.5", "validation: expected 0.000001 to 0.9, got 1.5"),
            ("-3", "got -3"),
            ("{ from_tst = 1 }", "a share of the training set"),
            ("true", "a share of the training set"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let mut recipe = Recipe::default_for_compression();
        recipe.phases[0].kl_scale = f64::NAN;
        assert!(
            recipe
                .check()
                .unwrap_err()
                .to_string()
                .starts_with("kl_scale: expected 0 to 1000")
        );
        let typo = "[[phase]]\nmethod = \"sparse-vd\"\nepochs = 3\nkl_scal = 2";
        assert!(
            toml::from_str::<Recipe>(typo)
                .unwrap_err()
                .to_string()
                .contains("kl_scal")
        );
    }

    #[test]
    fn schedules_have_their_corners_where_they_say() {
        let phase = Phase {
            hold: 0.5,
            kl_scale: 2.0,
            kl_warmup: 4.0,
            prune_from: 2,
            prune_threshold_end: Some(1.0),
            ..Phase::new(Method::SparseVd, 6)
        };
        let factors: Vec<f64> = [0.0, 0.5, 0.75, 1.0]
            .iter()
            .map(|&t| phase.rate_factor(t))
            .collect();
        assert_eq!(factors, [1.0, 1.0, 0.5, 0.0]);
        assert_eq!(
            [0.0, 1.0, 4.0, 9.0].map(|e| phase.kl_factor(e)),
            [0.0, 0.5, 2.0, 2.0]
        );
        assert_eq!(
            [1, 2, 4, 6].map(|e| phase.prune_threshold_after(e)),
            [None, Some(3.0), Some(2.0), None]
        );
    }

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

    #[test]
    fn settings_as_they_were_are_not_written() {
        let text = Recipe::new(vec![Phase::new(Method::Dense, 1)]).to_toml();
        for name in [
            "optimizer",
            "momentum",
            "decay",
            "\nwarmup",
            "flip",
            "cutout",
            "smoothing",
            "keep_dense",
        ] {
            assert!(!text.contains(name), "{text}");
        }
    }
}
