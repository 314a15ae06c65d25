//! The golden files, as this reader, the writer and another decoder see them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sparsevd_format::{
    GraphSource, Limits, PackOptions, WriteOptions, pack, read_network_bytes, read_packed, unpack,
    write_network, write_packed,
};
use sparsevd_model::{
    Approximate, Graph, GraphBuilder, Int8Grid, Network, Op, Weights, ops, quantised,
};

use crate::networks;
use crate::on_grids::{AS_IT_IS, compact, in_int8, narrow, quantise, residual, with_dead_units};

/// The golden files: packed, and what they decode to as safetensors.
pub fn goldens() -> Vec<(String, Vec<u8>, Vec<u8>)> {
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

fn golden_networks() -> [(&'static str, Network, PackOptions); 12] {
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
        ("lenet-5-int8", in_int8(compact()), PackOptions::small()),
        (
            "residual-int8-large",
            in_int8(residual()),
            PackOptions::large(),
        ),
        ("activations-int8-marked", in_int8(activations()), AS_IT_IS),
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
        let grids: BTreeMap<String, Int8Grid> =
            serde_json::from_value(decoded["grids"].take()).unwrap();
        let inputs = grids.into_iter().map(|(name, grid)| (name, grid.into()));
        assert_eq!(BTreeMap::from_iter(inputs), network.int8.inputs, "{name}");
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
        assert_eq!(bytes[4] & 11 == 3, name.ends_with("-marked"), "{name}");
        let again = unpack(&pack(&network, &options).unwrap(), &Limits::default()).unwrap();
        assert!(again.network == golden, "{name}");
    }
}
