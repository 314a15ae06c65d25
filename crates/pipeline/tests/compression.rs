//! Compressions in memory and in folders: progress, interruption, going on, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test")]

mod stripes;

use std::path::Path;

use sparsevd_compressor::recipe::{Goal, Method, Phase, Recipe, Search};
use sparsevd_compressor::report::{Pruning, SplitScore};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_compressor::{Magnitude, Scope, architecture::Architecture, initialise};
use sparsevd_format::{
    GraphSource, Pixels, WriteOptions, read_network, write_network, write_network_bytes,
};
use sparsevd_model::{Conv2d, GraphBuilder, Network, Op, Preprocessing, Shape, presets};
use sparsevd_onnx::ImportOptions;
use sparsevd_pipeline::{
    Compression, Conversion, Data, Inspection, ModelFile, Observer, Outputs, PipelineError,
    RecordedRun, RunFolder, Silent, SweepScore, Training,
};

use stripes::{SIDE, data, network, set};

fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 10,
        ..Phase::new(method, epochs)
    };
    Recipe {
        validation: 20.into(),
        max_accuracy_drop: 100.0,
        phases: vec![
            phase(Method::SparseVd, 4),
            phase(Method::FineTune, 1),
            phase(Method::Quantise, 1),
        ],
        ..Recipe::new(vec![])
    }
}

fn bytes(network: &Network) -> Vec<u8> {
    write_network_bytes(network, &WriteOptions::default()).unwrap()
}

/// Stops after a number of steps, and counts epochs and notes.
#[derive(Default)]
struct Watch {
    steps: u32,
    stop_after: Option<u32>,
    epochs: usize,
    notes: Vec<String>,
}

impl Watch {
    fn until(steps: u32) -> Self {
        Self {
            stop_after: Some(steps),
            ..Self::default()
        }
    }
}

impl Observer for Watch {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.steps += 1;
    }

    fn epoch(&mut self, _: &EpochRecord) {
        self.epochs += 1;
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }

    fn stop(&mut self) -> bool {
        self.stop_after == Some(self.steps)
    }
}

#[test]
fn an_observer_stops_a_run_that_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let new = || Compression::new(network(), data(), recipe()).threads(1);
    let mut watch = Watch::default();
    let straight = new().run(&mut watch).unwrap();
    assert_eq!((watch.epochs, straight.history.len()), (6, 6));
    let said = |what: &str| watch.notes.iter().any(|n| n.contains(what));
    assert!(said("stripes") && said("100 images to train on, 20 held back"));
    assert!(
        said("net as it came: validation error"),
        "{watch:?}",
        watch = watch.notes
    );

    for steps in [3, 34] {
        let stopped = new().in_folder(RunFolder::overwrite(&run));
        let error = stopped.run(&mut Watch::until(steps)).unwrap_err();
        assert!(
            matches!(&error, PipelineError::Interrupted { folder: Some(f) } if *f == run),
            "{error}"
        );
        let error = new().in_folder(RunFolder::new(&run)).run(&mut Silent);
        assert!(matches!(error, Err(PipelineError::Occupied { .. })));
        let resumed = new().in_folder(RunFolder::resume(&run).unwrap());
        let resumed = resumed.run(&mut Silent).unwrap();
        assert!(bytes(&resumed.network) == bytes(&straight.network));
        assert_eq!(resumed.history.len(), 6);
    }
    // Network and data came from memory, so that nothing says where they are.
    let error = Compression::resume(&run).unwrap_err();
    assert!(error.to_string().contains("run.json"), "{error}");
}

/// A network and the same data as files, as other programs leave them.
fn files(folder: &Path, network: &Network) -> ModelFile {
    let path = folder.join("net.safetensors");
    write_network(&path, network, &WriteOptions::default()).unwrap();
    let arrays = [("train", set(120)), ("test", set(30))].map(|(part, set)| {
        let Pixels::U8(pixels) = set.pixels else {
            panic!("bytes")
        };
        (part, set.labels.len(), pixels, set.labels)
    });
    let idx = |kind: &str, dims: &[usize], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| (*d as u32).to_be_bytes()));
        bytes.extend(data);
        std::fs::write(folder.join(kind), bytes).unwrap();
    };
    for (part, n, pixels, labels) in arrays {
        let part = if part == "test" { "t10k" } else { part };
        let labels: Vec<u8> = labels.iter().map(|l| *l as u8).collect();
        idx(
            &format!("{part}-images-idx3-ubyte"),
            &[n, SIDE, SIDE],
            &pixels,
        );
        idx(&format!("{part}-labels-idx1-ubyte"), &[n], &labels);
    }
    ModelFile { path, graph: None }
}

