//! `compress init`, pruning by magnitude and by a posterior from elsewhere: with the real binaries.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::collections::BTreeMap;
#[cfg(target_os = "linux")]
use std::process::Command;

#[cfg(target_os = "linux")]
use assert_cmd::cargo::cargo_bin;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use sparsevd_format::{GraphSource, read_network};
use sparsevd_model::presets;
use sparsevd_model::quantised::nearest_scale;
use sparsevd_testing::arbitrary::Stream;
use synthetic::{SIDE, Workplace};

#[test]
fn presets_are_written_with_seeded_weights_and_run() {
    let w = Workplace::without_network();
    for (name, out, input) in [
        ("lenet-300-100", "a.safetensors", None),
        ("resnet-20", "b.onnx", Some("1,28,28")),
        ("mlp:16,12,8,4", "d.safetensors", None),
        ("mobilenet-v1", "c.safetensors", Some("3,32,32")),
    ] {
        let mut args = vec!["init", name, "--seed", "5", "--out", out];
        args.extend(input.iter().flat_map(|i| ["--input", i]));
        w.ok(&args);
        let first = w.read(out);
        args.push("--force");
        w.ok(&args);
        assert_eq!(w.read(out), first, "the same seed gives the same bytes");
        args[3] = "6";
        w.ok(&args);
        assert_ne!(w.read(out), first, "another seed gives others");
        let plan: Value = serde_json::from_str(&w.ok_run_sparse(&["plan", out, "--json"])).unwrap();
        assert!(plan["nodes"].as_array().unwrap().len() >= 3, "{name}");
    }
    let complaints: Vec<String> = [
        (
            &["init", "lenet-6", "--out", "d.onnx"][..],
            &["lenet-6", "resnet-50", "did you mean lenet-5?"][..],
        ),
        (
            &["init", "mlp:784", "--out", "d.onnx"],
            &["mlp:784,300,100,10", "got mlp:784"],
        ),
        (
            &["init", "lenet-5", "--input", "1,28,28", "--out", "d.onnx"],
            &["--input"],
        ),
        (
            &["init", "resnet-20", "--input", "28,28", "--out", "d.onnx"],
            &["--input", "1,28,28"],
        ),
        (
            &["init", "lenet-5", "--out", "d.spvd"],
            &["d.spvd", ".onnx"],
        ),
        (
            &["init", "lenet-5", "--out", "a.safetensors"],
            &["exists already"],
        ),
    ]
    .into_iter()
    .filter_map(|(args, words)| w.complaint(args, words))
    .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_result_can_do_without_times() {
    let w = Workplace::without_network();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    w.ok(&["init", "lenet-300-100", "--out", "r.safetensors"]);
    let prune = |out: &str, more: &[&str]| {
        let prune = ["r.safetensors", "--method", "magnitude", "--sparsity"];
        w.ok(&[&prune, &["0.9", "--force", "--out", out], more].concat())
    };
    let text = prune("timed.safetensors", &[]);
    assert!(text.contains("p50 us"), "{text}");
    let timed = w.json("timed.report.json");
    for timing in timed["timings"].as_array().unwrap() {
        assert!(timing["runs"].as_u64() >= Some(3), "{timing}");
    }
    let text = prune("bare.safetensors", &["--no-bench"]);
    assert!(text.contains("not timed"), "{text}");
    assert!(!text.contains("p50 us"), "{text}");
    let bare = w.json("bare.report.json");
    assert_eq!(bare["timings"], Value::Null);
    assert_eq!(bare["kernels"], timed["kernels"]);
    assert_eq!(w.read("bare.safetensors"), w.read("timed.safetensors"));
    assert_eq!(w.read("bare.spvd"), w.read("timed.spvd"));
    let page = String::from_utf8(w.read("bare.report.html")).unwrap();
    assert!(page.contains(r#""timings":null"#));
    // The page of the report, and that of a network.
    w.ok(&["report", "bare.report.json", "--html", "again.html"]);
    assert!(w.path("again.html").exists());
    let of_network = [
        "report",
        "bare.spvd",
        "--html",
        "network.html",
        "--no-bench",
    ];
    w.ok(&of_network);
    let page = String::from_utf8(w.read("network.html")).unwrap();
    assert!(page.contains(r#""timings":null"#));
    let useless = ["convert", "bare.spvd", "b.safetensors", "--no-bench"];
    let refused = w.compress(&useless);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--data"));
}

/// The processor, not the clock, so that other work does not count.
#[cfg(target_os = "linux")]
#[test]
fn without_times_a_result_takes_no_time_for_them() {
    let w = Workplace::without_network();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    w.ok(&["init", "lenet-300-100", "--out", "r.safetensors"]);
    let command = r#""$0" r.safetensors --method magnitude --sparsity 0.9 --no-bench >&2 && times"#;
    let done = Command::new("sh")
        .args(["-c", command])
        .arg(cargo_bin("compress"))
        .current_dir(w.path("."))
        .output()
        .unwrap();
    // Minutes and seconds of the shell, then of what it started, each in user mode and in the kernel.
    let text = String::from_utf8(done.stdout).unwrap();
    let of_children = text.lines().nth(1).unwrap().split_whitespace();
    let seconds: f64 = of_children
        .map(|time| {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
            60.0 * minutes.parse::<f64>().unwrap() + seconds.parse::<f64>().unwrap()
        })
        .sum();
    // Two plans at two batches would add 0.8 s.
    assert!(seconds < 0.6 || cfg!(debug_assertions), "{text}");
}

#[test]
fn magnitude_prunes_in_one_shot_without_data() {
    let w = Workplace::without_network();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    w.ok(&[
        "init",
        "resnet-20",
        "--input",
        "1,28,28",
        "--seed",
        "1",
        "--out",
        "r.onnx",
    ]);
    let text = w.ok(&[
        "r.onnx",
        "--method",
        "magnitude",
        "--sparsity",
        "0.9",
        "--scope",
        "layer",
    ]);
    assert!(
        text.contains("pruned by magnitude: 90.00 % of each layer"),
        "{text}"
    );
    assert!(text.contains("no error is reported"), "{text}");
    let report = w.json("r.report.json");
    assert_eq!(report["accuracy"], Value::Null);
    assert_eq!(report["pruning"]["method"], "magnitude");
    // The packed file has the weights rounded.
    assert!(
        text.contains("r.spvd") && text.contains("moved outputs by about"),
        "{text}"
    );
    assert_eq!(report["packed"]["bytes"], w.read("r.spvd").len());
    let error = report["packed"]["rounding_error"].as_f64().unwrap();
    assert!((0.01..0.06).contains(&error), "{error}");
    w.ok_run_sparse(&["plan", "r.spvd"]);
    assert_eq!(report["pruning"]["scope"], "layer");
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers[0]["density"], 1.0, "the first convolution stays");
    for layer in &layers[1..] {
        assert!(
            (layer["density"].as_f64().unwrap() - 0.1).abs() < 2e-3,
            "{layer}"
        );
    }
    let sparse = w.ok(&["inspect", "r.sparse.safetensors", "--json"]);
    let sparse: Value = serde_json::from_str(&sparse).unwrap();
    assert_eq!(sparse["nonzeros"], report["nonzeros"]);
    assert!(
        !w.names().contains(&"r.run".to_owned()),
        "nothing was trained"
    );
    w.ok(&[
        "convert",
        "r.sparse.safetensors",
        "back.onnx",
        "--sparse-initializers",
    ]);
    w.ok_run_sparse(&["plan", "back.onnx"]);

    let complaints: Vec<String> = [
        (
            &[
                "r.onnx",
                "--method",
                "magnitude",
                "--sparsity",
                "1.5",
                "--out",
                "x.safetensors",
            ][..],
            &["sparsity", "1.5"][..],
        ),
        (
            &[
                "r.onnx",
                "--method",
                "sparse-vd",
                "--sparsity",
                "0.5",
                "--out",
                "x.safetensors",
            ],
            &["--sparsity", "magnitude"],
        ),
        (
            &[
                "r.onnx",
                "--method",
                "magnitude",
                "--sparsity",
                "0.5",
                "--out",
                "x.onnx",
            ],
            &["x.onnx", "convert"],
        ),
    ]
    .into_iter()
    .filter_map(|(args, words)| w.complaint(args, words))
    .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_calibration_prunes_without_training_and_says_what_it_needs() {
    let w = Workplace::new();
    let calibrate = [
        "net.safetensors",
        "--calibrate",
        "30",
        "--sparsity",
        "0.5",
        "--max-accuracy-drop",
        "60",
    ];
    // The recipe beside the model names data; its phases are not run.
    let text = w.ok(&[&calibrate[..], &["--out", "c.safetensors"]].concat());
    assert!(
        text.contains("pruned by calibration on 30 samples: 50.00 % of the pruned layers together"),
        "{text}"
    );
    let report = w.json("c.report.json");
    assert_eq!(report["history"].as_array().unwrap().len(), 0);
    assert_eq!(report["pruning"]["method"], "calibration");
    assert_eq!(report["pruning"]["samples"], 30);
    let (left, all) = (
        report["nonzeros"].as_u64().unwrap(),
        report["weights"].as_u64().unwrap(),
    );
    assert!(left <= all / 2 + 1, "{left} of {all}");
    assert!(report["accuracy"]["validation"]["sparse_percent"].is_number());
    // A recipe that is named is trained after it.
    w.write(
        "tune.toml",
        "data = \"data\"\nvalidation = 40\n[[phase]]\nmethod = \"fine-tune\"\nepochs = 1\n",
    );
    w.ok(&[
        &calibrate[..],
        &["--out", "t.safetensors", "--recipe", "tune.toml"],
    ]
    .concat());
    assert_eq!(
        w.json("t.report.json")["history"].as_array().unwrap().len(),
        1
    );
    let complaints: Vec<String> = [
        (
            &[
                "net.safetensors",
                "--calibrate",
                "--sparsity",
                "0.5",
                "--keep-dense",
                "fc9",
            ][..],
            &["keep_dense", "the name of a layer, of ", "got fc9"][..],
        ),
        (
            &["net.safetensors", "--calibrate", "--sparsity", "1.5"][..],
            &["sparsity", "below 1, got 1.5"][..],
        ),
        (
            &["net.safetensors", "--sparsity", "0.5"],
            &["--sparsity", "--calibrate", "neither"],
        ),
    ]
    .into_iter()
    .filter_map(|(args, words)| w.complaint(args, words))
    .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn magnitude_reports_errors_and_fine_tunes_where_it_can() {
    let w = Workplace::new();
    let prune = [
        "net.safetensors",
        "--method",
        "magnitude",
        "--sparsity",
        "0.7",
        "--max-accuracy-drop",
        "60",
    ];
    // The recipe beside the model names data and has one epoch of fine-tuning.
    w.ok(&[&prune[..], &["--out", "tuned.safetensors"]].concat());
    let report = w.json("tuned.report.json");
    assert_eq!(report["history"].as_array().unwrap().len(), 1);
    assert_eq!(report["history"][0]["method"], "fine-tune");
    assert!(report["accuracy"]["validation"]["dense_percent"].is_number());
    let (left, all) = (
        report["nonzeros"].as_u64().unwrap(),
        report["weights"].as_u64().unwrap(),
    );
    assert!(
        left <= all * 3 / 10 + 1,
        "{left} of {all}: fine-tuning brings nothing back"
    );
    let source = report["recipe_source"].as_str().unwrap();
    assert!(
        source.ends_with("recipe.toml, without phase 1 (sparse-vd)"),
        "{source}"
    );
    // A recipe that is named is followed to the letter, or refused by name.
    w.write(
        "tune.toml",
        "data = \"data\"\nvalidation = 40\n[[phase]]\nmethod = \"fine-tune\"\nepochs = 1\ndistil = 0.5\nweights = 9\n\
         [[phase]]\nmethod = \"quantise\"\nepochs = 1\n",
    );
    let complaint = w.complaint(
        &[
            &prune[..],
            &["--recipe", "tune.toml", "--out", "x.safetensors"],
        ]
        .concat(),
        &["tune.toml", "`weights` of phase 1 (fine-tune)"],
    );
    assert_eq!(complaint, None);
    // Gradual pruning takes the epochs of Sparse VD, to a number of weights that the recipe must have.
    let fisher = [
        "net.safetensors",
        "--method",
        "fisher",
        "--out",
        "f.safetensors",
        "--force",
    ];
    assert_eq!(
        w.complaint(&fisher, &["weights: expected a ratio or a number"]),
        None
    );
    let recipe = synthetic::RECIPE.replace("epochs = 1\n", "epochs = 1\nweights = 60\n");
    w.write("recipe.toml", recipe);
    w.ok(&[&fisher[..], &["--max-accuracy-drop", "60"]].concat());
    let report = w.json("f.report.json");
    assert_eq!(report["history"].as_array().unwrap().len(), 7);
    assert_eq!(report["history"][0]["method"], "fine-tune");
    assert!(report["nonzeros"].as_u64().unwrap() <= 60);
    // Data alone: the weights that are left settle on grids.
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    w.ok(&[
        &prune[..],
        &["--data", "data", "--out", "shot.spvd", "--run", "shot.run"],
    ]
    .concat());
    let report = w.json("shot.report.json");
    assert_eq!(
        report["recipe_source"],
        "the quantise phase of the default recipe"
    );
    assert_eq!(report["history"][0]["method"], "quantise");
    assert!(report["accuracy"]["test"]["sparse_percent"].is_number());
    assert!(report["nonzeros"].as_u64().unwrap() <= all * 3 / 10 + 1);
    assert_eq!(report["packed"]["rounding_error"], Value::Null);
    w.ok_run_sparse(&["eval", "shot.spvd", "--data", "data"]);
}

/// Means of one and noise by unit, as a file from elsewhere.
fn write_posterior(w: &Workplace, name: &str) {
    let (_, shapes) = presets::mlp("net", [1, SIDE, SIDE].into(), &[12, 2]);
    let mut stream = Stream(4);
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    for (tensor, shape) in &shapes {
        let values = stream.floats(shape.elements());
        let dims = shape.dims().to_vec();
        match tensor.strip_suffix(".weight") {
            None => {
                tensors.insert(tensor.clone(), (dims, bytes(&values)));
            }
            Some(stem) => {
                // The first half of the units of the first layer is all noise.
                let cols = dims[1];
                let noise = |i: usize| {
                    if stem == "fc1" && i / cols < 6 {
                        7.0
                    } else {
                        -1.0
                    }
                };
                let noise: Vec<f32> = (0..values.len()).map(noise).collect();
                tensors.insert(format!("{stem}.theta"), (dims.clone(), bytes(&values)));
                tensors.insert(format!("{stem}.log_alpha"), (dims, bytes(&noise)));
            }
        }
    }
    let views = tensors
        .iter()
        .map(|(n, (dims, data))| (n, TensorView::new(Dtype::F32, dims.clone(), data).unwrap()));
    std::fs::write(w.path(name), safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_posterior_from_elsewhere_is_thresholded_and_compacted() {
    let w = Workplace::new();
    std::fs::remove_file(w.path("recipe.toml")).unwrap();
    write_posterior(&w, "p.safetensors");
    let text = w.ok(&["net.safetensors", "--posterior", "p.safetensors"]);
    assert!(
        text.contains("pruned by the posterior p.safetensors at log alpha 3"),
        "{text}"
    );
    let network = read_network(w.path("net.sparse.safetensors"), &GraphSource::Auto)
        .unwrap()
        .network;
    let weight = &network.tensors["fc1.weight"];
    assert_eq!(weight.shape().dims()[0], 6, "units without inputs leave");
    assert_eq!(
        network.original_shape("fc1.weight").dims(),
        [12, SIDE * SIDE]
    );
    assert_eq!(network.nonzeros(), 6 * SIDE * SIDE + 12);
    let report = w.json("net.report.json");
    assert_eq!(report["pruning"]["method"], "posterior");
    // The packed file has the means on grids of one deviation, which is exp(-1/2) of the mean of every weight that is left.
    let packed = read_network(w.path("net.spvd"), &GraphSource::Auto)
        .unwrap()
        .network;
    for name in ["fc1.weight", "fc2.weight"] {
        let means = network.tensors[name].values().iter().filter(|v| **v != 0.0);
        let mut sigmas: Vec<f32> = means.map(|v| v.abs() * (-0.5_f32).exp()).collect();
        sigmas.sort_by(f32::total_cmp);
        let scale = nearest_scale(sigmas[sigmas.len() / 2], 4).unwrap();
        assert_eq!(packed.scales[name], scale, "{name}");
    }
    assert!(text.contains("moved outputs by about"), "{text}");
    w.ok_run_sparse(&["eval", "net.spvd", "--data", "data"]);
    // With data they settle there.
    let tuned = [
        "net.safetensors",
        "--posterior",
        "p.safetensors",
        "--data",
        "data",
        "--out",
        "tuned.spvd",
        "--max-accuracy-drop",
        "100",
    ];
    w.ok(&tuned);
    let report = w.json("tuned.report.json");
    assert_eq!(report["history"][0]["method"], "quantise");
    let tuned = read_network(w.path("tuned.spvd"), &GraphSource::Auto)
        .unwrap()
        .network;
    assert_eq!(tuned.scales, packed.scales);
    // Nothing is over a threshold that high.
    w.ok(&[
        "net.safetensors",
        "--posterior",
        "p.safetensors",
        "--threshold",
        "7.5",
        "--force",
    ]);
    let network = read_network(w.path("net.sparse.safetensors"), &GraphSource::Auto)
        .unwrap()
        .network;
    assert_eq!(network.nonzeros(), network.original_weights());
    let complaint = w.complaint(
        &[
            "net.safetensors",
            "--posterior",
            "net.safetensors",
            "--out",
            "x.safetensors",
        ],
        &["net.safetensors", "NAME.theta"],
    );
    assert_eq!(complaint, None);
}
