//! Pruning policies: which weights of which layer are removed.

use crate::layer::Layer;
use crate::recipe::PruneBy;
use crate::variational::Granularity;

/// Per layer and weight, whether `log_alpha` is at most the threshold; see [`Layer::survivors`].
pub(super) fn under_threshold(layers: &[Layer<f32>], threshold: f64) -> Vec<Vec<bool>> {
    layers.iter().map(|l| l.survivors(threshold)).collect()
}

/// Per layer and weight, whether it is one of `weights` that stay: all of layers that stay dense, and of the others those of the lowest
/// rates. Of equal rates, such as those at a limit of the clip, the larger magnitudes stay, and of equal magnitudes the first; where layers that stay dense
/// have that many, one other weight stays.
pub(super) fn lowest_rates(layers: &[Layer<f32>], weights: usize) -> Vec<Vec<bool>> {
    let mut keep: Vec<_> = layers.iter().map(|l| l.survivors(f64::INFINITY)).collect();
    // Of each living weight of a variational layer the rate, what decides between equal rates, and where it is.
    let mut living: Vec<(f32, f32, [usize; 2])> = vec![];
    for (index, layer) in layers
        .iter()
        .enumerate()
        .filter(|(_, l)| l.is_variational())
    {
        let posterior = layer.posterior();
        let weights = posterior.log_alphas().zip(&layer.theta).enumerate();
        let weights = weights.filter(|(at, _)| keep[index][*at]);
        living.extend(weights.map(|(at, (rate, theta))| (rate, -theta.abs(), [index, at])));
    }
    let whole: usize = layers
        .iter()
        .filter(|l| !l.is_variational())
        .map(Layer::alive)
        .sum();
    let left = weights.saturating_sub(whole).max(1);
    if living.len() > left {
        living.select_nth_unstable_by(left, |a, b| {
            let by_rate = a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
            by_rate.then(a.2.cmp(&b.2))
        });
        for (_, _, [index, at]) in &living[left..] {
            keep[*index][*at] = false;
        }
    }
    keep
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

    /// All rates are at the lower limit of the clip but those of the two smallest weights and of a zero, which are higher.
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
        let stay = |layers: &[Layer<f32>], weights| -> Vec<f32> {
            let keep = &lowest_rates(layers, weights)[0];
            let weights = layers[0].theta.iter().zip(keep);
            weights
                .filter(|(_, keep)| **keep)
                .map(|(theta, _)| *theta)
                .collect()
        };
        assert_eq!(stay(&layers, 4), [-9., 8., 7., 6.]);
        assert_eq!(
            stay(&layers, 10),
            [5., -9., 4., 8., -3., 7., 6., 0.02, -2., 1.]
        );
        // Zeros have no say.
        assert_eq!(stay(&layers, 11).len(), 11);
        assert_eq!(stay(&layers, 100).len(), 11);
        // Of equal magnitudes the first.
        layers[0].theta.fill(-5.0);
        let keep = &lowest_rates(&layers, 5)[0];
        assert_eq!(keep.iter().position(|keep| !keep), Some(5));
        assert!(keep[5..].iter().all(|keep| !keep));
    }
}
