//! Files that other programs wrote: their names, their forms, their shards, and what is no network at all.
#![allow(clippy::unwrap_used)]

mod networks;

use std::fs;
use std::path::Path;

use networks::{Pieces, fill};
use serde_json::json;
use sparsevd_format::*;
use sparsevd_model::{Graph, Input, Network, Node, Op, Shape, ops, presets};

/// A safetensors file of 32-bit floats.
fn file(tensors: &[(&str, &[usize], &[f32])]) -> Pieces {
    let mut pieces = Pieces {
        header: json!({}),
        data: vec![],
    };
    for (name, shape, values) in tensors {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        pieces.replace(name, "F32", shape, &bytes);
    }
    pieces
}

/// Layers `first`, ReLU, `last` over four numbers, whose weights are `first.weight` and so on.
fn two_layers(first: &str, last: &str) -> Graph {
    let linear = |name: &str, input: &str, tensors: &str| Node {
        name: name.into(),
        inputs: vec![input.into()],
        op: Op::Linear(ops::Linear {
            weight: format!("{tensors}.weight"),
            bias: Some(format!("{tensors}.bias")),
        }),
    };
    Graph {
        name: "two".into(),
        inputs: vec![Input::new("input", Shape::from([3]))],
        nodes: vec![
            linear("a", "input", first),
            Node {
                name: "r".into(),
                inputs: vec!["a".into()],
                op: Op::Relu,
            },
            linear("b", "r", last),
        ],
        outputs: vec!["b".into()],
        preprocessing: None,
    }
}

const W1: [f32; 6] = [1.0, -2.0, 3.0, 4.0, 5.0, -6.0];
const B1: [f32; 2] = [0.5, -0.5];
const W2: [f32; 4] = [7.0, -8.0, 9.0, 10.0];
const B2: [f32; 2] = [1.5, 2.5];

/// Weights and biases of two layers under a prefix each.
fn two(first: &str, last: &str) -> Pieces {
    let name = |layer: &str, kind: &str| format!("{layer}.{kind}");
    file(&[
        (&name(first, "weight"), &[2, 3], &W1),
        (&name(first, "bias"), &[2], &B1),
        (&name(last, "weight"), &[2, 2], &W2),
        (&name(last, "bias"), &[2], &B2),
    ])
}

fn read(bytes: &[u8]) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/net.safetensors", bytes, &GraphSource::Auto)
}

/// Reads a file with a graph that is named on the command line.
fn read_with(pieces: &Pieces, graph: &str) -> Result<LoadedNetwork, FormatError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.json");
    fs::write(&path, graph).unwrap();
    let source = GraphSource::Named(path.to_str().unwrap().into());
    read_network_bytes("dir/net.safetensors", &pieces.join(), &source)
}

fn json_of(graph: &Graph) -> String {
    serde_json::to_string(graph).unwrap()
}

fn values(network: &Network, tensor: &str) -> Vec<f32> {
    network.tensors[tensor].to_dense().values
}

#[test]
fn a_misspelt_name_in_a_graph_is_an_error_that_names_it() {
    // `decoder` is before `encoder` by name, and their weights have one shape: bound by order they would change places.
    let square: Vec<f32> = (0..4).map(|i| i as f32).collect();
    let autoencoder = file(&[
        ("encoder.weight", &[2, 2], &square),
        ("encoder.bias", &[2], &B1),
        ("decoder.weight", &[2, 2], &W2),
        ("decoder.bias", &[2], &B2),
    ]);
    let mut graph = two_layers("encoder", "decoder");
    graph.inputs[0].shape = Shape::from([2]);
    let right = read_with(&autoencoder, &json_of(&graph)).unwrap();
    assert_eq!(right.network.graph, graph);
    assert_eq!(right.warnings, [""; 0]);
    let wrong = json_of(&graph).replace("decoder.bias", "decoder.bais");
    let error = read_with(&autoencoder, &wrong).unwrap_err().to_string();
    assert!(
        error.contains(
            "node `b` names the tensor `decoder.bais`, which the file does not have (the most similar name is `decoder.bias`)"
        ),
        "{error}"
    );
    // The same beside the file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    fs::write(&path, autoencoder.join()).unwrap();
    fs::write(folder.path().join("network.json"), &wrong).unwrap();
    let error = read_network(&path, &GraphSource::Auto).unwrap_err();
    assert!(error.to_string().contains("`decoder.bais`"), "{error}");
}

