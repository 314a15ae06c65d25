//! Int8 layers whose weights are trained, alone and at the end of a compression.
#![allow(clippy::unwrap_used, reason = "a test")]

mod stripes;

use sparsevd_compressor::recipe::{Augment, Method, Phase, QuantiseActivations, Recipe};
use sparsevd_compressor::report::{Pruning, SplitScore};
use sparsevd_compressor::{Magnitude, Scope};
use sparsevd_format::{WriteOptions, read_packed, write_network_bytes};
use sparsevd_model::{Csr, Network};
use sparsevd_pipeline::{
    ActivationQuantisation, Compression, Int8Scores, Observer, PipelineError, QuantisedActivations,
    RunFolder, Silent,
};

use stripes::{data, network};

/// Stops after a number of steps.
struct Until(u32);

impl Observer for Until {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.0 = self.0.saturating_sub(1);
    }

    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

/// With two thirds of the weights of each layer, of which each unit has some.
fn sparse() -> Network {
    let mut network = network();
    for name in network.weight_names() {
        let mut dense = network.tensors[&name].to_dense();
        for (i, v) in dense.values.iter_mut().enumerate() {
            *v = if (i % 8 + i / 8) % 3 == 1 { 0.0 } else { *v };
        }
        network.tensors.insert(name, Csr::from_dense(&dense).into());
    }
    network
}

fn bytes(network: &Network) -> Vec<u8> {
    write_network_bytes(network, &WriteOptions::default()).unwrap()
}

fn settings() -> ActivationQuantisation {
    ActivationQuantisation {
        samples: 50,
        // The network is as it was initialised, so that outputs differ little between samples.
        max_error: 10.0,
        ..ActivationQuantisation::default()
    }
}

/// Percent that the network in int8 gets wrong of the validation samples.
fn error(scores: &Int8Scores) -> f64 {
    match scores.validation {
        SplitScore::Errors(errors) => errors.sparse_percent,
        SplitScore::Fit(_) => panic!("classes"),
    }
}

fn recipe() -> Recipe {
    let mut recipe = Recipe::default_for_activations(3, 2e-2);
    recipe.validation = 20.into();
    recipe.phases[0].batch = 10;
    recipe
}

fn trained(folder: Option<&RunFolder>, threads: usize) -> QuantisedActivations {
    let recipe = recipe();
    let done = settings().run_and_train(sparse(), data(), &recipe, folder, threads, &mut Silent);
    done.unwrap()
}

#[test]
fn weights_that_layers_of_bytes_train_do_better_and_keep_their_zeros() {
    let rounded = settings().run(sparse(), data(), 1).unwrap();
    assert_eq!(
        (rounded.report.training, rounded.training_seconds),
        (None, 0.0)
    );
    let done = trained(None, 1);
    let training = done.report.training.unwrap();
    assert_eq!(training.epochs, 3);
    assert!(training.kept && !training.against_f32, "{}", done.report);
    let [before, after] = [&training.rounded, &training.trained].map(error);
    // Fresh weights tell nothing, and these stripes are easy.
    assert!(before >= 20.0 && after <= 5.0, "{before} and {after}");
    let text = done.report.to_string();
    assert!(
        text.contains("trained 3 epochs: the result has the trained weights\nvalidation  f32"),
        "{text}"
    );
    assert_eq!(done.network.int8.inputs.len(), 2, "{}", done.report);
    for (name, tensor) in &sparse().tensors {
        let [old, new] = [tensor, &done.network.tensors[name]].map(|t| t.to_dense().values);
        assert_ne!(old, new, "{name} is trained");
        if name.ends_with("weight") {
            assert_eq!(old.len(), new.len(), "{name}");
            assert!(old.iter().zip(&new).all(|(a, b)| *a != 0.0 || *b == 0.0));
        }
    }
    // The scales of inputs are those that were found before training.
    for layer in &done.report.layers {
        assert_eq!(layer.input, Some(done.network.int8.inputs[&layer.name]));
    }
    assert!(bytes(&trained(None, 2).network) == bytes(&done.network));
}

#[test]
fn training_that_does_no_better_leaves_the_rounded_weights() {
    let first = trained(None, 1).network;
    let mut recipe = recipe();
    // Stripes that are moved so far may be of either class.
    recipe.augment = Augment::None;
    recipe.phases[0].shift = 3;
    (recipe.phases[0].lr, recipe.phases[0].epochs) = (0.1, 20);
    recipe.phases[0].distil = 0.0;
    let again = settings().run_and_train(first.clone(), data(), &recipe, None, 1, &mut Silent);
    let again = again.unwrap();
    let training = again.report.training.unwrap();
    let [rounded, trained] = [&training.rounded, &training.trained].map(error);
    assert!(rounded <= 5.0 && trained > rounded, "{}", again.report);
    assert!(!training.kept);
    // They were rounded already.
    assert_eq!(again.network.tensors, first.tensors);
    let text = again.report.to_string();
    assert!(text.contains("rounded, which do better"), "{text}");
}

