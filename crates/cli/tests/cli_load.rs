//! What the binaries make of files that others wrote: told by content, guessed aloud, and refused with a way out.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::{Value, json};
use sparsevd_format::{write_npy, write_npz};
use sparsevd_model::{Dense, Shape};

use synthetic::{Workplace, plain_safetensors};

/// Runs a command that must go through: what it prints, and what it says on stderr.
fn run(w: &Workplace, args: &[&str]) -> (String, String) {
    let (binary, args) = args.split_first().unwrap();
    let output = w.command(binary).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let stderr = text(output.stderr);
    assert_eq!(output.status.code(), Some(0), "{binary} {args:?}: {stderr}");
    (text(output.stdout), stderr)
}

/// Runs a command that must exit with 2 and one line on stderr that has all of `words`.
fn refused(w: &Workplace, args: &[&str], words: &[&str]) {
    let (binary, rest) = args.split_first().unwrap();
    let before = w.names();
    let output = w.command(binary).args(rest).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: {word}: {stderr}");
    }
    assert_eq!(w.names(), before, "{args:?}");
}

fn dense(shape: impl Into<Shape>, values: &[f32]) -> Dense {
    Dense::new(shape, values.to_vec())
}

/// A chain of two matrices and what it makes of `x`, the first bias a ReLU's work.
fn chain() -> Vec<(String, Dense)> {
    vec![
        (
            "0.weight".into(),
            dense([2, 3], &[1., -2., 3., 4., 5., -6.]),
        ),
        ("0.bias".into(), dense([2], &[0.5, -0.5])),
        ("2.weight".into(), dense([2, 2], &[7., -8., 9., 10.])),
        ("2.bias".into(), dense([2], &[1.5, 2.5])),
    ]
}

fn write_chain(w: &Workplace, name: &str, rename: impl Fn(&str) -> String) {
    let tensors = chain();
    let named: Vec<(String, &Dense)> = tensors.iter().map(|(n, d)| (rename(n), d)).collect();
    w.write(name, plain_safetensors(&named));
}

/// Two samples, and the outputs of the chain.
fn write_expected(w: &Workplace, name: &str) {
    // W1 x + b1 is (2.5, 2.5) and (-1.5, 8.5), of which the ReLU leaves (2.5, 2.5) and (0, 8.5).
    let x = [1., 1., 1., 0., 1., -2. / 3.];
    let hidden = [[2.5, 2.5], [0.0, 8.5]];
    let y: Vec<f32> = hidden
        .iter()
        .flat_map(|[a, b]| [7. * a - 8. * b + 1.5, 9. * a + 10. * b + 2.5])
        .collect();
    write_npz(w.path(name), &[("x", &[2, 3], &x), ("y", &[2, 2], &y)]).unwrap();
}

