//! The search for how many weights are left.

use serde::{Deserialize, Serialize};

use super::{Method, Recipe};
use crate::error::CompressError;

/// Number of tries where a recipe does not say it.
const TRIES: u32 = 7;

/// A search for the number of weights that are left.
///
/// The phases up to the last `dense` or `sparse-vd` one, which make the posterior, are trained once. From there the later phases are tried
/// with several numbers of weights. The result is the try with the fewest that keep the promise about the validation samples, or the one
/// that reaches a goal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Most tries.
    #[serde(default = "tries")]
    pub tries: u32,
    /// Goal: weights of the original network over weights left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Goal: weights left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<usize>,
    /// Goal: most bytes of the packed file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a search is to reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The fewest weights that keep the promise about the validation samples.
    Promise,
    /// This ratio of the original weights to those left.
    Ratio(f64),
    /// This many weights.
    Weights(usize),
    /// The most weights whose packed file has at most this many bytes.
    Bytes(u64),
}

impl Goal {
    /// The first goal that is given.
    pub fn of(ratio: Option<f64>, weights: Option<usize>, bytes: Option<u64>) -> Option<Self> {
        let of_weights = ratio.map(Self::Ratio).or(weights.map(Self::Weights));
        of_weights.or(bytes.map(Self::Bytes))
    }
}

fn tries() -> u32 {
    TRIES
}

impl Default for Search {
    fn default() -> Self {
        Self::towards(Goal::Promise)
    }
}

impl Search {
    /// A search for this goal.
    pub fn towards(goal: Goal) -> Self {
        let mut search = Self {
            tries: TRIES,
            ratio: None,
            weights: None,
            bytes: None,
        };
        search.set_goal(goal);
        search
    }

    /// What it is to reach.
    pub fn goal(&self) -> Goal {
        Goal::of(self.ratio, self.weights, self.bytes).unwrap_or(Goal::Promise)
    }

    /// Replaces what it is to reach.
    pub fn set_goal(&mut self, goal: Goal) {
        (self.ratio, self.weights, self.bytes) = match goal {
            Goal::Promise => (None, None, None),
            Goal::Ratio(ratio) => (Some(ratio), None, None),
            Goal::Weights(weights) => (None, Some(weights), None),
            Goal::Bytes(bytes) => (None, None, Some(bytes)),
        };
    }

    /// Checks every setting against its range, and that `recipe` has phases to search with.
    pub(super) fn check(&self, recipe: &Recipe) -> Result<(), CompressError> {
        super::range("search.tries", f64::from(self.tries), 1.0, 100.0)?;
        super::range("search.ratio", self.ratio.unwrap_or(1.0), 1.0, 1e9)?;
        let weights = self.weights.unwrap_or(1);
        super::range("search.weights", weights as f64, 1.0, 1e12)?;
        super::range("search.bytes", self.bytes.unwrap_or(1) as f64, 1.0, 1e12)?;
        let goals = [
            self.ratio.is_some(),
            self.weights.is_some(),
            self.bytes.is_some(),
        ];
        let given = goals.iter().filter(|given| **given).count();
        if given > 1 {
            let expected = "at most one of ratio, weights and bytes";
            return Err(CompressError::setting("search", expected, given));
        }
        if recipe.tuning().is_none() {
            let expected = "a fine-tune phase behind the last sparse-vd phase, for `search` to set its `weights`";
            return Err(CompressError::setting("phase", expected, "none"));
        }
        if matches!(self.goal(), Goal::Bytes(_)) && !recipe.ends_on_grids() {
            let expected =
                "a quantise phase at the end, as the goal is a number of bytes of the packed file";
            return Err(CompressError::setting("phase", expected, "none"));
        }
        Ok(())
    }
}

impl Recipe {
    /// Place of the first phase behind those that make the posterior: a search tries it and those behind it.
    pub fn behind_posterior(&self) -> usize {
        let makes = |m: Method| matches!(m, Method::Dense | Method::SparseVd);
        let last = self.phases.iter().rposition(|p| makes(p.method));
        last.map_or(0, |last| last + 1)
    }

