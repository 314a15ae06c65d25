//! `compress train NETWORK`: a dense network from scratch.

use sparsevd_compressor::architecture;
use sparsevd_compressor::objective::Score;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::NO_TEST;
use sparsevd_format::check_writable;
use sparsevd_pipeline::{Data, Trained, Training};

use crate::args::TrainArgs;
use crate::inputs::{data_path, model_name, recipe, set_pixels};
use crate::progress::Progress;
use crate::{Outcome, common, print};

pub fn run(args: &TrainArgs) -> anyhow::Result<Outcome> {
    let mut architecture = match args.input.as_deref() {
        None => architecture::by_name_or_file(&args.network)?,
        Some(input) => architecture::for_input(&args.network, input)?,
    };
    let name = &architecture.graph.name;
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
    let data = Data::load(data_path(&args.run, record, &recipe.recipe)?)?;
    let graph = &mut architecture.graph;
    set_pixels(graph, &args.pixels, record, Some(&data))?;
    if print::talks(args.run.quiet) {
        eprintln!("recipe: {}\n{}", recipe.source, recipe.recipe.to_toml());
        if graph.preprocessing.is_none() && data.is_bytes() {
            common::note("pixels become 0 to 1 (--mean, --std, --scale set another)");
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
