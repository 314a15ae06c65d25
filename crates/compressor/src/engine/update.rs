//! The update: KL gradient and Adam, piece by piece on all threads.

use rayon::prelude::*;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{
    Adam, KlWeight, Nesterov, Real, adam, kl_gradient, log_alpha, nesterov, variational_adam,
};

use super::{Engine, PIECE};
use crate::layer::Layer;
use crate::parameter::{Noise, Parameter, ParameterMut, Role};
use crate::variational::Granularity;

/// What takes a step from gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Adam, with decoupled weight decay.
    Adam,
    /// Gradient descent with Nesterov's momentum; the weight decay is part of the gradient. Layers with noise have Adam.
    Nesterov {
        /// Decay of the velocity.
        momentum: f64,
    },
}

/// Settings of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyper {
    /// What takes the step.
    pub rule: Rule,
    /// Factor on the weights without noise by which they are drawn to zero.
    pub weight_decay: f64,
    /// Learning rate of theta and the biases.
    pub learning_rate: f64,
    /// Learning rate of log sigma^2.
    pub learning_rate_log_sigma2: f64,
    /// Weight of the KL term in the loss per sample: scale times warm-up over the number of training samples.
    pub kl_weight: f64,
    /// Number of updates since the moments were zero, this one included.
    pub adam_step: u32,
}

type Task<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Share of a batch's statistics in the running ones after it: PyTorch's momentum.
const MOMENTUM: f64 = 0.1;

