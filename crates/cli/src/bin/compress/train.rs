//! `compress train NETWORK`: a dense network from scratch.

use anyhow::Context;
use sparsevd_compressor::architecture;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_format::check_writable;
use sparsevd_pipeline::{Trained, Training, TrainingLog, model_name};

use crate::args::{NO_DATA, TrainArgs};
use crate::print;
use crate::progress::Progress;
use sparsevd_cli::Outcome;

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
    let recipe = folder
        .recipe(
            args.run.training.recipe.as_deref(),
            None,
            Recipe::default_for_training,
        )?
        .with(&args.overrides())?;
    let recorded = record.map(|r| r.preprocessing.clone());
    let known = recorded.as_ref().and_then(Option::as_ref);
    let data = args
        .run
        .data(&folder, &recipe.recipe, known)?
        .context(NO_DATA)?;
    let mut architecture = match fixed {
        Some(fixed) => fixed,
        None => data.mlp(&args.network)?,
    };
    let graph = &mut architecture.graph;
    if let Some(recorded) = recorded {
        graph.preprocessing = recorded;
    }
    args.run.training.set_pixels(graph, &data)?;
    let verbosity = args.run.training.verbosity;
    if verbosity.talks() {
        eprintln!("recipe: {}\n{}", recipe.source, recipe.recipe.to_toml());
        if graph.preprocessing.is_none() && data.is_bytes() {
            sparsevd_cli::note("pixels become 0 to 1 (--mean, --std, --scale set another)");
        }
    }
    let mut progress = Progress::new(TrainingLog::in_folder(folder.path()), verbosity);
    let trained = Training::new(architecture, data, recipe)
        .of(&args.network)
        .in_folder(folder)
        .threads(args.run.training.threads.map_or(0, usize::from))
        .run(&mut progress)?;
    drop(progress);
    let report = trained.save(&out)?;
    if args.run.training.json {
        print::json(&report)?;
        return Ok(Outcome::Done);
    }
    print::text(report)?;
    Ok(Outcome::Done)
}
