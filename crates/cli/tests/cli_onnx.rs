//! ONNX files before the real binaries.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use sparsevd_format::{ArrayData, read_array, write_npy};
use sparsevd_onnx::read_onnx;

/// Files whose inputs or outputs have another layout in the network than in the file, and others of one or more operators
/// that become several.
const LAYOUTS: [&str; 10] = [
    "flat_to_image",
    "one_channel_last",
    "channels_last",
    "constants_of_each_element",
    "softmax_of_map",
    "open_size",
    "column",
    "one_dimension",
    "no_batch",
    "elementwise",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn golden(name: &str, ending: &str) -> PathBuf {
    root()
        .join("tests/golden/onnx")
        .join(format!("{name}.{ending}"))
}

#[test]
fn arrays_in_the_shapes_of_the_file_give_what_onnxruntime_does() {
    let mut wrong = Vec::new();
    for name in LAYOUTS.into_iter().chain(["ids"]) {
        let shape = match name {
            "open_size" => &["--shape", "x=1,3,6,6"][..],
            _ => &[],
        };
        let output = Command::cargo_bin("run-sparse")
            .unwrap()
            .arg("check")
            .arg(golden(name, "onnx"))
            .arg("--expect")
            .arg(golden(name, "npz"))
            .args(["--tolerance", "1e-5"])
            .args(shape)
            .output()
            .unwrap();
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            wrong.push(format!("{name}: {}", String::from_utf8_lossy(&text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn open_sizes_are_given_on_the_command_line() {
    let fails = |args: &[&str]| {
        let output = Command::cargo_bin("run-sparse")
            .unwrap()
            .arg("plan")
            .arg(golden("open_size", "onnx"))
            .args(args)
            .assert()
            .code(2);
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    let error = fails(&[]);
    assert!(error.contains("`--shape x=3,height,width`"), "{error}");
    let error = fails(&["--shape", "4,6,6"]);
    assert!(
        error.contains("[?, 3, ?, ?]") && error.contains("`4,6,6`"),
        "{error}"
    );
    let error = fails(&["--shape", "z=3,6,6"]);
    assert!(
        error.contains("`x`") && error.contains("`z=3,6,6`"),
        "{error}"
    );
    let error = fails(&["--shape", "x=3,6,y"]);
    assert!(error.contains("NAME=N,C,H,W"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let fixed = folder.path().join("fixed.onnx");
    Command::cargo_bin("compress")
        .unwrap()
        .arg("convert")
        .arg(golden("open_size", "onnx"))
        .arg(&fixed)
        .args(["--shape", "3,6,6"])
        .assert()
        .success();
    let network = read_onnx(&fixed).unwrap().network;
    assert_eq!(network.graph.inputs[0].shape.dims(), [3, 6, 6]);
    let error = Command::cargo_bin("run-sparse")
        .unwrap()
        .arg("plan")
        .arg(root().join("models/lenet-5/packed.spvd"))
        .args(["--shape", "3,6,6"])
        .assert()
        .code(2);
    let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(error.contains("an ONNX file"), "{error}");
}

#[test]
fn the_binaries_read_write_run_and_inspect_onnx() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let compress = || Command::cargo_bin("compress").unwrap();
    let run_sparse = || Command::cargo_bin("run-sparse").unwrap();
    let model = golden("residual", "onnx");
    for (from, to, flags) in [
        (model.clone(), path("a.safetensors"), &[][..]),
        (
            path("a.safetensors"),
            path("b.onnx"),
            &["--sparse-initializers"],
        ),
        (path("b.onnx"), path("c.onnx"), &[]),
    ] {
        compress()
            .arg("convert")
            .args([&from, &to])
            .args(flags)
            .assert()
            .success();
    }
    for file in [
        &model,
        &path("a.safetensors"),
        &path("b.onnx"),
        &path("c.onnx"),
    ] {
        let expect = golden("residual", "npz");
        run_sparse()
            .arg("check")
            .arg(file)
            .arg("--expect")
            .arg(expect)
            .assert()
            .success();
    }
    let plan = run_sparse().arg("plan").arg(&model).assert().success();
    let plan = String::from_utf8_lossy(&plan.get_output().stdout).into_owned();
    assert!(
        !plan.contains("BatchNormalization") && plan.contains("Conv+Relu"),
        "{plan}"
    );
    compress()
        .arg("inspect")
        .arg(&model)
        .arg("--json")
        .assert()
        .success();
    let error = run_sparse()
        .args(["plan", "--network", "lenet-5"])
        .arg(&model)
        .assert()
        .code(2);
    let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(error.contains("an ONNX file has its own"), "{error}");
    let error = compress()
        .args(["convert", "--values", "f16"])
        .args([&model, &path("d.onnx")])
        .assert()
        .code(2);
    let error = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(error.contains("--values"), "{error}");
}

/// The largest difference as a share of the largest expected number.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs());
    worst.fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m }) / largest
}

/// A file with the inputs `image` and `context` and the outputs `scores`, `features` and `probabilities`.
#[test]
fn several_inputs_and_outputs_are_named_from_the_file_to_the_results() {
    let run = |args: &[&str]| {
        let assert = Command::cargo_bin("run-sparse")
            .unwrap()
            .args(args)
            .assert();
        let output = assert.get_output();
        let text = [output.stdout.clone(), output.stderr.clone()].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = golden("several", "onnx").to_str().unwrap().to_owned();
    let all = golden("several", "npz").to_str().unwrap().to_owned();
    let arrays = read_array(&all).unwrap();
    let floats = |name: &str| {
        let (_, array) = arrays.iter().find(|(n, _)| n == name).unwrap();
        match &array.data {
            ArrayData::F32(values) => (array.shape.clone(), values.clone()),
            other => panic!("{name} holds {}", other.kind()),
        }
    };
    for name in ["image", "context"] {
        let (shape, values) = floats(name);
        write_npy(path(&format!("{name}.npy")), &shape, &values).unwrap();
    }
    let (shape, values) = floats("context");
    write_npy(path("two.npy"), &[2, 5], &values[..10]).unwrap();
    let mut wrong = values;
    wrong[7] += 1.0;
    write_npy(path("wrong.npy"), &shape, &wrong).unwrap();
    let image = format!("image={}", path("image.npy"));
    let context = |file: &str| format!("context={}", path(file));

    // All commands that take inputs, on the file and on what is written of it.
    let written = path("several.onnx");
    for to in [&path("several.safetensors"), &written] {
        let args = ["convert", &model, to];
        Command::cargo_bin("compress")
            .unwrap()
            .args(args)
            .assert()
            .success();
    }
    for file in [&model, &path("several.safetensors"), &written] {
        let (code, text) = run(&["check", file, "--expect", &all, "--tolerance", "1e-5"]);
        assert_eq!(code, Some(0), "{file}: {text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
    let (code, text) = run(&[
        "check",
        &model,
        "-e",
        &all,
        "-i",
        &context("wrong.npy"),
        "--json",
    ]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("\"output\":\"scores\"") || text.contains("\"output\":\"probabilities\"")
    );
    let named = ["-i", &context("context.npy"), "-i", &image];
    let (code, text) = run(&[&[&model, "--output", &path("y.npz")][..], &named].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("scores 0:") && text.contains("features 2:"),
        "{text}"
    );
    let made = read_array(path("y.npz")).unwrap();
    for name in ["scores", "features", "probabilities"] {
        let (shape, want) = floats(name);
        let (_, got) = made.iter().find(|(n, _)| n == name).unwrap();
        let ArrayData::F32(values) = &got.data else {
            panic!("{name}")
        };
        assert_eq!(got.shape, shape);
        assert!(difference(values, &want) < 1e-5, "{name}");
    }
    for more in [&[][..], &named] {
        for command in [
            &["bench", "--seconds", "0.02", "-b", "1,3"][..],
            &["profile"],
            &["plan"],
        ] {
            let (code, text) = run(&[command, &[model.as_str()], more].concat());
            assert_eq!(code, Some(0), "{command:?}: {text}");
        }
    }
    let (_, plan) = run(&["plan", &model]);
    assert!(
        plan.contains("inputs image [3, 6, 5], context [5]\n"),
        "{plan}"
    );

    let errors = [
        (vec!["-i", &image], "input `context`: expected a file"),
        (
            vec!["-i", &image, "-i", &image],
            "input `image` already has a file",
        ),
        (
            vec!["-i", "contxt=x.npy"],
            "expected NAME=FILE with a name of `image` [3, 6, 5], `context` [5]",
        ),
        (
            vec!["-i", &image, "-i", "context=/nowhere.npy"],
            "/nowhere.npy",
        ),
    ];
    for (args, message) in &errors {
        let (code, text) = run(&[&[model.as_str()], &args[..]].concat());
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    let (code, text) = run(&[&model, "-i", &image, "-i", &context("two.npy")]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("expected 3 samples") && text.contains("got 2"),
        "{text}"
    );
    let (code, text) = run(&[&[&model, "-o", &path("y.npy")][..], &named].concat());
    assert_eq!(code, Some(2));
    assert!(text.contains("expected an .npz for 3 outputs"), "{text}");
}

/// A file with a free length: it is kept, from the file to the results, and in what is written.
#[test]
fn a_free_dimension_is_kept_and_runs_at_the_length_of_the_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = golden("sequence", "onnx").to_str().unwrap().to_owned();
    let all = golden("sequence", "npz").to_str().unwrap().to_owned();
    let network = read_onnx(&model).unwrap().network;
    let types: Vec<String> = (network.graph.inputs.iter())
        .map(|i| i.tensor_type().to_string())
        .collect();
    assert_eq!(types, ["[length, 12]", "[7]"]);
    let ops: Vec<&str> = network.graph.nodes.iter().map(|n| n.op.name()).collect();
    let sums = ops.iter().filter(|op| **op == "Add").count();
    assert_eq!(sums, 1, "biases are part of their layers: {ops:?}");
    for written in ["written.onnx", "written.safetensors"] {
        let args = ["convert", &model, &path(written)];
        let mut convert = Command::cargo_bin("compress").unwrap();
        convert.args(args).assert().success();
    }
    let back = read_onnx(path("written.onnx")).unwrap().network;
    assert_eq!(back.graph.inputs, network.graph.inputs);
    for file in [&model, &path("written.onnx"), &path("written.safetensors")] {
        for args in [
            &["check", "--expect", &all, "--tolerance", "1e-5"][..],
            &["-i", &all, "-o", &path("y.npz"), "--force"],
            &["bench", "-b", "1,3", "--seconds", "0.02", "--length", "9"],
            &["bench", "-b", "2", "--seconds", "0.02", "-i", &all],
            &["profile", "--length", "40"],
            &["plan", "--json"],
        ] {
            let (command, options) = match args[0].starts_with('-') {
                true => (&args[..0], args),
                false => args.split_at(1),
            };
            let mut run = Command::cargo_bin("run-sparse").unwrap();
            run.args(command).arg(file).args(options).assert().success();
        }
        let made = read_array(path("y.npz")).unwrap();
        let tags = made.iter().find(|(name, _)| name == "tags").unwrap();
        assert_eq!(tags.1.shape, [3, 6, 5]);
    }
    // A length that is given is a known one.
    let mut plan = Command::cargo_bin("run-sparse").unwrap();
    let plan = plan
        .args(["plan", &model, "--shape", "words=9,12"])
        .assert()
        .success();
    let plan = String::from_utf8_lossy(&plan.get_output().stdout).into_owned();
    assert!(plan.contains("inputs words [9, 12], context [7]"), "{plan}");
    let check = |shape: &str| {
        let mut check = Command::cargo_bin("run-sparse").unwrap();
        let args = ["check", &model, "--expect", &all, "--shape", shape];
        check.args(args).assert()
    };
    check("words=6,12").success();
    check("words=9,12").code(2);
}
