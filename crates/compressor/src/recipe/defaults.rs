//! Recipes for models without one.

use sparsevd_model::{Network, Op};

use super::{Augment, Decay, Method, Optimizer, Phase, Recipe, Search};

/// Convolutions from which on a network is taken to be a deep one.
const DEEP: usize = 5;

impl Recipe {
    /// The recipe for a model without one: two rounds of Sparse VD, and from their posterior a search for the fewest weights that
    /// keep the promise, each try fine-tuned beside the dense network and put on grids.
    ///
    /// Its phases count steps, as many as 16, 12, 16 and 8 epochs over 55,000 samples, so that small sets are trained as long.
    pub fn default_for_compression() -> Self {
        let explore = Phase {
            lr: 2e-3,
            hold: 0.5,
            kl_warmup: 4.0,
            prune_from: 3,
            ..Phase::new(Method::SparseVd, 16)
        };
        let settle = Phase {
            lr: 1.5e-3,
            lr_log_sigma2: Some(1e-2),
            hold: 0.5,
            prune_from: 1,
            ..Phase::new(Method::SparseVd, 12)
        };
        let tune = Phase {
            lr: 2e-3,
            hold: 0.3,
            distil: 0.5,
            ..Phase::new(Method::FineTune, 16)
        };
        let phases = [explore, settle, tune, round(false)].map(in_steps);
        Self {
            search: Some(Search::default()),
            augment: Augment::Measured,
            ..Self::new(phases.into())
        }
    }

    /// The recipe for a network without one: [`Self::default_for_compression`], and for one of five convolutions or more
    /// [`Self::default_for_deep_convolutions`].
    pub fn default_for(network: &Network) -> Self {
        match is_deep(network) {
            true => Self::default_for_deep_convolutions(),
            false => Self::default_for_compression(),
        }
    }

    /// The recipe for a deep convolutional network without one: it trains with batch normalisations, which are folded before grids, and
    /// what is left is fine-tuned for long, by gradient descent with momentum, as such networks are trained.
    ///
    /// Rates of so deep a network, of which few steps part, are cut at a `log_alpha` of 1, where noise is 1.6 times the weight. Its phases count
    /// steps, as many as 5, 24 and 8 epochs over 55,000 samples.
    pub fn default_for_deep_convolutions() -> Self {
        let choose = Phase {
            lr: 2e-3,
            lr_log_sigma2: Some(1e-2),
            hold: 0.5,
            kl_warmup: 2.0,
            distil: 0.5,
            ..Phase::new(Method::SparseVd, 5)
        };
        let tune = Phase {
            optimizer: Optimizer::Sgd,
            lr: 0.1,
            weight_decay: 1e-4,
            warmup: 0.05,
            hold: 0.05,
            decay: Decay::Cosine,
            distil: 0.5,
            ..Phase::new(Method::FineTune, 24)
        };
        let round = Phase {
            // The threshold of 1 leaves noise of up to 1.6 times a weight.
            grid: vec![0.3, 0.1],
            ..round(true)
        };
        Self {
            threshold: 1.0,
            batch_normalisation: true,
            search: Some(Search::default()),
            augment: Augment::Measured,
            ..Self::new([choose, tune, round].map(in_steps).into())
        }
    }

    /// The recipe that puts a sparse network on grids: the last phase of [`Self::default_for_compression`], with one scale, so that no
    /// validation samples are needed to choose, and at the learning rate for that network.
    pub fn default_for_grids(network: &Network) -> Self {
        let mut phase = in_steps(round(is_deep(network)));
        phase.keep_coarsest_grid();
        Self {
            augment: Augment::Measured,
            ..Self::new(vec![phase])
        }
    }

    /// The recipe that trains weights whose layers read rounded numbers for some epochs, with a peak learning rate of `lr`: beside the network in f32, as the
    /// fine-tuning of [`Self::default_for_compression`].
    pub fn default_for_activations(epochs: u32, lr: f64) -> Self {
        let phase = Phase {
            lr,
            hold: 0.3,
            distil: 0.5,
            ..Phase::new(Method::FineTune, epochs)
        };
        Self {
            augment: Augment::Measured,
            ..Self::new(vec![phase])
        }
    }

    /// The recipe for training a dense network: 12 epochs, or for a small set about 2,000 steps.
    pub fn default_for_training() -> Self {
        Self::new(vec![Phase {
            hold: 0.3,
            steps: Some(2000),
            ..Phase::new(Method::Dense, 12)
        }])
    }
}

