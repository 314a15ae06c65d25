//! The packed form: round trips, sizes, malformed files.
#![allow(clippy::unwrap_used)]

mod networks;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sparsevd_format::{
    GraphSource, Limits, PackOptions, ValueType, WriteOptions, pack, packed_breakdown,
    read_network, read_network_bytes, read_packed, unpack, write_network, write_network_bytes,
    write_packed,
};
use sparsevd_model::{
    Approximate, Dense, Graph, GraphBuilder, Input, Network, Op, Shape, Weights, ops, presets,
    quantised,
};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor;
use sparsevd_testing::networks::{positions_bound, resnet_50};

/// Rounds every tensor to a grid of some 5 bits.
fn quantise(mut network: Network) -> Network {
    let names: Vec<String> = network.tensors.keys().cloned().collect();
    for name in names {
        let most = network.tensors[&name]
            .values()
            .iter()
            .fold(0.0_f32, |m, v| m.max(v.abs()));
        let scale = quantised::nearest_scale((most / 12.0).max(1e-3), 4).unwrap();
        quantise_tensor(&mut network, &name, scale);
    }
    network
}

fn quantise_tensor(network: &mut Network, name: &str, scale: f32) {
    let tensor = network.tensors.get_mut(name).unwrap();
    let mut dense = tensor.to_dense();
    for v in &mut dense.values {
        *v = quantised::value((*v / scale).round() as i32, scale);
    }
    *tensor = match tensor {
        Weights::Csr(_) => Weights::Csr(sparsevd_model::Csr::from_dense(&dense)),
        _ => Weights::Dense(dense),
    };
    network.set_scale(name, scale).unwrap();
}

fn preset(name: &str, seed: u64, density: f64) -> Network {
    let (graph, tensors) = presets::by_name(name).unwrap();
    quantise(networks::fill(graph, &tensors, seed, density, |i| {
        i % 4 != 2
    }))
}

/// LeNet-300-100 compacted to 30 and 20 units.
fn narrow() -> Network {
    let (graph, tensors) = presets::by_name("lenet-300-100").unwrap();
    let shapes = [[30, 784], [30, 0], [20, 30], [20, 0], [10, 20], [10, 0]];
    let shapes = shapes.map(|[rows, cols]| {
        if cols > 0 {
            vec![rows, cols]
        } else {
            vec![rows]
        }
    });
    let names = tensors.iter().map(|(name, _)| name.clone());
    let small: Vec<(String, Shape)> = names.zip(shapes.map(Shape)).collect();
    let mut network = quantise(networks::fill(graph, &small, 9, 0.03, |_| true));
    network.original_shapes.extend(
        tensors
            .into_iter()
            .filter(|(_, shape)| shape.dims().len() > 1),
    );
    network
}

/// A chain two thirds of whose hidden units have no weights and no bias; what reads them is zero, but for one column of each layer.
fn with_dead_units(mut network: Network) -> Network {
    let nodes: Vec<_> = network.graph.weighted_nodes().cloned().collect();
    let matrix = |name: &str| network.tensors[name].shape().matrix();
    let weights: Vec<&str> = nodes.iter().filter_map(|n| n.op.weight()).collect();
    let shapes: Vec<(usize, usize)> = weights.iter().map(|w| matrix(w)).collect();
    let mut change = |name: &str, f: &dyn Fn(usize, usize) -> bool| {
        let tensor = network.tensors.get_mut(name).unwrap();
        let mut dense = tensor.to_dense();
        let cols = match dense.shape.dims().len() {
            1 => 1,
            _ => dense.shape.matrix().1,
        };
        let elements = dense.values.iter_mut().enumerate();
        for (_, v) in elements.filter(|(i, _)| f(i / cols, i % cols)) {
            *v = 0.0;
        }
        *tensor = match tensor {
            Weights::Csr(_) => Weights::Csr(sparsevd_model::Csr::from_dense(&dense)),
            _ => dense.into(),
        };
    };
    for i in 1..nodes.len() {
        change(weights[i - 1], &|row, _| row % 3 != 0);
        change(nodes[i - 1].op.bias().unwrap(), &|row, _| row % 3 != 0);
        let cols = shapes[i].1 / shapes[i - 1].0;
        change(weights[i], &|_, column| {
            !(column / cols).is_multiple_of(3) && column != cols
        });
    }
    network
}

