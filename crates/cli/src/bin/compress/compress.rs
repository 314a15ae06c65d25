//! `compress MODEL`: a sparse network from a dense one, and the report on it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_compressor::report::Report;
use sparsevd_format::{ValueType, check_writable};
use sparsevd_model::Network;
use sparsevd_pipeline::{
    Compression, DEFAULT_GRIDS, DEFAULT_RECIPE, Data, FoundRecipe, InputNetwork, ModelFile,
    NEEDS_GRID, ONLY_FINE_TUNING, Outputs, RunFolder, TrainingLog, model_name,
};

use crate::args::{CompressArgs, Method, NO_DATA};
use crate::encoder;
use crate::print;
use crate::progress::Progress;
use crate::pruning::pruning;
use crate::report;
use sparsevd_cli::{GraphArgs, Outcome, VerbosityArgs};

pub fn run(args: &CompressArgs) -> anyhow::Result<Outcome> {
    if let (Some(text), Some(out)) = (&args.text, &args.run.out) {
        return encoder::run(args, text, out);
    }
    let name = model_name(&args.model);
    let named = named(args, &name);
    let beside = Outputs::report_beside(&named);
    let default = || PathBuf::from(format!("{name}.run"));
    let run = args.run.resume.as_ref().or(args.run.run.as_ref());
    let run = run.cloned().unwrap_or_else(default);
    if Outputs::recover(&beside, &run)? && !args.run.force {
        sparsevd_cli::note(
            "compress: this result was finished by an earlier command, which was killed while it wrote it; --force begins anew",
        );
        return finished(args, &beside, &run);
    }
    let folder = args.run.folder(format!("{name}.run"))?;
    let pruning = pruning(args)?;
    let verbosity = args.run.training.verbosity;
    let mut input = input(&args.model, &args.graph, verbosity.quiet)?;
    let mut recipe = recipe_of(args, &input.network, &folder, pruning.is_some())?;
    if !recipe.recipe.phases.is_empty() {
        folder.check()?;
    }
    if let Some(by) = args.method.and_then(Method::gradual) {
        recipe = recipe.gradual(by, &input.network, None)?;
    }
    let outputs = outputs(args, named, &recipe.recipe, pruning.is_some())?;
    outputs.check(args.run.force)?;
    let page = (!args.no_report).then(|| report::beside(&outputs.report));
    if let Some(page) = &page {
        check_writable(page, args.run.force)?;
    }
    let graph = &mut input.network.graph;
    if let Some(record) = folder.record() {
        graph.preprocessing.clone_from(&record.preprocessing);
    }
    let data = args
        .run
        .data(&folder, &recipe.recipe, graph.preprocessing.as_ref())?;
    // A network that is pruned already needs no data.
    if data.is_none() && pruning.is_none() {
        bail!(NO_DATA);
    }
    if let Some(data) = &data {
        args.run.training.set_pixels(graph, data)?;
    }
    let loss = recipe.recipe.loss;
    Data::check_agreement(data.as_ref(), args.min_agreement, &input.network, loss)?;
    tell(verbosity, &recipe, pruning.is_some());
    let mut progress = Progress::new(TrainingLog::in_folder(folder.path()), verbosity);
    let run = folder.path().to_owned();
    // The folder stays locked until its result is written.
    let _locked = folder.clone();
    let compressed = Compression::new(input, data, recipe)
        .pruned_by(pruning)
        .in_folder(folder)
        .threads(args.run.training.threads.map_or(0, usize::from))
        .budget(args.budget)
        .bench(!args.no_bench)
        .run(&mut progress)?;
    drop(progress);
    let mut result = compressed.stage(&outputs)?;
    // A folder of the same name may have another run, where this network was only pruned.
    let trained = (!result.report().history.is_empty()).then_some(run.as_path());
    let shown = match &page {
        Some(page) => match report::page(result.report(), trained) {
            Ok(html) => {
                result.add(page, html.as_bytes())?;
                Ok(Some(page.as_path()))
            }
            Err(error) => Err(error),
        },
        None => Ok(None),
    };
    let report = result.commit(|| Ok(()))?;
    let files = Files {
        report: &outputs.report,
        page: shown.as_ref().ok().copied().flatten(),
        run: &run,
    };
    let outcome = tell_of(&report, files, args.run.training.json)?;
    if let Err(error) = shown {
        eprintln!("compress: there is no page about the result: {error:#}");
    }
    Ok(outcome)
}

