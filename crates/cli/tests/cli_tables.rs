//! The real binaries on tables: training of an MLP, compression, evaluation and inference by the columns that are stored.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::fmt::Write;

use serde_json::Value;
use sparsevd_format::{GraphSource, read_network};
use sparsevd_testing::arbitrary::Stream;

use synthetic::Workplace;

const ROWS: usize = 500;

/// Areas of some thousands, a colour and a number that says nothing; the target grows with the area and is larger for red.
fn table(target: impl Fn(f32) -> String) -> String {
    let mut stream = Stream(5);
    let mut text = "area,colour,nothing,target\n".to_owned();
    for row in 0..ROWS {
        let [a, n, noise] = stream.floats(3)[..] else {
            unreachable!()
        };
        let (colour, effect) = [("red", 0.5), ("blue", -0.5), ("green", 0.0)][row % 3];
        let y = a + effect + 0.02 * noise;
        let area = 5000.0 + 1000.0 * a;
        writeln!(text, "{area},{colour},{n},{}", target(y)).unwrap();
    }
    text
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_table_of_numbers_is_trained_compressed_and_evaluated_by_its_columns() {
    let place = Workplace::without_network();
    place.write("t.csv", table(|y| format!("{:.3}", 2000.0 + 300.0 * y)));
    std::fs::remove_file(place.path("recipe.toml")).unwrap();
    let data = ["--data", "t.csv"];
    let trained = json(&place.ok(&[&["train", "mlp-16", "--json"], &data[..]].concat()));
    let r2 = trained["test"]["r2"].as_f64().unwrap();
    assert!(r2 > 0.99 && trained["test"]["samples"] == 100, "{trained}");
    assert_eq!(
        trained["weights"],
        5 * 16 + 16,
        "two numbers and three colours"
    );

    place.ok(&[&["mlp-16.safetensors"], &data[..]].concat());
    let report = place.json("mlp-16.report.json");
    let of_report = &report["accuracy"]["test"];
    assert_eq!(of_report["dense_r2"].as_f64(), Some(r2));
    let sparse_r2 = of_report["sparse_r2"].as_f64().unwrap();
    let left = report["nonzeros"].as_u64().unwrap();
    assert!(
        sparse_r2 > r2 - 0.02 && left <= 96 / 4,
        "R2 {sparse_r2}, {left} weights left"
    );
    // The noise of the targets was estimated, and is told: the network's own errors and two per cent of the variance.
    let noise = report["recipe"]["target_deviation"].as_f64().unwrap();
    assert!((30.0..80.0).contains(&noise), "{noise}");

    let sparse = "mlp-16.sparse.safetensors";
    let network = read_network(place.path(sparse), &GraphSource::Auto)
        .unwrap()
        .network;
    let stored = network.graph.preprocessing.clone().unwrap();
    let table = stored.table.unwrap();
    assert_eq!(table.columns[1].categories, ["blue", "green", "red"]);
    assert_eq!((table.target.as_str(), table.classes), ("target", None));
    assert!((stored.mean[0] - 5000.0).abs() < 100.0, "{:?}", stored.mean);

    let evaluated = json(&place.ok_run_sparse(&[&["eval", sparse, "--json"], &data[..]].concat()));
    assert!(
        (evaluated["r2"].as_f64().unwrap() - sparse_r2).abs() < 1e-6,
        "{evaluated}"
    );
    assert_eq!(
        (&evaluated["samples"], &evaluated["part"]),
        (&100.into(), &"test".into())
    );

    // Rows without a target, and columns in another order.
    place.write("new.csv", "nothing,colour,area\n0,red,5000\n0,blue,5500\n");
    place.ok_run_sparse(&[sparse, "--input", "new.csv", "--output", "y.npy"]);
    let y = sparsevd_format::read_npy(place.path("y.npy")).unwrap();
    let sparsevd_format::ArrayData::F32(y) = y.data else {
        panic!("{y:?}")
    };
    assert!(
        (y[0] - 2150.0).abs() < 40.0 && (y[1] - 2000.0).abs() < 40.0,
        "{y:?}"
    );
}

#[test]
fn a_table_of_words_is_a_classification() {
    let place = Workplace::without_network();
    let word = |y: f32| if y > 0.0 { "large" } else { "small" }.to_owned();
    place.write("t.csv", table(word));
    let args = [
        "train",
        "mlp-16",
        "--data",
        "t.csv",
        "-o",
        "net.safetensors",
    ];
    place.ok(&args);
    let evaluated =
        json(&place.ok_run_sparse(&["eval", "net.safetensors", "--data", "t.csv", "--json"]));
    assert_eq!(evaluated["images"], 100);
    assert!(
        evaluated["error_percent"].as_f64().unwrap() < 5.0,
        "{evaluated}"
    );
}

#[test]
fn a_table_or_an_mlp_that_does_not_fit_is_refused_in_one_line() {
    let place = Workplace::without_network();
    place.write("t.csv", table(|y| format!("{y:.6}")));
    place.write("holes.csv", "a,b\n1,2.5\n,3.5\n");
    place.write_preset("lenet.safetensors", "lenet-300-100");
    place.write(
        "recipe.toml",
        "[[phase]]\nmethod = \"fine-tune\"\nepochs = 1\n",
    );
    let cases: [(&[&str], &[&str]); 7] = [
        (
            &["train", "mlp", "--data", "holes.csv"],
            &["line 3, column `a`", "missing"],
        ),
        (
            &["train", "mlp", "--data", "t.csv", "--target", "prize"],
            &["column `prize`", "`area`"],
        ),
        (
            &["train", "mlp-0", "--data", "t.csv"],
            &["mlp-300-100", "got mlp-0"],
        ),
        (
            &["train", "mlp-x-3", "--data", "t.csv"],
            &["mlp-300-100", "got mlp-x-3"],
        ),
        (
            &["train", "perceptron", "--data", "t.csv"],
            &["presets", "mlp"],
        ),
        (
            &["train", "mlp", "--data", "data", "--target", "y"],
            &["target `y`", "a table"],
        ),
        (
            &["lenet.safetensors", "--data", "t.csv"],
            &["stores the columns", "--scale 1"],
        ),
    ];
    let wrong: Vec<String> = (cases.iter())
        .filter_map(|(args, words)| place.complaint(args, words))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
