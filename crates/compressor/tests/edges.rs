//! Runs at the edge of what can be trained: what they do, and what is said.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::recipe::{Method, Optimizer, Phase, PruneBy, Recipe, Validation};
use sparsevd_compressor::trainer::{RunOptions, Silent, Trainer};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{CompressError, Layer, TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels};
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{Column, Dense, Network, Preprocessing, Shape, Table, presets};

const FEATURES: usize = 6;

/// Two classes: the sign of the first of six features, times `scale`.
fn samples(scale: f32, class: impl Fn(f32) -> u16) -> Dataset {
    let (mut values, mut labels) = (vec![], vec![]);
    for i in 0..240 {
        let draw = |f| philox4x32([i, f, 0, 0], [0; 2])[0] as f32 / u32::MAX as f32 * 2.0 - 1.0;
        let row: Vec<f32> = (0..FEATURES as u32).map(draw).collect();
        labels.push(class(row[0]));
        values.extend(row.iter().enumerate().map(|(f, x)| match f {
            2 => scale * x,
            _ => *x,
        }));
    }
    Dataset::new(Pixels::F32(values), Shape::from([FEATURES]), labels).unwrap()
}

fn sign(x: f32) -> u16 {
    u16::from(x > 0.0)
}

fn network() -> Network {
    let (graph, shapes) = presets::by_name("mlp:6,16,2").unwrap();
    initialise(graph, &shapes, 1).unwrap()
}

fn phase(method: Method, epochs: u32) -> Phase {
    Phase {
        batch: 20,
        lr: 1e-2,
        ..Phase::new(method, epochs)
    }
}

fn recipe(phases: Vec<Phase>) -> Recipe {
    Recipe {
        validation: Validation::Samples(40),
        phases,
        ..Recipe::new(vec![])
    }
}

fn trainer(network: &Network, recipe: Recipe, set: &Dataset) -> Result<Trainer, CompressError> {
    let input = &network.graph.inputs[0].shape;
    let data = TrainingData::split(set, 40, input, &Preprocessing::default(), 2)?;
    Trainer::new(network, recipe, data, &RunOptions::default())
}

fn run(recipe: Recipe) -> Trainer {
    let mut run = trainer(&network(), recipe, &samples(1.0, sign)).unwrap();
    run.run(&mut Silent).unwrap();
    run
}

fn alive(trainer: &Trainer) -> usize {
    trainer.layers().iter().map(Layer::alive).sum()
}

#[test]
fn without_a_kl_term_no_weight_goes() {
    let left = |kl_scale| {
        let vd = Phase {
            kl_scale,
            prune_from: 1,
            prune_threshold: 0.0,
            // Over the threshold for some weights, before any training.
            log_sigma2: -2.0,
            ..phase(Method::SparseVd, 3)
        };
        let mut recipe = recipe(vec![vd, phase(Method::FineTune, 1)]);
        recipe.threshold = 0.0;
        let run = run(recipe);
        let of_network = run.network().unwrap().nonzeros();
        assert_eq!(of_network, alive(&run));
        assert_eq!(of_network, run.history().last().unwrap().left());
        of_network
    };
    assert_eq!(left(0.0), 6 * 16 + 16 * 2);
    assert!(left(1e-3) < 6 * 16);
}

#[test]
fn units_that_share_a_rate_go_where_they_do_not_matter() {
    let left = |alpha| {
        let vd = Phase {
            kl_scale: 0.5,
            lr_log_sigma2: Some(5e-2),
            ..phase(Method::SparseVd, 30)
        };
        let mut recipe = recipe(vec![vd, phase(Method::FineTune, 2)]);
        recipe.alpha = alpha;
        let run = run(recipe);
        assert!(run.history().last().unwrap().validation_error < 10.0);
        run.layers().iter().map(Layer::units).collect::<Vec<_>>()
    };
    let units = left(Granularity::Unit);
    assert!(units[0] < 12 && units[1] == 2, "{units:?}");
    // A layer that the outputs depend on stays.
    assert_eq!(left(Granularity::Layer), [16, 2]);
}

