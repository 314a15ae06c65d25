//! ONNX files before the real binaries.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use assert_cmd::Command;
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
    for name in LAYOUTS {
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
