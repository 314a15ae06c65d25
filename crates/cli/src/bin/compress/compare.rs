//! `compress compare MODEL`: pruning methods at the same ratios.

use anyhow::Context;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_pipeline::{FoundRecipe, MethodComparison, PipelineError, TrainingLog, model_name};

use crate::args::{CompareArgs, NO_DATA};
use crate::compress::{input, tell};
use crate::progress::Progress;
use crate::{interrupt, print};
use sparsevd_cli::Outcome;

pub fn run(args: &CompareArgs) -> anyhow::Result<Outcome> {
    let training = &args.training;
    let (named, beside) = (training.recipe.as_deref(), Some(args.model.as_path()));
    let mut input = input(&args.model, &args.graph, training.verbosity.quiet)?;
    let default = || Recipe::default_for(&input.network);
    let recipe = FoundRecipe::find(named, beside, default)?.with(&training.overrides())?;
    let graph = &mut input.network.graph;
    let path = training.data.as_deref().or(recipe.recipe.data.as_deref());
    let data = training.data(path, graph.preprocessing.as_ref())?;
    let data = data.context(NO_DATA)?;
    training.set_pixels(graph, &data)?;
    tell(training.verbosity, &recipe, false);
    let default = || format!("{}.compare", model_name(&args.model)).into();
    let folder = args.run.clone().unwrap_or_else(default);
    let log = TrainingLog::continued_in(&folder);
    let mut progress = Progress::new(log, training.verbosity).by_same_command();
    let compared = MethodComparison::new(input, data, recipe, folder)
        .methods(args.methods.as_slice())
        .ratios(args.ratios.as_slice())
        .seeds(args.seeds.as_slice())
        .threads(training.threads.map_or(0, usize::from))
        .run(&mut progress);
    drop(progress);
    let compared = match compared {
        Err(PipelineError::Interrupted { folder }) => {
            return Ok(interrupt::ended(folder, true));
        }
        other => other?,
    };
    match training.json {
        true => print::json(&compared)?,
        false => print::text(compared.to_string().trim_end())?,
    }
    Ok(Outcome::Done)
}
