//! Runs of the real `compress`: same bytes with any number of threads, checkpoints, Ctrl-C, and nothing lost when it goes wrong.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use serde_json::Value;
use sparsevd_format::{GraphSource, WriteOptions, read_network, write_network};
use sparsevd_model::Weights;

use synthetic::{RECIPE, Workplace};

#[test]
fn one_thread_and_two_write_the_same_bytes() {
    let w = Workplace::without_network();
    // Large enough that batches are split over threads.
    w.write_preset("big.safetensors", "lenet-300-100");
    w.write_data("large", 28, 240, 40);
    w.write(
        "recipe.toml",
        RECIPE
            .replace("epochs = 6", "epochs = 2")
            .replace("batch = 20", "batch = 100"),
    );
    for threads in ["1", "2"] {
        let (out, run) = (format!("{threads}.safetensors"), format!("run{threads}"));
        w.compress(&[
            "big.safetensors",
            "--data",
            "large",
            "--threads",
            threads,
            "--out",
            &out,
            "--run",
            &run,
        ]);
    }
    assert!(
        w.read("1.safetensors") == w.read("2.safetensors"),
        "files differ"
    );
    assert!(
        w.read("run1/checkpoint.safetensors").len() == w.read("run2/checkpoint.safetensors").len()
    );
}

#[cfg(unix)]
#[test]
fn interrupted_and_resumed_is_the_same_as_straight() {
    let w = Workplace::new();
    let long = RECIPE
        .replace("epochs = 6", "epochs = 60")
        .replace("batch = 20", "batch = 1");
    w.write("recipe.toml", long);
    w.ok(&[
        "net.safetensors",
        "--out",
        "straight.safetensors",
        "--run",
        "straight",
    ]);
    let args = [
        "net.safetensors",
        "--threads",
        "1",
        "--out",
        "resumed.safetensors",
        "--run",
        "runs/one",
    ];
    let command = w.interrupted(&args, "runs/one/checkpoint.safetensors");
    assert!(
        command
            .ends_with("net.safetensors --threads 1 --out resumed.safetensors --resume runs/one"),
        "{command}"
    );
    assert!(!w.path("resumed.safetensors").exists());

    let without = w.complaint(
        &[
            "net.safetensors",
            "--out",
            "resumed.safetensors",
            "--run",
            "runs/one",
        ],
        &["--resume runs/one", "--force"],
    );
    assert_eq!(without, None);
    // Exactly what it said, in a shell.
    let shell = w.shell(&command);
    assert!(
        shell.status.success(),
        "{}",
        String::from_utf8_lossy(&shell.stderr)
    );
    assert!(
        w.read("straight.safetensors") == w.read("resumed.safetensors"),
        "files differ"
    );
    let epochs = |name: &str| w.json(name)["history"].as_array().unwrap().len();
    assert_eq!(
        epochs("straight.report.json"),
        epochs("resumed.report.json")
    );
    // A line per epoch, also of those before the interruption.
    let log = String::from_utf8(w.read("runs/one/training.log")).unwrap();
    let lines = log.lines().filter(|l| l.contains("validation error"));
    assert_eq!(lines.count(), epochs("resumed.report.json"), "{log}");
}

