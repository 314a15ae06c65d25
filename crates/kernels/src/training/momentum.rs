//! Stochastic gradient descent with Nesterov's momentum.

use crate::isa::multiversion;
use crate::training::Real;

/// The constants of a step of [`nesterov`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nesterov {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the velocity, 0 to below 1.
    pub momentum: f64,
    /// Factor on the parameters that is added to their gradient.
    pub weight_decay: f64,
    /// Decay of the average of squared gradients.
    pub beta2: f64,
}

multiversion! {
    /// One step as PyTorch's SGD makes it with `nesterov=True`: with `g = gradient + weight_decay p` and `v <- momentum v + g`,
    /// `p <- p - learning_rate (g + momentum v)` (Sutskever et al. 2013). The step does not need `square`, the average of the squared `gradient`
    /// that Adam calls its second moment: pruning does.
    pub fn nesterov[T: Real](
        rule: Nesterov,
        p: &mut [T],
        gradient: &[T],
        velocity: &mut [T],
        square: &mut [T],
    ) = nesterov_body::<T>;
}

#[inline(always)]
fn nesterov_body<T: Real>(
    rule: Nesterov,
    p: &mut [T],
    gradient: &[T],
    velocity: &mut [T],
    square: &mut [T],
) {
    let [rate, momentum, decay] =
        [rule.learning_rate, rule.momentum, rule.weight_decay].map(|x| T::of(x));
    let [beta2, rest2] = [rule.beta2, 1.0 - rule.beta2].map(|x| T::of(x));
    let state = velocity.iter_mut().zip(square);
    for ((p, &g), (v, square)) in p.iter_mut().zip(gradient).zip(state) {
        *square = beta2 * *square + rest2 * g * g;
        let g = g + decay * *p;
        *v = momentum * *v + g;
        *p -= rate * (g + momentum * *v);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn steps_have_the_values_of_pytorch() {
        // torch.optim.SGD([1.0, -2.0], lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01) with gradients [0.5, 1.0], [0.25, -1.0]
        let rule = Nesterov {
            learning_rate: 0.1,
            momentum: 0.9,
            weight_decay: 0.01,
            beta2: 0.75,
        };
        for isa in Isa::available() {
            let (mut p, mut v, mut square) = ([1.0f64, -2.0], [0.0; 2], [0.0; 2]);
            nesterov(isa, rule, &mut p, &[0.5, 1.0], &mut v, &mut square);
            assert_eq!(square, [0.0625, 0.25]);
            let want = [
                1.0 - 0.1 * (0.51 + 0.9 * 0.51),
                -2.0 - 0.1 * (0.98 + 0.9 * 0.98),
            ];
            assert!(
                p.iter().zip(want).all(|(p, w)| (p - w).abs() < 1e-15),
                "{p:?}"
            );
            nesterov(isa, rule, &mut p, &[0.25, -1.0], &mut v, &mut square);
            assert_eq!(square, [0.0625, 0.4375]);
            let want = [0.81257411, -2.07142622];
            assert!(
                p.iter().zip(want).all(|(p, w)| (p - w).abs() < 1e-12),
                "{p:?}"
            );
        }
    }
}
