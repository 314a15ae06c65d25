//! The real `compress` on float targets: training, compression with a promise about R2, and what the report says.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::Value;
use sparsevd_format::{GraphSource, read_network, write_npz};
use sparsevd_model::{Network, Shape, presets};
use sparsevd_testing::arbitrary::Stream;

use synthetic::Workplace;

const INPUTS: usize = 6;
const TEST: usize = 200;

const TRAIN: &str = "\
data = \"data.npz\"
target_deviation = 0.1

[[phase]]
method = \"dense\"
epochs = 30
batch = 50
lr = 1e-2
hold = 0.5
";

const RECIPE: &str = "\
data = \"data.npz\"
target_deviation = 0.1

[[phase]]
method = \"sparse-vd\"
epochs = 40
batch = 50
lr = 5e-3
lr_log_sigma2 = 5e-2
hold = 0.5
log_sigma2 = -6.0

[[phase]]
method = \"fine-tune\"
epochs = 5
batch = 50
distil = 0.5

[[phase]]
method = \"quantise\"
epochs = 2
batch = 50
grid = [0.5]
";

/// Two sums of the first three inputs with noise of deviation 0.1; inputs and targets of `samples` samples.
fn samples(seed: u64, samples: usize) -> [Vec<f32>; 2] {
    let mut stream = Stream(seed);
    let (mut x, mut y) = (vec![], vec![]);
    for _ in 0..samples {
        let input = stream.floats(INPUTS);
        let noise = stream.floats(2);
        y.push(3.0 * input[0] - 2.0 * input[1] + 0.1 * noise[0]);
        y.push(input[2] + 1.0 + 0.1 * noise[1]);
        x.extend(input);
    }
    [x, y]
}

fn workplace() -> Workplace {
    let place = Workplace::without_network();
    let (graph, tensors) = presets::mlp("sums", Shape::from([INPUTS]), &[2]);
    let mut json = serde_json::to_value(&graph).unwrap();
    json["tensors"] = tensors
        .iter()
        .map(|(name, shape)| (name.clone(), serde_json::to_value(shape).unwrap()))
        .collect();
    place.write("graph.json", json.to_string());
    place.write("train.toml", TRAIN);
    place.write("recipe.toml", RECIPE);
    let ([x, y], [x_test, y_test]) = (samples(1, 1200), samples(2, TEST));
    let arrays: [(&str, &[usize], &[f32]); 4] = [
        ("x_train", &[1200, INPUTS], &x),
        ("y_train", &[1200, 2], &y),
        ("x_test", &[TEST, INPUTS], &x_test),
        ("y_test", &[TEST, 2], &y_test),
    ];
    write_npz(place.path("data.npz"), &arrays).unwrap();
    place
}

/// R2 of a network of one linear layer on the test samples.
fn test_r2(network: &Network) -> f64 {
    let [x, y] = samples(2, TEST);
    let weights = network.tensors["fc1.weight"].to_dense();
    let bias = network.tensors["fc1.bias"].values();
    let r2 = (0..2).map(|output| {
        let targets: Vec<f64> = (y.iter().skip(output).step_by(2))
            .map(|y| f64::from(*y))
            .collect();
        let mean = targets.iter().sum::<f64>() / TEST as f64;
        let row = &weights.values[output * INPUTS..(output + 1) * INPUTS];
        let (mut error, mut all) = (0.0, 0.0);
        for (x, target) in x.chunks_exact(INPUTS).zip(&targets) {
            let product: f32 = row.iter().zip(x).map(|(w, x)| w * x).sum();
            error += (f64::from(product + bias[output]) - target).powi(2);
            all += (target - mean).powi(2);
        }
        1.0 - error / all
    });
    r2.sum::<f64>() / 2.0
}

#[test]
fn float_targets_are_trained_compressed_and_held_to_their_r2() {
    let place = workplace();
    let trained = [
        "train",
        "graph.json",
        "--recipe",
        "train.toml",
        "-o",
        "net.safetensors",
    ];
    let json = place.ok(&[&trained[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let read = |name: &str| {
        let path = place.path(name);
        read_network(&path, &GraphSource::Auto).unwrap().network
    };
    let dense = read("net.safetensors");
    let r2 = json["test"]["r2"].as_f64().unwrap();
    assert!(
        (r2 - test_r2(&dense)).abs() < 1e-5,
        "{r2} and {}",
        test_r2(&dense)
    );
    assert!(r2 > 0.98 && json["validation"]["samples"] == 200, "{json}");
    assert!(json["history"][0]["validation_r2"].is_number());

    let compress = [
        "net.safetensors",
        "-o",
        "sparse.safetensors",
        "--max-r2-drop",
        "0.01",
    ];
    let text = place.ok(&compress);
    assert!(
        text.contains("validation, RMSE") && text.contains("R2"),
        "{text}"
    );
    let report = place.json("sparse.report.json");
    let sparse = read("sparse.safetensors");
    let test = &report["accuracy"]["test"];
    for (key, network) in [("dense_r2", &dense), ("sparse_r2", &sparse)] {
        let got = test[key].as_f64().unwrap();
        assert!(
            (got - test_r2(network)).abs() < 1e-5,
            "{key}: {got} and {}",
            test_r2(network)
        );
    }
    let promise = &report["accuracy"]["promise"];
    assert_eq!(
        (&promise["kept"], &promise["max_r2_drop"]),
        (&true.into(), &0.01.into())
    );
    assert!(promise.get("max_accuracy_drop").is_none(), "{promise}");
    let packed = &report["packed"]["validation"]["sparse_r2"];
    assert_eq!(packed, &report["accuracy"]["validation"]["sparse_r2"]);
    // Twelve weights, of which three matter.
    assert!(
        (3..=7).contains(&report["nonzeros"].as_u64().unwrap()),
        "{}",
        report["nonzeros"]
    );

    let sweep = place.ok(&["sweep", "net.run", "--json"]);
    let sweep: Value = serde_json::from_str(&sweep).unwrap();
    assert!(sweep["points"][0]["validation_r2"].is_number(), "{sweep}");

    // A promise that cannot be kept: noise that is said to be large leaves no weight.
    place.write(
        "recipe.toml",
        RECIPE.replace("deviation = 0.1", "deviation = 100.0"),
    );
    let broken = place.compress(&[&compress[..], &["--force", "-q"]].concat());
    let stderr = String::from_utf8_lossy(&broken.stderr);
    assert_eq!(broken.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("under the dense network's, expected at most 0.01 (max_r2_drop)"),
        "{stderr}"
    );
}

#[test]
fn targets_that_are_not_the_outputs_are_refused() {
    let place = workplace();
    let [x, y] = samples(1, 30);
    let three: Vec<f32> = y.iter().chain(&y[..30]).copied().collect();
    write_npz(
        place.path("three.npz"),
        &[("x", &[30, INPUTS], &x), ("y", &[30, 3], &three)],
    )
    .unwrap();
    let args = [
        "train",
        "graph.json",
        "--data",
        "three.npz",
        "-o",
        "net.safetensors",
    ];
    let words = ["targets", "expected 2 per sample", "got 3"];
    assert_eq!(place.complaint(&args, &words), None);
}
