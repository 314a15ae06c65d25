//! `compress MODEL`: the whole way from a dense network to a sparse file that was run.

use std::path::PathBuf;

use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{
    Accuracy, Encoding, Promise, Report, SCHEMA, Summary, Task, stored_bytes,
};
use sparsevd_compressor::trainer::Trainer;
use sparsevd_format::{
    GraphSource, LoadedNetwork, inspect_encodings, read_network, write_atomically, write_network,
};
use sparsevd_model::Network;
use sparsevd_runtime::{Evaluation, WeightMode};

use crate::args::CompressArgs;
use crate::inputs::{self, FoundRecipe, Images};
use crate::run_folder::{self, RunFolder};
use crate::{Outcome, measure, output, print, summary, training};

/// Where the results of a command go.
struct Outputs {
    network: PathBuf,
    report: PathBuf,
}

/// Errors of the network as it came.
struct Before {
    validation: Evaluation,
    test: Option<Evaluation>,
}

pub fn run(args: &CompressArgs) -> anyhow::Result<Outcome> {
    let name = inputs::model_name(&args.model);
    let outputs = outputs(args, &name)?;
    let folder = RunFolder::find(&args.run, format!("{name}.run"))?;
    let recipe = recipe(args, &folder)?;
    let mut loaded = inputs::network(&args.model, args.network.as_deref())?;
    let data = inputs::data_path(
        args.run.data.as_deref(),
        folder.record.as_ref(),
        &recipe.recipe,
    )?;
    if let Some(record) = &folder.record {
        loaded
            .network
            .graph
            .preprocessing
            .clone_from(&record.preprocessing);
    }
    let (images, notes) = inputs::images(&data, &recipe.recipe, &mut loaded.network, &args.pixels)?;
    let threads = args.run.threads();
    let before = errors_before(&loaded.network, &images, threads)?;
    tell(args, &recipe, &loaded, &notes, &before);

    let task = Task::Compress {
        model: std::path::absolute(&args.model)?,
        network: args
            .network
            .as_deref()
            .map(inputs::absolute_source)
            .transpose()?,
    };
    let record = run_folder::record(
        task,
        &data,
        &recipe,
        loaded.network.graph.preprocessing.clone(),
    )?;
    let Some(trainer) = training::run(&loaded.network, &images, &folder, &record, &args.run)?
    else {
        return Ok(Outcome::Interrupted);
    };
    let options = output::options(Some(&args.encoding), &recipe.recipe, loaded.metadata);
    write_network(&outputs.network, &trainer.network()?, &options)?;
    let report = report(
        args,
        &outputs,
        &recipe,
        &trainer,
        &loaded.network,
        &images,
        &before,
    )?;
    let json = serde_json::to_string_pretty(&report)?;
    write_atomically(&outputs.report, |out| writeln!(out, "{json}"))?;

    if args.run.json {
        print::json(&report)?;
    } else {
        print::text(summary::of(&report, &outputs.report, &folder.path)?)?;
    }
    let promise = report.accuracy.promise;
    if promise.kept {
        return Ok(Outcome::Done);
    }
    eprintln!(
        "compress: the accuracy promise is broken: validation error {:.2} %, {:.2} points over the dense network's, expected at most {} \
         (--max-accuracy-drop); {} was written all the same; a lower --kl-scale or a higher --threshold keeps more weights",
        report.accuracy.validation.sparse_percent,
        promise.drop,
        promise.max_accuracy_drop,
        outputs.network.display(),
    );
    Ok(Outcome::PromiseBroken)
}

/// Names the outputs and checks that they can be written.
fn outputs(args: &CompressArgs, name: &str) -> anyhow::Result<Outputs> {
    let network = args
        .run
        .out
        .clone()
        .unwrap_or_else(|| format!("{name}.sparse.safetensors").into());
    output::check_network(&network, args.run.force)?;
    let report = output::report_path(&network);
    output::check(&report, args.run.force)?;
    Ok(Outputs { network, report })
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
    loaded: &LoadedNetwork,
    notes: &[String],
    before: &Before,
) {
    if !print::talks(args.run.quiet) {
        return;
    }
    for note in loaded.notes.iter().chain(notes) {
        eprintln!("{note}");
    }
    if recipe.source == inputs::DEFAULT_RECIPE {
        eprintln!(
            "no recipe.toml beside the model and no --recipe: the default recipe is followed and stored with the result:"
        );
        eprintln!("{}", recipe.recipe.to_toml());
    } else {
        eprintln!("recipe: {}", recipe.source);
    }
    let test = before.test.map_or(String::new(), |t| {
        format!(", test error {:.2} %", t.error_percent())
    });
    eprintln!(
        "{} as it came: validation error {:.2} %{test}",
        args.model.display(),
        before.validation.error_percent()
    );
}

/// Reads the written file back and measures it through the runtime.
fn report(
    args: &CompressArgs,
    outputs: &Outputs,
    recipe: &FoundRecipe,
    trainer: &Trainer,
    dense: &Network,
    images: &Images,
    before: &Before,
) -> anyhow::Result<Report> {
    let sparse = read_network(&outputs.network, &GraphSource::Auto)?.network;
    let (bytes, file_bytes) = stored_bytes(&outputs.network)?;
    let threads = args.run.threads();
    let after = |set| measure::errors(&sparse, WeightMode::Sparse, set, threads);
    let validation = measure::compare(
        before.validation,
        after(images.training.validation().dataset())?,
    );
    let test = match (before.test, &images.test) {
        (Some(before), Some(set)) => Some(measure::compare(before, after(set)?)),
        _ => None,
    };
    let as_it_came = inspect_encodings(dense).into_iter().take(1);
    let as_it_came = as_it_came.map(|(label, bytes)| (format!("as it came: {label}"), bytes));
    let encodings = as_it_came
        .chain(inspect_encodings(&sparse))
        .map(|(encoding, bytes)| Encoding { encoding, bytes });
    Ok(Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        network: sparse.graph.name.clone(),
        model: args.model.clone(),
        output: outputs.network.clone(),
        data: images.describe.clone(),
        seed: recipe.recipe.seed,
        recipe_source: recipe.source.clone(),
        recipe: recipe.recipe.clone(),
        preprocessing: sparse.graph.preprocessing.clone(),
        history: trainer.history().to_vec(),
        summary: Summary::new(&sparse, &bytes, file_bytes),
        kernels: measure::kernels(&sparse)?,
        accuracy: Accuracy {
            promise: Promise::new(recipe.recipe.max_accuracy_drop, &validation),
            validation,
            test,
        },
        encodings: encodings.collect(),
        timings: measure::timings(&sparse, dense, sample_images(images))?,
        training_seconds: trainer.history().iter().map(|e| e.seconds).sum(),
    })
}

/// Images to measure latency with.
fn sample_images(images: &Images) -> &sparsevd_format::Dataset {
    images
        .test
        .as_ref()
        .unwrap_or(images.training.validation().dataset())
}
