//! The real `compress` on a residual network with normalisation and a depthwise convolution, from training to packed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::{Value, json};
use sparsevd_format::{GraphSource, read_network};

use synthetic::{SIDE, Workplace};

/// A graph with the shapes of its tensors: two convolutions and a sum, a depthwise and a pointwise one, a linear layer; a
/// normalisation behind each convolution.
fn graph() -> Value {
    let conv = |name: &str, input: &str, size: usize, groups: usize| {
        json!({
            "name": name, "inputs": [input], "op": "Conv", "weight": format!("{name}.weight"),
            "kernel_shape": [size, size], "pads": vec![size / 2; 4], "groups": groups,
        })
    };
    let norm = |name: &str, input: &str| {
        json!({
            "name": name, "inputs": [input], "op": "BatchNormalization",
            "scale": format!("{name}.weight"), "bias": format!("{name}.bias"),
            "mean": format!("{name}.mean"), "variance": format!("{name}.var"),
        })
    };
    let plain =
        |name: &str, inputs: &[&str], op: &str| json!({"name": name, "inputs": inputs, "op": op});
    let mut tensors = json!({
        "c1.weight": [6, 1, 3, 3], "c2.weight": [6, 6, 3, 3], "d.weight": [6, 1, 3, 3], "p.weight": [8, 6, 1, 1],
        "fc.weight": [2, 8 * SIDE * SIDE], "fc.bias": [2],
    });
    for (norm, channels) in [("n1", 6), ("n2", 6), ("n3", 6), ("n4", 8)] {
        for part in ["weight", "bias", "mean", "var"] {
            tensors[format!("{norm}.{part}")] = json!([channels]);
        }
    }
    json!({
        "name": "residual",
        "inputs": [{"name": "x", "shape": [1, SIDE, SIDE]}],
        "nodes": [
            conv("c1", "x", 3, 1), norm("n1", "c1"), plain("r1", &["n1"], "Relu"),
            conv("c2", "r1", 3, 1), norm("n2", "c2"), plain("sum", &["n2", "r1"], "Add"), plain("r2", &["sum"], "Relu"),
            conv("d", "r2", 3, 6), norm("n3", "d"), plain("h", &["n3"], "HardSwish"),
            conv("p", "h", 1, 1), norm("n4", "p"), plain("r4", &["n4"], "Relu"),
            plain("flat", &["r4"], "Flatten"),
            {"name": "fc", "inputs": ["flat"], "op": "Linear", "weight": "fc.weight", "bias": "fc.bias"},
        ],
        "outputs": ["fc"],
        "tensors": tensors,
    })
}

const RECIPE: &str = "\
data = \"data\"
seed = 3
validation = 40
max_accuracy_drop = 5.0

[[phase]]
method = \"sparse-vd\"
epochs = 6
batch = 20
lr = 1e-2
lr_log_sigma2 = 1e-1
kl_scale = 0.5
prune_from = 2

[[phase]]
method = \"fine-tune\"
epochs = 2
batch = 20
lr = 5e-3
distil = 0.5

[[phase]]
method = \"quantise\"
epochs = 1
batch = 20
";

#[test]
fn a_residual_network_with_normalisation_is_trained_compressed_and_packed() {
    let w = Workplace::without_network();
    w.write("graph.json", graph().to_string());
    w.write("recipe.toml", RECIPE);
    w.ok(&[
        "train",
        "graph.json",
        "--data",
        "data",
        "--recipe",
        "train.toml",
        "--epochs",
        "4",
        "-o",
        "net.safetensors",
    ]);
    let dense = read_network(w.path("net.safetensors"), &GraphSource::Auto).unwrap();
    let operators = dense.network.graph.nodes.iter().map(|n| n.op.name());
    let operators: Vec<&str> = operators.collect();
    assert!(
        !operators.contains(&"BatchNormalization") && operators.contains(&"HardSwish"),
        "{operators:?}"
    );
    let error = |file: &str| {
        let eval = w.ok_run_sparse(&["eval", file, "--data", "data", "--json"]);
        let eval: Value = serde_json::from_str(&eval).unwrap();
        eval["error_percent"].as_f64().unwrap()
    };
    assert!(error("net.safetensors") < 5.0);

    w.ok(&["net.safetensors"]);
    let report = w.json("net.report.json");
    assert_eq!(report["history"].as_array().unwrap().len(), 9);
    assert_eq!(report["accuracy"]["promise"]["kept"], true);
    for file in ["net.sparse.safetensors", "net.spvd"] {
        assert!(error(file) < 5.0, "{file}");
        let sparse = read_network(w.path(file), &GraphSource::Auto)
            .unwrap()
            .network;
        let (left, all) = (sparse.nonzeros(), sparse.original_weights());
        assert!(
            all == 54 + 324 + 54 + 48 + 576 && 3 * left < all,
            "{left} of {all}"
        );
    }
}

#[test]
fn what_a_trainer_cannot_do_is_named_with_its_node() {
    let w = Workplace::without_network();
    let mut with_softmax = graph();
    let nodes = with_softmax["nodes"].as_array_mut().unwrap();
    nodes.push(json!({"name": "probabilities", "inputs": ["fc"], "op": "Softmax"}));
    nodes.push(json!({"name": "last", "inputs": ["probabilities"], "op": "Relu"}));
    with_softmax["outputs"] = json!(["last"]);
    w.write("graph.json", with_softmax.to_string());
    let out = w.compress(&[
        "train",
        "graph.json",
        "--data",
        "data",
        "--recipe",
        "train.toml",
    ]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(error.contains("node `probabilities` (Softmax)"), "{error}");

    let out = w.compress(&["train", "lenet-5", "--input", "1,28,28", "--data", "data"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(
        error.contains("input: expected channels, height and width"),
        "{error}"
    );
}
