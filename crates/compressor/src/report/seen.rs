//! Whether a network was trained on the samples that it is validated on.

use super::paired::ln_choose;
use crate::objective::{PerSample, SampleErrors};

/// A network that never saw either set has an error on one that is below this share of that on the other, significantly so, only where
/// the sets differ.
const SHARE: f64 = 0.75;

/// Significance level of the difference.
const LEVEL: f64 = 1e-3;

/// The same for a normal variable, in standard deviations.
const Z_999: f64 = 3.090_232_306_167_813_5;

/// Whether a network's error on the validation samples is so far below that on the test samples that it was probably trained on the
/// former: at most three quarters of it, and by Fisher's exact one-sided test with p below 0.001. For a regression, of `1 - R2`, by
/// Welch's test.
pub fn was_trained_on(validation: &SampleErrors, test: &SampleErrors) -> bool {
    match (&validation.samples, &test.samples) {
        (PerSample::Classes { wrong, .. }, PerSample::Classes { wrong: others, .. }) => {
            let count = |wrong: &[bool]| wrong.iter().filter(|wrong| **wrong).count();
            let (k, n) = (count(wrong), wrong.len());
            let (others_k, others_n) = (count(others), others.len());
            let below = k as f64 / n as f64 <= SHARE * others_k as f64 / others_n as f64;
            below && fisher_p([k, n], [others_k, others_n]) < LEVEL
        }
        (PerSample::Regression(terms), PerSample::Regression(others)) => {
            let (own, own_variance) = sum_and_variance(terms);
            let (other, other_variance) = sum_and_variance(others);
            let deviation = (own_variance + other_variance).sqrt();
            own <= SHARE * other && other - own > Z_999 * deviation
        }
        (PerSample::Classes { .. }, PerSample::Regression(_))
        | (PerSample::Regression(_), PerSample::Classes { .. }) => false,
    }
}

/// Fisher's exact one-sided p: how likely at most `k` of the `n` samples of the first set are wrong, where as many samples of both sets
/// together are, and each is as likely as another.
fn fisher_p([k, n]: [usize; 2], [others_k, others_n]: [usize; 2]) -> f64 {
    let (all, wrong) = (n + others_n, k + others_k);
    let right = all - wrong;
    let logarithm = ln_choose(wrong, k) + ln_choose(right, n - k) - ln_choose(all, n);
    let (mut term, mut tail) = (logarithm.exp(), 0.0);
    for k in (0..=k).rev() {
        tail += term;
        // Ends where the first set has no room for fewer wrong samples.
        let more_right = (right + k).saturating_sub(n);
        term *= k as f64 * more_right as f64 / ((wrong - k + 1) as f64 * (n - k + 1) as f64);
    }
    tail.min(1.0)
}

/// Sum of independent terms, and its variance.
fn sum_and_variance(terms: &[f64]) -> (f64, f64) {
    let n = terms.len() as f64;
    let sum: f64 = terms.iter().sum();
    let squares: f64 = terms.iter().map(|t| (t - sum / n).powi(2)).sum();
    (sum, squares / (n - 1.0) * n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{Targets, sample_errors};

    fn errors(n: usize, wrong: usize) -> SampleErrors {
        let scores: Vec<f32> = (0..n)
            .flat_map(|i| [1.0, if i < wrong { 2.0 } else { 0.0 }])
            .collect();
        sample_errors(&scores, &Targets::classes(&vec![0; n]))
    }

    /// ```python
    /// from fractions import Fraction
    /// from math import comb
    /// for k, n, l, m in [(0, 5, 3, 5), (58, 5000, 99, 10000), (2, 3, 2, 2), (60, 5000, 184, 10000)]:
    ///     ways = sum(comb(k + l, i) * comb(n + m - k - l, n - i) for i in range(k + 1))
    ///     print(float(Fraction(ways, comb(n + m, n))))
    /// ```
    #[test]
    fn fisher_has_known_values() {
        let known = [
            ([0, 5], [3, 5], 0.08333333333333333),
            ([58, 5000], [99, 10_000], 0.8528639573527219),
            ([2, 3], [2, 2], 0.6),
            ([60, 5000], [184, 10_000], 0.0017713940538538133),
        ];
        for (own, others, want) in known {
            let got = fisher_p(own, others);
            assert!(
                (got - want).abs() <= 1e-8 * want,
                "{own:?} {others:?}: {got}, {want}"
            );
        }
    }

    #[test]
    fn a_network_that_knows_the_validation_images_is_found_out() {
        let seen = |validation, test| was_trained_on(&validation, &test);
        assert!(seen(errors(5000, 0), errors(10_000, 184)));
        // The committed networks.
        assert!(!seen(errors(5000, 58), errors(10_000, 99)));
        // Fewer errors by chance, a small set, and a test set that is a little harder.
        assert!(!seen(errors(100, 0), errors(10_000, 184)));
        assert!(!seen(errors(5000, 400), errors(10_000, 1000)));
    }

    #[test]
    fn a_regression_is_found_out_by_what_it_explains() {
        let targets: Vec<f32> = (0..400).map(|i| (i % 20) as f32).collect();
        let of = |error: f32| {
            let off = |(i, y): (usize, &f32)| y + error * ((i * 7 % 11) as f32 - 5.0);
            let predictions: Vec<f32> = targets.iter().enumerate().map(off).collect();
            sample_errors(&predictions, &Targets::vectors(&targets, 1))
        };
        assert!(was_trained_on(&of(0.1), &of(1.0)));
        assert!(!was_trained_on(&of(0.95), &of(1.0)));
        assert!(!was_trained_on(&of(1.0), &of(0.1)));
    }
}