#[test]
fn unknown_fields_of_a_graph_are_errors() {
    let graph = serde_json::to_value(two_layers("a", "b")).unwrap();
    let pieces = two("a", "b");
    assert!(read_with(&pieces, &graph.to_string()).is_ok());
    let cases: [(&str, &[&str]); 4] = [
        (
            "/nodes/1",
            &["node `r` (Relu): unknown field `eps`, expected only name, inputs, op"],
        ),
        (
            "/nodes/0",
            &[
                "node `a` (Linear)",
                "`eps`",
                "name, inputs, op, weight, bias",
            ],
        ),
        ("/inputs/0", &["`eps`", "name", "shape"]),
        ("", &["`eps`", "inputs, nodes, outputs, preprocessing"]),
    ];
    for (place, words) in cases {
        let mut changed = graph.clone();
        changed.pointer_mut(place).unwrap()["eps"] = json!(0.5);
        let error = read_with(&pieces, &changed.to_string())
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{place}: {word}: {error}");
        }
    }
    let mut changed = graph;
    changed["preprocessing"] = json!({"scale": 1.0, "divide": 255});
    let error = read_with(&pieces, &changed.to_string()).unwrap_err();
    assert!(error.to_string().contains("`divide`"), "{error}");
}

#[test]
fn prefixes_of_wrappers_are_stripped_and_said() {
    let graph = json_of(&two_layers("fc1", "fc2"));
    for (first, last, prefixes) in [
        ("module.fc1", "module.fc2", "`module.`"),
        ("_orig_mod.fc1", "_orig_mod.fc2", "`_orig_mod.`"),
        ("fc1._orig_mod", "fc2._orig_mod", "`_orig_mod.`"),
        (
            "module._orig_mod.module.fc1",
            "module._orig_mod.module.fc2",
            "`_orig_mod.` and `module.`",
        ),
    ] {
        let pieces = two(first, last);
        let loaded = read_with(&pieces, &graph).unwrap();
        assert_eq!(values(&loaded.network, "fc1.weight"), W1);
        assert_eq!(values(&loaded.network, "fc2.bias"), B2);
        let said = format!("{prefixes} was stripped from the names of the tensors");
        assert_eq!(loaded.warnings, std::slice::from_ref(&said));
        // A chain has the plain names too.
        let loaded = read(&pieces.join()).unwrap();
        assert_eq!(values(&loaded.network, "fc2.weight"), W2);
        assert!(loaded.warnings.contains(&said), "{:?}", loaded.warnings);
    }
    // A graph may use the names of the file, and a module may be called so.
    let exact = json_of(&two_layers("module.fc1", "module.fc2"));
    let loaded = read_with(&two("module.fc1", "module.fc2"), &exact).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(values(&loaded.network, "module.fc1.weight"), W1);
    let error = read_with(&two("module.fc1", "fc2"), &graph).unwrap_err();
    assert!(error.to_string().contains("`fc1.weight`"), "{error}");
}

#[test]
fn pruned_weights_are_multiplied_by_their_masks() {
    let mut pieces = file(&[
        ("0.weight_orig", &[2, 3], &W1),
        ("0.weight_mask", &[2, 3], &[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]),
        ("0.bias_orig", &[2], &B1),
        ("2.weight", &[2, 2], &W2),
        ("2.bias", &[2], &B2),
    ]);
    pieces.replace("0.bias_mask", "BOOL", &[2], &[0, 1]);
    let masked = [1.0, 0.0, 3.0, 0.0, 0.0, -6.0];
    for loaded in [
        read(&pieces.join()).unwrap(),
        read_with(&pieces, &json_of(&two_layers("0", "2"))).unwrap(),
    ] {
        assert_eq!(values(&loaded.network, "0.weight"), masked);
        assert_eq!(values(&loaded.network, "0.bias"), [0.0, -0.5]);
        assert_eq!(values(&loaded.network, "2.weight"), W2);
        assert!(
            loaded.warnings[0].contains("multiplied by its mask")
                && loaded.warnings[0].ends_with(": 0.bias, 0.weight"),
            "{:?}",
            loaded.warnings
        );
    }
    pieces.replace("0.weight_mask", "F32", &[3, 2], &[0; 24]);
    let error = read(&pieces.join()).unwrap_err().to_string();
    assert!(
        error.contains("`0.weight_mask`") && error.contains("[2, 3]") && error.contains("[3, 2]"),
        "{error}"
    );
    // Half of a pair is no weight.
    pieces.remove("0.weight_mask");
    assert!(read(&pieces.join()).is_err());
}

