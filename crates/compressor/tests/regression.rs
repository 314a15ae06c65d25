//! Regression: float targets, from a source that is not images, through every phase.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::objective::{Loss, Score, Targets};
use sparsevd_compressor::recipe::{Method, Optimizer, Phase, Recipe};
use sparsevd_compressor::trainer::{RunOptions, Silent, Trainer};
use sparsevd_compressor::{CompressError, Samples, TrainingData, fit_outputs, initialise};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, presets};

const INPUTS: usize = 10;
const NOISE: f32 = 0.1;

/// Two sums of the first four inputs with noise of a known deviation, computed on demand. Every sample comes a second time
/// with the other six inputs negated, so that not even chance relates them to the targets.
#[derive(Debug)]
struct Sums {
    first: u32,
    targets: Vec<f32>,
}

/// A unit that numbers are exactly multiplied by.
const THOUSAND: f32 = 1024.0;

const RELEVANT: usize = 4;

fn numbers(sample: u32) -> [f32; INPUTS + 2] {
    let mut out = [0.0; INPUTS + 2];
    let key = NoiseKey {
        seed: 8,
        step: 0,
        layer: 0,
        sample: sample / 2,
    };
    normals(Isa::SCALAR, key, &mut out);
    if sample % 2 == 1 {
        out[RELEVANT..INPUTS].iter_mut().for_each(|x| *x = -*x);
    }
    out
}

impl Sums {
    fn new(first: u32, samples: u32) -> Self {
        let target = |i: u32| {
            let x = numbers(first + i);
            [
                2.0 * x[0] - x[1] + 0.5 + NOISE * x[INPUTS],
                x[2] + 1.5 * x[3] - 1.0 + NOISE * x[INPUTS + 1],
            ]
        };
        Self {
            first,
            targets: (0..samples).flat_map(target).collect(),
        }
    }
}

impl Samples for Sums {
    fn len(&self) -> usize {
        self.targets.len() / 2
    }

    fn fill(&self, index: usize, _shift: [i32; 2], out: &mut [f32]) {
        out.copy_from_slice(&numbers(self.first + index as u32)[..INPUTS]);
    }

    fn targets(&self) -> Targets<'_> {
        Targets::vectors(&self.targets, 2)
    }
}

fn network(outputs: usize) -> Network {
    let (graph, shapes) = presets::mlp("sums", Shape::from([INPUTS]), &[outputs]);
    initialise(graph, &shapes, 3).unwrap()
}

fn data() -> TrainingData {
    TrainingData::new(Sums::new(0, 2000), Sums::new(10_000, 400))
}

fn recipe(phases: Vec<Phase>) -> Recipe {
    Recipe {
        target_deviation: Some(f64::from(NOISE)),
        phases,
        ..Recipe::new(vec![])
    }
}

fn trained(network: &Network, phases: Vec<Phase>, threads: usize) -> Trainer {
    let options = RunOptions {
        threads,
        run_folder: None,
    };
    let mut run = Trainer::new(network, recipe(phases), data(), &options).unwrap();
    run.run(&mut Silent).unwrap();
    run
}

fn phases() -> Vec<Phase> {
    let phase = |method, epochs, lr| Phase {
        lr,
        hold: 0.5,
        ..Phase::new(method, epochs)
    };
    vec![
        phase(Method::Dense, 20, 2e-2),
        Phase {
            lr_log_sigma2: Some(5e-2),
            log_sigma2: -6.0,
            ..phase(Method::SparseVd, 120, 1e-2)
        },
        phase(Method::FineTune, 10, 1e-2),
    ]
}

#[test]
fn exactly_the_relevant_weights_of_a_regression_survive() {
    let mut run = trained(&network(2), phases(), 1);
    let network = run.network().unwrap();
    let weights = network.tensors["fc1.weight"].to_dense();
    // The mean squared error of the truth is that of the noise.
    let Score::Regression { r2, rmse, samples } = run.validation_score(3.0) else {
        panic!("expected a regression")
    };
    assert_eq!(samples, 400);
    assert!(
        r2 > 0.995 && (0.09..0.11).contains(&rmse),
        "R2 {r2}, RMSE {rmse}"
    );
    let want = [[2.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.5]];
    for (row, want) in weights.values.chunks_exact(INPUTS).zip(want) {
        let (relevant, rest) = row.split_at(RELEVANT);
        for (got, want) in relevant.iter().zip(want) {
            assert!((got - want).abs() < 0.03, "{row:?}");
        }
        assert!(rest.iter().all(|w| *w == 0.0), "{row:?}");
    }
    let bias = network.tensors["fc1.bias"].values();
    assert!(
        (bias[0] - 0.5).abs() < 0.03 && (bias[1] + 1.0).abs() < 0.03,
        "{bias:?}"
    );
    let last = run.history().last().unwrap();
    assert_eq!(last.validation_r2, Some(r2));
    assert_eq!(last.validation_error, rmse);
    assert!((last.train_error - 0.1).abs() < 0.01, "{last:?}");
}

