//! `compress MODEL`: a sparse network from a dense one, and the report on it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::{Pruning, Report};
use sparsevd_compressor::{Magnitude, Scope};
use sparsevd_pipeline::{
    Compression, DEFAULT_RECIPE, FoundRecipe, InputNetwork, ModelFile, NEEDS_GRID, Outputs,
    RunFolder, Scores, ends_on_grids,
};

use crate::args::{CompressArgs, Method, Values};
use crate::inputs::{data_path, load, model_name, recipe, set_pixels};
use crate::outcome::Outcome;
use crate::print;
use crate::progress::Progress;

pub fn run(args: &CompressArgs) -> anyhow::Result<Outcome> {
    let name = model_name(&args.model);
    let folder = args.run.folder(format!("{name}.run"))?;
    let pruning = pruning(args)?;
    let recipe = recipe_of(args, &folder, pruning.is_some())?;
    if !recipe.recipe.phases.is_empty() {
        folder.check()?;
    }
    let mut input = input(args)?;
    let outputs = outputs(args, &name, &recipe.recipe)?;
    outputs.check(args.run.force)?;
    let graph = &mut input.network.graph;
    if let Some(record) = folder.record() {
        graph.preprocessing.clone_from(&record.preprocessing);
    }
    let data = match data_path(&args.run, folder.record(), &recipe.recipe) {
        // A network that is pruned already needs no data.
        Err(_) if pruning.is_some() => None,
        path => Some(load(path?, &args.run, graph.preprocessing.as_ref())?),
    };
    set_pixels(graph, &args.pixels, data.as_ref())?;
    tell(args, &recipe, pruning.is_some());
    let mut progress = Progress::new(folder.path(), args.run.quiet)?;
    let run = folder.path().to_owned();
    let compressed = Compression::new(input, data, recipe)
        .pruned_by(pruning)
        .in_folder(folder)
        .threads(args.run.threads())
        .run(&mut progress)?;
    drop(progress);
    let report = compressed.write(&outputs)?;

    if args.run.json {
        print::json(&report)?;
    } else {
        let closing = closing(&report, &outputs, &run);
        print::text(format_args!("{report}\n{closing}"))?;
    }
    Ok(match compressed.before {
        Some(before) => promise(&report, &before),
        None => Outcome::Done,
    })
}

/// How the command line prunes before any training; `None` where training is to choose the weights.
fn pruning(args: &CompressArgs) -> anyhow::Result<Option<Pruning>> {
    if let Some(file) = &args.posterior {
        return Ok(Some(Pruning::Posterior {
            file: file.clone(),
            threshold: args.threshold.unwrap_or(3.0),
        }));
    }
    Ok(match (args.method, args.sparsity) {
        (Some(Method::Magnitude), Some(sparsity)) => Some(Pruning::Magnitude(Magnitude {
            sparsity,
            scope: args.scope.into(),
            every_layer: args.every_layer,
        })),
        (_, None) => None,
        (_, Some(_)) => {
            bail!("--sparsity: expected --method magnitude, which it is for, got another")
        }
    })
}

/// The recipe that is followed: of one that was found, a network that is pruned already takes what it can.
fn recipe_of(args: &CompressArgs, folder: &RunFolder, pruned: bool) -> anyhow::Result<FoundRecipe> {
    let found = recipe(
        &args.run,
        folder.record(),
        Some(&args.model),
        Recipe::default_for_compression,
        &args.overrides(),
    )?;
    if !pruned {
        return Ok(found);
    }
    let source = found.source.clone();
    let (tuning, left_out) = found.fine_tuning();
    if args.run.recipe.is_some() && !left_out.is_empty() {
        bail!(
            "{source}: expected phases that fine-tune on the labels alone, as --method magnitude or --posterior decides which \
             weights go; got {}",
            left_out.join(", ")
        );
    }
    Ok(tuning)
}

/// Reads the network.
fn input(args: &CompressArgs) -> anyhow::Result<InputNetwork> {
    let graph = args.network.clone();
    let loaded =
        sparsevd_cli::network(&args.model, graph.as_deref(), &args.shapes, args.run.quiet)?;
    Ok(InputNetwork {
        file: Some(ModelFile {
            path: args.model.clone(),
            graph,
        }),
        ..loaded.into()
    })
}

/// Names the outputs.
fn outputs(args: &CompressArgs, name: &str, recipe: &Recipe) -> anyhow::Result<Outputs> {
    if args.encoding.values == Some(Values::I8) && !ends_on_grids(recipe) {
        bail!("--values i8: expected {NEEDS_GRID}; got a recipe that ends without one");
    }
    let default = || PathBuf::from(format!("{name}.sparse.safetensors"));
    let named = args.run.out.clone().unwrap_or_else(default);
    Ok(Outputs {
        values: args.encoding.values(),
        profile: args.encoding.profile(),
        ..Outputs::new(named, recipe)?
    })
}

/// Prints the recipe before training starts.
fn tell(args: &CompressArgs, recipe: &FoundRecipe, pruned: bool) {
    if !print::talks(args.run.quiet) {
        return;
    }
    if pruned && recipe.recipe.phases.is_empty() {
        eprintln!("the network is pruned and not trained");
    } else if recipe.source == DEFAULT_RECIPE {
        eprintln!(
            "no recipe.toml beside the model and no --recipe: the default recipe is followed and stored with the result:"
        );
        eprintln!("{}", recipe.recipe.to_toml());
    } else {
        eprintln!("recipe: {}", recipe.source);
    }
}

/// Where the result came from, and where it is.
fn closing(report: &Report, outputs: &Outputs, run: &Path) -> String {
    let from = match &report.pruning {
        Some(Pruning::Magnitude(m)) => {
            let scope = match m.scope {
                Scope::Global => "all layers together",
                Scope::Layer => "each layer",
            };
            let share = 100.0 * m.sparsity;
            format!("pruned by magnitude: {share:.2} % of {scope}\n")
        }
        Some(Pruning::Posterior { file, threshold }) => {
            let file = file.display();
            format!("pruned by the posterior {file} at log alpha {threshold}\n")
        }
        None => String::new(),
    };
    let (recipe, run) = match report.history.is_empty() {
        true => (String::new(), String::new()),
        false => (
            format!(
                "recipe: {}, seed {}; trained for {:.0} s\n",
                report.recipe_source, report.seed, report.training_seconds
            ),
            format!("; the run is in {}", run.display()),
        ),
    };
    let packed = report.packed.as_ref().map_or(String::new(), |p| {
        let (path, size) = (p.output.display(), print::count(p.size.bytes as usize));
        format!(", {path} ({size} B)")
    });
    format!(
        "{from}{recipe}wrote {} ({}){packed} and {}{run}",
        report.output.display(),
        print::bytes(report.summary.file_bytes),
        outputs.report.display(),
    )
}

/// Says where the result loses more than was promised.
fn promise(report: &Report, before: &Scores) -> Outcome {
    let Some(promise) = report.accuracy.as_ref().map(|a| a.promise) else {
        return Outcome::Done;
    };
    if promise.kept {
        return Outcome::Done;
    }
    let less = match report.pruning {
        Some(Pruning::Magnitude(_)) => "a lower --sparsity",
        Some(Pruning::Posterior { .. }) => "a higher --threshold",
        None => "a lower --kl-scale or a higher --threshold",
    };
    let written = report.output.display();
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
    Outcome::PromiseBroken
}
