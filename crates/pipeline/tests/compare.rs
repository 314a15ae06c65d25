//! Comparisons of methods: the cells are those of separate runs, and a comparison goes on where it was.
#![allow(clippy::unwrap_used, reason = "a test")]

mod stripes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sparsevd_compressor::recipe::{Method, Phase, PruneBy, Recipe, Search, Validation};
use sparsevd_compressor::report::{Part, PooledScore};
use sparsevd_format::{DataSplits, LoadedSamples};
use sparsevd_pipeline::{
    ComparedMethods, Compression, Data, FoundRecipe, MethodComparison, Observer, Outputs,
    PipelineError, PruningMethod, Silent,
};

use PruningMethod::{Fisher, GradualMagnitude, SparseVd};
use stripes::{data, network, set};

fn recipe() -> Recipe {
    let phase = |method, epochs| Phase {
        lr: 1e-2,
        batch: 10,
        ..Phase::new(method, epochs)
    };
    Recipe {
        validation: Validation::Samples(20),
        search: Some(Search::default()),
        seed: 7,
        phases: vec![
            phase(Method::SparseVd, 3),
            phase(Method::FineTune, 2),
            phase(Method::Quantise, 1),
        ],
        ..Recipe::new(vec![])
    }
}

fn comparison(folder: &Path) -> MethodComparison {
    MethodComparison::new(network(), data(), recipe(), folder)
        .ratios([3.0, 6.0])
        .seeds([0, 5])
}

/// Steps and notes, and where to stop.
#[derive(Default)]
struct Watch {
    steps: u32,
    stop_after: Option<u32>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, _epoch: u32, _done: u32, _of: u32, _loss: f64) {
        self.steps += 1;
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
    fn stop(&mut self) -> bool {
        self.stop_after.is_some_and(|most| self.steps >= most)
    }
}

impl Watch {
    fn cells(&self) -> Vec<&str> {
        let notes = self.notes.iter().map(String::as_str);
        notes.filter(|note| note.starts_with("cell ")).collect()
    }
}

/// The files of all cells but for the times in them.
fn networks(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for cell in fs::read_dir(folder).unwrap() {
        let cell = cell.unwrap().path();
        for file in fs::read_dir(&cell).into_iter().flatten() {
            let file = file.unwrap().path();
            let name = file.strip_prefix(folder).unwrap().display().to_string();
            if name.contains("network") {
                found.insert(name, fs::read(file).unwrap());
            }
        }
    }
    found
}

/// The report as JSON without times and places.
fn timeless(compared: &ComparedMethods) -> serde_json::Value {
    let mut json = serde_json::to_value(compared).unwrap();
    for result in json["results"].as_array_mut().unwrap() {
        for seed in result["seeds"].as_array_mut().unwrap() {
            for key in ["training_seconds", "file", "packed"] {
                assert!(seed.as_object_mut().unwrap().remove(key).is_some());
            }
        }
    }
    json
}