#[test]
fn normed_weights_are_made_of_lengths_and_directions() {
    // Rows of length 5 and 13, made 10 and 1 long.
    let v = [3.0, 0.0, 4.0, 5.0, 12.0, 0.0];
    let weight = [6.0, 0.0, 8.0, 5.0 / 13.0, 12.0 / 13.0, 0.0];
    for (g_name, v_name) in [
        ("0.weight_g", "0.weight_v"),
        (
            "0.parametrizations.weight.original0",
            "0.parametrizations.weight.original1",
        ),
    ] {
        let mut pieces = file(&[
            (g_name, &[2, 1], &[10.0, 1.0]),
            (v_name, &[2, 3], &v),
            ("0.bias", &[2], &B1),
            ("2.weight", &[2, 2], &W2),
            ("2.bias", &[2], &B2),
        ]);
        let loaded = read(&pieces.join()).unwrap();
        assert_eq!(values(&loaded.network, "0.weight"), weight);
        assert!(
            loaded.warnings[0].contains("weight_norm")
                && loaded.warnings[0].ends_with(": 0.weight"),
            "{:?}",
            loaded.warnings
        );
        pieces.set(v_name, 0, &[0; 12]);
        let error = read(&pieces.join()).unwrap_err().to_string();
        assert!(
            error.contains(v_name) && error.contains("slice 0"),
            "{error}"
        );
        pieces.replace(g_name, "F32", &[3, 1], &[0; 12]);
        let error = read(&pieces.join()).unwrap_err().to_string();
        assert!(
            error.contains(g_name) && error.contains("[3, 1]"),
            "{error}"
        );
    }
    // One length along the second dimension, and one for all.
    for (shape, lengths, weight) in [
        (
            &[1, 3][..],
            &[5.0, 2.0, 1.0][..],
            [3.0, 0.0, 1.0, 4.0, 2.0, 0.0],
        ),
        (
            &[],
            &[26.0],
            [6.0, 0.0, 8.0, 8.0, 4.0, 0.0].map(|v: f32| v * 26.0 / 180_f32.sqrt()),
        ),
    ] {
        let v = if shape.is_empty() {
            [6.0, 0.0, 8.0, 8.0, 4.0, 0.0]
        } else {
            [3.0, 0.0, 7.0, 4.0, 9.0, 0.0]
        };
        let pieces = file(&[("0.weight_g", shape, lengths), ("0.weight_v", &[2, 3], &v)]);
        let loaded = read(&pieces.join()).unwrap();
        let got = values(&loaded.network, "0.weight");
        let near = got.iter().zip(weight).all(|(g, w)| (g - w).abs() <= 1e-5);
        assert!(near, "{shape:?}: {got:?} for {weight:?}");
    }
}

#[test]
fn counters_and_empty_tensors_beside_a_chain_are_ignored() {
    let mut pieces = two("0", "2");
    pieces.replace("step", "I64", &[], &7_i64.to_le_bytes());
    pieces.replace("1.num_batches_tracked", "I64", &[1], &[0; 8]);
    pieces.replace("nothing", "F32", &[0, 5], &[]);
    let loaded = read(&pieces.join()).unwrap();
    assert_eq!(values(&loaded.network, "0.weight"), W1);
    assert_eq!(values(&loaded.network, "2.weight"), W2);
    assert!(
        loaded.warnings[0].ends_with("were ignored: 1.num_batches_tracked, nothing, step"),
        "{:?}",
        loaded.warnings
    );
    // A number that is none of these may change what the network computes.
    pieces.replace("temperature", "F32", &[], &[0; 4]);
    let error = read(&pieces.join()).unwrap_err().to_string();
    assert!(
        error.contains("`temperature` is neither a matrix nor a bias"),
        "{error}"
    );
}

