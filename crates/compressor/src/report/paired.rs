//! Two networks on the same samples: the difference of their scores, and how far another set of samples could be from it.

use serde::{Deserialize, Serialize};

use super::json::number;

/// 95 % of a normal distribution are below its mean and this number of standard deviations.
const Z_95: f64 = 1.644_853_626_951_472_6;

/// What compression cost on one set of samples, in points of error or in R2; negative where it helped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DropEstimate {
    /// On these samples.
    #[serde(deserialize_with = "number")]
    pub drop: f64,
    /// Standard error: the deviation that the drop has between sets of samples of this size.
    #[serde(rename = "drop_standard_error", deserialize_with = "number")]
    pub standard_error: f64,
    /// One-sided 95 % bound: the true drop is above this.
    #[serde(rename = "drop_lower_95", deserialize_with = "number")]
    pub lower: f64,
    /// One-sided 95 % bound: the true drop is below this.
    #[serde(rename = "drop_upper_95", deserialize_with = "number")]
    pub upper: f64,
}

impl DropEstimate {
    /// The drop in points of a classification: of `samples` samples, `dense_only` are wrong for the dense network alone and
    /// `sparse_only` for the compressed one alone.
    ///
    /// Standard error and bounds are Wald's after half a sample is added to each cell of the table of pairs
    /// (Agresti and Min 2005), so that a small set without differences still has a bound above zero.
    pub fn of_classes(samples: usize, dense_only: usize, sparse_only: usize) -> Self {
        let [b, c] = [dense_only, sparse_only].map(|count| count as f64);
        Self::of_differences(samples, c - b, b + c)
    }

    /// The same where the difference between the networks on a sample is any number from -1 to 1, such as a mean over seeds: `sum` is
    /// the sum of the differences and `squares` that of their squares.
    pub(super) fn of_differences(samples: usize, sum: f64, squares: f64) -> Self {
        let n = samples as f64 + 2.0;
        let centre = 100.0 * sum / n;
        let standard_error = 100.0 * (squares + 1.0 - sum * sum / n).sqrt() / n;
        Self {
            drop: 100.0 * sum / samples as f64,
            standard_error,
            lower: centre - Z_95 * standard_error,
            upper: centre + Z_95 * standard_error,
        }
    }

    /// The drop in R2 of a regression, `drop`: `dense` and `sparse` are the terms of `1 - R2` of both networks.
    ///
    /// The standard error is that of a sum of independent differences between the terms; the variance of the targets counts as known.
    pub fn of_regression(drop: f64, dense: &[f64], sparse: &[f64]) -> Self {
        let n = dense.len() as f64;
        let differences = || {
            dense
                .iter()
                .zip(sparse)
                .map(|(dense, sparse)| sparse - dense)
        };
        let mean = differences().sum::<f64>() / n;
        let squares: f64 = differences().map(|d| (d - mean) * (d - mean)).sum();
        let standard_error = (squares / (n - 1.0) * n).sqrt();
        Self {
            drop,
            standard_error,
            lower: drop - Z_95 * standard_error,
            upper: drop + Z_95 * standard_error,
        }
    }
}

/// Number of samples, about, on which the standard error of a drop in points is `standard_error`, where two networks differ on this share
/// of the samples.
pub(super) fn samples_for(standard_error: f64, share: f64) -> f64 {
    // Solves `standard_error = 100 sqrt(share n + 1) / n`; the one is what is added to the cells.
    let k = (100.0 / standard_error).powi(2);
    let half = 0.5 * k * share;
    half + (half * half + k).sqrt()
}

/// McNemar's exact two-sided p: how likely a split at least as uneven as `b` to `c` is where either network is as likely to be wrong
/// alone as the other (McNemar 1947).
pub fn mcnemar_p(b: usize, c: usize) -> f64 {
    let (n, least) = (b + c, b.min(c));
    // The largest term of the tail first, and the others by their ratios.
    let mut term = (ln_choose(n, least) - n as f64 * std::f64::consts::LN_2).exp();
    let mut tail = 0.0;
    for k in (0..=least).rev() {
        tail += term;
        term *= k as f64 / (n - k + 1) as f64;
    }
    (2.0 * tail).min(1.0)
}

