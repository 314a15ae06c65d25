//! Frames of a run: weights from before training to its end.
#![allow(clippy::unwrap_used, reason = "a test")]

use safetensors::tensor::{Dtype, TensorView};
use sparsevd_compressor::frame::{self, Frame, REMOVED};
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{RunOptions, Silent, Trainer};
use sparsevd_compressor::{CompressError, TrainingData, initialise};
use sparsevd_format::{Dataset, Pixels};
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{Network, Preprocessing, Shape, presets};

/// Images of 8x8 whose class is the brighter half, over noise.
fn data(network: &Network) -> TrainingData {
    let (n, mut pixels, mut labels) = (600u32, vec![], vec![]);
    for i in 0..n {
        labels.push((i % 2) as u16);
        for y in 0..64u32 {
            let noise = philox4x32([i, y, 0, 0], [0; 2])[0] % 60;
            pixels.push((noise + if (y < 32) == (i % 2 == 0) { 150 } else { 0 }) as u8);
        }
    }
    let images = Dataset::new(Pixels::U8(pixels), Shape::from([1, 8, 8]), labels).unwrap();
    let shape = network.graph.inputs[0].shape.clone();
    TrainingData::split(&images, 100, &shape, &Preprocessing::default(), 2).unwrap()
}

fn run(network: &Network, phases: Vec<Phase>, folder: &std::path::Path) -> Trainer {
    let recipe = Recipe::new(phases);
    let options = RunOptions {
        threads: 1,
        run_folder: Some(folder.to_owned()),
    };
    let mut trainer = Trainer::new(network, recipe, data(network), &options).unwrap();
    trainer.run(&mut Silent).unwrap();
    trainer
}

fn network(preset: &str) -> Network {
    let (graph, shapes) = presets::by_name(preset).unwrap();
    initialise(graph, &shapes, 1).unwrap()
}

fn frames(folder: &std::path::Path) -> Vec<Frame> {
    let files = frame::files(folder).unwrap();
    files.iter().map(|f| Frame::read(f).unwrap()).collect()
}

