//! Sparse Variational Dropout (Molchanov, Ashukha and Vetrov, "Variational Dropout Sparsifies Deep Neural Networks",
//! ICML 2017), the method alone.
//!
//! Every weight w has the posterior q(w) = N(theta, sigma^2) = N(theta, alpha theta^2) and the log-uniform prior
//! p(|w|) ~ 1/|w|. Training maximises the evidence lower bound
//!
//! ```text
//! L = sum_n E_q log p(y_n | x_n, w) - sum_w KL(q(w) || p(w))            (equation 1)
//! ```
//!
//! over theta and `log_sigma2`, the additive parametrisation, whose gradient by theta carries no noise of alpha
//! (equation 11). Pre-activations are sampled, not weights (local reparametrization; Kingma, Salimans and Welling 2015,
//! equation 6):
//!
//! ```text
//! y ~ N(x theta^T + b, x^2 (sigma^2)^T)
//! ```
//!
//! The KL divergence has no closed form; it depends on alpha alone and is approximated to about 0.01 by equation 14
//! ([`kl`]). Weights whose `log_alpha` passes a threshold, 3 in the paper, carry more than twenty times as much noise as
//! signal; they are set to zero. `docs/method.md` explains all of it from the beginning.

mod granularity;
mod posterior;

pub use granularity::Granularity;
pub use posterior::{HISTOGRAM_BINS, Posterior, histogram};
pub use sparsevd_kernels::training::{kl, kl_gradient, log_alpha};
