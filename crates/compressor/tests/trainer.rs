//! Runs of the trainer: the same bytes on any number of threads and after an interruption.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use sparsevd_compressor::engine::{Batch, Engine};
use sparsevd_compressor::objective::{CrossEntropy, Distillation, Loss, Targets};
use sparsevd_compressor::recipe::{Method, Phase, PruneBy, Recipe};
use sparsevd_compressor::trainer::{Observer, Outcome, RunOptions, Silent, Trainer};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{CompressError, Layer, State, TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels, WriteOptions, write_network_bytes};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{
    Conv2d, Csr, Dense, Graph, GraphBuilder, Input, Network, Node, Op, Preprocessing, Shape,
    Weights, Window, ops, presets,
};

/// Images of 28x28: a bright bar whose place is the class, over noise.
fn images() -> Dataset {
    let (n, mut pixels, mut labels) = (720u32, vec![], vec![]);
    for i in 0..n {
        let class = i % 4;
        labels.push(class as u16);
        for y in 0..28u32 {
            for x in 0..28u32 {
                let noise = philox4x32([i, y, x, 0], [0; 2])[0] % 60;
                let bar = if class < 2 { y } else { x };
                let lit = (bar / 6) % 4 == 1 + 2 * (class % 2);
                pixels.push((noise + if lit { 150 } else { 0 }) as u8);
            }
        }
    }
    Dataset::new(Pixels::U8(pixels), Shape::from([1, 28, 28]), labels).unwrap()
}

fn network() -> Network {
    let (graph, mut shapes) = presets::by_name("lenet-5").unwrap();
    // The same graph, much narrower.
    for (name, shape) in &mut shapes {
        let dims = match name.as_str() {
            "conv1.weight" => vec![4, 1, 5, 5],
            "conv2.weight" => vec![6, 4, 5, 5],
            "fc1.weight" => vec![16, 96],
            "fc2.weight" => vec![4, 16],
            "conv1.bias" | "fc2.bias" => vec![4],
            "conv2.bias" => vec![6],
            _ => vec![16],
        };
        *shape = Shape(dims);
    }
    initialise(graph, &shapes, 1).unwrap()
}

fn recipe() -> Recipe {
    let vd = Phase {
        batch: 60,
        shift: 1,
        lr: 3e-3,
        kl_scale: 3.0,
        kl_warmup: 1.0,
        prune_from: 1,
        prune_threshold_end: Some(1.0),
        ..Phase::new(Method::SparseVd, 4)
    };
    let tune = Phase {
        batch: 60,
        shift: 1,
        lr: 2e-3,
        weights: Some(150),
        distil: 0.5,
        ..Phase::new(Method::FineTune, 3)
    };
    let dense = Phase {
        batch: 60,
        ..Phase::new(Method::Dense, 2)
    };
    Recipe {
        seed: 5,
        ..Recipe::new(vec![dense, vd, tune])
    }
}

