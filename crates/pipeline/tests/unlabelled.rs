//! Compression by the network's own answers: inputs without labels, ids among them, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test")]

mod stripes;

use sparsevd_compressor::initialise;
use sparsevd_compressor::objective::Loss;
use sparsevd_compressor::recipe::{Method, Overrides, Phase, Recipe};
use sparsevd_compressor::report::{Against, SplitScore};
use sparsevd_format::{
    DataSplits, Dataset, LoadedSamples, Pixels, WriteOptions, write_network, write_network_bytes,
    write_npz,
};
use sparsevd_model::{
    Conv2d, DType, Dense, GraphBuilder, Input, Network, Op, Preprocessing, Shape, ops,
};
use sparsevd_onnx::ImportOptions;
use sparsevd_pipeline::{
    Compressed, Compression, Data, DataSplit, ModelFile, Observer, PipelineError, RecordedRun,
    RunFolder, Silent, Training,
};

/// Rows of the table, and ids of an input.
const IDS: usize = 9;
const LENGTH: usize = 6;

/// Rows of a table, two layers, probabilities of three classes.
fn network() -> Network {
    let mut b = GraphBuilder::new("ids");
    let mut input = Input::new("ids", Shape::from([LENGTH]));
    input.dtype = DType::I32;
    let x = b.free_input(input);
    let table = b.tensor("table", [IDS, 4]);
    let x = b.op("rows", Op::Embedding(ops::Embedding { table }), &[&x]);
    let shape = vec![4 * LENGTH];
    let x = b.op("flat", Op::Reshape(ops::Reshape { shape }), &[&x]);
    let x = b.linear("fc1", &x, 16);
    let x = b.op("relu", Op::Relu, &[&x]);
    let x = b.linear("fc2", &x, 3);
    b.op("p", Op::Softmax(ops::Softmax::default()), &[&x]);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    initialise(graph, &tensors, 1).unwrap()
}

/// Ids of `count` inputs, each of which is below `below`.
fn ids(count: usize, below: usize) -> Vec<usize> {
    let mut state = 12_345 + count as u32;
    let mut id = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % below
    };
    (0..count * LENGTH).map(|_| id()).collect()
}

fn inputs(pixels: impl Fn(Vec<usize>) -> Pixels, count: usize, below: usize) -> Dataset {
    let shape = Shape::from([LENGTH]);
    Dataset::new(pixels(ids(count, below)), shape, vec![0; count]).unwrap()
}

fn as_ids(ids: Vec<usize>) -> Pixels {
    Pixels::Ids(ids.into_iter().map(|id| id as f32).collect())
}

fn as_bytes(ids: Vec<usize>) -> Pixels {
    Pixels::U8(ids.into_iter().map(|id| id as u8).collect())
}

fn alone(train: Dataset, test: Option<Dataset>) -> Data {
    Data::from(LoadedSamples::Inputs(DataSplits {
        train: Some(train),
        test,
        whole: None,
        table: None,
        describe: "inputs".into(),
    }))
}

fn data() -> Data {
    alone(inputs(as_ids, 300, IDS), Some(inputs(as_ids, 120, IDS)))
}

fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 20,
        ..Phase::new(method, epochs)
    };
    Recipe {
        validation: 50.into(),
        max_accuracy_drop: 30.0,
        phases: vec![
            Phase {
                lr_log_sigma2: Some(1e-1),
                ..phase(Method::SparseVd, 4)
            },
            Phase {
                weights: Some(200),
                ..phase(Method::FineTune, 8)
            },
        ],
        ..Recipe::new(vec![])
    }
}

fn bytes(result: &Compressed) -> Vec<u8> {
    write_network_bytes(&result.network, &WriteOptions::default()).unwrap()
}

/// Stops after a number of steps, and keeps the notes.
#[derive(Default)]
struct Watch {
    steps: u32,
    stop_after: Option<u32>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.steps += 1;
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }

    fn stop(&mut self) -> bool {
        self.stop_after == Some(self.steps)
    }
}

