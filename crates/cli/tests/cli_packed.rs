//! Packed files and bytes by the real `compress`: made by a recipe, converted both ways, inspected.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::Value;
use sparsevd_format::{GraphSource, read_network};

use synthetic::{RECIPE, SIDE, Workplace};

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
    assert!(!network.scales.is_empty());
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

#[test]
fn a_sparse_file_off_any_grid_is_rounded_or_trained_onto_one() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let sparse = "net.sparse.safetensors";
    let off = w.complaint(
        &["convert", sparse, "x.spvd"],
        &["net.sparse.safetensors", "`fc1.", "off any grid", "--grid"],
    );
    assert_eq!(off, None);
    let wrong = |file: &str| -> f64 {
        let text = w.ok_run_sparse(&["eval", file, "--data", "data", "--json"]);
        let json: Value = serde_json::from_str(&text).unwrap();
        json["error_percent"].as_f64().unwrap()
    };
    let text = w.ok(&["convert", sparse, "rounded.spvd", "--grid"]);
    assert!(text.contains("moved outputs by about"), "{text}");
    let train = [
        "convert",
        sparse,
        "trained.spvd",
        "--grid",
        "--data",
        "data",
    ];
    let output = w.compress(&train);
    // The samples of the small set are too few for a verdict on half a point.
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "test  ",
        "wrote trained.spvd (",
        "the quantise phase of the default recipe",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for packed in ["rounded.spvd", "trained.spvd"] {
        assert!(wrong(packed) <= wrong(sparse) + 2.0, "{packed}");
    }
    // One file and the report, and the run that is finished.
    let names = w.names();
    let mine = names.iter().filter(|name| name.starts_with("trained."));
    let files = [
        "trained.grid.report.json",
        "trained.grid.run",
        "trained.spvd",
    ];
    assert_eq!(mine.collect::<Vec<_>>(), files);
    assert!(!w.path("trained.grid.run/checkpoint.safetensors").exists());
    let report = w.json("trained.grid.report.json");
    assert_eq!(report["history"][0]["method"], "quantise");
    assert!(
        report["accuracy"]["promise"]["verdict"].is_string(),
        "{report}"
    );
    // Zeros stay, and units without weights leave.
    let left = |file: &str| {
        read_network(w.path(file), &GraphSource::Auto)
            .unwrap()
            .network
            .nonzeros()
    };
    assert!(left("trained.spvd") <= left(sparse));
    for (args, words) in [
        (&["--data", "data"][..], "--grid"),
        (&["--grid", "--scale", "1"], "--data"),
        (
            &["--grid", "--data", "data", "--packing", "large"],
            "--packing",
        ),
    ] {
        let args = [&["convert", sparse, "x.spvd"], args].concat();
        let refused = w.compress(&args);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    let refused = |args: &[&str], words: &[&str]| {
        assert_eq!(w.complaint(&[&["convert"], args].concat(), words), None);
    };
    refused(
        &[sparse, "x.onnx", "--grid", "--data", "data"],
        &["--data", "x.onnx"],
    );
    refused(
        &[sparse, "rounded.spvd", "--grid"],
        &["rounded.spvd", "--force, or name another output"],
    );
}

#[test]
fn training_onto_grids_leaves_other_files_and_runs() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let files = [
        "net.safetensors",
        "net.sparse.safetensors",
        "net.report.json",
        "net.run/checkpoint.safetensors",
    ];
    let before = files.map(|file| w.read(file));
    let sparse = "net.sparse.safetensors";
    let train = ["convert", sparse, "net.spvd", "--grid", "--data", "data"];
    // The verdict on so few samples goes to stderr.
    let train_with = |more: &[&str]| {
        let output = w.compress(&[&train[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    train_with(&[]);
    let first = w.read("net.spvd");
    assert_eq!(w.complaint(&train, &["net.spvd", "exists already"]), None);
    w.write("net.spvd", "older");
    train_with(&["--force"]);
    assert!(w.read("net.spvd") == first);
    for output in [sparse, "./net.sparse.safetensors"] {
        for more in [&["--grid", "--data", "data"][..], &["--values", "f16"]] {
            let args = [&["convert", sparse, output, "--force"], more].concat();
            assert_eq!(
                w.complaint(&args, &["net.sparse.safetensors", "not read itself"]),
                None
            );
        }
    }
    for (file, before) in files.iter().zip(before) {
        assert!(w.read(file) == before, "{file}");
    }
}

#[cfg(unix)]
#[test]
fn training_onto_grids_goes_on_by_the_same_command() {
    let w = Workplace::new();
    // Long enough to be interrupted.
    w.write_data("data", SIDE, 24_000, 60);
    let convert = |out: &str| -> Vec<String> {
        let args = ["convert", "net.safetensors", out, "--grid", "--data"];
        args.iter()
            .map(|&a| a.to_owned())
            .chain(["data".into()])
            .collect()
    };
    let straight = w.compress(&convert("straight.spvd"));
    assert!(straight.stderr.is_empty(), "{straight:?}");
    w.write("resumed.spvd", "older");
    let checkpoint = w.path("resumed.grid.run/checkpoint.safetensors");
    let args = [&convert("resumed.spvd")[..], &["--force".to_owned()]].concat();
    let command = w.interrupted(&args, "resumed.grid.run/checkpoint.safetensors");
    assert!(
        command.ends_with("convert net.safetensors resumed.spvd --grid --data data --force"),
        "{command}"
    );
    assert_eq!(w.read("resumed.spvd"), b"older");
    // It is no run of another command, and goes on with its own data and network only.
    let refused = |args: &[&str], words: &[&str]| assert_eq!(w.complaint(args, words), None);
    refused(
        &["net.safetensors", "--resume", "resumed.grid.run"],
        &["resumed.grid.run", "`compress MODEL`", "`compress convert`"],
    );
    refused(&["sweep", "resumed.grid.run"], &["`compress convert`"]);
    w.write_data("other", SIDE, 240, 60);
    let other = [
        "convert",
        "net.safetensors",
        "resumed.spvd",
        "--grid",
        "--force",
    ];
    let anew = "remove the folder to begin anew";
    refused(
        &[&other[..], &["--data", "other"]].concat(),
        &["resumed.grid.run", "other", anew],
    );
    w.ok(&["init", "mlp:36,12,2", "--out", "another.safetensors"]);
    let network = [
        "convert",
        "another.safetensors",
        "resumed.spvd",
        "--grid",
        "--force",
    ];
    refused(
        &[&network[..], &["--data", "data"]].concat(),
        &["resumed.grid.run", "of this network", anew],
    );
    // Exactly what it said, in a shell.
    let shell = w.shell(&command);
    assert_eq!(shell.status.code(), straight.status.code(), "{shell:?}");
    assert!(w.read("straight.spvd") == w.read("resumed.spvd"));
    assert!(!checkpoint.exists());
    let log = String::from_utf8(w.read("resumed.grid.run/training.log")).unwrap();
    let straight = String::from_utf8(w.read("straight.grid.run/training.log")).unwrap();
    let epochs = |log: &str| {
        log.lines()
            .filter(|l| l.contains("validation error"))
            .count()
    };
    assert_eq!(epochs(&log), epochs(&straight), "{log}");
}