#[test]
fn tied_weights_are_in_the_file_once() {
    let mut pieces = file(&[("encoder.weight", &[2, 2], &W2)]);
    pieces.header["__metadata__"] =
        json!({"format": "pt", "decoder.weight": "encoder.weight", "gone.weight": "nowhere"});
    let mut graph = two_layers("encoder", "decoder");
    graph.inputs[0].shape = Shape::from([2]);
    for node in [0, 2] {
        let weight = graph.nodes[node].op.weight().unwrap().to_owned();
        graph.nodes[node].op.rename_tensors(weight, None);
    }
    let loaded = read_with(&pieces, &json_of(&graph)).unwrap();
    for weight in ["encoder.weight", "decoder.weight"] {
        assert_eq!(values(&loaded.network, weight), W2);
    }
    assert!(
        loaded.warnings[0].contains("decoder.weight to encoder.weight"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn features_and_classifier_are_in_the_order_of_the_graph() {
    let (graph, expected) = presets::by_name("lenet-5").unwrap();
    let network = fill(graph, &expected, 3, 0.5, |_| false);
    let theirs = ["features.0", "features.3", "classifier.0", "classifier.2"];
    let bytes: Vec<(String, Vec<usize>, Vec<f32>)> = (expected.iter().enumerate())
        .map(|(i, (name, shape))| {
            let kind = name.rsplit('.').next().unwrap();
            let name_there = format!("{}.{kind}", theirs[i / 2]);
            (name_there, shape.dims().to_vec(), values(&network, name))
        })
        .collect();
    let tensors: Vec<(&str, &[usize], &[f32])> = (bytes.iter())
        .map(|(n, s, v)| (n.as_str(), s.as_slice(), v.as_slice()))
        .collect();
    let source = GraphSource::Named("lenet-5".into());
    let loaded = read_network_bytes("x", &file(&tensors).join(), &source).unwrap();
    let ours: Vec<Vec<f32>> = (network.graph.weighted_nodes())
        .map(|n| network.weight(n).unwrap().values().to_vec())
        .collect();
    let read: Vec<Vec<f32>> = (loaded.network.graph.weighted_nodes())
        .map(|n| loaded.network.weight(n).unwrap().values().to_vec())
        .collect();
    assert_eq!(ours, read);
    assert!(
        loaded.warnings[0].contains(
            "features.0.weight to conv1, features.3.weight to conv2, classifier.0.weight to fc1"
        ),
        "{:?}",
        loaded.warnings
    );
}

/// A graph beside two shards of a network, with an index.
fn shards(folder: &Path) {
    let pieces = two("a", "b");
    let (mut first, mut second) = (pieces.clone(), pieces);
    first.remove("b.weight").remove("b.bias");
    second.remove("a.weight").remove("a.bias");
    for (i, shard) in [first, second].iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", i + 1);
        fs::write(folder.join(name), shard.join()).unwrap();
    }
    let name = |i: u32| format!("model-0000{i}-of-00002.safetensors");
    let index = json!({"metadata": {"total_size": 56}, "weight_map": {
        "a.weight": name(1), "a.bias": name(1), "b.weight": name(2), "b.bias": name(2)
    }});
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
}

#[test]
fn shards_are_read_by_their_index_or_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    shards(folder.path());
    let graph = two_layers("a", "b");
    fs::write(at("network.json"), json_of(&graph)).unwrap();
    let whole = |path: &Path| {
        let loaded = read_network(path, &GraphSource::Auto).unwrap();
        assert_eq!(loaded.network.graph, graph);
        assert_eq!(values(&loaded.network, "a.weight"), W1);
        assert_eq!(values(&loaded.network, "b.bias"), B2);
    };
    let index = at("model.safetensors.index.json");
    whole(&index);
    whole(folder.path());
    // The name of the index does not matter, nor does one need to be there.
    let text = fs::read_to_string(&index).unwrap();
    fs::rename(&index, at("other.txt")).unwrap();
    whole(&at("other.txt"));
    whole(folder.path());

    let error = |path: &Path| {
        let error = read_network(path, &GraphSource::Auto).unwrap_err();
        error.to_string()
    };
    // One shard is no chain of matrices, though it looks like one.
    fs::remove_file(at("network.json")).unwrap();
    let shard = error(&at("model-00001-of-00002.safetensors"));
    assert!(shard.contains("shard 1 of the 2 of `model`"), "{shard}");

    // Names that lead elsewhere, tensors that are not there, shards of another kind.
    let with = |from: &str, to: &str| {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        fs::write(&index, changed).unwrap();
        error(&index)
    };
    for name in [
        "../model-00001-of-00002.safetensors",
        "/etc/passwd",
        "..",
        "",
    ] {
        let error = with("model-00001-of-00002.safetensors", name);
        assert!(error.contains(&format!("`{name}`")), "{error}");
    }
    let absent = with("\"a.bias\"", "\"a.bais\"");
    assert!(
        absent.contains("`a.bais`") && absent.contains("00001-of"),
        "{absent}"
    );
    let none = with(&text, "{\"weight_map\": {}}");
    assert!(none.contains("without tensors"), "{none}");
    fs::write(&index, &text).unwrap();
    fs::write(at("model-00002-of-00002.safetensors"), b"\x80\x02}q\x00.").unwrap();
    let pickle = error(&index);
    assert!(
        pickle.contains("a Python pickle") && pickle.contains("00002-of"),
        "{pickle}"
    );

    // A shard that is missing, with the index and without.
    fs::remove_file(at("model-00002-of-00002.safetensors")).unwrap();
    for _ in 0..2 {
        let error = error(folder.path());
        assert!(
            error.contains("all 2 shards")
                && error.contains("no `model-00002-of-00002.safetensors`"),
            "{error}"
        );
        let _ = fs::remove_file(&index);
    }
    let empty = tempfile::tempdir().unwrap();
    let error = error(empty.path());
    assert!(error.contains("folder with the shards"), "{error}");
}

#[test]
fn a_tensor_in_two_shards_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    shards(folder.path());
    let second = folder.path().join("model-00002-of-00002.safetensors");
    fs::write(second, two("a", "b").join()).unwrap();
    let error = read_network(folder.path(), &GraphSource::Auto).unwrap_err();
    assert!(error.to_string().contains("another shard"), "{error}");
}

