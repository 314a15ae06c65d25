//! The phases that a search trains once, and those that it tries.

use super::{Goal, Method, Phase, Recipe, Search};
use crate::error::CompressError;

impl Recipe {
    /// Checks that there are phases to search with, and that no other one behind the posterior prunes.
    pub(super) fn check_search(&self, search: &Search) -> Result<(), CompressError> {
        let Some(tuning) = self.tuning() else {
            let expected = "a fine-tune phase behind the last sparse-vd phase, for `search` to set its `weights`";
            return Err(CompressError::setting("phase", expected, "none"));
        };
        // More careful posteriors would leave no more weights than one that says how many.
        let decides = |place: usize, p: &Phase| {
            place >= self.behind_posterior() || p.method == Method::SparseVd
        };
        let mut phases = self.phases.iter().enumerate();
        let fixed =
            phases.find(|(place, p)| *place != tuning && p.weights.is_some() && decides(*place, p));
        if let Some((place, phase)) = fixed {
            let (tuning, place) = (tuning + 1, place + 1);
            let expected = format!(
                "none in a sparse-vd phase or behind the posterior but in phase {tuning}, where each try sets its own"
            );
            let weights = phase.weights.unwrap_or_default();
            let got = format!("{weights} in phase {place} ({})", phase.method.name());
            return Err(CompressError::setting("weights", expected, got));
        }
        if matches!(search.goal(), Goal::Bytes(_)) && !self.ends_on_grids() {
            let expected =
                "a quantise phase at the end, as the goal is a number of bytes of the packed file";
            return Err(CompressError::setting("phase", expected, "none"));
        }
        Ok(())
    }

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

    /// The recipe of one try: without a search, `weights` left, the KL terms times `kl_scale`; towards a goal in bytes, which would not grow
    /// with the weights on a finer grid, with the coarsest grid alone.
    #[must_use]
    pub fn of_try(&self, kl_scale: f64, weights: usize) -> Self {
        let mut recipe = self.clone();
        let goal = recipe.search.take().map(|search| search.goal());
        if matches!(goal, Some(Goal::Bytes(_))) {
            recipe.phases.iter_mut().for_each(Phase::keep_coarsest_grid);
        }
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
        let grids = |search| {
            let mut recipe = recipe(&[SparseVd, FineTune, Quantise]);
            recipe.search = Some(search);
            recipe.phases[2].grid = vec![0.3, 1.0];
            recipe.of_try(1.0, 70).phases[2].grid.clone()
        };
        assert_eq!(grids(Search::default()), [0.3, 1.0]);
        assert_eq!(grids(Search::towards(Goal::Bytes(70))), [1.0]);
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
        let mut fixed = recipe(&[SparseVd, FineTune, FineTune, Quantise]);
        fixed.phases[1].weights = Some(90);
        fixed.check().unwrap();
        for (place, method) in [(0, SparseVd), (2, FineTune), (3, Quantise)] {
            let mut fixed = fixed.clone();
            fixed.phases[place].weights = Some(80);
            let error = fixed.check().unwrap_err().to_string();
            let end = format!("got 80 in phase {} ({})", place + 1, method.name());
            let start = "weights: expected none in a sparse-vd phase or behind the posterior but in phase 2,";
            assert!(error.starts_with(start) && error.ends_with(&end), "{error}");
            fixed.search = None;
            fixed.check().unwrap();
        }
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
