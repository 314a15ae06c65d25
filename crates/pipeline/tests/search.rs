//! Searches for the number of weights: what is chosen, that the stored recipe alone gives the same result, and that a search goes on
//! after an interruption.
#![allow(clippy::unwrap_used, reason = "a test")]

use sparsevd_compressor::initialise;
use sparsevd_compressor::recipe::{Goal, Method, Phase, Recipe, Search, Validation};
use sparsevd_compressor::report::Try;
use sparsevd_compressor::trainer::Position;
use sparsevd_format::{
    DataSplits, Dataset, LoadedSamples, Pixels, WriteOptions, write_network_bytes,
};
use sparsevd_model::{Network, Preprocessing, Shape, presets};
use sparsevd_pipeline::{
    Compressed, Compression, Data, Observer, PipelineError, RunFolder, Silent, Training,
    TrainingLog,
};

/// Side of the images.
const SIDE: usize = 6;

/// Images of four classes: one bright quarter each.
fn set(count: usize) -> Dataset {
    let mut pixels = vec![];
    for image in 0..count {
        for p in 0..SIDE * SIDE {
            let quarter = p / SIDE / (SIDE / 2) * 2 + p % SIDE / (SIDE / 2);
            let bright = quarter == image % 4;
            pixels.push(((image * 7 + p * 13) % 100) as u8 + if bright { 60 } else { 0 });
        }
    }
    let labels = (0..count).map(|i| (i % 4) as u16).collect();
    Dataset::new(Pixels::U8(pixels), Shape::from([1, SIDE, SIDE]), labels).unwrap()
}

fn data() -> Data {
    Data::from(LoadedSamples::Classes(DataSplits {
        train: Some(set(240)),
        test: Some(set(40)),
        whole: None,
        table: None,
        describe: "quarters".into(),
    }))
}

fn phase(method: Method, epochs: u32) -> Phase {
    Phase {
        lr: 1e-2,
        batch: 20,
        ..Phase::new(method, epochs)
    }
}

/// A network that knows the classes.
fn network() -> Network {
    let (graph, shapes) = presets::mlp("net", Shape::from([1, SIDE, SIDE]), &[12, 4]);
    let mut network = initialise(graph, &shapes, 1).unwrap();
    network.graph.preprocessing = Some(Preprocessing::default());
    let architecture = sparsevd_compressor::architecture::Architecture {
        graph: network.graph.clone(),
        tensors: shapes,
    };
    let recipe = Recipe {
        phases: vec![phase(Method::Dense, 8)],
        ..Recipe::default_for_training()
    };
    let training = Training::new(architecture, data(), recipe);
    training.run(&mut Silent).unwrap().network
}

fn recipe(goal: Goal) -> Recipe {
    Recipe {
        validation: Validation::Samples(40),
        max_accuracy_drop: 0.0,
        search: Some(Search::towards(goal)),
        phases: vec![
            phase(Method::SparseVd, 6),
            phase(Method::FineTune, 4),
            phase(Method::Quantise, 2),
        ],
        ..Recipe::new(vec![])
    }
}

fn bytes(network: &Network) -> Vec<u8> {
    write_network_bytes(network, &WriteOptions::default()).unwrap()
}

fn compress(recipe: Recipe) -> Compressed {
    let compression = Compression::new(network(), data(), recipe);
    compression.run(&mut Silent).unwrap()
}

fn chosen(compressed: &Compressed) -> &Try {
    let tries = &compressed.search.as_ref().unwrap().tries;
    let mut chosen = tries.iter().filter(|t| t.chosen);
    let first = chosen.next().unwrap();
    assert!(chosen.next().is_none(), "one is the result");
    first
}

