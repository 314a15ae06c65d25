//! Checkpoints that were edited, cut, zeroed, or made by another run: each is refused by one line, or is what it was. A damaged last one
//! is replaced by the one before it, aloud.
//!
//! `SPARSEVD_CHECKPOINTS=N` tries N variants of each of the two random kinds.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::Value;
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::trainer::{Observer, Outcome, Position, RunOptions, Silent, Trainer};
use sparsevd_compressor::{CompressError, TrainingData, checkpoint, initialise};
use sparsevd_format::{Dataset, Pixels, WriteOptions, write_network_bytes};
use sparsevd_model::{Conv2d, GraphBuilder, Network, Op, Preprocessing, Shape};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::checkpoint::with_checksum;

const META: &str = "sparsevd.checkpoint";

/// Images whose brighter half is their class.
fn images(seed: u64) -> Dataset {
    let mut noise = Stream(seed);
    let (n, side) = (120, 6);
    let mut pixels = vec![];
    for image in 0..n {
        let floats = noise.floats(side * side);
        pixels.extend(floats.iter().enumerate().map(|(p, v)| {
            let bright = usize::from(p % side >= side / 2) == image % 2;
            (v.abs() * 60.0).min(60.0) as u8 + if bright { 150 } else { 0 }
        }));
    }
    let labels = (0..n).map(|i| (i % 2) as u16).collect();
    Dataset::new(Pixels::U8(pixels), Shape::from([1, side, side]), labels).unwrap()
}

/// A convolution, a normalisation and two linear layers.
fn network(seed: u64) -> Network {
    let mut b = GraphBuilder::new("small");
    b.preprocessing(Preprocessing::default());
    let x = b.input("input", [1, 6, 6]);
    let x = b.conv("c", &x, &Conv2d::square(3, 3));
    let x = b.op("r0", Op::Relu, &[&x]);
    let x = b.conv("d", &x, &Conv2d::square(4, 3).without_bias());
    let x = b.batch_normalization("n", &x);
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("f1", &x, 6);
    let x = b.op("r2", Op::Relu, &[&x]);
    b.linear("f2", &x, 2);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    initialise(graph, &tensors, seed).unwrap()
}

fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        batch: 25,
        lr: 1e-2,
        prune_from: 1,
        ..Phase::new(method, epochs)
    };
    let mut quantise = phase(Method::Quantise, 2);
    quantise.grid = vec![0.5];
    let averaged = |method| Phase {
        ema_decay: 0.5,
        ..phase(method, 1)
    };
    Recipe::new(vec![
        averaged(Method::Dense),
        phase(Method::SparseVd, 3),
        averaged(Method::FineTune),
        quantise,
    ])
}

fn trainer_of(network: &Network, recipe: Recipe, data: &Dataset, folder: Option<&Path>) -> Trainer {
    let shape = network.graph.inputs[0].shape.clone();
    let data = TrainingData::split(data, 20, &shape, &Preprocessing::default(), 2).unwrap();
    let options = RunOptions {
        threads: 1,
        run_folder: folder.map(Path::to_owned),
    };
    Trainer::new(network, recipe, data, &options).unwrap()
}

fn trainer(folder: Option<&Path>) -> Trainer {
    trainer_of(&network(1), recipe(), &images(1), folder)
}

fn bytes(trainer: &Trainer) -> Vec<u8> {
    write_network_bytes(&trainer.network().unwrap(), &WriteOptions::default()).unwrap()
}

/// Stops after a number of steps, and hears warnings.
#[derive(Default)]
struct Watch {
    steps: Option<u32>,
    warnings: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.steps = self.steps.map(|n| n.saturating_sub(1));
    }
    fn warn(&mut self, text: &str) {
        self.warnings.push(text.into());
    }
    fn stop(&mut self) -> bool {
        self.steps == Some(0)
    }
}

