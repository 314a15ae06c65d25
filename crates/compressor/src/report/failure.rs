//! Where a result is not what it should be.

use super::accuracy::Accuracy;
use super::compression::{Pruning, Report};
use super::promise::Verdict;
use crate::recipe::Method;
use crate::trainer::LayerRecord;
use crate::variational::Granularity;

impl Report {
    /// What is wrong with the result, in sentences with what would help: a network that is constant, a goal of the search that is missed,
    /// a broken promise.
    pub fn failures(&self) -> Vec<String> {
        let (output, more) = (self.output.display(), self.keeps_more());
        let mut failures = vec![];
        if self.summary.nonzeros == 0 {
            failures.push(format!(
                "no weight is left: {output} gives the same outputs for every input; {more} keeps weights"
            ));
        }
        if let Some(missed) = self.search.as_ref().and_then(|s| s.missed.as_ref()) {
            failures.push(format!(
                "the goal is missed: {missed}; {output} was written all the same"
            ));
        }
        if let Some(accuracy) = self.with_verdict(Verdict::Broken) {
            failures.push(format!(
                "the accuracy promise is broken: {accuracy}; {output} was written all the same; {more} keeps more weights"
            ));
        }
        failures
    }

    /// What is to be said of a promise that the samples are too few to decide.
    pub fn undecided(&self) -> Option<String> {
        let accuracy = self.with_verdict(Verdict::Undecided)?;
        let output = self.output.display();
        Some(format!(
            "the accuracy promise is undecided: {accuracy}; {output} was written; --validation takes more samples"
        ))
    }

    /// The accuracy, where this is the verdict on its promise.
    fn with_verdict(&self, verdict: Verdict) -> Option<&Accuracy> {
        let accuracy = self.accuracy.as_ref();
        accuracy.filter(|a| a.promise.verdict == verdict)
    }

    /// Why Sparse VD removed no weight, where it removed none.
    pub(super) fn nothing_removed(&self) -> Option<String> {
        let phases = self.recipe.phases.iter();
        let mut scales = phases.filter(|p| p.method == Method::SparseVd);
        let nothing = self.summary.nonzeros == self.summary.weights;
        if self.pruning.is_some() || !nothing || scales.clone().next().is_none() {
            return None;
        }
        if scales.all(|p| p.kl_scale == 0.0) {
            return Some("`kl_scale` is 0, and without a KL term rates say nothing".into());
        }
        let threshold = self.recipe.threshold;
        let mut why = format!("no log alpha is above the threshold {threshold}");
        let noisy = |layer: &&LayerRecord| !layer.log_alpha_histogram.is_empty();
        let epoch = self
            .history
            .iter()
            .rev()
            .find(|e| e.layers.iter().any(|l| noisy(&l)));
        let layers = epoch
            .into_iter()
            .flat_map(|e| e.layers.iter().filter(noisy));
        let highest = |l: &LayerRecord| l.log_alpha_histogram.iter().rposition(|n| *n > 0);
        if let Some((bin, layer)) = layers
            .filter_map(|l| Some((highest(l)?, l)))
            .max_by_key(|h| h.0)
        {
            // Bins of half a nat from -8.
            let end = -8.0 + 0.5 * (bin + 1) as f64;
            why += &format!("; the highest, of `{}`, are under {end}", layer.node);
        }
        match self.recipe.alpha {
            Granularity::Weight => {}
            Granularity::Unit => why += "; all weights of a unit share one",
            Granularity::Layer => why += "; all weights of a layer share one",
        }
        Some(why + "; a higher --kl-scale or a lower --threshold removes more")
    }

    /// The setting that keeps more weights, of those that this network was pruned by.
    fn keeps_more(&self) -> String {
        match self.pruning {
            Some(Pruning::Magnitude(_) | Pruning::Calibration(_)) => {
                return "a lower --sparsity".into();
            }
            Some(Pruning::Posterior { .. }) => return "a higher --threshold".into(),
            None => {}
        }
        let phases = &self.recipe.phases;
        let mut settings = vec![];
        if let Some(weights) = phases.iter().rev().find_map(|p| p.weights) {
            settings.push(match self.search {
                Some(_) => format!("--weights over {weights}"),
                None => format!("more than {weights} `weights` in the recipe"),
            });
        }
        if phases.iter().any(|p| p.method == Method::SparseVd) {
            settings.extend(["a lower --kl-scale".into(), "a higher --threshold".into()]);
        }
        match settings.split_last() {
            None => "a longer recipe".into(),
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
        }
    }
}
