//! The packed form: round trips, sizes, golden and malformed files.
#![allow(clippy::unwrap_used)]

mod golden;
mod malformed;
#[path = "../networks/mod.rs"]
mod networks;
mod on_grids;

use std::time::Instant;

use on_grids::*;
use sparsevd_format::{
    GraphSource, Limits, PackOptions, ValueType, WriteOptions, pack, packed_breakdown,
    read_network, read_network_bytes, read_packed, unpack, write_network_bytes, write_packed,
};
use sparsevd_model::{DType, Dense, GraphBuilder, Input, Network, Op, ops};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor;
use sparsevd_testing::networks::{positions_bound, resnet_50};

#[test]
fn networks_come_back_exactly() {
    let mut stream = Stream(1);
    let mut cases = vec![
        quantise(networks::tiny()),
        residual(),
        with_plain_tensors(),
        of_ids("i32"),
        of_ids("i64"),
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
    for op in [Op::Exp, Op::Max, Op::MatMul] {
        let name = op.name();
        let network = network(Input::new("x", [2, 2]), &|b, x| {
            let inputs = vec![x; *op.operator().inputs().start()];
            b.op("f", op.clone(), &inputs);
        });
        fails(&network, &["node `f`", name]);
    }
    let vectors = network(Input::new("x", [2, 3]), &|b, x| {
        b.linear("l", x, 4);
    });
    fails(&vectors, &["node `l`", "one vector", "[2, 3]"]);
    let mut network = of_ids("i32");
    network.graph.inputs.push(Input {
        dtype: DType::I32,
        ..Input::new("unread", [2])
    });
    fails(&network, &["input `unread`", "numbers the rows of a table"]);
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
