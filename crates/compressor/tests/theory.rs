//! What the theory of Sparse VD says must happen, on toy problems.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{RunOptions, Silent, Trainer};
use sparsevd_compressor::{TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, kl, kl_gradient, normals};
use sparsevd_model::{Network, Preprocessing, Shape, presets};

const INPUTS: usize = 16;
const RELEVANT: usize = 4;
const SAMPLES: usize = 4000;

fn noise(sample: u32, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    normals(
        Isa::SCALAR,
        NoiseKey {
            seed: 3,
            step: 0,
            layer: 0,
            sample,
        },
        &mut out,
    );
    out
}

/// Logistic regression: the class depends on the first four of sixteen inputs. Every sample comes a second time with the
/// other twelve negated, so that not even chance relates them to the class.
fn problem() -> (Network, Dataset) {
    let (mut x, mut labels) = (vec![], vec![]);
    for i in 0..SAMPLES / 2 {
        let mut sample = noise(i as u32, INPUTS + 1);
        let score: f32 = (0..RELEVANT)
            .map(|j| sample[j] * if j % 2 == 0 { 2.0 } else { -2.0 })
            .sum();
        let label = u16::from(score + 0.5 * sample[INPUTS] > 0.0);
        for sign in [1.0, -1.0] {
            sample[RELEVANT..INPUTS].iter_mut().for_each(|s| *s *= sign);
            x.extend_from_slice(&sample[..INPUTS]);
            labels.push(label);
        }
    }
    let shape = Shape::from([INPUTS]);
    let (graph, shapes) = presets::mlp("logistic", shape.clone(), &[2]);
    let network = initialise(graph, &shapes, 0).unwrap();
    (
        network,
        Dataset::new(Pixels::F32(x), shape, labels).unwrap(),
    )
}

fn train(kl_scale: f64, epochs: u32) -> Trainer {
    let (network, dataset) = problem();
    let phase = Phase {
        lr: 1e-2,
        batch: 200,
        lr_log_sigma2: Some(5e-2),
        hold: 0.7,
        log_sigma2: -6.0,
        kl_scale,
        ..Phase::new(Method::SparseVd, epochs)
    };
    let mut recipe = Recipe::new(vec![phase]);
    // The run's end would remove the weights over this; the tests look at the rates themselves.
    recipe.threshold = 8.0;
    let input = network.graph.inputs[0].shape.clone();
    let data = TrainingData::split(&dataset, 0, &input, &Preprocessing::default(), 2).unwrap();
    let mut trainer = Trainer::new(
        &network,
        recipe,
        data,
        &RunOptions {
            threads: 1,
            run_folder: None,
        },
    )
    .unwrap();
    trainer.run(&mut Silent).unwrap();
    trainer
}

/// `log_alpha` of every weight, `[2][INPUTS]`.
fn log_alphas(trainer: &Trainer) -> Vec<f32> {
    trainer.layers()[0].posterior().log_alphas().collect()
}

#[test]
fn the_kl_falls_with_every_step_of_log_alpha() {
    let grid: Vec<f64> = (-800..=800).map(|i| f64::from(i) * 0.01).collect();
    for pair in grid.windows(2) {
        assert!(
            kl(pair[0]) > kl(pair[1]),
            "kl({}) <= kl({})",
            pair[0],
            pair[1]
        );
        assert!(kl_gradient(pair[0]) < 0.0);
    }
    assert!(kl(f64::INFINITY).abs() < 1e-12);
}

#[test]
fn without_the_kl_the_rates_of_what_matters_collapse() {
    let (without, with) = (log_alphas(&train(0.0, 30)), log_alphas(&train(1.0, 30)));
    for class in 0..2 {
        for input in 0..RELEVANT {
            let i = class * INPUTS + input;
            assert!(
                without[i] < with[i] && without[i] < -7.0,
                "weight {i}: {} without, {} with",
                without[i],
                with[i]
            );
        }
    }
    // The others wander with their means around zero, but nothing pushes them up: their sum falls from -6 - log theta^2.
    let mean = without.iter().sum::<f32>() / without.len() as f32;
    assert!(mean < -3.0, "mean {mean} of {without:?}");
}

#[test]
fn exactly_the_irrelevant_weights_pass_the_threshold() {
    let trainer = train(1.0, 150);
    let alphas = log_alphas(&trainer);
    for input in 0..INPUTS {
        let (a, b) = (alphas[input], alphas[INPUTS + input]);
        if input < RELEVANT {
            assert!(a.min(b) < 0.0, "relevant input {input}: {a}, {b}");
        } else {
            assert!(a > 3.0 && b > 3.0, "irrelevant input {input}: {a}, {b}");
        }
    }
    // Zeroing them moves predictions less than the posterior's own noise does.
    let layer = trainer.layers()[0].clone();
    let (mut moved, mut noisy) = (0f64, 0f64);
    for i in 0..200 {
        let x = noise(10_000 + i, INPUTS);
        for class in 0..2 {
            let row = class * INPUTS..(class + 1) * INPUTS;
            let weights = layer.theta[row.clone()]
                .iter()
                .zip(&layer.sigma2[row.clone()]);
            let (mut change, mut variance) = (0f32, 0f32);
            for ((&t, &s), (&x, &a)) in weights.zip(x.iter().zip(&alphas[row])) {
                change += if a > 3.0 { t * x } else { 0.0 };
                variance += s * x * x;
            }
            moved += f64::from(change * change);
            noisy += f64::from(variance);
        }
    }
    assert!(moved < 0.1 * noisy, "moved {moved}, noise {noisy}");
}