#[test]
fn the_weight_of_the_kl_term_follows_the_noise_of_the_targets() {
    // Noise that is said to be large makes squared errors weigh less, so that no weight is worth its KL.
    let left = |deviation| {
        let recipe = Recipe {
            target_deviation: Some(deviation),
            ..recipe(phases())
        };
        let mut run = Trainer::new(&network(2), recipe, data(), &RunOptions::default()).unwrap();
        run.run(&mut Silent).unwrap();
        run.history().last().unwrap().left()
    };
    let (small, large) = (left(0.1), left(1000.0));
    assert!(
        (4..=8).contains(&small) && large == 0,
        "{small} and {large}"
    );
}

#[test]
fn a_regression_does_not_depend_on_the_unit_of_its_targets() {
    let dense = trained(&network(2), phases()[..1].to_vec(), 1)
        .network()
        .unwrap();
    let recipe = Recipe {
        target_deviation: None,
        phases: vec![
            phases()[1].clone(),
            Phase {
                distil: 0.5,
                ..Phase::new(Method::Quantise, 2)
            },
        ],
        ..Recipe::new(vec![])
    };
    let run = |network: &Network, factor: f32| {
        let sums = |first, samples| {
            let mut sums = Sums::new(first, samples);
            sums.targets.iter_mut().for_each(|t| *t *= factor);
            sums
        };
        let data = TrainingData::new(sums(0, 2000), sums(10_000, 400));
        let mut run = Trainer::new(network, recipe.clone(), data, &RunOptions::default()).unwrap();
        run.run(&mut Silent).unwrap();
        run
    };
    let larger = |network: &Network| {
        let mut larger = network.clone();
        for (name, tensor) in &mut larger.tensors {
            let mut dense = tensor.to_dense();
            dense.values.iter_mut().for_each(|v| *v *= THOUSAND);
            *tensor = match tensor {
                Weights::Csr(_) => Csr::from_dense(&dense).into(),
                _ => dense.into(),
            };
            if let Some(scale) = larger.scales.get_mut(name) {
                *scale *= THOUSAND;
            }
        }
        larger
    };
    let mut small = run(&dense, 1.0);
    let mut large = run(&larger(&dense), THOUSAND);
    let deviation = |run: &Trainer| run.recipe().target_deviation.unwrap();
    // The noise of the targets, and two per cent of their variance of 4.
    assert!(
        (deviation(&small) - 0.3f64).abs() < 0.05,
        "{}",
        deviation(&small)
    );
    assert_eq!(deviation(&large), deviation(&small) * f64::from(THOUSAND));
    let network = small.network().unwrap();
    assert_eq!(large.network().unwrap(), larger(&network));
    assert!(network.nonzeros() < 12, "{}", network.nonzeros());
    let (small, large) = (small.validation_score(3.0), large.validation_score(3.0));
    assert_eq!(small.r2(), large.r2());
    assert_eq!(small.error() * f64::from(THOUSAND), large.error());
    assert!(small.r2().unwrap() > 0.97, "{small}");
}

#[test]
fn a_network_that_begins_is_about_as_large_as_its_targets() {
    let targets = [900.0, 1100.0, 1000.0, 1000.0 + 1e-3];
    let targets = Targets::vectors(&targets, 1);
    let (graph, shapes) = presets::mlp("net", Shape::from([INPUTS]), &[5, 1]);
    let plain = initialise(graph, &shapes, 3).unwrap();
    let fitted = fit_outputs(plain.clone(), &targets);
    assert_eq!(fitted.tensors["fc1.weight"], plain.tensors["fc1.weight"]);
    let bias = fitted.tensors["fc2.bias"].values()[0];
    assert!((bias - 1000.0).abs() < 0.01, "{bias}");
    // The deviation is 71.
    let times = |name: &str| {
        let [a, b] = [&fitted, &plain].map(|n| n.tensors[name].values()[0]);
        a / b
    };
    assert_eq!(times("fc2.weight"), 64.0);
    let classes = fit_outputs(plain.clone(), &Targets::classes(&[0, 0]));
    assert_eq!(classes, plain);
}

#[test]
fn a_search_for_the_grid_stays_within_the_drop_of_r2() {
    let dense = trained(&network(2), phases()[..1].to_vec(), 1)
        .network()
        .unwrap();
    let quantise = Phase {
        lr: 1e-2,
        grid: vec![0.5, 400.0],
        distil: 0.5,
        ..Phase::new(Method::Quantise, 5)
    };
    let r2 = |grid: &[f64]| {
        let quantise = Phase {
            grid: grid.to_vec(),
            ..quantise.clone()
        };
        let mut run = trained(&dense, vec![phases()[1].clone(), quantise], 1);
        run.validation_score(3.0).r2().unwrap()
    };
    // A scale of 400 sigmas packs smaller and is too coarse.
    let (fine, coarse, chosen) = (r2(&[0.5]), r2(&[400.0]), r2(&[0.5, 400.0]));
    assert!(fine > 0.99 && coarse < 0.97, "R2 {fine} and {coarse}");
    assert_eq!(chosen, fine);
    // A finer one than is needed takes more bytes, whatever it gains.
    let finer = r2(&[0.01]);
    assert_ne!(finer, fine);
    assert_eq!(r2(&[0.01, 0.5, 400.0]), fine);
}