const AS_IT_IS: PackOptions = PackOptions {
    keep_unit_order: true,
    ..PackOptions::small()
};

/// Two convolutions with padding, groups, a residual sum, odd names, a weight used twice and no bias somewhere.
fn residual() -> Network {
    let graph: Graph = serde_json::from_value(serde_json::json!({
        "name": "d\u{e9}j\u{e0} vu",
        "inputs": [{"name": "image", "shape": [3, 6, 5]}, {"name": "unused", "shape": [7]}],
        "nodes": [
            {"name": "stem", "inputs": ["image"], "op": "Conv", "weight": "stem.weight", "bias": "offset",
             "kernel_shape": [3, 2], "strides": [1, 1], "pads": [1, 1, 1, 0], "groups": 1},
            {"name": "a", "inputs": ["stem"], "op": "Conv", "weight": "filters", "kernel_shape": [3, 3],
             "pads": [2, 2, 2, 2], "dilations": [2, 2], "groups": 2},
            {"name": "b", "inputs": ["a"], "op": "Relu"},
            {"name": "c", "inputs": ["b"], "op": "Conv", "weight": "filters", "kernel_shape": [3, 3],
             "pads": [1, 1, 1, 1], "groups": 2},
            {"name": "sum", "inputs": ["c", "stem"], "op": "Add"},
            {"name": "mean", "inputs": ["sum"], "op": "AveragePool", "kernel_shape": [2, 2], "strides": [2, 1]},
            {"name": "all", "inputs": ["mean"], "op": "GlobalAveragePool"},
            {"name": "flat", "inputs": ["all"], "op": "Flatten"},
            {"name": "head", "inputs": ["flat"], "op": "Linear", "weight": "head.weight", "bias": "head.bias"},
            {"name": "classes", "inputs": ["head"], "op": "Softmax"}
        ],
        "outputs": ["classes", "sum"],
        "preprocessing": {"scale": 0.0078125, "mean": [0.5, 0.25, 0.125], "std": [0.25, 0.5, 1.0]}
    }))
    .unwrap();
    let shape = |dims: &[usize]| Shape(dims.to_vec());
    let tensors = [
        ("stem.weight".to_owned(), shape(&[4, 3, 3, 2])),
        ("offset".to_owned(), shape(&[4])),
        ("filters".to_owned(), shape(&[4, 2, 3, 3])),
        ("head.weight".to_owned(), shape(&[10, 4])),
        ("head.bias".to_owned(), shape(&[10])),
    ];
    let mut network = quantise(networks::fill(graph, &tensors, 8, 0.4, |i| i % 2 == 0));
    network
        .original_shapes
        .insert("head.weight".into(), shape(&[10, 9]));
    network
}

/// Layer normalisations of a map and of rows, and slopes of channels, with tensors of odd names, one of them smaller than it was and one used twice.
fn with_plain_tensors() -> Network {
    let graph: Graph = serde_json::from_value(serde_json::json!({
        "name": "normalised",
        "inputs": [{"name": "x", "shape": [2, 3, 4]}],
        "nodes": [
            {"name": "n1", "inputs": ["x"], "op": "LayerNormalization", "scale": "n1.weight", "bias": "n1.bias", "dimensions": 3,
             "epsilon": 1e-5},
            {"name": "n2", "inputs": ["n1"], "op": "LayerNormalization", "scale": "factors", "dimensions": 1, "epsilon": 0.5},
            {"name": "n3", "inputs": ["n2"], "op": "LayerNormalization", "scale": "factors", "bias": "summands",
             "dimensions": 1, "epsilon": 0.5},
            {"name": "p", "inputs": ["n3"], "op": "PRelu", "slope": "slopes"},
            {"name": "flat", "inputs": ["p"], "op": "Flatten"},
            {"name": "head", "inputs": ["flat"], "op": "Linear", "weight": "head.weight", "bias": "head.bias"}
        ],
        "outputs": ["head"]
    }))
    .unwrap();
    let plain = ["slopes", "n1.weight", "n1.bias", "factors", "summands"];
    let shapes: [&[usize]; 7] = [
        &[2, 1, 1],
        &[2, 3, 4],
        &[2, 3, 4],
        &[4],
        &[4],
        &[4, 24],
        &[4],
    ];
    let names = plain.into_iter().chain(["head.weight", "head.bias"]);
    let tensors: Vec<(String, Shape)> = names
        .zip(shapes)
        .map(|(name, dims)| (name.to_owned(), Shape(dims.to_vec())))
        .collect();
    let mut network = networks::fill(graph, &tensors, 9, 1.0, |_| false);
    for name in ["head.weight", "head.bias"] {
        quantise_tensor(&mut network, name, 0.125);
    }
    network
        .original_shapes
        .insert("summands".into(), Shape::from([9]));
    network
}

