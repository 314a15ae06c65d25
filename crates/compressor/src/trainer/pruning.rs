//! Pruning policies: which weights of which layer are removed.

use crate::layer::Layer;
use crate::recipe::PruneBy;
use crate::variational::Granularity;

/// Per layer and weight, whether `log_alpha` is at most the threshold; see [`Layer::survivors`].
pub(super) fn under_threshold(layers: &[Layer<f32>], threshold: f64) -> Vec<Vec<bool>> {
    layers.iter().map(|l| l.survivors(threshold)).collect()
}

/// Per layer and weight, whether it is one of `weights` that stay: all of layers that stay dense, and of the others those of the lowest
/// rates. Equal rates stay together; where layers that stay dense have that many, one other weight stays.
pub(super) fn lowest_rates(layers: &[Layer<f32>], weights: usize) -> Vec<Vec<bool>> {
    let mut living: Vec<f32> = vec![];
    for layer in layers.iter().filter(|l| l.is_variational()) {
        let posterior = layer.posterior();
        let rates = posterior.log_alphas().zip(&layer.mask);
        living.extend(rates.filter(|(_, mask)| **mask > 0.0).map(|(rate, _)| rate));
    }
    let whole: usize = layers
        .iter()
        .filter(|l| !l.is_variational())
        .map(Layer::alive)
        .sum();
    let left = weights.saturating_sub(whole).max(1);
    let most = match living.len() > left {
        true => *living.select_nth_unstable_by(left - 1, f32::total_cmp).1,
        false => f32::INFINITY,
    };
    let keep = layers.iter().map(|l| match l.is_variational() {
        true => l.survivors(most.into()),
        false => l.survivors(f64::INFINITY),
    });
    keep.collect()
}

/// Number of weights under the threshold, of all layers.
pub(super) fn survivors(layers: &[Layer<f32>], threshold: f64) -> usize {
    let of_layer = |l: &Layer<f32>| l.survivors(threshold).iter().filter(|k| **k).count();
    layers.iter().map(of_layer).sum()
}

/// Number of weights that were not removed, of all layers.
pub(super) fn alive(layers: &[Layer<f32>]) -> usize {
    layers.iter().map(Layer::alive).sum()
}

/// Whether dead units may leave the arrays: shared rates belong to whole units or layers, whose arrays must stay whole.
pub(super) fn may_compact(layers: &[Layer<f32>], granularity: Granularity) -> bool {
    granularity == Granularity::Weight || !layers.iter().any(Layer::is_variational)
}

/// What removing a weight is taken to cost: its magnitude, or the loss `theta^2 E[g^2] / 2`, times two, with the average of squared
/// gradients that every optimizer keeps, Adam's second moment, for the expectation; among equals, its magnitude. A network that learns from itself alone has no gradients before it loses weights, so the
/// first to go are chosen by magnitude.
pub(super) type Cost = [f32; 2];

pub(super) fn cost(by: PruneBy, theta: f32, second_moment: f32) -> Cost {
    let first = match by {
        PruneBy::Fisher => theta * theta * second_moment,
        PruneBy::Magnitude => theta.abs(),
    };
    [first, theta.abs()]
}

/// The cost below which weights are removed, so that the number left falls from `begin` to `target` as the cube of
/// the remaining share `1 - t`; `None` where that many or fewer are left. Layers that stay dense lose none, and of all other weights one
/// is left.
pub(super) fn cut(
    layers: &[Layer<f32>],
    by: PruneBy,
    begin: usize,
    target: usize,
    t: f64,
) -> Option<Cost> {
    let pruned = || layers.iter().filter(|l| !l.stays_dense());
    let alive = alive(layers);
    let fixed = alive - pruned().map(Layer::alive).sum::<usize>();
    let begin = begin.max(target) as f64;
    let left = (target as f64 + (begin - target as f64) * (1.0 - t).powi(3)).round() as usize;
    let left = left.max(fixed + 1);
    if left >= alive {
        return None;
    }
    let mut costs: Vec<Cost> = vec![];
    for l in pruned() {
        let weights = l.theta.iter().zip(&l.theta_moments[1]).zip(&l.mask);
        let living = weights.filter(|(_, m)| **m > 0.0);
        costs.extend(living.map(|((&t, &v), _)| cost(by, t, v)));
    }
    let order = |a: &Cost, b: &Cost| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]));
    Some(*costs.select_nth_unstable_by(alive - left, order).1)
}
