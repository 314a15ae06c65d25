//! The settings of one step of a phase: learning rates, KL weight, and how far pruning has gone.

use super::snapshot::Position;
use crate::engine::{Hyper, Rule};
use crate::recipe::{Optimizer, Phase};

/// Prunings in a phase of fine-tuning.
const PRUNINGS: u32 = 200;

/// The schedules of a phase of `steps` steps per epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule<'a> {
    pub phase: &'a Phase,
    pub steps: u32,
    /// Factor on the learning rate of gradient descent, whose steps are as long as gradients are large; Adam's are not.
    pub descent: f64,
}

impl Schedule<'_> {
    /// Epochs of the phase that are done before the next step, with fraction.
    pub fn epochs_done(&self, position: &Position) -> f64 {
        f64::from(position.epoch) + f64::from(position.step) / f64::from(self.steps)
    }

    /// Settings of the update after `epochs` epochs; `samples` is the number of training samples.
    pub fn hyper(&self, epochs: f64, adam_step: u32, samples: usize) -> Hyper {
        let factor = self
            .phase
            .rate_factor(epochs / f64::from(self.phase.epochs));
        let rate = self.phase.lr_log_sigma2.unwrap_or(self.phase.lr);
        let descent = match self.phase.optimizer {
            Optimizer::Adam => 1.0,
            Optimizer::Sgd => self.descent,
        };
        Hyper {
            rule: match self.phase.optimizer {
                Optimizer::Adam => Rule::Adam,
                Optimizer::Sgd => Rule::Nesterov {
                    momentum: self.phase.momentum,
                },
            },
            // A step shrinks weights by this times the rate.
            weight_decay: self.phase.weight_decay / descent,
            learning_rate: self.phase.lr * factor * descent,
            learning_rate_log_sigma2: rate * factor,
            kl_weight: self.phase.kl_factor(epochs) / samples as f64,
            adam_step,
        }
    }

    /// Number of weights to prune to by the end of the pruning, and the share of the pruning that is over; `None` where
    /// nothing is pruned after this step.
    pub fn pruning(&self, epochs: f64, adam_step: u32) -> Option<(usize, f64)> {
        let target = self.phase.pruned_in_steps()?;
        let interval = (self.steps * self.phase.epochs / PRUNINGS).max(1);
        let share = epochs / f64::from(self.phase.epochs) / self.phase.weights_by.max(1e-9);
        adam_step
            .is_multiple_of(interval)
            .then_some((target, share.min(1.0)))
    }
}
