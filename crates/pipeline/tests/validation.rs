//! Where validation samples come from, which of them a result is measured on, and what is promised of it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;

use sparsevd_compressor::recipe::{Method, Phase, Recipe, Validation};
use sparsevd_compressor::report::{Part, Pruning, Report, SplitScore};
use sparsevd_compressor::{Magnitude, Scope, architecture::Architecture, initialise};
use sparsevd_format::{
    DataSplits, Dataset, LoadedSamples, Pixels, WriteOptions, write_network, write_npz,
};
use sparsevd_model::{Network, Preprocessing, Shape, presets};
use sparsevd_onnx::ImportOptions;
use sparsevd_pipeline::{
    Compressed, Compression, Data, ModelFile, Observer, PipelineError, RunFolder, Silent, Training,
};

/// Numbers of an image.
const SIZE: usize = 16;

/// `count` images of noise, with labels that nothing but the image itself tells.
fn noise(seed: u64, count: usize) -> [Vec<u8>; 2] {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let pixels = (0..count * SIZE).map(|_| next()).collect();
    [pixels, (0..count).map(|_| next() >> 7).collect()]
}

fn set(seed: u64, count: usize) -> Dataset {
    let [pixels, labels] = noise(seed, count);
    let labels = labels.into_iter().map(u16::from).collect();
    Dataset::new(Pixels::U8(pixels), Shape::from([1, 4, 4]), labels).unwrap()
}

/// A folder of IDX files of `count` images, which are test images.
fn write_idx(folder: &Path, count: usize, side: usize) {
    std::fs::create_dir(folder).unwrap();
    let [pixels, labels] = noise(3, count * side * side / SIZE);
    let idx = |name: &str, dims: &[usize], data: &[u8]| {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        bytes.extend(dims.iter().flat_map(|d| (*d as u32).to_be_bytes()));
        bytes.extend(data);
        std::fs::write(folder.join(name), bytes).unwrap();
    };
    idx("t10k-images-idx3-ubyte", &[count, side, side], &pixels);
    idx("t10k-labels-idx1-ubyte", &[count], &labels[..count]);
}

fn data() -> Data {
    Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(1, 240)),
        test: Some(set(2, 120)),
        whole: None,
        table: None,
        describe: "noise".into(),
    }))
}

fn architecture() -> Architecture {
    let (graph, tensors) = presets::mlp("net", Shape::from([1, 4, 4]), &[64, 2]);
    Architecture { graph, tensors }
}

fn network() -> Network {
    let Architecture { graph, tensors } = architecture();
    let mut network = initialise(graph, &tensors, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing::default());
    network
}

fn recipe(validation: impl Into<Validation>, methods: &[(Method, u32)]) -> Recipe {
    let phase = |&(method, epochs): &(Method, u32)| Phase {
        lr: 1e-2,
        batch: 20,
        ..Phase::new(method, epochs)
    };
    Recipe {
        validation: validation.into(),
        phases: methods.iter().map(phase).collect(),
        ..Recipe::new(vec![])
    }
}

/// Keeps the notes, and may stop.
#[derive(Default)]
struct Notes {
    notes: Vec<String>,
    stop: bool,
}

impl Notes {
    fn said(&self, words: &str) -> bool {
        self.notes.iter().any(|note| note.contains(words))
    }
}

impl Observer for Notes {
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }

    fn stop(&mut self) -> bool {
        self.stop
    }
}

fn report(compressed: &Compressed) -> Report {
    let folder = tempfile::tempdir().unwrap();
    compressed
        .save(folder.path().join("r.safetensors"))
        .unwrap()
}

fn samples(report: &Report) -> [usize; 2] {
    let accuracy = report.accuracy.as_ref().unwrap();
    [
        accuracy.validation.samples(),
        accuracy.test.unwrap().samples(),
    ]
}

