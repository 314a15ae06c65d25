//! `compress MODEL`: trains a sparse network from a dense one, writes it, and measures the written file.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::Samples;
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{
    Accuracy, Encoding, PackedResult, Promise, Pruning, Report, SCHEMA, SplitScore, Summary, Task,
    encodings, packed_size, stored_bytes,
};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_format::{
    GraphSource, PackOptions, inspect_encodings, read_network, write_atomically, write_network,
    write_packed,
};
use sparsevd_model::Network;
use sparsevd_runtime::WeightMode;

use crate::args::{CompressArgs, Values};
use crate::inputs::{self, FoundRecipe, Images, Unset};
use crate::output::Results;
use crate::run_folder::{self, RunFolder};
use crate::{Outcome, common, measure, output, print, pruned, summary, training};

/// Files that the command writes.
struct Outputs {
    results: Results,
    report: PathBuf,
}

/// Scores of the input network.
struct Before {
    validation: Score,
    test: Option<Score>,
}

pub fn run(args: &CompressArgs) -> anyhow::Result<Outcome> {
    let name = inputs::model_name(&args.model);
    let folder = RunFolder::find(&args.run, format!("{name}.run"))?;
    if !pruned::decides(args) {
        folder.check_free(args.run.force)?;
    }
    let mut recipe = recipe(args, &folder)?;
    if pruned::decides(args) {
        recipe = pruned::fine_tuning(recipe, args.run.recipe.is_some())?;
        if !recipe.recipe.phases.is_empty() {
            folder.check_free(args.run.force)?;
        }
    }
    let loaded = common::network(
        &args.model,
        args.network.as_deref(),
        &args.shapes,
        args.run.quiet,
    )?;
    let start = pruned::start(args, &loaded.network)?;
    let outputs = outputs(args, &name, &recipe.recipe)?;
    let mut dense = pruned::folded(&loaded.network).into_owned();
    if let Some(record) = &folder.record {
        dense.graph.preprocessing.clone_from(&record.preprocessing);
    }
    let data = match inputs::data_path(
        args.run.data.as_deref(),
        folder.record.as_ref(),
        &recipe.recipe,
    ) {
        // A network that is pruned already needs no data.
        Err(_) if start.is_some() => None,
        other => Some(other?),
    };
    let mut notes = loaded.notes.clone();
    let images = match &data {
        Some(path) => {
            let known = dense.graph.preprocessing.as_ref();
            let loaded = inputs::load(path, args.run.target.as_deref(), known)?;
            let (images, more) = inputs::images(
                loaded,
                path,
                &recipe.recipe,
                &mut dense,
                &args.pixels,
                Unset::Refused,
            )?;
            notes.extend(more);
            Some(images)
        }
        None => None,
    };
    let threads = args.run.threads();
    let before = (images.as_ref())
        .map(|images| scores_before(&dense, images, threads))
        .transpose()?;
    notes.extend(start.iter().flat_map(|s| s.notes.clone()));
    tell(args, &recipe, start.is_some(), &notes, before.as_ref());

    let pruning = start.as_ref().map(|s| s.pruning.clone());
    let begin = match start {
        Some(start) => {
            let mut network = start.network;
            network
                .graph
                .preprocessing
                .clone_from(&dense.graph.preprocessing);
            network
        }
        None => dense.clone(),
    };
    let (network, history) = match (&data, &images) {
        (Some(data), Some(images)) if !recipe.recipe.phases.is_empty() => {
            let task = Task::Compress {
                model: std::path::absolute(&args.model)?,
                network: args
                    .network
                    .as_deref()
                    .map(inputs::absolute_source)
                    .transpose()?,
            };
            let preprocessing = dense.graph.preprocessing.clone();
            let record = run_folder::record(task, data, &recipe, preprocessing)?;
            let Some(trainer) = training::run(&begin, images, &folder, &record, &args.run)? else {
                return Ok(Outcome::Interrupted);
            };
            recipe.recipe = trainer.recipe().clone();
            (
                pruned::finish(trainer.network()?),
                trainer.history().to_vec(),
            )
        }
        _ => (pruned::finish(begin), vec![]),
    };
    let options = output::options(Some(&args.encoding), &recipe.recipe, loaded.metadata);
    write_network(&outputs.results.network, &network, &options)?;
    if let Some(path) = &outputs.results.packed {
        write_packed(path, &network, &PackOptions::for_size_of(&network))?;
    }
    let measured = images.as_ref().zip(before.as_ref());
    let mut report = report(args, &outputs, &recipe, pruning, history, &dense, measured)?;
    report.warnings = loaded.warnings;
    let json = serde_json::to_string_pretty(&report)?;
    write_atomically(&outputs.report, |out| writeln!(out, "{json}"))?;

    if args.run.json {
        print::json(&report)?;
    } else {
        let run = (!report.history.is_empty()).then_some(folder.path.as_path());
        print::text(summary::of(&report, &outputs.report, run)?)?;
    }
    let (Some(before), Some(accuracy)) = (before, &report.accuracy) else {
        return Ok(Outcome::Done);
    };
    let promise = accuracy.promise;
    if promise.kept {
        return Ok(Outcome::Done);
    }
    let less = match report.pruning {
        Some(Pruning::Magnitude(_)) => "a lower --sparsity",
        Some(Pruning::Posterior { .. }) => "a higher --threshold",
        None => "a lower --kl-scale or a higher --threshold",
    };
    let written = outputs.results.network.display();
    match (before.validation.r2(), promise.max_r2_drop) {
        (Some(r2), Some(most)) => eprintln!(
            "compress: the accuracy promise is broken: validation R2 {:.4}, {:.4} under the dense network's, expected at most {most} \
             (--max-r2-drop); {written} was written all the same; {less} keeps more weights",
            r2 - promise.drop,
            promise.drop,
        ),
        _ => eprintln!(
            "compress: the accuracy promise is broken: validation error {:.2} %, {:.2} points over the dense network's, expected at most {} \
             (--max-accuracy-drop); {written} was written all the same; {less} keeps more weights",
            before.validation.error() + promise.drop,
            promise.drop,
            promise.max_accuracy_drop.unwrap_or_default(),
        ),
    }
    Ok(Outcome::PromiseBroken)
}

