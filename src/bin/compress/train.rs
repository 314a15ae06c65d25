//! `compress train NETWORK`: a dense network from scratch.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::bail;
use serde_json::json;
use sparsevd_compressor::architecture::{self, Architecture};
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{RunRecord, SCHEMA, Task};
use sparsevd_compressor::{Samples, fit_outputs, initialise};
use sparsevd_format::{GraphSource, LoadedSamples, read_network, write_network};
use sparsevd_model::passes;
use sparsevd_runtime::WeightMode;

use crate::args::TrainArgs;
use crate::inputs::{self, FoundRecipe, Unset};
use crate::run_folder::{self, RunFolder};
use crate::{Outcome, common, measure, output, print, training};

pub fn run(args: &TrainArgs) -> anyhow::Result<Outcome> {
    // An MLP takes its sizes from the data, which is read once its outputs are known to be free.
    let fixed = match args.input.as_deref() {
        Some(input) => Some(architecture::for_input(&args.network, input)?),
        None if args.network == "mlp" || args.network.starts_with("mlp-") => None,
        None => Some(architecture::by_name_or_file(&args.network)?),
    };
    let name = fixed.as_ref().map_or(&args.network, |a| &a.graph.name);
    let out = args
        .run
        .out
        .clone()
        .unwrap_or_else(|| format!("{name}.safetensors").into());
    output::check_interchange(&out, args.run.force)?;
    let folder = RunFolder::find(&args.run, format!("{}.train.run", inputs::model_name(&out)))?;
    folder.check_free(args.run.force)?;
    let recipe = recipe(args, folder.record.as_ref())?;
    let data = inputs::data_path(
        args.run.data.as_deref(),
        folder.record.as_ref(),
        &recipe.recipe,
    )?;
    let stored = folder.record.as_ref().map(|r| r.preprocessing.clone());
    let known = stored.as_ref().and_then(Option::as_ref);
    let loaded = inputs::load(&data, args.run.target.as_deref(), known)?;
    let architecture = match fixed {
        Some(fixed) => fixed,
        None => mlp(&args.network, &loaded)?,
    };
    let mut network = initialise(
        architecture.graph,
        &architecture.tensors,
        recipe.recipe.seed,
    )?;
    if let Some(stored) = stored {
        network.graph.preprocessing = stored;
    }
    let (images, notes) = inputs::images(
        loaded,
        &data,
        &recipe.recipe,
        &mut network,
        &args.pixels,
        Unset::ZeroToOne,
    )?;
    let network = fit_outputs(network, &images.training.train().targets());
    if print::talks(args.run.quiet) {
        for note in &notes {
            common::note(note);
        }
        eprintln!("recipe: {}\n{}", recipe.source, recipe.recipe.to_toml());
    }
    let task = Task::Train {
        network: inputs::absolute_source(&args.network)?,
    };
    let record = run_folder::record(task, &data, &recipe, network.graph.preprocessing.clone())?;
    let Some(trainer) = training::run(&network, &images, &folder, &record, &args.run)? else {
        return Ok(Outcome::Interrupted);
    };
    let options = output::options(None, &recipe.recipe, BTreeMap::new());
    let trained = trainer.network()?.to_dense();
    let folded = passes::fold_batch_normalization(&trained);
    write_network(&out, folded.as_ref().unwrap_or(&trained), &options)?;

    let written = read_network(&out, &GraphSource::Auto)?.network;
    let score =
        |set: &dyn Samples| measure::score(&written, WeightMode::Dense, set, args.run.threads());
    let validation = score(images.training.validation())?;
    let test = images.test.as_ref().map(|set| score(set)).transpose()?;
    if args.run.json {
        print::json(&json!({
            "schema": SCHEMA,
            "network": written.graph.name,
            "output": out,
            "seed": recipe.recipe.seed,
            "recipe": recipe.recipe,
            "weights": written.original_weights(),
            "validation": score_json(&validation),
            "test": test.as_ref().map(score_json),
            "history": trainer.history(),
        }))?;
    } else {
        let test = test.map_or(format!(" ({})", inputs::NO_TEST), |t| {
            format!(", test {t} of {}", t.samples())
        });
        let name = match validation {
            Score::Classes { .. } => "images",
            Score::Regression { .. } => "samples",
        };
        print::text(format_args!(
            "{}: validation {validation} of {} {name}{test}; wrote {}",
            written.graph.name,
            validation.samples(),
            Path::new(&out).display()
        ))?;
    }
    Ok(Outcome::Done)
}

/// A multi-layer perceptron for a data set.
fn mlp(name: &str, data: &LoadedSamples) -> anyhow::Result<Architecture> {
    let sizes = data.shape_and_outputs();
    match sizes.and_then(|(input, outputs)| architecture::mlp(name, input, outputs)) {
        Some(architecture) => Ok(architecture?),
        None => bail!("{name}: expected data to take its sizes from, got no samples"),
    }
}

fn score_json(score: &Score) -> serde_json::Value {
    match *score {
        Score::Classes { samples, .. } => {
            json!({"images": samples, "error_percent": score.error()})
        }
        Score::Regression { samples, r2, rmse } => {
            json!({"samples": samples, "r2": r2, "rmse": rmse})
        }
    }
}

/// The recipe of the resumed run, else the one that is named, else the default, with the overrides of the command line.
fn recipe(args: &TrainArgs, record: Option<&RunRecord>) -> anyhow::Result<FoundRecipe> {
    let found = match (&args.run.recipe, record) {
        (None, Some(record)) => FoundRecipe {
            recipe: record.recipe.clone(),
            source: record.recipe_source.clone(),
        },
        (named, _) => inputs::recipe(named.as_deref(), None, Recipe::default_for_training)?,
    };
    Ok(FoundRecipe {
        recipe: found.recipe.with(&args.overrides())?,
        ..found
    })
}
