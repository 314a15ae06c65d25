//! The KL divergence of Sparse VD, its gradient, and Adam: one fused pass over the weights.

use crate::isa::multiversion;
use crate::training::Real;

/// First constant of the KL approximation (Molchanov, Ashukha and Vetrov 2017, equation 14).
pub const K1: f64 = 0.63576;
/// Second constant of the KL approximation.
pub const K2: f64 = 1.87320;
/// Third constant of the KL approximation.
pub const K3: f64 = 1.48695;
/// `log_alpha` is clipped to plus and minus this.
pub const LOG_ALPHA_LIMIT: f64 = 8.0;
/// Added to theta^2 before its logarithm.
pub const THETA_EPSILON: f64 = 1e-8;

/// The weight of the KL term in the loss of a minibatch, whose data term is a mean: KL scale times warm-up over the number of training samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlWeight(pub f64);

/// `log alpha = log sigma^2 - log theta^2`, clipped to plus and minus [`LOG_ALPHA_LIMIT`].
#[inline(always)]
pub fn log_alpha<T: Real>(theta: T, log_sigma2: T) -> T {
    unclipped_log_alpha(theta, log_sigma2)
        .larger(T::of(-LOG_ALPHA_LIMIT))
        .smaller(T::of(LOG_ALPHA_LIMIT))
}

#[inline(always)]
fn unclipped_log_alpha<T: Real>(theta: T, log_sigma2: T) -> T {
    log_sigma2 - (theta * theta + T::of(THETA_EPSILON)).ln()
}

/// KL divergence of one weight's posterior from the log-uniform prior (equation 14), zero at infinite alpha.
#[inline(always)]
pub fn kl<T: Real>(log_alpha: T) -> T {
    let softplus =
        T::of(0.0).larger(-log_alpha) + (T::of(1.0) + (-(log_alpha.larger(-log_alpha))).exp()).ln();
    T::of(K1) - T::of(K1) * (T::of(K2) + T::of(K3) * log_alpha).sigmoid() + T::of(0.5) * softplus
}

/// Derivative of [`kl`] by `log_alpha`; never positive.
#[inline(always)]
pub fn kl_gradient<T: Real>(log_alpha: T) -> T {
    let s = (T::of(K2) + T::of(K3) * log_alpha).sigmoid();
    -(T::of(K1 * K3) * s * (T::of(1.0) - s) + T::of(0.5) * (-log_alpha).sigmoid())
}

/// One step of Adam (Kingma and Ba 2015) with its bias corrections, as PyTorch computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adam {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Number of this step, from 1.
    pub step: u32,
}

impl Adam {
    /// The usual constants: 0.9, 0.999, 1e-8.
    pub fn at(step: u32) -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            step,
        }
    }

    #[inline(always)]
    fn coefficients<T: Real>(&self, learning_rate: f64) -> Coefficients<T> {
        let power = f64::from(self.step);
        let correction1 = 1.0 - self.beta1.powf(power);
        let correction2 = 1.0 - self.beta2.powf(power);
        Coefficients {
            beta1: T::of(self.beta1),
            beta2: T::of(self.beta2),
            rest1: T::of(1.0 - self.beta1),
            rest2: T::of(1.0 - self.beta2),
            rate: T::of(learning_rate / correction1),
            root: T::of(1.0 / correction2.sqrt()),
            epsilon: T::of(self.epsilon),
        }
    }
}

#[derive(Clone, Copy)]
struct Coefficients<T> {
    beta1: T,
    beta2: T,
    rest1: T,
    rest2: T,
    rate: T,
    root: T,
    epsilon: T,
}

impl<T: Real> Coefficients<T> {
    /// Updates both moments and returns what to subtract from the parameter.
    #[inline(always)]
    fn step(&self, gradient: T, m: &mut T, v: &mut T) -> T {
        *m = self.beta1 * *m + self.rest1 * gradient;
        *v = self.beta2 * *v + self.rest2 * gradient * gradient;
        self.rate * *m / (v.sqrt() * self.root + self.epsilon)
    }
}

