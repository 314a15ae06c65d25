//! Weights on grids, found in files of every kind or rounded to.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use sparsevd_compressor::{Rounding, initialise};
use sparsevd_format::{LoadedNetwork, ValueType, WriteOptions, write_network};
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, presets, quantised};
use sparsevd_pipeline::{Conversion, GridRounding, PipelineError};
use sparsevd_testing::{arbitrary::Stream, executor};

fn model(name: &str) -> PathBuf {
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
    Path::new(models).join(name)
}

fn read(path: impl AsRef<Path>) -> LoadedNetwork {
    sparsevd_onnx::load(path).unwrap()
}

fn loaded(network: Network) -> LoadedNetwork {
    LoadedNetwork {
        network,
        notes: vec![],
        warnings: vec![],
        metadata: Default::default(),
    }
}

/// A multi-layer perceptron of random weights, one in five of them not zero.
fn off_grid() -> Network {
    let (graph, shapes) = presets::mlp("net", Shape::from([20]), &[30, 10, 3]);
    let mut network = initialise(graph, &shapes, 1).unwrap();
    let mut stream = Stream(3);
    for name in network.layer_tensors() {
        let tensor = network.tensors.get_mut(&name).unwrap();
        let mut dense = tensor.to_dense();
        if name.ends_with("bias") {
            dense.values = stream.floats(dense.values.len());
            *tensor = dense.into();
        } else {
            let numbered = dense.values.iter_mut().enumerate();
            let removed = numbered.filter(|(i, _)| i % 5 != 2);
            removed.for_each(|(_, v)| *v = 0.0);
            *tensor = Csr::from_dense(&dense).into();
        }
    }
    network
}

#[test]
fn scales_are_found_in_files_that_name_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["lenet-300-100", "lenet-5"] {
        let packed = model(&format!("{name}/packed.spvd"));
        let network = read(&packed).network;
        let conversion = Conversion::default();
        conversion.write(read(&packed), path("x.onnx")).unwrap();
        let mut bare = network.clone();
        bare.scales.clear();
        write_network(path("x.safetensors"), &bare, &WriteOptions::default()).unwrap();
        for from in ["x.onnx", "x.safetensors"] {
            assert!(read(path(from)).network.scales.is_empty(), "{from}");
            let written = conversion.write(read(path(from)), path("y.spvd")).unwrap();
            let back = read(path("y.spvd")).network;
            assert_eq!(
                back.to_dense().tensors,
                network.to_dense().tensors,
                "{name}, {from}"
            );
            let known = std::fs::metadata(&packed).unwrap().len();
            // An ONNX file does not name the shapes of the original network, which a preset's name stands for.
            let more = if from == "x.onnx" { 128 } else { 4 };
            assert!(
                written.bytes <= known + more,
                "{name}, {from}: {} bytes, {known} where scales are known",
                written.bytes
            );
            assert_eq!(written.rounding, GridRounding::NotAsked);
        }
        let i8 = Conversion {
            values: ValueType::I8,
            ..Conversion::default()
        };
        i8.write(read(path("x.onnx")), path("i8.safetensors"))
            .unwrap();
        assert_eq!(
            read(path("i8.safetensors")).network.to_dense().tensors,
            network.to_dense().tensors
        );
    }
}

#[test]
fn a_tensor_off_any_grid_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.spvd");
    let mut network = Rounding::default().round(&off_grid()).unwrap().network;
    let Weights::Csr(csr) = &network.tensors["fc2.weight"] else {
        panic!("a sparse weight");
    };
    let moved = csr.map_values(|row, v| if row == 1 { v * 1.01 } else { v });
    network.tensors.insert("fc2.weight".into(), moved.into());
    network.scales.clear();
    let error = Conversion::default().write(loaded(network), &path);
    let error = error.unwrap_err();
    assert!(matches!(error, PipelineError::OffGrid { .. }), "{error}");
    assert!(error.to_string().contains("`fc2.weight`"), "{error}");
    assert!(!path.exists());
}