#[test]
fn frames_show_weights_from_before_training_to_the_result() {
    let network = network("mlp:64,20,2");
    let folder = tempfile::tempdir().unwrap();
    let vd = Phase {
        batch: 50,
        lr: 1e-2,
        kl_scale: 5.0,
        prune_from: 2,
        ..Phase::new(Method::SparseVd, 8)
    };
    let tune = Phase {
        batch: 50,
        ..Phase::new(Method::FineTune, 2)
    };
    let trainer = run(&network, vec![vd, tune], folder.path());
    let frames = frames(folder.path());
    // Ten steps in an epoch: powers of two in the first three epochs, then ten epochs.
    let steps: Vec<u32> = frames.iter().map(|f| f.time.step).collect();
    assert_eq!(
        steps,
        [0, 1, 2, 4, 8, 10, 16, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    );
    let at = |step: u32| frames.iter().find(|f| f.time.step == step).unwrap();
    assert_eq!((at(16).time.epochs, at(16).time.phase), (1.6, 1));
    assert_eq!((at(80).time.epochs, at(80).time.phase), (8.0, 1));
    assert_eq!((at(100).time.epochs, at(100).time.phase), (10.0, 2));

    // Before training: the weights of the network, to half a 127th of the largest.
    let first = &frames[0].layers[0];
    let dense = network.tensors["fc1.weight"].to_dense();
    assert_eq!(first.shape, [20, 64]);
    assert_eq!((first.left, first.values.len()), (1280, 1280));
    for (value, weight) in first.values.iter().zip(&dense.values) {
        let error = (f32::from(*value) * first.scale - weight).abs();
        assert!(error <= 0.501 * first.scale, "{value} {weight}");
    }
    // After it: zeros where the result has zeros.
    let last = frames.last().unwrap();
    for (layer, trained) in last.layers.iter().zip(trainer.layers()) {
        let left = layer.values.iter().filter(|v| **v != REMOVED).count();
        let weights = trained.mask.iter().filter(|m| **m > 0.0).count();
        assert_eq!((left, layer.left), (weights, weights));
    }
    assert!(last.layers[0].left < 640, "{} weights", last.layers[0].left);
    let result = trainer.network().unwrap().tensors["fc2.weight"].to_dense();
    let kept = |v: &[f32]| v.iter().filter(|v| **v != 0.0).count();
    assert_eq!(kept(&result.values), last.layers[1].left);
}

#[test]
fn a_large_layer_is_shown_by_its_largest_units_and_inputs() {
    let mut network = network("mlp:64,10000,2");
    let mut dense = network.tensors["fc1.weight"].to_dense();
    // The last unit and the tenth input have the largest weights.
    for (i, weight) in dense.values.iter_mut().enumerate() {
        *weight *= if i / 64 == 9999 || i % 64 == 9 {
            9.0
        } else {
            1.0
        };
    }
    let last = dense.values[9999 * 64 + 9];
    network
        .tensors
        .insert("fc1.weight".into(), sparsevd_model::Weights::Dense(dense));
    let folder = tempfile::tempdir().unwrap();
    let phase = Phase {
        batch: 250,
        ..Phase::new(Method::FineTune, 1)
    };
    run(&network, vec![phase], folder.path());
    let first = &frames(folder.path())[0].layers[0];
    // 640,000 weights of which 524,288 are kept: 0.905 of the units and of the inputs.
    assert_eq!((first.units.len(), first.inputs.len()), (9050, 57));
    assert_eq!(
        (first.shape.as_slice(), first.left),
        (&[10_000, 64][..], 640_000)
    );
    let column = first.inputs.iter().position(|i| *i == 9).unwrap();
    assert_eq!(first.units[9049], 9999);
    let value = f32::from(first.values[9049 * 57 + column]) * first.scale;
    assert!((value - last).abs() <= 0.501 * first.scale);
}

#[test]
fn a_file_that_is_no_frame_is_named() {
    let network = network("mlp:64,4,2");
    let folder = tempfile::tempdir().unwrap();
    let phase = Phase {
        batch: 50,
        ..Phase::new(Method::FineTune, 1)
    };
    run(&network, vec![phase], folder.path());
    let file = frame::files(folder.path()).unwrap()[0].clone();
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 7, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        let error = Frame::read(&file).unwrap_err();
        assert!(matches!(error, CompressError::Report { .. }), "{error}");
    }
    let text = String::from_utf8_lossy(&whole);
    let at = text.find("[4,64]").unwrap();
    let mut other = whole.clone();
    other[at + 1] = b'3';
    std::fs::write(&file, &other).unwrap();
    let error = Frame::read(&file).unwrap_err().to_string();
    assert!(error.contains("got a larger one"), "{error}");
    // A layer without units.
    let tensors: [(&str, Dtype, Vec<usize>, &[u8]); 3] = [
        ("fc.weight", Dtype::I8, vec![0, 64], &[]),
        ("fc.units", Dtype::U32, vec![0], &[]),
        ("fc.inputs", Dtype::U32, vec![1], &[0; 4]),
    ];
    let views = tensors
        .map(|(name, dtype, shape, data)| (name, TensorView::new(dtype, shape, data).unwrap()));
    let layer = r#"{"node":"fc","shape":[4,64],"left":0,"scale":1.0}"#;
    let meta = format!(r#"{{"time":{{"step":0,"epochs":0.0,"phase":1}},"layers":[{layer}]}}"#);
    let meta = [("sparsevd.frame".to_owned(), meta)].into_iter().collect();
    std::fs::write(&file, safetensors::serialize(views, Some(meta)).unwrap()).unwrap();
    let error = Frame::read(&file).unwrap_err().to_string();
    assert!(
        error.contains("`fc.units`: expected an index, got none"),
        "{error}"
    );
    let empty = tempfile::tempdir().unwrap();
    assert!(frame::files(empty.path()).unwrap().is_empty());
}
