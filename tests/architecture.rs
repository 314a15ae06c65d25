//! The direction of dependencies between crates and between files, and where `unsafe` may stand.
#![allow(clippy::unwrap_used, reason = "a test")]

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use imports::Imports;

/// Packages that each package builds with, as `cargo metadata` resolves them for this machine; build scripts count, tests do not.
struct Dependencies(BTreeMap<String, BTreeSet<String>>);

impl Dependencies {
    fn of_workspace() -> Self {
        let output = |program: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{program} {args:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        };
        let version = output("rustc", &["-vV"]);
        let host = version
            .lines()
            .find_map(|l| l.strip_prefix("host: "))
            .unwrap();
        let metadata = output(
            env!("CARGO"),
            &[
                "metadata",
                "--format-version",
                "1",
                "--offline",
                "--filter-platform",
                host,
            ],
        );
        let metadata: Value = serde_json::from_str(&metadata).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let names: BTreeMap<String, String> = metadata["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (text(&p["id"]), text(&p["name"])))
            .collect();
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        Self(
            nodes
                .iter()
                .map(|node| {
                    let built = |dep: &&Value| {
                        dep["dep_kinds"]
                            .as_array()
                            .unwrap()
                            .iter()
                            .any(|k| k["kind"] != "dev")
                    };
                    let deps = node["deps"].as_array().unwrap().iter().filter(built);
                    (
                        names[&text(&node["id"])].clone(),
                        deps.map(|d| names[&text(&d["pkg"])].clone()).collect(),
                    )
                })
                .collect(),
        )
    }

    /// Everything that a package builds with, directly or not.
    fn all<'d>(&'d self, package: &str) -> BTreeSet<&'d str> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<&'d str> = self.0[package].iter().map(String::as_str).collect();
        while let Some(next) = todo.pop() {
            if found.insert(next) {
                todo.extend(self.0[next].iter().map(String::as_str));
            }
        }
        found
    }
}

