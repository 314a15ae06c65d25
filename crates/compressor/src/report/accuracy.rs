//! Scores before and after compression, with the verdict on the promise.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::class_error::ClassError;
use super::promise::{Promise, Verdict};
use super::split_score::SplitScore;
use super::table::count;
use crate::recipe::Recipe;

/// What is said of a network that was trained on its validation samples.
pub const SEEN: &str = "the network as it came errs far less on the validation samples than on the test samples (p < 0.001): it was probably trained on \
     them, unless the test samples are of another kind. The promise is about the test samples; validation samples that the network \
     has not seen can be taken from those (--validation-from-test N, or `validation = { from_test = N }` in a recipe)";

/// Scores of the dense and of the compressed network, both run by the runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// What the scores are against.
    #[serde(default)]
    pub against: Against,
    /// On the validation samples.
    pub validation: SplitScore,
    /// On the test samples, where the data set has any.
    pub test: Option<SplitScore>,
    /// Errors by class on the validation samples; none of a regression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation_classes: Vec<ClassError>,
    /// Errors by class on the test samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_classes: Vec<ClassError>,
    /// The samples that the promise is about.
    pub promise_about: Part,
    /// The promise.
    pub promise: Promise,
}

/// What scores are against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Targets that came with the inputs.
    #[default]
    Targets,
    /// The answers of the dense network, of inputs without targets: an error is an answer that is not the dense network's.
    DenseNetwork,
}

/// Part of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Validation samples; of those that were halved, the half that nothing was chosen by.
    Validation,
    /// Test samples, where the dense network was probably trained on the validation samples.
    Test,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Validation => "validation",
            Self::Test => "test",
        })
    }
}

/// Scores of one file on the validation and on the test samples.
type FileScores = (SplitScore, Option<SplitScore>);

impl Accuracy {
    /// Holds the files of a result, the interchange form first, against what a recipe promises.
    ///
    /// The promise is about the worse file, and about `classes`, the errors of the interchange form by class on the validation and on the
    /// test samples. `seen` says that the dense network was probably trained on the validation samples; see
    /// [`was_trained_on`](super::was_trained_on).
    pub fn new(
        recipe: &Recipe,
        against: Against,
        seen: bool,
        file: FileScores,
        packed: Option<FileScores>,
        classes: [Vec<ClassError>; 2],
    ) -> Self {
        let (validation, test) = file;
        let [validation_classes, test_classes] = classes;
        let (about, score, classes) = match test {
            Some(test) if seen => (Part::Test, test, &test_classes),
            _ => (Part::Validation, validation, &validation_classes),
        };
        let packed = packed.and_then(|(validation, test)| match about {
            Part::Validation => Some(validation),
            Part::Test => test,
        });
        let worst = packed.filter(|p| p.drop() > score.drop()).unwrap_or(score);
        let promise = Promise::new(recipe, &worst, classes);
        Self {
            against,
            validation,
            test,
            validation_classes,
            test_classes,
            promise_about: about,
            promise,
        }
    }

    /// Errors by class on the samples that the promise is about.
    pub fn classes(&self) -> &[ClassError] {
        match self.promise_about {
            Part::Validation => &self.validation_classes,
            Part::Test => &self.test_classes,
        }
    }

    /// The score of the interchange form on the samples that the promise is about.
    fn score(&self) -> SplitScore {
        match (self.promise_about, self.test) {
            (Part::Test, Some(test)) => test,
            (Part::Test, None) | (Part::Validation, _) => self.validation,
        }
    }
}

