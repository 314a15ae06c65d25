//! The update: KL gradient and Adam, piece by piece on all threads.

use rayon::prelude::*;
use sparsevd_kernels::training::{
    Adam, KlWeight, Real, adam, kl_gradient, log_alpha, variational_adam,
};

use super::{Engine, PIECE};
use crate::layer::Layer;
use crate::state::State;
use crate::variational::Granularity;

/// Settings of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyper {
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

impl<T: Real> Engine<T> {
    /// Adds the gradient of the KL term to that of the last batch and makes one Adam step.
    pub fn update(&mut self, hyper: &Hyper) {
        let (isa, granularity) = (self.isa, self.granularity);
        let rule = Adam::at(hyper.adam_step);
        let rate = hyper.learning_rate;
        let rates = [rate, hyper.learning_rate_log_sigma2];
        let kl_weight = KlWeight(hyper.kl_weight);
        let mut tasks: Vec<Task<'_>> = vec![];
        let State {
            layers,
            normalisations,
        } = &mut self.state;
        for ((n, gradients), batch) in normalisations
            .iter_mut()
            .zip(&self.normalisation_gradients)
            .zip(&self.statistics)
        {
            if n.constant {
                continue;
            }
            n.follow(&batch.mean, &batch.variance, batch.count);
            let [by_scale, by_bias] = gradients;
            let [m, v] = &mut n.scale_moments;
            adam(isa, rule, rate, &mut n.scale, by_scale, m, v);
            let [m, v] = &mut n.bias_moments;
            adam(isa, rule, rate, &mut n.bias, by_bias, m, v);
        }
        for ((layer, gradients), bias_gradient) in layers
            .iter_mut()
            .zip(&self.gradients)
            .zip(&self.bias_gradients)
        {
            if layer.is_variational() && granularity != Granularity::Weight {
                shared_rate_step(granularity, layer, gradients, hyper);
            }
            if layer.bias_name.is_some() {
                let [m, v] = &mut layer.bias_moments;
                let bias = &mut layer.bias;
                tasks.push(Box::new(move || {
                    adam(isa, rule, rate, bias, bias_gradient, m, v)
                }));
            }
            if layer.log_sigma2.is_empty() {
                let Layer {
                    theta,
                    mask,
                    theta_moments: [m, v],
                    ..
                } = layer;
                let chunks = theta
                    .chunks_mut(PIECE)
                    .zip(m.chunks_mut(PIECE))
                    .zip(v.chunks_mut(PIECE));
                let read = gradients[0].chunks(PIECE).zip(mask.chunks(PIECE));
                for (((theta, m), v), (gradient, mask)) in chunks.zip(read) {
                    tasks.push(Box::new(move || {
                        adam(isa, rule, rate, theta, gradient, m, v);
                        for (t, &mask) in theta.iter_mut().zip(mask) {
                            *t *= mask;
                        }
                    }));
                }
            } else if granularity == Granularity::Weight {
                let Layer {
                    theta,
                    log_sigma2,
                    sigma2,
                    mask,
                    theta_moments: [mt, vt],
                    log_sigma2_moments: [ml, vl],
                    ..
                } = layer;
                let values = theta
                    .chunks_mut(PIECE)
                    .zip(log_sigma2.chunks_mut(PIECE))
                    .zip(sigma2.chunks_mut(PIECE));
                let moments = mt
                    .chunks_mut(PIECE)
                    .zip(vt.chunks_mut(PIECE))
                    .zip(ml.chunks_mut(PIECE).zip(vl.chunks_mut(PIECE)));
                let read = gradients[0]
                    .chunks(PIECE)
                    .zip(gradients[1].chunks(PIECE))
                    .zip(mask.chunks(PIECE));
                for ((((theta, log_sigma2), sigma2), ((mt, vt), (ml, vl))), ((gt, gs), mask)) in
                    values.zip(moments).zip(read)
                {
                    tasks.push(Box::new(move || {
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
        match &self.pool {
            Some(pool) if self.shards.len() > 1 => {
                pool.install(|| tasks.into_par_iter().for_each(|task| task()))
            }
            _ => tasks.into_iter().for_each(|task| task()),
        }
        self.state.layers.iter_mut().for_each(Layer::refresh_grid);
    }
}

/// A step where the weights of a unit or a layer share one rate alpha: `sigma^2 = alpha (theta^2 + 1e-8)`.
fn shared_rate_step<T: Real>(
    granularity: Granularity,
    layer: &mut Layer<T>,
    gradients: &[Vec<T>; 2],
    hyper: &Hyper,
) {
    let group = granularity.group(layer.units(), layer.patch());
    let rule = Adam::at(hyper.adam_step);
    let weight = hyper.kl_weight;
    let isa = sparsevd_kernels::Isa::SCALAR;
    for (rate, start) in (0..layer.theta.len()).step_by(group.max(1)).enumerate() {
        let here = start..(start + group).min(layer.theta.len());
        // All weights of a group have the same rate, so the first one gives it, unclipped.
        let la =
            layer.log_sigma2[start] - (layer.theta[start] * layer.theta[start] + T::of(1e-8)).ln();
        let alpha = la.exp();
        let slope = weight * kl_gradient(log_alpha(T::of(1.0), la)).to_f64();
        let mut by_rate = T::default();
        let mut by_theta = gradients[0][here.clone()].to_vec();
        for (k, i) in here.clone().enumerate() {
            by_rate += gradients[1][i] * layer.sigma2[i] + T::of(slope) * layer.mask[i];
            by_theta[k] += gradients[1][i] * alpha * T::of(2.0) * layer.theta[i];
        }
        let [m, v] = &mut layer.theta_moments;
        adam(
            isa,
            rule,
            hyper.learning_rate,
            &mut layer.theta[here.clone()],
            &by_theta,
            &mut m[here.clone()],
            &mut v[here.clone()],
        );
        let mut la = [la];
        let [m, v] = &mut layer.log_sigma2_moments;
        adam(
            isa,
            rule,
            hyper.learning_rate_log_sigma2,
            &mut la,
            &[by_rate],
            &mut m[rate..=rate],
            &mut v[rate..=rate],
        );
        // The clip of the published method: without a data term against it a rate would grow without bound.
        let la = la[0].larger(T::of(-8.0)).smaller(T::of(8.0));
        for i in here {
            layer.theta[i] = layer.theta[i] * layer.mask[i];
            layer.log_sigma2[i] = la + (layer.theta[i] * layer.theta[i] + T::of(1e-8)).ln();
            layer.sigma2[i] = layer.mask[i] * layer.log_sigma2[i].exp();
        }
    }
}
