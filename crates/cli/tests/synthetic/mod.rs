//! A data set that is learnt in a blink, a network of a few hundred weights, and the real binaries on them.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use sparsevd_format::{WriteOptions, write_network};
use sparsevd_model::{Dense, Network, Shape, presets};
use sparsevd_testing::arbitrary::Stream;
use tempfile::TempDir;

/// Side of the images that the small network takes.
pub const SIDE: usize = 6;

/// A recipe of seven short epochs.
pub const RECIPE: &str = "\
data = \"data\"
seed = 3
validation = 40
max_accuracy_drop = 5.0

[[phase]]
method = \"sparse-vd\"
epochs = 6
batch = 20
lr = 1e-2
lr_log_sigma2 = 1e-1
kl_scale = 0.5

[[phase]]
method = \"fine-tune\"
epochs = 1
batch = 20
lr = 1e-3
";

/// A folder to work in, with a data set in `data/` and a recipe for it.
pub struct Workplace {
    dir: TempDir,
}

impl Workplace {
    /// With `net.safetensors`, a small trained network.
    pub fn new() -> Self {
        Self::without_network().with_network()
    }

    /// The same in another folder than that of temporary files.
    pub fn new_in(folder: &Path) -> Self {
        Self::of(TempDir::new_in(folder).unwrap()).with_network()
    }

    fn with_network(self) -> Self {
        let (graph, tensors) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[12, 2]);
        let shapes: Value = tensors
            .iter()
            .map(|(n, s)| (n.clone(), serde_json::to_value(s).unwrap()))
            .collect();
        let mut json = serde_json::to_value(&graph).unwrap();
        json["tensors"] = shapes;
        self.write("graph.json", json.to_string());
        self.ok(&[
            "train",
            "graph.json",
            "--data",
            "data",
            "--epochs",
            "2",
            "--recipe",
            "train.toml",
            "-o",
            "net.safetensors",
        ]);
        self
    }

    /// Without one.
    pub fn without_network() -> Self {
        Self::of(TempDir::new().unwrap())
    }

    fn of(dir: TempDir) -> Self {
        let place = Self { dir };
        place.write("recipe.toml", RECIPE);
        place.write(
            "train.toml",
            "[[phase]]\nmethod = \"dense\"\nepochs = 2\nbatch = 20\nlr = 1e-2\n",
        );
        place.write_data("data", SIDE, 240, 60);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }

    /// Names of all files and folders directly in it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// IDX files: class 0 is bright on the left, class 1 on the right.
    pub fn write_data(&self, folder: &str, side: usize, train: usize, test: usize) {
        for (split, count) in [("train", train), ("t10k", test)] {
            let mut stream = Stream(count as u64);
            let mut pixels = vec![];
            for image in 0..count {
                let noise = stream.floats(side * side);
                pixels.extend(noise.iter().enumerate().map(|(p, n)| {
                    let bright = usize::from(p % side >= side / 2) == image % 2;
                    (n.abs() * 60.0).min(60.0) as u8 + if bright { 150 } else { 0 }
                }));
            }
            let labels: Vec<u8> = (0..count).map(|i| (i % 2) as u8).collect();
            let [n, side] = [count, side].map(|v| v as u32);
            self.write(
                &format!("{folder}/{split}-images-idx3-ubyte"),
                idx(&[n, side, side], &pixels),
            );
            self.write(
                &format!("{folder}/{split}-labels-idx1-ubyte"),
                idx(&[n], &labels),
            );
        }
    }

    /// A preset's network with random weights, in a file.
    pub fn write_preset(&self, name: &str, preset: &str) -> Network {
        let network = random_preset(preset);
        write_network(self.path(name), &network, &WriteOptions::default()).unwrap();
        network
    }

    /// Runs `compress` in the folder.
    pub fn compress<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.command("compress").args(args).output().unwrap()
    }

    /// Runs `run-sparse` in the folder.
    pub fn run_sparse<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.command("run-sparse").args(args).output().unwrap()
    }

    pub fn command(&self, binary: &str) -> Command {
        let mut command = Command::new(cargo_bin(binary));
        command
            .current_dir(self.dir.path())
            .env_remove("SPARSE_ISA");
        command
    }

    /// Interrupts `compress` once that checkpoint is written, by SIGINT; returns the command that it says to go on with.
    pub fn interrupted<S: AsRef<OsStr>>(&self, args: &[S], checkpoint: &str) -> String {
        let mut child = self
            .command("compress")
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(&self.path(checkpoint));
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(kill.success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        let stderr = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        stderr.lines().last().unwrap().to_owned()
    }

    /// Runs a command line as it was printed.
    pub fn shell(&self, command: &str) -> Output {
        Command::new("sh")
            .args(["-c", command])
            .current_dir(self.dir.path())
            .output()
            .unwrap()
    }

    /// What a `compress` that must go through prints on stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        stdout_of(args, self.compress(args))
    }

    /// The same of `run-sparse`.
    pub fn ok_run_sparse(&self, args: &[&str]) -> String {
        stdout_of(args, self.run_sparse(args))
    }

    /// Runs `compress`, which must fail with exit code 2 and one line that says all of `words`; `None` where it does.
    pub fn complaint(&self, args: &[&str], words: &[&str]) -> Option<String> {
        let before = self.names();
        let output = self.compress(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let one_line = stderr.lines().count() == 1 && stderr.starts_with("compress: ");
        let says = words.iter().all(|w| stderr.contains(w));
        let nothing_new = self.names() == before;
        let fine = output.status.code() == Some(2)
            && one_line
            && says
            && output.stdout.is_empty()
            && nothing_new;
        (!fine).then(|| format!("{args:?} should exit 2, say {words:?} in one line and write nothing: {:?}, {stderr}{:?}", output.status.code(), self.names()))
    }
}

fn stdout_of(args: &[&str], output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "stderr is no terminal: {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// IDX bytes of one-byte elements.
pub fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// A preset's network with random weights of a size that activations stay about one.
pub fn random_preset(preset: &str) -> Network {
    let mut stream = Stream(1);
    let preset = presets::by_name(preset).unwrap();
    Network::from_preset(preset, |_, shape| {
        let (_, fan_in) = shape.matrix();
        let scale = (2.0 / fan_in as f32).sqrt();
        let values = stream.floats(shape.elements()).into_iter();
        let values = values.map(|v| v * scale).collect();
        Dense::new(shape.clone(), values).into()
    })
    .unwrap()
}

/// A safetensors file of F32 tensors without metadata, as other programs write it.
pub fn plain_safetensors(tensors: &[(String, &Dense)]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dense)| {
        let bytes: Vec<u8> = dense.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name, dense.shape.dims().to_vec(), bytes)
    });
    let views: Vec<_> = views.collect();
    let views = views.iter().map(|(name, shape, bytes)| {
        (
            name.as_str(),
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                .unwrap(),
        )
    });
    safetensors::serialize(views, None).unwrap()
}

/// Waits until a file is there.
fn wait_for(path: &Path) {
    let start = std::time::Instant::now();
    while !path.exists() {
        assert!(
            start.elapsed().as_secs() < 60,
            "{} never came",
            path.display()
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}