#[test]
fn a_folder_knows_how_to_go_on_and_what_other_thresholds_give() {
    let folder = tempfile::tempdir().unwrap();
    let model = files(folder.path(), &network());
    let run = folder.path().join("run");
    let read = || model.clone().read(&ImportOptions::default()).unwrap();
    let load = || Data::load(folder.path()).unwrap();
    let straight = Compression::new(read(), load(), recipe());
    let straight = straight.run(&mut Silent).unwrap();
    let in_memory = Compression::new(network(), data(), recipe());
    let in_memory = in_memory.run(&mut Silent).unwrap();
    assert!(bytes(&straight.network) == bytes(&in_memory.network));

    let stopped = Compression::new(read(), load(), recipe()).in_folder(RunFolder::new(&run));
    let error = stopped.run(&mut Watch::until(25)).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
    let outputs = [&straight, &resumed].map(|compressed| {
        let path = folder.path().join("result.safetensors");
        let report = compressed.save(&path).unwrap();
        assert_eq!(report.model.file_name(), model.path.file_name());
        assert_eq!(report.summary.nonzeros, compressed.network.nonzeros());
        assert_eq!(report.history.len(), 6);
        assert_eq!(report.kernels.len(), 4, "two layers, two batches");
        let accuracy = report.accuracy.unwrap();
        assert!(accuracy.test.is_some() && accuracy.promise.kept);
        let packed = report.packed.unwrap();
        assert_eq!(packed.output, folder.path().join("result.spvd"));
        [path, packed.output].map(|p| std::fs::read(p).unwrap())
    });
    assert!(outputs[0] == outputs[1], "files differ");

    let recorded = RecordedRun::open(&run).unwrap();
    let sweep = recorded
        .sweep(network(), load(), &[-1.0, 8.0], 1, &mut Silent)
        .unwrap();
    assert_eq!(sweep.weights, 8 * 16 + 16);
    let [low, high] = &sweep.points[..] else {
        panic!("{sweep:?}")
    };
    assert!(low.left <= high.left && high.left <= sweep.weights);
    assert!(
        matches!(high.score, SweepScore::Error { validation_error_percent } if validation_error_percent < 50.0)
    );
    let error = recorded
        .sweep(network(), load(), &[9.0], 1, &mut Silent)
        .unwrap_err();
    assert!(error.to_string().contains("got 9"), "{error}");
}

/// What is written is on grids although it trained with normalisations, and interruptions change nothing of it, in each phase.
#[test]
fn normalisations_are_folded_before_weights_get_grids() {
    let folder = tempfile::tempdir().unwrap();
    let model = files(folder.path(), &initialised());
    let run = folder.path().join("run");
    let read = || model.clone().read(&ImportOptions::default()).unwrap();
    let load = || Data::load(folder.path()).unwrap();
    // By one grid, and by the coarsest of several that keeps the promise, with a teacher.
    let recipe = |grid: &[f64]| {
        let mut recipe = recipe();
        (recipe.batch_normalisation, recipe.phases[2].grid) = (true, grid.into());
        recipe.phases.iter_mut().for_each(|p| p.distil = 0.5);
        recipe
    };
    for grid in [&[1.0][..], &[1.0, 0.3]] {
        let new = || Compression::new(read(), load(), recipe(grid));
        let straight = new().run(&mut Silent).unwrap();
        assert_eq!(straight.network.graph.nodes, read().network.graph.nodes);
        let on_grids = |node: &sparsevd_model::Node| {
            let mut tensors = [node.op.weight(), node.op.bias()].into_iter().flatten();
            tensors.all(|name| straight.network.scales.contains_key(name))
        };
        assert!(straight.network.graph.weighted_nodes().all(on_grids));
        let report = straight.save(folder.path().join("r.safetensors")).unwrap();
        assert!(report.packed.is_some());
        let test = report.accuracy.unwrap().test.unwrap();
        assert!(
            matches!(test, SplitScore::Errors(e) if e.sparse_percent < 10.0),
            "{test:?}"
        );
        // 40 steps of Sparse VD, 10 of fine-tuning and 10 of each grid.
        for steps in [25, 45, 55] {
            let stopped = new().in_folder(RunFolder::overwrite(&run));
            stopped.run(&mut Watch::until(steps)).unwrap_err();
            let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
            assert!(
                bytes(&straight.network) == bytes(&resumed.network),
                "{grid:?}, {steps}"
            );
        }
    }
    // A search goes on from a posterior with normalisations, and each try folds them.
    let mut searched = recipe(&[1.0]);
    searched.search = Some(Search::towards(Goal::Ratio(3.0)));
    let new = || Compression::new(read(), load(), searched.clone());
    let straight = new().run(&mut Silent).unwrap();
    let stopped = new().in_folder(RunFolder::overwrite(&run));
    stopped.run(&mut Watch::until(55)).unwrap_err();
    let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
    assert!(bytes(&straight.network) == bytes(&resumed.network));
    let again = Compression::new(read(), load(), straight.recipe.recipe.clone());
    let again = again.run(&mut Silent).unwrap();
    assert!(bytes(&straight.network) == bytes(&again.network));
}