/// Checkpoints of one run: in every phase, at its end, and at the end of the last.
fn checkpoints() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let mut found = vec![];
    // Four steps an epoch, seven epochs.
    for steps in [2, 4, 7, 13, 16, 18, 20, 23, 99] {
        let mut run = trainer(Some(folder.path()));
        let mut watch = Watch {
            steps: Some(steps),
            ..Watch::default()
        };
        run.run(&mut watch).unwrap();
        found.push(fs::read(checkpoint::path(folder.path())).unwrap());
        checkpoint::clear(folder.path()).unwrap();
    }
    found
}

type Arrays = BTreeMap<String, (Dtype, Vec<u8>)>;

/// A checkpoint with other arrays or metadata, and the checksum that they should have.
fn edited(file: &[u8], edit: impl FnOnce(&mut Arrays, &mut Value)) -> Vec<u8> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    let mut arrays: Arrays = (tensors.tensors().into_iter())
        .map(|(name, t)| (name, (t.dtype(), t.data().to_vec())))
        .collect();
    let mut meta = serde_json::from_str(&metadata[META]).unwrap();
    edit(&mut arrays, &mut meta);
    metadata.insert(META.into(), meta.to_string());
    let views = arrays.iter().map(|(name, (dtype, data))| {
        let size = dtype.bitsize() / 8;
        let view = TensorView::new(*dtype, vec![data.len() / size], data);
        (name.clone(), view.unwrap())
    });
    with_checksum(serialize(views, Some(metadata)).unwrap())
}

/// A run that variants are tried on, and its folder.
struct Bench {
    folder: tempfile::TempDir,
    run: Trainer,
}

impl Bench {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            run: trainer(None),
        }
    }

    /// What is said of a file in the place of the checkpoint; `Ok` where the run goes on from it.
    fn resume(&mut self, file: &[u8]) -> Result<(), String> {
        let folder = self.folder.path();
        fs::write(checkpoint::path(folder), file).unwrap();
        let error = match self.run.resume(folder, &mut Silent) {
            Ok(()) => return Ok(()),
            Err(error @ CompressError::Checkpoint { .. }) => error.to_string(),
            Err(other) => panic!("{other}"),
        };
        let is_line = !error.contains('\n') && error.len() < 1000;
        assert!(is_line && error.contains("expected"), "{error}");
        Err(error)
    }
}

fn variants() -> usize {
    let count = std::env::var("SPARSEVD_CHECKPOINTS");
    count.map_or(1000, |count| count.parse().unwrap())
}

/// The files themselves, to begin with: every one is gone on from to the same end.
#[test]
fn every_place_of_a_run_is_gone_on_from() {
    let mut straight = trainer(None);
    straight.run(&mut Silent).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for file in checkpoints() {
        fs::write(checkpoint::path(folder.path()), &file).unwrap();
        let mut run = trainer(Some(folder.path()));
        run.resume(folder.path(), &mut Silent).unwrap();
        assert_eq!(run.run(&mut Silent).unwrap(), Outcome::Done);
        assert!(bytes(&run) == bytes(&straight), "{:?}", run.position());
    }
}

#[test]
fn damaged_files_are_refused() {
    let files = checkpoints();
    let mut bench = Bench::new();
    let mut random = Stream(7);
    for i in 0..variants() {
        let file = &files[i % files.len()];
        let mut draw = |most: usize| random.bits() as usize % most;
        let mut damaged = file.clone();
        match i % 4 {
            0 => damaged.truncate(draw(file.len())),
            1 => {
                let start = draw(file.len());
                let end = (start + 1 + draw(4096)).min(file.len());
                damaged[start..end].fill(0);
            }
            2 => damaged[draw(file.len())] ^= 1 << draw(8),
            _ => {
                // A piece that belongs elsewhere, as of a file that was written in two parts.
                let other = &files[draw(files.len())];
                let start = draw(file.len().min(other.len()));
                damaged.truncate(start);
                damaged.extend(&other[start..]);
            }
        }
        if files.contains(&damaged) {
            continue;
        }
        let result = bench.resume(&damaged);
        assert!(
            result.is_err(),
            "variant {i} of checkpoint {}",
            i % files.len()
        );
    }
}