#[test]
fn what_is_guessed_is_said_on_stderr_wherever_it_leads_and_in_json() {
    let w = Workplace::without_network();
    write_chain(&w, "chain.safetensors", str::to_owned);
    write_chain(&w, "wrapped.safetensors", |n| {
        format!("module._orig_mod.{n}")
    });
    write_expected(&w, "expect.npz");
    let guess = "read as a multi-layer perceptron of 2 layer(s)";
    for file in ["chain.safetensors", "wrapped.safetensors"] {
        let (out, said) = run(
            &w,
            &["run-sparse", "check", file, "-e", "expect.npz", "--json"],
        );
        let out: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(out["pass"], json!(true), "{out}");
        assert!(
            said.contains(&format!("warning: {file}: ")) && said.contains(guess),
            "{said}"
        );
        let warnings = out["warnings"].as_array().unwrap();
        assert!(
            warnings.iter().any(|w| w.as_str().unwrap().contains(guess)),
            "{out}"
        );
        let stripped = said.contains("`_orig_mod.` and `module.` was stripped");
        assert_eq!(stripped, file.starts_with("wrapped"), "{said}");
    }
    for args in [
        &["run-sparse", "plan", "chain.safetensors", "--json"][..],
        &["run-sparse", "profile", "chain.safetensors", "--json"],
        &["run-sparse", "chain.safetensors", "-i", "x.npy", "--json"],
        &["compress", "inspect", "chain.safetensors", "--json"],
    ] {
        write_npy(w.path("x.npy"), &[3], &[1.0; 3]).unwrap();
        let (out, said) = run(&w, args);
        let out: Value = serde_json::from_str(&out).unwrap();
        assert!(said.contains(guess), "{args:?}: {said}");
        assert_eq!(
            out["warnings"].as_array().unwrap().len(),
            1,
            "{args:?}: {out}"
        );
    }
    let (_, said) = run(
        &w,
        &[
            "compress",
            "convert",
            "chain.safetensors",
            "own.safetensors",
        ],
    );
    assert!(said.contains(guess), "{said}");
    // The user may not want to know, and a file with its graph leaves nothing to guess.
    for args in [
        &[
            "run-sparse",
            "check",
            "chain.safetensors",
            "-e",
            "expect.npz",
            "-q",
        ][..],
        &["run-sparse", "check", "own.safetensors", "-e", "expect.npz"],
    ] {
        assert_eq!(run(&w, args).1, "", "{args:?}");
    }
    let args = [
        "run-sparse",
        "check",
        "own.safetensors",
        "-e",
        "expect.npz",
        "--json",
    ];
    let out: Value = serde_json::from_str(&run(&w, &args).0).unwrap();
    assert_eq!(out["warnings"], json!([]));
}

#[test]
fn a_report_has_what_was_guessed() {
    let w = Workplace::new();
    let network = sparsevd_onnx::load(w.path("net.safetensors"))
        .unwrap()
        .network;
    let tensors: Vec<(String, Dense)> = (network.tensors.iter())
        .map(|(name, tensor)| (name.clone(), tensor.to_dense()))
        .collect();
    let named: Vec<(String, &Dense)> = tensors.iter().map(|(n, d)| (n.clone(), d)).collect();
    w.write("foreign.safetensors", plain_safetensors(&named));
    let prune = |file: &str| {
        let out = format!("{file}.sparse.safetensors");
        let file = format!("{file}.safetensors");
        let args = [
            "compress",
            &file,
            "--method",
            "magnitude",
            "--sparsity",
            "0.5",
            "--data",
            "data",
            "--out",
            &out,
            "--max-accuracy-drop",
            "100",
        ];
        let (_, said) = run(&w, &args);
        (
            said,
            w.json(&out.replace(".sparse.safetensors", ".report.json")),
        )
    };
    let (said, report) = prune("foreign");
    assert!(said.contains("no graph was given"), "{said}");
    assert!(
        report["warnings"][0]
            .as_str()
            .unwrap()
            .contains("no graph was given")
    );
    let (said, report) = prune("net");
    assert_eq!((said.as_str(), report.get("warnings")), ("", None));
}

#[test]
fn networks_and_data_are_told_by_content_and_not_by_name() {
    let w = Workplace::new();
    run(&w, &["compress", "convert", "net.safetensors", "net.onnx"]);
    let (expected, _) = run(&w, &["run-sparse", "eval", "net.safetensors", "-d", "data"]);
    let error = |text: &str| {
        let words = text.split(", error ").nth(1).unwrap();
        words.split(',').next().unwrap().to_owned()
    };
    for (from, to) in [
        ("net.onnx", "onnx.safetensors"),
        ("net.safetensors", "net.spvd"),
    ] {
        std::fs::copy(w.path(from), w.path(to)).unwrap();
        let (out, said) = run(
            &w,
            &[
                "run-sparse",
                "eval",
                to,
                "-d",
                "data",
                "--scale",
                "0.003921569",
            ],
        );
        assert_eq!(error(&out), error(&expected));
        assert_eq!(said, "");
        run(&w, &["compress", "inspect", to]);
    }
    // A set in another file, under two names.
    let pixels: Vec<f32> = (0..4 * 36).map(|i| (i % 7) as f32 / 7.0).collect();
    let labels = [0.0, 1.0, 0.0, 1.0].map(|v: f32| v);
    write_npz(
        w.path("set.npz"),
        &[("x", &[4, 6, 6], &pixels), ("y", &[4], &labels)],
    )
    .unwrap();
    std::fs::copy(w.path("set.npz"), w.path("set.bin")).unwrap();
    for name in ["set.npz", "set.bin"] {
        refused(
            &w,
            &["run-sparse", "eval", "net.safetensors", "-d", name],
            &[name, "targets", "integers", "got 1 (floating-point"],
        );
    }
}