/// LeNet-5 as it is after compaction, with large numbers, an untouched grid and zeros.
fn compact() -> Network {
    let (graph, tensors) = presets::by_name("lenet-5").unwrap();
    let rows = |name: &str| match &name[..4] {
        "conv" => {
            if name.starts_with("conv1") {
                7
            } else {
                11
            }
        }
        _ => {
            if name.starts_with("fc1") {
                23
            } else {
                10
            }
        }
    };
    let mut before = 1;
    let mut small = Vec::new();
    for (name, shape) in &tensors {
        let mut dims = shape.dims().to_vec();
        dims[0] = rows(name);
        match dims.len() {
            4 => dims[1] = before,
            2 if name.starts_with("fc1") => dims[1] = before * 16,
            2 => dims[1] = before,
            _ => before = dims[0],
        }
        small.push((name.clone(), Shape(dims)));
    }
    let mut network = networks::fill(graph, &small, 11, 0.1, |_| true);
    for (i, (name, shape)) in tensors.into_iter().enumerate() {
        let scale =
            quantised::nearest_scale([0.3, 1e-4, 0.002, 0.011][i % 4], [1, 4, 8, 16][i / 2])
                .unwrap();
        quantise_tensor(&mut network, &name, scale);
        if shape.dims().len() > 1 {
            network.original_shapes.insert(name, shape);
        }
    }
    network.original_shapes.remove("conv1.weight");
    let original = Shape::from([20, 1, 5, 5]);
    network
        .original_shapes
        .insert("conv1.weight".into(), original);
    network
}

#[test]
fn networks_come_back_exactly() {
    let mut stream = Stream(1);
    let mut cases = vec![
        quantise(networks::tiny()),
        residual(),
        with_plain_tensors(),
        compact(),
    ];
    for name in ["lenet-300-100", "lenet-5"] {
        for density in [0.0, 0.003, 0.05] {
            cases.push(preset(name, stream.bits(), density));
        }
    }
    for network in cases {
        for options in [AS_IT_IS, PackOptions::large()] {
            let bytes = pack(&network, &options).unwrap();
            let back = unpack(&bytes, &Limits::default()).unwrap();
            assert_eq!(back.network, network, "{}", network.graph.name);
            assert_eq!(pack(&back.network, &options).unwrap(), bytes);
            let parts = packed_breakdown(&bytes).unwrap();
            let sum = parts.header + parts.liveness + parts.positions + parts.values + parts.biases;
            assert_eq!(
                sum,
                8 * bytes.len() as u64,
                "{}: {parts:?}",
                network.graph.name
            );
        }
    }
}

#[test]
fn the_container_of_a_lenet_takes_less_than_forty_bytes() {
    for network in [compact(), preset("lenet-300-100", 2, 0.003)] {
        let bytes = pack(&network, &PackOptions::small()).unwrap();
        let header = packed_breakdown(&bytes).unwrap().header;
        assert!(header < 8 * 40, "{}: {header} bits", network.graph.name);
    }
}

