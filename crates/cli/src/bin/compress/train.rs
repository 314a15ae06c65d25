//! `compress train NETWORK`: a dense network from scratch.

use anyhow::bail;
use sparsevd_compressor::architecture::{self, Architecture};
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::NO_TEST;
use sparsevd_format::check_writable;
use sparsevd_pipeline::{Data, Trained, Training};

use crate::args::TrainArgs;
use crate::inputs::{data_path, load, model_name, recipe, set_pixels};
use crate::outcome::Outcome;
use crate::print;
use crate::progress::Progress;

pub fn run(args: &TrainArgs) -> anyhow::Result<Outcome> {
    // An MLP takes its sizes from the data, which is read once the outputs are known to be free.
    let fixed = match args.input.as_deref() {
        Some(input) => Some(architecture::for_input(&args.network, input)?),
        None if architecture::is_mlp(&args.network) => None,
        None => Some(architecture::by_name_or_file(&args.network)?),
    };
    let name = fixed.as_ref().map_or(&args.network, |a| &a.graph.name);
    let default = || format!("{name}.safetensors").into();
    let out = args.run.out.clone().unwrap_or_else(default);
    Trained::check(&out)?;
    check_writable(&out, args.run.force)?;
    let folder = args.run.folder(format!("{}.train.run", model_name(&out)))?;
    folder.check()?;
    let record = folder.record();
    let recipe = recipe(
        &args.run,
        record,
        None,
        Recipe::default_for_training,
        &args.overrides(),
    )?;
    let path = data_path(&args.run, record, &recipe.recipe)?;
    let recorded = record.map(|r| r.preprocessing.clone());
    let known = recorded.as_ref().and_then(Option::as_ref);
    let data = load(path, &args.run, known)?;
    let mut architecture = match fixed {
        Some(fixed) => fixed,
        None => mlp(&args.network, &data)?,
    };
    let graph = &mut architecture.graph;
    if let Some(recorded) = recorded {
        graph.preprocessing = recorded;
    }
    set_pixels(graph, &args.pixels, Some(&data))?;
    if print::talks(args.run.quiet) {
        eprintln!("recipe: {}\n{}", recipe.source, recipe.recipe.to_toml());
        if graph.preprocessing.is_none() && data.is_bytes() {
            sparsevd_cli::note("pixels become 0 to 1 (--mean, --std, --scale set another)");
        }
    }
    let mut progress = Progress::new(folder.path(), args.run.quiet)?;
    let trained = Training::new(architecture, data, recipe)
        .of(&args.network)
        .in_folder(folder)
        .threads(args.run.threads())
        .run(&mut progress)?;
    drop(progress);
    let report = trained.save(&out)?;
    if args.run.json {
        print::json(&report)?;
        return Ok(Outcome::Done);
    }
    let validation = report.scores.validation;
    let test = report.scores.test;
    let test = test.map_or(format!(" ({NO_TEST})"), |t| {
        format!(", test {t} of {}", t.samples())
    });
    let name = match validation {
        Score::Classes { .. } => "images",
        Score::Regression { .. } => "samples",
    };
    print::text(format_args!(
        "{}: validation {validation} of {} {name}{test}; wrote {}",
        report.network,
        validation.samples(),
        out.display()
    ))?;
    Ok(Outcome::Done)
}

/// A multi-layer perceptron for a data set.
fn mlp(name: &str, data: &Data) -> anyhow::Result<Architecture> {
    let sizes = data.shape_and_outputs();
    match sizes.and_then(|(input, outputs)| architecture::mlp(name, input, outputs)) {
        Some(architecture) => Ok(architecture?),
        None => bail!("{name}: expected data to take its sizes from, got no samples"),
    }
}
