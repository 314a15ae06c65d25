//! The real `compress`, from training to a file that runs, and misused.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::Value;
use sparsevd_format::{GraphSource, Pixels, read_network};
use sparsevd_model::presets;

use synthetic::{RECIPE, SIDE, Workplace, idx, plain_safetensors};

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
    let frames = std::fs::read_dir(w.path("net.run/frames")).unwrap().count();
    assert_eq!(
        frames, 13,
        "before training, in the first epochs, after each"
    );
}

#[test]
fn a_page_about_the_run_lies_beside_the_result() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let read = |name: &str| String::from_utf8(w.read(name)).unwrap();
    let page = read("net.report.html");
    assert!(page.contains("<title>net</title>"));
    let without_picture = r#""picture":null"#;
    assert!(!page.contains(without_picture));
    // The run folder says all of the run.
    let text = w.ok(&[
        "report",
        "net.run",
        "--html",
        "page.html",
        "--gif",
        "net.gif",
    ]);
    assert!(text.contains("wrote page.html (") && text.contains("wrote net.gif ("));
    assert_eq!(read("page.html"), page);
    let again = ["report", "net.run"];
    let exists = ["net.report.html: exists already", "--force"];
    assert_eq!(w.complaint(&again, &exists), None);
    w.ok(&[
        "report",
        "net.report.json",
        "--html",
        "page.html",
        "--force",
    ]);
    assert!(read("page.html").contains(without_picture), "of a report");
    // A network that is pruned in one shot has no part in the run of that name.
    w.write("bare/net.safetensors", w.read("net.safetensors"));
    let prune = |more: &[&str]| {
        let prune = [
            "bare/net.safetensors",
            "--method",
            "magnitude",
            "--sparsity",
            "0.5",
        ];
        w.ok(&[&prune, more].concat());
    };
    prune(&["--out", "half.sparse.safetensors"]);
    assert!(read("half.report.html").contains(without_picture));
    prune(&["--out", "none.sparse.safetensors", "--no-report"]);
    assert!(!w.path("none.report.html").exists());
    // A network says what it is without its run.
    let sparse = "net.sparse.safetensors";
    w.ok(&["report", sparse, "--png", "net.png"]);
    assert_eq!(&w.read("net.png")[1..4], b"PNG");
    let of_file = read("net.sparse.safetensors.report.html");
    assert!(!of_file.contains(without_picture));
    let inspected: Value = serde_json::from_str(&w.ok(&["inspect", sparse, "--json"])).unwrap();
    let left = format!(r#""nonzeros":{},"#, inspected["nonzeros"]);
    assert!(of_file.contains(&left), "{left}");
    assert!(of_file.contains(r#""recipe_source":"stored with the network""#));
    assert!(of_file.contains(r#""plan":"sparse","batch":64"#), "speed");
    let no_frames = ["--gif: expected the folder of a run with frames, or a network"];
    let gif = [
        "report",
        "net.report.json",
        "--html",
        "p.html",
        "--gif",
        "no.gif",
    ];
    assert_eq!(w.complaint(&gif, &no_frames), None);
    std::fs::remove_file(w.path("net.run/report.json")).unwrap();
    let unfinished = ["net.run: expected the folder of a finished run"];
    assert_eq!(
        w.complaint(&["report", "net.run", "--force"], &unfinished),
        None
    );
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
            &[net, "--validation", "0.95"],
            &["validation", "0.000001 to 0.9", "got 0.95"],
        ),
        (
            &[net, "--validation", "nowhere"],
            &["nowhere", "No such file"],
        ),
        (
            &[net, "--validation-from-test", "60"],
            &["more than 60 test images"],
        ),
        (
            &[net, "--max-class-drop", "-1"],
            &["max_class_drop", "got -1"],
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
            &["shape of a sample", "[1, 6, 6]", "[1, 7, 7]"],
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
            &["lenet-6", "lenet-300-100, lenet-5", "did you mean lenet-5?"],
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
            &[
                "lenet-6",
                "presets lenet-300-100, lenet-5",
                "did you mean lenet-5?",
            ],
        ),
        (
            &["train", "lenet-5", "--data", "data"],
            &["shape of a sample", "[1, 28, 28]", "[1, 6, 6]"],
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
fn too_few_samples_are_undecided_and_what_would_decide_is_said() {
    let w = Workplace::new();
    let output = w.compress(&["net.safetensors", "--max-accuracy-drop", "0.5", "--quiet"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let words = "40 samples are too few to tell, about 200 would decide";
    assert!(
        stderr.contains("accuracy promise is undecided") && stderr.contains(words),
        "{stderr}"
    );
    let promise = &w.json("net.report.json")["accuracy"]["promise"];
    assert_eq!(
        [
            &promise["verdict"],
            &promise["kept"],
            &promise["samples_needed"]
        ],
        [&Value::from("undecided"), &false.into(), &200.into()]
    );
}

#[test]
fn validation_samples_and_classes_are_options() {
    let w = Workplace::new();
    let args = [
        "net.safetensors",
        "--validation-from-test",
        "40",
        "--max-class-drop",
        "10",
        "--class-weights",
        "balanced",
        "--json",
    ];
    let report: Value = serde_json::from_str(&w.ok(&args)).unwrap();
    let accuracy = &report["accuracy"];
    assert_eq!(accuracy["validation"]["images"], 40);
    assert_eq!(accuracy["test"]["images"], 20);
    assert_eq!(accuracy["promise"]["max_class_drop"], 10.0);
    let classes = accuracy["validation_classes"].as_array().unwrap();
    let images: u64 = classes.iter().map(|c| c["images"].as_u64().unwrap()).sum();
    assert_eq!((classes.len(), images), (2, 40));
    assert_eq!(report["recipe"]["class_weights"], "balanced");
    assert_eq!(report["recipe"]["validation"]["from_test"], 40);
    let share = [
        "net.safetensors",
        "--validation",
        "0.25",
        "--force",
        "--json",
    ];
    let report: Value = serde_json::from_str(&w.ok(&share)).unwrap();
    assert_eq!(report["accuracy"]["validation"]["images"], 60);
}

#[test]
fn tensors_under_other_names_are_matched_by_order() {
    let w = Workplace::without_network();
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
    // What weights these are decides the accuracy.
    let args = [
        "foreign.safetensors",
        "--network",
        "lenet-5",
        "--data",
        "digits",
        "--max-accuracy-drop",
        "100",
    ];
    let more = [
        "--mean",
        "0.1307",
        "--std",
        "0.3081",
        "--values",
        "f16",
        "--profile",
        "interop",
    ];
    let output = w.compress(&[&args[..], &more].concat());
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "warning: foreign.safetensors: the tensors were matched with network `lenet-5` by their order and shapes: \
         0.weight to conv1, 3.weight to conv2, 7.weight to fc1, 9.weight to fc2\n"
    );
    let loaded = read_network(w.path("foreign.sparse.safetensors"), &GraphSource::Auto).unwrap();
    assert!(
        loaded.network.tensors.contains_key("7.weight"),
        "names stay as they came"
    );
    let p = loaded.network.graph.preprocessing.unwrap();
    assert_eq!((p.mean, p.std), (vec![0.1307], vec![0.3081]));
}

#[test]
fn a_network_without_a_recipe_follows_the_default_one() {
    let w = Workplace::new();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    let few = ["--max-accuracy-drop", "5"];
    let text = w.ok(&[&["net.safetensors", "--data", "data"][..], &few].concat());
    assert!(text.contains("the default recipe"), "{text}");
    let file = w.path("net.sparse.safetensors");
    let loaded = read_network(file, &GraphSource::Auto).unwrap();
    let recipe = &loaded.metadata["sparsevd.recipe"];
    assert_eq!(recipe.matches("[[phase]]").count(), 4, "{recipe}");
    assert!(
        !recipe.contains("[search]"),
        "of the result alone: {recipe}"
    );
    assert!(w.path("net.spvd").is_file(), "packed by default");
    assert!(text.contains("the result"), "the tries are told: {text}");
    assert!(loaded.network.nonzeros() * 4 < 456, "{text}");
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
        &["compare", "--help"],
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
