//! Pruning in one shot by what layers read: repaired, without labels, the same on any number of threads.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Calibration, Pruning};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_compressor::{Magnitude, Scope, initialise};
use sparsevd_format::{
    DataSplits, Dataset, LoadedSamples, Pixels, WriteOptions, write_network_bytes,
};
use sparsevd_kernels::training::philox4x32;
use sparsevd_model::{
    Conv2d, Dense, GraphBuilder, Network, Op, Preprocessing, Shape, Weights, Window,
};
use sparsevd_pipeline::{Compressed, Compression, Data, Observer, PipelineError, Silent};
use sparsevd_runtime::{Plan, PlanOptions, Session};

const SIDE: usize = 9;

/// A first convolution, one whose inputs come in pairs of the same maps, a grouped one, and a layer behind a normalisation.
fn network() -> Network {
    let mut b = GraphBuilder::new("pairs");
    b.preprocessing(Preprocessing::default());
    let x = b.input("x", [1, SIDE, SIDE]);
    let x = b.conv("first", &x, &Conv2d::square(4, 3).padding(1));
    let x = b.op("r1", Op::Relu, &[&x]);
    let window = Window {
        kernel_shape: [3, 2],
        strides: [2, 1],
        pads: [1, 0, 0, 1],
        dilations: [1, 2],
    };
    let x = b.conv("second", &x, &Conv2d::new(6, window));
    let x = b.batch_normalization("n", &x);
    let x = b.op("r2", Op::Relu, &[&x]);
    let x = b.conv("third", &x, &Conv2d::square(6, 2).groups(2));
    let x = b.op("r3", Op::Relu, &[&x]);
    let x = b.op("flat", Op::Flatten, &[&x]);
    b.linear("last", &x, 3);
    let (graph, shapes) = b.finish_with_tensors().unwrap();
    let mut network = initialise(graph, &shapes, 3).unwrap();
    // Units 2 and 3 of the first layer are units 0 and 1 once more.
    let mut first = network.tensors["first.weight"].to_dense();
    let half = first.values.len() / 2;
    first.values.copy_within(..half, half);
    network.tensors.insert("first.weight".into(), first.into());
    let bias = Dense::new(Shape::from([4]), vec![0.1, -0.05, 0.1, -0.05]);
    network.tensors.insert("first.bias".into(), bias.into());
    network
}

fn images(count: u32, stream: u32) -> Dataset {
    let pixels =
        (0..count * (SIDE * SIDE) as u32).map(|i| philox4x32([i, stream, 0, 0], [0; 2])[0] as u8);
    Dataset::new(
        Pixels::U8(pixels.collect()),
        Shape::from([1, SIDE, SIDE]),
        vec![0; count as usize],
    )
    .unwrap()
}

fn data() -> Data {
    Data::from(LoadedSamples::Inputs(DataSplits {
        train: Some(images(300, 1)),
        test: Some(images(100, 2)),
        whole: None,
        table: None,
        describe: "noise".into(),
    }))
}

fn no_training() -> Recipe {
    Recipe {
        validation: 50.into(),
        max_accuracy_drop: 100.0,
        ..Recipe::new(vec![])
    }
}

fn calibration(sparsity: f64) -> Pruning {
    Pruning::Calibration(Calibration {
        samples: 200,
        sparsity,
        every_layer: false,
        keep_dense: vec![],
    })
}

fn run(pruning: Pruning, threads: usize) -> Compressed {
    let compression = Compression::new(network(), data(), no_training());
    let compression = compression.pruned_by(pruning).threads(threads);
    compression.run(&mut Silent).unwrap()
}

#[test]
fn a_layer_that_is_kept_dense_loses_nothing() {
    let recipe = Recipe {
        keep_dense: vec!["last".into()],
        ..no_training()
    };
    for pruning in [
        calibration(0.5),
        Pruning::Magnitude(Magnitude {
            sparsity: 0.5,
            scope: Default::default(),
            every_layer: false,
            keep_dense: vec![],
        }),
    ] {
        let compression = Compression::new(network(), data(), recipe.clone());
        let result = compression.pruned_by(pruning).run(&mut Silent).unwrap();
        let last = &result.network.tensors["last.weight"];
        assert_eq!(last.nonzeros(), last.shape().elements());
        let second = &result.network.tensors["second.weight"];
        assert!(second.nonzeros() < second.shape().elements());
    }
}

