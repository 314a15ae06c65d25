//! What training for colour images adds: augmentation, Nesterov's momentum, schedules, smoothed labels, and layers that stay dense.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use sparsevd_compressor::objective::Loss;
use sparsevd_compressor::recipe::{Decay, Method, Optimizer, Phase, Recipe};
use sparsevd_compressor::trainer::{Observer, Outcome, RunOptions, Silent, Trainer};
use sparsevd_compressor::{CompressError, Magnitude, Scope, TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels, WriteOptions, write_network_bytes};
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{Conv2d, GraphBuilder, Network, Op, Preprocessing, Shape, Weights, presets};

const SIZE: u32 = 10;
const IMAGES: u32 = 480;

/// Images of four classes: rows of one of two colours at the top or at the bottom, over noise. With `mirrored` noise, an image is its own
/// mirror image.
fn images(mirrored: bool) -> Dataset {
    let (mut pixels, mut labels) = (vec![], vec![]);
    for i in 0..IMAGES {
        let class = i % 4;
        labels.push(class as u16);
        for channel in 0..3u32 {
            for y in 0..SIZE {
                for x in 0..SIZE {
                    let x = if mirrored { x.min(SIZE - 1 - x) } else { x };
                    let noise = philox4x32([i, y, x, channel], [0; 2])[0] % 80;
                    let lit = (y < SIZE / 2) == (class < 2) && channel == class % 2;
                    pixels.push((noise + if lit { 120 } else { 0 }) as u8);
                }
            }
        }
    }
    let shape = Shape::from([3, SIZE as usize, SIZE as usize]);
    Dataset::new(Pixels::U8(pixels), shape, labels).unwrap()
}

fn network() -> Network {
    let mut b = GraphBuilder::new("small");
    b.preprocessing(Preprocessing::default());
    let x = b.input("input", [3, SIZE as usize, SIZE as usize]);
    let conv = Conv2d::square(8, 3).padding(1).stride(2).without_bias();
    let x = b.conv("c1", &x, &conv);
    let x = b.batch_normalization("n1", &x);
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("fc1", &x, 12);
    let x = b.op("r2", Op::Relu, &[&x]);
    b.linear("fc2", &x, 4);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    initialise(graph, &tensors, 2).unwrap()
}

fn new(
    images: &Dataset,
    recipe: Recipe,
    threads: usize,
    folder: Option<&Path>,
) -> Result<Trainer, CompressError> {
    of(&network(), images, recipe, threads, folder)
}

fn of(
    network: &Network,
    images: &Dataset,
    recipe: Recipe,
    threads: usize,
    folder: Option<&Path>,
) -> Result<Trainer, CompressError> {
    let shape = network.graph.inputs[0].shape.clone();
    let data = TrainingData::split(images, 80, &shape, &Preprocessing::default(), 4).unwrap();
    let options = RunOptions {
        threads,
        run_folder: folder.map(Path::to_owned),
    };
    Trainer::new(network, recipe, data, &options)
}

fn run(recipe: &Recipe, images: &Dataset) -> Trainer {
    let mut trainer = new(images, recipe.clone(), 1, None).unwrap();
    trainer.run(&mut Silent).unwrap();
    trainer
}

fn bytes(trainer: &Trainer) -> Vec<u8> {
    write_network_bytes(&trainer.network().unwrap(), &WriteOptions::default()).unwrap()
}

/// Stops a run after a number of steps.
struct StopAfter(u32);

impl Observer for StopAfter {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.0 -= 1;
    }

    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

/// Every setting at once: a dense network, then one that learns from it while it loses weights.
fn everything() -> Recipe {
    let dense = Phase {
        batch: 40,
        optimizer: Optimizer::Sgd,
        lr: 0.1,
        weight_decay: 1e-3,
        warmup: 0.3,
        decay: Decay::Cosine,
        shift: 1,
        flip: true,
        cutout: 2,
        label_smoothing: 0.1,
        ema_decay: 0.8,
        ..Phase::new(Method::Dense, 10)
    };
    let tune = Phase {
        weights: Some(800),
        distil: 0.5,
        ..dense.clone()
    };
    let tune = Phase {
        method: Method::FineTune,
        ..tune
    };
    Recipe::new(vec![dense, tune])
}