#[test]
fn every_cell_is_the_run_of_its_method_ratio_and_seed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let mut watch = Watch::default();
    let compared = comparison(&folder).run(&mut watch).unwrap();
    assert_eq!(watch.cells().len(), 12);
    assert_eq!(
        watch.cells()[4],
        "cell 5 of 12: fisher, 3x, seed 0: to 48 weights"
    );
    // 144 weights; the reports are by ratio, then by method.
    assert_eq!((compared.weights, compared.part), (144, Part::Test));
    let rows = compared.results.iter();
    let rows: Vec<_> = rows.map(|r| (r.asked_ratio, r.method)).collect();
    let methods = PruningMethod::ALL;
    let want = [3.0, 6.0].map(|ratio| methods.map(|method| (ratio, method)));
    assert_eq!(rows, want.concat());
    for result in &compared.results {
        let seeds: Vec<u64> = result.seeds.iter().map(|s| s.seed).collect();
        assert_eq!(seeds, [0, 5]);
        for seed in &result.seeds {
            assert!(seed.left <= result.asked_weights, "{seed:?}");
            let on_disk = fs::metadata(seed.packed.as_ref().unwrap()).unwrap().len();
            assert_eq!(seed.bytes, Some(on_disk));
            assert_eq!(seed.posterior_weights.is_some(), result.method == SparseVd);
        }
        let PooledScore::Errors(test) = result.test.unwrap() else {
            panic!("a classification")
        };
        assert_eq!((test.images, test.seeds), (30, 2));
    }
    // The same bytes as a separate run.
    for (method, prune_by) in [
        (SparseVd, None),
        (GradualMagnitude, Some(PruneBy::Magnitude)),
        (Fisher, Some(PruneBy::Fisher)),
    ] {
        let mut alone = recipe();
        (alone.seed, alone.search) = (5, None);
        let alone = match prune_by {
            None => FoundRecipe::from(alone.of_try(1.0, 24)),
            Some(prune_by) => FoundRecipe::from(alone)
                .gradual(prune_by, &network(), Some(24))
                .unwrap(),
        };
        let outputs = Outputs::new(dir.path().join("alone.spvd"), &alone.recipe).unwrap();
        let compressed = Compression::new(network(), data(), alone).run(&mut Silent);
        let report = compressed.unwrap().write(&outputs).unwrap();
        let is = |r: &&sparsevd_pipeline::MethodResult| r.method == method && r.asked_ratio == 6.0;
        let result = compared.results.iter().find(is).unwrap();
        let seed = &result.seeds[1];
        let read = |path: &Path| fs::read(path).unwrap();
        assert!(
            read(&seed.file) == read(outputs.network.as_deref().unwrap()),
            "{method:?}"
        );
        let packed = [&seed.packed, &outputs.packed].map(|p| read(p.as_ref().unwrap()));
        assert!(packed[0] == packed[1], "{method:?}");
        assert_eq!(
            seed.validation,
            report.accuracy.as_ref().unwrap().validation
        );
        assert_eq!(seed.test, report.accuracy.as_ref().unwrap().test);
    }
    // Of finished cells there is no checkpoint, and of posteriors nothing else.
    let names = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(folder.join(path)).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let cell = ["cell.json", "network.sparse.safetensors", "network.spvd"];
    assert_eq!(names("fisher-3x-seed-0"), cell);
    assert_eq!(names("sparse-vd-6x-seed-5"), cell);
    assert_eq!(names("posterior-seed-0"), ["checkpoint.safetensors"]);
    let text = compared.to_string();
    assert!(text.lines().all(|line| line.len() <= 110), "{text}");
    let first = text
        .lines()
        .position(|l| l.starts_with("sparse-vd "))
        .unwrap();
    assert!(
        text.lines().nth(first + 2).unwrap().starts_with("fisher"),
        "{text}"
    );
    assert!(text.contains("against sparse-vd"), "{text}");
    for result in &compared.results {
        let (method, ratio) = (result.method.name(), result.asked_ratio);
        let said = text.contains(&format!("\n{method} at {ratio}x: "));
        let asked = result.asked_weights;
        assert_eq!(said, result.seeds.iter().any(|s| s.left != asked), "{text}");
    }
}

#[test]
fn an_interrupted_comparison_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let straight = dir.path().join("straight");
    let mut all = Watch::default();
    let want = comparison(&straight).run(&mut all).unwrap();
    // In a posterior, in cells of each method, and of the second seed.
    let resumed = dir.path().join("resumed");
    let mut done = 0;
    let mut stops = 0;
    for most in [15, 25, 50, 40, 150, 60, 35] {
        let mut watch = Watch {
            stop_after: Some(most),
            ..Watch::default()
        };
        let error = comparison(&resumed).run(&mut watch).unwrap_err();
        let PipelineError::Interrupted { folder } = error else {
            panic!("{error}")
        };
        assert_eq!(folder.as_deref(), Some(resumed.as_path()));
        done += watch.steps;
        stops += 1;
    }
    let mut watch = Watch::default();
    let got = comparison(&resumed).run(&mut watch).unwrap();
    assert!(stops == 7 && watch.steps > 0);
    assert_eq!(done + watch.steps, all.steps, "no step is taken twice");
    assert_eq!(timeless(&got), timeless(&want));
    // Twelve cells, each as interchange form and packed.
    assert_eq!(networks(&straight).len(), 24);
    assert!(networks(&resumed) == networks(&straight));
    // A network that is gone is made again, from the posterior that was kept.
    fs::remove_file(resumed.join("sparse-vd-6x-seed-5/network.spvd")).unwrap();
    let mut watch = Watch::default();
    let got = comparison(&resumed).run(&mut watch).unwrap();
    assert_eq!((watch.steps, watch.cells().len()), (30, 1));
    assert_eq!(timeless(&got), timeless(&want));
    assert!(networks(&resumed) == networks(&straight));
    // Once more: nothing is trained, not even a posterior.
    let mut watch = Watch::default();
    let again = comparison(&resumed).run(&mut watch).unwrap();
    assert_eq!((watch.steps, watch.cells().len()), (0, 0));
    assert_eq!(timeless(&again), timeless(&want));
}

