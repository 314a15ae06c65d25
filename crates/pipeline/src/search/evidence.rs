//! What validation samples say of a try, and whether it is enough to go by.

use sparsevd_compressor::report::{ClassError, Promise, SplitScore, Verdict};

/// Factor on the KL terms of the next posterior where the samples nearly tell what the last one costs.
const HALF: f64 = 0.5;
/// The same where they do not, or were not asked.
pub(super) const QUARTER: f64 = 0.25;

/// What the validation samples say of a try.
pub(super) struct Evidence {
    /// Whether they tell what it costs in the score.
    score_tells: bool,
    /// Whether four times as many would.
    score_nearly_tells: bool,
    /// Whether they tell what it costs in balanced errors.
    classes_tell: bool,
    /// Whether it costs no more than is allowed, and balanced errors do not contradict.
    allowed: bool,
    /// Whether it costs nothing, or one standard error less than is allowed.
    with_spare: bool,
    /// Whether it costs more than is allowed, by a standard error or more, or no number.
    lost: bool,
}

impl Evidence {
    /// Errors and balanced errors both count: a class with few samples is lost without a trace in the errors.
    pub fn new(promise: &Promise, validation: &SplitScore, classes: &[ClassError]) -> Self {
        let most = promise.allowed;
        let estimate = validation.estimate();
        let score = (estimate.drop, estimate.standard_error);
        let resolution = promise.resolution();
        let balanced = ClassError::balanced(classes);
        let tells = |(_, error): (f64, f64)| error <= resolution;
        let spares = |(drop, error): (f64, f64)| drop <= 0.0 || drop + error <= most;
        // Of a drop that is no number all comparisons are false.
        let may_fit = |(drop, error): (f64, f64)| drop - error <= most;
        let class_lost = (promise.class_drop).is_some_and(|c| c.verdict == Verdict::Broken);
        Self {
            score_tells: tells(score),
            score_nearly_tells: score.1 <= 2.0 * resolution,
            classes_tell: balanced.is_none_or(tells),
            allowed: promise.loses_no_more() && balanced.is_none_or(may_fit),
            with_spare: !class_lost && spares(score) && balanced.is_none_or(spares),
            lost: class_lost || !may_fit(score) || !balanced.is_none_or(may_fit),
        }
    }

    /// Whether they tell what the try costs.
    pub fn tells(&self) -> bool {
        self.score_tells && self.classes_tell
    }

    /// Factor on the KL terms of a more careful posterior: the less the samples tell, and where they show a loss, the more careful.
    pub fn careful_kl(&self) -> f64 {
        match self.score_nearly_tells && !self.lost {
            true => HALF,
            false => QUARTER,
        }
    }

    /// Whether they neither tell what the try costs nor contradict it.
    pub fn is_undecided(&self) -> bool {
        !self.tells() && !self.lost
    }