#[test]
fn every_setting_gives_the_same_bytes_through_threads_and_interruptions() {
    let (recipe, images) = (everything(), images(false));
    let straight = run(&recipe, &images);
    let last = straight.history().last().unwrap();
    assert!(
        last.left() <= 800 && last.validation_error < 10.0,
        "{last:?}"
    );
    let want = bytes(&straight);
    let mut two = new(&images, recipe.clone(), 2, None).unwrap();
    two.run(&mut Silent).unwrap();
    assert!(bytes(&two) == want, "two threads");
    for steps in [7, 20, 130] {
        let folder = tempfile::tempdir().unwrap();
        let mut first = new(&images, recipe.clone(), 2, Some(folder.path())).unwrap();
        let outcome = first.run(&mut StopAfter(steps)).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
        let mut second = new(&images, recipe.clone(), 1, Some(folder.path())).unwrap();
        second.resume(folder.path(), &mut Silent).unwrap();
        assert_eq!(second.position().total_steps, steps);
        second.run(&mut Silent).unwrap();
        assert!(bytes(&second) == want, "stopped after {steps} steps");
    }
    // Each setting has an effect.
    let changes: [fn(&mut Phase); 10] = [
        |p| p.optimizer = Optimizer::Adam,
        |p| p.momentum = 0.5,
        |p| p.weight_decay = 0.0,
        |p| p.warmup = 0.0,
        |p| p.decay = Decay::Linear,
        |p| p.flip = false,
        |p| p.cutout = 3,
        |p| p.label_smoothing = 0.0,
        |p| p.ema_decay = 0.0,
        |p| p.shift = 0,
    ];
    let mut short = recipe;
    short.phases.truncate(1);
    let want = bytes(&run(&short, &images));
    for (i, change) in changes.into_iter().enumerate() {
        let mut other = short.clone();
        change(&mut other.phases[0]);
        assert!(bytes(&run(&other, &images)) != want, "setting {i}");
    }
}

#[test]
fn a_teacher_answers_each_step_as_it_answers_before_training() {
    // Mirroring changes no image, but then the teacher runs in every step.
    let images = images(true);
    let loss = |flip: bool| {
        let tune = Phase {
            batch: 40,
            distil: 1.0,
            flip,
            ..Phase::new(Method::FineTune, 3)
        };
        let recipe = Recipe::new(vec![Phase::new(Method::Dense, 2), tune]);
        let trainer = run(&recipe, &images);
        let losses = trainer.history().iter().map(|r| r.loss);
        (losses.collect::<Vec<_>>(), bytes(&trainer))
    };
    let ((before, _), (steps, _)) = (loss(false), loss(true));
    assert_eq!(before.len(), 5);
    for (a, b) in before.iter().zip(&steps) {
        assert!((a - b).abs() < 1e-4 * a, "{before:?}, {steps:?}");
    }
}

#[test]
fn a_network_that_lost_weights_learns_from_the_one_before() {
    let images = images(false);
    let dense = run(
        &Recipe::new(vec![Phase {
            lr: 3e-3,
            ..Phase::new(Method::Dense, 10)
        }]),
        &images,
    );
    let dense = dense.network().unwrap();
    let magnitude = Magnitude {
        sparsity: 0.8,
        scope: Scope::Global,
        every_layer: false,
        keep_dense: vec!["fc2".into()],
    };
    let pruned = magnitude.prune(&dense).unwrap();
    let tune = Phase {
        batch: 40,
        lr: 3e-3,
        distil: 1.0,
        ..Phase::new(Method::FineTune, 8)
    };
    let losses = |taught: bool| {
        let recipe = Recipe::new(vec![tune.clone()]);
        let mut trainer = of(&pruned, &images, recipe, 1, None).unwrap();
        if taught {
            trainer.set_teacher(&dense).unwrap();
        }
        trainer.run(&mut Silent).unwrap();
        assert_eq!(trainer.survivors(), pruned.nonzeros());
        let losses = trainer.history().iter().map(|r| r.loss);
        losses.collect::<Vec<_>>()
    };
    // From itself it learns nothing that lowers the loss of the labels; from the dense network it does.
    let (own, taught) = (losses(false), losses(true));
    assert!(own[7] > 0.9 * own[0], "{own:?}");
    assert!(taught[7] < 0.5 * own[7], "{taught:?}, {own:?}");
}

#[test]
fn weights_decay_and_biases_do_not() {
    let images = images(false);
    let mut network = network();
    for name in ["fc1.bias", "fc2.bias"] {
        let Some(Weights::Dense(bias)) = network.tensors.get_mut(name) else {
            panic!("expected {name}")
        };
        bias.values.fill(3.0);
    }
    // So slow that gradients do the same with decay and without, which takes a factor of 0.9999 in each of 20 steps.
    let norms = |optimizer, weight_decay| {
        let phase = Phase {
            optimizer,
            weight_decay,
            momentum: 0.0,
            lr: 1e-4,
            hold: 1.0,
            ..Phase::new(Method::Dense, 5)
        };
        let recipe = Recipe::new(vec![phase]);
        let mut trainer = of(&network, &images, recipe, 1, None).unwrap();
        trainer.run(&mut Silent).unwrap();
        assert_eq!(trainer.position().total_steps, 20);
        let layer = &trainer.layers()[1];
        let norm = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
        [norm(&layer.theta), norm(&layer.bias)]
    };
    for optimizer in [Optimizer::Adam, Optimizer::Sgd] {
        let ([weights, bias], [decayed, same]) = (norms(optimizer, 0.0), norms(optimizer, 1.0));
        let factor = 0.9999_f32.powi(20);
        assert!(
            (decayed / weights - factor).abs() < 5e-4,
            "{optimizer:?}: {decayed}, {weights}"
        );
        assert!(
            (same / bias - 1.0).abs() < 5e-4,
            "{optimizer:?}: {same}, {bias}"
        );
    }
}