#[test]
fn sorting_hidden_units_saves_bytes_and_keeps_the_function() {
    let image = Stream(3).floats(784);
    for network in [
        compact(),
        preset("lenet-300-100", 6, 0.03),
        preset("lenet-5", 7, 0.02),
    ] {
        let sorted = pack(&network, &PackOptions::small()).unwrap();
        assert!(sorted.len() < pack(&network, &AS_IT_IS).unwrap().len());
        let back = unpack(&sorted, &Limits::default()).unwrap().network;
        assert_ne!(back, network);
        assert_eq!(
            pack(&back, &PackOptions::small()).unwrap(),
            sorted,
            "sorting is done once"
        );
        let (expected, got) = (
            executor::run(&network, &image),
            executor::run(&back, &image),
        );
        assert_sums_close(&got, &expected, 1e-5, &network.graph.name);
    }
    // Where the order is not free, nothing moves.
    let bytes = pack(&residual(), &PackOptions::small()).unwrap();
    assert_eq!(
        unpack(&bytes, &Limits::default()).unwrap().network,
        residual()
    );
}

#[test]
fn units_without_weights_cost_little_in_any_order() {
    for network in [
        with_dead_units(preset("lenet-300-100", 6, 0.03)),
        with_dead_units(preset("lenet-5", 7, 0.02)),
    ] {
        let packed = |options| pack(&network, &options).unwrap();
        let (sorted, kept) = (packed(PackOptions::small()), packed(AS_IT_IS));
        assert_eq!(kept[4], 1 << 4 | 3, "the profile with marked units");
        let back = unpack(&kept, &Limits::default()).unwrap().network;
        assert_eq!(back, network);
        let [sorted, kept] = [sorted, kept].map(|bytes| packed_breakdown(&bytes).unwrap());
        assert!(
            kept.positions as f64 <= 1.02 * sorted.positions as f64,
            "{}: {kept:?}, {sorted:?}",
            network.graph.name
        );
    }
    // Where no unit is without weights, marks are left out.
    assert_eq!(pack(&compact(), &AS_IT_IS).unwrap()[4], 1 << 4 | 1);
}

#[test]
fn every_reader_takes_a_packed_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.spvd");
    let network = compact();
    let bytes = write_packed(&path, &network, &AS_IT_IS).unwrap();
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    assert_eq!(read_packed(&path).unwrap().network, network);
    assert_eq!(
        read_network(&path, &GraphSource::Auto).unwrap().network,
        network
    );
    let named = GraphSource::Named("lenet-5".into());
    let error = read_network(&path, &named).unwrap_err().to_string();
    assert!(
        error.contains("net.spvd") && error.contains("has its own"),
        "{error}"
    );
}

