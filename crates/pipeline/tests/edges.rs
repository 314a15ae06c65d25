//! Results at the edge: what their reports say; and baselines that end on grids.
#![allow(clippy::unwrap_used, reason = "a test")]

mod stripes;

use std::path::Path;

use sparsevd_compressor::recipe::{Method, Phase, PruneBy, Recipe, Validation};
use sparsevd_compressor::report::{Pruning, Report, Verdict};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{Magnitude, Scope};
use sparsevd_model::{Dense, Network, Node};
use sparsevd_pipeline::{Compression, DEFAULT_RECIPE, Data, FoundRecipe, Silent};

use stripes::{data, network};

const WEIGHTS: usize = 16 * 8 + 8 * 2;

fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 10,
        ..Phase::new(method, epochs)
    };
    let tune = Phase {
        weights: Some(20),
        ..phase(Method::FineTune, 4)
    };
    Recipe {
        validation: Validation::Samples(20),
        max_accuracy_drop: 100.0,
        phases: vec![phase(Method::SparseVd, 4), tune, phase(Method::Quantise, 1)],
        ..Recipe::new(vec![])
    }
}

/// Compresses, and writes and reads the files.
fn compress(recipe: FoundRecipe, pruning: Option<Pruning>) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let compressed = Compression::new(network(), data(), recipe)
        .pruned_by(pruning)
        .threads(1)
        .run(&mut Silent)
        .unwrap();
    compressed
        .save(folder.path().join("net.sparse.safetensors"))
        .unwrap()
}

fn magnitude(sparsity: f64) -> Option<Pruning> {
    Some(Pruning::Magnitude(Magnitude {
        sparsity,
        scope: Scope::Global,
        every_layer: true,
        keep_dense: vec![],
    }))
}

#[test]
fn a_network_without_a_weight_is_called_constant_and_fails() {
    let mut recipe = recipe();
    recipe.phases.truncate(1);
    recipe.threshold = -8.0;
    let report = compress(recipe.into(), None);
    assert_eq!((report.summary.nonzeros, report.summary.ratio), (0, None));
    let text = report.to_string();
    let first = text.lines().next().unwrap();
    assert_eq!(first, "net: 0 of 144 weights left: the network is constant");
    let failures = report.failures().join("\n");
    assert!(
        failures.contains("same outputs for every input"),
        "{failures}"
    );
    assert!(
        failures.contains("a lower --kl-scale or a higher --threshold"),
        "{failures}"
    );
}

#[test]
fn why_nothing_was_removed_is_said() {
    let why = |change: fn(&mut Recipe)| {
        let mut recipe = recipe();
        recipe.phases.truncate(1);
        change(&mut recipe);
        let text = compress(recipe.into(), None).to_string();
        text.lines().nth(1).unwrap().to_owned()
    };
    let none = why(|r| r.phases[0].kl_scale = 0.0);
    assert!(
        none.starts_with("nothing was removed: `kl_scale` is 0"),
        "{none}"
    );
    let layer = why(|r| {
        r.alpha = Granularity::Layer;
        r.phases[0].kl_scale = 1e-3;
    });
    assert!(
        layer.contains("above the threshold 3; the highest, of `fc"),
        "{layer}"
    );
    assert!(layer.contains("weights of a layer share one"), "{layer}");
}

#[test]
fn what_is_advised_fits_what_removed_the_weights() {
    // A promise that no network can keep.
    let broken = |mut report: Report| {
        let accuracy = report.accuracy.as_mut().unwrap();
        accuracy.promise.verdict = Verdict::Broken;
        report.failures().join("\n")
    };
    let by_magnitude = compress(
        Recipe {
            phases: vec![],
            ..recipe()
        }
        .into(),
        magnitude(0.5),
    );
    assert!(broken(by_magnitude).contains("a lower --sparsity keeps"));
    let all = broken(compress(recipe().into(), None));
    let expected =
        "more than 20 `weights` in the recipe, a lower --kl-scale or a higher --threshold keeps";
    assert!(all.contains(expected), "{all}");
    let mut plain = recipe();
    plain.phases.remove(0);
    let tuned = broken(compress(plain.into(), None));
    assert!(
        tuned.contains("more than 20 `weights` in the recipe keeps"),
        "{tuned}"
    );
}

