//! Statistics of a posterior: dropout rates, KL divergence, and the weights that survive a threshold.

use sparsevd_kernels::training::{Real, kl, log_alpha};

/// Posterior of one weight matrix: `theta` and `log_sigma2`, and a mask that is 0 where a weight was removed for good.
#[derive(Debug, Clone, Copy)]
pub struct Posterior<'a, T> {
    /// Means.
    pub theta: &'a [T],
    /// Log variances.
    pub log_sigma2: &'a [T],
    /// 1 where a weight lives, 0 where it was removed.
    pub mask: &'a [T],
}

impl<T: Real> Posterior<'_, T> {
    /// `log_alpha` of every weight, in nats, clipped to plus and minus 8.
    pub fn log_alphas(&self) -> impl Iterator<Item = T> + '_ {
        self.theta
            .iter()
            .zip(self.log_sigma2)
            .map(|(&t, &l)| log_alpha(t, l))
    }

    /// Which weights survive: alive, not zero, and `log_alpha` not above the threshold.
    pub fn survivors(&self, threshold: f64) -> impl Iterator<Item = bool> + '_ {
        self.log_alphas()
            .zip(self.theta)
            .zip(self.mask)
            .map(move |((a, &t), &m)| m > T::of(0.0) && t != T::of(0.0) && a.to_f64() <= threshold)
    }

    /// KL divergence from the prior over all living weights, in nats (equation 14).
    pub fn kl(&self) -> f64 {
        self.log_alphas()
            .zip(self.mask)
            .filter(|(_, m)| **m > T::of(0.0))
            .map(|(a, _)| kl(a).to_f64())
            .sum()
    }
}

/// Bins of a [`histogram`].
pub const HISTOGRAM_BINS: usize = 32;

/// Counts of `log_alpha` in 32 bins of half a nat from -8 to 8.
pub fn histogram<T: Real>(posterior: &Posterior<'_, T>) -> [u64; HISTOGRAM_BINS] {
    let mut bins = [0; HISTOGRAM_BINS];
    for (a, &m) in posterior.log_alphas().zip(posterior.mask) {
        if m > T::of(0.0) {
            let bin = ((a.to_f64() + 8.0) * 2.0).floor().clamp(0.0, 31.0);
            bins[bin as usize] += 1;
        }
    }
    bins
}
