//! The real `compress compare`: its cells are separate runs of `compress`, and the same command goes on after Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::Value;

use synthetic::{RECIPE, Workplace};

#[test]
fn a_cell_is_a_separate_run_and_what_is_finished_is_kept() {
    let w = Workplace::new();
    let quantise = "\n[[phase]]\nmethod = \"quantise\"\nepochs = 1\nbatch = 20\n";
    w.write("recipe.toml", RECIPE.to_owned() + quantise);
    let compare = ["compare", "net.safetensors", "--seeds", "1,2"];
    let text = w.ok(&[&compare[..], &["--ratios", "4"]].concat());
    let row = |method: &str| {
        let row = text.lines().find(|line| line.starts_with(method));
        row.unwrap_or_else(|| panic!("{method}: {text}"))
    };
    for method in ["sparse-vd ", "gradual-magnitude ", "fisher "] {
        assert!(row(method).contains(" 4x "), "{text}");
    }
    assert!(row("Means over seeds").contains("1, 2."), "{text}");
    // 456 weights.
    let alone = [
        "--weights",
        "114",
        "--max-accuracy-drop",
        "100",
        "--seed",
        "2",
    ];
    w.ok(&[&["net.safetensors", "--method", "fisher"][..], &alone].concat());
    let cell = "net.compare/fisher-4x-seed-2";
    assert!(w.read(&format!("{cell}/network.spvd")) == w.read("net.spvd"));
    let json = w.ok(&[&compare[..], &["--ratios", "8,4", "--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let results = json["results"].as_array().unwrap();
    let rows: Vec<_> = (results.iter())
        .map(|r| {
            (
                r["asked_ratio"].as_f64().unwrap(),
                r["method"].as_str().unwrap(),
            )
        })
        .collect();
    let methods = ["sparse-vd", "gradual-magnitude", "fisher"];
    assert_eq!(
        rows,
        [8.0, 4.0].map(|ratio| methods.map(|m| (ratio, m))).concat()
    );
    for result in results {
        let seeds = result["seeds"].as_array().unwrap();
        assert_eq!(seeds.len(), 2);
        assert!(seeds.iter().all(|s| s["test"]["mcnemar_p"].is_number()));
        assert!(result["recipe"]["phase"].is_array());
    }
    assert_eq!(json["paired"].as_array().unwrap().len(), 4);
    // The log has the epochs of both sittings: the posteriors once, and twelve cells.
    let log = String::from_utf8(w.read("net.compare/training.log")).unwrap();
    let epochs = log.lines().filter(|l| l.contains("validation error"));
    assert_eq!(epochs.count(), 2 * (6 + 2 * 2 + 2 * 2 * 8), "{log}");
    // Cells are counted with those that are finished.
    assert!(
        log.contains("cell 9 of 12: gradual-magnitude, 8x, seed 2"),
        "{log}"
    );
    assert!(!log.contains("cell 12 of 12"), "{log}");

    w.write("other.toml", RECIPE.replace("epochs = 6", "epochs = 7"));
    let refused = |args: &[&str], words: &[&str]| {
        assert_eq!(w.complaint(&[&compare[..], args].concat(), words), None);
    };
    refused(
        &["--recipe", "other.toml"],
        &[
            "net.compare/compare.json",
            "the recipe with phase",
            "; name another folder by --run",
        ],
    );
    refused(
        &["--ratios", "0.5"],
        &["ratios: expected 1 to 456", "got 0.5"],
    );
    refused(
        &["--ratios", "4,4"],
        &["ratios: expected at least one, and each once"],
    );
    refused(
        &["--methods", "fisher,fisher"],
        &["methods: expected", "fisher twice"],
    );
}

#[cfg(unix)]
#[test]
fn interrupted_and_begun_again_is_the_same_as_straight() {
    let w = Workplace::new();
    let long = RECIPE
        .replace("epochs = 6", "epochs = 60")
        .replace("batch = 20", "batch = 1");
    w.write("recipe.toml", long);
    let args = [
        "compare",
        "net.safetensors",
        "--methods",
        "fisher",
        "--ratios",
        "4",
        "--run",
    ];
    w.ok(&[&args[..], &["straight"]].concat());
    let command = w.interrupted(
        &[&args[..], &["resumed"]].concat(),
        "resumed/fisher-4x-seed-0/checkpoint.safetensors",
    );
    assert!(
        command.ends_with("compare net.safetensors --methods fisher --ratios 4 --run resumed"),
        "{command}"
    );
    let cell = "fisher-4x-seed-0";
    assert!(!w.path(&format!("resumed/{cell}/cell.json")).exists());
    // Exactly what it said, in a shell.
    let shell = w.shell(&command);
    assert!(shell.status.success(), "{shell:?}");
    let network = |run: &str| w.read(&format!("{run}/{cell}/network.sparse.safetensors"));
    assert!(network("straight") == network("resumed"));
    assert!(
        !w.path(&format!("resumed/{cell}/checkpoint.safetensors"))
            .exists()
    );
}