fn outputs(network: &Network) -> Vec<f32> {
    let session = Session::new(Plan::new(network, &PlanOptions::default()).unwrap(), 1).unwrap();
    let Pixels::U8(pixels) = images(100, 2).pixels else {
        unreachable!("pixels are bytes")
    };
    let x: Vec<f32> = pixels.iter().map(|p| f32::from(*p) / 255.0).collect();
    let mut y = vec![0.0; 100 * 3];
    session.run(100, &x[..], &mut y[..]).unwrap();
    y
}

/// Root of the mean squared difference, over the deviation of what is wanted.
fn difference(got: &[f32], want: &[f32]) -> f64 {
    let n = want.len() as f64;
    let mean = want.iter().map(|w| f64::from(*w)).sum::<f64>() / n;
    let spread: f64 = want.iter().map(|w| (f64::from(*w) - mean).powi(2)).sum();
    let error: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| f64::from(g - w).powi(2))
        .sum();
    (error / spread).sqrt()
}

#[test]
fn inputs_that_come_twice_are_read_once_and_nothing_changes() {
    let dense = outputs(&network());
    // As many as weights of the second layer that read what others read.
    let of_last = network().tensors["last.weight"].shape().elements();
    let sparsity = 72.0 / (144 + of_last) as f64;
    let result = run(calibration(sparsity), 1);
    let moved = difference(&outputs(&result.network), &dense);
    assert!(moved < 0.02, "{moved}");
    // What is not pruned is as it was.
    for name in ["first.weight", "third.weight"] {
        let all = result.network.tensors[name].shape().elements();
        assert_eq!(result.network.tensors[name].nonzeros(), all, "{name}");
    }
    let magnitude = run(
        Pruning::Magnitude(Magnitude {
            sparsity,
            scope: Scope::Global,
            every_layer: false,
            keep_dense: vec![],
        }),
        1,
    );
    let theirs = difference(&outputs(&magnitude.network), &dense);
    assert!(moved < 0.5 * theirs, "{moved}, magnitude {theirs}");
}

#[test]
fn a_calibration_removes_what_it_says_the_same_on_any_number_of_threads() {
    let bytes = |result: &Compressed| {
        write_network_bytes(&result.network, &WriteOptions::default()).unwrap()
    };
    let one = run(calibration(0.5), 1);
    let pruned: usize = ["second.weight", "last.weight"]
        .iter()
        .map(|name| one.network.tensors[*name].nonzeros())
        .sum();
    let all = 144 + network().tensors["last.weight"].shape().elements();
    assert_eq!(pruned, all - (0.5 * all as f64).round() as usize);
    assert!(matches!(
        one.network.tensors["second.weight"],
        Weights::Csr(_)
    ));
    assert!(bytes(&run(calibration(0.5), 2)) == bytes(&one));
    let folder = tempfile::tempdir().unwrap();
    let report = one.save(folder.path().join("p.safetensors")).unwrap();
    let pruning = report.pruning.unwrap().to_string();
    assert_eq!(
        pruning,
        "pruned by calibration on 200 samples: 50.00 % of the pruned layers together"
    );
    assert!(report.history.is_empty());
}

/// Keeps notes, and stops the run when it has been asked `stop_after` times.
struct Asked {
    notes: Vec<String>,
    stop_after: usize,
}

impl Observer for Asked {
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
    fn epoch(&mut self, _: &EpochRecord) {
        panic!("a calibration does not train");
    }
    fn stop(&mut self) -> bool {
        self.stop_after = self.stop_after.saturating_sub(1);
        self.stop_after == 0
    }
}

#[test]
fn what_is_pruned_is_told_and_a_calibration_can_be_interrupted_and_refused() {
    let with = |pruning| Compression::new(network(), data(), no_training()).pruned_by(pruning);
    let mut asked = Asked {
        notes: vec![],
        stop_after: usize::MAX,
    };
    with(calibration(0.4)).run(&mut asked).unwrap();
    let notes = asked.notes.join("\n");
    for words in [
        "not pruned: `first` (few weights",
        "`third` (its groups)",
        "2 layers on 200 samples",
        "second: ",
    ] {
        assert!(notes.contains(words), "{words}: {notes}");
    }
    asked.stop_after = 12;
    let error = with(calibration(0.4)).run(&mut asked).unwrap_err();
    assert!(
        matches!(error, PipelineError::Interrupted { .. }),
        "{error}"
    );
    let error = with(calibration(1.0)).run(&mut Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("sparsity: expected a number of 0 or more and below 1, got 1"),
        "{error}"
    );
    let without = Compression::new(network(), None, no_training()).pruned_by(calibration(0.5));
    let error = without.run(&mut Silent).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("data set: expected one with inputs"),
        "{error}"
    );
}
