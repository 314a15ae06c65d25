//! Encoders of texts that are trained towards embeddings.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use sparsevd_compressor::recipe::{Method, Phase, QuantiseActivations, Recipe, Search, Validation};
use sparsevd_compressor::report::Calibration;
use sparsevd_format::{WriteOptions, write_network_bytes};
use sparsevd_model::Network;
use sparsevd_pipeline::{
    CompressedEncoder, EncoderCompression, Observer, PipelineError, RunFolder, Silent,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/encoder")
}

fn texts() -> Vec<String> {
    let text = std::fs::read_to_string(golden().join("texts.txt")).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = |i: usize| {
        let words = (0..2 + i % 6).map(|j| words[(i * 5 + j * 3 + i * j) % words.len()]);
        words.collect::<Vec<_>>().join(" ")
    };
    (0..400).map(line).collect()
}

fn calibration() -> Calibration {
    Calibration {
        samples: 100,
        sparsity: 0.8,
        every_layer: true,
        keep_dense: vec![],
    }
}

fn recipe(method: Method, epochs: u32) -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1.5e-2,
        batch: 8,
        ..Phase::new(method, epochs)
    };
    let mut phases = vec![phase(method, epochs)];
    if method == Method::SparseVd {
        phases.push(phase(Method::FineTune, 2));
    }
    Recipe {
        validation: Validation::Share(0.2),
        freeze_embeddings: true,
        ..Recipe::new(phases)
    }
}

fn compression(threads: usize) -> EncoderCompression {
    EncoderCompression::new(golden(), &texts(), threads)
}

fn run(compression: EncoderCompression) -> CompressedEncoder {
    compression.run(&mut Silent).unwrap()
}

fn bytes(network: &Network) -> Vec<u8> {
    write_network_bytes(network, &WriteOptions::default()).unwrap()
}

/// The mean cosine of embeddings to those of the golden encoder, after writing it.
fn cosine(encoder: &CompressedEncoder, out: &Path) -> f64 {
    let cosines = encoder.save(out, false).unwrap();
    assert!(cosines.texts > 20, "{cosines}");
    cosines.mean
}

#[test]
fn training_brings_embeddings_back() {
    let place = tempfile::tempdir().unwrap();
    let pruned = run(compression(1).calibrated(calibration()));
    let tuned = run(trained_on(1));
    let [before, after] = [("pruned", &pruned), ("tuned", &tuned)]
        .map(|(name, encoder)| cosine(encoder, &place.path().join(name)));
    // Embeddings of this encoder are all near each other.
    assert!(before < 0.996, "{before}");
    assert!(1.0 - after < 0.7 * (1.0 - before), "{before} and {after}");
    assert_eq!(tuned.history.len(), 40);
    assert!(tuned.history[39].validation_r2 > tuned.history[0].validation_r2);
    // No weight comes back, and tables stay.
    assert!(tuned.network.nonzeros() <= pruned.network.nonzeros());
    let table = "embeddings.word_embeddings.weight";
    assert_eq!(tuned.network.tensors[table], pruned.network.tensors[table]);
    // The free length stays free.
    assert_eq!(tuned.network.graph.free_symbol(), Some("length"));
    let other = run(trained_on(2));
    assert!(
        bytes(&other.network) == bytes(&tuned.network),
        "two threads"
    );

    // A sparse encoder learns from the dense one of another folder.
    let sparse = place.path().join("pruned");
    let again = EncoderCompression::new(&sparse, &texts(), 1)
        .teacher(golden())
        .trained_by(recipe(Method::FineTune, 40));
    let again = run(again);
    let after = cosine(&again, &place.path().join("again"));
    assert!(1.0 - after < 0.7 * (1.0 - before), "{before} and {after}");
    assert!(again.network.nonzeros() <= pruned.network.nonzeros());
}

fn trained_on(threads: usize) -> EncoderCompression {
    compression(threads)
        .calibrated(calibration())
        .trained_by(recipe(Method::FineTune, 40))
}

#[test]
fn sparse_vd_removes_weights_of_an_encoder() {
    let place = tempfile::tempdir().unwrap();
    let mut recipe = recipe(Method::SparseVd, 60);
    // What embeddings may lose.
    recipe.max_r2_drop = Some(0.2);
    (recipe.phases[0].lr, recipe.phases[0].lr_log_sigma2) = (1e-2, Some(5e-2));
    let encoder = run(compression(1).trained_by(recipe));
    assert_eq!(encoder.history.len(), 62);
    let left = encoder.network.nonzeros() as f64 / encoder.network.original_weights() as f64;
    assert!(left < 0.8, "{left} of the weights are left");
    let cosine = cosine(&encoder, &place.path().join("vd"));
    assert!(cosine > 0.9, "{cosine} at {left}");
}

/// Stops after a number of steps.
struct Until(u32);

impl Observer for Until {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.0 = self.0.saturating_sub(1);
    }

    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn a_training_goes_on_where_it_was_stopped() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    let new = || compression(1).trained_by(recipe(Method::FineTune, 3));
    let straight = run(new());
    let stopped = new().in_folder(RunFolder::new(&folder)).run(&mut Until(50));
    assert!(
        matches!(&stopped, Err(PipelineError::Interrupted { folder: Some(f) }) if *f == folder),
        "{:?}",
        stopped.err()
    );
    // Another teacher is another run.
    let other = place.path().join("other");
    run(compression(1).calibrated(calibration()))
        .save(&other, false)
        .unwrap();
    let resume = || RunFolder::resume_or_new(&folder).unwrap();
    let error = new().teacher(other).in_folder(resume()).run(&mut Silent);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("another data set"), "{error}");
    let resumed = run(new().in_folder(resume()));
    assert!(bytes(&resumed.network) == bytes(&straight.network));
    assert_eq!(resumed.history.len(), 3);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let refused = |compression: EncoderCompression, words: &str| {
        let error = compression.run(&mut Silent).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    };
    let mut from_test = recipe(Method::FineTune, 1);
    from_test.validation = Validation::from_test(10);
    refused(
        compression(1).trained_by(from_test),
        "validation: expected a share or a number of the texts",
    );
    let mut large = recipe(Method::FineTune, 1);
    large.phases[0].batch = 300;
    refused(
        compression(1).trained_by(large),
        "the samples of the commonest length",
    );
    let one = EncoderCompression::new(golden(), &["a line"], 1);
    refused(
        one.trained_by(recipe(Method::FineTune, 1)),
        "texts: expected at least two different lines",
    );
    let mut distilled = recipe(Method::FineTune, 1);
    distilled.phases[0].distil = 0.5;
    refused(compression(1).trained_by(distilled), "distil: expected 0");
    let mut searched = recipe(Method::FineTune, 1);
    searched.search = Some(Search::default());
    refused(compression(1).trained_by(searched), "search: expected none");
    let mut int8 = recipe(Method::FineTune, 1);
    int8.quantise_activations = Some(QuantiseActivations::default());
    refused(
        compression(1).trained_by(int8),
        "quantise_activations: expected none",
    );
}
