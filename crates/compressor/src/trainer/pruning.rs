//! Pruning policies: which weights of which layer are removed.

use crate::layer::Layer;
use crate::recipe::PruneBy;
use crate::variational::Granularity;

/// Per layer and weight, whether `log_alpha` is at most the threshold; see [`Layer::survivors`].
pub(super) fn under_threshold(layers: &[Layer<f32>], threshold: f64) -> Vec<Vec<bool>> {
    layers.iter().map(|l| l.survivors(threshold)).collect()
}

/// Per layer and weight, whether it is one of `weights` that stay: all of layers that stay dense, and of the others those of the lowest
/// rates. Of equal rates, such as those at a limit of the clip, the larger magnitudes stay; where layers that stay dense have that many, one other weight stays.
pub(super) fn lowest_rates(layers: &[Layer<f32>], weights: usize) -> Vec<Vec<bool>> {
    let by_rate = |a: &[f32; 2], b: &[f32; 2]| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]));
    let mut living: Vec<[f32; 2]> = vec![];
    for layer in layers.iter().filter(|l| l.is_variational()) {
        let rates = rates(layer).zip(&layer.mask);
        living.extend(rates.filter(|(_, mask)| **mask > 0.0).map(|(rate, _)| rate));
    }
    let whole: usize = layers
        .iter()
        .filter(|l| !l.is_variational())
        .map(Layer::alive)
        .sum();
    let left = weights.saturating_sub(whole).max(1);
    let most = match living.len() > left {
        true => *living.select_nth_unstable_by(left - 1, by_rate).1,
        false => [f32::INFINITY; 2],
    };
    let keep = layers.iter().map(|l| {
        let alive = l.survivors(f64::INFINITY);
        match l.is_variational() {
            true => (alive.into_iter().zip(rates(l)))
                .map(|(alive, rate)| alive && by_rate(&rate, &most).is_le())
                .collect(),
            false => alive,
        }
    });
    keep.collect()
}

/// Of each weight `log_alpha`, and what decides between equal ones.
fn rates(layer: &Layer<f32>) -> impl Iterator<Item = [f32; 2]> + '_ {
    let magnitudes = layer.theta.iter().map(|theta| -theta.abs());
    let rates = layer.posterior().log_alphas().collect::<Vec<_>>();
    rates.into_iter().zip(magnitudes).map(|(rate, m)| [rate, m])
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

#[cfg(test)]
mod tests {
    use sparsevd_model::{GraphBuilder, Weights};

    use super::*;
    use crate::initialise;
    use crate::state::State;

    /// All rates are at the lower limit of the clip but two, which are higher.
    #[test]
    fn of_equal_rates_the_larger_magnitudes_stay() {
        let mut b = GraphBuilder::new("net");
        let x = b.input("x", [4]);
        let x = b.linear("fc", &x, 3);
        b.output(&x);
        let (graph, tensors) = b.finish_with_tensors().unwrap();
        let mut network = initialise(graph, &tensors, 1).unwrap();
        let weight = network.tensors.get_mut("fc.weight").unwrap();
        let mut dense = weight.to_dense();
        dense.values = vec![5., -9., 4., 8., -3., 7., 0., 6., 0.01, 0.02, -2., 1.];
        *weight = Weights::Dense(dense);
        let mut layers = State::from_network(&network).unwrap().layers;
        layers[0].start_noise(-12.0, Granularity::Weight);
        let stay = |weights| -> Vec<f32> {
            let keep = &lowest_rates(&layers, weights)[0];
            let weights = layers[0].theta.iter().zip(keep);
            weights
                .filter(|(_, keep)| **keep)
                .map(|(theta, _)| *theta)
                .collect()
        };
        assert_eq!(stay(4), [-9., 8., 7., 6.]);
        assert_eq!(stay(10), [5., -9., 4., 8., -3., 7., 6., 0.02, -2., 1.]);
        // Zeros have no say.
        assert_eq!(stay(11).len(), 11);
        assert_eq!(stay(100).len(), 11);
    }
}