#[test]
fn what_is_no_network_is_named_with_the_way_to_one() {
    let archive = [
        &b"PK\x03\x04"[..],
        &[0; 22],
        &[12, 0, 0, 0],
        b"mlp/data.pkl",
        &[0; 100],
    ]
    .concat();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    let cases: [(&str, &[u8], &[&str]); 10] = [
        (
            "mlp.pt",
            &archive,
            &[
                "a PyTorch file",
                "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('mlp.pt', \
                 weights_only=True), 'mlp.safetensors')\"",
            ],
        ),
        (
            "net.pth",
            b"\x80\x02\x8a\x0a",
            &["a Python pickle", "torch.load('net.pth'"],
        ),
        (
            "m.safetensors",
            pointer,
            &["Git LFS pointer", "git lfs pull"],
        ),
        (
            "m.safetensors",
            b"<!DOCTYPE html><html>",
            &["a web page", "/resolve/"],
        ),
        (
            "m.h5",
            b"\x89HDF\r\n\x1a\n\0\0\0",
            &[
                "HDF5",
                "python -m tf2onnx.convert --keras m.h5 --output m.onnx",
            ],
        ),
        ("m.json", b"{\"nodes\": []}", &["JSON", "--network"]),
        ("m.npy", b"\x93NUMPY\x01\0", &["a numpy array"]),
        ("m.gz", b"\x1f\x8b\x08\0", &["a gzip file", "gzip -d m.gz"]),
        (
            "m.onnx",
            b"\x08\x08\x3a\x04grap",
            &["an ONNX model", "read_onnx"],
        ),
        (
            "m.bin",
            b"nothing that is known",
            &["a file of an unknown kind"],
        ),
    ];
    for (name, bytes, words) in cases {
        let error = read_network_bytes(name, bytes, &GraphSource::Auto).unwrap_err();
        let error = error.to_string();
        for word in words {
            assert!(error.contains(word), "{name}: {word}: {error}");
        }
        assert!(
            error.contains("expected") && !error.contains('\n'),
            "{error}"
        );
    }
}