#[test]
fn a_training_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let straight = trained(None, 1);
    let new = RunFolder::new(&run);
    let error = settings()
        .run_and_train(sparse(), data(), &recipe(), Some(&new), 1, &mut Until(14))
        .unwrap_err();
    assert!(
        matches!(&error, PipelineError::Interrupted { folder: Some(f) } if *f == run),
        "{error}"
    );
    drop(new);
    // Of other bytes it is another run.
    let other = ActivationQuantisation {
        samples: 3,
        ..settings()
    };
    let resumed = RunFolder::resume_or_new(&run).unwrap();
    let error = other
        .run_and_train(sparse(), data(), &recipe(), Some(&resumed), 1, &mut Silent)
        .unwrap_err();
    assert!(error.to_string().contains("network"), "{error}");
    drop(resumed);
    let resumed = RunFolder::resume_or_new(&run).unwrap();
    let again = trained(Some(&resumed), 1);
    assert!(bytes(&again.network) == bytes(&straight.network));
    assert_eq!(again.report, straight.report);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dynamic = ActivationQuantisation {
        dynamic: true,
        ..settings()
    };
    let error = dynamic
        .run_and_train(sparse(), data(), &recipe(), None, 1, &mut Silent)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("grids of samples, which training rounds to"),
        "{error}"
    );
    let recipe = Recipe {
        quantise_activations: Some(QuantiseActivations::default()),
        ..ending(0)
    };
    let error = Compression::new(network(), None, recipe)
        .run(&mut Silent)
        .unwrap_err();
    assert!(
        error.to_string().contains("ranges of int8 layers"),
        "{error}"
    );
}

/// A compression that ends with int8 layers.
fn ending(epochs: u32) -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 10,
        ..Phase::new(method, epochs)
    };
    Recipe {
        validation: 20.into(),
        max_accuracy_drop: 100.0,
        phases: vec![
            phase(Method::SparseVd, 4),
            Phase {
                weights: Some(40),
                ..phase(Method::FineTune, 2)
            },
        ],
        quantise_activations: Some(QuantiseActivations {
            samples: 50,
            max_error: 10.0,
            epochs,
            lr: 1e-3,
            ..QuantiseActivations::default()
        }),
        ..Recipe::new(vec![])
    }
}

#[test]
fn a_compression_ends_with_int8_layers() {
    let folder = tempfile::tempdir().unwrap();
    for (epochs, on_grids) in [(0, false), (2, false), (0, true)] {
        let mut recipe = ending(epochs);
        if on_grids {
            recipe.phases.push(Phase::new(Method::Quantise, 1));
        }
        let done = Compression::new(network(), data(), recipe)
            .threads(1)
            .bench(false)
            .run(&mut Silent)
            .unwrap();
        // The last layer has 8 weights, none of which goes.
        assert_eq!(done.network.int8.inputs.len(), 1);
        let path = folder
            .path()
            .join(format!("{epochs}{on_grids}.safetensors"));
        let report = done.save(&path).unwrap();
        let int8 = report.int8.as_ref().unwrap();
        assert_eq!((int8.int8_layers, int8.layers), (1, 2));
        assert_eq!((int8.held_out, int8.epochs), (30, epochs));
        let training = done.int8.unwrap().training;
        assert_eq!(training.is_some(), epochs > 0);
        assert_eq!(int8.is_trained, training.is_some_and(|t| t.kept));
        assert_eq!(int8.kept_f32["fc2"], "weights that are not sparse");
        assert!(int8.top1.unwrap() >= 0.9);
        let line = "1 of 2 layers in int8, on 30 samples: agreement with f32 ";
        assert!(report.to_string().contains(line), "{report}");
        // Weights of a packed file are on grids still.
        assert_eq!(report.packed.is_some(), on_grids);
    }
}

#[test]
fn the_end_of_a_compression_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let new = || {
        Compression::new(network(), data(), ending(3))
            .threads(1)
            .bench(false)
    };
    let straight = new().run(&mut Silent).unwrap();
    // 10 steps each of 6 epochs, then a step each of 3 more.
    for steps in [45, 60, 61, 62] {
        let stopped = new().in_folder(RunFolder::overwrite(&run));
        let error = stopped.run(&mut Until(steps)).err().unwrap();
        assert!(
            matches!(&error, PipelineError::Interrupted { folder: Some(f) } if *f == run),
            "{error}"
        );
        let resumed = new().in_folder(RunFolder::resume(&run).unwrap());
        let resumed = resumed.run(&mut Silent).unwrap();
        assert!(
            bytes(&resumed.network) == bytes(&straight.network),
            "{steps}"
        );
        assert_eq!(resumed.int8, straight.int8, "{steps}");
    }
}

#[test]
fn what_was_pruned_before_is_packed_with_its_int8_layers() {
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = ending(0);
    recipe.phases.clear();
    let pruning = Magnitude {
        sparsity: 0.6,
        scope: Scope::Layer,
        every_layer: true,
        keep_dense: vec![],
    };
    let done = Compression::new(network(), data(), recipe)
        .pruned_by(Pruning::Magnitude(pruning))
        .threads(1)
        .bench(false)
        .run(&mut Silent)
        .unwrap();
    assert_eq!(done.network.int8.inputs.len(), 2);
    let report = done.save(folder.path().join("a.safetensors")).unwrap();
    assert_eq!(report.not_packed, None);
    let packed = read_packed(report.packed.unwrap().output).unwrap().network;
    assert_eq!(packed.int8, done.network.int8);
}