/// Logarithm of the number of ways to choose `k` of `n`.
pub(super) fn ln_choose(n: usize, k: usize) -> f64 {
    let k = k.min(n - k);
    (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::PooledScore;
    use super::*;
    use crate::objective::{PerSample, SampleErrors, Score};

    /// ```python
    /// from fractions import Fraction
    /// from math import comb
    /// for b, c in [(0, 0), (10, 25), (3, 3), (0, 6), (1, 2), (19, 57), (900, 1100)]:
    ///     tail = sum(comb(b + c, k) for k in range(min(b, c) + 1))
    ///     print(b, c, float(min(1, 2 * Fraction(tail, 2 ** (b + c)))))
    /// ```
    #[test]
    fn mcnemar_has_known_values() {
        let known = [
            (0, 0, 1.0),
            (10, 25, 0.016_673_847_800_120_71),
            (3, 3, 1.0),
            (0, 6, 0.031_25),
            (1, 2, 1.0),
            (19, 57, 1.483_689_933_637_236_7e-5),
            (900, 1100, 8.457_089_535_503_927e-6),
        ];
        for (b, c, want) in known {
            for got in [mcnemar_p(b, c), mcnemar_p(c, b)] {
                assert!((got - want).abs() <= 1e-10 * want, "{b} {c}: {got}, {want}");
            }
        }
    }

    #[test]
    fn bounds_of_classes_have_known_values() {
        // By hand: 5,002 samples, 10.5 and 25.5 differ; 36 - 15^2 / 5002 = 35.955.
        let got = DropEstimate::of_classes(5000, 10, 25);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-4, "{got}, {want}");
        near(got.drop, 0.3);
        near(got.standard_error, 0.119_876);
        near(got.lower, 0.299_880 - 1.644_854 * 0.119_876);
        near(got.upper, 0.299_880 + 1.644_854 * 0.119_876);
        // Twenty samples without a difference say little.
        let few = DropEstimate::of_classes(20, 0, 0);
        assert_eq!(few.drop, 0.0);
        near(few.upper, 1.644_854 * 100.0 / 22.0);
        // The networks the other way round.
        let back = DropEstimate::of_classes(5000, 25, 10);
        assert_eq!((back.drop, back.lower), (-got.drop, -got.upper));
    }

    /// Numbers from 0 to 1.
    fn uniforms() -> impl FnMut() -> f64 {
        let mut state = 1_u64;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        }
    }

    /// Of 100 sets of 1,000 pairs whose true drop is known, about five may have it above their upper bound.
    #[test]
    fn an_upper_bound_holds_for_95_sets_in_100() {
        let mut uniform = uniforms();
        let (mut classes, mut numbers) = (0, 0);
        for _ in 0..400 {
            let (mut b, mut c) = (0, 0);
            let (mut dense, mut sparse) = (vec![], vec![]);
            for _ in 0..1000 {
                let u = uniform();
                b += usize::from(u < 0.01);
                c += usize::from((0.01..0.03).contains(&u));
                dense.push(uniform() / 1000.0);
                sparse.push(1.1 * uniform() / 1000.0);
            }
            classes += usize::from(DropEstimate::of_classes(1000, b, c).upper < 1.0);
            let drop = sparse.iter().sum::<f64>() - dense.iter().sum::<f64>();
            numbers += usize::from(DropEstimate::of_regression(drop, &dense, &sparse).upper < 0.05);
        }
        // Twenty are expected of 400, with a deviation of 4.4.
        assert!(
            (7..=34).contains(&classes) && (7..=34).contains(&numbers),
            "{classes}, {numbers}"
        );
    }

    /// The same for three seeds that are wrong on much the same samples. To count them as three times as many samples is not enough.
    #[test]
    fn an_upper_bound_of_seeds_that_err_alike_holds_for_95_sets_in_100() {
        let mut uniform = uniforms();
        let errors = |wrong: Vec<bool>| SampleErrors {
            score: Score::Classes {
                samples: wrong.len(),
                wrong: wrong.iter().filter(|w| **w).count(),
            },
            samples: PerSample::Classes {
                labels: vec![0; wrong.len()],
                wrong,
            },
        };
        let (mut pooled, mut naive) = (0, 0);
        for _ in 0..400 {
            let mut pairs = vec![(vec![false; 1000], vec![false; 1000]); 3];
            for sample in 0..1000 {
                // One sample in a hundred is hard for the reference alone and two for the others, each for four seeds in five.
                let u = uniform();
                for (reference, errors) in &mut pairs {
                    let is_hard = uniform() < 0.8;
                    reference[sample] = is_hard && u < 0.01;
                    errors[sample] = is_hard && (0.01..0.03).contains(&u);
                }
            }
            let pairs: Vec<_> = pairs
                .into_iter()
                .map(|(a, b)| (errors(a), errors(b)))
                .collect();
            let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a, b)).collect();
            let Some(PooledScore::Errors(score)) = PooledScore::new(&pairs) else {
                panic!("a classification")
            };
            pooled += usize::from(score.estimate.upper < 0.8);
            let (b, c) = (score.reference_only_wrong, score.only_wrong);
            naive += usize::from(DropEstimate::of_classes(3000, b, c).upper < 0.8);
        }
        assert!((7..=34).contains(&pooled), "{pooled}");
        assert!(naive > 50, "{naive}");
    }
}