/// With the checksum mended, a flipped bit of a number is another number, which nobody can tell. All else is refused, and what is not can
/// be used.
#[test]
fn flipped_bits_under_a_mended_checksum_are_refused_or_usable() {
    let files = checkpoints();
    let mut bench = Bench::new();
    let mut random = Stream(8);
    let mut usable = 0;
    for i in 0..variants() {
        let file = &files[i % files.len()];
        let mut draw = |most: usize| random.bits() as usize % most;
        let mut flipped = file.clone();
        for _ in 0..1 + draw(3) {
            flipped[draw(file.len())] ^= 1 << draw(8);
        }
        if bench.resume(&with_checksum(flipped)).is_err() {
            continue;
        }
        usable += 1;
        if usable % 16 == 0 {
            match bench.run.run(&mut Silent) {
                // Numbers that are very large may grow too large to be written.
                Ok(_) => match bench.run.network() {
                    Ok(network) => drop(write_network_bytes(&network, &WriteOptions::default())),
                    Err(CompressError::Model(_)) => {}
                    Err(other) => panic!("variant {i}: {other}"),
                },
                Err(CompressError::Diverged { .. }) => {}
                Err(other) => panic!("variant {i}: {other}"),
            }
        }
    }
    println!(
        "{usable} of {} are other numbers in their range",
        variants()
    );
}

/// One array after the other, in every way in which it can be wrong.
#[test]
fn wrong_arrays_are_refused() {
    let mut bench = Bench::new();
    let mut tried = 0;
    for (place, file) in checkpoints().iter().enumerate() {
        let names: Vec<String> = SafeTensors::deserialize(file)
            .unwrap()
            .names()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        let float = |v: f32| v.to_le_bytes();
        for name in &names {
            let mut edits: Vec<(&str, Vec<u8>)> = vec![];
            let tensors = SafeTensors::deserialize(file).unwrap();
            let tensor = tensors.tensor(name).unwrap();
            let (dtype, data) = (tensor.dtype(), tensor.data().to_vec());
            let with = |at: usize, number: [u8; 4]| {
                let mut data = data.clone();
                data[at..at + 4].copy_from_slice(&number);
                data
            };
            edits.push(("longer", [&data[..], &[0; 4]].concat()));
            if !data.is_empty() {
                edits.push(("shorter", data[..data.len() - 4].to_vec()));
                edits.push(("empty", vec![]));
                if dtype == Dtype::F32 {
                    edits.push(("NaN", with(0, float(f32::NAN))));
                    edits.push(("infinite", with(data.len() - 4, float(f32::INFINITY))));
                    if name.ends_with(".v") || name.ends_with("steps") {
                        edits.push(("negative", with(0, float(-1.0))));
                    }
                    if name.ends_with("mask") {
                        edits.push(("a half", with(0, float(0.5))));
                        edits.push(("two", with(0, float(2.0))));
                    }
                    if name.ends_with("log_sigma2") {
                        edits.push(("too large", with(0, float(89.0))));
                    }
                    if name.ends_with("variance") {
                        edits.push(("negative", with(0, float(-1.0))));
                    }
                } else {
                    edits.push(("too large", with(data.len() - 4, u32::MAX.to_le_bytes())));
                    if data.len() > 4 {
                        let reversed = data.rchunks(4).flatten().copied().collect();
                        edits.push(("reversed", reversed));
                        edits.push(("repeated", with(4, data[..4].try_into().unwrap())));
                    }
                }
            }
            let mut refused = |what: &str, file: &[u8]| {
                tried += 1;
                let result = bench.resume(file);
                // An array that is empty anyway is as it was.
                assert!(result.is_err(), "checkpoint {place}: `{name}` {what}");
            };
            for (what, data) in edits {
                // An optional array may be absent, which is what empty is: then another check speaks, or it was not needed.
                if what == "empty" && name.ends_with("last_log_sigma2") {
                    continue;
                }
                let file = edited(file, |arrays, _| {
                    arrays.insert(name.clone(), (dtype, data));
                });
                refused(what, &file);
            }
            let missing = edited(file, |arrays, _| drop(arrays.remove(name)));
            refused("missing", &missing);
            let other = match dtype {
                Dtype::F32 => Dtype::U32,
                _ => Dtype::F32,
            };
            let retyped = edited(file, |arrays, _| {
                arrays.get_mut(name).unwrap().0 = other;
            });
            refused("of another type", &retyped);
        }
        let more = edited(file, |arrays, _| {
            arrays.insert("more".into(), (Dtype::F32, vec![0; 4]));
        });
        assert!(bench.resume(&more).unwrap_err().contains("no other arrays"));
    }
    println!("{tried} wrong arrays");
    assert!(tried > 1000);
}

