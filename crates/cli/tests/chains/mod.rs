//! Commands of the real `compress` that are ended before they are done, and begun again until they are.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::synthetic::Workplace;

/// Training, pruning, two grids to choose from, and files of every kind.
const RECIPE: &str = "\
data = \"data\"
validation = 40
max_accuracy_drop = 100.0

[[phase]]
method = \"sparse-vd\"
epochs = 4
batch = 4
lr = 1e-2
lr_log_sigma2 = 1e-1
prune_from = 1

[[phase]]
method = \"fine-tune\"
epochs = 2
batch = 4
distil = 0.5

[[phase]]
method = \"quantise\"
epochs = 1
batch = 4
grid = [0.25, 0.5]
";

/// What is run until it is done.
pub struct Chain {
    pub name: &'static str,
    /// The command line, and what it has in addition where the run folder has a checkpoint.
    pub args: &'static [&'static str],
    pub resumes: &'static [&'static str],
    pub run: &'static str,
    /// Its files, which appear together.
    pub outputs: &'static [&'static str],
    /// Whether there are older files of these names, which are overwritten.
    pub over: bool,
}

const COMPRESS: &[&str] = &[
    "out.sparse.safetensors",
    "out.spvd",
    "out.report.json",
    "out.report.html",
];

pub const CHAINS: &[Chain] = &[
    Chain {
        name: "compress",
        args: &[
            "net.safetensors",
            "--out",
            "out.sparse.safetensors",
            "--run",
            "run",
            "--threads",
            "1",
        ],
        resumes: &["--resume", "run"],
        run: "run",
        outputs: COMPRESS,
        over: false,
    },
    Chain {
        name: "compress over older files",
        args: &[
            "net.safetensors",
            "--out",
            "out.sparse.safetensors",
            "--run",
            "run",
            "--threads",
            "1",
            "--force",
        ],
        resumes: &["--resume", "run"],
        run: "run",
        outputs: COMPRESS,
        over: true,
    },
    Chain {
        name: "convert with data",
        args: &[
            "convert",
            "net.safetensors",
            "out.spvd",
            "--grid",
            "--data",
            "data",
        ],
        resumes: &[],
        run: "out.grid.run",
        outputs: &["out.spvd", "out.grid.report.json"],
        over: false,
    },
    Chain {
        name: "convert",
        args: &["convert", "net.safetensors", "out.onnx"],
        resumes: &[],
        run: "run",
        outputs: &["out.onnx"],
        over: false,
    },
    Chain {
        name: "train",
        args: &[
            "train",
            "graph.json",
            "--recipe",
            "train.toml",
            "--data",
            "data",
            "--out",
            "out.safetensors",
            "--run",
            "run",
            "--threads",
            "1",
        ],
        resumes: &["--resume", "run"],
        run: "run",
        outputs: &["out.safetensors"],
        over: false,
    },
    Chain {
        name: "compare",
        args: &[
            "compare",
            "net.safetensors",
            "--methods",
            "sparse-vd,fisher",
            "--ratios",
            "4",
            "--run",
            "run",
        ],
        resumes: &[],
        run: "run",
        outputs: &[],
        over: false,
    },
];

/// Files that have the same bytes in every run: all but logs, reports with times, and what belongs to an unfinished run.
fn is_exact(name: &str) -> bool {
    [".safetensors", ".spvd", ".onnx"]
        .iter()
        .any(|e| name.ends_with(e))
        && !name.contains("checkpoint")
        && !name.contains("posterior")
}

/// All files under a folder by their paths.
fn files(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(entry.path()).unwrap_or_default());
        }
    }
}

/// The folder that chains run in, and what they give where nothing ends them.
pub struct Uninterrupted {
    pub place: Workplace,
    /// Bytes of the files that are the same in every run, by chain, and its time.
    pub of: Vec<(BTreeMap<String, Vec<u8>>, Duration)>,
}