#[test]
fn a_regression_is_the_same_on_any_number_of_threads() {
    let weights = |threads| trained(&network(2), phases(), threads).network().unwrap();
    assert_eq!(weights(1), weights(2));
}

/// Gradients are as much larger as the noise of targets is small; steps of gradient descent are not.
#[test]
fn gradient_descent_does_not_depend_on_the_noise_of_targets() {
    let phase = Phase {
        optimizer: Optimizer::Sgd,
        lr: 0.1,
        weight_decay: 1e-2,
        ..Phase::new(Method::Dense, 10)
    };
    let weights = [0.03, f64::from(NOISE), 2.0].map(|deviation| {
        let recipe = Recipe {
            target_deviation: Some(deviation),
            ..recipe(vec![phase.clone()])
        };
        let mut run = Trainer::new(&network(2), recipe, data(), &RunOptions::default()).unwrap();
        run.run(&mut Silent).unwrap();
        let last = run.history().last().unwrap();
        assert!(last.validation_r2.unwrap() > 0.99, "{deviation}: {last:?}");
        run.layers()[0].theta.clone()
    });
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
    assert!(
        weights[1..]
            .iter()
            .all(|w| w.iter().zip(&weights[0]).all(near)),
        "{weights:?}"
    );
}

#[test]
fn targets_of_another_length_are_refused() {
    let options = RunOptions::default();
    let result = Trainer::new(&network(3), recipe(phases()), data(), &options);
    let error = result.err().unwrap();
    assert!(matches!(error, CompressError::Setting { .. }));
    assert_eq!(
        error.to_string(),
        "targets: expected 3 numbers per sample, one per output of the network, got 2 numbers per sample"
    );
}

#[test]
fn a_regression_that_diverges_is_stopped() {
    let mut phases = phases();
    phases.truncate(1);
    phases[0].lr = 1.0;
    #[derive(Debug)]
    struct Large(Sums);
    impl Samples for Large {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn fill(&self, index: usize, shift: [i32; 2], out: &mut [f32]) {
            self.0.fill(index, shift, out);
            out.iter_mut().for_each(|x| *x *= 1e4);
        }
        fn targets(&self) -> Targets<'_> {
            self.0.targets()
        }
    }
    let large = |first, samples| Large(Sums::new(first, samples));
    let data = TrainingData::new(large(0, 2000), large(10_000, 400));
    // Zero weights predict constants: the run begins near the loss of the mean.
    let mut network = network(2);
    let zeros = Dense::zeros(Shape::from([2, INPUTS]));
    (network.tensors).insert("fc1.weight".into(), Weights::Dense(zeros));
    let run = Trainer::new(&network, recipe(phases), data, &RunOptions::default());
    let error = run.unwrap().run(&mut Silent).unwrap_err();
    assert!(
        matches!(
            error,
            CompressError::Unscaled {
                phase: 1,
                epoch: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_recipe_names_the_loss() {
    let of = |loss| Recipe {
        loss,
        ..recipe(phases()[..1].to_vec())
    };
    let run = |loss| {
        let options = RunOptions::default();
        let mut run = Trainer::new(&network(2), of(loss), data(), &options)?;
        run.run(&mut Silent)?;
        run.network()
    };
    let named = run(Some(Loss::SquaredError)).unwrap();
    assert_eq!(named, run(None).unwrap());
    let error = run(Some(Loss::CrossEntropy)).unwrap_err().to_string();
    assert!(error.contains("got 2 numbers per sample"), "{error}");
    let text = of(Some(Loss::SquaredError)).to_toml();
    assert!(text.contains("loss = \"squared-error\""), "{text}");
    assert!(!of(None).to_toml().contains("loss"));
}

#[test]
fn hubers_loss_passes_over_a_few_targets_that_are_far_off() {
    let error = |loss| {
        let mut outliers = Sums::new(0, 2000);
        (outliers.targets.iter_mut().step_by(41)).for_each(|t| *t += 20.0);
        let data = TrainingData::new(outliers, Sums::new(10_000, 400));
        let recipe = Recipe {
            loss: Some(loss),
            ..recipe(phases()[..1].to_vec())
        };
        let mut run = Trainer::new(&network(2), recipe, data, &RunOptions::default()).unwrap();
        run.run(&mut Silent).unwrap();
        run.validation_score(3.0).error()
    };
    // The means of the targets move by 20 / 41, and the noise of the others is 0.1.
    let (squared, huber) = (error(Loss::SquaredError), error(Loss::Huber));
    assert!(squared > 0.4 && huber < 0.15, "{squared} and {huber}");
}