    /// Whether the try is likely to keep its promise on other samples too.
    ///
    /// `own`: its number of weights is the one that its posterior leaves. `careful`: that posterior has smaller KL terms than the recipe's,
    /// or removed nothing, so that no other one would leave more weights.
    ///
    /// - The best of several tries looks better than it is: a try must have something to spare.
    /// - The number that a posterior leaves was not chosen by validation samples, but by the evidence lower bound on all training samples.
    ///   Where that posterior is a careful one, it needs nothing to spare.
    /// - Where the samples cannot tell what balanced errors cost, the number is left to the posterior. Where they cannot even tell what
    ///   errors cost, to a careful one: the bound expects samples like those of training, and nothing here could contradict it.
    pub fn is_safe(&self, own: bool, careful: bool) -> bool {
        let by_posterior = own && self.allowed;
        match self.tells() {
            true => self.with_spare || by_posterior && careful,
            false => by_posterior && (self.score_tells || careful),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_compressor::objective::{SampleErrors, Targets, sample_errors};
    use sparsevd_compressor::recipe::Recipe;

    /// Errors on classes, each with its number of samples, of which the first ones are wrong.
    fn errors(classes: &[(usize, usize)]) -> SampleErrors {
        let (mut labels, mut outputs) = (vec![], vec![]);
        for (class, &(samples, wrong)) in classes.iter().enumerate() {
            for i in 0..samples {
                labels.push(class as u16);
                let predicted = (class + usize::from(i < wrong)) % classes.len();
                outputs.extend((0..classes.len()).map(|c| f32::from(u8::from(c == predicted))));
            }
        }
        sample_errors(&outputs, &Targets::classes(&labels))
    }

    /// What the samples say where the dense network is always right, and half a point is promised.
    fn evidence(classes: &[(usize, usize)]) -> Evidence {
        evidence_by(&Recipe::new(vec![]), classes)
    }

    fn evidence_by(recipe: &Recipe, classes: &[(usize, usize)]) -> Evidence {
        let right: Vec<_> = classes.iter().map(|&(samples, _)| (samples, 0)).collect();
        let (dense, sparse) = (errors(&right), errors(classes));
        let validation = SplitScore::new(&dense, &sparse);
        let classes = ClassError::of(&dense, &sparse);
        let promise = Promise::new(recipe, &validation, &classes);
        Evidence::new(&promise, &validation, &classes)
    }

    #[test]
    fn many_samples_tell_for_any_number_of_weights() {
        let safe = |wrong| evidence(&[(1250, wrong), (1250, 0)]).is_safe(false, false);
        assert!(safe(0));
        // 0.32 points, with a standard error of 0.12.
        assert!(safe(8));
        // 0.44 points are allowed, and leave too little to spare.
        assert!(!safe(11));
        let own = |wrong, careful| evidence(&[(1250, wrong), (1250, 0)]).is_safe(true, careful);
        assert!(!own(11, false), "for a posterior's own number too");
        assert!(own(11, true), "which a careful one's does not need");
        assert!(!own(13, true), "0.52 points");
    }

    #[test]
    fn few_samples_leave_the_number_to_a_more_careful_posterior() {
        let none_lost = evidence(&[(50, 0), (47, 0)]);
        assert!(!none_lost.tells());
        assert!(!none_lost.is_safe(false, true), "fewer weights");
        assert!(!none_lost.is_safe(true, false), "the first posterior");
        assert!(none_lost.is_safe(true, true));
        assert_eq!(none_lost.careful_kl(), 0.25);
        let one_lost = evidence(&[(50, 1), (47, 0)]);
        assert!(
            !one_lost.is_safe(true, true),
            "a point, where half of one is allowed"
        );
    }

    #[test]
    fn a_promise_of_no_loss_takes_more_samples() {
        let recipe = Recipe {
            max_accuracy_drop: 0.0,
            ..Recipe::new(vec![])
        };
        // 0.04 points, with a standard error of 0.06, and of 0.3 where both networks are wrong on 30 samples of their own.
        let alike = evidence_by(&recipe, &[(1250, 1), (1250, 0)]);
        assert!(alike.tells());
        let (dense, sparse) = (
            errors(&[(1250, 30), (1250, 0)]),
            errors(&[(1250, 0), (1250, 30)]),
        );
        let validation = SplitScore::new(&dense, &sparse);
        let classes = ClassError::of(&dense, &sparse);
        let of = |recipe: &Recipe| {
            let promise = Promise::new(recipe, &validation, &classes);
            Evidence::new(&promise, &validation, &classes)
        };
        let default = of(&Recipe::new(vec![]));
        assert!(default.tells() && default.is_safe(false, false));
        let unchanged = of(&recipe);
        assert!(!unchanged.tells() && !unchanged.is_safe(false, true));
        assert!(
            unchanged.is_safe(true, true),
            "a more careful posterior's number"
        );
        assert_eq!(unchanged.careful_kl(), 0.5);
    }

    #[test]
    fn a_class_with_few_samples_counts_as_much_as_another() {
        // Of 1,666 samples 16 are of the rarest class: an error of 0.24 % hides a quarter of it.
        let rare = |wrong| evidence(&[(1616, 0), (34, 0), (16, wrong)]);
        assert!(!rare(4).is_safe(false, true));
        assert!(
            !rare(4).is_safe(true, true),
            "a loss of twice its standard error"
        );
        assert!(rare(0).score_tells && !rare(0).tells());
        assert!(!rare(0).is_safe(false, true), "fewer weights");
        assert!(rare(0).is_safe(true, false), "the number of the posterior");
    }

    #[test]
    fn a_loss_that_few_samples_show_is_not_undecided() {
        let few = |wrong| evidence(&[(50, wrong), (47, 0)]);
        assert!(few(0).is_undecided() && few(1).is_undecided());
        assert!(!few(20).tells() && !few(20).is_undecided());
        // The next posterior leaves many more weights after a loss of four points, a few more after one of 0.52.
        let many = |wrong| evidence(&[(1250, wrong), (1250, 0)]).careful_kl();
        assert_eq!((many(100), many(13)), (0.25, 0.5));
    }

    #[test]
    fn a_class_that_may_not_lose_its_recall_counts_alone() {
        let recipe = Recipe {
            max_class_drop: Some(1.0),
            ..Recipe::new(vec![])
        };
        // Eight of 250, whose lower bound is above a point; 0.32 points of the error.
        let classes: Vec<_> = (0..10).map(|c| (250, if c == 0 { 8 } else { 0 })).collect();
        assert!(evidence(&classes).is_safe(false, false));
        assert!(!evidence_by(&recipe, &classes).is_safe(false, false));
    }

    #[test]
    fn a_regression_is_told_by_its_r2() {
        let of = |samples: usize, error: f32| {
            let targets: Vec<f32> = (0..samples).map(|i| (i % 20) as f32).collect();
            let errors = |error: f32| {
                let off = |(i, y): (usize, &f32)| if i % 4 == 0 { y + error } else { *y };
                let predictions: Vec<f32> = targets.iter().enumerate().map(off).collect();
                sample_errors(&predictions, &Targets::vectors(&targets, 1))
            };
            let validation = SplitScore::new(&errors(0.0), &errors(error));
            let promise = Promise::new(&Recipe::new(vec![]), &validation, &[]);
            Evidence::new(&promise, &validation, &[])
        };
        // A quarter of the squared error over a variance of 33.25, with half of it again as deviation: 0.0075 of R2 of 0.02.
        assert!(of(4000, 1.0).is_safe(false, false));
        // 0.03.
        assert!(of(4000, 2.0).tells() && !of(4000, 2.0).is_safe(true, true));
        // The same of 40 samples has a standard error of 0.008 and of 0.08 for ten times the loss.
        assert!(of(40, 1.0).tells() && !of(40, 3.2).tells());
        let no_number = of(40, f32::NAN);
        assert!(!no_number.is_safe(true, true) && !no_number.is_undecided());
    }
}
