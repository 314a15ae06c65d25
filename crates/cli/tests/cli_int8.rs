//! `compress quantise-activations`, and what the other commands make of its files.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::path::Path;

use serde_json::Value;
use sparsevd_format::{
    GraphSource, WriteOptions, read_network, read_packed, write_network, write_npz,
};
use sparsevd_testing::arbitrary::Stream;

use synthetic::{SIDE, Workplace};

fn root(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join(path).to_str().unwrap().to_owned()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn lenet_5_in_bytes_answers_as_in_f32() {
    let place = Workplace::new();
    let (model, mnist) = (
        root("models/lenet-5/sparse.safetensors"),
        root("data/mnist"),
    );
    let out = "q.safetensors";
    let args = [
        "quantise-activations",
        &model,
        "--data",
        &mnist,
        "--out",
        out,
        "--json",
    ];
    let report = json(&place.ok(&args));
    assert_eq!(report["samples"], 128);
    assert_eq!(report["held_out"], 1000);
    assert_eq!(report["int8_layers"], 4, "{report}");
    assert!(
        report["agreement"]["top1"].as_f64().unwrap() >= 0.995,
        "{report}"
    );
    assert!(
        report["agreement"]["error"].as_f64().unwrap() < 0.05,
        "{report}"
    );
    assert!(report["agreement"]["mean"].as_f64() <= report["agreement"]["largest"].as_f64());
    let layers = report["layers"].as_array().unwrap();
    let names: Vec<&str> = layers.iter().map(|l| l["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["conv1", "conv2", "fc1", "fc2"]);
    for layer in layers {
        assert!(layer["kept_f32"].is_null(), "{layer}");
        assert!(layer["error"].as_f64().unwrap() > 0.0, "{layer}");
        assert!(
            layer["held_out"]["top1"].as_f64().unwrap() >= 0.99,
            "{layer}"
        );
    }
    assert_eq!(
        report["bytes"],
        std::fs::metadata(place.path(out)).unwrap().len()
    );

    // Zeros stay zeros, and the file is what the report says.
    let read = |path: &Path| read_network(path, &GraphSource::Auto).unwrap().network;
    let (before, after) = (read(Path::new(&model)), read(&place.path(out)));
    assert_eq!(after.int8.inputs.len(), 4);
    for (name, tensor) in &before.tensors {
        let [old, new] = [tensor, &after.tensors[name]].map(|t| t.to_dense().values);
        assert!(
            old.iter().zip(&new).all(|(a, b)| *a != 0.0 || *b == 0.0),
            "{name}"
        );
    }

    // On all images, in int8 and in f32.
    let wrong = |file: &str, mode: &str| {
        let args = ["eval", file, "--data", &mnist, "--int8", mode, "--json"];
        let report = json(&place.ok_run_sparse(&args));
        report["wrong"].as_u64().unwrap().cast_signed()
    };
    let f32 = wrong(&model, "faster");
    for mode in ["always", "never"] {
        let wrong = wrong(out, mode);
        assert!(
            (wrong - f32).abs() <= 20,
            "{mode}: {wrong} wrong, {f32} in f32"
        );
    }
    let plan =
        |file: &str, mode: &str| place.ok_run_sparse(&["plan", file, "-b", "64", "--int8", mode]);
    let always = plan(out, "always");
    assert!(always.contains("4 of 4 layers multiply int8"), "{always}");
    assert_eq!(always.matches("-i8i8-").count(), 4, "{always}");
    assert!(!plan(out, "never").contains("i8i8"));
    assert!(!plan(&model, "always").contains("i8i8"));

    // Of the peak of what they multiply, layers reach a share.
    let profile = |mode: &str, more: &[&str]| {
        let args = ["profile", out, "-b", "64", "--int8", mode];
        place.ok_run_sparse(&[&args, more].concat())
    };
    let report = json(&profile("always", &["--json"]));
    let peak = report["int8_peak_gops"].as_f64().unwrap();
    for node in report["nodes"].as_array().unwrap() {
        let share = node["peak_share"].as_f64().unwrap();
        let peak = match node["is_int8"] == true {
            true => peak,
            false => report["fma_peak_gflops"].as_f64().unwrap(),
        };
        let want = node["gflops"].as_f64().unwrap() / peak;
        assert!((share - want).abs() <= 1e-9 * want, "{node}");
    }
    assert!(profile("always", &[]).contains(" GFLOP/s, int8 peak "));
    let report = json(&profile("never", &["--json"]));
    assert!(report["int8_peak_gops"].is_null(), "{report}");
    assert!(!profile("never", &[]).contains("int8 peak"));

    // Weights that move have no grids, which is said.
    for (to, option) in [("dense.safetensors", "--dense"), ("q.spvd", "--grid")] {
        let text = place.ok(&["convert", out, to, option]);
        assert!(
            text.contains("without the int8 grids of 4 layers"),
            "{text}"
        );
    }
    // ONNX has them as QuantizeLinear and DequantizeLinear, from which they come back.
    let text = place.ok(&["convert", out, "q.onnx"]);
    assert!(!text.contains("without"), "{text}");
    let text = place.ok(&["convert", "q.onnx", "back.safetensors"]);
    assert!(!text.contains("without"), "{text}");
    let back = read(&place.path("back.safetensors"));
    assert_eq!(back.int8, after.int8);
    assert_eq!(back.tensors, after.tensors);
    assert_eq!(wrong("q.onnx", "always"), wrong(out, "always"));
    let text = place.ok(&["convert", out, "again.safetensors", "--profile", "interop"]);
    assert!(!text.contains("without"), "{text}");
    assert_eq!(read(&place.path("again.safetensors")).int8, after.int8);
    place.ok(&["convert", out, "i8.safetensors", "--values", "i8"]);
    assert_eq!(read(&place.path("i8.safetensors")).int8, after.int8);
}

#[test]
fn linear_layers_take_a_scale_for_each_vector_where_asked_to() {
    let place = Workplace::new();
    let (model, mnist) = (
        root("models/lenet-5/sparse.safetensors"),
        root("data/mnist"),
    );
    let args = [
        "quantise-activations",
        &model,
        "--data",
        &mnist,
        "--dynamic",
    ];
    let report = json(&place.ok(&[&args[..], &["--out", "d.safetensors", "--json"]].concat()));
    let inputs: Vec<Value> = (report["layers"].as_array().unwrap().iter())
        .map(|layer| layer["input"].clone())
        .collect();
    assert!(
        inputs[0]["scale"].is_number() && inputs[1]["zero_point"].is_number(),
        "{inputs:?}"
    );
    assert_eq!(inputs[2..], ["per-vector", "per-vector"]);
    assert!(
        report["agreement"]["top1"].as_f64().unwrap() >= 0.995,
        "{report}"
    );
    let text = place.ok(&[&args[..], &["--out", "text.safetensors"]].concat());
    assert!(text.contains("fc1    per vector   128"), "{text}");
    let plan = |int8: &str| {
        let args = ["plan", "d.safetensors", "--batch", "64", "--int8", int8];
        let output = place.command("run-sparse").args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        plan("always").contains("4 of 4 layers multiply int8"),
        "{}",
        plan("always")
    );
    // ONNX and packed files have no place for them.
    let text = place.ok(&["convert", "d.safetensors", "d.onnx"]);
    assert!(
        text.contains("without the int8 grids of 2 layers"),
        "{text}"
    );
    let text = place.ok(&["convert", "d.safetensors", "d.spvd", "--grid"]);
    assert!(
        text.contains("without the int8 grids of 4 layers"),
        "{text}"
    );
}

#[test]
fn weights_are_trained_for_their_bytes() {
    let place = Workplace::new();
    let (model, mnist) = (
        root("models/lenet-300-100/sparse.safetensors"),
        root("data/mnist"),
    );
    let quantise = |out: &str, threads: &str| {
        let args = [
            "quantise-activations",
            &model,
            "--data",
            &mnist,
            "--epochs",
            "1",
            "--validation",
            "2000",
            "--threads",
            threads,
            "--out",
            out,
            "--json",
        ];
        json(&place.ok(&args))
    };
    let report = quantise("q.safetensors", "2");
    let training = &report["training"];
    assert_eq!(training["epochs"], 1, "{report}");
    let percent = |scores: &str, set: &str, of: &str| {
        training[scores][set][format!("{of}_percent")]
            .as_f64()
            .unwrap()
    };
    for set in ["validation", "test"] {
        let f32 = percent("rounded", set, "dense");
        assert_eq!(f32, percent("trained", set, "dense"));
        for scores in ["rounded", "trained"] {
            assert!(
                (percent(scores, set, "sparse") - f32).abs() < 0.6,
                "{report}"
            );
        }
    }
    assert_eq!(training["rounded"]["validation"]["images"], 2000);
    assert_eq!(
        training["kept"],
        percent("trained", "validation", "sparse") <= percent("rounded", "validation", "sparse")
    );
    // Nothing is left to go on with.
    assert!(!place.path("q.int8.run/checkpoint.safetensors").exists());
    quantise("one.safetensors", "1");
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(
        read("one.safetensors") == read("q.safetensors"),
        "one thread or two"
    );
}

#[test]
fn a_compression_ends_with_int8_layers_where_asked_to() {
    let place = Workplace::new();
    let args = [
        "net.safetensors",
        "--method",
        "magnitude",
        "--sparsity",
        "0.5",
        "--data",
        "data",
        "--int8",
        "--out",
        "p.safetensors",
        "--json",
    ];
    let output = place.compress(&args);
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = json(std::str::from_utf8(&output.stdout).unwrap());
    assert!(
        report["int8"]["int8_layers"].as_u64().unwrap() >= 1,
        "{report}"
    );
    assert_eq!(report["int8"]["epochs"], 0);
    let back = read_network(place.path("p.safetensors"), &GraphSource::Auto).unwrap();
    assert!(!back.network.int8.is_empty());
}

#[test]
fn a_packed_file_keeps_its_weights_and_gets_grids() {
    let place = Workplace::new();
    let (model, mnist) = (root("models/lenet-5/packed.spvd"), root("data/mnist"));
    let quantise = |out| {
        let args = ["quantise-activations", &model, "--data", &mnist, "-o", out];
        place.ok(&args)
    };
    let text = quantise("q.spvd");
    assert!(text.contains("of 4 int8 layers"), "{text}");
    let read = |path: &str| read_packed(place.path(path)).unwrap().network;
    let (before, after) = (read_packed(&model).unwrap().network, read("q.spvd"));
    assert!(!after.int8.is_empty());
    assert_eq!(after.tensors, before.tensors);
    // Twelve bytes or so for each layer.
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let more = size(&place.path("q.spvd")) - size(Path::new(&model));
    assert!(more <= 4 * 12, "{more} bytes more");

    // The interchange form has the same, and the way back too.
    quantise("q.safetensors");
    let text = place.ok(&["convert", "q.safetensors", "again.spvd"]);
    assert!(!text.contains("without"), "{text}");
    assert_eq!(read("again.spvd"), after);
    let text = place.ok(&["convert", "q.spvd", "back.safetensors"]);
    assert!(!text.contains("without"), "{text}");
    for file in ["q.spvd", "q.safetensors"] {
        let text = place.ok(&["inspect", file]);
        assert!(text.contains("zstd -19 over dense f32"), "{text}");
    }
    let eval = |file: &str| {
        let args = ["eval", file, "--data", &mnist, "--int8", "always", "--json"];
        json(&place.ok_run_sparse(&args))["wrong"].as_u64().unwrap()
    };
    assert_eq!(eval("q.spvd"), eval("back.safetensors"));
    let plan = place.ok_run_sparse(&["plan", "q.spvd", "-b", "64", "--int8", "always"]);
    assert!(plan.contains("i8i8"), "{plan}");

    // A dense weight on a grid keeps its numbers too; one on none gets one scale for all rows in a packed file.
    place.ok(&["convert", &model, "dense.safetensors", "--dense"]);
    let of_dense = |out: &str| {
        let args = [
            "quantise-activations",
            "dense.safetensors",
            "--data",
            &mnist,
        ];
        place.ok(&[&args[..], &["-o", out]].concat());
        read_network(place.path(out), &GraphSource::Auto)
            .unwrap()
            .network
    };
    let of_dense = of_dense("d.safetensors");
    assert!(!of_dense.int8.is_empty());
    for weight in of_dense.int8.rows.keys() {
        let [new, old] = [&of_dense, &before].map(|n| n.tensors[weight].to_dense());
        assert_eq!(new, old, "{weight}");
    }

    // Rows of scales of their own have no place in it, which is said.
    let sparse = root("models/lenet-5/sparse.safetensors");
    let args = ["quantise-activations", &sparse, "--data", &mnist];
    place.ok(&[&args[..], &["-o", "rows.safetensors"]].concat());
    let text = place.ok(&["convert", "rows.safetensors", "rows.spvd", "--grid"]);
    assert!(text.contains("without the int8 grids of 4"), "{text}");
}

#[test]
fn layers_stay_f32_that_are_named_or_whose_errors_are_large() {
    let place = Workplace::new();
    let network = place.write_preset("r.safetensors", "lenet-5");
    let mut network = network;
    for tensor in network.tensors.values_mut() {
        let mut stream = Stream(2);
        let dims = tensor.shape().dims().len();
        if dims > 1 {
            let mut dense = tensor.to_dense();
            let gone = dense.values.iter_mut().filter(|_| stream.unit() < 0.8);
            gone.for_each(|v| *v = 0.0);
            *tensor = sparsevd_model::Csr::from_dense(&dense).into();
        }
    }
    write_network(
        place.path("r.safetensors"),
        &network,
        &WriteOptions::default(),
    )
    .unwrap();
    let x = Stream(4).floats(200 * 28 * 28);
    write_npz(place.path("x.npz"), &[("x", &[200, 28, 28], &x)]).unwrap();
    let args = |more: &[&'static str]| {
        let args = [
            "quantise-activations",
            "r.safetensors",
            "--data",
            "x.npz",
            "--json",
            "--force",
        ];
        json(&place.ok(&[&args, more].concat()))
    };
    let report = args(&["--keep-f32", "conv2,fc1.weight", "--range", "minmax"]);
    assert_eq!(report["int8_layers"], 2, "{report}");
    assert_eq!(report["held_out"], 72);
    assert_eq!(report["layers"][1]["kept_f32"], "as asked for");
    assert_eq!(report["layers"][2]["kept_f32"], "as asked for");
    assert_eq!(report["path"], "r.int8.safetensors");
    // With hardly any error allowed nothing is left in bytes, and the file is the network as it came.
    let report = args(&["--max-error", "1e-9"]);
    assert_eq!(report["int8_layers"], 0, "{report}");
    assert_eq!(report["error"], 0.0);
    let why = report["layers"][0]["kept_f32"].as_str().unwrap();
    assert!(why.contains("error"), "{why}");
    let back = read_network(place.path("r.int8.safetensors"), &GraphSource::Auto).unwrap();
    assert_eq!(back.network, network);
    let text = place.ok(&[
        "quantise-activations",
        "r.safetensors",
        "-d",
        "x.npz",
        "-o",
        "text.safetensors",
        "--range",
        "percentile",
    ]);
    assert!(
        text.contains("of 4 int8 layers, ranges from 128 samples; on 72 others: agreement"),
        "{text}"
    );
    assert!(text.contains("wrote text.safetensors ("), "{text}");
}

#[test]
fn mistakes_are_one_clear_line() {
    let place = Workplace::new();
    let inputs = Stream(4).floats(20 * SIDE * SIDE);
    write_npz(place.path("few.npz"), &[("x", &[20, SIDE, SIDE], &inputs)]).unwrap();
    place.write("there.safetensors", "");
    let cases: [(&[&str], &[&str]); 12] = [
        (
            &["--data", "data", "--keep-f32", "fc7"],
            &["`fc7`", "did you mean"],
        ),
        (
            &["--data", "data", "-o", "x.spvd"],
            &["x.spvd", "weights on grids", "fc1.bias"],
        ),
        (&["--data", "data", "-o", "x.onnx"], &["--out", "x.onnx"]),
        (
            &["--data", "data", "-o", "there.safetensors"],
            &["there.safetensors", "exists", "--force"],
        ),
        (&["--data", "few.npz"], &["few.npz", "129 samples", "20"]),
        (
            &["--data", "data", "--samples", "300"],
            &["300 samples", "240"],
        ),
        (
            &["--data", "data", "--max-error", "0"],
            &["error", "positive", "0"],
        ),
        (&["--data", "nowhere"], &["nowhere"]),
        (
            &["--data", "data", "--epochs", "1", "-o", "x.spvd"],
            &["--epochs", "leave the grids", "x.spvd"],
        ),
        (
            &["--data", "data", "--dynamic", "-o", "x.spvd"],
            &["--dynamic", "grids of samples", "x.spvd"],
        ),
        (
            &["--data", "data", "--tables", "-o", "x.spvd"],
            &["--tables", "one scale for a tensor", "x.spvd"],
        ),
        (
            &["--data", "data", "--tables"],
            &["tables: expected a network with an Embedding", "none in"],
        ),
    ];
    let complaints: Vec<String> = cases
        .iter()
        .filter_map(|(args, words)| {
            let all = [&["quantise-activations", "net.safetensors"], *args].concat();
            place.complaint(&all, words)
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    for (args, word) in [
        (vec!["quantise-activations", "net.safetensors"], "--data"),
        (
            vec![
                "quantise-activations",
                "net.safetensors",
                "--data",
                "data",
                "--samples",
                "0",
            ],
            "--samples",
        ),
    ] {
        let output = place.compress(&args);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(word));
    }
}

#[test]
fn compression_leaves_grids_out_and_says_so() {
    let place = Workplace::new();
    let (graph, _) = sparsevd_model::presets::mlp("net", [1, SIDE, SIDE].into(), &[12, 2]);
    let read = read_network(place.path("net.safetensors"), &GraphSource::Auto);
    let mut network = match read {
        Ok(loaded) => loaded.network,
        Err(error) => panic!("{error}: {graph:?}"),
    };
    let name = network.weight_names().into_iter().next().unwrap();
    let node = network
        .graph
        .weighted_nodes()
        .find(|n| n.op.weight() == Some(&name));
    let node = node.unwrap().name.clone();
    let mut dense = network.tensors[&name].to_dense();
    for (i, v) in dense.values.iter_mut().enumerate() {
        *v = if i % 3 == 0 {
            (i % 127) as f32 * 0.0078125
        } else {
            0.0
        };
    }
    let rows = dense.shape.dims()[0];
    network
        .tensors
        .insert(name, sparsevd_model::Csr::from_dense(&dense).into());
    let grid = sparsevd_model::Int8Grid {
        scale: 0.5,
        zero_point: 3,
    };
    network
        .set_int8(&node, grid, vec![0.0078125; rows])
        .unwrap();
    write_network(
        place.path("q.safetensors"),
        &network,
        &WriteOptions::default(),
    )
    .unwrap();
    let args = [
        "q.safetensors",
        "--method",
        "magnitude",
        "--sparsity",
        "0.5",
        "--data",
        "data",
        "--out",
        "p.safetensors",
    ];
    let output = place.compress(&args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{stderr}"
    );
    assert!(
        format!("{stdout}{stderr}").contains("left out"),
        "{stdout}{stderr}"
    );
    let back = read_network(place.path("p.safetensors"), &GraphSource::Auto).unwrap();
    assert!(back.network.int8.is_empty());
}