#[test]
fn the_fewest_weights_that_fit_are_the_result_of_the_recipe_that_is_stored() {
    // What twenty samples, a half of the validation samples, can tell.
    let found = compress(Recipe {
        max_accuracy_drop: 10.0,
        ..recipe(Goal::Promise)
    });
    let best = chosen(&found);
    let tries = &found.search.as_ref().unwrap().tries;
    assert!(tries.len() > 2, "{tries:?}");
    let cost = best.validation.estimate();
    assert!(best.fits && (cost.drop <= 0.0 || cost.drop + cost.standard_error <= 10.0));
    assert!(best.left < tries[0].left, "{tries:?}");
    for other in tries.iter().filter(|t| t.fits) {
        assert!(best.left <= other.left, "{tries:?}");
    }
    assert_eq!(found.network.nonzeros(), best.left);
    // The recipe of the result leaves no search, and gives the same bytes alone.
    let followed = found.recipe.recipe.clone();
    assert_eq!(followed.search, None);
    assert_eq!(followed.phases[1].weights, Some(best.weights));
    let alone = compress(followed);
    assert!(bytes(&alone.network) == bytes(&found.network));
}

#[test]
fn too_few_samples_leave_the_number_of_weights_to_a_more_careful_posterior() {
    let found = compress(recipe(Goal::Promise));
    let best = chosen(&found);
    let search = found.search.as_ref().unwrap();
    let [first, second] = &search.tries[..] else {
        panic!("{:?}", search.tries)
    };
    assert!(first.undecided && !first.fits, "{first:?}");
    assert!(second.undecided && second.fits, "{second:?}");
    assert_eq!(second.validation.drop(), 0.0);
    assert_eq!((best.kl_scale, first.kl_scale), (0.25, 1.0));
    assert!(second.weights > first.weights);
    assert!(
        search.ended.starts_with("validation samples are too few"),
        "{}",
        search.ended
    );
    let table = search.to_string();
    assert!(table.contains("undecided"), "{table}");
}

#[test]
fn a_ratio_a_number_of_weights_and_a_number_of_bytes_are_reached() {
    let all = network().original_weights();
    let by_ratio = compress(recipe(Goal::Ratio(10.0)));
    assert_eq!(
        chosen(&by_ratio).weights,
        (all as f64 / 10.0).round() as usize
    );
    assert!(by_ratio.network.nonzeros() <= all / 10 + 1);
    let by_weights = compress(recipe(Goal::Weights(33)));
    assert_eq!(chosen(&by_weights).weights, 33);
    assert!((20..=33).contains(&by_weights.network.nonzeros()));
    let by_bytes = compress(recipe(Goal::Bytes(200)));
    let best = chosen(&by_bytes);
    assert!(best.fits && best.bytes.unwrap() <= 200, "{best:?}");
    // More weights than the first posterior leaves: another is trained.
    let careful = compress(recipe(Goal::Weights(all)));
    assert!(chosen(&careful).kl_scale < 1.0, "{:?}", chosen(&careful));
}

#[test]
fn goals_that_the_network_cannot_reach_are_refused() {
    let all = network().original_weights();
    for (goal, got) in [
        (Goal::Weights(all + 1), "481 weights: 481 weights"),
        (Goal::Ratio(1000.0), "a ratio of 1000x: 0 weights"),
    ] {
        let error = Compression::new(network(), data(), recipe(goal)).run(&mut Silent);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("a goal of 1 to 480 weights"), "{error}");
        assert!(error.ends_with(got), "{error}");
    }
}

#[test]
fn a_goal_that_is_missed_is_said() {
    let folder = tempfile::tempdir().unwrap();
    // Less than the graph takes.
    let found = compress(recipe(Goal::Bytes(10)));
    let best = chosen(&found);
    assert!(!best.fits && best.bytes.unwrap() > 10, "{best:?}");
    let path = folder.path().join("net.sparse.safetensors");
    let report = found.save(path).unwrap();
    assert!(report.to_string().contains("the result, does not fit"));
    let failures = report.failures().join("\n");
    let expected = "the goal is missed: expected at most 10 bytes packed, got";
    assert!(failures.contains(expected), "{failures}");
}

/// Stops after a number of steps.
struct StopAfter(u32);

