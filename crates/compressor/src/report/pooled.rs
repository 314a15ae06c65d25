//! Two methods on the same samples, over several seeds.
//!
//! The networks of several seeds are run on the same samples, and a sample that is hard for one is hard for the others: it is no new
//! evidence each time. So a sample counts once, with the mean of its differences over the seeds. With one seed all is as in
//! [`SplitScore`](super::SplitScore).

use serde::{Deserialize, Serialize};

use super::paired::{DropEstimate, ln_choose};
use crate::objective::{PerSample, SampleErrors};

/// Scores of two series of networks, one pair for each seed, on the same samples: those of a reference, such as the dense network or
/// another method, and those that are compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PooledScore {
    /// Of a classification.
    Errors(PooledErrors),
    /// Of a regression.
    Fit(PooledFit),
}

/// Errors on one set of images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PooledErrors {
    /// Images.
    pub images: usize,
    /// Seeds.
    pub seeds: usize,
    /// Percent that the reference gets wrong, a mean over the seeds.
    pub reference_percent: f64,
    /// Percent that the networks get wrong, a mean over the seeds.
    pub percent: f64,
    /// Images that the reference alone gets wrong, a sum over the seeds.
    pub reference_only_wrong: usize,
    /// Images that the networks alone get wrong, a sum over the seeds.
    pub only_wrong: usize,
    /// Two-sided p of a sign-flip test that both are equally good, on the images' differences summed over the seeds. With one seed it is
    /// McNemar's exact p. With several it is exact where each image's difference is as likely of one sign as of the other.
    pub p: f64,
    /// Points of error over the reference, a mean over the seeds. Standard error and bounds are about other images for these networks.
    #[serde(flatten)]
    pub estimate: DropEstimate,
}

/// How well networks fit one set of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PooledFit {
    /// Samples.
    pub samples: usize,
    /// Seeds.
    pub seeds: usize,
    /// R2 of the reference, a mean over the seeds.
    pub reference_r2: f64,
    /// R2 of the networks, a mean over the seeds.
    pub r2: f64,
    /// R2 under the reference, a mean over the seeds. Standard error and bounds are about other samples for these networks.
    #[serde(flatten)]
    pub estimate: DropEstimate,
}

impl PooledScore {
    /// Puts the errors of the reference and of the networks together, a pair for each seed; `None` without a pair.
    ///
    /// # Panics
    /// When some errors are of classes and others of numbers, or of other samples.
    #[track_caller]
    pub fn new(pairs: &[(&SampleErrors, &SampleErrors)]) -> Option<Self> {
        let (first, _) = pairs.first()?;
        Some(match &first.samples {
            PerSample::Classes { wrong, .. } => Self::Errors(PooledErrors::new(wrong.len(), pairs)),
            PerSample::Regression(terms) => Self::Fit(PooledFit::new(terms.len(), pairs)),
        })
    }

    /// Points of error, or R2, that were lost beside the reference; negative where it was beaten.
    pub fn drop(&self) -> f64 {
        self.estimate().drop
    }

    /// The same with its bounds.
    pub fn estimate(&self) -> &DropEstimate {
        match self {
            Self::Errors(e) => &e.estimate,
            Self::Fit(f) => &f.estimate,
        }
    }
}

impl PooledErrors {
    #[track_caller]
    fn new(images: usize, pairs: &[(&SampleErrors, &SampleErrors)]) -> Self {
        let mut differences = vec![0_i64; images];
        let (mut reference_only_wrong, mut only_wrong) = (0, 0);
        for (reference, errors) in pairs {
            let pairs = wrong(reference, images).iter().zip(wrong(errors, images));
            for (difference, pair) in differences.iter_mut().zip(pairs) {
                match pair {
                    (true, false) => {
                        *difference -= 1;
                        reference_only_wrong += 1;
                    }
                    (false, true) => {
                        *difference += 1;
                        only_wrong += 1;
                    }
                    (true, true) | (false, false) => {}
                }
            }
        }
        let seeds = pairs.len() as f64;
        let sum = differences.iter().sum::<i64>() as f64 / seeds;
        let squares = differences.iter().map(|d| d * d).sum::<i64>() as f64 / (seeds * seeds);
        let percent = |of: fn(&(&SampleErrors, &SampleErrors)) -> f64| {
            pairs.iter().map(of).sum::<f64>() / seeds
        };
        Self {
            images,
            seeds: pairs.len(),
            reference_percent: percent(|(reference, _)| reference.score.error()),
            percent: percent(|(_, errors)| errors.score.error()),
            reference_only_wrong,
            only_wrong,
            p: sign_flip_p(&differences),
            estimate: DropEstimate::of_differences(images, sum, squares),
        }
    }
}

