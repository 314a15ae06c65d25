//! The real `compress`, from training to a file that runs, interrupted, resumed, refused and misused.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::process::Stdio;

use serde_json::Value;
use sparsevd_format::{GraphSource, Pixels, WriteOptions, read_network, write_network};
use sparsevd_model::{Weights, presets};

use synthetic::{RECIPE, SIDE, Workplace, idx, plain_safetensors, wait_for};

#[test]
fn from_training_to_a_sparse_file_that_runs() {
    let w = Workplace::new();
    let text = w.ok(&["net.safetensors"]);
    for words in [
        "fc1",
        "kernel, batch 64",
        "validation",
        "times fewer",
        "bitmask",
        "wrote net.sparse.safetensors",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let loaded = read_network(w.path("net.sparse.safetensors"), &GraphSource::Auto).unwrap();
    let network = &loaded.network;
    assert!(loaded.metadata["sparsevd.recipe"].contains("sparse-vd"));
    assert!(
        !loaded.metadata["sparsevd.recipe"].contains("data ="),
        "a path of this machine"
    );
    assert_eq!(loaded.metadata["sparsevd.seed"], "3");
    assert!(loaded.metadata.contains_key("sparsevd.version"));
    assert!(network.graph.preprocessing.is_some());
    assert_eq!(network.original_weights(), 36 * 12 + 12 * 2);
    assert!(
        network.nonzeros() * 4 < network.original_weights(),
        "{} left",
        network.nonzeros()
    );

    let report = w.json("net.report.json");
    assert_eq!(
        (&report["schema"], &report["seed"]),
        (&Value::from(1), &Value::from(3))
    );
    assert_eq!(report["history"].as_array().unwrap().len(), 7);
    assert_eq!(report["nonzeros"], network.nonzeros());
    assert_eq!(report["weights"], 456);
    assert_eq!(report["recipe"]["phase"][0]["kl_scale"], 0.5);
    assert_eq!(
        report["timings"].as_array().unwrap().len(),
        4,
        "two plans at two batches"
    );
    assert_eq!(report["accuracy"]["promise"]["kept"], true);
    let eval = w.ok_run_sparse(&["eval", "net.sparse.safetensors", "--data", "data", "--json"]);
    let eval: Value = serde_json::from_str(&eval).unwrap();
    assert_eq!(
        report["accuracy"]["test"]["sparse_percent"], eval["error_percent"],
        "what is reported is what runs"
    );
    assert!(eval["error_percent"].as_f64().unwrap() < 5.0);
    let epochs = std::fs::read_dir(w.path("net.run/epochs")).unwrap().count();
    assert_eq!(epochs, 7, "pictures of every epoch");
}

#[test]
fn a_folder_lends_its_name_and_json_is_the_report() {
    let w = Workplace::new();
    w.write("zoo/tiny/model.safetensors", w.read("net.safetensors"));
    let recipe = RECIPE.replace("\"data\"", "\"../../data\"");
    w.write("zoo/tiny/recipe.toml", recipe);
    let printed: Value =
        serde_json::from_str(&w.ok(&["zoo/tiny/model.safetensors", "--json"])).unwrap();
    assert_eq!(printed, w.json("tiny.report.json"));
    assert_eq!(printed["recipe_source"], "zoo/tiny/recipe.toml");
    assert!(w.path("tiny.sparse.safetensors").exists() && w.path("tiny.run/run.json").exists());
}

#[test]
fn one_thread_and_two_write_the_same_bytes() {
    let w = Workplace::without_network();
    // Large enough that batches are split over threads.
    w.write_preset("big.safetensors", "lenet-300-100");
    w.write_data("large", 28, 240, 40);
    w.write(
        "recipe.toml",
        RECIPE
            .replace("epochs = 6", "epochs = 2")
            .replace("batch = 20", "batch = 100"),
    );
    for threads in ["1", "2"] {
        let (out, run) = (format!("{threads}.safetensors"), format!("run{threads}"));
        w.compress(&[
            "big.safetensors",
            "--data",
            "large",
            "--threads",
            threads,
            "--out",
            &out,
            "--run",
            &run,
        ]);
    }
    assert!(
        w.read("1.safetensors") == w.read("2.safetensors"),
        "files differ"
    );
    assert!(
        w.read("run1/checkpoint.safetensors").len() == w.read("run2/checkpoint.safetensors").len()
    );
}

#[cfg(unix)]
#[test]
fn interrupted_and_resumed_is_the_same_as_straight() {
    let w = Workplace::new();
    let long = RECIPE
        .replace("epochs = 6", "epochs = 60")
        .replace("batch = 20", "batch = 1");
    w.write("recipe.toml", long);
    w.ok(&[
        "net.safetensors",
        "--out",
        "straight.safetensors",
        "--run",
        "straight",
    ]);
    let mut child = w
        .command("compress")
        .args([
            "net.safetensors",
            "--threads",
            "1",
            "--out",
            "resumed.safetensors",
            "--run",
            "runs/one",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&w.path("runs/one/checkpoint.safetensors"));
    let kill = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let stderr = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    let command = stderr.lines().last().unwrap();
    assert!(
        command
            .ends_with("net.safetensors --threads 1 --out resumed.safetensors --resume runs/one"),
        "{stderr}"
    );
    assert!(!w.path("resumed.safetensors").exists());

    let without = w.complaint(
        &[
            "net.safetensors",
            "--out",
            "resumed.safetensors",
            "--run",
            "runs/one",
        ],
        &["--resume runs/one", "--force"],
    );
    assert_eq!(without, None);
    // Exactly what it said, in a shell.
    let shell = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(w.path(""))
        .output()
        .unwrap();
    assert!(
        shell.status.success(),
        "{}",
        String::from_utf8_lossy(&shell.stderr)
    );
    assert!(
        w.read("straight.safetensors") == w.read("resumed.safetensors"),
        "files differ"
    );
    let epochs = |name: &str| w.json(name)["history"].as_array().unwrap().len();
    assert_eq!(
        epochs("straight.report.json"),
        epochs("resumed.report.json")
    );
    // A line per epoch, also of those before the interruption.
    let log = String::from_utf8(w.read("runs/one/training.log")).unwrap();
    let lines = log.lines().filter(|l| l.contains("validation error"));
    assert_eq!(lines.count(), epochs("resumed.report.json"), "{log}");
}

#[test]
fn a_run_goes_on_only_from_its_own_whole_checkpoint() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    w.write("other.safetensors", w.read("net.safetensors"));
    let mut other = read_network(w.path("net.safetensors"), &GraphSource::Auto)
        .unwrap()
        .network;
    if let Some(Weights::Dense(d)) = other.tensors.get_mut("fc1.weight") {
        d.values[0] += 1.0;
    }
    write_network(
        w.path("other.safetensors"),
        &other,
        &WriteOptions::default(),
    )
    .unwrap();
    let whole = w.read("net.run/checkpoint.safetensors");
    w.write("torn/run.json", w.read("net.run/run.json"));
    w.write("torn/checkpoint.safetensors", &whole[..whole.len() - 1000]);
    w.write("empty/x", "");
    w.write("old/checkpoint.safetensors", &whole);
    w.write(
        "old/run.json",
        String::from_utf8(w.read("net.run/run.json"))
            .unwrap()
            .replace("\"schema\": 1", "\"schema\": 99"),
    );
    let resume =
        |model: &'static str, run: &'static str| [model, "--resume", run, "--out", "x.safetensors"];
    let failures: Vec<String> = [
        w.complaint(
            &resume("other.safetensors", "net.run"),
            &[
                "net.run/checkpoint.safetensors",
                "expected a run of this network and recipe",
                "another",
            ],
        ),
        w.complaint(
            &resume("net.safetensors", "torn"),
            &["torn/checkpoint.safetensors", "damaged"],
        ),
        w.complaint(
            &resume("net.safetensors", "empty"),
            &["empty", "expected a run folder with a checkpoint"],
        ),
        w.complaint(
            &resume("net.safetensors", "old"),
            &["run.json", "expected schema 1, got 99"],
        ),
        w.complaint(
            &[
                &resume("net.safetensors", "net.run")[..],
                &["--kl-scale", "2"],
            ]
            .concat(),
            &["another"],
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A run remembers its data and recipe, though neither lies beside the model.
    w.write(
        "elsewhere/r.toml",
        RECIPE
            .replace("data = \"data\"", "")
            .replace("seed = 3", "seed = 4"),
    );
    w.ok(&[
        "net.safetensors",
        "--recipe",
        "elsewhere/r.toml",
        "--data",
        "data",
        "--out",
        "a.safetensors",
        "--run",
        "a",
    ]);
    w.ok(&["net.safetensors", "--resume", "a", "--out", "b.safetensors"]);
    assert!(w.read("a.safetensors") == w.read("b.safetensors"));
    assert_eq!(w.json("b.report.json")["seed"], 4);
    // A run that is done goes on to the same end.
    w.ok(&resume("net.safetensors", "net.run"));
    assert!(w.read("net.sparse.safetensors") == w.read("x.safetensors"));
}

#[test]
fn what_exists_is_refused_before_any_work_unless_forced() {
    let w = Workplace::new();
    w.write("net.sparse.safetensors", "mine");
    let refused = |words: &[&str], args: &[&str]| assert_eq!(w.complaint(args, words), None);
    refused(
        &["net.sparse.safetensors", "exists already", "--force"],
        &["net.safetensors"],
    );
    w.write("x.report.json", "mine");
    refused(
        &["x.report.json", "exists already"],
        &["net.safetensors", "--out", "x.sparse.safetensors"],
    );
    refused(
        &["net.safetensors", "exists already"],
        &[
            "train",
            "lenet-300-100",
            "--data",
            "data",
            "--out",
            "net.safetensors",
        ],
    );
    refused(
        &["net.safetensors", "exists already"],
        &["convert", "net.sparse.safetensors", "net.safetensors"],
    );
    assert_eq!(w.read("net.sparse.safetensors"), b"mine");
    w.ok(&["net.safetensors", "--force"]);
    let first = w.read("net.sparse.safetensors");
    w.ok(&["net.safetensors", "--force"]);
    assert!(
        first == w.read("net.sparse.safetensors"),
        "begun anew, not gone on"
    );
}

#[test]
fn wrong_settings_and_inputs_are_named_in_one_line() {
    let w = Workplace::new();
    w.write("nan.recipe.toml", RECIPE.replace("lr = 1e-2", "lr = nan"));
    w.write("typo.toml", RECIPE.replace("kl_scale", "kl_scal"));
    w.write("none.toml", RECIPE.replace("data = \"data\"", ""));
    w.write_data("wide", 7, 60, 20);
    w.write_data("labels", 6, 60, 20);
    w.write("labels/train-labels-idx1-ubyte", idx(&[60], &[2; 60]));
    w.write_data("few", 6, 4, 2);
    w.write_data("test-only", 6, 60, 20);
    for part in ["images-idx3", "labels-idx1"] {
        std::fs::remove_file(w.path(&format!("test-only/train-{part}-ubyte"))).unwrap();
    }
    w.write("empty/train-images-idx3-ubyte", idx(&[0, 6, 6], &[]));
    w.write("empty/train-labels-idx1-ubyte", idx(&[0], &[]));
    let bytes = w.read("net.safetensors");
    w.write("cut.safetensors", &bytes[..bytes.len() - 1]);
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    w.write("nan.safetensors", nan);
    let network = synthetic::random_preset("lenet-5");
    let dense: Vec<_> = network
        .tensors
        .iter()
        .map(|(n, t)| (n.clone(), t.to_dense()))
        .collect();
    let tensors: Vec<_> = dense.iter().map(|(n, d)| (n.clone(), d)).collect();
    w.write("graphless.safetensors", plain_safetensors(&tensors));
    w.write(
        "half.json",
        "{\"name\": \"x\", \"inputs\": [], \"nodes\": []",
    );
    let graph = String::from_utf8(w.read("graph.json")).unwrap();
    w.write("shapeless.json", graph.replace("\"tensors\"", "\"shapes\""));
    w.write("misfit.json", graph.replace("[12,36]", "[12,35]"));
    w.write("file", "not a folder");

    let net = "net.safetensors";
    let cases: &[(&[&str], &[&str])] = &[
        (
            &[net, "--threshold", "99"],
            &["threshold", "-8 to 8", "got 99"],
        ),
        (&[net, "--threshold", "nan"], &["threshold", "NaN"]),
        (
            &[net, "--kl-scale", "-1"],
            &["kl_scale", "0 to 1000", "got -1"],
        ),
        (
            &[net, "--max-accuracy-drop", "-1"],
            &["max_accuracy_drop", "got -1"],
        ),
        (
            &[net, "--recipe", "nan.recipe.toml"],
            &["nan.recipe.toml", "lr", "NaN"],
        ),
        (&[net, "--recipe", "typo.toml"], &["typo.toml", "kl_scal"]),
        (&[net, "--recipe", "no.toml"], &["no.toml", "No such file"]),
        (
            &[net, "--recipe", "none.toml"],
            &["no data set", "--data PATH"],
        ),
        (&[net, "--data", "nowhere"], &["nowhere", "No such file"]),
        (
            &[net, "--data", "wide"],
            &["image size", "[1, 6, 6]", "[1, 7, 7]"],
        ),
        (
            &[net, "--data", "labels"],
            &["label of image 0", "0 to 1", "got 2"],
        ),
        (
            &[net, "--data", "few"],
            &["at least 6 training images", "got 4"],
        ),
        (
            &[net, "--data", "test-only"],
            &["expected training images", "20 test images"],
        ),
        (&[net, "--data", "empty"], &["at least one image"]),
        (
            &[net, "--out", "no/x.safetensors"],
            &["no/x.safetensors", "no folder"],
        ),
        (
            &[net, "--out", "file/x.safetensors"],
            &["file/x.safetensors", "no folder"],
        ),
        (&[net, "--out", "x.pb"], &["x.pb", ".safetensors"]),
        (&[net, "--out", "x.spvd"], &["x.spvd", "`quantise` phase"]),
        (
            &[net, "--values", "i8"],
            &["--values i8", "`quantise` phase"],
        ),
        (
            &["train", "lenet-5", "--data", "data", "-o", "x.spvd"],
            &["x.spvd", ".safetensors", "`quantise` phase"],
        ),
        (&[net, "--mean", "0,0"], &["preprocessing: mean", "got 2"]),
        (&[net, "--std", "0"], &["preprocessing: std", "no zero"]),
        (&[net, "--run", "file"], &["file", "run folder"]),
        (
            &[net, "--network", "lenet-6"],
            &["lenet-6", "lenet-300-100, lenet-5"],
        ),
        (&[net, "--network", "half.json"], &["half.json", "JSON"]),
        (&["cut.safetensors"], &["cut.safetensors"]),
        (&["nan.safetensors"], &["nan.safetensors", "finite", "NaN"]),
        (
            &["graphless.safetensors"],
            &[
                "no graph was found",
                "network.json",
                "lenet-5",
                "conv1.weight [20, 1, 5, 5]",
            ],
        ),
        (
            &["missing.safetensors"],
            &["missing.safetensors", "No such file"],
        ),
        (
            &["train", "lenet-6", "--data", "data"],
            &["lenet-6", "presets lenet-300-100, lenet-5"],
        ),
        (
            &["train", "lenet-5", "--data", "data"],
            &["image size", "[1, 28, 28]", "[1, 6, 6]"],
        ),
        (
            &["train", "graph.json", "-o", "y.safetensors"],
            &["no data set"],
        ),
        (
            &["train", "shapeless.json", "--data", "data"],
            &["fc1.weight", "`tensors`"],
        ),
        (
            &["train", "misfit.json", "--data", "data"],
            &["fc1", "expected"],
        ),
        (
            &[
                "train",
                "graph.json",
                "--data",
                "data",
                "--epochs",
                "0",
                "-o",
                "y.safetensors",
            ],
            &["epochs", "got 0"],
        ),
        (&["sweep", "data"], &["data", "run.json"]),
        (
            &["sweep", "net.train.run"],
            &["net.train.run", "compress train"],
        ),
        (
            &["sweep", "data", "--thresholds", "1,9"],
            &["--thresholds", "-8 to 8", "got 9"],
        ),
        (&["inspect", "cut.safetensors"], &["cut.safetensors"]),
        (&["convert", net, "x.pb"], &["x.pb", ".safetensors"]),
        (
            &["convert", net, "x.spvd"],
            &["net.safetensors", "`quantise` phase"],
        ),
        (
            &["convert", net, "x.spvd", "--values", "i8"],
            &["--values", ".safetensors", "x.spvd"],
        ),
        (
            &["convert", net, "x.safetensors", "--keep-unit-order"],
            &["--keep-unit-order", ".spvd"],
        ),
        (
            &["convert", net, "x.safetensors", "--packing", "large"],
            &["--packing", ".spvd"],
        ),
        (
            &["convert", net, "x.safetensors", "--values", "i8"],
            &["net.safetensors", "x.safetensors", "`quantise` phase"],
        ),
    ];
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|(args, words)| w.complaint(args, words))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_diverging_loss_stops_says_what_to_change_and_keeps_the_checkpoint() {
    let w = Workplace::new();
    // Squares of such an input overflow as soon as there is noise, in the second phase.
    let dense = "[[phase]]\nmethod = \"dense\"\nepochs = 1\nbatch = 20\nlr = 1e-9\n\n[[phase]]\nmethod = \"sparse-vd\"";
    w.write(
        "recipe.toml",
        RECIPE.replacen("[[phase]]\nmethod = \"sparse-vd\"", dense, 1),
    );
    let output = w.compress(&["net.safetensors", "--scale", "1e20"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), stderr.lines().count()),
        (Some(2), 1),
        "{stderr}"
    );
    for words in [
        "the loss diverged",
        "phase 2, epoch 1",
        "net.run/checkpoint.safetensors",
        "lower learning rate",
        "kl_warmup",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert!(w.path("net.run/checkpoint.safetensors").exists());
    assert!(!w.path("net.sparse.safetensors").exists() && !w.path("net.report.json").exists());
}

#[test]
fn a_broken_promise_is_written_loud_and_exits_1() {
    let w = Workplace::new();
    let output = w.compress(&[
        "net.safetensors",
        "--threshold=-8",
        "--max-accuracy-drop",
        "1",
        "--quiet",
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("accuracy promise is broken") && stderr.contains("at most 1"),
        "{stderr}"
    );
    assert!(w.path("net.sparse.safetensors").exists());
    assert_eq!(
        w.json("net.report.json")["accuracy"]["promise"]["kept"],
        false
    );
}

#[test]
fn a_sweep_shows_error_and_ratio_over_thresholds() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let text = w.ok(&["sweep", "net.run"]);
    assert_eq!(text.lines().count(), 7, "{text}");
    std::fs::rename(w.path("data"), w.path("moved")).unwrap();
    let json = w.ok(&[
        "sweep",
        "net.run",
        "--thresholds=-8,3,8",
        "--data",
        "moved",
        "--json",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let points = json["points"].as_array().unwrap();
    let left: Vec<u64> = points.iter().map(|p| p["left"].as_u64().unwrap()).collect();
    assert!(left.is_sorted() && left[0] < left[2], "{left:?}");
    assert_eq!(json["schema"], 1);
    assert_eq!(points[1]["ratio"].as_f64().unwrap(), 456.0 / left[1] as f64);
    assert!(points[0]["validation_error_percent"].as_f64().unwrap() >= 0.0);
}

#[test]
fn inspect_prints_what_programs_count_on() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let json: Value =
        serde_json::from_str(&w.ok(&["inspect", "net.sparse.safetensors", "--json"])).unwrap();
    for key in [
        "schema",
        "weights",
        "nonzeros",
        "ratio",
        "file_bytes",
        "layers",
        "parameters",
    ] {
        assert!(!json[key].is_null(), "{key}: {json}");
    }
    for key in ["name", "op", "shape", "nonzeros", "density", "bytes"] {
        assert!(!json["layers"][0][key].is_null(), "{key}: {json}");
    }
    assert_eq!(
        (&json["weights"], &json["parameters"]),
        (&Value::from(456), &Value::from(456 + 14))
    );
    assert_eq!(json["file_bytes"], w.read("net.sparse.safetensors").len());
    let layers = json["layers"].as_array().unwrap();
    let sum = |key: &str| layers.iter().map(|l| l[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        (sum("nonzeros"), sum("weights")),
        (json["nonzeros"].as_u64().unwrap(), 456)
    );
    assert!(sum("bytes") < json["file_bytes"].as_u64().unwrap());
    let text = w.ok(&["inspect", "net.sparse.safetensors"]);
    for words in ["fc2", "bitmask", "zstd -19"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_network_of_another_making_needs_no_recipe() {
    let w = Workplace::without_network();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    let (_, names) = presets::by_name("lenet-5").unwrap();
    let network = synthetic::random_preset("lenet-5");
    let dense: Vec<_> = names
        .iter()
        .map(|(n, _)| network.tensors[n].to_dense())
        .collect();
    let foreign = [
        "0.weight", "0.bias", "3.weight", "3.bias", "7.weight", "7.bias", "9.weight", "9.bias",
    ];
    let tensors: Vec<_> = foreign
        .iter()
        .map(|n| (*n).to_owned())
        .zip(&dense)
        .collect();
    w.write("foreign.safetensors", plain_safetensors(&tensors));
    w.write_data("digits", 28, 60, 20);
    // The default recipe's 38 epochs, of two thirds of a batch each. What weights these are decides the accuracy.
    let args = [
        "foreign.safetensors",
        "--network",
        "lenet-5",
        "--data",
        "digits",
        "--max-accuracy-drop",
        "100",
    ];
    let text = w.ok(&[
        &args[..],
        &[
            "--mean",
            "0.1307",
            "--std",
            "0.3081",
            "--values",
            "f16",
            "--profile",
            "interop",
        ],
    ]
    .concat());
    assert!(text.contains("the default recipe"), "{text}");
    let loaded = read_network(w.path("foreign.sparse.safetensors"), &GraphSource::Auto).unwrap();
    assert!(
        loaded.network.tensors.contains_key("7.weight"),
        "names stay as they came"
    );
    let p = loaded.network.graph.preprocessing.unwrap();
    assert_eq!((p.mean, p.std), (vec![0.1307], vec![0.3081]));
    assert!(loaded.metadata["sparsevd.recipe"].contains("[[phase]]"));
}

#[test]
fn the_ancestors_of_the_method_run_too() {
    let w = Workplace::new();
    for alpha in ["unit", "layer"] {
        let out = format!("{alpha}.safetensors");
        let output = w.compress(&[
            "net.safetensors",
            "--alpha",
            alpha,
            "--out",
            &out,
            "--run",
            alpha,
        ]);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            w.json(&format!("{alpha}.report.json"))["recipe"]["alpha"],
            alpha
        );
    }
}

#[test]
fn help_teaches_with_examples_and_misuse_exits_2() {
    let w = Workplace::without_network();
    for args in [
        &["--help"][..],
        &["train", "--help"],
        &["sweep", "--help"],
        &["inspect", "--help"],
        &["convert", "--help"],
    ] {
        let help = w.ok(args);
        assert!(
            help.contains("Example") && help.contains("compress "),
            "{help}"
        );
    }
    for args in [
        &["--nonsense"][..],
        &[],
        &["train"],
        &["m.safetensors", "--threads", "0"],
        &["m", "--run", "a", "--resume", "b"],
        &["m", "--values", "i3"],
    ] {
        assert_eq!(w.compress(args).status.code(), Some(2), "{args:?}");
    }
    // A file named like a subcommand.
    assert_eq!(
        w.complaint(&["./train"], &["./train", "No such file"]),
        None
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let w = Workplace::without_network();
    w.write_preset("big.safetensors", "lenet-300-100");
    let binary = assert_cmd::cargo::cargo_bin("compress");
    // A limit on the size of files stands in for the disk: the write fails in the middle.
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' convert big.safetensors out.safetensors",
        binary.display()
    );
    let before = w.names();
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(w.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("out.safetensors: cannot write"), "{stderr}");
    assert_eq!(w.names(), before);
}

#[test]
fn data_without_a_split_serves_training_and_no_test_error_is_reported() {
    let w = Workplace::new();
    let set = sparsevd_format::load_data(w.path("data"))
        .unwrap()
        .train
        .unwrap();
    let Pixels::U8(pixels) = &set.pixels else {
        panic!("pixels are bytes");
    };
    let labels: Vec<u8> = set.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], data| {
        safetensors::tensor::TensorView::new(dtype, shape.to_vec(), data).unwrap()
    };
    let arrays = [
        (
            "images",
            view(safetensors::Dtype::U8, &[set.len(), SIDE, SIDE], pixels),
        ),
        (
            "labels",
            view(safetensors::Dtype::U16, &[set.len()], &labels),
        ),
    ];
    w.write(
        "set.safetensors",
        safetensors::serialize(arrays, None).unwrap(),
    );

    let silence = "no test error is reported";
    let text = w.ok(&["net.safetensors", "--data", "set.safetensors"]);
    assert!(text.contains(silence), "{text}");
    let report = w.json("net.report.json");
    assert_eq!(report["accuracy"]["test"], Value::Null);
    assert_eq!(report["accuracy"]["validation"]["images"], 40);
    assert!(
        report["data"].as_str().unwrap().ends_with("not split"),
        "{report}"
    );
    let train = [
        "train",
        "graph.json",
        "--data",
        "set.safetensors",
        "--recipe",
        "train.toml",
        "-o",
        "again.safetensors",
    ];
    let text = w.ok(&train);
    assert!(
        text.contains(silence) && text.contains("again.safetensors"),
        "{text}"
    );

    let eval = [
        "eval",
        "net.sparse.safetensors",
        "--data",
        "set.safetensors",
    ];
    assert!(w.ok_run_sparse(&eval).contains("not split"));
    let json: Value =
        serde_json::from_str(&w.ok_run_sparse(&[&eval[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        (&json["images"], &json["part"]),
        (&Value::from(240), &Value::from("whole"))
    );
    let as_training = w.run_sparse(&[&eval[..], &["--split", "train"]].concat());
    assert_eq!(
        as_training.status.code(),
        Some(2),
        "nobody said that these are training images"
    );
}

/// The recipe with a phase on a grid after it.
fn quantising() -> String {
    format!(
        "{RECIPE}\n[[phase]]\nmethod = \"quantise\"\nepochs = 2\nbatch = 20\nlr = 1e-3\ngrid = [1.0, 2.0]\n"
    )
}

#[test]
fn a_recipe_that_quantises_writes_a_packed_file_that_runs() {
    let w = Workplace::new();
    w.write("recipe.toml", quantising());
    w.write("net.spvd", "mine");
    let args = ["net.safetensors"];
    assert_eq!(
        w.complaint(&args, &["net.spvd", "exists already", "--force"]),
        None
    );
    let text = w.ok(&["net.safetensors", "--force"]);
    for words in [
        "validation, packed",
        "test, packed",
        "packed, .spvd file",
        "bits per weight left",
        "net.spvd",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let bytes = w.read("net.spvd");
    let report = w.json("net.report.json");
    let packed = &report["packed"];
    assert_eq!(packed["bytes"], bytes.len());
    let parts = ["header", "liveness", "positions", "values", "biases"]
        .map(|part| packed[format!("{part}_bits")].as_u64().unwrap());
    assert_eq!(parts.iter().sum::<u64>(), 8 * bytes.len() as u64);
    assert!(bytes.len() * 3 < w.read("net.sparse.safetensors").len());

    let eval = |file: &str| -> Value {
        let text = w.ok_run_sparse(&["eval", file, "--data", "data", "--json"]);
        serde_json::from_str(&text).unwrap()
    };
    assert_eq!(
        packed["test"]["sparse_percent"],
        eval("net.spvd")["error_percent"]
    );
    assert_eq!(
        report["accuracy"]["test"]["sparse_percent"],
        eval("net.sparse.safetensors")["error_percent"]
    );

    // Either file may be named, and the other lies beside it.
    w.ok(&[
        "net.safetensors",
        "--out",
        "other.spvd",
        "--run",
        "other.run",
    ]);
    assert!(w.read("other.spvd") == bytes);
    assert!(w.read("other.sparse.safetensors") == w.read("net.sparse.safetensors"));

    let text = w.ok(&["inspect", "net.spvd"]);
    for words in [
        "fc2",
        "packed, .spvd file",
        "positions",
        "times fewer",
        "bits per weight left: ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: Value = serde_json::from_str(&w.ok(&["inspect", "net.spvd", "--json"])).unwrap();
    assert_eq!(json["file_bytes"], bytes.len());
    assert_eq!(json["packed"]["positions_bits"], parts[2]);
    let per_weight = json["packed"]["values_bits_per_weight"].as_f64().unwrap();
    let values = json["packed"]["values_bits"].as_f64().unwrap();
    assert_eq!(per_weight, values / json["nonzeros"].as_f64().unwrap());
    assert_eq!(json["weights"], 456);
    let text = w.ok(&["inspect", "net.sparse.safetensors"]);
    assert!(text.contains("packed, .spvd file"), "{text}");
    let text = w.ok(&["inspect", "net.safetensors"]);
    assert!(!text.contains("packed"), "not on a grid: {text}");
}

#[test]
fn packed_files_are_made_and_undone_by_convert() {
    let w = Workplace::new();
    w.write("recipe.toml", quantising());
    w.ok(&["net.safetensors"]);
    let read = |name: &str| {
        read_network(w.path(name), &GraphSource::Auto)
            .unwrap()
            .network
    };
    let sparse = "net.sparse.safetensors";
    for (args, to) in [
        (&[sparse, "again.spvd"][..], "again.spvd"),
        (&[sparse, "kept.spvd", "--keep-unit-order"], "kept.spvd"),
        (&[sparse, "large.spvd", "--packing", "large"], "large.spvd"),
        (
            &["large.spvd", "small.spvd", "--packing", "small"],
            "small.spvd",
        ),
        (&["large.spvd", "auto.spvd"], "auto.spvd"),
        (&["kept.spvd", "back.safetensors"], "back.safetensors"),
        (
            &["kept.spvd", "i8.safetensors", "--values", "i8"],
            "i8.safetensors",
        ),
        (
            &["i8.safetensors", "more.spvd", "--keep-unit-order"],
            "more.spvd",
        ),
    ] {
        let text = w.ok(&[&["convert"][..], args].concat());
        assert!(text.contains(to), "{text}");
    }
    for small in ["again.spvd", "small.spvd", "auto.spvd"] {
        assert!(w.read(small) == w.read("net.spvd"), "{small}");
    }
    assert!(w.read("more.spvd") == w.read("kept.spvd"), "there and back");
    let network = read(sparse);
    assert!(!network.steps.is_empty());
    for name in [
        "kept.spvd",
        "large.spvd",
        "back.safetensors",
        "i8.safetensors",
    ] {
        assert_eq!(read(name), network, "{name}");
    }
    let cut = w.read("net.spvd");
    w.write("cut.spvd", &cut[..cut.len() - 3]);
    assert_eq!(w.complaint(&["inspect", "cut.spvd"], &["cut.spvd"]), None);
    let run = w.run_sparse(&["plan", "cut.spvd"]);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.lines().count() == 1 && stderr.contains("cut.spvd"),
        "{stderr}"
    );
    let named = ["inspect", "net.spvd", "--network", "lenet-5"];
    assert_eq!(w.complaint(&named, &["net.spvd", "has its own"]), None);
}