#[test]
fn layers_that_are_kept_dense_lose_no_weights() {
    let images = images(false);
    let phase = |method, epochs| Phase {
        batch: 40,
        lr: 3e-3,
        kl_scale: 5.0,
        prune_from: 1,
        ..Phase::new(method, epochs)
    };
    let tune = Phase {
        weights: Some(300),
        kl_scale: 1.0,
        prune_from: 0,
        ..phase(Method::FineTune, 2)
    };
    let grids = Phase {
        kl_scale: 1.0,
        prune_from: 0,
        ..phase(Method::Quantise, 2)
    };
    let vd = phase(Method::SparseVd, 4);
    let recipe = Recipe {
        keep_dense: vec!["fc2".into(), "c1.weight".into()],
        ..Recipe::new(vec![phase(Method::Dense, 2), vd, tune, grids])
    };
    let straight = run(&recipe, &images);
    let left = |name: &str| {
        let layers = straight.layers().iter();
        let layer = layers.clone().find(|l| l.node == name).unwrap();
        (layer.alive(), layer.theta.len(), layer.median_sigma())
    };
    // All of the first; the last loses what reads dead units alone.
    assert_eq!(left("c1"), (216, 216, None));
    let (alive, here, sigma) = left("fc2");
    assert!(
        alive == here && sigma.is_none() && here > 0,
        "{alive} of {here}"
    );
    let (alive, _, sigma) = left("fc1");
    assert!(alive < 300 - 216 && sigma.is_some(), "{alive}");
    // In the phase with noise, and in the last one.
    for steps in [35, 95] {
        let folder = tempfile::tempdir().unwrap();
        let mut first = new(&images, recipe.clone(), 1, Some(folder.path())).unwrap();
        let outcome = first.run(&mut StopAfter(steps)).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
        let mut second = new(&images, recipe.clone(), 1, Some(folder.path())).unwrap();
        second.resume(folder.path(), &mut Silent).unwrap();
        second.run(&mut Silent).unwrap();
        assert!(bytes(&second) == bytes(&straight), "{steps}");
    }
    let mut few = recipe.clone();
    few.phases[2].weights = Some(264);
    let error = new(&images, few, 1, None).map(|_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weights: expected more than the 264 of the layers that are kept dense, got 264"
    );
    let other = Recipe {
        keep_dense: vec!["fc3".into()],
        ..recipe
    };
    let error = new(&images, other, 1, None)
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("of c1, fc1, fc2, got fc3"), "{error}");
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let images = images(false);
    let refused = |method, change: &dyn Fn(&mut Phase)| {
        let mut phase = Phase::new(method, 1);
        change(&mut phase);
        let trainer = new(&images, Recipe::new(vec![phase]), 1, None);
        trainer.map(|_| ()).unwrap_err().to_string()
    };
    let sgd = |p: &mut Phase| p.optimizer = Optimizer::Sgd;
    let error = refused(Method::SparseVd, &sgd);
    assert_eq!(
        error,
        "optimizer: expected adam in a sparse-vd phase, got sgd"
    );
    let error = refused(Method::SparseVd, &|p| p.weight_decay = 1e-4);
    assert!(error.starts_with("weight_decay: expected none"), "{error}");
    let error = refused(Method::Dense, &|p| p.momentum = 1.0);
    assert!(error.starts_with("momentum: expected 0 to"), "{error}");
    // Of vectors there are no mirror images, and of numbers no even distribution.
    let (graph, shapes) = presets::by_name("mlp:300,4").unwrap();
    let vectors = initialise(graph, &shapes, 0).unwrap();
    for (name, change) in [
        ("flip", (|p| p.flip = true) as fn(&mut Phase)),
        ("cutout", |p| p.cutout = 3),
    ] {
        let mut phase = Phase::new(Method::Dense, 1);
        change(&mut phase);
        let flat = Dataset::new(
            images.pixels.clone(),
            Shape::from([300]),
            images.labels.clone(),
        );
        let recipe = Recipe::new(vec![phase]);
        let error = of(&vectors, &flat.unwrap(), recipe, 1, None).map(|_| ());
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(name) && error.contains("no images"),
            "{error}"
        );
    }
    let smooth = Phase {
        label_smoothing: 0.1,
        ..Phase::new(Method::Dense, 1)
    };
    let recipe = Recipe {
        loss: Some(Loss::SquaredError),
        ..Recipe::new(vec![smooth])
    };
    let error = new(&images, recipe, 1, None).map(|_| ()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("label_smoothing: expected 0 under"),
        "{error}"
    );
}