impl PooledFit {
    #[track_caller]
    fn new(samples: usize, pairs: &[(&SampleErrors, &SampleErrors)]) -> Self {
        let seeds = pairs.len() as f64;
        let mut means = [vec![0.0; samples], vec![0.0; samples]];
        let mut r2 = [0.0; 2];
        for (reference, errors) in pairs {
            for (i, one) in [reference, errors].into_iter().enumerate() {
                r2[i] += one.score.r2().unwrap_or(f64::NAN) / seeds;
                for (mean, term) in means[i].iter_mut().zip(terms(one, samples)) {
                    *mean += term / seeds;
                }
            }
        }
        let ([reference, errors], [reference_r2, r2]) = (means, r2);
        Self {
            samples,
            seeds: pairs.len(),
            reference_r2,
            r2,
            estimate: DropEstimate::of_regression(reference_r2 - r2, &reference, &errors),
        }
    }
}

/// Which of `images` images are wrong.
#[track_caller]
fn wrong(errors: &SampleErrors, images: usize) -> &[bool] {
    match &errors.samples {
        PerSample::Classes { wrong, .. } if wrong.len() == images => wrong,
        PerSample::Classes { .. } | PerSample::Regression(_) => {
            panic!("expected errors of the same {images} images")
        }
    }
}

/// The terms of `samples` samples.
#[track_caller]
fn terms(errors: &SampleErrors, samples: usize) -> &[f64] {
    match &errors.samples {
        PerSample::Regression(terms) if terms.len() == samples => terms,
        PerSample::Classes { .. } | PerSample::Regression(_) => {
            panic!("expected errors of the same {samples} samples")
        }
    }
}

/// Two-sided p of a sign-flip test: how likely a sum at least as far from zero is where the sign of each difference is as likely to be plus
/// as minus. It is exact for differences with symmetric distributions, as those of -1, 0 and 1 of two equal networks, which make it
/// McNemar's.
fn sign_flip_p(differences: &[i64]) -> f64 {
    let largest = differences.iter().map(|d| d.unsigned_abs()).max();
    let mut counts = vec![0_usize; largest.unwrap_or(0) as usize + 1];
    for difference in differences {
        counts[difference.unsigned_abs() as usize] += 1;
    }
    // The distribution of the sum: its least value, and the probability of that and of every second number above it.
    let (mut least, mut sums) = (0_i64, vec![1.0]);
    for (size, &count) in counts.iter().enumerate().skip(1).filter(|(_, n)| **n > 0) {
        let (first, heads) = binomial(count);
        // Of `heads` differences of this size the sign is plus, of the others minus.
        least += size as i64 * (2 * first as i64 - count as i64);
        let mut next = vec![0.0; sums.len() + size * (heads.len() - 1)];
        for (heads, p) in heads.iter().enumerate() {
            let next = &mut next[size * heads..];
            for (next, sum) in next.iter_mut().zip(&sums) {
                *next += p * sum;
            }
        }
        sums = next;
    }
    let got = differences.iter().sum::<i64>().abs();
    let values = (least..).step_by(2).zip(&sums);
    let far = values.filter(|(value, _)| value.abs() >= got);
    far.map(|(_, p)| p).sum::<f64>().min(1.0)
}

/// The distribution of the number of heads of `n` coins: the least number whose probability is not zero as `f64`, and the probabilities
/// from there on.
fn binomial(n: usize) -> (usize, Vec<f64>) {
    let mode = n / 2;
    let most = (ln_choose(n, mode) - n as f64 * std::f64::consts::LN_2).exp();
    let below = (1..=mode).rev().scan(most, |p, heads| {
        *p *= heads as f64 / (n - heads + 1) as f64;
        (*p > 0.0).then_some(*p)
    });
    let mut below: Vec<f64> = below.collect();
    let above = (mode + 1..=n).scan(most, |p, heads| {
        *p *= (n - heads + 1) as f64 / heads as f64;
        (*p > 0.0).then_some(*p)
    });
    let first = mode - below.len();
    below.reverse();
    below.push(most);
    below.extend(above);
    (first, below)
}

#[cfg(test)]
mod tests {
    use super::super::{SplitScore, mcnemar_p};
    use super::*;
    use crate::objective::{Targets, sample_errors};

    fn near(got: f64, want: f64) {
        assert!(
            (got - want).abs() <= 1e-9 * want.abs().max(1.0),
            "{got}, {want}"
        );
    }

    /// Errors of a network that is wrong where there is an `x`.
    fn errors(wrong: &str) -> SampleErrors {
        let scores = |c: u8| if c == b'x' { [0.0, 1.0] } else { [1.0, 0.0] };
        let scores: Vec<f32> = wrong.bytes().flat_map(scores).collect();
        sample_errors(&scores, &Targets::classes(&vec![0; wrong.len()]))
    }

