//! `run-sparse embed` on the encoder of `tests/golden/encoder`, whose embeddings PyTorch computed in float64.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use sparsevd_format::{ArrayData, GraphSource, read_network, read_npy};

use synthetic::Workplace;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/encoder");

/// Shape and numbers of an .npy file.
fn rows(path: impl AsRef<Path>) -> (Vec<usize>, Vec<f32>) {
    let array = read_npy(path).unwrap();
    match array.data {
        ArrayData::F32(values) => (array.shape, values),
        _ => panic!("no f32"),
    }
}

fn texts() -> String {
    std::fs::read_to_string(Path::new(GOLDEN).join("texts.txt")).unwrap()
}

fn embed(w: &Workplace, args: &[&str]) -> Output {
    let mut command = w.command("run-sparse");
    command.arg("embed").args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_near(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let differences = got.iter().zip(want).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f32::max);
    assert!(largest < 1e-6, "largest difference {largest}");
}

#[test]
fn embeddings_are_those_of_pytorch_in_the_order_of_the_lines() {
    let w = Workplace::new();
    let (shape, want) = rows(Path::new(GOLDEN).join("embeddings.npy"));
    w.write("texts.txt", texts());
    let (text, out) = (w.path("texts.txt"), w.path("y.npy"));
    let [text, out] = [&text, &out].map(|path| path.to_str().unwrap());
    for options in [
        &[][..],
        &["--batch", "1", "--threads", "1"],
        &["--weights", "dense"],
    ] {
        let args = [&[GOLDEN, "--text", text, "--out", out, "--force"], options].concat();
        let output = embed(&w, &args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let (got_shape, got) = rows(out);
        assert_eq!(got_shape, shape);
        assert_near(&got, &want);
        assert_eq!(
            stderr(&output),
            "line 7 has more than the 20 tokens that the encoder takes; what is behind them was left out\n"
        );
        assert!(output.stdout.is_empty());
    }
}

/// Texts of 2 to 20 tokens, of which the first vector is taken, whatever their length.
#[test]
fn embeddings_of_the_first_token_are_those_of_pytorch() {
    let w = Workplace::new();
    let (_, want) = rows(Path::new(GOLDEN).join("embeddings-cls.npy"));
    std::fs::create_dir_all(w.path("cls/1_Pooling")).unwrap();
    for file in [
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        let bytes = std::fs::read(Path::new(GOLDEN).join(file)).unwrap();
        w.write(&format!("cls/{file}"), bytes);
    }
    let pooling = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    w.write("cls/1_Pooling/config.json", pooling);
    w.write("texts.txt", texts());
    let [folder, text, out] = ["cls", "texts.txt", "y.npy"].map(|name| w.path(name));
    let [folder, text, out] = [&folder, &text, &out].map(|path| path.to_str().unwrap());
    for threads in ["1", "2"] {
        let args = [
            folder,
            "--text",
            text,
            "--out",
            out,
            "--force",
            "--threads",
            threads,
        ];
        let output = embed(&w, &args);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_near(&rows(out).1, &want);
    }
}

#[test]
fn lines_of_json_say_how_many_tokens_there_were() {
    let w = Workplace::new();
    let (_, want) = rows(Path::new(GOLDEN).join("embeddings.npy"));
    let mut command = w.command("run-sparse");
    let mut child = command
        .args(["embed", GOLDEN, "--text", "-", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let windows = texts().replace('\n', "\r\n");
    input.write_all(windows.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let lines: Vec<Value> = (output.stdout.split(|b| *b == b'\n'))
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let numbers = |field: &str| -> Vec<u64> {
        let all = lines.iter().map(|line| line[field].as_u64().unwrap());
        all.collect()
    };
    assert_eq!(numbers("line"), [1, 2, 3, 4, 5, 6, 7]);
    // With those at the beginning and the end.
    assert_eq!(numbers("tokens"), [9, 2, 11, 4, 4, 7, 20]);
    let got: Vec<f32> = (lines.iter())
        .flat_map(|line| line["embedding"].as_array().unwrap())
        .map(|v| v.as_f64().unwrap() as f32)
        .collect();
    assert_near(&got, &want);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["truncated"], i == 6);
    }

    // The same in a file.
    w.write("texts.txt", texts());
    let (text, out) = (w.path("texts.txt"), w.path("y.jsonl"));
    let [text, out] = [&text, &out].map(|path| path.to_str().unwrap());
    let file = embed(&w, &[GOLDEN, "--text", text, "--out", out]);
    assert_eq!(file.status.code(), Some(0), "{}", stderr(&file));
    assert_eq!(std::fs::read(out).unwrap(), output.stdout);
    let again = embed(&w, &[GOLDEN, "--text", text, "--out", out]);
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    // No lines have no embeddings.
    w.write("texts.txt", "");
    let none = embed(&w, &[GOLDEN, "--text", text]);
    assert_eq!((none.status.code(), none.stdout), (Some(0), vec![]));
}

#[test]
fn what_is_missing_or_no_text_is_refused() {
    let w = Workplace::new();
    let folder = w.path("encoder");
    std::fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let copy = |name: &str| {
        std::fs::copy(Path::new(GOLDEN).join(name), folder.join(name)).unwrap();
    };
    w.write("texts.txt", texts());
    let text = w.path("texts.txt");
    let [at, text] = [&folder, &text].map(|path| path.to_str().unwrap());
    let refused = |more: &[&str], words: &[&str]| {
        let output = embed(&w, &[&[at, "--text", text], more].concat());
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
    };
    refused(&[], &["encoder/config.json: cannot read"]);
    copy("config.json");
    refused(&[], &["encoder: folder: expected"]);
    copy("model.safetensors");
    refused(&[], &["encoder: expected a modules.json"]);
    copy("modules.json");
    refused(&[], &["1_Pooling/config.json: cannot read"]);
    copy("1_Pooling/config.json");
    refused(&[], &["tokenizer.json: cannot read"]);
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    refused(&[], &["tokenizer.json: expected a tokenizer"]);
    copy("tokenizer.json");
    let other = w.path("y.txt");
    let other = other.to_str().unwrap();
    refused(&["--out", other], &["expected a file .npy or .jsonl"]);
    // No more tokens than stand around every text.
    let limit = folder.join("sentence_bert_config.json");
    std::fs::write(&limit, r#"{"max_seq_length": 2}"#).unwrap();
    refused(&[], &["expected fewer than 2 tokens", "got 2"]);
    copy("sentence_bert_config.json");
    // A token without a row: one behind the last of the table.
    let json = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let other = json.replace("\"cat\": 6", "\"cat\": 22");
    assert_ne!(json, other);
    std::fs::write(folder.join("tokenizer.json"), other).unwrap();
    refused(&[], &["input `input_ids`", "22"]);
    copy("tokenizer.json");
    w.write("texts.txt", [0xff, 0xfe]);
    refused(&[], &["texts.txt: file: expected UTF-8 text"]);
}

/// Files of a folder, and of the folders in it.
fn files(folder: &Path) -> Vec<String> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => names.extend(files(&path).iter().map(|inner| format!("{name}/{inner}"))),
            false => names.push(name),
        }
    }
    names.sort();
    names
}