/// Whether a network is a deep convolutional one.
fn is_deep(network: &Network) -> bool {
    let nodes = network.graph.nodes.iter();
    nodes.filter(|node| matches!(node.op, Op::Conv(_))).count() >= DEEP
}

/// The phase that rounds weights to grids, beside the network that the run began with.
fn round(deep: bool) -> Phase {
    Phase {
        // A deep convolutional network, whose normalisations are folded by then, forgets at 2e-3 what it was fine-tuned for (docs/promise.md).
        lr: if deep { 2e-4 } else { 2e-3 },
        hold: 0.3,
        distil: 0.5,
        // Where a grid of one posterior sigma costs too much: of many inputs each weight counts for little, and its sigma is large.
        grid: vec![1.0, 0.3],
        ..Phase::new(Method::Quantise, 8)
    }
}

/// A phase that has, on a set of any size, as many steps as its epochs over 55,000 samples have.
fn in_steps(phase: Phase) -> Phase {
    Phase {
        steps: Some(phase.epochs * (55_000 / phase.batch as u32)),
        ..phase
    }
}

#[cfg(test)]
mod tests {
    use sparsevd_model::{Conv2d, GraphBuilder};

    use super::*;
    use crate::init::initialise;

    #[test]
    fn grids_are_those_of_the_default_recipe() {
        let whole = Recipe::default_for_compression();
        let grids = Recipe::default_for_grids(&network(1));
        let mut phase = whole.phases[3].clone();
        phase.grid.truncate(1);
        assert_eq!(grids.phases, [phase.clone()]);
        assert_eq!(grids.augment, whole.augment);
        assert!(grids.ends_on_grids() && !grids.chooses());
        grids.check().unwrap();
        // A deep convolutional network is trained onto them as gently as by its own recipe.
        phase.lr = Recipe::default_for_deep_convolutions().phases[2].lr;
        assert!(phase.lr < whole.phases[3].lr);
        assert_eq!(Recipe::default_for_grids(&network(5)).phases, [phase]);
    }

    fn network(convolutions: usize) -> Network {
        let mut b = GraphBuilder::new("net");
        let mut x = b.input("x", [1, 8, 8]);
        for i in 0..convolutions {
            x = b.conv(format!("c{i}"), &x, &Conv2d::square(1, 1));
        }
        b.output(&x);
        let (graph, tensors) = b.finish_with_tensors().unwrap();
        initialise(graph, &tensors, 1).unwrap()
    }

    #[test]
    fn deep_convolutional_networks_have_a_recipe_of_their_own() {
        let deep = Recipe::default_for_deep_convolutions();
        assert_eq!(Recipe::default_for(&network(5)), deep);
        assert_eq!(
            Recipe::default_for(&network(4)),
            Recipe::default_for_compression()
        );
        for recipe in [deep, Recipe::default_for_compression()] {
            recipe.check().unwrap();
            assert!(recipe.chooses() && recipe.ends_on_grids());
            let toml = recipe.to_toml();
            assert_eq!(
                Recipe::from_toml(&toml, "x".as_ref()).unwrap(),
                recipe,
                "{toml}"
            );
        }
    }

    #[test]
    fn a_phase_in_steps_takes_several_passes_over_a_small_set() {
        let phase = in_steps(Phase::new(Method::Dense, 16));
        assert_eq!(phase.steps, Some(8800));
        let of = |samples| (phase.passes(samples), phase.steps_per_epoch(samples));
        // Sets near MNIST's size and larger ones are passed once.
        assert_eq!(
            [54_000, 55_000, 1_000_000].map(of),
            [(1, 540), (1, 550), (1, 10_000)]
        );
        assert_eq!(
            [27_500, 1165, 350, 7].map(of),
            [(2, 550), (47, 547), (157, 549), (550, 550)]
        );
        let plain = Phase::new(Method::Dense, 16);
        assert_eq!((plain.passes(7), plain.steps_per_epoch(350)), (1, 3));
        let long = |steps| {
            let mut recipe = Recipe::default_for_training();
            recipe.phases[0].steps = Some(steps);
            recipe.check().map_err(|e| e.to_string())
        };
        assert_eq!(long(10_000_000), Ok(()));
        assert!(long(0).unwrap_err().starts_with("steps: expected 1 to"));
        let mut recipe = Recipe::default_for_training();
        recipe.phases[0].steps = Some(10_000_000);
        recipe.phases[0].batch = 60_000;
        let error = recipe.check().unwrap_err().to_string();
        assert!(error.starts_with("steps / epochs * batch"), "{error}");
    }
}