multiversion! {
    /// Adam on plain parameters (biases, dense weights, fine-tuned survivors): `m` and `v` are the moments.
    pub fn adam[T: Real](rule: Adam, learning_rate: f64, p: &mut [T], gradient: &[T], m: &mut [T], v: &mut [T]) = adam_body::<T>;
}

#[inline(always)]
fn adam_body<T: Real>(
    rule: Adam,
    learning_rate: f64,
    p: &mut [T],
    gradient: &[T],
    m: &mut [T],
    v: &mut [T],
) {
    let coefficients = rule.coefficients::<T>(learning_rate);
    for (((p, &g), m), v) in p.iter_mut().zip(gradient).zip(m).zip(v) {
        *p -= coefficients.step(g, m, v);
    }
}

multiversion! {
    /// Adds the KL gradient and makes one Adam step on theta and log sigma^2 of a weight matrix.
    ///
    /// `gradients` are those of the data term by theta and by sigma^2, `rates` the learning rates of theta and of log sigma^2, `moments` the first and
    /// second of theta, then of log sigma^2. `sigma2` must be exp(log_sigma2), and is updated. Where `mask` is 0, theta and log sigma^2 do not change
    /// and `sigma2` becomes 0.
    pub fn variational_adam[T: Real](
        rule: Adam,
        rates: [f64; 2],
        kl_weight: KlWeight,
        theta: &mut [T],
        log_sigma2: &mut [T],
        sigma2: &mut [T],
        mask: &[T],
        gradients: [&[T]; 2],
        moments: [&mut [T]; 4],
    ) = variational_adam_body::<T>;
}

#[allow(
    clippy::too_many_arguments,
    reason = "one fused pass reads and writes all of these"
)]
#[inline(always)]
fn variational_adam_body<T: Real>(
    rule: Adam,
    rates: [f64; 2],
    kl_weight: KlWeight,
    theta: &mut [T],
    log_sigma2: &mut [T],
    sigma2: &mut [T],
    mask: &[T],
    gradients: [&[T]; 2],
    moments: [&mut [T]; 4],
) {
    let n = theta.len();
    let coefficients = rates.map(|rate| rule.coefficients::<T>(rate));
    let weight = T::of(kl_weight.0);
    let limit = T::of(LOG_ALPHA_LIMIT);
    let zero = T::of(0.0);
    // Slices of one length let the compiler drop the bounds checks and vectorise.
    let (log_sigma2, sigma2, mask) = (&mut log_sigma2[..n], &mut sigma2[..n], &mask[..n]);
    let [g_theta, g_sigma2] = gradients.map(|g| &g[..n]);
    let [m_theta, v_theta, m_log, v_log] = moments;
    let (m_theta, v_theta) = (&mut m_theta[..n], &mut v_theta[..n]);
    let (m_log, v_log) = (&mut m_log[..n], &mut v_log[..n]);
    for i in 0..n {
        let (t, l, live) = (theta[i], log_sigma2[i], mask[i]);
        let t2 = t * t + T::of(THETA_EPSILON);
        let free = l - t2.ln();
        let clipped = free.larger(-limit).smaller(limit);
        // The clip is flat outside its limits, so the KL has no gradient there.
        let d = if free == clipped {
            weight * kl_gradient(clipped)
        } else {
            zero
        };
        let g_t = g_theta[i] - d * T::of(2.0) * t / t2;
        let g_l = g_sigma2[i] * sigma2[i] + d;
        theta[i] = t - live * coefficients[0].step(g_t, &mut m_theta[i], &mut v_theta[i]);
        let l = l - live * coefficients[1].step(g_l, &mut m_log[i], &mut v_log[i]);
        log_sigma2[i] = l;
        sigma2[i] = live * l.exp();
    }
}

multiversion! {
    /// `out = e^x`, element by element.
    pub fn exp[T: Real](x: &[T], out: &mut [T]) = exp_body::<T>;
}

#[inline(always)]
fn exp_body<T: Real>(x: &[T], out: &mut [T]) {
    for (o, &x) in out.iter_mut().zip(x) {
        *o = x.exp();
    }
}