/// The gradient of one parameter, or the statistic of the batch towards which it moves.
enum Gradient<'a, T> {
    /// Gradients of weights by theta and by sigma^2.
    Weights(&'a [Vec<T>; 2]),
    /// Gradients of other numbers.
    Numbers(&'a [T]),
    /// A statistic of the batch, and a factor on it.
    Batch(&'a [f64], f64),
}

/// Settings of an update, and the place for its tasks.
struct Update<'a> {
    isa: Isa,
    granularity: Granularity,
    hyper: Hyper,
    adam: Adam,
    tasks: Vec<Task<'a>>,
}

/// A step of parameters without noise.
#[derive(Debug, Clone, Copy)]
struct Step {
    isa: Isa,
    rule: Rule,
    adam: Adam,
    learning_rate: f64,
    weight_decay: f64,
}

impl Step {
    /// Takes it. The velocity of Nesterov's momentum is where the first moment of Adam is; the second is the same for both.
    fn take<T: Real>(&self, values: &mut [T], gradient: &[T], [m, v]: [&mut [T]; 2]) {
        let (learning_rate, weight_decay) = (self.learning_rate, self.weight_decay);
        match self.rule {
            Rule::Adam => {
                if weight_decay > 0.0 {
                    let shrink = T::of(1.0 - learning_rate * weight_decay);
                    values.iter_mut().for_each(|x| *x *= shrink);
                }
                adam(self.isa, self.adam, learning_rate, values, gradient, m, v);
            }
            Rule::Nesterov { momentum } => {
                let rule = Nesterov {
                    learning_rate,
                    momentum,
                    weight_decay,
                    beta2: self.adam.beta2,
                };
                nesterov(self.isa, rule, values, gradient, m, v);
            }
        }
    }
}

impl<T: Real> Engine<T> {
    /// Adds the gradient of the KL term to that of the last batch and takes one step of the optimizer.
    pub fn update(&mut self, hyper: &Hyper) {
        // In the order of the parameters.
        let of_layers = self.gradients.iter().zip(&self.bias_gradients);
        let of_layers = of_layers
            .flat_map(|(weights, biases)| [Gradient::Weights(weights), Gradient::Numbers(biases)]);
        let of_normalisations = self.normalisation_gradients.iter().zip(&self.statistics);
        let of_normalisations = of_normalisations.flat_map(|([by_scale, by_bias], batch)| {
            // The batch's variance is divided by the count, the running one by one less.
            let n = batch.count as f64;
            let unbiased = n / (n - 1.0).max(1.0);
            [
                Gradient::Numbers(by_scale),
                Gradient::Numbers(by_bias),
                Gradient::Batch(&batch.mean, 1.0),
                Gradient::Batch(&batch.variance, unbiased),
            ]
        });
        let of_plain = self.plain_gradients.iter();
        let of_plain = of_plain.map(|g| Gradient::Numbers(g));
        let gradients = of_layers.chain(of_normalisations).chain(of_plain);
        let update = Update {
            isa: self.isa,
            granularity: self.granularity,
            hyper: *hyper,
            adam: Adam::at(hyper.adam_step),
            tasks: vec![],
        };
        let tasks = update.tasks(self.state.parameters_mut(), gradients);
        match &self.pool {
            Some(pool) if self.shards.len() > 1 => {
                pool.install(|| tasks.into_par_iter().for_each(|task| task()))
            }
            _ => tasks.into_iter().for_each(|task| task()),
        }
        self.state.layers.iter_mut().for_each(Layer::refresh_grid);
    }
}

/// Moves running statistics towards those of a batch, times `factor`.
fn follow<T: Real>(running: &mut [T], batch: &[f64], factor: f64) {
    for (old, new) in running.iter_mut().zip(batch) {
        *old = T::of((1.0 - MOMENTUM) * old.to_f64() + MOMENTUM * (new * factor));
    }
}

impl<'a> Update<'a> {
    /// Updates small parameters, and gives the updates of the others as tasks that may run side by side.
    fn tasks<T: Real>(
        mut self,
        parameters: Vec<ParameterMut<'a, T>>,
        gradients: impl Iterator<Item = Gradient<'a, T>>,
    ) -> Vec<Task<'a>> {
        for (parameter, gradient) in parameters.into_iter().zip(gradients) {
            match (parameter.role, gradient) {
                (Role::Constant, _) => {}
                (Role::Statistic, Gradient::Batch(statistic, factor)) => {
                    follow(parameter.values, statistic, factor);
                }
                (Role::Plain, Gradient::Numbers(gradient)) => self.plain(parameter, gradient),
                (Role::Plain | Role::Variational, Gradient::Weights(gradients)) => {
                    self.weights(parameter, gradients);
                }
                (role, _) => unreachable!("a parameter of role {role:?} with another's gradient"),
            }
        }
        self.tasks
    }

    /// A step of what has no noise.
    fn step(&self, weight_decay: f64) -> Step {
        Step {
            isa: self.isa,
            rule: self.hyper.rule,
            adam: self.adam,
            learning_rate: self.hyper.learning_rate,
            weight_decay,
        }
    }

    /// A step without weight decay; such parameters are small.
    fn plain<T: Real>(&self, parameter: ParameterMut<'_, T>, gradient: &[T]) {
        if let Some(moments) = parameter.moments {
            let moments = moments.map(Vec::as_mut_slice);
            self.step(0.0).take(parameter.values, gradient, moments);
        }
    }

    /// A step under a mask; by Adam with the KL term where there is noise.
    fn weights<T: Real>(&mut self, parameter: ParameterMut<'a, T>, gradients: &'a [Vec<T>; 2]) {
        let Parameter {
            values: theta,
            moments: Some([mt, vt]),
            noise: Some(noise),
            size,
            ..
        } = parameter
        else {
            unreachable!("weights have moments and a mask")
        };
        let (isa, rule, hyper) = (self.isa, self.adam, self.hyper);
        let rate = hyper.learning_rate;
        if noise.log_sigma2.is_empty() {
            let step = self.step(hyper.weight_decay);
            let chunks = theta
                .chunks_mut(PIECE)
                .zip(mt.chunks_mut(PIECE))
                .zip(vt.chunks_mut(PIECE));
            let read = gradients[0].chunks(PIECE).zip(noise.mask.chunks(PIECE));
            for (((theta, m), v), (gradient, mask)) in chunks.zip(read) {
                self.tasks.push(Box::new(move || {
                    step.take(theta, gradient, [m, v]);
                    for (t, &mask) in theta.iter_mut().zip(mask) {
                        *t *= mask;
                    }
                }));
            }
            return;
        }
        if self.granularity != Granularity::Weight {
            let group = self.granularity.group(size[0], size[1]);
            let group = (self.granularity, group);
            shared_rate_step(group, theta, [mt, vt], noise, gradients, &hyper);
            return;
        }
        let rates = [rate, hyper.learning_rate_log_sigma2];
        let kl_weight = KlWeight(hyper.kl_weight);
        let [ml, vl] = noise.moments;
        let values = theta
            .chunks_mut(PIECE)
            .zip(noise.log_sigma2.chunks_mut(PIECE))
            .zip(noise.sigma2.chunks_mut(PIECE));
        let moments = mt
            .chunks_mut(PIECE)
            .zip(vt.chunks_mut(PIECE))
            .zip(ml.chunks_mut(PIECE).zip(vl.chunks_mut(PIECE)));
        let read = gradients[0]
            .chunks(PIECE)
            .zip(gradients[1].chunks(PIECE))
            .zip(noise.mask.chunks(PIECE));
        for ((((theta, log_sigma2), sigma2), ((mt, vt), (ml, vl))), ((gt, gs), mask)) in
            values.zip(moments).zip(read)
        {
            self.tasks.push(Box::new(move || {
                variational_adam(
                    isa,
                    rule,
                    rates,
                    kl_weight,
                    theta,
                    log_sigma2,
                    sigma2,
                    mask,
                    [gt, gs],
                    [mt, vt, ml, vl],
                );
            }));
        }
    }
}

