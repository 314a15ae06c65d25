//! Gradual pruning: baselines that a recipe of Sparse VD can be held against.

use super::{Goal, Method, Phase, PruneBy, Recipe};
use crate::error::CompressError;
use crate::variational::Granularity;

impl Recipe {
    /// The recipe with gradual pruning in the place of Sparse VD: a baseline of the same epochs, batches, augmentation, optimizer,
    /// learning rates and distillation.
    ///
    /// Every `sparse-vd` phase becomes a `fine-tune` phase. These phases, and those that prune to `weights` already, remove weights by
    /// `prune_by` until `weights` are left, else as many as the recipe's goal or the last of its phases says. Nothing is searched. From
    /// phase to phase the number left falls from `dense`, the weights of the network, as the cube of the epochs of pruning that are to
    /// come (Zhu and Gupta 2017).
    ///
    /// # Errors
    /// A recipe without a number of weights, where none is given, or with a goal in bytes, which takes a search; one without a phase that
    /// could prune.
    pub fn gradual(
        mut self,
        prune_by: PruneBy,
        dense: usize,
        weights: Option<usize>,
    ) -> Result<Self, CompressError> {
        let prunes = |p: &Phase| p.method == Method::SparseVd || p.weights.is_some();
        let pruning = |p: &Phase| {
            let share = match p.method {
                Method::SparseVd => 1.0,
                Method::Dense | Method::FineTune | Method::Quantise => p.weights_by,
            };
            f64::from(p.epochs) * share
        };
        let goal = self.search.take().map(|search| search.goal());
        let by_goal = match goal {
            Some(Goal::Weights(weights)) => Some(weights),
            Some(Goal::Ratio(ratio)) => Some((dense as f64 / ratio).round() as usize),
            Some(Goal::Bytes(bytes)) if weights.is_none() => {
                let expected = "a ratio or a number of weights, as bytes take a search";
                let got = format!("{bytes} bytes");
                return Err(CompressError::setting("goal", expected, got));
            }
            Some(Goal::Promise | Goal::Bytes(_)) | None => None,
        };
        let of_phases = || self.phases.iter().rev().find_map(|p| p.weights);
        let target = weights.or(by_goal).or_else(of_phases);
        let target = target.ok_or_else(|| {
            let expected = "a ratio or a number to be left as goal, or in a phase";
            CompressError::setting("weights", expected, "none")
        })?;
        if !self.phases.iter().any(prunes) {
            let expected = "a sparse-vd phase, or a fine-tune phase with `weights`";
            return Err(CompressError::setting("phase", expected, "neither"));
        }
        let all: f64 = self.phases.iter().filter(|p| prunes(p)).map(pruning).sum();
        let mut done = 0.0;
        for phase in self.phases.iter_mut().filter(|p| prunes(p)) {
            done += pruning(phase);
            let to_come = (1.0 - done / all.max(1e-9)).clamp(0.0, 1.0);
            let more = dense.saturating_sub(target) as f64 * to_come.powi(3);
            if phase.method == Method::SparseVd {
                let plain = Phase::new(Method::FineTune, phase.epochs);
                *phase = Phase {
                    method: Method::FineTune,
                    lr_log_sigma2: None,
                    log_sigma2: plain.log_sigma2,
                    kl_scale: plain.kl_scale,
                    kl_warmup: plain.kl_warmup,
                    prune_from: plain.prune_from,
                    prune_threshold: plain.prune_threshold,
                    prune_threshold_end: None,
                    weights_by: 1.0,
                    ..phase.clone()
                };
            }
            phase.weights = Some(target + more.round() as usize);
            phase.prune_by = prune_by;
        }
        self.alpha = Granularity::Weight;
        self.check()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Search;
    use super::*;

    #[test]
    fn gradual_pruning_takes_the_place_of_sparse_vd() {
        let mut recipe = Recipe::default_for_compression();
        let error = recipe.clone().gradual(PruneBy::Fisher, 1000, None);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("weights: expected a ratio"), "{error}");
        recipe.search = Some(Search::towards(Goal::Bytes(900)));
        recipe.phases[2].weights = Some(100);
        let error = recipe.clone().gradual(PruneBy::Fisher, 1000, None);
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("got 900 bytes"), "{error}");
        recipe.phases[2].weights = None;
        recipe.search = Some(Search::towards(Goal::Ratio(11.0)));
        let by_goal = recipe.clone().gradual(PruneBy::Fisher, 1100, None).unwrap();
        assert_eq!(by_goal.phases[1].weights, Some(100));
        assert_eq!(by_goal.search, None);
        recipe.search = None;
        recipe.phases.truncate(3);
        recipe.phases[2].weights = Some(100);
        let gradual = |weights| {
            let recipe = recipe.clone().gradual(PruneBy::Magnitude, 1100, weights);
            recipe.unwrap()
        };
        let got = gradual(None);
        for (new, old) in got.phases.iter().zip(&recipe.phases) {
            assert_eq!(
                (new.method, new.prune_by),
                (Method::FineTune, PruneBy::Magnitude)
            );
            assert_eq!(
                (new.epochs, new.steps, new.batch),
                (old.epochs, old.steps, old.batch)
            );
            assert_eq!((new.lr, new.hold, new.kl_scale), (old.lr, old.hold, 1.0));
        }
        // Of 16 + 12 + 8 epochs of pruning, 20, 8 and 0 are to come.
        let left = |t: f64| Some(100 + (1000.0 * t.powi(3)).round() as usize);
        let weights: Vec<Option<usize>> = got.phases.iter().map(|p| p.weights).collect();
        assert_eq!(weights, [left(20.0 / 36.0), left(8.0 / 36.0), Some(100)]);
        assert_eq!(gradual(Some(50)).phases[2].weights, Some(50));
        assert_eq!(
            got.clone().gradual(PruneBy::Magnitude, 1100, None).unwrap(),
            got
        );
        // A phase that prunes as before is written as before.
        let text = recipe.to_toml();
        assert!(!text.contains("prune_by") && got.to_toml().contains("prune_by = \"magnitude\""));
        assert_eq!(toml::from_str::<Recipe>(&got.to_toml()).unwrap(), got);
    }
}
