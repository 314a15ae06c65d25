//! Recipes and where they came from.

use std::path::Path;

use sparsevd_compressor::CompressError;
use sparsevd_compressor::recipe::{Method, Overrides, Phase, PruneBy, Recipe};
use sparsevd_model::Network;

/// The source of a recipe where none is given.
pub const DEFAULT_RECIPE: &str = "the default recipe";

/// What is expected of the recipe for a network that is pruned already.
pub const ONLY_FINE_TUNING: &str = "phases that fine-tune or quantise and prune no more, as it is decided already which weights go";
/// The source of a recipe that puts the weights of a network on grids, where none is given.
pub const DEFAULT_GRIDS: &str = "the quantise phase of the default recipe";

/// A recipe and where it came from, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundRecipe {
    /// The recipe.
    pub recipe: Recipe,
    /// A file or [`DEFAULT_RECIPE`], for instance.
    pub source: String,
}

impl FoundRecipe {
    /// The recipe of the file `named`, else `recipe.toml` beside a model, else the default.
    ///
    /// # Errors
    /// A file that cannot be read or is no recipe.
    pub fn find(
        named: Option<&Path>,
        beside: Option<&Path>,
        default: impl FnOnce() -> Recipe,
    ) -> Result<Self, CompressError> {
        let beside = beside
            .map(|model| model.with_file_name("recipe.toml"))
            .filter(|path| path.is_file());
        Ok(match named.map(Path::to_owned).or(beside) {
            Some(path) => Self {
                recipe: Recipe::read(&path)?,
                source: path.display().to_string(),
            },
            None => Self {
                recipe: default(),
                source: DEFAULT_RECIPE.into(),
            },
        })
    }

    /// The recipe with some settings replaced, checked, from the same source.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn with(self, overrides: &Overrides) -> Result<Self, CompressError> {
        Ok(Self {
            recipe: self.recipe.with(overrides)?,
            ..self
        })
    }

    /// The recipe with gradual pruning in the place of Sparse VD, from `network` to `weights` or what the recipe has; see
    /// [`Recipe::gradual`].
    ///
    /// # Errors
    /// As [`Recipe::gradual`].
    pub fn gradual(
        self,
        prune_by: PruneBy,
        network: &Network,
        weights: Option<usize>,
    ) -> Result<Self, CompressError> {
        Ok(Self {
            recipe: self.recipe.gradual(prune_by, network.nonzeros(), weights)?,
            ..self
        })
    }

    /// The part of the recipe that can train a network that is pruned already, and what is left out for that.
    ///
    /// It is fine-tuning and quantising: how many weights are left is decided. The teacher is the network before it was pruned. Of several grids, which only the dense network could choose among, the finest is left. Of the default recipe,
    /// which the user did not choose, the quantise phase with one grid is left, which then learns from the labels alone. The source says what was left out.
    pub fn fine_tuning(mut self) -> (Self, Vec<String>) {
        let phases = &mut self.recipe.phases;
        let searched = self.recipe.search.take().is_some();
        if self.source == DEFAULT_RECIPE {
            phases.retain(|p| p.method == Method::Quantise);
            phases.iter_mut().for_each(|p| p.distil = 0.0);
            phases.iter_mut().for_each(Phase::keep_coarsest_grid);
            // They would be folded before the first step.
            self.recipe.batch_normalisation = false;
            self.source = DEFAULT_GRIDS.into();
            return (self, vec![]);
        }
        let tunes = |p: &Phase| matches!(p.method, Method::FineTune | Method::Quantise);
        let mut left_out = vec![];
        if searched {
            left_out.push("`search`".to_owned());
        }
        for (i, phase) in phases.iter_mut().enumerate() {
            let which = format!("phase {} ({})", i + 1, phase.method.name());
            if !tunes(phase) {
                left_out.push(which);
                continue;
            }
            if phase.grid.len() > 1 {
                let finest = phase.grid.iter().copied().reduce(f64::min);
                phase.grid = finest.into_iter().collect();
                left_out.push(format!("all but one `grid` of {which}"));
            }
            if phase.weights.take().is_some() {
                left_out.push(format!("`weights` of {which}"));
            }
        }
        phases.retain(tunes);
        if !left_out.is_empty() {
            self.source = format!("{}, without {}", self.source, left_out.join(", "));
        }
        (self, left_out)
    }
}

impl From<Recipe> for FoundRecipe {
    fn from(recipe: Recipe) -> Self {
        Self {
            recipe,
            source: "the program".into(),
        }
    }
}
