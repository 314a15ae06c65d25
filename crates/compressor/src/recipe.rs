//! Recipes: all settings that a result depends on, as TOML beside the model.

mod augment;
mod defaults;
mod difference;
mod gradual;
mod optimizer;
mod overrides;
mod phase;
mod prune_by;
mod quantise_activations;
mod range;
mod replace;
mod search;
mod tries;
mod validation;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sparsevd_format::{MAX_TEXT, read_text};

use crate::error::CompressError;
use crate::objective::{ClassWeights, Loss};
use crate::variational::Granularity;
use phase::{half, three};
use range::range;

pub use augment::Augment;
pub use optimizer::{Decay, Optimizer};
pub use overrides::Overrides;
pub use phase::{MAX_SHIFT, Method, Phase};
pub use prune_by::PruneBy;
pub use quantise_activations::{QuantiseActivations, RangeChoice};
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
    /// What decides how images are augmented, besides the settings of each phase.
    #[serde(default, skip_serializing_if = "Augment::is_none")]
    pub augment: Augment,
    /// Whether convolutions train with a batch normalisation after them, as they did before it was folded: compression puts it there, with
    /// the statistics of training samples, and folds it at the end, or before the first quantise phase.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch_normalisation: bool,
    /// Whether tables of embeddings stay as they are: their gradients are as large as they, while a step reads few of their rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub freeze_embeddings: bool,
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
    /// Int8 layers at the end; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantise_activations: Option<QuantiseActivations>,
    /// The phases.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
}

fn yes() -> bool {
    true
}
fn is_yes(setting: &bool) -> bool {
    *setting
}
fn ten_thousand() -> Validation {
    Validation::Samples(10_000)
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
            augment: Augment::None,
            batch_normalisation: false,
            freeze_embeddings: false,
            keep_dense: vec![],
            max_accuracy_drop: half(),
            max_r2_drop: None,
            max_class_drop: None,
            class_weights: None,
            loss: None,
            target_deviation: None,
            search: None,
            quantise_activations: None,
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

    /// Whether batch normalisations are parts of layers where this many phases have begun: from the beginning of the first quantise phase,
    /// whose grids are those of the weights that are written.
    pub(crate) fn folds_at(&self, begun: usize) -> bool {
        let mut phases = self.phases.iter().take(begun);
        phases.any(|p| p.method == Method::Quantise)
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
        self.phases.iter().try_for_each(Phase::check)?;
        let ranks = |p: &Phase| p.method == Method::SparseVd && p.weights.is_some();
        if self.alpha != Granularity::Weight && self.phases.iter().any(ranks) {
            let expected =
                "a rate for each weight (`weight`), where a sparse-vd phase says how many stay";
            let alpha = serde_json::to_string(&self.alpha).unwrap_or_default();
            return Err(CompressError::setting("alpha", expected, alpha));
        }
        let augmented = |p: &Phase| p.shift > 0 || p.flip;
        if let (Augment::Measured, Some(phase)) =
            (self.augment, self.phases.iter().position(augmented))
        {
            let (method, phase) = (self.phases[phase].method.name(), phase + 1);
            return Err(CompressError::setting(
                "augment",
                "none beside the `shift` or `flip` of a phase",
                format!("measured, and one of these in phase {phase} ({method})"),
            ));
        }
        if let Some(search) = &self.search {
            search.check()?;
            self.check_search(search)?;
        }
        if let Some(settings) = &self.quantise_activations {
            settings.check(self.ends_on_grids())?;
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
    fn augmentation_is_measured_or_said() {
        let mut recipe = Recipe::default_for_compression();
        assert!(recipe.to_toml().contains("augment = \"measured\"\n"));
        assert!(!Recipe::default_for_training().to_toml().contains("augment"));
        recipe.phases[2].flip = true;
        let error = recipe.check().unwrap_err().to_string();
        let expected = "augment: expected none beside the `shift` or `flip` of a phase, got measured, and one of these in phase 3 (fine-tune)";
        assert!(error.starts_with(expected), "{error}");
        recipe.augment = Augment::None;
        recipe.check().unwrap();
    }

    #[test]
    fn normalisations_are_asked_for() {
        let mut recipe = Recipe::default_for_compression();
        assert!(!recipe.to_toml().contains("batch_normalisation"));
        recipe.batch_normalisation = true;
        recipe.check().unwrap();
        let toml = recipe.to_toml();
        assert_eq!(toml::from_str::<Recipe>(&toml).unwrap(), recipe, "{toml}");
    }

    #[test]
    fn a_number_of_weights_is_for_phases_that_rank_them() {
        let check = |settings: &str| {
            let text = format!("{settings}\nepochs = 1\nweights = 9");
            let recipe = toml::from_str::<Recipe>(&text).map_err(|e| e.to_string())?;
            recipe.check().map_err(|e| e.to_string())
        };
        for method in ["sparse-vd", "fine-tune", "quantise"] {
            assert_eq!(check(&format!("[[phase]]\nmethod = \"{method}\"")), Ok(()));
        }
        for (settings, words) in [
            (
                "[[phase]]\nmethod = \"dense\"",
                "weights: expected none in a dense phase",
            ),
            (
                "[[phase]]\nmethod = \"sparse-vd\"\nkl_scale = 0.0",
                "weights: expected none in a sparse-vd phase without a KL term",
            ),
            (
                "alpha = \"unit\"\n[[phase]]\nmethod = \"sparse-vd\"",
                "alpha: expected a rate for each weight",
            ),
        ] {
            let error = check(settings).unwrap_err();
            assert!(error.contains(words), "{settings}: {error}");
        }
    }

    #[test]
    fn int8_layers_are_asked_for() {
        let mut recipe = Recipe::default_for_compression();
        assert!(!recipe.to_toml().contains("quantise_activations"));
        let text =
            "[[phase]]\nmethod = \"fine-tune\"\nepochs = 3\n[quantise_activations]\nepochs = 2";
        let read = toml::from_str::<Recipe>(text).unwrap();
        read.check().unwrap();
        let settings = QuantiseActivations {
            epochs: 2,
            ..QuantiseActivations::default()
        };
        assert_eq!(read.quantise_activations, Some(settings.clone()));
        assert_eq!(toml::from_str::<Recipe>(&read.to_toml()).unwrap(), read);
        recipe.quantise_activations = Some(settings);
        let error = recipe.check().unwrap_err().to_string();
        let expected = "quantise_activations.epochs: expected 0 after a quantise phase";
        assert!(error.starts_with(expected), "{error}");
        recipe.quantise_activations = Some(QuantiseActivations::default());
        recipe.check().unwrap();
        let typo = text.replace("epochs = 2", "epoch = 2");
        assert!(
            toml::from_str::<Recipe>(&typo)
                .unwrap_err()
                .to_string()
                .contains("epoch")
        );
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