#[test]
fn a_network_of_ids_is_compressed_by_its_own_answers() {
    let folder = tempfile::tempdir().unwrap();
    let new = |threads| Compression::new(network(), data(), recipe()).threads(threads);
    let mut watch = Watch::default();
    let result = new(1).run(&mut watch).unwrap();
    assert!(
        watch
            .notes
            .iter()
            .any(|n| n.contains("no labels") && n.contains("probabilities of 3 classes")),
        "{:?}",
        watch.notes
    );
    // The teacher is all there is to learn from, at the temperature that the KL term is weighed against.
    let [noisy, tuned] = [0, 1].map(|i| &result.recipe.recipe.phases[i]);
    assert_eq!((noisy.distil, noisy.temperature), (1.0, 1.0));
    assert_eq!((tuned.distil, tuned.temperature), (1.0, 2.0));
    assert!(result.network.nonzeros() <= 200);
    assert!(matches!(
        result.network.graph.nodes.last().unwrap().op,
        Op::Softmax(_)
    ));
    assert_ne!(result.network.tensors["table"], network().tensors["table"]);

    let path = folder.path().join("small.safetensors");
    let report = result.save(&path).unwrap();
    let accuracy = report.accuracy.as_ref().unwrap();
    assert_eq!(accuracy.against, Against::DenseNetwork);
    let SplitScore::Errors(test) = accuracy.test.unwrap() else {
        panic!("{accuracy:?}")
    };
    assert_eq!((test.images, test.dense_percent), (120, 0.0));
    // Of three classes, one answer in three agrees by chance.
    assert!(test.sparse_percent < 30.0, "{test:?}");
    let text = report.to_string();
    let alike = 120 - test.sparse_only_wrong;
    let row = ["test", "120", &alike.to_string()];
    let has_row = |line: &str| line.split_whitespace().take(3).eq(row);
    assert!(
        text.contains("agreement with the dense network") && text.lines().any(has_row),
        "{text}"
    );

    assert!(bytes(&new(2).run(&mut Silent).unwrap()) == bytes(&result));
    let run = folder.path().join("run");
    let mut until = Watch {
        stop_after: Some(70),
        ..Watch::default()
    };
    let stopped = new(2).in_folder(RunFolder::new(&run)).run(&mut until);
    assert!(matches!(stopped, Err(PipelineError::Interrupted { .. })));
    let resumed = new(1).in_folder(RunFolder::resume(&run).unwrap());
    assert!(bytes(&resumed.run(&mut Silent).unwrap()) == bytes(&result));

    // Bytes are ids too.
    let of_bytes = alone(inputs(as_bytes, 300, IDS), Some(inputs(as_bytes, 120, IDS)));
    let of_bytes = Compression::new(network(), of_bytes, recipe());
    assert!(bytes(&of_bytes.run(&mut Silent).unwrap()) == bytes(&result));
}

#[test]
fn outputs_are_numbers_where_the_recipe_says_so() {
    let stripes = alone(stripes::set(120), Some(stripes::set(30)));
    let recipe = Recipe {
        loss: Some(Loss::SquaredError),
        max_r2_drop: Some(0.5),
        ..recipe()
    };
    let result = Compression::new(stripes::network(), stripes, recipe);
    let mut watch = Watch::default();
    let result = result.run(&mut watch).unwrap();
    assert!(
        watch.notes.iter().any(|n| n.contains("which are numbers")),
        "{:?}",
        watch.notes
    );
    let folder = tempfile::tempdir().unwrap();
    let report = result
        .save(folder.path().join("small.safetensors"))
        .unwrap();
    let accuracy = report.accuracy.unwrap();
    let SplitScore::Fit(fit) = accuracy.validation else {
        panic!("{accuracy:?}")
    };
    assert_eq!(accuracy.against, Against::DenseNetwork);
    assert!(fit.dense_r2 == 1.0 && fit.sparse_r2 > 0.5, "{fit:?}");
}

