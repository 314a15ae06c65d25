//! The real binaries on inputs without labels.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use sparsevd_format::write_npz;
use sparsevd_testing::arbitrary::Stream;

use synthetic::{SIDE, Workplace};

/// Inputs as the small network takes them: bright on the left or on the right.
fn inputs(count: usize) -> Vec<f32> {
    let mut stream = Stream(count as u64);
    let pixel = |i: usize, noise: f32| {
        let (image, p) = (i / (SIDE * SIDE), i % (SIDE * SIDE));
        let bright = usize::from(p % SIDE >= SIDE / 2) == image % 2;
        noise.abs().min(1.0) * 0.3 + if bright { 0.6 } else { 0.0 }
    };
    let noise = stream.floats(count * SIDE * SIDE);
    noise
        .into_iter()
        .enumerate()
        .map(|(i, noise)| pixel(i, noise))
        .collect()
}

#[test]
fn a_network_is_compressed_without_labels_and_held_to_its_agreement() {
    let place = Workplace::new();
    let (train, test) = (inputs(240), inputs(60));
    write_npz(
        place.path("alone.npz"),
        &[
            ("x_train", &[240, SIDE, SIDE], &train),
            ("x_test", &[60, SIDE, SIDE], &test),
        ],
    )
    .unwrap();
    let args = |percent| {
        let mut args = vec!["net.safetensors", "--data", "alone.npz", "--force"];
        args.extend(["--out", "small.safetensors", "--min-agreement", percent]);
        args
    };
    let text = place.ok(&args("90"));
    assert!(text.contains("agreement with the dense network"), "{text}");
    let report = place.json("small.report.json");
    let accuracy = &report["accuracy"];
    assert_eq!(accuracy["against"], "dense-network");
    assert_eq!(accuracy["promise"]["max_accuracy_drop"], 10.0);
    assert_eq!(accuracy["promise"]["kept"], true);
    assert_eq!(accuracy["test"]["images"], 60);
    assert_eq!(accuracy["test"]["dense_percent"], 0.0);
    assert!(report["ratio"].as_f64().unwrap() > 2.0);
    assert!(
        report["data"]
            .as_str()
            .unwrap()
            .contains("240 training inputs [1, 6, 6] without labels")
    );
    assert_eq!(report["recipe"]["phase"][0]["distil"], 1.0);
}

#[test]
fn what_needs_labels_says_so() {
    let place = Workplace::new();
    let x = inputs(30);
    write_npz(place.path("alone.npz"), &[("x", &[30, SIDE, SIDE], &x)]).unwrap();
    let train = [
        "train",
        "graph.json",
        "--data",
        "alone.npz",
        "-o",
        "new.safetensors",
    ];
    let words = ["expected labels or numbers as targets", "inputs alone"];
    assert_eq!(place.complaint(&train, &words), None);
    let eval = ["eval", "net.safetensors", "--data", "alone.npz"];
    let output = place.run_sparse(&eval);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("expected labels or numbers"), "{stderr}");
    let promised = ["net.safetensors", "--data", "data", "--min-agreement", "99"];
    let words = [
        "min_agreement",
        "expected inputs without labels",
        "with targets",
    ];
    assert_eq!(place.complaint(&promised, &words), None);
    let above = [
        "net.safetensors",
        "--data",
        "alone.npz",
        "--min-agreement",
        "101",
    ];
    let words = ["min_agreement", "expected 0 to 100", "got 101"];
    assert_eq!(place.complaint(&above, &words), None);
}