#[test]
fn wrong_places_and_histories_are_refused() {
    let mut bench = Bench::new();
    for (place, file) in checkpoints().iter().enumerate() {
        let mut refused = |what: &str, edit: &dyn Fn(&mut Value)| {
            let file = edited(file, |_, meta| edit(meta));
            let result = bench.resume(&file);
            assert!(result.is_err(), "checkpoint {place}: {what}");
        };
        for field in [
            "phase",
            "epoch",
            "step",
            "total_steps",
            "total_epochs",
            "adam_step",
        ] {
            for value in [1_u64, 3, 1 << 31, u64::from(u32::MAX)] {
                let added = |meta: &mut Value| {
                    let number = meta["position"][field].as_u64().unwrap();
                    meta["position"][field] = number.wrapping_add(value).into();
                };
                refused(&format!("{field} and {value}"), &added);
            }
        }
        refused("begun or not", &|meta| {
            let started = meta["position"]["started"].as_bool().unwrap();
            meta["position"]["started"] = (!started).into();
        });
        refused("a negative phase", &|meta| {
            meta["position"]["phase"] = (-1).into()
        });
        refused("no position", &|meta| meta["position"] = Value::Null);
        refused("sums that are no numbers", &|meta| {
            meta["sums"] = serde_json::json!([null, 0.0]);
        });
        refused("another version", &|meta| meta["version"] = 4.into());
        refused("an earlier version", &|meta| meta["version"] = 2.into());
        let epochs = serde_json::to_value(trainer_history(file)).unwrap();
        if epochs.as_array().unwrap().is_empty() {
            continue;
        }
        refused("an epoch less", &|meta| {
            meta["history"].as_array_mut().unwrap().pop().unwrap();
        });
        refused("an epoch twice", &|meta| {
            let history = meta["history"].as_array_mut().unwrap();
            history.push(history[0].clone());
        });
        for (field, value) in [
            ("loss", Value::Null),
            ("seconds", (-1.0).into()),
            ("phase", 9.into()),
            ("epoch", 0.into()),
            ("method", "dense-ish".into()),
            ("layers", Value::Array(vec![])),
        ] {
            refused(&format!("an epoch with {field} {value}"), &|meta| {
                meta["history"][0][field] = value.clone();
            });
        }
        refused("more weights than there are", &|meta| {
            meta["history"][0]["layers"][0]["left"] = 1_000_000.into();
        });
    }
}

fn trainer_history(file: &[u8]) -> Value {
    let (_, header) = SafeTensors::read_metadata(file).unwrap();
    let metadata = header.metadata().clone().unwrap();
    let meta: Value = serde_json::from_str(&metadata[META]).unwrap();
    meta["history"].clone()
}