#[test]
fn rounding_moves_outputs_by_the_error_it_aims_at() {
    let network = off_grid();
    let mut last = 0.0;
    for error in [0.005, 0.02, 0.08] {
        let rounding = Rounding {
            error,
            ..Rounding::default()
        };
        let rounded = rounding.round(&network).unwrap();
        let got = rounded.error.unwrap();
        // The biases, a fifth as many as the weights, add theirs.
        assert!(
            (0.95..1.25).contains(&(got / error)),
            "{got} where {error} is aimed at"
        );
        // Of the outputs, measured.
        let (mut moved, mut all) = (0.0, 0.0);
        let mut stream = Stream(8);
        for _ in 0..200 {
            let input = stream.floats(20);
            let outputs = [&network, &rounded.network].map(|n| executor::run(n, &input));
            for (a, b) in outputs[0].iter().zip(&outputs[1]) {
                moved += (a - b).powi(2);
                all += a.powi(2);
            }
        }
        let measured = (moved / all).sqrt();
        assert!(measured < 2.0 * error, "{measured} for {error}");
        assert!(measured > last, "{measured} for {error}");
        last = measured;
    }
}

#[test]
fn rounding_keeps_zeros_and_what_is_on_a_grid() {
    let network = off_grid();
    let rounded = Rounding::default().round(&network).unwrap();
    for name in network.layer_tensors() {
        let [before, after] = [&network, &rounded.network].map(|n| n.tensors[&name].to_dense());
        let appeared = before.values.iter().zip(&after.values);
        assert!(
            name.ends_with("bias") || appeared.clone().all(|(b, a)| *b != 0.0 || *a == 0.0),
            "{name}"
        );
        assert!(appeared.into_iter().any(|(b, a)| b != a), "{name}");
        let scale = rounded.network.scales[&name];
        rounded.network.grid(&name, scale).unwrap();
    }
    let again = Rounding::default().round(&rounded.network).unwrap();
    assert_eq!(
        (again.error, &again.network),
        (None, &rounded.network),
        "nothing is left to round"
    );
    // Integers of 8 bits, however fine the error asks for.
    let small = Rounding {
        error: 1e-4,
        most: 127,
        ..Rounding::default()
    };
    let small = small.round(&network).unwrap().network;
    for name in small.weight_names() {
        let levels = small.grid(&name, small.scales[&name]).unwrap();
        let largest = levels.iter().map(|q| q.abs()).max().unwrap();
        assert!((100..=127).contains(&largest), "{name}: {largest}");
    }
}

#[test]
fn weights_with_a_posterior_get_the_scale_of_its_deviation() {
    let network = off_grid();
    let rounding = Rounding {
        sigmas: [("fc2.weight".to_owned(), 0.03)].into(),
        ..Rounding::default()
    };
    let rounded = rounding.round(&network).unwrap().network;
    assert_eq!(
        rounded.scales["fc2.weight"],
        quantised::nearest_scale(0.03, 4).unwrap()
    );
    assert_eq!(rounded.scales["fc2.bias"], rounded.scales["fc2.weight"]);
    assert_ne!(rounded.scales["fc1.weight"], rounded.scales["fc2.weight"]);
    for bad in [f64::NAN, f64::INFINITY, 0.0, -0.03] {
        let rounding = Rounding {
            sigmas: [("fc2.weight".to_owned(), bad)].into(),
            ..Rounding::default()
        };
        let error = rounding.round(&network).unwrap_err().to_string();
        assert!(
            error.contains("deviation of `fc2.weight`") && error.contains("above 0"),
            "{error}"
        );
    }
}

