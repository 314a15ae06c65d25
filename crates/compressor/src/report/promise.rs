//! The promise about the scores, and what the samples say of it.
//!
//! A result keeps its promise where its scores on the samples that it is measured on are at most the promised drop `P` under those of the
//! dense network, and these samples can tell:
//!
//! - **kept** or **broken**, by the measured drop, where its standard error is at most `P` (or a resolution, where `P` is below it: 0.25
//!   points, 0.01 of R2), or where the one-sided 95 % bound is on the same side of `P` as the drop;
//! - **undecided** elsewhere: there are too few samples to tell a drop of that size from none.
//!
//! `P = 0` promises an unchanged network. Two equally good networks rarely make the same number of errors, so it allows a margin of
//! 0.05 points, 0.25 where the dense network's error exceeds 2 % (0.005 of R2), and no significant loss: McNemar's exact two-sided p must
//! be above 0.05 where the error grew. For a regression the lower 95 % bound of the drop must not be above 0.
//!
//! `max_class_drop` promises the same of the recall of each class, on the samples of that class, without a margin. The promise is broken
//! where one of its parts is, and undecided where one is and none is broken.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::class_error::ClassError;
use super::json::number;
use super::paired::DropEstimate;
use super::split_score::SplitScore;
use crate::recipe::Recipe;

/// Significance level of a loss that a promise of no change does not allow.
const SIGNIFICANT: f64 = 0.05;

/// Standard error, in points, that decides where less is promised.
const FINEST_POINTS: f64 = 0.25;
/// The same in R2.
const FINEST_R2: f64 = 0.01;

/// What was promised about the scores, and whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Points of error that the result of a classification may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_accuracy_drop: Option<f64>,
    /// R2 that the result of a regression may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_r2_drop: Option<f64>,
    /// Points of recall that each class may lose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_class_drop: Option<f64>,
    /// Where that is promised: the class that lost most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_drop: Option<ClassDrop>,
    /// Points or R2 that it lost.
    #[serde(deserialize_with = "number")]
    pub drop: f64,
    /// What was allowed: the promised drop, or the margin of a promise of 0.
    pub allowed: f64,
    /// Whether the promise was kept: `verdict` is `kept`.
    pub kept: bool,
    /// What the samples say.
    pub verdict: Verdict,
    /// Where they are too few: number of samples, about, that would decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples_needed: Option<usize>,
}

/// What compression cost one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassDrop {
    /// The class.
    pub class: usize,
    /// Points of recall.
    pub drop: f64,
    /// What its samples say of what it may lose.
    pub verdict: Verdict,
}

/// What the samples say of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The result lost no more than was promised.
    Kept,
    /// There are too few samples to tell.
    Undecided,
    /// It lost more.
    Broken,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::Undecided => "undecided",
        })
    }
}

/// The limits of a promise about one kind of score.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Drop that is allowed.
    allowed: f64,
    /// Standard error that decides.
    resolution: f64,
    /// Whether there is a significant loss where none is allowed.
    lost: bool,
}

impl Limits {
    fn new(promised: f64, score: &SplitScore) -> Self {
        let unchanged = promised == 0.0;
        let (margin, finest, significant) = match score {
            SplitScore::Errors(e) => {
                let margin = if e.dense_percent > 2.0 { 0.25 } else { 0.05 };
                (
                    margin,
                    FINEST_POINTS,
                    e.estimate.drop > 0.0 && e.mcnemar_p <= SIGNIFICANT,
                )
            }
            SplitScore::Fit(f) => (0.005, FINEST_R2, f.estimate.lower > 0.0),
        };
        Self {
            allowed: if unchanged { margin } else { promised },
            resolution: resolution(promised, finest),
            lost: unchanged && significant,
        }
    }

    /// The limits of the recall of one class.
    fn of_class(promised: f64) -> Self {
        Self {
            allowed: promised,
            resolution: resolution(promised, FINEST_POINTS),
            lost: false,
        }
    }

    fn verdict(&self, estimate: &DropEstimate) -> Verdict {
        // A score that is no number keeps nothing.
        if self.lost || estimate.drop.is_nan() {
            return Verdict::Broken;
        }
        let kept = is_within(estimate.drop, self.allowed);
        let bound_agrees = match kept {
            true => estimate.upper <= self.allowed,
            false => estimate.lower > self.allowed,
        };
        match (
            estimate.standard_error <= self.resolution || bound_agrees,
            kept,
        ) {
            (true, true) => Verdict::Kept,
            (true, false) => Verdict::Broken,
            (false, _) => Verdict::Undecided,
        }
    }
}

/// The largest standard error that decides about a promised drop.
fn resolution(promised: f64, finest: f64) -> f64 {
    promised.max(finest)
}

/// Whether a drop is one that is allowed. Percentages of whole images: a billionth is rounding.
fn is_within(drop: f64, allowed: f64) -> bool {
    drop <= allowed + 1e-9
}