#[test]
fn crates_depend_in_one_direction() {
    let dependencies = Dependencies::of_workspace();
    let ours = |package: &str| -> Vec<&str> {
        let all = dependencies.all(package).into_iter();
        all.filter_map(|d| d.strip_prefix("sparsevd-")).collect()
    };
    let allowed = [
        ("sparsevd-model", &[][..]),
        ("sparsevd-kernels", &["model"]),
        ("sparsevd-format", &["model"]),
        ("sparsevd-onnx", &["format", "model"]),
        ("sparsevd-runtime", &["kernels", "model"]),
        ("sparsevd-compressor", &["format", "kernels", "model"]),
        (
            "sparsevd-pipeline",
            &[
                "compressor",
                "format",
                "kernels",
                "model",
                "onnx",
                "runtime",
            ],
        ),
        (
            "sparsevd-report",
            &[
                "compressor",
                "format",
                "kernels",
                "model",
                "onnx",
                "pipeline",
                "runtime",
            ],
        ),
        (
            "sparsevd-python",
            &[
                "compressor",
                "format",
                "kernels",
                "model",
                "onnx",
                "pipeline",
                "runtime",
            ],
        ),
    ];
    let wrong: Vec<String> = allowed
        .iter()
        .filter_map(|(package, allowed)| {
            let more: Vec<&str> = ours(package)
                .into_iter()
                .filter(|d| !allowed.contains(d))
                .collect();
            (!more.is_empty())
                .then(|| format!("{package} may depend on {allowed:?}, but does on {more:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // The facade re-exports, and the binaries and the Python package take what they need: nothing depends on them.
    for top in ["sparsevd", "sparsevd-cli", "sparsevd-python"] {
        let on_top = dependencies.0.iter().filter(|(_, d)| d.contains(top));
        let on_top: Vec<&String> = on_top.map(|(name, _)| name).collect();
        assert!(on_top.is_empty(), "{on_top:?} depend on {top}");
    }
}

/// Crates that packages build with their default features, ours included: a name and a version each.
fn tree(packages: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-e", "normal", "--prefix", "none"])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let tree = String::from_utf8(output.stdout).unwrap();
    // A line is a name, a version, and remarks in brackets.
    let names = tree.lines().map(|l| l.split(" (").next().unwrap_or(l));
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The command of docs/architecture.md.
#[test]
fn a_program_that_runs_networks_builds_few_crates() {
    for packages in [&["sparsevd"][..], &["sparsevd-runtime", "sparsevd-format"]] {
        let mut crates = tree(packages);
        crates.retain(|name| !name.starts_with("sparsevd"));
        assert!(crates.iter().any(|c| c.starts_with("rayon v")));
        assert!(crates.len() <= 46, "{} crates: {crates:#?}", crates.len());
    }
}

#[test]
fn a_program_that_runs_networks_builds_no_training_and_no_command_line() {
    let all = tree(&["sparsevd"]);
    let builds = |name: &str| all.iter().any(|c| c.starts_with(&format!("{name} v")));
    let strangers = [
        "clap",
        "indicatif",
        "anyhow",
        "prost",
        "rand",
        "sparsevd-compressor",
        "sparsevd-onnx",
        "sparsevd-pipeline",
        "sparsevd-testing",
        "toml",
        "zip",
        "zstd",
    ];
    let found: Vec<&&str> = strangers.iter().filter(|s| builds(s)).collect();
    assert!(found.is_empty(), "{found:?}");
    let ours = ["sparsevd-format", "sparsevd-kernels", "sparsevd-runtime"];
    assert!(ours.iter().all(|c| builds(c)), "{all:#?}");
    // What compresses is no program for the command line either.
    let pipeline = tree(&["sparsevd-pipeline"]);
    let shows = |c: &&String| c.starts_with("clap v") || c.starts_with("indicatif v");
    let shows: Vec<&String> = pipeline.iter().filter(shows).collect();
    assert!(shows.is_empty(), "{shows:?}");
}

#[test]
fn only_the_kernels_are_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![];
    collect(&root.join("src"), &mut files);
    collect(&root.join("bindings/python/src"), &mut files);
    for folder in std::fs::read_dir(root.join("crates")).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.ends_with("kernels") {
            collect(&folder.join("src"), &mut files);
        }
    }
    assert!(files.len() > 50, "{} files", files.len());
    let mut found = vec![];
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let words = [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "unsafe trait",
                "allow(unsafe_code)",
            ];
            if words.iter().any(|w| code.contains(w)) {
                found.push(format!(
                    "{}:{}: {}",
                    file.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    let roots = [
        "src/lib.rs",
        "crates/cli/src/lib.rs",
        "crates/cli/src/bin/compress/main.rs",
        "crates/cli/src/bin/run-sparse/main.rs",
        "crates/model/src/lib.rs",
        "crates/format/src/lib.rs",
        "crates/runtime/src/lib.rs",
        "crates/compressor/src/lib.rs",
        "crates/pipeline/src/lib.rs",
        "crates/report/src/lib.rs",
        "crates/fuzzing/src/lib.rs",
        "bindings/python/src/lib.rs",
    ];
    let open: Vec<&str> = roots
        .into_iter()
        .filter(|r| {
            !std::fs::read_to_string(root.join(r))
                .unwrap()
                .contains("#![forbid(unsafe_code)]")
        })
        .collect();
    assert!(open.is_empty(), "without #![forbid(unsafe_code)]: {open:?}");
}

/// A file that imports from another, directly or by way of others, is not imported by it ([`Imports`] says what counts). So each file can be
/// read and changed with only the files that it imports in mind.
#[test]
fn files_import_in_one_direction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The names that the roots of `model` and `kernels` re-export are types of data that name each other, as `Graph` and `Shape`.
    let crates = [
        ("model/src", true, ["bind", "presets"]),
        ("kernels/src", true, ["spmm", "sell"]),
        ("runtime/src", false, ["lower", "lower::conv"]),
        ("compressor/src", false, ["trainer", "checkpoint"]),
        ("onnx/src", false, ["import::graph", "tensor"]),
        ("format/src", false, ["packed", "file_type"]),
        ("pipeline/src", false, ["compression", "data"]),
        ("report/src", false, ["page", "picture"]),
        ("fuzzing/src", false, ["plans", "networks"]),
        ("../bindings/python/src", false, ["session", "array"]),
        ("cli/src/bin/compress", false, ["compress", "progress"]),
        ("cli/src/bin/run-sparse", false, ["infer", "args"]),
    ];
    for (name, shared_root, [from, to]) in crates {
        let imports = Imports::of_crate(&root.join("crates").join(name), shared_root);
        assert!(imports.has(from, to), "{name}: {from} imports from {to}");
        let circles = imports.circles();
        assert!(circles.is_empty(), "{name}: {circles:#?}");
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
