//! The real `run-sparse` on small files, good and malformed.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use sparsevd_format::{WriteOptions, write_network, write_npy, write_npz};
use sparsevd_kernels::cost::{Costs, Int8Shares};
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, presets};
use sparsevd_testing::arbitrary::Stream;
use tempfile::TempDir;

fn run_sparse<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    assert_cmd::cargo::cargo_bin_cmd!("run-sparse")
        .env_remove("SPARSE_ISA")
        .env_remove("SPARSE_TUNE")
        // No costs of the developer's own.
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .args(args)
        .output()
        .unwrap()
}

/// What a run that must go through prints on stdout.
fn ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(args: &[S]) -> String {
    let output = run_sparse(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "stderr is no terminal: {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ok_json<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(args: &[S]) -> Value {
    let value: Value = serde_json::from_str(&ok(args)).unwrap();
    assert_eq!(value["schema"], 1);
    value
}

/// A folder with a sparse LeNet-300-100 and a little of everything it can read.
struct Files {
    dir: TempDir,
    network: Network,
}

impl Files {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let network = network("lenet-300-100", 0.1);
        write_network(
            dir.path().join("m.safetensors"),
            &network,
            &WriteOptions::default(),
        )
        .unwrap();
        let x = Stream(3).floats(3 * 784);
        write_npy(dir.path().join("x.npy"), &[3, 784], &x).unwrap();
        write_npz(
            dir.path().join("x.npz"),
            &[("x", &[3, 1, 28, 28], &x), ("other", &[1], &[0.0])],
        )
        .unwrap();
        Self { dir, network }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// A preset with random weights, all CSR.
fn network(preset: &str, density: f64) -> Network {
    let mut stream = Stream(1);
    let preset = presets::by_name(preset).unwrap();
    Network::from_preset(preset, |_, shape| match shape.dims().len() {
        1 => stream.bernoulli(shape.clone(), 1.0).into(),
        _ => stream.sparse(shape.clone(), density).into(),
    })
    .unwrap()
}

/// IDX bytes of one-byte elements.
fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[test]
fn inference_prints_classes_and_writes_outputs_that_check_accepts() {
    let f = Files::new();
    let (model, y) = (f.arg("m.safetensors"), f.arg("y.npz"));
    let text = ok(&[&model, "--input", &f.arg("x.npy"), "--top", "2"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("0:") && text.contains('%'), "{text}");

    let value = ok_json(&[
        &model,
        "-i",
        &f.arg("x.npz"),
        "-o",
        &y,
        "--json",
        "--top",
        "3",
    ]);
    assert_eq!(value["samples"], 3);
    assert_eq!(value["results"][2]["top"].as_array().unwrap().len(), 3);
    let p = &value["results"][0]["top"];
    assert!(p[0]["probability"].as_f64() >= p[1]["probability"].as_f64());

    // What one plan writes, the other accepts.
    let arrays = sparsevd_format::read_npz(&y).unwrap();
    let sparsevd_format::ArrayData::F32(values) = &arrays[0].1.data else {
        panic!("{arrays:?}")
    };
    assert_eq!(
        (arrays[0].0.as_str(), arrays[0].1.shape.as_slice()),
        ("y", &[3, 10][..])
    );
    let x = Stream(3).floats(3 * 784);
    let expect = f.path("expect.npz");
    write_npz(&expect, &[("x", &[3, 784], &x), ("y", &[3, 10], values)]).unwrap();
    let text = ok(&[
        "check",
        &model,
        "--expect",
        &f.arg("expect.npz"),
        "--weights",
        "dense",
    ]);
    assert!(text.starts_with("ok: 3 samples"), "{text}");

    // Another output is a failed check, not an error.
    let mut wrong = values.clone();
    wrong[13] += 1.0;
    write_npz(&expect, &[("x", &[3, 784], &x), ("y", &[3, 10], &wrong)]).unwrap();
    let output = run_sparse(&["check", &model, "--expect", &f.arg("expect.npz"), "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["pass"], false);
    assert_eq!(
        (&value["worst"]["sample"], &value["worst"]["element"]),
        (&1.into(), &3.into())
    );
}

#[test]
fn pixels_are_preprocessed_as_stored_or_as_told() {
    let f = Files::new();
    let pixels: Vec<u8> = (0..784).map(|i| (i % 256) as u8).collect();
    std::fs::write(f.path("one.idx"), idx(&[1, 28, 28], &pixels)).unwrap();
    let scaled: Vec<f32> = pixels
        .iter()
        .map(|&p| (f32::from(p) / 255.0 - 0.5) / 0.25)
        .collect();
    write_npy(f.path("scaled.npy"), &[28, 28], &scaled).unwrap();
    let model = f.arg("m.safetensors");
    let run = |input: &str, more: &[&str]| {
        let input = f.arg(input);
        ok_json(&[&[model.as_str(), "--json", "--input", &input], more].concat())["results"].clone()
    };
    let close = |a: &Value, b: &Value| {
        let of = |v: &Value| v[0]["top"][0]["value"].as_f64().unwrap();
        (of(a) - of(b)).abs() < 1e-3
    };
    let (told, direct) = (
        run("one.idx", &["--mean", "0.5", "--std", "0.25"]),
        run("scaled.npy", &[]),
    );
    assert!(close(&told, &direct), "{told} {direct}");
    let stored = run("one.idx", &[]);
    assert!(!close(&stored, &direct), "{stored} {direct}");
}

/// The nearest class mean is a linear classifier; on MNIST it is right for about four in five.
#[test]
fn eval_counts_errors_on_real_digits() {
    let mnist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mnist");
    let train = sparsevd_format::load_data(&mnist).unwrap().train.unwrap();
    let (mut graph, _) = presets::mlp("means", Shape::from([1, 28, 28]), &[10]);
    graph.name = "means".into();
    let preprocessing = graph.preprocessing.clone().unwrap();
    let (mut means, mut counts) = (vec![0.0_f32; 7840], [0.0_f32; 10]);
    let mut x = vec![0.0; 784];
    for i in 0..10_000 {
        let label = usize::from(train.labels[i]);
        train.fill_input(i, &preprocessing, &mut x);
        counts[label] += 1.0;
        for (m, x) in means[label * 784..].iter_mut().zip(&x) {
            *m += x;
        }
    }
    let mut bias = vec![0.0; 10];
    for (c, mean) in means.chunks_exact_mut(784).enumerate() {
        mean.iter_mut().for_each(|m| *m /= counts[c]);
        bias[c] = -0.5 * mean.iter().map(|m| m * m).sum::<f32>();
    }
    let dense = Dense::new([10, 784], means);
    let tensors = BTreeMap::from([
        (
            "fc1.weight".to_owned(),
            Weights::Csr(Csr::from_dense(&dense)),
        ),
        (
            "fc1.bias".to_owned(),
            Weights::Dense(Dense::new([10], bias)),
        ),
    ]);
    let dir = TempDir::new().unwrap();
    let model = dir.path().join("means.safetensors");
    write_network(
        &model,
        &Network::new(graph, tensors).unwrap(),
        &WriteOptions::default(),
    )
    .unwrap();
    let (model, mnist) = (model.to_str().unwrap(), mnist.to_str().unwrap());
    let sparse = ok_json(&["eval", model, "--data", mnist, "--json"]);
    let dense = ok_json(&[
        "eval",
        model,
        "--data",
        mnist,
        "--json",
        "--weights",
        "dense",
    ]);
    assert_eq!(sparse["images"], 10_000);
    let (error, top1) = (
        sparse["error_percent"].as_f64().unwrap(),
        sparse["top1"].as_f64().unwrap(),
    );
    assert!((15.0..22.0).contains(&error), "{sparse}");
    assert!((top1 - (1.0 - error / 100.0)).abs() < 1e-9, "{sparse}");
    let apart = sparse["wrong"].as_i64().unwrap() - dense["wrong"].as_i64().unwrap();
    assert!(apart.abs() <= 2, "{sparse} {dense}");
}

#[test]
fn bench_has_the_fields_that_others_build_on() {
    let f = Files::new();
    let model = f.arg("m.safetensors");
    let value = ok_json(&[
        "bench",
        &model,
        "--against",
        "dense",
        "-b",
        "1,20",
        "--seconds",
        "0.05",
        "--json",
    ]);
    assert!(value["machine"].is_object());
    let conditions = value["conditions"].as_array().unwrap();
    for (around, batch) in conditions.iter().zip([1, 20]) {
        assert_eq!(around["batch"], batch);
        assert!((1..=3).contains(&around["tries"].as_u64().unwrap()));
        for rate in ["fma_peak_gflops", "memory_gb_per_s"] {
            assert!(around[rate]["before"].as_f64() > Some(0.0), "{around}");
        }
    }
    assert_eq!(conditions.len(), 2);
    let runs = value["runs"].as_array().unwrap();
    let which: Vec<_> = runs
        .iter()
        .map(|r| (r["plan"].as_str().unwrap(), r["batch"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        which,
        [("sparse", 1), ("dense", 1), ("sparse", 20), ("dense", 20)]
    );
    for run in runs {
        for field in [
            "threads",
            "p50_us",
            "p90_us",
            "p99_us",
            "items_per_s",
            "weight_bytes",
            "arena_bytes",
        ] {
            assert!(run[field].as_f64() > Some(0.0), "{field} of {run}");
        }
        if cfg!(target_os = "linux") {
            assert!(run["peak_rss_bytes"].as_u64() > Some(1 << 20), "{run}");
        }
        assert!(run["p50_us"].as_f64() <= run["p99_us"].as_f64(), "{run}");
    }
    assert!(runs[0]["weight_bytes"].as_u64() < runs[1]["weight_bytes"].as_u64());
    let text = ok(&["bench", &model, "-b", "2", "--seconds", "0.02"]);
    assert!(
        text.contains("FMA peak") && text.contains("sparse"),
        "{text}"
    );
}

#[test]
fn plan_profile_and_isa_name_kernels() {
    let f = Files::new();
    let model = f.arg("m.safetensors");
    let text = ok(&["plan", &model, "-b", "64"]);
    assert!(
        text.contains("fc1") && text.contains("Linear+Relu") && text.contains("tiled"),
        "{text}"
    );
    let plan = ok_json(&["plan", &model, "--weights", "dense", "--json"]);
    assert_eq!(
        (&plan["plan"], &plan["batch"]),
        (&"dense".into(), &1.into())
    );
    let nodes = plan["nodes"].as_array().unwrap();
    let ops: Vec<_> = nodes.iter().map(|n| n["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["Linear+Relu", "Linear+Relu", "Linear"]);
    assert!(
        nodes
            .iter()
            .all(|n| n["kernel"].is_string() && n["weight_bytes"].as_u64() > Some(0))
    );
    let profile = ok_json(&["profile", &model, "--json"]);
    assert_eq!(profile["nodes"][0]["name"], "fc1");
    assert!(profile["nodes"][0]["us"].as_f64() > Some(0.0), "{profile}");
    assert!(ok(&["profile", &model]).contains("GFLOP/s"));
    let isa = ok_json(&["isa", "--json"]);
    assert_eq!(isa["available"][0]["name"], "scalar");
    assert_eq!(isa["available"][0]["int8"], "scalar");
    for isa in isa["available"].as_array().unwrap() {
        for rate in ["fma_peak_gflops", "int8_peak_gops"] {
            assert!(isa[rate].as_f64() > Some(0.0), "{isa}");
        }
    }
    assert!(ok(&["isa"]).contains("* "));
    let scalar = assert_cmd::cargo::cargo_bin_cmd!("run-sparse")
        .env("SPARSE_ISA", "scalar")
        .args(["isa", "--json"])
        .output()
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&scalar.stdout).unwrap()["isa"],
        "scalar"
    );
}

#[test]
fn non_zeros_are_stored_in_the_type_that_is_asked_for() {
    let f = Files::new();
    let model = f.arg("m.safetensors");
    let bytes = |values: &str| {
        let plan = ok_json(&["plan", &model, "--values", values, "--json"]);
        assert_eq!(plan["values"], values);
        let kernel = plan["nodes"][0]["kernel"].as_str().unwrap();
        assert!(kernel.contains(&format!("-{values}-")), "{kernel}");
        assert!(plan["nodes"][0]["expected_us"].as_f64() > Some(0.0));
        plan["weight_bytes"].as_u64().unwrap()
    };
    let [f32, bf16, f16, i8] = ["f32", "bf16", "f16", "i8"].map(bytes);
    assert!(
        bf16 < f32 && f16 == bf16 && i8 < bf16,
        "{f32} {bf16} {f16} {i8}"
    );
}

#[test]
fn plans_choose_by_the_costs_of_a_file() {
    let f = Files::new();
    let model = f.arg("m.safetensors");
    let mut costs = serde_json::to_value(Costs::default()).unwrap();
    // Where non-zeros cost a thousand times as much, dense is better.
    for cost in costs["spmv"].as_array_mut().unwrap() {
        *cost = 100.0.into();
    }
    let file = |costs: &Value| {
        let all: BTreeMap<_, _> = sparsevd_kernels::Isa::available()
            .into_iter()
            .map(|isa| (isa.name(), costs.clone()))
            .collect();
        serde_json::json!({"schema": 1, "costs": all}).to_string()
    };
    std::fs::write(f.path("tune.json"), file(&costs)).unwrap();
    let plan = |tune: &str| {
        assert_cmd::cargo::cargo_bin_cmd!("run-sparse")
            .env_remove("SPARSE_ISA")
            .env("SPARSE_TUNE", f.path(tune))
            .args(["plan", &model, "--json"])
            .output()
            .unwrap()
    };
    let tuned: Value = serde_json::from_slice(&plan("tune.json").stdout).unwrap();
    assert_eq!(tuned["nodes"][0]["sparse"], false, "{tuned}");
    let built_in = ok_json(&["plan", &model, "--json"]);
    assert_eq!(built_in["nodes"][0]["sparse"], true, "{built_in}");
    // Files of before these were measured lack them.
    assert_eq!(costs.get("int8"), None);
    assert!(
        costs
            .as_object_mut()
            .unwrap()
            .remove("panel_gemm")
            .is_some()
    );
    let shares = Int8Shares {
        spmm: 0.5,
        conv: 0.4,
        all: 0.1,
    };
    let mut int8 = serde_json::to_value(shares.of(&Costs::default())).unwrap();
    costs["int8"] = int8.clone();
    std::fs::write(f.path("int8.json"), file(&costs)).unwrap();
    assert_eq!(plan("int8.json").status.code(), Some(0));
    int8["store"] = (-1.0).into();
    costs["int8"] = int8;
    std::fs::write(f.path("int8-negative.json"), file(&costs)).unwrap();
    costs["int8"] = serde_json::json!({"spmm": 1.0});
    std::fs::write(f.path("int8-cut.json"), file(&costs)).unwrap();
    costs["int8"] = Value::Null;
    costs["gemv"] = 0.0.into();
    std::fs::write(f.path("zero.json"), file(&costs)).unwrap();
    std::fs::write(f.path("cut.json"), &file(&costs)[..40]).unwrap();
    for (bad, what) in [
        ("missing.json", "missing.json"),
        ("cut.json", "EOF"),
        ("zero.json", "expected positive finite numbers"),
        ("int8-negative.json", "expected positive finite numbers"),
        ("int8-cut.json", "invalid type"),
    ] {
        let output = plan(bad);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad}: {stderr}");
        assert!(stderr.contains(what), "{bad}: {stderr}");
    }
}

#[test]
fn every_mistake_is_one_line_that_names_it_and_exits_2() {
    let f = Files::new();
    let model = f.arg("m.safetensors");
    let good = std::fs::read(f.path("m.safetensors")).unwrap();
    let make = |name: &str, bytes: &[u8]| {
        std::fs::write(f.path(name), bytes).unwrap();
        f.arg(name)
    };
    let torn = make("torn.safetensors", &good[..good.len() - 100]);
    let empty = make("empty.safetensors", b"");
    let huge = make("huge.safetensors", &[0xff; 64]);
    let text = make("text.npy", b"no array at all");
    write_npy(f.path("small.npy"), &[3, 700], &[0.0; 2100]).unwrap();
    write_npy(f.path("none.npy"), &[0, 784], &[]).unwrap();
    write_npz(
        f.path("ab.npz"),
        &[("a", &[784], &[0.0; 784]), ("b", &[784], &[0.0; 784])],
    )
    .unwrap();
    write_npz(
        f.path("short.npz"),
        &[("x", &[1, 784], &[0.0; 784]), ("y", &[1, 9], &[0.0; 9])],
    )
    .unwrap();
    let set = |name: &str, side: u32, label: u8| {
        let dir = f.path(name);
        std::fs::create_dir(&dir).unwrap();
        let pixels = vec![0; (side * side * 2) as usize];
        std::fs::write(
            dir.join("t10k-images-idx3-ubyte"),
            idx(&[2, side, side], &pixels),
        )
        .unwrap();
        std::fs::write(dir.join("t10k-labels-idx1-ubyte"), idx(&[2], &[0, label])).unwrap();
        f.arg(name)
    };
    let (wrong_size, wrong_label) = (set("size", 27, 1), set("label", 28, 10));
    let chain = {
        let mut conv = network("lenet-5", 0.5);
        conv.graph.nodes.clear();
        let path = f.path("tensors.safetensors");
        let tensors: Vec<(String, safetensors::tensor::TensorView<'_>)> = vec![(
            "c.weight".into(),
            safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                vec![1, 1, 2, 2],
                &[0; 16],
            )
            .unwrap(),
        )];
        std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        f.arg("tensors.safetensors")
    };
    let x = f.arg("x.npy");
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["gone.safetensors", "-i", &x],
            &["gone.safetensors", "cannot read"],
        ),
        (&[&torn, "-i", &x], &["torn.safetensors", "expected", "got"]),
        (
            &[&empty, "-i", &x],
            &["empty.safetensors", "expected", "got 0 bytes"],
        ),
        (
            &["plan", &huge],
            &["huge.safetensors", "expected a network", "unknown kind"],
        ),
        (&["plan", &chain], &["c.weight", "network.json", "lenet-5"]),
        (
            &["plan", &model, "--network", "lenet-5"],
            &["lenet-5", "fc1.weight"],
        ),
        (
            &["plan", &model, "--network", "nothing.json"],
            &["nothing.json"],
        ),
        (
            &["plan", &model, "-b", "0"],
            &["batch", "at least 1", "got 0"],
        ),
        (
            &["plan", &model, "-t", "0"],
            &["threads", "at least 1", "got 0"],
        ),
        (&["plan", &model, "--std", "0"], &["std", "no zero"]),
        (
            &["plan", &model, "--mean", "1,2"],
            &["mean", "1 number", "got 2"],
        ),
        (&[&model, "-i", "gone.npy"], &["gone.npy", "cannot read"]),
        (&[&model, "-i", &text], &["text.npy", "expected", "got"]),
        (
            &[&model, "-i", &f.arg("small.npy")],
            &["small.npy", "[1, 28, 28]", "got [3, 700]"],
        ),
        (
            &[&model, "-i", &f.arg("none.npy")],
            &["none.npy", "at least one", "none"],
        ),
        (
            &[&model, "-i", &f.arg("ab.npz")],
            &["ab.npz", "`x`", "`a` [784]"],
        ),
        (
            &[&model, "-i", &f.arg("ab.npz"), "--array", "c"],
            &["ab.npz", "`c`"],
        ),
        (&[&model, "-i", &x, "-o", &x], &["x.npy", "exists"]),
        (
            &[&model, "-i", &x, "-o", "/no/such/folder/y.npz"],
            &["/no/such/folder"],
        ),
        (
            &["check", &model, "-e", &f.arg("ab.npz")],
            &["ab.npz", "`x` or `input`", "`a`"],
        ),
        (
            &["check", &model, "-e", &f.arg("short.npz")],
            &["`y`", "expected 10", "got 9"],
        ),
        (
            &[
                "check",
                &model,
                "-e",
                &f.arg("short.npz"),
                "--tolerance",
                "nan",
            ],
            &["--tolerance", "NaN"],
        ),
        (
            &["eval", &model, "--data", "/no/such/data"],
            &["/no/such/data"],
        ),
        (
            &["eval", &model, "--data", &wrong_size],
            &["[1, 28, 28]", "[1, 27, 27]"],
        ),
        (
            &["eval", &model, "--data", &wrong_label],
            &["label", "0 to 9", "got 10"],
        ),
        (
            &["eval", &model, "--data", &wrong_label, "--split", "train"],
            &["training"],
        ),
        (&["bench", &model, "-b", "0"], &["--batch", "got 0"]),
        (
            &["bench", &model, "--seconds", "0"],
            &["--seconds", "got 0"],
        ),
    ];
    let mut failures = Vec::new();
    for (args, words) in cases {
        let output = run_sparse(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let one_line = stderr.lines().count() == 1 && stderr.starts_with("run-sparse: ");
        let says = words.iter().all(|w| stderr.contains(w));
        if output.status.code() != Some(2) || !one_line || !says || !output.stdout.is_empty() {
            failures.push(format!(
                "{args:?} should exit 2 and say {words:?}: {:?} {stderr}",
                output.status.code()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!f.path("y.npz").exists());
    assert_eq!(f.network.graph.name, "lenet-300-100");
}

#[test]
fn a_wrong_command_line_exits_2_and_help_exits_0_with_an_example() {
    for args in [
        &["--nonsense"][..],
        &[],
        &["m.safetensors"],
        &["bench"],
        &["eval", "m"],
    ] {
        assert_eq!(run_sparse(args).status.code(), Some(2), "{args:?}");
    }
    for args in [
        &["--help"][..],
        &["bench", "--help"],
        &["eval", "--help"],
        &["check", "--help"],
    ] {
        let help = ok(args);
        assert!(
            help.contains("Example") && help.contains("run-sparse"),
            "{help}"
        );
    }
    let output = assert_cmd::cargo::cargo_bin_cmd!("run-sparse")
        .env("SPARSE_ISA", "mmx")
        .arg("isa")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SPARSE_ISA"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let f = Files::new();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("run-sparse"))
        .args(["plan", &f.arg("m.safetensors")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closing our end before the child writes makes its write fail.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