#[test]
fn weights_go_gradually_by_magnitude_and_by_fisher_information() {
    let pruned = |by, optimizer, lr| {
        let tune = Phase {
            weights: Some(12),
            prune_by: by,
            optimizer,
            lr,
            ..phase(Method::FineTune, 12)
        };
        run(recipe(vec![tune]))
    };
    let lr = phase(Method::FineTune, 1).lr;
    let [by_fisher, by_magnitude] =
        [PruneBy::Fisher, PruneBy::Magnitude].map(|by| pruned(by, Optimizer::Adam, lr));
    // Momentum keeps the squares of gradients too.
    let [descent_by_fisher, descent_by_magnitude] =
        [PruneBy::Fisher, PruneBy::Magnitude].map(|by| pruned(by, Optimizer::Sgd, 0.05));
    let masks = |t: &Trainer| -> Vec<Vec<f32>> {
        let of_layer = |l: &Layer<f32>| l.theta.iter().map(|t| f32::from(*t != 0.0)).collect();
        t.layers().iter().map(of_layer).collect()
    };
    for run in [
        &by_fisher,
        &by_magnitude,
        &descent_by_fisher,
        &descent_by_magnitude,
    ] {
        assert!((1..=12).contains(&alive(run)), "{}", alive(run));
        let left: Vec<usize> = run.history().iter().map(|e| e.left()).collect();
        assert!(
            left.is_sorted_by(|a, b| a >= b) && left[0] > left[1],
            "{left:?}"
        );
        assert!(run.history().last().unwrap().validation_error < 10.0);
    }
    assert_ne!(masks(&by_fisher), masks(&by_magnitude));
    assert_ne!(masks(&descent_by_fisher), masks(&descent_by_magnitude));
}

#[test]
fn layers_without_a_posterior_get_grids_of_a_sixth_of_their_weights() {
    let quantise = Phase {
        grid: vec![1.5],
        ..phase(Method::Quantise, 2)
    };
    let run = run(recipe(vec![phase(Method::Dense, 2), quantise]));
    for layer in run.layers() {
        let [scale, _] = layer.scales.unwrap();
        let squares: f32 = layer.theta.iter().map(|t| t * t).sum();
        let expected = 1.5 / 6.0 * (squares / layer.theta.len() as f32).sqrt();
        // The weights moved a little after their scale was set.
        assert!((scale / expected - 1.0).abs() < 0.4, "{scale}, {expected}");
    }
    let network = run.network().unwrap();
    assert_eq!(network.scales.len(), 4, "weights and biases of two layers");
}

#[test]
fn inputs_that_are_not_scaled_are_named() {
    let steep = Phase {
        lr: 0.5,
        ..phase(Method::Dense, 2)
    };
    let mut network = network();
    // The run begins with a small loss.
    let small = network.tensors["fc1.weight"].to_dense().values;
    let small = Dense::new([16, 6], small.iter().map(|w| w * 1e-6).collect());
    network.tensors.insert("fc1.weight".into(), small.into());
    let error = |network: &Network, scale| {
        let mut run = trainer(network, recipe(vec![steep.clone()]), &samples(scale, sign)).unwrap();
        run.run(&mut Silent).unwrap_err()
    };
    let unscaled = error(&network, 1e5);
    let CompressError::Unscaled {
        ref column,
        deviation,
        ..
    } = unscaled
    else {
        panic!("{unscaled}")
    };
    assert_eq!(column, "input 2");
    assert!((5e4..7e4).contains(&deviation), "{deviation}");
    assert!(unscaled.to_string().contains("e4 in input 2"), "{unscaled}");
    // The columns of a table have names; the second has two features.
    let column = |name: &str, categories: &[&str]| Column {
        name: name.into(),
        categories: categories.iter().map(|&c| c.into()).collect(),
    };
    let names = ["a", "c", "d", "e", "f"].map(|name| match name {
        "c" => column(name, &["blue", "red"]),
        _ => column(name, &[]),
    });
    network.graph.preprocessing = Some(Preprocessing {
        table: Some(Table {
            columns: names.to_vec(),
            target: "y".into(),
            classes: None,
        }),
        ..Preprocessing::default()
    });
    let named = error(&network, 1e5).to_string();
    assert!(named.contains("column `c`"), "{named}");
}

#[test]
fn samples_of_one_class_are_refused_as_that() {
    let recipe = recipe(vec![phase(Method::Dense, 1)]);
    let error = trainer(&network(), recipe, &samples(1.0, |_| 1))
        .err()
        .unwrap();
    let error = error.to_string();
    assert!(error.contains("got 200, all of class 1"), "{error}");
}
