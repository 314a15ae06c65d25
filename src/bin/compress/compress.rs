//! `compress MODEL`: the whole way from a dense network to a sparse file that was run.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{
    Accuracy, Encoding, PackedResult, Promise, Pruning, Report, SCHEMA, SplitError, Summary, Task,
    encodings, packed_size, stored_bytes,
};
use sparsevd_compressor::trainer::EpochRecord;
use sparsevd_format::{
    GraphSource, PackOptions, inspect_encodings, read_network, write_atomically, write_network,
    write_packed,
};
use sparsevd_model::Network;
use sparsevd_runtime::{Evaluation, WeightMode};

use crate::args::{CompressArgs, Values};
use crate::inputs::{self, FoundRecipe, Images};
use crate::output::Results;
use crate::run_folder::{self, RunFolder};
use crate::{Outcome, common, measure, output, print, pruned, summary, training};

/// Where the results of a command go.
struct Outputs {
    results: Results,
    report: PathBuf,
}

/// Errors of the network as it came.
struct Before {
    validation: Evaluation,
    test: Option<Evaluation>,
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
    let loaded = common::network(&args.model, args.network.as_deref(), &args.shapes)?;
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
        // What is pruned already needs no data.
        Err(_) if start.is_some() => None,
        other => Some(other?),
    };
    let mut notes = loaded.notes.clone();
    let images = match &data {
        Some(path) => {
            let (images, more) = inputs::images(path, &recipe.recipe, &mut dense, &args.pixels)?;
            notes.extend(more);
            Some(images)
        }
        None => None,
    };
    let threads = args.run.threads();
    let before = (images.as_ref())
        .map(|images| errors_before(&dense, images, threads))
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
    let judged = images.as_ref().zip(before.as_ref());
    let report = report(args, &outputs, &recipe, pruning, history, &dense, judged)?;
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
    eprintln!(
        "compress: the accuracy promise is broken: validation error {:.2} %, {:.2} points over the dense network's, expected at most {} \
         (--max-accuracy-drop); {} was written all the same; {less} keeps more weights",
        before.validation.error_percent() + promise.drop,
        promise.drop,
        promise.max_accuracy_drop,
        outputs.results.network.display(),
    );
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

/// The recipe of the run that goes on, else the one that is found, with what the command line sets.
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

fn errors_before(network: &Network, images: &Images, threads: usize) -> anyhow::Result<Before> {
    let errors = |set| measure::errors(network, WeightMode::Dense, set, threads);
    Ok(Before {
        validation: errors(images.training.validation().dataset())?,
        test: images.test.as_ref().map(errors).transpose()?,
    })
}

/// What a person wants to know before a long wait.
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
        eprintln!("{note}");
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
    let test = before.test.map_or(String::new(), |t| {
        format!(", test error {:.2} %", t.error_percent())
    });
    eprintln!(
        "{} as it came: validation error {:.2} %{test}",
        args.model.display(),
        before.validation.error_percent()
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
    judged: Option<(&Images, &Before)>,
) -> anyhow::Result<Report> {
    let Results { network, packed } = &outputs.results;
    let sparse = read_network(network, &GraphSource::Auto)?.network;
    let (bytes, file_bytes) = stored_bytes(network)?;
    let threads = args.run.threads();
    let packed = match (packed, judged) {
        (Some(path), Some((images, before))) => Some(packed_result(path, images, before, threads)?),
        _ => None,
    };
    let accuracy = match judged {
        Some((images, before)) => {
            let (validation, test) = errors_after(&sparse, images, before, threads)?;
            // Both files are what was promised.
            let worst = match &packed {
                Some(p) if p.validation.drop() > validation.drop() => &p.validation,
                _ => &validation,
            };
            Some(Accuracy {
                promise: Promise::new(recipe.recipe.max_accuracy_drop, worst),
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
        output: network.clone(),
        packed,
        pruning,
        data: judged.map(|(images, _)| images.describe.clone()),
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
        timings: measure::timings(&sparse, dense, judged.map(|(i, _)| sample_images(i)))?,
    })
}

/// Errors of a written network against those before, on validation and test images.
fn errors_after(
    network: &Network,
    images: &Images,
    before: &Before,
    threads: usize,
) -> anyhow::Result<(SplitError, Option<SplitError>)> {
    let after = |set| measure::errors(network, WeightMode::Sparse, set, threads);
    let validation = after(images.training.validation().dataset())?;
    let test = match (before.test, &images.test) {
        (Some(before), Some(set)) => Some(measure::compare(before, after(set)?)),
        _ => None,
    };
    Ok((measure::compare(before.validation, validation), test))
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
    let (validation, test) = errors_after(&network, images, before, threads)?;
    Ok(PackedResult {
        output: path.to_owned(),
        size,
        validation,
        test,
    })
}

/// Images to measure latency with.
fn sample_images(images: &Images) -> &sparsevd_format::Dataset {
    images
        .test
        .as_ref()
        .unwrap_or(images.training.validation().dataset())
}