impl ClassDrop {
    /// Holds a class against the points of recall that it may lose, `most`, and says how many of its samples would decide where these do
    /// not.
    fn new(most: f64, class: &ClassError) -> (Self, usize) {
        let (limits, estimate) = (Limits::of_class(most), class.estimate());
        let verdict = limits.verdict(&estimate);
        let needed = match verdict {
            Verdict::Undecided => class.samples_for(limits.resolution),
            Verdict::Kept | Verdict::Broken => 0,
        };
        let (class, drop) = (class.class, estimate.drop);
        (
            Self {
                class,
                drop,
                verdict,
            },
            needed,
        )
    }
}

impl Promise {
    /// The largest standard error of a score, in points or R2, with which its drop decides.
    pub fn resolution(&self) -> f64 {
        match (self.max_accuracy_drop, self.max_r2_drop) {
            (Some(points), _) => resolution(points, FINEST_POINTS),
            (None, r2) => resolution(r2.unwrap_or_default(), FINEST_R2),
        }
    }

    /// Whether these samples show no loss above what is allowed, be they enough to tell or not.
    pub fn loses_no_more(&self) -> bool {
        is_within(self.drop, self.allowed) && self.verdict != Verdict::Broken
    }

    /// Holds a result against what a recipe lets it lose: its score, and the errors of its classes.
    pub fn new(recipe: &Recipe, score: &SplitScore, classes: &[ClassError]) -> Self {
        let [accuracy, r2] = match score {
            SplitScore::Errors(_) => [Some(recipe.max_accuracy_drop), None],
            SplitScore::Fit(_) => [None, Some(recipe.max_r2_drop())],
        };
        let limits = Limits::new(accuracy.or(r2).unwrap_or_default(), score);
        let mut verdict = limits.verdict(score.estimate());
        let mut needed = match verdict {
            Verdict::Undecided => score.samples_for(limits.resolution),
            Verdict::Kept | Verdict::Broken => 0,
        };
        let max_class_drop = recipe.max_class_drop.filter(|_| accuracy.is_some());
        let mut worst: Option<ClassDrop> = None;
        for (most, class) in max_class_drop
            .iter()
            .flat_map(|m| classes.iter().map(move |c| (*m, c)))
        {
            let (drop, of_class) = ClassDrop::new(most, class);
            verdict = verdict.max(drop.verdict);
            // The class has the same share of a larger set.
            let share = class.images as f64 / score.samples() as f64;
            needed = needed.max((of_class as f64 / share).ceil() as usize);
            let rank = |d: &ClassDrop| (d.verdict, d.drop);
            if worst.is_none_or(|worst| rank(&worst) < rank(&drop)) {
                worst = Some(drop);
            }
        }
        Self {
            max_accuracy_drop: accuracy,
            max_r2_drop: r2,
            max_class_drop,
            class_drop: worst,
            drop: score.drop(),
            allowed: limits.allowed,
            kept: verdict == Verdict::Kept,
            verdict,
            samples_needed: (verdict == Verdict::Undecided).then_some(needed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Targets, sample_errors};

    /// Both networks on `n` samples of which `both` are wrong for both, `dense` and `sparse` for one alone.
    fn score(n: usize, both: usize, dense: usize, sparse: usize) -> SplitScore {
        let errors = |wrong: &dyn Fn(usize) -> bool| {
            let scores = (0..n).flat_map(|i| [1.0, if wrong(i) { 2.0 } else { 0.0 }]);
            sample_errors(
                &scores.collect::<Vec<f32>>(),
                &Targets::classes(&vec![0; n]),
            )
        };
        let either = both + dense;
        SplitScore::new(
            &errors(&|i| i < either),
            &errors(&|i| i < both || (either..either + sparse).contains(&i)),
        )
    }

    fn promise(most: f64, score: SplitScore) -> Promise {
        let recipe = Recipe {
            max_accuracy_drop: most,
            max_r2_drop: Some(most),
            ..Recipe::new(vec![])
        };
        Promise::new(&recipe, &score, &[])
    }

    #[test]
    fn a_promise_holds_up_to_its_last_image() {
        let verdict = |dense, sparse| promise(0.5, score(1000, 8, dense, sparse)).verdict;
        assert_eq!(verdict(5, 10), Verdict::Kept);
        assert_eq!(verdict(5, 11), Verdict::Broken);
        // The same drop of networks that differ on more images: its standard error is 0.51 points.
        assert_eq!(verdict(10, 15), Verdict::Undecided);
    }

    #[test]
    fn too_few_samples_are_undecided_unless_their_bound_decides() {
        // No difference on 40 images: up to 3.9 points may be lost.
        let few = promise(0.5, score(40, 1, 0, 0));
        assert_eq!((few.verdict, few.kept), (Verdict::Undecided, false));
        assert_eq!(few.samples_needed, Some(200));
        assert_eq!(promise(5.0, score(40, 1, 0, 0)).verdict, Verdict::Kept);
        assert_eq!(promise(0.5, score(200, 5, 0, 0)).verdict, Verdict::Kept);
        // Far over: the lower bound is above what is allowed.
        assert_eq!(promise(0.5, score(40, 1, 0, 10)).verdict, Verdict::Broken);
        // Far under.
        assert_eq!(promise(0.5, score(40, 1, 10, 0)).verdict, Verdict::Kept);
    }

    #[test]
    fn an_unchanged_network_has_a_margin_and_no_significant_loss() {
        let verdict = |score| promise(0.0, score).verdict;
        let unchanged = promise(0.0, score(10_000, 60, 20, 25));
        assert_eq!(
            (unchanged.verdict, unchanged.allowed),
            (Verdict::Kept, 0.05)
        );
        assert_eq!(
            verdict(score(10_000, 60, 20, 26)),
            Verdict::Broken,
            "0.06 points"
        );
        // At an error of 10 %, 0.25 points.
        let wide = promise(0.0, score(10_000, 900, 150, 175));
        assert_eq!((wide.verdict, wide.allowed), (Verdict::Kept, 0.25));
        // Ten images of 10,000 are 0.1 points, which p says are lost.
        assert_eq!(verdict(score(10_000, 900, 0, 10)), Verdict::Broken);
        assert!(!promise(0.0, score(10_000, 900, 0, 10)).loses_no_more());
        assert!(wide.loses_no_more() && promise(0.5, score(10_000, 900, 0, 10)).loses_no_more());
        assert_eq!(
            verdict(score(10_000, 900, 10, 0)),
            Verdict::Kept,
            "a significant gain"
        );
        assert_eq!(verdict(score(100, 1, 0, 0)), Verdict::Undecided);
    }

    #[test]
    fn a_regression_promises_its_r2() {
        let targets: Vec<f32> = (0..400).map(|i| (i % 20) as f32).collect();
        let of = |error: f32| {
            let off = |(i, y): (usize, &f32)| y + if i % 2 == 0 { error } else { -error };
            let predictions: Vec<f32> = targets.iter().enumerate().map(off).collect();
            sample_errors(&predictions, &Targets::vectors(&targets, 1))
        };
        let dense = of(1.0);
        let of = |error| SplitScore::new(&dense, &of(error));
        // The variance of the targets is 33.25.
        let kept = promise(0.05, of(1.5));
        assert!((kept.drop - 1.25 / 33.25).abs() < 1e-6);
        assert_eq!(kept.verdict, Verdict::Kept);
        assert_eq!(promise(0.05, of(2.0)).verdict, Verdict::Broken);
        assert_eq!(promise(0.0, of(1.0)).verdict, Verdict::Kept);
        assert_eq!(
            promise(0.0, of(1.01)).verdict,
            Verdict::Broken,
            "a certain loss"
        );
        assert_eq!(promise(0.05, of(f32::NAN)).verdict, Verdict::Broken);
        let json = serde_json::to_value(kept).unwrap();
        assert!(json.get("max_accuracy_drop").is_none());
        assert_eq!(
            (&json["max_r2_drop"], &json["verdict"]),
            (&0.05.into(), &"kept".into())
        );
    }

    #[test]
    fn the_recall_of_every_class_counts_where_it_is_promised() {
        let class = |class, images, dense, sparse| ClassError {
            class,
            images,
            dense_wrong: dense,
            sparse_wrong: sparse,
            dense_only_wrong: dense,
            sparse_only_wrong: sparse,
        };
        let promise = |most, classes: &[ClassError]| {
            let recipe = Recipe {
                max_class_drop: most,
                ..Recipe::new(vec![])
            };
            Promise::new(&recipe, &score(5000, 10, 10, 12), classes)
        };
        let classes = [
            class(0, 4800, 10, 0),
            class(1, 150, 0, 4),
            class(2, 50, 0, 8),
        ];
        let of = |most| promise(most, &classes);
        assert_eq!(
            (of(None).verdict, of(None).class_drop),
            (Verdict::Kept, None)
        );
        let broken = of(Some(5.0));
        assert_eq!(broken.verdict, Verdict::Broken);
        // Eight of fifty, whose lower bound is above 5 points.
        let drop = broken.class_drop.unwrap();
        assert_eq!(
            (drop.class, drop.drop, drop.verdict),
            (2, 16.0, Verdict::Broken)
        );
        assert_eq!(of(Some(20.0)).verdict, Verdict::Kept);
        // Fifty samples cannot tell a drop of a point.
        let few = promise(Some(1.0), &[class(2, 50, 0, 0)]);
        assert_eq!(
            (few.verdict, few.samples_needed),
            (Verdict::Undecided, Some(10_000))
        );
    }
}