impl Uninterrupted {
    /// Runs each chain once in a folder.
    pub fn new(place: Workplace) -> Self {
        place.write("recipe.toml", RECIPE);
        place.write(
            "train.toml",
            "[[phase]]\nmethod = \"dense\"\nepochs = 6\nbatch = 4\nlr = 1e-2\n",
        );
        let mut uninterrupted = Self { place, of: vec![] };
        for chain in CHAINS {
            uninterrupted.clean(chain);
            let started = Instant::now();
            let output = uninterrupted.place.compress(chain.args);
            let took = started.elapsed();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}: {stderr}", chain.name);
            let exact = uninterrupted
                .files()
                .into_iter()
                .filter(|(n, _)| is_exact(n));
            uninterrupted.of.push((exact.collect(), took));
        }
        uninterrupted
    }

    /// The files that a chain makes, and how long it takes.
    pub fn of(&self, chain: &Chain) -> &(BTreeMap<String, Vec<u8>>, Duration) {
        let place = CHAINS.iter().position(|c| c.name == chain.name);
        &self.of[place.unwrap()]
    }

    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        files(&self.place.path("."), "", &mut found);
        found
    }

    /// Removes what chains make.
    pub fn clean(&self, chain: &Chain) {
        for chain in CHAINS {
            let _ = fs::remove_dir_all(self.place.path(chain.run));
            for output in chain.outputs {
                let _ = fs::remove_file(self.place.path(output));
            }
        }
        if chain.over {
            for output in chain.outputs {
                self.place.write(output, "older");
            }
        }
    }

    /// The command that begins a chain, or goes on with it.
    pub fn command(&self, chain: &Chain) -> Command {
        let run = self.place.path(chain.run);
        let has_checkpoint = ["checkpoint", "checkpoint.previous"]
            .iter()
            .any(|name| run.join(format!("{name}.safetensors")).is_file());
        let mut args: Vec<&str> = chain.args.to_vec();
        if has_checkpoint && !chain.resumes.is_empty() {
            let at = args.iter().position(|a| *a == "--run").unwrap();
            args.drain(at..at + 2);
            args.extend(chain.resumes);
        }
        let mut command = self.place.command("compress");
        command.args(&args);
        command
    }

    /// What files there are after an end: all or none of a result, unless the next run has a list to end it by. Returns all of them, and
    /// whether there is such a list.
    pub fn check_outputs(&self, chain: &Chain) -> (BTreeMap<String, Vec<u8>>, bool) {
        let found = self.files();
        let has_list = found.keys().any(|n| n.ends_with(".list"));
        let is_new = |name: &&&str| found.get(**name).is_some_and(|bytes| bytes != b"older");
        let new = chain.outputs.iter().filter(is_new).count();
        let all = [0, chain.outputs.len()];
        assert!(
            has_list || all.contains(&new),
            "{}: {new} outputs: {:?}",
            chain.name,
            found.keys()
        );
        let (uninterrupted, _) = self.of(chain);
        for (name, bytes) in &found {
            if let Some(expected) = uninterrupted.get(name).filter(|_| bytes != b"older") {
                assert!(bytes == expected, "{}: {name} differs", chain.name);
            }
            if name.ends_with("report.json") && bytes != b"older" {
                let report = serde_json::from_slice::<serde_json::Value>(bytes);
                assert!(report.is_ok(), "{}: {name} is torn", chain.name);
            }
            if name.ends_with(".html") && bytes != b"older" {
                let text = String::from_utf8_lossy(bytes);
                assert!(text.trim_end().ends_with("</html>"), "{name} is torn");
            }
        }
        (found, has_list)
    }

    /// Runs a chain to its end, which may say that there is nothing to do. Its files are those of a run that nothing ended, and no other
    /// file is left.
    pub fn finish(&self, chain: &Chain) {
        let output = self.command(chain).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is_done = output.status.code() == Some(2) && said.contains("exists already");
        assert!(
            output.status.code() == Some(0) || is_done,
            "{}: {}: {said}",
            chain.name,
            output.status
        );
        let (found, _) = self.check_outputs(chain);
        let temporary: Vec<_> = found.keys().filter(|n| n.contains(".sparsevd-")).collect();
        assert!(temporary.is_empty(), "{}: {temporary:?}", chain.name);
        let exact = self.of(chain).0.keys().map(String::as_str);
        for name in exact.chain(chain.outputs.iter().copied()) {
            assert!(
                found.contains_key(name),
                "{}: no {name}: {said}",
                chain.name
            );
        }
    }
}