impl fmt::Display for Accuracy {
    /// The score on the samples that the promise is about, of the worse of two files, what it may lose, and what would decide where that
    /// is not decided.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Promise {
            drop,
            allowed,
            samples_needed,
            ..
        } = self.promise;
        let promised = self.promise.max_accuracy_drop.or(self.promise.max_r2_drop);
        let promised = promised.unwrap_or_default();
        let (part, score) = (self.promise_about, self.score());
        match score {
            SplitScore::Fit(fit) => write!(
                f,
                "{part} R2 {:.4}, {drop:.4} under the dense network's, expected at most {promised} (max_r2_drop)",
                fit.dense_r2 - drop,
            )?,
            SplitScore::Errors(errors) if self.against == Against::DenseNetwork => write!(
                f,
                "{part} agreement with the dense network {:.2} %, expected at least {} (min_agreement)",
                100.0 - errors.dense_percent - drop,
                100.0 - promised
            )?,
            SplitScore::Errors(errors) => write!(
                f,
                "{part} error {:.2} %, {drop:.2} points over the dense network's, expected at most {promised} (max_accuracy_drop)",
                errors.dense_percent + drop,
            )?,
        }
        if allowed != promised {
            write!(f, ", with a margin of {allowed} and no significant loss")?;
        }
        let class = self.promise.class_drop;
        if let Some(class) = class.filter(|class| class.verdict != Verdict::Kept) {
            write!(
                f,
                "; recall of class {} fell by {:.2} points, expected at most {} (max_class_drop)",
                class.class,
                class.drop,
                self.promise.max_class_drop.unwrap_or_default()
            )?;
        }
        match (self.promise.verdict, samples_needed) {
            (Verdict::Undecided, Some(needed)) => write!(
                f,
                "; {} samples are too few to tell, about {} would decide",
                count(score.samples()),
                count(needed)
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Targets, sample_errors};

    /// Scores on `n` samples of which `dense` are wrong before, and `sparse` after.
    fn score(n: usize, dense: usize, sparse: usize) -> SplitScore {
        let errors = |wrong: usize| {
            let scores = (0..n).flat_map(|i| [1.0, if i < wrong { 2.0 } else { 0.0 }]);
            sample_errors(
                &scores.collect::<Vec<f32>>(),
                &Targets::classes(&vec![0; n]),
            )
        };
        SplitScore::new(&errors(dense), &errors(sparse))
    }

    #[test]
    fn the_promise_is_about_the_worse_file_and_about_samples_that_are_new() {
        let recipe = Recipe::default_for_compression();
        let file = (score(5000, 0, 20), Some(score(10_000, 184, 180)));
        let packed = (score(5000, 0, 123), file.1);
        let of = |seen, packed| {
            Accuracy::new(
                &recipe,
                Against::Targets,
                seen,
                file,
                packed,
                Default::default(),
            )
        };
        assert!(of(false, None).promise.kept);
        let broken = of(false, Some(packed));
        assert!(!broken.promise.kept);
        assert_eq!(
            broken.to_string(),
            "validation error 2.46 %, 2.46 points over the dense network's, expected at most 0.5 (max_accuracy_drop)"
        );
        let seen = of(true, Some(packed));
        assert!(seen.promise.kept && seen.promise_about == Part::Test);
        assert!((seen.promise.drop + 0.04).abs() < 1e-9);
        let (file, packed) = ((file.0, None), Some((packed.0, None)));
        let without_test = Accuracy::new(
            &recipe,
            Against::Targets,
            true,
            file,
            packed,
            Default::default(),
        );
        assert!(!without_test.promise.kept);
    }

    #[test]
    fn what_would_decide_is_said() {
        let recipe = Recipe {
            max_accuracy_drop: 0.0,
            ..Recipe::new(vec![])
        };
        let file = (score(40, 1, 1), None);
        let accuracy = Accuracy::new(
            &recipe,
            Against::Targets,
            false,
            file,
            None,
            Default::default(),
        );
        assert_eq!(
            accuracy.to_string(),
            "validation error 2.50 %, 0.00 points over the dense network's, expected at most 0 (max_accuracy_drop), with a margin of 0.25 and no \
             significant loss; 40 samples are too few to tell, about 400 would decide"
        );
    }

    #[test]
    fn against_the_dense_network_agreement_is_said() {
        let recipe = Recipe {
            max_accuracy_drop: 1.5,
            ..Recipe::new(vec![])
        };
        let file = (score(5000, 0, 123), None);
        let against = Against::DenseNetwork;
        let accuracy = Accuracy::new(&recipe, against, false, file, None, Default::default());
        assert!(!accuracy.promise.kept);
        assert_eq!(
            accuracy.to_string(),
            "validation agreement with the dense network 97.54 %, expected at least 98.5 (min_agreement)"
        );
    }
}
