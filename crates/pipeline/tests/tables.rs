//! Tables as data of the library: columns that are stored, and columns that are not.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sparsevd_compressor::architecture;
use sparsevd_compressor::recipe::{Method, Phase, Recipe};
use sparsevd_compressor::report::{PooledScore, SplitScore};
use sparsevd_compressor::trainer::Observer;
use sparsevd_onnx::ImportOptions;
use sparsevd_pipeline::{
    Compression, Data, MethodComparison, ModelFile, PipelineError, PruningMethod, RunFolder,
    Silent, Training,
};

/// Rows whose target is twice `a` and larger for `b` of `yes`.
fn table(folder: &Path) -> PathBuf {
    let mut text = "a,b,y\n".to_owned();
    for row in 0..120 {
        let (a, word) = (row * 37 % 101, ["yes", "no"][row % 2]);
        let y = 2.0 * a as f64 + if row % 2 == 0 { 50.0 } else { 0.0 };
        writeln!(text, "{a},{word},{y:.1}").unwrap();
    }
    let path = folder.join("t.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn recipe(methods: &[Method]) -> Recipe {
    let phase = |&method: &Method| Phase {
        lr: 1e-2,
        batch: 10,
        ..Phase::new(method, 4)
    };
    Recipe {
        validation: 20.into(),
        phases: methods.iter().map(phase).collect(),
        ..Recipe::new(vec![])
    }
}

/// Trains an MLP for the table, and writes it.
fn model(folder: &Path) -> ModelFile {
    let data = Data::load(table(folder)).unwrap();
    let (input, outputs) = data.shape_and_outputs().unwrap();
    assert_eq!((input.dims(), outputs), (&[3][..], 1));
    let mlp = architecture::mlp("mlp-8", input, outputs).unwrap().unwrap();
    let trained = Training::new(mlp, data, recipe(&[Method::Dense]));
    let path = folder.join("net.safetensors");
    let trained = trained.run(&mut Silent).unwrap();
    let stored = trained.network.graph.preprocessing.as_ref().unwrap();
    assert_eq!(stored.table.as_ref().unwrap().columns.len(), 2);
    assert!((stored.mean[0] - 50.0).abs() < 5.0, "{:?}", stored.mean);
    trained.save(&path).unwrap();
    ModelFile { path, graph: None }
}

/// Stops after some steps, and keeps the notes.
struct StopAfter(u32, Vec<String>);

impl Observer for StopAfter {
    fn step(&mut self, _: u32, _: u32, _: u32, _: f64) {
        self.0 -= 1;
    }

    fn note(&mut self, text: &str) {
        self.1.push(text.into());
    }

    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn a_run_on_a_table_goes_on_with_its_columns() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let recipe = recipe(&[Method::SparseVd, Method::FineTune]);
    let data = || Data::load(folder.path().join("t.csv")).unwrap();
    let input = || model.clone().read(&Default::default()).unwrap();
    let straight = Compression::new(input(), data(), recipe.clone());
    let straight = straight.run(&mut Silent).unwrap();
    // What the run assumes of the targets is part of its recipe.
    let deviation = straight.recipe.recipe.target_deviation.unwrap();
    assert!(deviation > 0.0);

    let run = folder.path().join("run");
    let mut stop = StopAfter(17, vec![]);
    let stopped = Compression::new(input(), data(), recipe)
        .in_folder(RunFolder::new(&run))
        .run(&mut stop);
    assert!(matches!(stopped, Err(PipelineError::Interrupted { .. })));
    let told = format!("a deviation of {deviation:.4}");
    assert!(stop.1.iter().any(|n| n.contains(&told)), "{:?}", stop.1);
    let resumed = Compression::resume(&run).unwrap().run(&mut Silent).unwrap();
    assert_eq!(resumed.network, straight.network);
    assert_eq!(resumed.recipe.recipe, straight.recipe.recipe);
}

#[test]
fn a_table_that_the_network_does_not_know_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = model(folder.path()).read(&Default::default()).unwrap();
    let path = folder.path().join("t.csv");
    let recipe = || recipe(&[Method::SparseVd]);
    // In another order; read by the columns that are stored, it is the same table.
    let text = std::fs::read_to_string(&path).unwrap();
    let swapped: String = text.lines().fold(String::new(), |mut all, line| {
        let mut values = line.split(',');
        let (a, b, y) = (
            values.next().unwrap(),
            values.next().unwrap(),
            values.next().unwrap(),
        );
        writeln!(all, "{b},{a},{y}").unwrap();
        all
    });
    let other = folder.path().join("swapped.csv");
    std::fs::write(&other, swapped).unwrap();
    let run = |input, data| Compression::new(input, data, recipe()).run(&mut Silent);
    let error = run(input.clone(), Data::load(&other).unwrap()).unwrap_err();
    assert!(error.to_string().contains("other columns"), "{error}");
    let stored = input.network.graph.preprocessing.clone();
    let known = Data::load_for(&other, stored.as_ref()).unwrap();
    assert_eq!(known.table(), Data::load(&path).unwrap().table());
    run(input.clone(), known).unwrap();

    input.network.graph.preprocessing = None;
    let error = run(input, Data::load(&path).unwrap()).unwrap_err();
    assert!(matches!(error, PipelineError::NoTable { .. }), "{error}");
}

#[test]
fn methods_are_compared_on_a_regression_by_r2() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let compare = || {
        let network = model.clone().read(&ImportOptions::default()).unwrap();
        let recipe = recipe(&[Method::SparseVd, Method::FineTune]);
        let data = Data::load(table(dir.path())).unwrap();
        MethodComparison::new(network, data, recipe, dir.path().join("c"))
            .methods([PruningMethod::SparseVd, PruningMethod::Fisher])
            .ratios([2.0])
            .seeds([0, 1])
            .run(&mut Silent)
            .unwrap()
    };
    let compared = compare();
    let drops = compared.results.iter().map(|result| {
        let of_seed = |seed: &sparsevd_pipeline::SeedResult| match seed.validation {
            SplitScore::Fit(fit) => fit.estimate.drop,
            SplitScore::Errors(_) => panic!("a regression"),
        };
        let drops: Vec<f64> = result.seeds.iter().map(of_seed).collect();
        let PooledScore::Fit(fit) = result.validation else {
            panic!("a regression")
        };
        assert_eq!((fit.samples, fit.seeds, result.bytes), (16, 2, None));
        assert!((fit.estimate.drop - (drops[0] + drops[1]) / 2.0).abs() < 1e-12);
        fit.estimate.drop
    });
    let drops: Vec<f64> = drops.collect();
    let paired = compared.paired[0].validation;
    assert!((paired.drop() - (drops[1] - drops[0])).abs() < 1e-12);
    let text = compared.to_string();
    assert!(
        text.contains("validation R2 0.") && !text.contains(" p"),
        "{text}"
    );
    // From the stored results.
    assert_eq!(compare().to_string(), text);
}