/// Two convolutions, whose normalisation may have been folded, and a linear layer.
fn convolutions() -> Architecture {
    let mut b = GraphBuilder::new("net");
    b.preprocessing(Preprocessing::default());
    let x = b.input("x", Shape::from([1, SIDE, SIDE]));
    let x = b.conv("c1", &x, &Conv2d::square(6, 3).padding(1));
    let x = b.op("r1", Op::Relu, &[&x]);
    let x = b.conv("c2", &x, &Conv2d::square(4, 3));
    let x = b.op("r2", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    let x = b.linear("fc", &x, 2);
    b.output(&x);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    Architecture { graph, tensors }
}

fn initialised() -> Network {
    let Architecture { graph, tensors } = convolutions();
    initialise(graph, &tensors, 2).unwrap()
}

#[test]
fn convolutions_train_with_a_normalisation_that_is_folded_in_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let model = files(folder.path(), &initialised());
    let run = folder.path().join("run");
    let read = || model.clone().read(&ImportOptions::default()).unwrap();
    let load = || Data::load(folder.path()).unwrap();
    let recipe = |batch_normalisation| {
        let mut recipe = recipe();
        recipe.phases.pop();
        recipe.phases[1].distil = 0.5;
        Recipe {
            batch_normalisation,
            ..recipe
        }
    };
    let new = |with| Compression::new(read(), load(), recipe(with));
    let mut watch = Watch::default();
    let straight = new(true).run(&mut watch).unwrap();
    assert!(
        watch.notes.contains(
            &"batch normalisation after 2 convolutions, by the statistics of 100 samples".into()
        ),
        "{:?}",
        watch.notes
    );
    assert_eq!(straight.network.graph.nodes, read().network.graph.nodes);
    let without = new(false).run(&mut Silent).unwrap();
    assert!(bytes(&straight.network) != bytes(&without.network));
    let report = straight.save(folder.path().join("r.safetensors")).unwrap();
    let test = report.accuracy.unwrap().test.unwrap();
    assert!(
        matches!(test, SplitScore::Errors(e) if e.sparse_percent < 10.0),
        "{test:?}"
    );
    // It goes on, and other thresholds can be asked for.
    let stopped = new(true).in_folder(RunFolder::new(&run));
    stopped.run(&mut Watch::until(25)).unwrap_err();
    let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
    assert!(bytes(&straight.network) == bytes(&resumed.network));
    let sweep = RecordedRun::open(&run).unwrap();
    let sweep = sweep.sweep(read().network, load(), &[3.0], 1, &mut Silent);
    assert_eq!(sweep.unwrap().points.len(), 1);
    // After pruning in one shot the teacher has them too.
    let mut tune = recipe(true);
    tune.phases.remove(0);
    let pruned = Compression::new(read(), load(), tune).pruned_by(Pruning::Magnitude(Magnitude {
        sparsity: 0.5,
        scope: Scope::Global,
        every_layer: true,
        keep_dense: vec![],
    }));
    let pruned = pruned.run(&mut Silent).unwrap().network;
    assert_eq!(pruned.graph.nodes, read().network.graph.nodes);
    let left = pruned.nonzeros() as f64 / read().network.nonzeros() as f64;
    assert!(left < 0.55, "{left}");
}