#[test]
fn a_run_goes_on_only_from_its_own_whole_checkpoint() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    w.write("other.safetensors", w.read("net.safetensors"));
    let mut other = read_network(w.path("net.safetensors"), &GraphSource::Auto)
        .unwrap()
        .network;
    if let Some(Weights::Dense(d)) = other.tensors.get_mut("fc1.weight") {
        d.values[0] += 1.0;
    }
    write_network(
        w.path("other.safetensors"),
        &other,
        &WriteOptions::default(),
    )
    .unwrap();
    let whole = w.read("net.run/checkpoint.safetensors");
    w.write("torn/run.json", w.read("net.run/run.json"));
    w.write("torn/checkpoint.safetensors", &whole[..whole.len() - 1000]);
    w.write("empty/x", "");
    w.write("old/checkpoint.safetensors", &whole);
    w.write(
        "old/run.json",
        String::from_utf8(w.read("net.run/run.json"))
            .unwrap()
            .replace("\"schema\": 1", "\"schema\": 99"),
    );
    let resume =
        |model: &'static str, run: &'static str| [model, "--resume", run, "--out", "x.safetensors"];
    let failures: Vec<String> = [
        w.complaint(
            &resume("other.safetensors", "net.run"),
            &[
                "net.run/checkpoint.safetensors",
                "expected a run of this network (",
                "got one of another network (",
            ],
        ),
        w.complaint(
            &resume("net.safetensors", "torn"),
            &["torn/checkpoint.safetensors", "damaged"],
        ),
        w.complaint(
            &resume("net.safetensors", "empty"),
            &["empty", "expected a run folder with a checkpoint"],
        ),
        w.complaint(
            &resume("net.safetensors", "old"),
            &["run.json", "expected schema 1, got 99"],
        ),
        w.complaint(
            &[
                &resume("net.safetensors", "net.run")[..],
                &["--kl-scale", "2"],
            ]
            .concat(),
            &[
                "expected a run by a recipe with phase 1 kl_scale 2",
                "another recipe, with 0.5",
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // A run remembers its data and recipe, though neither lies beside the model.
    w.write(
        "elsewhere/r.toml",
        RECIPE
            .replace("data = \"data\"", "")
            .replace("seed = 3", "seed = 4"),
    );
    w.ok(&[
        "net.safetensors",
        "--recipe",
        "elsewhere/r.toml",
        "--data",
        "data",
        "--out",
        "a.safetensors",
        "--run",
        "a",
    ]);
    w.ok(&["net.safetensors", "--resume", "a", "--out", "b.safetensors"]);
    assert!(w.read("a.safetensors") == w.read("b.safetensors"));
    assert_eq!(w.json("b.report.json")["seed"], 4);
    // A run that is done goes on to the same end.
    w.ok(&resume("net.safetensors", "net.run"));
    assert!(w.read("net.sparse.safetensors") == w.read("x.safetensors"));
}

#[test]
fn what_exists_is_refused_before_any_work_unless_forced() {
    let w = Workplace::new();
    w.write("net.sparse.safetensors", "mine");
    let refused = |words: &[&str], args: &[&str]| assert_eq!(w.complaint(args, words), None);
    refused(
        &["net.sparse.safetensors", "exists already", "--force"],
        &["net.safetensors"],
    );
    w.write("x.report.json", "mine");
    refused(
        &["x.report.json", "exists already"],
        &["net.safetensors", "--out", "x.sparse.safetensors"],
    );
    refused(
        &["net.safetensors", "exists already"],
        &[
            "train",
            "lenet-300-100",
            "--data",
            "data",
            "--out",
            "net.safetensors",
        ],
    );
    refused(
        &["net.safetensors", "exists already"],
        &["convert", "net.sparse.safetensors", "net.safetensors"],
    );
    assert_eq!(w.read("net.sparse.safetensors"), b"mine");
    w.ok(&["net.safetensors", "--force"]);
    let first = w.read("net.sparse.safetensors");
    w.ok(&["net.safetensors", "--force"]);
    assert!(
        first == w.read("net.sparse.safetensors"),
        "begun anew, not gone on"
    );
}

#[test]
fn a_diverging_loss_stops_says_what_to_change_and_keeps_the_checkpoint() {
    let w = Workplace::new();
    // Noise far over the weights, in the second phase.
    let phases = "[[phase]]\nmethod = \"dense\"\nepochs = 1\nbatch = 20\nlr = 1e-9\n\n\
                  [[phase]]\nmethod = \"sparse-vd\"\nlog_sigma2 = 5.0";
    w.write(
        "recipe.toml",
        RECIPE.replacen("[[phase]]\nmethod = \"sparse-vd\"", phases, 1),
    );
    let output = w.compress(&["net.safetensors"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), stderr.lines().count()),
        (Some(2), 1),
        "{stderr}"
    );
    for words in [
        "the loss diverged",
        "phase 2, epoch 1",
        "net.run/checkpoint.safetensors",
        "lower learning rate",
        "kl_warmup",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert!(w.path("net.run/checkpoint.safetensors").exists());
    assert!(!w.path("net.sparse.safetensors").exists() && !w.path("net.report.json").exists());
    // Squares of such an input overflow.
    let scale = ["net.safetensors", "--scale", "1e20", "--force"];
    let words = ["phase 2, epoch 1", "in channel 0", "--mean and --std"];
    let output = w.compress(&scale);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(words.iter().all(|w| stderr.contains(w)), "{stderr}");
}

#[test]
fn a_sweep_shows_error_and_ratio_over_thresholds() {
    let w = Workplace::new();
    w.ok(&["net.safetensors"]);
    let text = w.ok(&["sweep", "net.run"]);
    assert_eq!(text.lines().count(), 7, "{text}");
    std::fs::rename(w.path("data"), w.path("moved")).unwrap();
    let json = w.ok(&[
        "sweep",
        "net.run",
        "--thresholds=-8,3,8",
        "--data",
        "moved",
        "--json",
    ]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let points = json["points"].as_array().unwrap();
    let left: Vec<u64> = points.iter().map(|p| p["left"].as_u64().unwrap()).collect();
    assert!(left.is_sorted() && left[0] < left[2], "{left:?}");
    assert_eq!(json["schema"], 1);
    assert_eq!(points[1]["ratio"].as_f64().unwrap(), 456.0 / left[1] as f64);
    assert!(points[0]["validation_error_percent"].as_f64().unwrap() >= 0.0);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let w = Workplace::without_network();
    w.write_preset("big.safetensors", "lenet-300-100");
    let binary = assert_cmd::cargo::cargo_bin("compress");
    // A limit on the size of files stands in for the disk: the write fails in the middle.
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{}' convert big.safetensors out.safetensors",
        binary.display()
    );
    let before = w.names();
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(w.path(""))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("out.safetensors: cannot write"), "{stderr}");
    assert_eq!(w.names(), before);
}