    /// Place of the fine-tune phase that a search sets the number of weights of.
    fn tuning(&self) -> Option<usize> {
        let behind = self.behind_posterior();
        let tunes = |m: Method| m == Method::FineTune;
        let place = self.phases[behind..].iter().position(|p| tunes(p.method));
        place.map(|place| behind + place)
    }

    /// Whether the weights are on grids at the end, as a packed file stores them.
    pub fn ends_on_grids(&self) -> bool {
        let last = self.phases.last();
        last.is_some_and(|p| p.method == Method::Quantise)
    }

    /// The recipe of one try: without a search, `weights` left, the KL terms times `kl_scale`.
    #[must_use]
    pub fn of_try(&self, kl_scale: f64, weights: usize) -> Self {
        let mut recipe = self.clone();
        recipe.search = None;
        let tuning = self.tuning();
        for (place, phase) in recipe.phases.iter_mut().enumerate() {
            if phase.method == Method::SparseVd {
                phase.kl_scale *= kl_scale;
            }
            if Some(place) == tuning {
                phase.weights = Some(weights);
            }
        }
        recipe
    }
}

#[cfg(test)]
mod tests {
    use super::super::Phase;
    use super::*;

    fn recipe(methods: &[Method]) -> Recipe {
        Recipe {
            search: Some(Search::default()),
            ..Recipe::new(methods.iter().map(|&m| Phase::new(m, 1)).collect())
        }
    }

    #[test]
    fn a_try_is_the_recipe_with_a_number_of_weights() {
        use Method::{Dense, FineTune, Quantise, SparseVd};
        let searched = recipe(&[SparseVd, FineTune, SparseVd, FineTune, Quantise]);
        assert_eq!(searched.behind_posterior(), 3);
        let of_try = searched.of_try(0.25, 70);
        let weights: Vec<_> = of_try.phases.iter().map(|p| p.weights).collect();
        assert_eq!(weights, [None, None, None, Some(70), None]);
        let scales: Vec<_> = of_try.phases.iter().map(|p| p.kl_scale).collect();
        assert_eq!(scales, [0.25, 1.0, 0.25, 1.0, 1.0]);
        assert_eq!(of_try.search, None);
        of_try.check().unwrap();
        assert_eq!(recipe(&[FineTune]).behind_posterior(), 0);
        assert_eq!(recipe(&[Dense, FineTune]).behind_posterior(), 1);
    }

    #[test]
    fn a_search_needs_a_phase_to_search_with_and_one_goal() {
        use Method::{FineTune, Quantise, SparseVd};
        let check = |methods: &[Method], search: Search| {
            let mut recipe = recipe(methods);
            recipe.search = Some(search);
            recipe.check().map_err(|e| e.to_string())
        };
        let all = [SparseVd, FineTune, Quantise];
        for goal in [
            Goal::Promise,
            Goal::Ratio(20.0),
            Goal::Weights(7),
            Goal::Bytes(900),
        ] {
            let search = Search::towards(goal);
            assert_eq!(search.goal(), goal);
            check(&all, search).unwrap();
        }
        let error = check(&[FineTune, SparseVd, Quantise], Search::default()).unwrap_err();
        assert!(error.contains("a fine-tune phase behind"), "{error}");
        let error = check(&all[..2], Search::towards(Goal::Bytes(1))).unwrap_err();
        assert!(error.contains("a quantise phase at the end"), "{error}");
        let mut two = Search::towards(Goal::Ratio(2.0));
        two.weights = Some(3);
        let error = check(&all, two).unwrap_err();
        assert!(error.contains("at most one of ratio"), "{error}");
        let error = check(&all, Search::towards(Goal::Ratio(0.5))).unwrap_err();
        assert!(error.contains("search.ratio: expected 1 to"), "{error}");
    }

    #[test]
    fn a_recipe_names_its_search_in_toml() {
        let text = "[search]\nratio = 50.0\n\n[[phase]]\nmethod = \"fine-tune\"\nepochs = 3\n";
        let recipe: Recipe = toml::from_str(text).unwrap();
        assert_eq!(recipe.search, Some(Search::towards(Goal::Ratio(50.0))));
        assert_eq!(toml::from_str::<Recipe>(&recipe.to_toml()).unwrap(), recipe);
        let typo = text.replace("ratio", "ration");
        assert!(toml::from_str::<Recipe>(&typo).is_err());
    }
}
