//! Errors by class.

use serde::{Deserialize, Serialize};

use super::paired::{DropEstimate, samples_for};
use crate::objective::{PerSample, SampleErrors};

/// Errors of both networks on the samples of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassError {
    /// The class.
    pub class: usize,
    /// Its samples.
    pub images: usize,
    /// Those that the dense network gets wrong.
    pub dense_wrong: usize,
    /// Those that the compressed network gets wrong.
    pub sparse_wrong: usize,
    /// Those that the dense network alone gets wrong.
    pub dense_only_wrong: usize,
    /// Those that the compressed network alone gets wrong.
    pub sparse_only_wrong: usize,
}

impl ClassError {
    /// Errors of the classes that have samples, in their order; none of a regression.
    pub fn of(dense: &SampleErrors, sparse: &SampleErrors) -> Vec<Self> {
        let (PerSample::Classes { labels, wrong }, PerSample::Classes { wrong: after, .. }) =
            (&dense.samples, &sparse.samples)
        else {
            return vec![];
        };
        let classes = labels.iter().max().map_or(0, |&most| usize::from(most) + 1);
        let none = |class| Self {
            class,
            images: 0,
            dense_wrong: 0,
            sparse_wrong: 0,
            dense_only_wrong: 0,
            sparse_only_wrong: 0,
        };
        let mut errors: Vec<Self> = (0..classes).map(none).collect();
        for (&label, (&dense, &sparse)) in labels.iter().zip(wrong.iter().zip(after)) {
            let class = &mut errors[usize::from(label)];
            class.images += 1;
            class.dense_wrong += usize::from(dense);
            class.sparse_wrong += usize::from(sparse);
            class.dense_only_wrong += usize::from(dense && !sparse);
            class.sparse_only_wrong += usize::from(sparse && !dense);
        }
        errors.retain(|class| class.images > 0);
        errors
    }

    /// Points of balanced accuracy, the mean recall of the classes, that compression cost, and their standard error; `None` without
    /// classes.
    ///
    /// What [`DropEstimate::of_classes`] adds to the table of pairs is divided among the classes, so that the standard error of classes of
    /// one size is that of the error.
    pub fn balanced(classes: &[Self]) -> Option<(f64, f64)> {
        let count = classes.len() as f64;
        let (mut drop, mut variance) = (0.0, 0.0);
        for class in classes {
            drop += class.estimate().drop;
            let [b, c] = [class.dense_only_wrong, class.sparse_only_wrong].map(|n| n as f64);
            let n = class.images as f64 + 2.0 / count;
            variance += (b + c + 1.0 / count - (c - b) * (c - b) / n) / (n * n);
        }
        (!classes.is_empty()).then(|| (drop / count, 100.0 * variance.sqrt() / count))
    }

    /// Points of recall that compression cost.
    pub fn estimate(&self) -> DropEstimate {
        DropEstimate::of_classes(self.images, self.dense_only_wrong, self.sparse_only_wrong)
    }

    /// Number of its samples, about, on which the standard error of that is `standard_error`.
    pub(super) fn samples_for(&self, standard_error: f64) -> usize {
        let differ = self.dense_only_wrong + self.sparse_only_wrong;
        samples_for(standard_error, differ as f64 / self.images as f64).ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Targets, sample_errors};

    #[test]
    fn errors_are_counted_by_class() {
        let labels = Targets::classes(&[0, 0, 0, 2, 2]);
        let of = |predicted: [usize; 5]| {
            let mut scores = [0.0; 15];
            predicted
                .iter()
                .enumerate()
                .for_each(|(i, &class)| scores[3 * i + class] = 1.0);
            sample_errors(&scores, &labels)
        };
        let got = ClassError::of(&of([0, 1, 1, 2, 2]), &of([0, 1, 0, 0, 1]));
        let class = |class, images, [dense_wrong, sparse_wrong]: [usize; 2], [b, c]: [usize; 2]| {
            ClassError {
                class,
                images,
                dense_wrong,
                sparse_wrong,
                dense_only_wrong: b,
                sparse_only_wrong: c,
            }
        };
        assert_eq!(
            got,
            [class(0, 3, [2, 1], [1, 0]), class(2, 2, [0, 2], [0, 2])]
        );
        assert_eq!(got[1].estimate().drop, 100.0);
        // One of three is right again, two of two are lost. By hand: (1 + 1 / 2 - 1 / 4) / 4^2 and (2 + 1 / 2 - 4 / 3) / 3^2.
        let (drop, standard_error) = ClassError::balanced(&got).unwrap();
        assert!((drop - 0.5 * (100.0 - 100.0 / 3.0)).abs() < 1e-9, "{drop}");
        let want = 50.0 * (1.25_f64 / 16.0 + (2.5 - 4.0 / 3.0) / 9.0).sqrt();
        assert!((standard_error - want).abs() < 1e-9, "{standard_error}");
        assert_eq!(ClassError::balanced(&[]), None);
        // A hundred classes of one size, without a difference: the error's standard error.
        let none = [class(0, 25, [0, 0], [0, 0]); 100];
        let (drop, standard_error) = ClassError::balanced(&none).unwrap();
        let of_all = DropEstimate::of_classes(2500, 0, 0).standard_error;
        assert!(drop == 0.0 && (standard_error - of_all).abs() < 1e-9);
    }
}
