//! A recipe with some settings replaced.

use super::range::range;
use super::{Method, Overrides, Recipe};
use crate::error::CompressError;

impl Recipe {
    /// The recipe with some settings replaced, checked.
    ///
    /// # Errors
    /// The first setting out of range.
    pub fn with(mut self, overrides: &Overrides) -> Result<Self, CompressError> {
        let Overrides {
            seed,
            validation,
            threshold,
            kl_scale,
            alpha,
            keep_dense,
            max_accuracy_drop,
            min_agreement,
            max_r2_drop,
            max_class_drop,
            class_weights,
            epochs,
            int8,
            goal,
        } = overrides.clone();
        self.seed = seed.unwrap_or(self.seed);
        self.validation = validation.unwrap_or(self.validation);
        self.alpha = alpha.unwrap_or(self.alpha);
        self.keep_dense = keep_dense.unwrap_or(self.keep_dense);
        self.max_accuracy_drop = max_accuracy_drop.unwrap_or(self.max_accuracy_drop);
        if let Some(percent) = min_agreement {
            range("min_agreement", percent, 0.0, 100.0)?;
            // As it would be written: 100 - 99.3 is 0.7000000000000028.
            self.max_accuracy_drop = ((100.0 - percent) * 1e9).round() / 1e9;
        }
        self.max_r2_drop = max_r2_drop.or(self.max_r2_drop);
        self.max_class_drop = max_class_drop.or(self.max_class_drop);
        self.class_weights = class_weights.or(self.class_weights);
        for phase in &mut self.phases {
            if let Some(epochs) = epochs {
                (phase.epochs, phase.steps) = (epochs, None);
            }
            if phase.method == Method::SparseVd {
                phase.kl_scale = kl_scale.unwrap_or(phase.kl_scale);
            }
            if let Some(t) = threshold {
                phase.prune_threshold = phase.prune_threshold.max(t);
                phase.prune_threshold_end = phase.prune_threshold_end.map(|end| end.max(t));
            }
        }
        self.threshold = threshold.unwrap_or(self.threshold);
        if int8 {
            self.quantise_activations.get_or_insert_default();
        }
        if let Some(goal) = goal {
            self.search.get_or_insert_default().set_goal(goal);
        }
        self.check()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_checked_and_pruning_on_the_way_respects_the_threshold() {
        let recipe = Recipe::default_for_compression;
        let changed = recipe()
            .with(&Overrides {
                threshold: Some(4.0),
                kl_scale: Some(0.5),
                seed: Some(7),
                ..Overrides::default()
            })
            .unwrap();
        assert_eq!((changed.threshold, changed.seed), (4.0, 7));
        assert!(changed.phases.iter().all(|p| p.prune_threshold >= 4.0));
        let scales: Vec<f64> = changed.phases.iter().map(|p| p.kl_scale).collect();
        assert_eq!(
            scales,
            [0.5, 0.5, 1.0, 1.0],
            "only where there is a KL term"
        );
        let bad = recipe().with(&Overrides {
            threshold: Some(99.0),
            ..Overrides::default()
        });
        assert_eq!(
            bad.unwrap_err().to_string(),
            "threshold: expected -8 to 8, got 99"
        );
        assert_eq!(recipe().with(&Overrides::default()).unwrap(), recipe());
    }
}