#[test]
fn what_is_no_network_or_no_data_is_named_with_a_way_out() {
    let w = Workplace::new();
    w.write(
        "pickle.pt",
        [
            &b"PK\x03\x04"[..],
            &[0; 22],
            &[12, 0, 0, 0],
            b"mlp/data.pkl",
        ]
        .concat(),
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n";
    w.write("lfs.safetensors", pointer);
    w.write("lfs.onnx", pointer);
    w.write(
        "m.safetensors.index.json",
        r#"{"metadata": {}, "weight_map": {"a": "m-00001-of-00002.safetensors"}}"#,
    );
    w.write("graph.txt", r#"{"name": "x", "nodes": []}"#);
    for (file, words) in [
        (
            "pickle.pt",
            &[
                "a PyTorch file",
                "torch.load('pickle.pt', weights_only=True), 'pickle.safetensors'",
            ][..],
        ),
        ("lfs.safetensors", &["Git LFS pointer", "git lfs pull"]),
        ("lfs.onnx", &["Git LFS pointer", "git lfs pull"]),
        (
            "m.safetensors.index.json",
            &["all 1 shards", "no `m-00001-of-00002.safetensors`"],
        ),
        ("data", &["data: folder", "shards"]),
        ("graph.txt", &["JSON", "--network"]),
    ] {
        for args in [
            &["run-sparse", "plan", file][..],
            &["compress", "inspect", file],
            &["compress", "convert", file, "out.safetensors"],
            &["compress", file, "--data", "data"],
        ] {
            refused(&w, args, words);
        }
    }
    for (file, words) in [
        ("pickle.pt", &["a PyTorch file", "numpy.savez"][..]),
        ("lfs.safetensors", &["git lfs pull"]),
        ("train.toml", &["a file of an unknown kind", "npz"]),
    ] {
        refused(
            &w,
            &["run-sparse", "eval", "net.safetensors", "-d", file],
            words,
        );
        refused(&w, &["run-sparse", "net.safetensors", "-i", file], words);
    }
}

/// A PNG with this many bytes for each pixel, all of one value.
fn png(w: &Workplace, name: &str, color: png::ColorType, side: u32) {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    let pixels = vec![128; (side * side) as usize * color.samples()];
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    w.write(name, bytes);
}

#[test]
fn a_colour_image_is_not_three_grey_ones() {
    let w = Workplace::new();
    png(&w, "grey.png", png::ColorType::Grayscale, 6);
    png(&w, "colour.png", png::ColorType::Rgb, 6);
    let (out, _) = run(&w, &["run-sparse", "net.safetensors", "-i", "grey.png"]);
    assert_eq!(out.lines().count(), 1, "{out}");
    refused(
        &w,
        &["run-sparse", "net.safetensors", "-i", "colour.png"],
        &[
            "colour.png",
            "a grey image",
            "[1, 6, 6]",
            "[3, 6, 6]",
            "-colorspace gray",
        ],
    );
    // In class folders too.
    std::fs::create_dir_all(w.path("set/0")).unwrap();
    std::fs::copy(w.path("colour.png"), w.path("set/0/a.png")).unwrap();
    refused(
        &w,
        &["run-sparse", "eval", "net.safetensors", "-d", "set"],
        &["[1, 6, 6]", "[3, 6, 6]"],
    );
}

/// An `.npy` file of one-byte elements.
fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '|{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()
}

#[test]
fn bytes_and_truth_values_are_never_scaled_in_silence() {
    let w = Workplace::new();
    // A graph without preprocessing.
    let mut graph = serde_json::to_value(
        &sparsevd_onnx::load(w.path("net.safetensors"))
            .unwrap()
            .network
            .graph,
    )
    .unwrap();
    graph.as_object_mut().unwrap().remove("preprocessing");
    w.write("plain.json", graph.to_string());
    let pixels: Vec<u8> = (0..36).map(|i| i * 7).collect();
    w.write("bytes.npy", npy("u1", "(6, 6)", &pixels));
    w.write(
        "bools.npy",
        npy(
            "b1",
            "(6, 6)",
            &pixels.iter().map(|p| p % 2).collect::<Vec<_>>(),
        ),
    );
    let numbers = |scale: f32| {
        pixels
            .iter()
            .map(|p| f32::from(*p) * scale)
            .collect::<Vec<_>>()
    };
    write_npy(w.path("unit.npy"), &[6, 6], &numbers(1.0 / 255.0)).unwrap();
    write_npy(w.path("raw.npy"), &[6, 6], &numbers(1.0)).unwrap();
    let plain = ["--network", "plain.json"];
    let infer = |input: &str, more: &[&str]| {
        let args = [&["run-sparse", "net.safetensors", "-i", input][..], more].concat();
        run(&w, &args).0
    };
    // As stored, as told, and as they are.
    assert_eq!(infer("bytes.npy", &[]), infer("unit.npy", &[]));
    let scaled = [&plain[..], &["--scale", "0.003921569"]].concat();
    assert_eq!(infer("bytes.npy", &scaled), infer("unit.npy", &plain));
    let as_they_are = [&plain[..], &["--scale", "1"]].concat();
    assert_eq!(infer("bytes.npy", &as_they_are), infer("raw.npy", &plain));
    assert_ne!(infer("raw.npy", &plain), infer("unit.npy", &plain));
    let refuse = |args: &[&str], words: &[&str]| refused(&w, &[args, &plain].concat(), words);
    let words = [
        "does not say how pixels become its input",
        "--scale 0.00392157",
        "--scale 1",
    ];
    refuse(
        &["run-sparse", "net.safetensors", "-i", "bytes.npy"],
        &words,
    );
    refuse(
        &["run-sparse", "eval", "net.safetensors", "-d", "data"],
        &words,
    );
    refuse(
        &["run-sparse", "bench", "net.safetensors", "-d", "data"],
        &words,
    );
    refuse(&["compress", "net.safetensors", "--data", "data"], &words);
    for more in [&[][..], &["--scale", "1"]] {
        refused(
            &w,
            &[&["run-sparse", "net.safetensors", "-i", "bools.npy"], more].concat(),
            &[
                "bools.npy",
                "u8 pixels or floating-point numbers",
                "got booleans",
            ],
        );
    }
}

#[test]
fn shards_are_one_network() {
    let w = Workplace::without_network();
    let tensors = chain();
    for (i, part) in tensors.chunks(2).enumerate() {
        let named: Vec<(String, &Dense)> = part.iter().map(|(n, d)| (n.clone(), d)).collect();
        let name = format!("big/model-0000{}-of-00002.safetensors", i + 1);
        w.write(&name, plain_safetensors(&named));
    }
    write_expected(&w, "expect.npz");
    run(&w, &["run-sparse", "check", "big", "-e", "expect.npz"]);
    let (out, _) = run(&w, &["compress", "inspect", "big", "--json"]);
    let out: Value = serde_json::from_str(&out).unwrap();
    let size = |i: u32| {
        w.read(&format!("big/model-0000{i}-of-00002.safetensors"))
            .len()
    };
    assert_eq!(out["file_bytes"], json!(size(1) + size(2)));
    assert_eq!(out["weights"], json!(10));
    refused(
        &w,
        &["run-sparse", "plan", "big/model-00002-of-00002.safetensors"],
        &["shard 2 of the 2 of `model`", "index"],
    );
}