/// Names the outputs and checks that they can be written.
fn outputs(args: &CompressArgs, name: &str, recipe: &Recipe) -> anyhow::Result<Outputs> {
    if args.encoding.values == Some(Values::I8) && !output::ends_on_grids(recipe) {
        bail!(
            "--values i8: expected {}; got a recipe that ends without one",
            output::NEEDS_GRID
        );
    }
    let results = output::results(args.run.out.as_deref(), name, recipe)?;
    let report = output::report_path(&results.network);
    let files = [
        Some(&results.network),
        results.packed.as_ref(),
        Some(&report),
    ];
    for file in files.into_iter().flatten() {
        output::check(file, args.run.force)?;
    }
    Ok(Outputs { results, report })
}

/// The recipe of the resumed run, else the one that is found, with the overrides of the command line.
fn recipe(args: &CompressArgs, folder: &RunFolder) -> anyhow::Result<FoundRecipe> {
    let found = match (&args.run.recipe, &folder.record) {
        (None, Some(record)) => FoundRecipe {
            recipe: record.recipe.clone(),
            source: record.recipe_source.clone(),
        },
        (named, _) => inputs::recipe(
            named.as_deref(),
            Some(&args.model),
            Recipe::default_for_compression,
        )?,
    };
    Ok(FoundRecipe {
        recipe: found.recipe.with(&args.overrides())?,
        ..found
    })
}

fn scores_before(network: &Network, images: &Images, threads: usize) -> anyhow::Result<Before> {
    let score = |set: &dyn Samples| measure::score(network, WeightMode::Dense, set, threads);
    Ok(Before {
        validation: score(images.training.validation())?,
        test: images.test.as_ref().map(|set| score(set)).transpose()?,
    })
}