#[test]
fn ratios_seeds_and_methods_can_be_added() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let mut watch = Watch::default();
    let first = comparison(&folder)
        .methods([SparseVd])
        .ratios([3.0])
        .seeds([0]);
    first.run(&mut watch).unwrap();
    // Ten steps an epoch.
    assert_eq!((watch.steps, watch.cells().len()), (60, 1));
    // The posterior is not trained again.
    let mut watch = Watch::default();
    let more = comparison(&folder).methods([SparseVd]).seeds([0]);
    more.run(&mut watch).unwrap();
    assert_eq!((watch.steps, watch.cells().len()), (30, 1));
    let mut watch = Watch::default();
    let all = comparison(&folder).run(&mut watch).unwrap();
    assert_eq!(watch.cells().len(), 10);
    let straight = comparison(&dir.path().join("straight"));
    assert_eq!(
        timeless(&all),
        timeless(&straight.run(&mut Silent).unwrap())
    );
}

#[test]
fn another_recipe_network_or_data_set_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let small = |recipe: Recipe, network, data| {
        MethodComparison::new(network, data, recipe, &folder)
            .methods([Fisher])
            .ratios([6.0])
    };
    small(recipe(), network(), data()).run(&mut Silent).unwrap();
    let refused = |comparison: MethodComparison| {
        let mut watch = Watch::default();
        let error = comparison.run(&mut watch).unwrap_err().to_string();
        assert_eq!(watch.steps, 0);
        error
    };
    let mut other = recipe();
    other.phases[0].epochs = 4;
    let error = refused(small(other, network(), data()));
    assert!(
        error.contains("compare.json: expected the recipe with phase 1 epochs 3")
            && error.ends_with("got 4, of the program"),
        "{error}"
    );
    // Neither the search nor the seed plays a part.
    let mut same = recipe();
    (same.search, same.seed) = (None, 1);
    small(same, network(), data()).run(&mut Silent).unwrap();
    let mut other = network();
    other.graph.preprocessing.as_mut().unwrap().scale = 0.01;
    let error = refused(small(recipe(), other, data()));
    assert!(error.contains("expected the network of"), "{error}");
    let fewer = Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(120)),
        test: Some(set(29)),
        whole: None,
        table: None,
        describe: "stripes".into(),
    }));
    let error = refused(small(recipe(), network(), fewer));
    assert!(error.contains("expected the samples of"), "{error}");
    // A result of another comparison.
    let record = folder.join("compare.json");
    let own = fs::read_to_string(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let mut other = recipe();
    other.phases[0].epochs = 4;
    let error = refused(small(other, network(), data()));
    assert!(
        error.contains("cell.json: expected a result with phase 1 epochs 4, got 3"),
        "{error}"
    );
    // Of another version.
    let version = env!("CARGO_PKG_VERSION");
    fs::write(&record, own.replace(version, "0.0.0")).unwrap();
    let compared = small(recipe(), network(), data()).run(&mut Silent).unwrap();
    let warning =
        format!("this comparison began with version 0.0.0, and this is version {version}");
    assert_eq!(compared.warnings, [warning]);
    fs::write(&record, own).unwrap();
    // A result that is damaged.
    let cell = folder.join("fisher-6x-seed-0/cell.json");
    let text = fs::read_to_string(&cell).unwrap();
    fs::write(&cell, text.replace("\"seed\":0", "\"seed\":1")).unwrap();
    let error = refused(small(recipe(), network(), data()));
    assert!(
        error.contains("expected fisher, 6x, seed 0, got fisher, 6x, seed 1"),
        "{error}"
    );
}