/// As version 2 wrote it: without a checksum.
#[test]
fn a_checkpoint_of_an_earlier_version_is_refused_by_name() {
    let file = &checkpoints()[0];
    let tensors = SafeTensors::deserialize(file).unwrap();
    let meta = r#"{"version":2,"fingerprint":"0123456789abcdef","position":{}}"#;
    let metadata = [(META.to_owned(), meta.to_owned())].into();
    let old = serialize(tensors.tensors(), Some(metadata)).unwrap();
    let error = Bench::new().resume(&old).unwrap_err();
    let expected = "expected version 3, got 2, of an earlier version of the program; begin anew";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn the_one_before_is_gone_on_from_aloud() {
    let mut straight = trainer(None);
    straight.run(&mut Silent).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (last, previous) = (
        checkpoint::path(folder.path()),
        checkpoint::previous_path(folder.path()),
    );
    for damage in ["cut", "missing", "both"] {
        let mut watch = Watch {
            steps: Some(13),
            ..Watch::default()
        };
        trainer(Some(folder.path())).run(&mut watch).unwrap();
        let whole = fs::read(&last).unwrap();
        match damage {
            "cut" => fs::write(&last, &whole[..whole.len() - 4096]).unwrap(),
            "missing" => fs::remove_file(&last).unwrap(),
            _ => {
                fs::write(&last, "").unwrap();
                fs::write(&previous, &whole[..100]).unwrap();
            }
        }
        assert!(checkpoint::exists(folder.path()));
        let mut run = trainer(Some(folder.path()));
        let mut watch = Watch::default();
        let resumed = run.resume(folder.path(), &mut watch);
        if damage == "both" {
            let error = resumed.unwrap_err().to_string();
            assert!(error.contains("and of the checkpoint before it"), "{error}");
            assert_eq!(error.lines().count(), 1);
            break;
        }
        resumed.unwrap();
        let [warning] = watch.warnings.as_slice() else {
            panic!("{:?}", watch.warnings)
        };
        assert!(
            warning.contains("goes on from the checkpoint before it, of phase 2, epoch 2"),
            "{warning}"
        );
        assert_eq!(run.position().step, 0);
        assert!(last.is_file() && !previous.exists());
        run.run(&mut watch).unwrap();
        assert!(bytes(&run) == bytes(&straight), "{damage}");
        checkpoint::clear(folder.path()).unwrap();
        assert!(!checkpoint::exists(folder.path()));
    }
}

/// The evaluation behind an epoch is left where it is to stop, and done again.
#[test]
fn a_run_stops_at_every_question() {
    struct StopAt(u32);
    impl Observer for StopAt {
        fn stop(&mut self) -> bool {
            self.0 = self.0.saturating_sub(1);
            self.0 == 0
        }
    }
    let mut straight = trainer(None);
    straight.run(&mut Silent).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut run = trainer(Some(folder.path()));
    let mut places: Vec<Position> = vec![];
    // Two questions are answered by no before each yes, so that the run comes to its end.
    while run.run(&mut StopAt(3)).unwrap() == Outcome::Interrupted {
        places.push(run.position());
        run = trainer(Some(folder.path()));
        run.resume(folder.path(), &mut Silent).unwrap();
    }
    assert!(bytes(&run) == bytes(&straight));
    assert!(places.iter().any(|p| p.step == 4), "at the end of an epoch");
    assert!(places.len() >= 10, "{}", places.len());
}

#[test]
fn what_differs_from_the_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    trainer(Some(folder.path())).run(&mut Silent).unwrap();
    let mut other_seed = recipe();
    other_seed.seed = 9;
    let mut other_recipe = recipe();
    other_recipe.phases[2].lr = 0.5;
    let (same, data) = (network(1), images(1));
    let cases = [
        (
            trainer_of(&network(2), recipe(), &data, None),
            "of this network (",
        ),
        (
            trainer_of(&same, recipe(), &images(2), None),
            "on this data set (",
        ),
        (
            trainer_of(&same, other_seed, &data, None),
            "expected a run of seed 9, got one of seed 0",
        ),
        (
            trainer_of(&same, other_recipe, &data, None),
            "expected a run by a recipe with phase 3 lr 0.5, got one by another recipe, with 0.01",
        ),
    ];
    for (mut run, expected) in cases {
        let error = run.resume(folder.path(), &mut Silent).unwrap_err();
        let error = error.to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }
}
