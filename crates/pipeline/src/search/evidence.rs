//! What validation samples say of a try, and whether it is enough to go by.

use sparsevd_compressor::report::{ClassError, Promise, SplitScore, Verdict};

/// Standard error, in points of error and of balanced error, with which validation samples tell what a try costs, where no larger drop
/// is promised: the default promise.
const TELLING_POINTS: f64 = 0.5;
/// The same in R2.
const TELLING_R2: f64 = 0.02;

/// What the validation samples say of a try.
pub(super) struct Evidence {
    /// Whether they tell what it costs in the score.
    score_tells: bool,
    /// Whether they tell what it costs in balanced errors.
    classes_tell: bool,
    /// Whether it costs no more than is allowed, and balanced errors do not contradict.
    allowed: bool,
    /// Whether it costs nothing, or one standard error less than is allowed.
    with_spare: bool,
}

impl Evidence {
    /// Errors and balanced errors both count: a class with few samples is lost without a trace in the errors.
    pub fn new(promise: &Promise, validation: &SplitScore, classes: &[ClassError]) -> Self {
        let most = promise.allowed;
        let estimate = validation.estimate();
        let overall = (estimate.drop, estimate.standard_error);
        let finest = match validation {
            SplitScore::Errors(_) => TELLING_POINTS,
            SplitScore::Fit(_) => TELLING_R2,
        };
        let balanced = ClassError::balanced(classes);
        let spares = |(drop, error): (f64, f64)| drop <= 0.0 || drop + error <= most;
        let not_lost = |(drop, error): (f64, f64)| drop - error <= most;
        let class_lost = (promise.class_drop).is_some_and(|c| c.verdict == Verdict::Broken);
        Self {
            score_tells: overall.1 <= finest.max(most),
            classes_tell: balanced.is_none_or(|(_, error)| error <= finest.max(most)),
            allowed: !class_lost && overall.0 <= most && balanced.is_none_or(not_lost),
            with_spare: !class_lost && spares(overall) && balanced.is_none_or(spares),
        }
    }

    /// Whether they tell what the try costs.
    pub fn tells(&self) -> bool {
        self.score_tells && self.classes_tell
    }

    /// Whether the try is likely to keep its promise on other samples too; `own`: it leaves all weights that its posterior leaves, which
    /// is a more `careful` one or the recipe's.
    ///
    /// The best of several tries looks better than it is: it must have something to spare. Where the samples are too few for that, the
    /// number of weights is left to the evidence lower bound, which the posterior maximises on all training samples. That bound expects
    /// samples like those, and where not even the score can contradict it, a more careful posterior is taken.
    pub fn is_safe(&self, own: bool, careful: bool) -> bool {
        match self.tells() {
            true => self.with_spare,
            false => own && self.allowed && (self.score_tells || careful),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsevd_compressor::objective::{SampleErrors, Targets, sample_errors};
    use sparsevd_compressor::recipe::Recipe;

    /// Errors on classes of so many samples, of which the first ones are wrong.
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
        let right: Vec<_> = classes.iter().map(|&(samples, _)| (samples, 0)).collect();
        let (dense, sparse) = (errors(&right), errors(classes));
        let validation = SplitScore::new(&dense, &sparse);
        let classes = ClassError::of(&dense, &sparse);
        let promise = Promise::new(&Recipe::new(vec![]), &validation, &classes);
        Evidence::new(&promise, &validation, &classes)
    }

    #[test]
    fn many_samples_judge_any_number_of_weights() {
        let safe = |wrong| evidence(&[(1250, wrong), (1250, 0)]).is_safe(false, false);
        assert!(safe(0));
        // 0.32 points, with a standard error of 0.12.
        assert!(safe(8));
        // 0.44 points are allowed, and leave too little to spare.
        assert!(!safe(11));
        let own = evidence(&[(1250, 11), (1250, 0)]);
        assert!(!own.is_safe(true, true), "for a posterior's own number too");
    }

    #[test]
    fn few_samples_leave_the_number_to_a_more_careful_posterior() {
        let none_lost = evidence(&[(50, 0), (47, 0)]);
        assert!(!none_lost.tells());
        assert!(!none_lost.is_safe(false, true), "fewer weights");
        assert!(!none_lost.is_safe(true, false), "the first posterior");
        assert!(none_lost.is_safe(true, true));
        let one_lost = evidence(&[(50, 1), (47, 0)]);
        assert!(
            !one_lost.is_safe(true, true),
            "a point, where half of one is allowed"
        );
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
}