#[test]
fn a_first_try_that_fails_does_not_keep_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let new = |recipe| {
        MethodComparison::new(network(), data(), recipe, &folder)
            .methods([Fisher])
            .ratios([6.0])
    };
    let mut wild = recipe();
    wild.phases[0].lr = 1.0;
    wild.validation = Validation::Samples(10);
    let mut watch = Watch {
        stop_after: Some(0),
        ..Watch::default()
    };
    let error = new(wild.clone()).run(&mut watch).unwrap_err();
    assert!(matches!(error, PipelineError::Interrupted { .. }));
    let cell = folder.join("fisher-6x-seed-0/checkpoint.safetensors");
    let error = new(recipe()).run(&mut Silent).unwrap_err();
    assert!(
        matches!(error, PipelineError::OtherComparison { .. }) && cell.is_file(),
        "{error}"
    );
    fs::remove_file(cell).unwrap();
    new(recipe()).run(&mut Silent).unwrap();
    let error = new(wild).run(&mut Silent).unwrap_err();
    assert!(
        matches!(error, PipelineError::OtherComparison { .. }),
        "{error}"
    );
}

#[test]
fn settings_that_make_no_table_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    let error = |comparison: MethodComparison| {
        let error = comparison.run(&mut Silent).unwrap_err().to_string();
        assert!(!folder.exists(), "{error}");
        error
    };
    let new = || comparison(&folder);
    let each = "expected at least one, and each once, got";
    assert_eq!(error(new().methods([])), format!("methods: {each} none"));
    assert_eq!(
        error(new().methods([Fisher, Fisher])),
        format!("methods: {each} fisher twice")
    );
    assert_eq!(error(new().seeds([3, 3])), format!("seeds: {each} 3 twice"));
    for ratio in [0.5, 1000.0, f64::NAN, f64::INFINITY] {
        let error = error(new().ratios([ratio]));
        assert_eq!(
            error,
            format!("ratios: expected 1 to 144, the weights of the network, got {ratio}")
        );
    }
    let with = |phases: &[Method]| {
        let phases = phases.iter().map(|&m| Phase::new(m, 1));
        let recipe = Recipe::new(phases.collect());
        error(MethodComparison::new(network(), data(), recipe, &folder))
    };
    let none = with(&[Method::FineTune]);
    assert!(
        none.contains("a sparse-vd phase, for the method sparse-vd"),
        "{none}"
    );
    let none = with(&[Method::SparseVd]);
    assert!(none.contains("a fine-tune phase behind the last"), "{none}");
    let mut fixed = recipe();
    fixed.phases[2].weights = Some(10);
    let fixed = error(MethodComparison::new(network(), data(), fixed, &folder));
    assert!(
        fixed.ends_with("got 10 in phase 3 (quantise)"),
        "every ratio would prune to it: {fixed}"
    );
}

#[test]
fn a_posterior_with_fewer_weights_is_said_and_data_without_test_samples_too() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(120)),
        test: None,
        whole: None,
        table: None,
        describe: "stripes".into(),
    }));
    let mut strict = recipe();
    for phase in &mut strict.phases {
        (phase.kl_scale, phase.epochs) = (20.0, 3 * phase.epochs);
    }
    let compared = MethodComparison::new(network(), data, strict, dir.path().join("c"))
        .methods([SparseVd])
        .ratios([1.0])
        .run(&mut Silent)
        .unwrap();
    let result = &compared.results[0];
    let left = result.seeds[0].posterior_weights.unwrap();
    assert!(left < 144 && result.seeds[0].left <= left, "{result:?}");
    let text = compared.to_string();
    let said = format!("sparse-vd at 1x: a posterior leaves {left} weights, fewer than the 144");
    assert!(text.contains(&said), "{text}");
    assert!(text.contains("on the validation samples"), "{text}");
    assert!(text.contains("\nSeed 0.\n"), "{text}");
    assert!(!text.contains("against"), "one method: {text}");
    assert_eq!((compared.part, compared.test), (Part::Validation, None));
}