#[test]
fn validation_samples_come_from_where_the_recipe_says() {
    let folder = tempfile::tempdir().unwrap();
    let [other, wide] = ["other", "wide"].map(|name| folder.path().join(name));
    write_idx(&other, 50, 4);
    write_idx(&wide, 20, 8);
    let methods = [(Method::FineTune, 1)];
    let cases = [
        (
            Validation::Samples(30),
            [30, 120],
            "210 images to train on, 30 held back for validation",
        ),
        (
            Validation::Samples(5000),
            [40, 120],
            "200 images to train on, 40 held back",
        ),
        (
            Validation::Share(0.25),
            [60, 120],
            "180 images to train on, 60 held back",
        ),
        (
            Validation::Data(other.clone()),
            [50, 120],
            "240 images to train on, 50 of ",
        ),
        (
            Validation::from_test(100),
            [100, 20],
            "240 images to train on, 100 of the test set for validation",
        ),
    ];
    for (validation, expected, words) in cases {
        let recipe = recipe(validation, &methods);
        let mut notes = Notes::default();
        let compressed = Compression::new(network(), data(), recipe.clone());
        let compressed = compressed.run(&mut notes).unwrap();
        assert!(notes.said(words), "{words}: {:?}", notes.notes);
        let report = report(&compressed);
        assert_eq!(samples(&report), expected, "{words}");
        assert_eq!(report.recipe, recipe);
    }
    let fails = |validation: Validation, words: &str| {
        let compression = Compression::new(network(), data(), recipe(validation, &methods));
        let error = compression.run(&mut Silent).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    fails(Validation::from_test(120), "more than 120 test images");
    fails(Validation::Share(0.95), "validation: expected");
    fails(Validation::Data("nowhere.npz".into()), "nowhere.npz");
    let numbers = folder.path().join("numbers.npz");
    let arrays: [(&str, &[usize], &[f32]); 2] = [
        ("x", &[50, 1, 4, 4], &[0.5; 50 * SIZE]),
        ("y", &[50], &[0.5; 50]),
    ];
    write_npz(&numbers, &arrays).unwrap();
    fails(
        Validation::Data(numbers),
        "like those of the training set (classes)",
    );
    fails(Validation::Data(wide), "wide: ");
}

#[test]
fn a_run_goes_on_with_the_validation_samples_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_idx(&path("held"), 50, 4);
    write_network(
        path("net.safetensors"),
        &network(),
        &WriteOptions::default(),
    )
    .unwrap();
    let graph = None;
    let model = ModelFile {
        path: path("net.safetensors"),
        graph,
    };
    let recipe = recipe(Validation::Data(path("held")), &[(Method::FineTune, 2)]);
    let read = || model.clone().read(&ImportOptions::default()).unwrap();
    // Data of classes that a path names.
    let classes = path("data");
    std::fs::create_dir(&classes).unwrap();
    write_idx(&classes.join("idx"), 60, 4);
    for name in ["images-idx3-ubyte", "labels-idx1-ubyte"] {
        let [from, to] = ["t10k", "train"].map(|part| classes.join(format!("idx/{part}-{name}")));
        std::fs::rename(from, to).unwrap();
    }
    let new = || {
        Compression::new(
            read(),
            Data::load(classes.join("idx")).unwrap(),
            recipe.clone(),
        )
    };
    let straight = new().run(&mut Silent).unwrap();
    let mut watch = Notes {
        stop: true,
        ..Notes::default()
    };
    let stopped = new().in_folder(RunFolder::new(path("run"))).run(&mut watch);
    assert!(matches!(stopped, Err(PipelineError::Interrupted { .. })));
    let resumed = Compression::resume(path("run"))
        .unwrap()
        .run(&mut Silent)
        .unwrap();
    let reports = [&straight, &resumed].map(|compressed| {
        let out = path("out.safetensors");
        let report = compressed.save(&out).unwrap();
        (
            report.accuracy,
            report.history.len(),
            std::fs::read(out).unwrap(),
        )
    });
    assert_eq!(reports[0].0.as_ref().unwrap().validation.samples(), 50);
    assert!(reports[0] == reports[1]);
    // The place of the data is not in the file.
    let text = String::from_utf8_lossy(&reports[0].2).into_owned();
    let place = folder.path().to_str().unwrap();
    assert!(text.contains("validation = ") && !text.contains(place));
}

#[test]
fn where_settings_are_chosen_the_other_half_measures() {
    let mut recipe = recipe(40, &[(Method::SparseVd, 1), (Method::Quantise, 1)]);
    let run = |recipe: &Recipe| {
        let mut notes = Notes::default();
        let compression = Compression::new(network(), data(), recipe.clone());
        let compressed = compression.run(&mut notes).unwrap();
        (report(&compressed), notes)
    };
    let (fixed, notes) = run(&recipe);
    assert_eq!(samples(&fixed), [40, 120]);
    assert!(notes.said("200 images to train on, 40 held back for validation"));
    assert!(!notes.said("to choose settings by"));
    recipe.phases[1].grid = vec![0.5, 1.0];
    let (chosen, notes) = run(&recipe);
    assert_eq!(samples(&chosen), [20, 120]);
    let words =
        "40 held back for validation: 20 to choose settings by, 20 to measure the result on";
    assert!(notes.said(words), "{:?}", notes.notes);
    // The halves are the same ones in every run, and add up to what is whole.
    let dense = |report: &Report| match report.accuracy.as_ref().unwrap().validation {
        SplitScore::Errors(e) => e.dense_percent / 100.0 * e.images as f64,
        SplitScore::Fit(_) => panic!("classes"),
    };
    assert_eq!(run(&recipe).0.accuracy, chosen.accuracy);
    assert!(dense(&chosen) <= dense(&fixed));
}

#[test]
fn a_network_that_was_trained_on_its_validation_images_is_measured_on_others() {
    // Learns noise by heart, all training images of it.
    let by_heart = recipe(Validation::from_test(20), &[(Method::Dense, 80)]);
    let trained = Training::new(architecture(), data(), by_heart);
    let trained = trained.run(&mut Silent).unwrap();
    let pruning = || {
        Pruning::Magnitude(Magnitude {
            sparsity: 0.2,
            scope: Scope::Global,
            every_layer: true,
            keep_dense: vec![],
        })
    };
    let run = |validation: Validation| {
        let mut recipe = recipe(validation, &[]);
        recipe.max_accuracy_drop = 10.0;
        let mut notes = Notes::default();
        let compression = Compression::new(trained.network.clone(), data(), recipe);
        let compressed = compression.pruned_by(pruning()).run(&mut notes).unwrap();
        (report(&compressed), notes)
    };
    let (report, notes) = run(Validation::Samples(40));
    let accuracy = report.accuracy.as_ref().unwrap();
    let SplitScore::Errors(before) = accuracy.validation else {
        panic!("{accuracy:?}")
    };
    assert!(before.dense_percent < 15.0, "{before:?}");
    assert_eq!(accuracy.promise_about, Part::Test);
    assert_eq!(accuracy.promise.drop, accuracy.test.unwrap().drop());
    assert!(notes.said("probably trained on them"));
    assert!(
        report
            .warnings
            .iter()
            .any(|w| w.contains("--validation-from-test"))
    );
    assert!(report.to_string().contains("probably trained on them"));

    let (report, notes) = run(Validation::from_test(60));
    let accuracy = report.accuracy.as_ref().unwrap();
    assert_eq!(accuracy.promise_about, Part::Validation);
    assert!(!notes.said("probably trained") && report.warnings.is_empty());
}