#[test]
fn a_normalisation_that_training_is_to_have_must_be_there() {
    let recipe = Recipe {
        batch_normalisation: true,
        ..Recipe::new(vec![Phase::new(Method::Dense, 1)])
    };
    let training = Training::new(convolutions(), data(), recipe);
    let error = training.run(&mut Silent).unwrap_err().to_string();
    assert!(
        error.contains("batch_normalisation: expected false") && error.contains("none after `c1`"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_compressed_is_refused_before_any_work() {
    let magnitude = |sparsity| {
        Pruning::Magnitude(Magnitude {
            sparsity,
            scope: Scope::Global,
            every_layer: true,
            keep_dense: vec![],
        })
    };
    let fails = |compression: Compression, words: &[&str]| {
        let mut watch = Watch::default();
        let error = compression.run(&mut watch).unwrap_err().to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
        assert_eq!(watch.steps, 0);
    };
    fails(Compression::new(network(), None, recipe()), &["data set"]);
    let mut bare = network();
    bare.graph.preprocessing = None;
    fails(
        Compression::new(bare, data(), recipe()),
        &["`net`", "pixels of 0 to 255"],
    );
    fails(
        Compression::new(network(), data(), recipe()).pruned_by(magnitude(0.5)),
        &["fine-tune", "got phase 1 (sparse-vd)"],
    );
    let mut wrong = recipe();
    wrong.phases[0].lr = f64::NAN;
    fails(Compression::new(network(), data(), wrong), &["lr", "NaN"]);
    let error = RunFolder::resume("/nowhere").unwrap_err();
    assert!(matches!(error, PipelineError::NoCheckpoint { .. }));

    let mut none = recipe();
    none.phases.clear();
    let pruned = Compression::new(network(), None, none).pruned_by(magnitude(0.5));
    let pruned = pruned.run(&mut Silent).unwrap();
    assert!(pruned.network.nonzeros() <= 72 && pruned.before.is_none());
    let folder = tempfile::tempdir().unwrap();
    let report = pruned.save(folder.path().join("p.safetensors")).unwrap();
    assert!(report.accuracy.is_none() && report.pruning.is_some());
}

#[test]
fn a_network_is_trained_compressed_converted_and_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (graph, tensors) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[8, 2]);
    let architecture = sparsevd_compressor::architecture::Architecture { graph, tensors };
    let dense = Recipe {
        validation: 20.into(),
        phases: vec![Phase {
            lr: 1e-2,
            batch: 10,
            ..Phase::new(Method::Dense, 4)
        }],
        ..Recipe::default_for_training()
    };
    let trained = Training::new(architecture, data(), dense);
    let trained = trained.run(&mut Silent).unwrap();
    let report = trained.save(path("net.safetensors")).unwrap();
    assert_eq!(report.scores.test.unwrap().score.error(), 0.0);
    assert!(matches!(
        trained.save(path("net.spvd")),
        Err(PipelineError::Invalid { .. })
    ));

    let compressed = Compression::new(trained.network.clone(), data(), recipe());
    let compressed = compressed.run(&mut Silent).unwrap();
    let outputs = Outputs::new(path("net.spvd"), &recipe()).unwrap();
    outputs.check(false).unwrap();
    compressed.write(&outputs).unwrap();
    assert!(outputs.check(false).is_err(), "they exist");

    let read = |name: &str| read_network(path(name), &GraphSource::Auto).unwrap();
    let conversion = Conversion::default();
    conversion
        .write(read("net.spvd"), path("back.safetensors"))
        .unwrap();
    assert_eq!(
        read("back.safetensors").network.to_dense(),
        read("net.spvd").network.to_dense()
    );
    let off = conversion.write(read("net.safetensors"), path("x.spvd"));
    assert!(matches!(off, Err(PipelineError::OffGrid { .. })));
    let inspection = Inspection::new(path("net.spvd"), read("net.spvd")).unwrap();
    assert_eq!(inspection.summary.nonzeros, compressed.network.nonzeros());
    let size = std::fs::metadata(path("net.spvd")).unwrap().len();
    assert_eq!(inspection.packed.unwrap().size.bytes, size);
}