#[test]
fn biases_beside_weights_on_a_coarse_grid_keep_their_digits() {
    // A ternary network: the largest scale of its weights is their only magnitude.
    let scale = quantised::nearest_scale(0.2, 4).unwrap();
    let mut ternary = off_grid();
    for name in ternary.weight_names() {
        let tensor = ternary.tensors.get_mut(&name).unwrap();
        let Weights::Csr(csr) = &*tensor else {
            panic!("a sparse weight");
        };
        *tensor = csr.map_values(|_, v| scale.copysign(v)).into();
    }
    let rounded = Rounding::default().round(&ternary).unwrap();
    for name in ternary.weight_names() {
        assert_eq!(rounded.network.tensors[&name], ternary.tensors[&name]);
        assert_eq!(rounded.network.scales[&name], scale);
    }
    let mut away = 0.0;
    for name in ["fc1.bias", "fc2.bias", "fc3.bias"] {
        let weight = ternary.tensors[&name.replace("bias", "weight")].nonzeros();
        let squares = weight as f64 * f64::from(scale).powi(2);
        let [before, after] = [&ternary, &rounded.network].map(|n| n.tensors[name].values());
        for (b, a) in before.iter().zip(after) {
            assert!((b - a).abs() < 0.1 * scale, "{name}: {b} {a}");
            away += f64::from(b - a).powi(2) / squares;
        }
    }
    let error = rounded.error.unwrap();
    assert!(
        away > 0.0 && (error / away.sqrt() - 1.0).abs() < 1e-3,
        "{error} {away}"
    );
    assert!(error < 0.03, "{error}");
}

#[test]
fn tensors_that_are_zero_huge_or_no_numbers() {
    let with = |name: &str, value: &dyn Fn(usize) -> f32| {
        let mut network = off_grid();
        let tensor = network.tensors.get_mut(name).unwrap();
        let shape = tensor.shape();
        let values = (0..shape.elements()).map(value).collect();
        *tensor = Dense::new(shape, values).into();
        network
    };
    // A layer without weights stores its biases, in 8 bits.
    let zero = with("fc2.weight", &|_| 0.0);
    let rounded = Rounding::default().round(&zero).unwrap().network;
    assert_eq!(rounded.tensors["fc2.weight"].nonzeros(), 0);
    let (before, after) = (&zero.tensors["fc2.bias"], &rounded.tensors["fc2.bias"]);
    for (b, a) in before.values().iter().zip(after.values()) {
        assert!((b - a).abs() < 0.01, "{b} {a}");
    }
    // Biases that are far larger than the weights.
    let biased = with("fc2.bias", &|i| 3.7e6 * (i as f32 + 1.3));
    let rounded = Rounding::default().round(&biased).unwrap().network;
    let (before, after) = (&biased.tensors["fc2.bias"], &rounded.tensors["fc2.bias"]);
    for (b, a) in before.values().iter().zip(after.values()) {
        assert!((b / a - 1.0).abs() < 1e-3, "{b} {a}");
    }
    let error = |network: &Network| {
        let error = Rounding::default().round(network).unwrap_err();
        error.to_string()
    };
    for bad in [f32::NAN, f32::INFINITY] {
        let error = error(&with("fc1.weight", &|i| if i == 5 { bad } else { 0.1 }));
        assert!(
            error.contains("`fc1.weight`") && error.contains("finite"),
            "{error}"
        );
    }
    let error = error(&with("fc1.weight", &|i| 1e30 + 1e29 * i as f32));
    assert!(error.contains("scale of `fc1.weight`"), "{error}");
}

#[test]
fn a_file_off_any_grid_is_packed_by_rounding() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let conversion = Conversion {
        grid: true,
        ..Conversion::default()
    };
    let written = conversion
        .write(loaded(off_grid()), path("x.spvd"))
        .unwrap();
    let GridRounding::Rounded { error } = written.rounding else {
        panic!("{written}");
    };
    assert!((0.01..0.1).contains(&error), "{written}");
    assert!(
        written.to_string().contains("moved outputs by about"),
        "{written}"
    );
    let packed = read(path("x.spvd")).network;
    let rounded = Rounding::default().round(&off_grid()).unwrap().network;
    assert_eq!(packed.nonzeros(), rounded.nonzeros());
    let again = conversion
        .write(read(path("x.spvd")), path("y.spvd"))
        .unwrap();
    assert_eq!(again.rounding, GridRounding::AllOnGrids);
    assert!(std::fs::read(path("x.spvd")).unwrap() == std::fs::read(path("y.spvd")).unwrap());
    let i8 = Conversion {
        values: ValueType::I8,
        ..conversion
    };
    i8.write(loaded(off_grid()), path("i8.safetensors"))
        .unwrap();
    assert_eq!(
        read(path("i8.safetensors")).network.to_dense().tensors,
        rounded.to_dense().tensors
    );
}