/// A normalisation that is folded before the run answers as it does after it, so the run's checkpoints are those of its inputs.
#[test]
fn a_run_in_files_goes_on_and_is_swept() {
    let mut b = GraphBuilder::new("normalised");
    let x = b.input("input", [1, stripes::SIDE, stripes::SIDE]);
    let x = b.conv("conv", &x, &Conv2d::square(5, 3));
    let x = b.batch_normalization("norm", &x);
    let x = b.op("relu", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    b.linear("fc", &x, 3);
    let (graph, tensors) = b.finish_with_tensors().unwrap();
    let mut network = initialise(graph, &tensors, 2).unwrap();
    // Neither nothing nor a power of two.
    let tensor = network.tensors.get_mut("norm.weight").unwrap();
    *tensor = Dense::new([5], vec![1.3; 5]).into();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (model, data, run) = (path("net.safetensors"), path("x.npz"), path("run"));
    write_network(&model, &network, &WriteOptions::default()).unwrap();
    let mut pixels = vec![0.0; 120 * 16];
    let stripes = stripes::set(120);
    for (i, x) in pixels.chunks_exact_mut(16).enumerate() {
        stripes.fill_input(i, &Preprocessing::default(), x);
    }
    write_npz(&data, &[("x", &[120, 1, 4, 4], &pixels)]).unwrap();
    let read = || {
        let file = ModelFile {
            path: model.clone(),
            graph: None,
        };
        file.read(&ImportOptions::default()).unwrap()
    };
    let load = || Data::load(&data).unwrap();
    let mut until = Watch {
        stop_after: Some(15),
        ..Watch::default()
    };
    // Numbers show every bit of the answers.
    let recipe = || Recipe {
        loss: Some(Loss::SquaredError),
        ..recipe()
    };
    let new = || Compression::new(read(), load(), recipe());
    let stopped = new().in_folder(RunFolder::new(&run)).run(&mut until);
    assert!(
        matches!(stopped, Err(PipelineError::Interrupted { .. })),
        "{:?}",
        stopped.err()
    );
    let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
    assert!(bytes(&resumed) == bytes(&new().run(&mut Silent).unwrap()));
    let recorded = RecordedRun::open(&run).unwrap();
    let network = recorded.model().clone().read(&ImportOptions::default());
    let network = network.unwrap().network;
    let swept = recorded.sweep(network, load(), &[0.0, 8.0], 1, &mut Silent);
    let points = swept.unwrap().points;
    assert!(points[0].left <= points[1].left, "{points:?}");
}

#[test]
fn inputs_that_are_none_of_the_network_are_refused() {
    let refused = |network: Network, data: Data, expected: &str| {
        let error = Compression::new(network, data, recipe()).run(&mut Silent);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    // The last id of the table is 8.
    let above = alone(inputs(as_ids, 300, IDS), Some(inputs(as_ids, 120, 10)));
    refused(network(), above, "expected ids from 0 to 8, got 9");
    let floats = |ids: Vec<usize>| Pixels::F32(ids.into_iter().map(|id| id as f32).collect());
    let of_floats = alone(inputs(floats, 300, IDS), None);
    refused(
        network(),
        of_floats,
        "input `ids`: expected integers, which are ids, got floating-point numbers",
    );
    let numbers = stripes::set(60);
    let values: Vec<f32> = (0..numbers.pixels.len())
        .map(|i| (i % 200) as f32)
        .collect();
    let fractions =
        |ids: Vec<usize>| Pixels::Ids(ids.into_iter().map(|id| id as f32 / 2.0).collect());
    let halves = alone(inputs(fractions, 300, IDS), None);
    refused(network(), halves, "expected ids from 0 to 8, got");
    // A network that says the same of everything.
    let mut constant = network();
    let bias = constant.tensors.get_mut("fc2.bias").unwrap();
    *bias = Dense::new([3], vec![0.0, 100.0, 0.0]).into();
    refused(
        constant,
        data(),
        "the network answers all 250 inputs to train on alike, by class 1",
    );
    let integers = Dataset::new(Pixels::Ids(values), numbers.shape, vec![0; 60]).unwrap();
    refused(
        stripes::network(),
        alone(integers, None),
        "expected u8 pixels or floating-point numbers, got integers",
    );
}

#[test]
fn without_labels_there_is_no_training_from_scratch_and_no_error_of_a_file() {
    let error = data().mlp("mlp").err().unwrap().to_string();
    assert!(
        error.contains("targets, to take its sizes from, got inputs"),
        "{error}"
    );
    let (graph, tensors) = sparsevd_model::presets::by_name("lenet-300-100").unwrap();
    let architecture = sparsevd_compressor::architecture::Architecture { graph, tensors };
    let stripes = alone(stripes::set(60), None);
    let error = Training::new(architecture, stripes, Recipe::default_for_training())
        .run(&mut Silent)
        .unwrap_err();
    assert!(error.to_string().contains("got inputs alone"), "{error}");
    let error = data().part(DataSplit::Test, &network()).unwrap_err();
    assert!(
        error.to_string().contains("expected labels or numbers"),
        "{error}"
    );
}

#[test]
fn agreement_is_promised_of_inputs_without_labels_alone() {
    let promise = |percent| {
        let overrides = Overrides {
            min_agreement: Some(percent),
            ..Overrides::default()
        };
        let recipe = recipe().with(&overrides).map_err(|e| e.to_string())?;
        Ok::<_, String>(recipe.max_accuracy_drop)
    };
    assert_eq!(promise(98.5), Ok(1.5));
    assert!(
        promise(101.0)
            .unwrap_err()
            .starts_with("min_agreement: expected")
    );
    // As it is written in a report.
    assert_eq!(promise(99.3), Ok(0.7));
    let check = |data: Option<&Data>, percent, loss| {
        let checked = Data::check_agreement(data, percent, &network(), loss);
        checked.map_err(|e| e.to_string())
    };
    assert_eq!(check(Some(&data()), Some(98.5), None), Ok(()));
    assert_eq!(check(Some(&stripes::data()), None, None), Ok(()));
    for (data, loss, expected) in [
        (
            Some(&stripes::data()),
            None,
            "expected inputs without labels",
        ),
        (None, None, "got no data"),
        (
            Some(&data()),
            Some(Loss::SquaredError),
            "expected outputs that are scores",
        ),
    ] {
        let error = check(data, Some(98.5), loss).unwrap_err();
        assert!(
            error.starts_with("min_agreement") && error.contains(expected),
            "{error}"
        );
    }
}