#[test]
fn baselines_prune_gradually_to_the_weights_of_the_recipe_and_are_packed() {
    for by in [PruneBy::Magnitude, PruneBy::Fisher] {
        let found = FoundRecipe::from(recipe())
            .gradual(by, &network(), None)
            .unwrap();
        let report = compress(found, None);
        let left: Vec<usize> = report.history.iter().map(|e| e.left()).collect();
        // 4 epochs of pruning to an eighth of what is to go, then 2 of 4.
        assert_eq!(report.history[0].method, Method::FineTune);
        assert!(left[0] < WEIGHTS && left[3] > 20, "{left:?}");
        assert!((2..=20).contains(&report.summary.nonzeros), "{left:?}");
        assert!(report.packed.is_some(), "{by:?}");
    }
}

#[test]
fn a_network_pruned_by_magnitude_ends_on_grids_of_its_own() {
    let (recipe, left_out) = FoundRecipe::from(recipe()).fine_tuning();
    assert_eq!(
        left_out,
        ["phase 1 (sparse-vd)", "`weights` of phase 2 (fine-tune)"]
    );
    let methods: Vec<Method> = recipe.recipe.phases.iter().map(|p| p.method).collect();
    assert_eq!(methods, [Method::FineTune, Method::Quantise]);
    let report = compress(recipe, magnitude(0.5));
    let packed = report.packed.unwrap();
    assert!(packed.size.bytes < 300, "{}", packed.size.bytes);
    let error = |score| match score {
        sparsevd_compressor::report::SplitScore::Errors(e) => e.sparse_percent,
        sparsevd_compressor::report::SplitScore::Fit(_) => panic!("a classification"),
    };
    assert_eq!(error(packed.validation.unwrap()), 0.0);
}

/// Prunes a network by magnitude, with the default recipe where there are data.
fn prune(network: Network, data: Option<Data>, out: &Path) -> Report {
    let recipe = FoundRecipe {
        recipe: Recipe {
            max_accuracy_drop: 100.0,
            ..Recipe::default_for_compression()
        },
        source: DEFAULT_RECIPE.into(),
    };
    Compression::new(network, data, recipe.fine_tuning().0)
        .pruned_by(magnitude(0.5))
        .threads(1)
        .run(&mut Silent)
        .unwrap()
        .save(out)
        .unwrap()
}

fn node(json: serde_json::Value) -> Node {
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_pruned_network_that_cannot_be_trained_is_rounded_onto_grids() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = network();
    let scores = network.graph.outputs[0].clone();
    network.graph.nodes.push(node(
        serde_json::json!({"name": "p", "inputs": [scores], "op": "Softmax"}),
    ));
    network.graph.nodes.push(node(
        serde_json::json!({"name": "last", "inputs": ["p"], "op": "Relu"}),
    ));
    network.graph.outputs = vec!["last".into()];
    let report = prune(network, Some(data()), &folder.path().join("net.spvd"));
    assert_eq!(report.history, []);
    let why = report.warnings.join("\n");
    assert!(
        why.contains("rounded to grids without training: node `p` (Softmax)"),
        "{why}"
    );
    let packed = report.packed.unwrap();
    assert!(packed.rounding_error.unwrap() > 0.0 && packed.validation.is_some());
    assert!(folder.path().join("net.spvd").exists());
}

#[test]
fn a_pruned_network_that_has_no_packed_form_is_written_without() {
    let folder = tempfile::tempdir().unwrap();
    let graph = serde_json::json!({
        "name": "tokens", "inputs": [{"name": "x", "shape": [3, 4]}], "outputs": ["fc"],
        "nodes": [{"name": "fc", "inputs": ["x"], "op": "Linear", "weight": "fc.weight"}],
    });
    let weight = Dense::new([2, 4], (1..9).map(|i| i as f32 / 7.0).collect());
    let tensors = [("fc.weight".to_owned(), weight.into())].into();
    let network = Network::new(serde_json::from_value(graph).unwrap(), tensors).unwrap();
    let report = prune(
        network.clone(),
        None,
        &folder.path().join("net.safetensors"),
    );
    assert!(report.packed.is_none() && folder.path().join("net.safetensors").exists());
    let why = report.not_packed.clone().unwrap();
    assert!(why.contains("node `fc`"), "{why}");
    let text = report.origin_and_files(Path::new("r"), None, Path::new("run"));
    assert!(
        text.contains("no .spvd") && text.contains("node `fc`"),
        "{text}"
    );
}