    #[test]
    fn a_sample_counts_once_for_all_seeds() {
        let dense = errors("xx......");
        let seeds = [errors("x..xx..."), errors("...x...."), errors("xx.xx...")];
        let pairs = seeds.each_ref().map(|sparse| (&dense, sparse));
        let Some(PooledScore::Errors(got)) = PooledScore::new(&pairs) else {
            panic!("errors of classes")
        };
        // Sums over the seeds: -1, -2, 0, 3, 2, 0, 0, 0.
        assert_eq!((got.images, got.seeds), (8, 3));
        assert_eq!((got.reference_only_wrong, got.only_wrong), (3, 5));
        near(got.reference_percent, 25.0);
        near(got.percent, 100.0 * 8.0 / 24.0);
        near(got.estimate.drop, 100.0 * (2.0 / 3.0) / 8.0);
        // Squares of the means: (1 + 4 + 9 + 4) / 9.
        let error = 100.0 * (2.0 + 1.0 - (2.0_f64 / 3.0).powi(2) / 10.0).sqrt() / 10.0;
        near(got.estimate.standard_error, error);
        near(
            got.estimate.upper,
            100.0 / 15.0 + 1.644_853_626_951_472_6 * error,
        );
        // Of the sixteen sums of 1, 2, 3 and 2 with signs, two are 0.
        near(got.p, 14.0 / 16.0);
    }

    #[test]
    fn one_seed_is_a_pair() {
        let (dense, sparse) = (errors("xxxx......x."), errors("x.....xx...x"));
        let Some(PooledScore::Errors(pooled)) = PooledScore::new(&[(&dense, &sparse)]) else {
            panic!("errors of classes")
        };
        let SplitScore::Errors(split) = SplitScore::new(&dense, &sparse) else {
            panic!("errors of classes")
        };
        assert_eq!(pooled.estimate, split.estimate);
        near(pooled.p, split.mcnemar_p);
        assert_eq!(pooled.only_wrong, split.sparse_only_wrong);
        assert_eq!(PooledScore::new(&[]), None);
    }

    /// ```python
    /// from itertools import product
    /// for d in [[2, 1, -1], [3, 3, 2, -1, 1], [-2, -2, -2, 1, 1, 1, -3]]:
    ///     sums = [abs(sum(s * x for s, x in zip(signs, d))) for signs in product([-1, 1], repeat=len(d))]
    ///     print(d, sum(s >= abs(sum(d)) for s in sums), len(sums))
    /// ```
    #[test]
    fn signs_are_flipped_one_difference_at_a_time() {
        near(sign_flip_p(&[2, 1, -1]), 6.0 / 8.0);
        near(sign_flip_p(&[3, 0, 3, 2, -1, 0, 1]), 6.0 / 32.0);
        near(sign_flip_p(&[-2, -2, -2, 1, 1, 1, -3]), 42.0 / 128.0);
        near(sign_flip_p(&[]), 1.0);
        near(sign_flip_p(&[0, 0]), 1.0);
        for (b, c) in [(0, 6), (3, 3), (10, 25), (900, 1100), (40_000, 41_000)] {
            let differences = [vec![-1; b], vec![1; c]].concat();
            let (got, want) = (sign_flip_p(&differences), mcnemar_p(b, c));
            assert!((got - want).abs() <= 1e-8 * want, "{b} {c}: {got}, {want}");
        }
        // The same split three times is no more than once.
        let thrice = [vec![-3; 10], vec![3; 25]].concat();
        near(sign_flip_p(&thrice), mcnemar_p(10, 25));
    }

    #[test]
    fn terms_of_a_regression_are_means_over_the_seeds() {
        let targets = [1.0, 2.0, 3.0, 4.0];
        let of =
            |predictions: [f32; 4]| sample_errors(&predictions, &Targets::vectors(&targets, 1));
        let dense = of([1.0, 2.0, 3.0, 3.0]);
        let (one, two) = (of([1.0, 1.0, 3.0, 6.0]), of([1.0, 2.0, 3.0, 4.0]));
        let Some(PooledScore::Fit(got)) = PooledScore::new(&[(&dense, &one), (&dense, &two)])
        else {
            panic!("errors of numbers")
        };
        // Squared deviations are 5; 1 - R2 is 1/5, and 1 and 0.
        near(got.reference_r2, 0.8);
        near(got.r2, 0.5);
        near(got.estimate.drop, 0.3);
        // Differences of the means: 0, 0.1, 0 and 0.4 - 0.2; their mean is 0.075.
        let squares = 2.0 * 0.075_f64.powi(2) + 0.025_f64.powi(2) + 0.125_f64.powi(2);
        near(got.estimate.standard_error, (squares / 3.0 * 4.0).sqrt());
    }
}