#[test]
fn the_interchange_form_keeps_grids() {
    let network = compact();
    for (values, lossless) in [(ValueType::F32, true), (ValueType::F16, false)] {
        let options = WriteOptions {
            values,
            ..WriteOptions::default()
        };
        let bytes = write_network_bytes(&network, &options).unwrap();
        let back = read_network_bytes("net.safetensors", &bytes, &GraphSource::Auto)
            .unwrap()
            .network;
        assert_eq!(back == network, lossless, "{values:?}");
        // A tensor has its scale where nothing of it was rounded.
        for (name, scale) in &network.scales {
            let kept = back.tensors[name] == network.tensors[name];
            assert_eq!(
                back.scales.get(name),
                kept.then_some(scale),
                "{values:?}: {name}"
            );
        }
    }
    let small = quantise(networks::tiny());
    let options = WriteOptions {
        values: ValueType::I8,
        ..WriteOptions::default()
    };
    let bytes = write_network_bytes(&small, &options).unwrap();
    assert_eq!(
        read_network_bytes("net.safetensors", &bytes, &GraphSource::Auto)
            .unwrap()
            .network,
        small
    );
    // Integers beyond 127, and no grid at all.
    let error = write_network_bytes(&network, &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("127 times the scale"), "{error}");
    let error = write_network_bytes(&networks::tiny(), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("fc1.weight") && error.contains("a scale"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_packed_is_said() {
    let fails = |network: &Network, parts: &[&str]| {
        let error = pack(network, &PackOptions::small())
            .unwrap_err()
            .to_string();
        assert!(parts.iter().all(|p| error.contains(p)), "{error}");
    };
    fails(&networks::tiny(), &["fc1.bias", "quantise"]);
    let mut network = quantise(networks::tiny());
    network.scales.insert("fc1.bias".into(), 0.1);
    fails(&network, &["fc1.bias", "scale", "0.1"]);
    network.scales.insert("fc1.bias".into(), 0.75);
    fails(&network, &["fc1.bias", "0.75", "element"]);
    let mut network = quantise(networks::tiny());
    network
        .tensors
        .insert("ghost".into(), network.tensors["fc1.bias"].clone());
    network
        .scales
        .insert("ghost".into(), network.scales["fc1.bias"]);
    fails(&network, &["ghost", "use"]);
    let mut network = quantise(networks::tiny());
    network.graph.nodes[1].op = Op::BatchNormalization(ops::BatchNormalization {
        scale: "fc1.bias".into(),
        bias: "fc1.bias".into(),
        mean: "fc1.bias".into(),
        variance: "fc1.bias".into(),
        epsilon: 1e-5,
    });
    fails(&network, &["`relu1`", "folded into the layer before it"]);
    let mut network = with_plain_tensors();
    network.scales.insert("factors".into(), 0.125);
    fails(&network, &["factors", "grid", "a scale"]);
    let mut network = with_plain_tensors();
    if let Op::LayerNormalization(norm) = &mut network.graph.nodes[1].op {
        norm.scale = "head.bias".into();
    }
    fails(&network, &["head.bias", "a scale"]);

    let network = |input: Input, op: &dyn Fn(&mut GraphBuilder, &str)| {
        let mut b = GraphBuilder::new("typed");
        let x = b.free_input(input);
        op(&mut b, &x);
        b.network(|_, shape| Dense::zeros(shape.clone()).into())
            .unwrap()
    };
    let free = network(Input::with_free("x", [0, 3], 0, "length"), &|b, x| {
        b.op("relu", Op::Relu, &[x]);
    });
    fails(&free, &["input `x`", "[length, 3]"]);
    let softmax = network(Input::new("x", [2, 3]), &|b, x| {
        b.op("p", Op::Softmax(ops::Softmax { axis: 1 }), &[x]);
    });
    fails(&softmax, &["node `p`", "axis 0"]);
    let vectors = network(Input::new("x", [2, 3]), &|b, x| {
        b.linear("l", x, 4);
    });
    fails(&vectors, &["node `l`", "one vector", "[2, 3]"]);
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let network = compact();
    for options in [PackOptions::small(), PackOptions::large()] {
        let bytes = pack(&network, &options).unwrap();
        let all = Limits::default();
        for (limits, part) in [
            (
                Limits {
                    elements: 100,
                    ..all.clone()
                },
                "elements",
            ),
            (
                Limits {
                    nonzeros: 100,
                    ..all.clone()
                },
                "non-zeros",
            ),
            (
                Limits {
                    dense_elements: 30,
                    ..all.clone()
                },
                "dense tensors",
            ),
        ] {
            let error = unpack(&bytes, &limits).unwrap_err().to_string();
            assert!(error.contains("limit") && error.contains(part), "{error}");
        }
    }
    let bytes = pack(&network, &PackOptions::small()).unwrap();
    let error = unpack(
        &bytes,
        &Limits {
            small_cells: 1000,
            ..Limits::default()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("small profile"), "{error}");
    let bytes = pack(&residual(), &PackOptions::small()).unwrap();
    let error = unpack(
        &bytes,
        &Limits {
            nodes: 9,
            ..Limits::default()
        },
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("nodes"), "{error}");
}

/// The golden files: packed, and what they decode to as safetensors.
fn goldens() -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut files = Vec::new();
    for (name, _, _) in golden_networks() {
        let read = |kind: &str| std::fs::read(golden_path(&format!("{name}.{kind}"))).unwrap();
        files.push((name.to_owned(), read("spvd"), read("safetensors")));
    }
    files
}

fn golden_path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/packed/v1")
        .join(file)
}

/// A linear layer with dead units before every activation.
fn activations() -> Network {
    let mut b = GraphBuilder::new("activations");
    let (alpha, beta) = (0.25, 0.4);
    let clip = |min, max| Op::Clip(ops::Clip { min, max });
    let gelu = |approximate| Op::Gelu(ops::Gelu { approximate });
    let between = [
        Op::LeakyRelu(ops::LeakyRelu { alpha }),
        clip(None, Some(6.0)),
        clip(Some(-1.0), None),
        Op::Sigmoid,
        Op::HardSigmoid(ops::HardSigmoid { alpha, beta }),
        Op::HardSwish,
        Op::Tanh,
        gelu(Approximate::None),
        gelu(Approximate::Tanh),
        Op::Relu,
    ];
    let x = b.input("input", [14]);
    let mut x = b.linear("fc0", &x, 12);
    for (i, op) in between.into_iter().enumerate() {
        let y = b.op(format!("act{i}"), op, &[&x]);
        x = b.linear(format!("fc{}", i + 1), &y, 12);
    }
    b.output(&x);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    with_dead_units(quantise(networks::fill(graph, &tensors, 7, 0.4, |_| true)))
}

fn golden_networks() -> [(&'static str, Network, PackOptions); 9] {
    [
        ("lenet-5-small", compact(), PackOptions::small()),
        ("lenet-5-large", compact(), PackOptions::large()),
        ("lenet-300-100-small", narrow(), PackOptions::small()),
        ("residual-small", residual(), PackOptions::small()),
        ("residual-large", residual(), PackOptions::large()),
        ("tiny-small", quantise(networks::tiny()), AS_IT_IS),
        ("lenet-5-marked", with_dead_units(compact()), AS_IT_IS),
        ("lenet-300-100-marked", with_dead_units(narrow()), AS_IT_IS),
        ("activations-marked", activations(), AS_IT_IS),
    ]
}

#[test]
fn golden_files_are_read_as_ever() {
    for (name, packed, expected) in goldens() {
        let expected =
            read_network_bytes(golden_path(&name), &expected, &GraphSource::Auto).unwrap();
        let got = unpack(&packed, &Limits::default()).unwrap();
        assert_eq!(got.network, expected.network, "{name}");
    }
}

/// The decoder that was written from docs/format.md alone.
#[test]
fn another_decoder_reads_the_golden_files() {
    for (name, packed, _) in goldens() {
        let network = unpack(&packed, &Limits::default()).unwrap().network;
        let output = Command::new("python3")
            .arg(golden_path("../decode.py"))
            .arg(golden_path(&format!("{name}.spvd")))
            .output();
        let output = output.expect("the test needs python3");
        assert!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut decoded: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let graph: Graph = serde_json::from_value(decoded["graph"].take()).unwrap();
        assert_eq!(graph, network.graph, "{name}");
        assert_eq!(
            decoded["tensors"].as_object().unwrap().len(),
            network.tensors.len(),
            "{name}"
        );
        for (tensor, weights) in &network.tensors {
            let got = &decoded["tensors"][tensor];
            let scale = network.scales[tensor];
            assert_eq!(
                got["step"].as_f64().map(|s| s as f32),
                Some(scale),
                "{name}: {tensor}"
            );
            let mut expected = serde_json::json!({
                "shape": weights.shape(), "original": network.original_shape(tensor), "step": got["step"],
                "csr": matches!(weights, Weights::Csr(_)), "counts": null,
            });
            let dense = weights.to_dense();
            let levels = quantised::grid(&dense.values, scale).unwrap();
            expected["levels"] = serde_json::json!(levels);
            if weights.shape().dims().len() > 1 {
                let cols = weights.shape().matrix().1;
                let nonzero = |(_, l): &(usize, &i32)| **l != 0;
                let rows = levels.chunks(cols.max(1));
                let count = rows.map(|row| row.iter().enumerate().filter(nonzero).count());
                expected["counts"] = serde_json::json!(count.collect::<Vec<_>>());
                let place = |(i, l): (usize, &i32)| serde_json::json!([i % cols, l]);
                let levels = levels.iter().enumerate().filter(nonzero).map(place);
                expected["levels"] = levels.collect();
            }
            assert_eq!(got, &expected, "{name}: {tensor}");
        }
    }
}

/// The golden files were made from these networks by this test with `SPARSEVD_WRITE_GOLDENS` set, which writes those that
/// are absent and never one that is there.
#[test]
fn golden_networks_pack_to_what_the_golden_files_hold() {
    for (name, network, options) in golden_networks() {
        let [packed, plain] =
            ["spvd", "safetensors"].map(|end| golden_path(&format!("{name}.{end}")));
        if std::env::var_os("SPARSEVD_WRITE_GOLDENS").is_some() && !packed.exists() {
            write_packed(&packed, &network, &options).unwrap();
            let decoded = read_packed(&packed).unwrap().network;
            write_network(plain, &decoded, &WriteOptions::default()).unwrap();
        }
        let golden = read_packed(&packed).unwrap().network;
        let bytes = std::fs::read(&packed).unwrap();
        assert_eq!(bytes[4] & 15 == 3, name.ends_with("-marked"), "{name}");
        let again = unpack(&pack(&network, &options).unwrap(), &Limits::default()).unwrap();
        assert!(again.network == golden, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A damaged file gives an error or a network, in little time, and within the limits.
    #[test]
    fn damaged_files_are_errors(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let goldens = goldens();
        let (name, mut bytes, _) = file.get(&goldens).clone();
        let original = bytes.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        let limits = Limits { small_cells: 1 << 20, elements: 1 << 20, dense_elements: 1 << 20, nonzeros: 1 << 20, ..Limits::default() };
        let start = Instant::now();
        let result = unpack(&bytes, &limits);
        prop_assert!(start.elapsed() < Duration::from_secs(5), "{name}: {:?}", start.elapsed());
        if bytes != original {
            // A 16-bit checksum misses one change in 65,536: the network is then still valid.
            if let Ok(read) = result {
                prop_assert!(pack(&read.network, &AS_IT_IS).is_ok(), "{name}");
            }
        }
    }

    /// Random bytes behind a right beginning.
    #[test]
    fn random_streams_are_errors(kind in 1..=3_u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut file = b"SPVD".to_vec();
        file.push(1 << 4 | kind);
        file.extend(bytes);
        let limits = Limits { small_cells: 1 << 20, elements: 1 << 20, dense_elements: 1 << 20, nonzeros: 1 << 20, ..Limits::default() };
        if let Ok(read) = unpack(&file, &limits) {
            prop_assert!(pack(&read.network, &AS_IT_IS).is_ok());
        }
    }
}

#[test]
fn other_files_and_versions_are_named() {
    let packed = pack(&compact(), &PackOptions::small()).unwrap();
    let fails = |bytes: &[u8], parts: &[&str]| {
        let error = unpack(bytes, &Limits::default())
            .err()
            .map(|e| e.to_string());
        let error =
            error.unwrap_or_else(|| format!("{} bytes of {} are read", bytes.len(), packed.len()));
        assert!(
            parts.iter().all(|p| error.contains(p)) && !error.contains("are read"),
            "{error}"
        );
    };
    fails(b"SPV", &["5 bytes", "got 3"]);
    fails(b"spvd\x11abc", &["magic"]);
    fails(
        &[&b"SPVD\x21"[..], &packed[5..]].concat(),
        &[
            "version of the packed format",
            "expected 1",
            "newest",
            "got 2",
        ],
    );
    fails(
        &[&b"SPVD\x14"[..], &packed[5..]].concat(),
        &["profile", "got 4"],
    );
    fails(&packed[..packed.len() - 1], &[]);
    // A reader looks up to four bytes ahead; what it has not looked at is too much.
    fails(&[&packed[..], &[7; 5]].concat(), &["stream", "bytes more"]);
    for end in 0..packed.len() {
        fails(&packed[..end], &[]);
    }
}

/// `cargo test --release -p sparsevd-format --test packed -- --nocapture resnet` prints the figures.
#[test]
fn resnet_50_is_within_three_thousandths_of_the_bound() {
    let network = resnet_50(0.1, 50);
    let bytes = pack(&network, &PackOptions::large()).unwrap();
    let mut fastest = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        let back = unpack(&bytes, &Limits::default()).unwrap().network;
        fastest = fastest.min(start.elapsed().as_secs_f64());
        assert!(back == network);
    }
    let breakdown = packed_breakdown(&bytes).unwrap();
    let bound = positions_bound(&network);
    println!(
        "{} weights, {} non-zeros: {} bytes, decoded in {fastest:.3} s; positions {:.0} of {bound:.0} bits (+{:.2} %); {breakdown:?}",
        network.original_weights(),
        network.nonzeros(),
        bytes.len(),
        breakdown.positions,
        100.0 * (breakdown.positions as f64 / bound - 1.0),
    );
    assert!(
        bytes.len() <= 2_470_000 && (breakdown.positions as f64) < 1.003 * bound && fastest < 1.0
    );
}