#[test]
fn an_encoder_is_calibrated_on_lines_and_is_a_folder_again() {
    let w = Workplace::new();
    let words: Vec<String> = texts().split_whitespace().map(str::to_owned).collect();
    let line = |i: usize| -> String {
        let of_line = (0..3 + i % 7).map(|j| words[(i * 5 + j * 3 + i * j) % words.len()].as_str());
        of_line.collect::<Vec<_>>().join(" ") + "\n"
    };
    w.write("lines.txt", (0..90).map(line).collect::<String>());
    let compress = |sparsity: &str, out: &str, more: &[&str]| {
        let args = [
            GOLDEN,
            "--calibrate",
            "60",
            "--sparsity",
            sparsity,
            "--text",
            "lines.txt",
            "--out",
            out,
        ];
        w.command("compress")
            .args([&args[..], more].concat())
            .output()
            .unwrap()
    };
    let output = compress("0.75", "sparse", &["--json", "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("nonzeros"), number("weights") / 4);
    let mean = summary["cosine"]["mean"].as_f64().unwrap();
    let worst = summary["cosine"]["worst_decile"].as_f64().unwrap();
    assert!(0.8 < mean && mean < 0.9999 && worst < mean, "{summary}");
    assert!(
        summary["cosine"]["texts"].as_u64().unwrap() > 5,
        "{summary}"
    );
    // Settings and vocabularies come along, and the folder is an encoder.
    let kept = |name: &&String| name.ends_with(".json") || name.ends_with("model.safetensors");
    let of_dense: Vec<String> = files(Path::new(GOLDEN))
        .iter()
        .filter(kept)
        .cloned()
        .collect();
    let of_sparse: Vec<String> = files(&w.path("sparse"))
        .iter()
        .filter(kept)
        .cloned()
        .collect();
    assert_eq!(of_sparse, of_dense);
    let sparse = w.path("sparse").to_str().unwrap().to_owned();
    let text = w.path("lines.txt").to_str().unwrap().to_owned();
    let out = w.path("y.npy").to_str().unwrap().to_owned();
    let output = embed(&w, &[&sparse, "--text", &text, "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(rows(&out).0[0], 90);
    // Its layers multiply int8 with a scale for each token, and it is such a folder again.
    let args = [
        "quantise-activations",
        "sparse",
        "--dynamic",
        "--text",
        "lines.txt",
    ];
    let quantise = |more: &[&str]| {
        let args = [&args[..], more].concat();
        w.command("compress").args(args).output().unwrap()
    };
    let output = quantise(&["--samples", "40", "--out", "bytes", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["samples"], &report["int8_layers"]),
        (&40.into(), &12.into())
    );
    assert!(
        report["cosine"]["mean"].as_f64().unwrap() > 0.999,
        "{report}"
    );
    assert!(report["agreement"]["top1"].is_null(), "{report}");
    for layer in report["layers"].as_array().unwrap() {
        assert_eq!(layer["input"], "per-vector", "{layer}");
    }
    assert_eq!(files(&w.path("bytes")), files(&w.path("sparse")));
    let bytes = w.path("bytes").to_str().unwrap().to_owned();
    let embedded = |int8: &str| {
        let out = w.path(&format!("{int8}.npy")).to_str().unwrap().to_owned();
        let output = embed(
            &w,
            &[&bytes, "--text", &text, "--out", &out, "--int8", int8],
        );
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        rows(&out).1
    };
    let (floats, int8) = (embedded("never"), embedded("always"));
    let differences = floats.iter().zip(&int8).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f32::max);
    assert!(0.0 < largest && largest < 0.05, "{largest}");
    // With its tables in bytes, too, it is smaller, and written again it is the same.
    let tables = ["--samples", "40", "--tables", "--out", "small", "--json"];
    let output = quantise(&tables);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tables"]["tables"], json!({"8": 2}), "{report}");
    let error = report["tables"]["error"].as_f64().unwrap();
    assert!(0.0 < error && error < 0.02, "{report}");
    assert!(
        report["cosine"]["mean"].as_f64().unwrap() > 0.999,
        "{report}"
    );
    let model = |folder: &str| std::fs::read(w.path(folder).join("model.safetensors")).unwrap();
    let (small, all) = (model("small"), model("bytes"));
    let header = |file: &[u8]| {
        let n = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        serde_json::from_slice::<Value>(&file[8..8 + n]).unwrap()
    };
    let header = header(&small);
    let of = |suffix: &str| {
        let mut tensors = header.as_object().unwrap().iter();
        let tensor = tensors.find(|(name, _)| name.ends_with(suffix));
        tensor.map(|(_, info)| info.clone()).unwrap()
    };
    let table = of("word_embeddings.weight");
    assert_eq!(
        (
            &table["dtype"],
            &of("word_embeddings.weight.scale")["shape"][0]
        ),
        (&"I8".into(), &table["shape"][0])
    );
    let elements = |name: &str| {
        let shape = of(name)["shape"].as_array().unwrap().clone();
        shape
            .iter()
            .map(|d| d.as_u64().unwrap() as usize)
            .product::<usize>()
    };
    let saved = 3 * (elements("word_embeddings.weight") + elements("position_embeddings.weight"));
    let scales = 4
        * (elements("word_embeddings.weight.scale") + elements("position_embeddings.weight.scale"));
    assert!(
        all.len() - small.len() > saved - scales - 512,
        "{} {}",
        all.len(),
        small.len()
    );
    let output = w
        .command("compress")
        .args(["convert", "small/model.safetensors", "again.safetensors"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let network = |file: &str| {
        read_network(w.path(file), &GraphSource::Auto)
            .unwrap()
            .network
    };
    assert_eq!(
        network("again.safetensors"),
        network("small/model.safetensors")
    );
    // In integers of 4 bits it is smaller still.
    let halves = [
        "--samples",
        "40",
        "--tables=4",
        "--max-error",
        "0.5",
        "--out",
        "smaller",
        "--json",
    ];
    let output = quantise(&halves);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tables"]["tables"], json!({"4": 2}), "{report}");
    let error = report["tables"]["error"].as_f64().unwrap();
    assert!(0.02 < error && error < 0.5, "{report}");
    // Of each element, of which 8 bits saved three bytes, half a byte more; half of that is what the metadata say of these small tables.
    let elements = saved / 3;
    let [before, after] = [small.len(), model("smaller").len()];
    assert!(before - after > elements / 4, "{before} {after}");
    let out = w.path("smaller.npy").to_str().unwrap().to_owned();
    let smaller = w.path("smaller").to_str().unwrap().to_owned();
    let output = embed(&w, &[&smaller, "--text", &text, "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let halves = rows(&out).1;
    assert_eq!(halves.len(), floats.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let cosine = dot(&halves, &floats) / (dot(&halves, &halves) * dot(&floats, &floats)).sqrt();
    assert!(0.9 < cosine && cosine < 0.9999, "{cosine}");
    for (more, words) in [
        (
            &[
                "--samples",
                "40",
                "--tables=4",
                "--max-error",
                "0.01",
                "--out",
                "more",
            ][..],
            "an error of at most 0.01 by rounding them, as `max_error` says",
        ),
        (&["--tables=5", "--out", "more"], "possible values: 4, 8"),
        (
            &["--out", "bytes"][..],
            "bytes: expected a folder that does not exist",
        ),
        (
            &["--out", "more", "--samples", "200"],
            "texts: expected more than 200 different ones",
        ),
    ] {
        let output = quantise(more);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    // With nothing removed, nothing moves.
    let output = compress("0", "whole", &["--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        summary["cosine"]["worst_decile"].as_f64().unwrap() > 0.999_99,
        "{summary}"
    );
    assert!(
        stderr(&output).contains("12 layers on 60 samples"),
        "{}",
        stderr(&output)
    );
    // What is there stays, and the encoder itself is never written over.
    for (out, more, words) in [
        (
            "sparse",
            &[][..],
            "sparse: expected a folder that does not exist, as --force is not given",
        ),
        (
            GOLDEN,
            &["--force"],
            "expected another folder than that of the encoder",
        ),
    ] {
        let output = compress("0.5", out, more);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    assert_eq!(
        compress("0.5", "sparse", &["--force"]).status.code(),
        Some(0)
    );
    w.write("lines.txt", "one line\none line\n");
    let output = compress("0.5", "other", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("texts: expected at least two different lines"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_encoder_is_trained_towards_its_embeddings() {
    let w = Workplace::new();
    let words: Vec<String> = texts().split_whitespace().map(str::to_owned).collect();
    let line = |i: usize| -> String {
        let of_line = (0..2 + i % 5).map(|j| words[(i * 5 + j * 3 + i * j) % words.len()].as_str());
        of_line.collect::<Vec<_>>().join(" ") + "\n"
    };
    w.write("lines.txt", (0..300).map(line).collect::<String>());
    w.write(
        "r.toml",
        "validation = 40\nfreeze_embeddings = true\n[[phase]]\nmethod = \"fine-tune\"\nepochs = 20\nbatch = 8\nlr = 1.5e-2\n",
    );
    // The same texts to compare on, and no step that matters.
    let still = std::fs::read_to_string(w.path("r.toml")).unwrap();
    let still = still.replace("epochs = 20", "epochs = 1");
    w.write("still.toml", still.replace("lr = 1.5e-2", "lr = 1e-9"));
    let compress = |args: &[&str]| {
        let args = [args, &["--text", "lines.txt", "--json"]].concat();
        w.command("compress").args(args).output().unwrap()
    };
    let summary = |output: &Output| -> Value {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let mean = |summary: &Value| summary["cosine"]["mean"].as_f64().unwrap();
    let pruned = ["--calibrate", "60", "--sparsity", "0.8"];
    let before = summary(&compress(
        &[
            &[GOLDEN, "--out", "pruned", "--recipe", "still.toml"],
            &pruned[..],
        ]
        .concat(),
    ));
    let both = [
        &[GOLDEN, "--out", "both", "--recipe", "r.toml"],
        &pruned[..],
    ]
    .concat();
    let after = summary(&compress(&both));
    assert_eq!(
        (&before["epochs"], &after["epochs"]),
        (&1.into(), &20.into())
    );
    assert!(mean(&after) > mean(&before), "{before}\n{after}");
    assert!(after["validation_r2"].is_number());
    assert!(!w.path("both.encoder.run/checkpoint.safetensors").exists());
    // From the sparse folder, towards the dense one.
    let again = [
        "pruned",
        "--out",
        "again",
        "--recipe",
        "r.toml",
        "--teacher",
        GOLDEN,
    ];
    let again = summary(&compress(&again));
    assert!(mean(&again) > mean(&before), "{before}\n{again}");
    assert_eq!(again["nonzeros"], before["nonzeros"]);
    for (args, words) in [
        (&[GOLDEN, "--out", "x"][..], "--calibrate, --recipe or both"),
        (
            &[GOLDEN, "--out", "x", "--recipe", "r.toml", "--ratio", "5"],
            "cannot be used with",
        ),
        (
            &[
                GOLDEN, "--out", "x", "--recipe", "r.toml", "--method", "fisher",
            ],
            "cannot be used with",
        ),
        (
            &[
                GOLDEN,
                "--out",
                "x",
                "--recipe",
                "r.toml",
                "--validation",
                "other.npz",
            ],
            "validation: expected a share or a number",
        ),
    ] {
        let output = compress(args);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