impl Observer for StopAfter {
    fn step(&mut self, _epoch: u32, _done: u32, _of: u32, _loss: f64) {
        self.0 = self.0.saturating_sub(1);
    }
    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn an_interrupted_search_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let new = || Compression::new(network(), data(), recipe(Goal::Promise));
    let straight = new().run(&mut Silent).unwrap();
    // In the posterior, in the first try and in a later one.
    for steps in [35, 70, 130] {
        let stopped = new()
            .in_folder(RunFolder::overwrite(&run))
            .run(&mut StopAfter(steps));
        assert!(matches!(stopped, Err(PipelineError::Interrupted { .. })));
        let resumed = new().in_folder(RunFolder::resume(&run).unwrap());
        let resumed = resumed.run(&mut Silent).unwrap();
        assert!(
            bytes(&resumed.network) == bytes(&straight.network),
            "{steps}"
        );
        let weights = |c: &Compressed| -> Vec<usize> {
            let tries = &c.search.as_ref().unwrap().tries;
            tries.iter().map(|t| t.weights).collect()
        };
        assert_eq!(weights(&resumed), weights(&straight));
    }
    // A new run in the same folder takes nothing of the old one.
    let mut other = recipe(Goal::Promise);
    other.seed = 9;
    let again = Compression::new(network(), data(), other.clone())
        .in_folder(RunFolder::overwrite(&run))
        .run(&mut Silent)
        .unwrap();
    let alone = Compression::new(network(), data(), other)
        .run(&mut Silent)
        .unwrap();
    assert!(bytes(&again.network) == bytes(&alone.network));
}

#[test]
fn an_interrupted_search_without_sparse_vd_goes_on_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let new = || {
        let mut plain = recipe(Goal::Weights(60));
        plain.phases.remove(0);
        Compression::new(network(), data(), plain)
    };
    let straight = new().run(&mut Silent).unwrap();
    let stopped = new().in_folder(RunFolder::new(&run));
    let stopped = stopped.run(&mut StopAfter(15));
    assert!(matches!(stopped, Err(PipelineError::Interrupted { .. })));
    let resumed = new().in_folder(RunFolder::resume(&run).unwrap());
    let resumed = resumed.run(&mut Silent).unwrap();
    assert!(bytes(&resumed.network) == bytes(&straight.network));
}

#[test]
fn a_budget_ends_the_search_after_a_try() {
    let compression = Compression::new(network(), data(), recipe(Goal::Promise));
    let found = compression.budget(0.0).run(&mut Silent).unwrap();
    let search = found.search.unwrap();
    assert_eq!(search.tries.len(), 1);
    assert!(search.ended.contains("budget"), "{}", search.ended);
    // More weights than the posterior leaves: there is no time for another, and its survivors are tried.
    let all = network().original_weights();
    let compression = Compression::new(network(), data(), recipe(Goal::Weights(all)));
    let found = compression.budget(0.0).run(&mut Silent).unwrap();
    let best = chosen(&found);
    assert!(best.kl_scale == 1.0 && best.weights < all, "{best:?}");
    let ended = &found.search.as_ref().unwrap().ended;
    assert!(ended.contains("leave no more weights"), "{ended}");
}

#[test]
fn a_budget_is_for_a_search() {
    let mut plain = recipe(Goal::Promise);
    plain.search = None;
    let budget = |recipe, minutes: f64| {
        let compression = Compression::new(network(), data(), recipe).budget(minutes);
        compression.run(&mut Silent).unwrap_err().to_string()
    };
    let error = budget(plain, 5.0);
    assert!(error.contains("a recipe with a search"), "{error}");
    let error = budget(recipe(Goal::Promise), f64::NAN);
    assert!(error.ends_with("got NaN"), "{error}");
}

#[test]
fn the_log_of_a_search_keeps_the_lines_of_every_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = TrainingLog::in_folder(folder.path());
    let lines = |log: &TrainingLog| std::fs::read_to_string(log.path()).unwrap();
    // Two posteriors, each of which begins at its beginning.
    for note in ["one", "two"] {
        log.open(Position::default()).unwrap();
        log.note(note);
    }
    assert_eq!(lines(&log), "one\ntwo\n");
    let mut log = TrainingLog::in_folder(folder.path());
    log.open(Position::default()).unwrap();
    assert_eq!(lines(&log), "", "a new run");
    log.note("three");
    let mut log = TrainingLog::continued_in(folder.path());
    log.open(Position::default()).unwrap();
    log.note("four");
    assert_eq!(lines(&log), "three\nfour\n");
}