/// The files of a run beside those of the network.
pub struct Files<'f> {
    /// The report as JSON.
    pub report: &'f Path,
    /// The page that shows it, where there is one.
    pub page: Option<&'f Path>,
    /// The folder of the run.
    pub run: &'f Path,
}

/// Prints a report, and what is wrong with its result.
pub fn tell_of(report: &Report, files: Files<'_>, json: bool) -> anyhow::Result<Outcome> {
    if json {
        print::json(report)?;
    } else {
        let closing = report.origin_and_files(files.report, files.page, files.run);
        print::text(format_args!("{report}\n{closing}"))?;
    }
    let failures = report.failures();
    for line in failures.iter().chain(&report.undecided()) {
        eprintln!("compress: {line}");
    }
    Ok(match failures.as_slice() {
        [] => Outcome::Done,
        _ => Outcome::Failed,
    })
}

/// The recipe that is followed: of one that was found, a network that is pruned already takes what it can.
fn recipe_of(
    args: &CompressArgs,
    network: &Network,
    folder: &RunFolder,
    pruned: bool,
) -> anyhow::Result<FoundRecipe> {
    let (named, beside) = (
        args.run.training.recipe.as_deref(),
        Some(args.model.as_path()),
    );
    let found = folder
        .recipe(named, beside, || Recipe::default_for(network))?
        .with(&args.overrides())?;
    if !pruned {
        return Ok(found);
    }
    let source = found.source.clone();
    let (mut tuning, left_out) = found.fine_tuning();
    let data = args.run.training.data.as_deref();
    let untrained = match args.calibrate {
        // What is trained after it is named.
        Some(_) => args.run.training.recipe.is_none(),
        None => {
            let data = folder.data_path(data, &tuning.recipe);
            tuning.source == DEFAULT_GRIDS && data.is_none()
        }
    };
    if untrained {
        // Weights are rounded to grids as they are.
        tuning.recipe.phases.clear();
    }
    if args.run.training.recipe.is_some() && !left_out.is_empty() {
        bail!(
            "{source}: expected {ONLY_FINE_TUNING}; got {}",
            left_out.join(", ")
        );
    }
    Ok(tuning)
}

/// Reads the network of a file.
pub fn input(model: &Path, graph: &GraphArgs, quiet: bool) -> anyhow::Result<InputNetwork> {
    let loaded = sparsevd_cli::network(model, graph, quiet)?;
    let told = loaded.warnings.len();
    let input = InputNetwork {
        file: Some(ModelFile {
            path: model.to_owned(),
            graph: graph.network.clone(),
        }),
        ..loaded.into()
    };
    if !quiet {
        for warning in &input.warnings[told..] {
            sparsevd_cli::note(&format!("warning: {}: {warning}", model.display()));
        }
    }
    Ok(input)
}

/// The name of the result.
fn named(args: &CompressArgs, name: &str) -> PathBuf {
    let default = || PathBuf::from(format!("{name}.sparse.safetensors"));
    args.run.out.clone().unwrap_or_else(default)
}

/// Tells of a result whose files a process that died had written, and which have their names now.
fn finished(args: &CompressArgs, report: &Path, run: &Path) -> anyhow::Result<Outcome> {
    let page = report::beside(report);
    let files = Files {
        report,
        page: Some(page.as_path()).filter(|page| page.is_file()),
        run,
    };
    tell_of(&Report::read(report)?, files, args.run.training.json)
}

/// The files of a result.
fn outputs(
    args: &CompressArgs,
    named: PathBuf,
    recipe: &Recipe,
    pruned: bool,
) -> anyhow::Result<Outputs> {
    if args.encoding.values == Some(ValueType::I8) && !recipe.ends_on_grids() {
        bail!("--values i8: expected {NEEDS_GRID}; got a recipe that ends without one");
    }
    Ok(Outputs {
        values: args.encoding.values(),
        profile: args.encoding.profile(),
        ..match pruned {
            true => Outputs::of_pruned(named)?,
            false => Outputs::new(named, recipe)?,
        }
    })
}

/// Prints the recipe before training starts.
pub fn tell(verbosity: VerbosityArgs, recipe: &FoundRecipe, pruned: bool) {
    if !verbosity.talks() {
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
