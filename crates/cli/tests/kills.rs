//! The real `compress`, killed at random moments by SIGKILL, SIGINT, SIGTERM and SIGHUP, and begun again until it is done: the files of a
//! result appear together or not at all, they have the bytes of a run that nobody killed, and nothing else is left.
//!
//! A smoke of it is in every run of the tests. `SPARSEVD_KILLS=2000 SPARSEVD_SEED=1 cargo test --release -p sparsevd-cli --test kills --
//! --nocapture` kills that often, and prints what happened.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sparsevd_testing::arbitrary::Stream;
use synthetic::Workplace;

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

/// Longest time from a signal to the end of the process that is let pass here; a busy machine needs some of it.
const MOST: Duration = Duration::from_secs(10);

/// What is run until it is done.
struct Chain {
    name: &'static str,
    /// The command line, and what it has in addition where the run folder has a checkpoint.
    args: &'static [&'static str],
    resumes: &'static [&'static str],
    run: &'static str,
    /// Its files, which appear together.
    outputs: &'static [&'static str],
    /// Whether there are older files of these names, which are overwritten.
    over: bool,
}

const COMPRESS: &[&str] = &[
    "out.sparse.safetensors",
    "out.spvd",
    "out.report.json",
    "out.report.html",
];

const CHAINS: &[Chain] = &[
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

/// What happened.
#[derive(Default)]
struct Counts {
    kills: BTreeMap<&'static str, usize>,
    chains: BTreeMap<&'static str, usize>,
    /// Kills that came when the process had ended.
    late: usize,
    /// Chains that had begun to give files their names.
    between: usize,
    /// Kills that left temporary files.
    left: usize,
    slowest: Duration,
}

struct Campaign {
    place: Workplace,
    /// Bytes of a run that nobody killed, by chain, and its time.
    straight: Vec<(BTreeMap<String, Vec<u8>>, Duration)>,
    random: Stream,
    counts: Counts,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let place = Workplace::new();
        place.write("recipe.toml", RECIPE);
        place.write(
            "train.toml",
            "[[phase]]\nmethod = \"dense\"\nepochs = 6\nbatch = 4\nlr = 1e-2\n",
        );
        let mut campaign = Self {
            place,
            straight: vec![],
            random: Stream(seed),
            counts: Counts::default(),
        };
        for chain in CHAINS {
            campaign.clean(chain);
            let started = Instant::now();
            let output = campaign.place.compress(chain.args);
            let took = started.elapsed();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}: {stderr}", chain.name);
            let exact = campaign.files().into_iter().filter(|(n, _)| is_exact(n));
            campaign.straight.push((exact.collect(), took));
        }
        campaign
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        files(&self.place.path("."), "", &mut found);
        found
    }

    /// Removes what a chain makes.
    fn clean(&self, chain: &Chain) {
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

    fn begin(&self, chain: &Chain) -> Child {
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
        command.args(&args).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    fn draw(&mut self, most: usize) -> usize {
        self.random.bits() as usize % most
    }

    /// Kills a process at a random moment; returns its exit code, `None` where a signal ended it, and what it said.
    fn kill(&mut self, mut child: Child, within: Duration) -> (Option<i32>, String) {
        let share = self.random.unit() * 1.1;
        thread::sleep(within.mul_f64(share));
        let (signal, code) = [
            ("KILL", None),
            ("INT", Some(130)),
            ("TERM", Some(143)),
            ("HUP", Some(129)),
        ][self.draw(4)];
        let twice = self.draw(8) == 0;
        let is_over = child.try_wait().unwrap().is_some();
        let sent = Instant::now();
        if is_over {
            self.counts.late += 1;
        } else {
            *self.counts.kills.entry(signal).or_default() += 1;
            for _ in 0..1 + usize::from(twice) {
                let mut kill = Command::new("kill");
                let id = child.id().to_string();
                let _ = kill
                    .args([&format!("-{signal}"), &id])
                    .stderr(Stdio::null())
                    .status();
            }
        }
        let status = child.wait().unwrap();
        let took = sent.elapsed();
        self.counts.slowest = self.counts.slowest.max(took);
        assert!(took < MOST, "{took:?} from {signal} to the end");
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap_or_default();
        // A process that ends by itself just then has its own code; one that has not begun to handle signals, none.
        let is_done = status.code() == Some(2) && said.contains("exists already");
        let fits = is_done || [Some(0), code, None].contains(&status.code());
        assert!(fits, "{signal}: {status}: {said}");
        (status.code(), said)
    }

    /// What files there are after a kill: all or none of a result, unless the next run has a list to end it by.
    fn check_outputs(&mut self, chain: &Chain, place: usize) {
        let found = self.files();
        let lists = found.keys().filter(|n| n.ends_with(".list")).count();
        self.counts.left += usize::from(found.keys().any(|n| n.contains(".sparsevd-")));
        let is_new = |name: &&&str| found.get(**name).is_some_and(|bytes| bytes != b"older");
        let new = chain.outputs.iter().filter(is_new).count();
        if lists > 0 {
            self.counts.between += 1;
        } else {
            let all = [0, chain.outputs.len()];
            assert!(
                all.contains(&new),
                "{}: {new} outputs: {:?}",
                chain.name,
                found.keys()
            );
        }
        let (straight, _) = &self.straight[place];
        for (name, bytes) in &found {
            if let Some(expected) = straight.get(name).filter(|_| bytes != b"older") {
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
    }

    /// Runs a chain to its end, killing it a few times.
    fn chain(&mut self, place: usize) {
        let chain = &CHAINS[place];
        self.clean(chain);
        *self.counts.chains.entry(chain.name).or_default() += 1;
        let within = self.straight[place].1;
        for _ in 0..1 + self.draw(5) {
            let child = self.begin(chain);
            let (code, said) = self.kill(child, within);
            self.check_outputs(chain, place);
            if [Some(0), Some(2)].contains(&code) {
                break;
            }
            assert!(!said.contains("panicked"), "{}: {said}", chain.name);
        }
        // The next run ends it, or says that there is nothing to do.
        let output = self.begin(chain).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let is_done = output.status.code() == Some(2) && said.contains("exists already");
        assert!(
            output.status.code() == Some(0) || is_done,
            "{}: {}: {said}",
            chain.name,
            output.status
        );
        self.check_outputs(chain, place);
        let found = self.files();
        let temporary: Vec<_> = found.keys().filter(|n| n.contains(".sparsevd-")).collect();
        assert!(temporary.is_empty(), "{}: {temporary:?}", chain.name);
        for name in self.straight[place]
            .0
            .keys()
            .map(String::as_str)
            .chain(chain.outputs.iter().copied())
        {
            assert!(
                found.contains_key(name),
                "{}: no {name}: {said}",
                chain.name
            );
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

#[test]
fn killed_runs_end_as_if_nobody_had_killed_them() {
    let most = number("SPARSEVD_KILLS", 12) as usize;
    let mut campaign = Campaign::new(number("SPARSEVD_SEED", 0));
    let kills = |c: &Campaign| c.counts.kills.values().sum::<usize>();
    let mut place = 0;
    while kills(&campaign) < most {
        campaign.chain(place % CHAINS.len());
        place += 1;
        if place % 50 == 0 {
            println!("{} kills", kills(&campaign));
        }
    }
    let Counts {
        kills,
        chains,
        late,
        between,
        left,
        slowest,
    } = campaign.counts;
    println!("kills: {kills:?}; chains: {chains:?}");
    println!(
        "{late} came too late, {left} left temporary files, {between} came while files got their names; the slowest end took {slowest:?}"
    );
}