/// A step where the `group` weights of a unit or a layer share one rate alpha: `sigma^2 = alpha (theta^2 + 1e-8)`.
///
/// The variable of a layer is `log alpha`. That of a unit is the size of its noise, `log (alpha m)` with the mean square `m` of its
/// weights, as that of a single weight is: so the KL term shrinks the weights of a unit that does not matter, until its rate passes the
/// threshold. With `log alpha` all units of a layer come to rest at one rate, and none goes. Layers
/// keep `log alpha`: by the other variable a whole layer would be removed.
fn shared_rate_step<T: Real>(
    (granularity, group): (Granularity, usize),
    theta: &mut [T],
    [mt, vt]: [&mut Vec<T>; 2],
    noise: Noise<&mut Vec<T>>,
    gradients: &[Vec<T>; 2],
    hyper: &Hyper,
) {
    let Noise {
        mask,
        log_sigma2,
        sigma2,
        moments: [ml, vl],
        ..
    } = noise;
    let rule = Adam::at(hyper.adam_step);
    let weight = hyper.kl_weight;
    let isa = Isa::SCALAR;
    for (rate, start) in (0..theta.len()).step_by(group.max(1)).enumerate() {
        let here = start..(start + group).min(theta.len());
        // All weights of a group have the same rate, so the first one gives it, unclipped.
        let la = log_sigma2[start] - (theta[start] * theta[start] + T::of(1e-8)).ln();
        let alpha = la.exp();
        let slope = weight * kl_gradient(log_alpha(T::of(1.0), la)).to_f64();
        let squares = |theta: &[T]| theta.iter().map(|t| *t * *t + T::of(1e-8)).sum::<T>();
        let mut by_rate = T::default();
        let mut by_theta = gradients[0][here.clone()].to_vec();
        for (k, i) in here.clone().enumerate() {
            by_rate += gradients[1][i] * sigma2[i] + T::of(slope) * mask[i];
            by_theta[k] += gradients[1][i] * alpha * T::of(2.0) * theta[i];
        }
        let before = squares(&theta[here.clone()]);
        if granularity == Granularity::Unit {
            for (by_theta, &t) in by_theta.iter_mut().zip(&theta[here.clone()]) {
                *by_theta -= by_rate * T::of(2.0) * t / before;
            }
        }
        adam(
            isa,
            rule,
            hyper.learning_rate,
            &mut theta[here.clone()],
            &by_theta,
            &mut mt[here.clone()],
            &mut vt[here.clone()],
        );
        for i in here.clone() {
            theta[i] *= mask[i];
        }
        let moved = match granularity {
            Granularity::Unit => (squares(&theta[here.clone()]) / before).ln(),
            Granularity::Layer | Granularity::Weight => T::default(),
        };
        let mut la = [la];
        adam(
            isa,
            rule,
            hyper.learning_rate_log_sigma2,
            &mut la,
            &[by_rate],
            &mut ml[rate..=rate],
            &mut vl[rate..=rate],
        );
        // The clip of the published method: without a data term against it a rate would grow without bound.
        let la = (la[0] - moved).larger(T::of(-8.0)).smaller(T::of(8.0));
        for i in here {
            log_sigma2[i] = la + (theta[i] * theta[i] + T::of(1e-8)).ln();
            sigma2[i] = mask[i] * log_sigma2[i].exp();
        }
    }
}