/// Prints the recipe and the errors of the input network before training starts.
fn tell(
    args: &CompressArgs,
    recipe: &FoundRecipe,
    pruned: bool,
    notes: &[String],
    before: Option<&Before>,
) {
    if !print::talks(args.run.quiet) {
        return;
    }
    for note in notes {
        common::note(note);
    }
    if pruned && recipe.recipe.phases.is_empty() {
        eprintln!("the network is pruned and not trained");
    } else if recipe.source == inputs::DEFAULT_RECIPE {
        eprintln!(
            "no recipe.toml beside the model and no --recipe: the default recipe is followed and stored with the result:"
        );
        eprintln!("{}", recipe.recipe.to_toml());
    } else {
        eprintln!("recipe: {}", recipe.source);
    }
    let Some(before) = before else { return };
    let test = (before.test).map_or(String::new(), |test| format!(", test {test}"));
    eprintln!(
        "{} as it came: validation {}{test}",
        args.model.display(),
        before.validation
    );
}

/// Reads the written files back and measures them through the runtime.
fn report(
    args: &CompressArgs,
    outputs: &Outputs,
    recipe: &FoundRecipe,
    pruning: Option<Pruning>,
    history: Vec<EpochRecord>,
    dense: &Network,
    measured: Option<(&Images, &Before)>,
) -> anyhow::Result<Report> {
    let Results { network, packed } = &outputs.results;
    let sparse = read_network(network, &GraphSource::Auto)?.network;
    let (bytes, file_bytes) = stored_bytes(network)?;
    let threads = args.run.threads();
    let packed = match (packed, measured) {
        (Some(path), Some((images, before))) => Some(packed_result(path, images, before, threads)?),
        _ => None,
    };
    let accuracy = match measured {
        Some((images, before)) => {
            let (validation, test) = scores_after(&sparse, images, before, threads)?;
            // Both files are what was promised.
            let worst = match &packed {
                Some(p) if p.validation.drop() > validation.drop() => &p.validation,
                _ => &validation,
            };
            Some(Accuracy {
                promise: Promise::new(&recipe.recipe, worst),
                validation,
                test,
            })
        }
        None => None,
    };
    let as_it_came = inspect_encodings(dense).into_iter().take(1);
    let as_it_came = as_it_came.map(|(label, bytes)| Encoding {
        encoding: format!("as it came: {label}"),
        bytes,
    });
    let encodings = as_it_came.chain(encodings(&sparse, packed.as_ref().map(|p| p.size.bytes)));
    Ok(Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        network: sparse.graph.name.clone(),
        model: args.model.clone(),
        warnings: vec![],
        output: network.clone(),
        packed,
        pruning,
        data: measured.map(|(images, _)| images.describe.clone()),
        seed: recipe.recipe.seed,
        recipe_source: recipe.source.clone(),
        recipe: recipe.recipe.clone(),
        preprocessing: sparse.graph.preprocessing.clone(),
        training_seconds: history.iter().map(|e| e.seconds).sum(),
        history,
        summary: Summary::new(&sparse, bytes.as_ref(), file_bytes),
        kernels: measure::kernels(&sparse)?,
        accuracy,
        encodings: encodings.collect(),
        timings: measure::timings(&sparse, dense, measured.map(|(i, _)| samples_of(i)))?,
    })
}

/// Scores of a written network against those before, on validation and test samples.
fn scores_after(
    network: &Network,
    images: &Images,
    before: &Before,
    threads: usize,
) -> anyhow::Result<(SplitScore, Option<SplitScore>)> {
    let after = |set: &dyn Samples| measure::score(network, WeightMode::Sparse, set, threads);
    let validation = after(images.training.validation())?;
    let test = match (&before.test, &images.test) {
        (Some(before), Some(set)) => Some(SplitScore::new(before, &after(set)?)),
        _ => None,
    };
    Ok((SplitScore::new(&before.validation, &validation), test))
}

/// The packed file, taken apart and run.
fn packed_result(
    path: &Path,
    images: &Images,
    before: &Before,
    threads: usize,
) -> anyhow::Result<PackedResult> {
    let Some(size) = packed_size(path)? else {
        bail!(
            "{}: expected the packed file that was written, got another",
            path.display()
        );
    };
    let network = read_network(path, &GraphSource::Auto)?.network;
    let (validation, test) = scores_after(&network, images, before, threads)?;
    Ok(PackedResult {
        output: path.to_owned(),
        size,
        validation,
        test,
    })
}

/// Samples to measure latency with.
fn samples_of(images: &Images) -> &dyn Samples {
    match &images.test {
        Some(test) => test,
        None => images.training.validation(),
    }
}