/// A small residual network with depthwise convolution and with normalisations, one of which reads a sum.
fn residual_network() -> Network {
    let mut b = GraphBuilder::new("residual");
    b.preprocessing(Preprocessing::default());
    let conv = |out, size: usize| {
        let conv = Conv2d::square(out, size).padding(size / 2);
        conv.without_bias()
    };
    let x = b.input("input", [1, 28, 28]);
    let x = b.conv("c1", &x, &conv(8, 3).stride(2));
    let x = b.batch_normalization("n1", &x);
    let r1 = b.op("r1", Op::Relu, &[&x]);
    let x = b.conv("c2", &r1, &conv(8, 3));
    let x = b.op("sum", Op::Add, &[&x, &r1]);
    let x = b.batch_normalization("n2", &x);
    let x = b.op("r2", Op::Relu, &[&x]);
    let x = b.conv("d", &x, &conv(8, 3).stride(2).groups(8));
    let x = b.conv("p", &x, &conv(12, 1));
    let x = b.op("r3", Op::HardSwish, &[&x]);
    let window = Window::square(2, 2);
    let x = b.op("pool", Op::AveragePool(ops::AveragePool { window }), &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    b.linear("fc", &x, 4);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    initialise(graph, &tensors, 2).unwrap()
}

fn trainer(recipe: Recipe, threads: usize, folder: Option<&Path>) -> Trainer {
    trainer_of(&network(), recipe, threads, folder)
}

fn trainer_of(network: &Network, recipe: Recipe, threads: usize, folder: Option<&Path>) -> Trainer {
    let shape = network.graph.inputs[0].shape.clone();
    let data = TrainingData::split(&images(), 120, &shape, &Preprocessing::default(), 4).unwrap();
    let options = RunOptions {
        threads,
        run_folder: folder.map(Path::to_owned),
    };
    Trainer::new(network, recipe, data, &options).unwrap()
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

/// A run on one thread to its end, whose bytes a run on two threads has too, and one that was interrupted and began again.
fn the_same_bytes_every_way(network: &Network, recipe: &Recipe) -> Trainer {
    let mut straight = trainer_of(network, recipe.clone(), 1, None);
    straight.run(&mut Silent).unwrap();
    let want = bytes(&straight);
    let mut two = trainer_of(network, recipe.clone(), 2, None);
    two.run(&mut Silent).unwrap();
    assert!(bytes(&two) == want, "two threads");
    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer_of(network, recipe.clone(), 2, Some(folder.path()));
    let outcome = first.run(&mut StopAfter(35)).unwrap();
    assert!(matches!(outcome, Outcome::Interrupted), "{outcome:?}");
    let mut second = trainer_of(network, recipe.clone(), 1, Some(folder.path()));
    second.resume(folder.path(), &mut Silent).unwrap();
    assert_eq!(second.position().total_steps, 35);
    second.run(&mut Silent).unwrap();
    assert!(bytes(&second) == want, "an interrupted run");
    straight
}

#[test]
fn one_thread_two_threads_and_an_interrupted_run_give_the_same_bytes() {
    let mut straight = trainer(recipe(), 1, None);
    straight.run(&mut Silent).unwrap();
    let want = bytes(&straight);
    let last = straight.history().last().unwrap();
    assert!(
        last.left() <= 160 && last.validation_error < 20.0,
        "{last:?}"
    );
    assert!(straight.network().unwrap().original_weights() == 4 * 25 + 6 * 100 + 16 * 96 + 64);

    // Skipping zeros only changes the order of sums.
    let with_zeros = Recipe {
        skip_zeros: false,
        ..recipe()
    };
    let mut with_zeros = trainer(with_zeros, 1, None);
    with_zeros.run(&mut Silent).unwrap();
    assert!(bytes(&with_zeros) != want);
    let other = with_zeros.history().last().unwrap();
    assert!(
        (last.loss - other.loss).abs() < 0.1 * other.loss,
        "{last:?}, {other:?}"
    );

    let mut two = trainer(recipe(), 2, None);
    two.run(&mut Silent).unwrap();
    assert!(bytes(&two) == want, "two threads");

    // In the middle of an epoch of each phase, and at the end of an epoch.
    for steps in [7, 20, 33, 45, 61, 80] {
        let folder = tempfile::tempdir().unwrap();
        let mut first = trainer(recipe(), 2, Some(folder.path()));
        let outcome = first.run(&mut StopAfter(steps)).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
        let mut second = trainer(recipe(), 1, Some(folder.path()));
        second.resume(folder.path(), &mut Silent).unwrap();
        assert_eq!(second.position().total_steps, steps);
        second.run(&mut Silent).unwrap();
        assert!(bytes(&second) == want, "stopped after {steps} steps");
    }
}

#[test]
fn a_phase_in_steps_passes_over_a_small_set_several_times_in_an_epoch() {
    let mut recipe = recipe();
    let plain = trainer(recipe.clone(), 1, None);
    let images = 600;
    recipe.phases.truncate(2);
    for phase in &mut recipe.phases {
        (phase.epochs, phase.steps) = (2, Some(50));
    }
    let of_epoch: Vec<usize> = recipe
        .phases
        .iter()
        .map(|p| p.steps_per_epoch(images))
        .collect();
    assert!(
        of_epoch.iter().all(|s| (20..=30).contains(s)),
        "{of_epoch:?}"
    );
    let mut straight = trainer(recipe.clone(), 1, None);
    straight.run(&mut Silent).unwrap();
    assert_eq!(
        straight.position().total_steps as usize,
        2 * of_epoch.iter().sum::<usize>()
    );
    assert_eq!(straight.history().len(), 4);
    assert!(bytes(&straight) != bytes(&plain));
    // In the second pass of an epoch, and on another number of threads.
    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer(recipe.clone(), 2, Some(folder.path()));
    let after = of_epoch[0] as u32 + 17;
    first.run(&mut StopAfter(after)).unwrap();
    let mut second = trainer(recipe, 1, Some(folder.path()));
    second.resume(folder.path(), &mut Silent).unwrap();
    second.run(&mut Silent).unwrap();
    assert!(bytes(&second) == bytes(&straight));
}

/// Of a run that prunes nothing and of one that leaves 200 weights at the end of the same phase, the other weights are those of higher rates.
#[test]
fn the_lowest_rates_stay_where_a_phase_says_how_many() {
    let mut recipe = recipe();
    recipe.phases.truncate(2);
    recipe.phases[1].prune_from = 0;
    let mut all = trainer(recipe.clone(), 1, None);
    all.run_until(2, &mut Silent).unwrap();
    let rates = |l: &Layer<f32>| l.posterior().log_alphas().collect::<Vec<_>>();
    let rates: Vec<f32> = all.layers().iter().flat_map(rates).collect();
    recipe.phases[1].weights = Some(200);
    let mut some = trainer(recipe.clone(), 1, None);
    some.run_until(2, &mut Silent).unwrap();
    let mut sorted = rates.clone();
    sorted.sort_by(f32::total_cmp);
    assert!(sorted[199] < sorted[200]);
    // Units that died of it have left: what is here is found by its original place.
    let (mut stayed, mut place) = (0, 0);
    for layer in some.layers() {
        let dims = layer.original.dims();
        let (inn, area) = (dims[1], layer.area());
        for (row, patch) in layer.mask.chunks(layer.patch()).enumerate() {
            for (at, &mask) in patch.iter().enumerate() {
                let input = layer.kept_in[at % layer.kept_in.len()] as usize;
                let tap = at / layer.kept_in.len();
                let original = (layer.kept_out[row] as usize * area + tap) * inn + input;
                if mask > 0.0 {
                    assert!(rates[place + original] <= sorted[199]);
                    stayed += 1;
                }
            }
        }
        place += layer.original.elements();
    }
    // A unit that nothing reads or feeds any more takes its weights with it.
    assert!((150..=200).contains(&stayed), "{stayed}");
    some.run(&mut Silent).unwrap();
    assert!(some.network().unwrap().nonzeros() <= stayed);
    // The rates decide, not the threshold, which leaves more here.
    all.run(&mut Silent).unwrap();
    assert!(all.network().unwrap().nonzeros() > 200);
    // More than the threshold leaves are no more than that.
    let many = |weights| {
        let mut recipe = recipe.clone();
        recipe.phases[1].weights = weights;
        recipe.threshold = -1.0;
        let mut run = trainer(recipe, 1, None);
        run.run(&mut Silent).unwrap();
        bytes(&run)
    };
    assert!(many(None) == many(Some(2000)) && many(None) != many(Some(50)));
    // A run that is interrupted where such a phase ends goes on alike, and its posterior is that of the weights which stay.
    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer(recipe.clone(), 1, Some(folder.path()));
    first.run_until(2, &mut Silent).unwrap();
    let file = folder.path().join("posterior.safetensors");
    let mut kept = trainer(recipe.clone(), 1, None);
    kept.resume_from(&file, &mut Silent).unwrap();
    assert_eq!(kept.sweep(&[8.0])[0].2, stayed);
    kept.run(&mut Silent).unwrap();
    assert!(bytes(&kept) == bytes(&some));
    // Depthwise filters have no rates, and stay; rates of -8 and less are equal.
    let mut one = recipe.clone();
    one.phases.remove(0);
    one.phases[0].weights = Some(1);
    let mut one = trainer_of(&residual_network(), one, 1, None);
    one.run(&mut Silent).unwrap();
    let depthwise = one.layers().iter().find(|l| l.node == "d").unwrap();
    let alive: usize = one.layers().iter().map(Layer::alive).sum();
    assert!(depthwise.alive() == 72 && alive < 80, "{alive}");
}

#[test]
fn pruning_to_fewer_weights_than_depthwise_filters_have_leaves_those() {
    let tune = Phase {
        batch: 60,
        weights: Some(1),
        prune_by: PruneBy::Magnitude,
        ..Phase::new(Method::FineTune, 1)
    };
    let mut run = trainer_of(&residual_network(), Recipe::new(vec![tune]), 1, None);
    run.run(&mut Silent).unwrap();
    let alive: usize = run.layers().iter().map(Layer::alive).sum();
    let depthwise = run.layers().iter().find(|l| l.node == "d").unwrap();
    assert_eq!(depthwise.alive(), 72);
    assert!(alive <= 73, "{alive}");
}

/// Grids come from deviations of the posterior in units of the weights that are written, which a normalisation has scaled.
#[test]
fn scales_of_grids_come_from_deviations_behind_the_normalisation() {
    let mut network = residual_network();
    let mut factor = network.tensors["n1.weight"].to_dense();
    factor.values.fill(4.0);
    network.tensors.insert("n1.weight".into(), factor.into());
    let phase = |method, epochs| Phase {
        batch: 60,
        lr: 1e-3,
        ..Phase::new(method, epochs)
    };
    let phases = [Method::SparseVd, Method::FineTune, Method::Quantise].map(|m| phase(m, 1));
    let recipe = Recipe::new(phases.into());
    let mut run = trainer_of(&network, recipe, 1, None);
    run.run_until(1, &mut Silent).unwrap();
    let first = |run: &Trainer| {
        run.layers()
            .iter()
            .find(|l| l.node == "c1")
            .unwrap()
            .clone()
    };
    let [with_noise, normalisation] = [first(&run).log_sigma2, {
        let norm = &run.state().normalisations[0];
        assert_eq!(norm.node, "n1");
        let deviation = norm
            .variance
            .iter()
            .map(|v| (f64::from(*v) + norm.epsilon).sqrt());
        let factors = norm.scale.iter().zip(deviation);
        factors
            .map(|(s, d)| (2.0 * (f64::from(*s) / d).abs().ln()) as f32)
            .collect()
    }];
    assert!(
        normalisation.iter().any(|log: &f32| log.abs() > 0.5),
        "{normalisation:?}"
    );
    run.run_until(2, &mut Silent).unwrap();
    let layer = first(&run);
    for (i, (log, before)) in layer.last_log_sigma2.iter().zip(&with_noise).enumerate() {
        let want = before + normalisation[layer.kept_out[i / layer.patch()] as usize];
        assert!((log - want).abs() < 1e-4, "{i}: {log}, expected {want}");
    }
    let sigma = layer.median_sigma().unwrap();
    run.run(&mut Silent).unwrap();
    let [scale, _] = first(&run).scales.unwrap();
    // Rounded to four bits; what fine-tuning removed moves the median little.
    assert!(
        (f64::from(scale) / sigma - 1.0).abs() < 0.15,
        "{scale} {sigma}"
    );
}

/// A unit whose factor is zero as the network comes has weights where training gave it another one.
#[test]
fn a_normalisation_that_begins_with_zeros_is_folded_before_grids() {
    let mut network = residual_network();
    // The ReLU behind it lets its gradient through.
    for (name, value) in [("n1.weight", 0.0), ("n1.bias", 0.5)] {
        let mut tensor = network.tensors[name].to_dense();
        tensor.values[3] = value;
        network.tensors.insert(name.into(), tensor.into());
    }
    let phase = |method, epochs| Phase {
        batch: 60,
        lr: 1e-2,
        ..Phase::new(method, epochs)
    };
    let mut phases = vec![phase(Method::Dense, 2), phase(Method::Quantise, 3)];
    phases[0].lr = 5e-2;
    // Its interruption, after 35 steps, is in the quantise phase.
    let run = the_same_bytes_every_way(&network, &Recipe::new(phases));
    let written = run.network().unwrap();
    let names: Vec<&str> = written
        .graph
        .nodes
        .iter()
        .map(|n| n.name.as_str())
        .collect();
    assert!(!names.contains(&"n1") && names.contains(&"n2"), "{names:?}");
    let first = run.layers().iter().find(|l| l.node == "c1").unwrap();
    let of_unit = &first.mask[3 * first.patch()..4 * first.patch()];
    assert!(of_unit.contains(&1.0), "{of_unit:?}");
    assert!(written.scales.contains_key("c1.weight"));
}

#[test]
fn normalisations_keep_their_statistics_through_threads_interruptions_and_every_phase() {
    let network = residual_network();
    let mut recipe = recipe();
    recipe.phases.push(Phase {
        batch: 60,
        lr: 2e-3,
        ..Phase::new(Method::Quantise, 2)
    });
    for phase in &mut recipe.phases {
        phase.lr = 1e-2;
        phase.weights = phase.weights.map(|_| 320);
    }
    let run = |threads| {
        let mut run = trainer_of(&network, recipe.clone(), threads, None);
        run.run(&mut Silent).unwrap();
        run
    };
    let straight = run(1);
    let want = bytes(&straight);
    let last = straight.history().last().unwrap();
    assert!(
        last.left() <= 330 && last.validation_error < 20.0,
        "{last:?}"
    );
    let depthwise = straight.layers().iter().find(|l| l.node == "d").unwrap();
    assert_eq!(depthwise.alive(), 72, "depthwise filters stay whole");
    // The other one is part of its convolution since the quantise phase began.
    let [moved] = &straight.state().normalisations[..] else {
        panic!("{:?}", straight.state().normalisations);
    };
    assert!(moved.mean.iter().all(|m| *m != 0.0) && moved.variance.iter().all(|v| *v != 1.0));
    // What is written is what was validated: scores by the stored statistics.
    assert_eq!(
        straight.network().unwrap().tensors["n2.running_mean"].values(),
        moved.mean
    );
    assert!(bytes(&run(2)) == want, "two threads");
    for steps in [7, 33, 61, 95] {
        let folder = tempfile::tempdir().unwrap();
        let mut first = trainer_of(&network, recipe.clone(), 2, Some(folder.path()));
        let outcome = first.run(&mut StopAfter(steps)).unwrap();
        assert_eq!(outcome, Outcome::Interrupted);
        let mut second = trainer_of(&network, recipe.clone(), 1, Some(folder.path()));
        second.resume(folder.path(), &mut Silent).unwrap();
        second.run(&mut Silent).unwrap();
        assert!(bytes(&second) == want, "stopped after {steps} steps");
    }
}

#[test]
fn a_residual_block_that_died_is_quantised_with_the_rest() {
    let mut network = residual_network();
    // Zeros that come in a sparse file stay removed.
    let empty = Dense::zeros(Shape::from([8, 8, 3, 3]));
    let empty = Weights::Csr(Csr::from_dense(&empty));
    network.tensors.insert("c2.weight".into(), empty);
    let mut recipe = recipe();
    recipe.phases = [Method::SparseVd, Method::Quantise]
        .map(|method| Phase {
            batch: 60,
            ..Phase::new(method, 1)
        })
        .to_vec();
    let mut run = trainer_of(&network, recipe, 1, None);
    run.run(&mut Silent).unwrap();
    let done = run.network().unwrap();
    assert_eq!(done.tensors["c2.weight"].nonzeros(), 0);
    assert!(done.scales["c2.weight"] > 0.0 && done.tensors["p.weight"].nonzeros() > 0);
}

#[test]
fn shared_rates_train() {
    for granularity in [Granularity::Unit, Granularity::Layer] {
        let mut recipe = recipe();
        recipe.alpha = granularity;
        recipe.phases = vec![
            recipe.phases[0].clone(),
            Phase {
                batch: 60,
                lr_log_sigma2: Some(2e-2),
                ..Phase::new(Method::SparseVd, 6)
            },
        ];
        let mut run = trainer(recipe, 1, None);
        run.run(&mut Silent).unwrap();
        for layer in run.layers() {
            let group = granularity.group(layer.units(), layer.patch());
            let alphas: Vec<f32> = layer.posterior().log_alphas().collect();
            for group in alphas.chunks(group) {
                let [least, most] =
                    [f32::min, f32::max].map(|f| group.iter().copied().reduce(f).unwrap());
                assert!(
                    most - least < 1e-3,
                    "{granularity:?} {}: rates {least} to {most}",
                    layer.node
                );
            }
            let moved = alphas.iter().any(|a| (a - alphas[0]).abs() > 1e-3);
            assert_eq!(
                moved,
                granularity == Granularity::Unit,
                "{granularity:?} {}",
                layer.node
            );
        }
        assert!(run.history().last().unwrap().validation_error < 20.0);
    }
}

#[test]
fn what_is_wrong_with_a_run_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut short = recipe();
    short.phases.truncate(1);
    trainer(short, 1, Some(folder.path()))
        .run(&mut Silent)
        .unwrap();

    let mut steep = recipe();
    steep.phases[0].lr = 1.0;
    let error = trainer(steep, 1, Some(folder.path()))
        .run(&mut Silent)
        .unwrap_err();
    assert!(
        matches!(
            error,
            CompressError::Diverged {
                phase: 1,
                epoch: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("kl_scale")
            && error.to_string().contains(folder.path().to_str().unwrap()),
        "{error}"
    );
}

/// A network that begins with a loss far above that of guessing, and improves, has not diverged.
#[test]
fn a_bad_beginning_is_no_divergence() {
    let mut network = network();
    let scores = network.tensors.get_mut("fc2.weight").unwrap();
    let mut dense = scores.to_dense();
    dense.values.iter_mut().for_each(|w| *w *= 100.0);
    *scores = Weights::Dense(dense);
    let mut recipe = recipe();
    recipe.phases.truncate(1);
    let mut run = trainer_of(&network, recipe, 1, None);
    run.run(&mut Silent).unwrap();
    let first = &run.history()[0];
    assert!(first.loss > 4.0 * 4f64.ln(), "{first:?}");
}

#[test]
fn every_preset_can_be_trained() {
    for name in presets::NAMES {
        let (graph, shapes) = presets::for_input(name, [3, 32, 32])
            .or_else(|| presets::by_name(name))
            .unwrap();
        let network = initialise(graph, &shapes, 1).unwrap();
        let input = network.graph.inputs[0].shape.elements();
        let state = State::<f32>::from_network(&network).unwrap();
        let layers = state.layers.len();
        let isa = Isa::best();
        let mut engine =
            Engine::new(&network.graph, state, Granularity::Weight, isa, None).unwrap();
        let fill = |i: usize, out: &mut [f32]| {
            for (p, x) in out.iter_mut().enumerate() {
                *x = ((p * 7 + i * 13) % 11) as f32 / 11.0;
            }
        };
        assert_eq!(engine.input_len(), input, "{name}");
        let batch = Batch {
            samples: 2,
            fill: &fill,
            objective: &CrossEntropy {
                smoothing: 0.0,
                distillation: Distillation::NONE,
            },
            targets: &Targets::classes(&[1, 2]),
            teacher: None,
        };
        let report = engine.backward(&batch, 1, 1).unwrap();
        assert!(report.objective.is_finite(), "{name}");
        let moving = engine
            .gradients()
            .iter()
            .filter(|[g, _]| g.iter().any(|g| *g != 0.0));
        assert_eq!(moving.count(), layers, "{name}: every layer has gradients");
    }
}

/// `(x - 0.13) / 0.31` in front of a linear layer trains, and stays what it was.
#[test]
fn constants_on_the_input_stay_and_the_rest_learns() {
    let constants = |name: &str| {
        Op::BatchNormalization(ops::BatchNormalization {
            scale: format!("{name}.scale"),
            bias: format!("{name}.shift"),
            mean: format!("{name}.mean"),
            variance: format!("{name}.variance"),
            epsilon: 0.0,
        })
    };
    let fc = Op::Linear(ops::Linear {
        weight: "fc.weight".into(),
        bias: None,
    });
    let nodes = [
        ("sub", constants("sub"), "input"),
        ("div", constants("div"), "sub"),
        ("flat", Op::Flatten, "div"),
        ("fc", fc, "flat"),
    ];
    let nodes = nodes.map(|(name, op, input)| Node {
        name: name.into(),
        op,
        inputs: vec![input.into()],
    });
    let graph = Graph {
        name: "normalised".into(),
        inputs: vec![Input::new("input", Shape::from([1, 28, 28]))],
        nodes: nodes.into(),
        outputs: vec!["fc".into()],
        preprocessing: Some(Preprocessing {
            scale: 1.0 / 255.0,
            ..Preprocessing::default()
        }),
    };
    let tensors = graph.nodes.iter().flat_map(|n| n.op.tensors());
    let shapes: Vec<(String, Shape)> = tensors
        .map(|name| match name {
            "fc.weight" => (name.to_owned(), Shape::from([4, 784])),
            _ => (name.to_owned(), Shape::from([1])),
        })
        .collect();
    let mut network = initialise(graph, &shapes, 2).unwrap();
    for (name, value) in [("sub.shift", -0.13), ("div.scale", 1.0 / 0.31)] {
        let tensor = Weights::Dense(Dense::new([1], vec![value]));
        network.tensors.insert(name.into(), tensor);
    }
    let mut recipe = recipe();
    recipe.phases.truncate(2);
    let mut run = trainer_of(&network, recipe, 2, None);
    run.run(&mut Silent).unwrap();
    let last = run.history().last().unwrap();
    assert!(last.validation_error < 20.0, "{last:?}");
    let trained = run.network().unwrap();
    for (name, tensor) in &network.tensors {
        let stays = name != "fc.weight";
        assert_eq!(trained.tensors[name] == *tensor, stays, "{name}");
    }
}

/// Units behind which a layer normalisation stands all stay, and its tensors learn, as do slopes.
#[test]
fn layer_normalisations_and_slopes_learn_through_threads_and_interruptions() {
    let mut b = GraphBuilder::new("layer-norm");
    let x = b.input("input", [1, 28, 28]);
    let x = b.conv("c", &x, &Conv2d::square(6, 5).stride(4));
    let norm = |b: &mut GraphBuilder, name: &str, x: &str, dims: &[usize]| {
        let op = Op::LayerNormalization(ops::LayerNormalization {
            scale: b.tensor(format!("{name}.weight"), Shape(dims.to_vec())),
            bias: Some(b.tensor(format!("{name}.bias"), Shape(dims.to_vec()))),
            dimensions: dims.len(),
            epsilon: 1e-5,
        });
        b.op(name, op, &[x])
    };
    let x = norm(&mut b, "n1", &x, &[6, 6, 6]);
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("fc1", &x, 12);
    let x = norm(&mut b, "n2", &x, &[12]);
    let slope = b.tensor("p.weight", [12]);
    let x = b.op("p", Op::PRelu(ops::PRelu { slope }), &[&x]);
    b.linear("fc2", &x, 4);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    let network = initialise(graph, &tensors, 3).unwrap();
    let start = |name: &str| network.tensors[name].to_dense().values;
    assert!(start("n1.weight").iter().all(|v| *v == 1.0));
    assert!(start("n1.bias").iter().all(|v| *v == 0.0));
    assert!(start("p.weight").iter().all(|v| *v == 0.25));

    let straight = the_same_bytes_every_way(&network, &recipe());

    let last = straight.history().last().unwrap();
    assert!(last.validation_error < 20.0, "{last:?}");
    let trained = straight.network().unwrap();
    assert_ne!(trained.tensors["p.weight"], network.tensors["p.weight"]);
    for (name, dims) in [("n1", &[6, 6, 6][..]), ("n2", &[12])] {
        for part in ["weight", "bias"] {
            let name = format!("{name}.{part}");
            assert_eq!(trained.tensors[&name].shape().dims(), dims, "{name}");
            assert_ne!(trained.tensors[&name], network.tensors[&name], "{name}");
        }
    }
}

/// Layers over the rows of an image keep their units, and are pruned, to the same bytes through threads and interruptions.
#[test]
fn layers_over_the_vectors_of_a_sample_are_pruned() {
    let mut b = GraphBuilder::new("rows");
    let x = b.input("input", [1, 28, 28]);
    let shape = vec![28, 28];
    let x = b.op("rows", Op::Reshape(ops::Reshape { shape }), &[&x]);
    let x = b.linear("l1", &x, 10);
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.linear("l2", &x, 6);
    let perm = vec![1, 0];
    let x = b.op("columns", Op::Transpose(ops::Transpose { perm }), &[&x]);
    let x = b.linear("mix", &x, 5);
    let x = b.op("r2", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("fc1", &x, 12);
    let x = b.op("r3", Op::Relu, &[&x]);
    b.linear("fc2", &x, 4);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    let network = initialise(graph, &tensors, 3).unwrap();
    let recipe = || {
        let mut recipe = recipe();
        recipe.phases[1].kl_scale = 0.3;
        recipe.phases[2].weights = Some(500);
        recipe
    };
    let straight = the_same_bytes_every_way(&network, &recipe());

    let trained = straight.network().unwrap();
    assert!(trained.nonzeros() <= 500);
    for name in ["l1.weight", "l2.weight", "mix.weight"] {
        let (before, after) = (&network.tensors[name], &trained.tensors[name]);
        assert_eq!(after.shape(), before.shape(), "{name}");
        assert!(after.nonzeros() < before.nonzeros(), "{name}");
    }
    let last = straight.history().last().unwrap();
    assert!(last.validation_error < 30.0, "{last:?}");
}

/// Against its own outputs a network has no gradients, by which weights could be chosen, until it has lost some.
#[test]
fn a_network_that_learns_from_itself_alone_loses_weights() {
    let tune = Phase {
        batch: 60,
        weights: Some(900),
        ..Phase::new(Method::FineTune, 3)
    };
    let mut recipe = Recipe::new(vec![tune]);
    recipe.learn_from_teacher();
    let mut run = trainer(recipe, 2, None);
    run.run(&mut Silent).unwrap();
    let left: Vec<usize> = (run.history().iter())
        .map(|epoch| epoch.layers.iter().map(|l| l.left).sum())
        .collect();
    assert!(left[0] < 1600 && left[2] <= 900, "{left:?}");
    // The gradients chose after the first weights were gone.
    let weights = &run.network().unwrap().tensors["fc1.weight"];
    let smallest = weights.to_dense().values.into_iter().map(f32::abs);
    let smallest = smallest.filter(|w| *w > 0.0).reduce(f32::min).unwrap();
    assert!(smallest < 0.1, "{smallest}");
}

/// The network with probabilities, or what else an operator makes, in the place of its scores.
fn with_last(op: Op) -> Network {
    let mut network = network();
    network.graph.nodes.push(Node {
        name: "p".into(),
        op,
        inputs: vec!["fc2".into()],
    });
    network.graph.outputs = vec!["p".into()];
    network
}

#[test]
fn a_softmax_at_the_end_changes_nothing_in_training() {
    let trained = |network: &Network| {
        let mut run = trainer_of(network, recipe(), 2, None);
        run.run(&mut Silent).unwrap();
        run.network().unwrap()
    };
    let scores = trained(&network());
    for last in [
        Op::Softmax(ops::Softmax::default()),
        Op::LogSoftmax(ops::LogSoftmax::default()),
    ] {
        let probabilities = trained(&with_last(last.clone()));
        assert_eq!(probabilities.tensors, scores.tensors);
        assert_eq!(probabilities.graph.nodes.last().unwrap().op, last);
        assert_eq!(probabilities.graph.outputs, ["p"]);
    }
}

#[test]
fn what_cannot_be_trained_is_refused_by_name() {
    let refused = |network: &Network, data: Dataset, recipe: Recipe, expected: &str| {
        let shape = network.graph.inputs[0].shape.clone();
        let data = TrainingData::split(&data, 120, &shape, &Preprocessing::default(), 4).unwrap();
        let error = Trainer::new(network, recipe, data, &RunOptions::default());
        let error = error.err().unwrap().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    let squared = Recipe {
        loss: Some(Loss::SquaredError),
        ..recipe()
    };
    refused(
        &with_last(Op::Softmax(ops::Softmax::default())),
        images(),
        squared,
        "`p` (Softmax): the trainer does not support it under another loss",
    );
    let (graph, tensors) = presets::mlp("mlp", Shape::from([784]), &[5, 4]);
    let vectors = initialise(graph, &tensors, 1).unwrap();
    refused(
        &vectors,
        images(),
        recipe(),
        "shift: expected 0 for inputs [784], which are no images, got 1",
    );
}
