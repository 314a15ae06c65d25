//! `compress MODEL`: the whole way from a dense network to a sparse file that was run.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{
    Accuracy, Encoding, PackedResult, Promise, Report, SCHEMA, SplitError, Summary, Task,
    encodings, packed_size, stored_bytes,
};
use sparsevd_compressor::trainer::Trainer;
use sparsevd_format::{
    GraphSource, LoadedNetwork, PackOptions, inspect_encodings, read_network, write_atomically,
    write_network, write_packed,
};
use sparsevd_model::Network;
use sparsevd_runtime::{Evaluation, WeightMode};

use crate::args::{CompressArgs, Values};
use crate::inputs::{self, FoundRecipe, Images};
use crate::output::Results;
use crate::run_folder::{self, RunFolder};
use crate::{Outcome, measure, output, print, summary, training};

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
    let recipe = recipe(args, &folder)?;
    let outputs = outputs(args, &name, &recipe.recipe)?;
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
    let network = trainer.network()?;
    write_network(&outputs.results.network, &network, &options)?;
    if let Some(path) = &outputs.results.packed {
        write_packed(path, &network, &PackOptions::default())?;
    }
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

/// Reads the written files back and measures them through the runtime.
fn report(
    args: &CompressArgs,
    outputs: &Outputs,
    recipe: &FoundRecipe,
    trainer: &Trainer,
    dense: &Network,
    images: &Images,
    before: &Before,
) -> anyhow::Result<Report> {
    let Results { network, packed } = &outputs.results;
    let sparse = read_network(network, &GraphSource::Auto)?.network;
    let (bytes, file_bytes) = stored_bytes(network)?;
    let threads = args.run.threads();
    let (validation, test) = errors_after(&sparse, images, before, threads)?;
    let packed = match packed {
        Some(path) => Some(packed_result(path, images, before, threads)?),
        None => None,
    };
    // Both files are what was promised.
    let worst = match &packed {
        Some(p) if p.validation.drop() > validation.drop() => &p.validation,
        _ => &validation,
    };
    let promise = Promise::new(recipe.recipe.max_accuracy_drop, worst);
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
        data: images.describe.clone(),
        seed: recipe.recipe.seed,
        recipe_source: recipe.source.clone(),
        recipe: recipe.recipe.clone(),
        preprocessing: sparse.graph.preprocessing.clone(),
        history: trainer.history().to_vec(),
        summary: Summary::new(&sparse, bytes.as_ref(), file_bytes),
        kernels: measure::kernels(&sparse)?,
        accuracy: Accuracy {
            promise,
            validation,
            test,
        },
        encodings: encodings.collect(),
        timings: measure::timings(&sparse, dense, sample_images(images))?,
        training_seconds: trainer.history().iter().map(|e| e.seconds).sum(),
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
