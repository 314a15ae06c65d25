//! `compress convert IN OUT`.

use std::path::Path;

use anyhow::bail;
use sparsevd_compressor::report::Report;
use sparsevd_format::{PackProfile, check_writable, network_files};
use sparsevd_pipeline::{
    Compression, Conversion, Data, Form, Outputs, PipelineError, RunFolder, TrainingLog, grid_run,
};

use crate::args::{ConvertArgs, Packing, set_pixels};
use crate::compress::{Files, input, tell_of};
use crate::interrupt::unfinished;
use crate::progress::Progress;
use crate::{interrupt, print};
use sparsevd_cli::{Outcome, VerbosityArgs};

pub fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    check_options(args)?;
    check_not_read(args)?;
    if let Some(data) = &args.data {
        return train(args, data);
    }
    check_writable(&args.output, args.force)?;
    let loaded = sparsevd_cli::network(&args.input, &args.graph, false)?;
    let conversion = Conversion {
        dense: args.dense,
        values: args.encoding.values(),
        profile: args.encoding.profile(),
        packing: match args.packing {
            None | Some(Packing::Auto) => None,
            Some(Packing::Small) => Some(PackProfile::Small),
            Some(Packing::Large) => Some(PackProfile::Large),
        },
        keep_unit_order: args.keep_unit_order,
        sparse_initializers: args.sparse_initializers,
        grid: args.grid,
    };
    let written = match conversion.write(loaded, &args.output) {
        Err(error @ PipelineError::OffGrid { .. }) => bail!(
            "{}: {error}; --grid rounds weights to one",
            args.input.display()
        ),
        written => written?,
    };
    print::text(format_args!("wrote {} ({written})", args.output.display()))?;
    Ok(Outcome::Done)
}

/// Trains the network onto grids. A run that is not finished goes on.
fn train(args: &ConvertArgs, data: &Path) -> anyhow::Result<Outcome> {
    let outputs = Outputs {
        values: args.encoding.values(),
        profile: args.encoding.profile(),
        ..Outputs::onto_grids(&args.output)?
    };
    let run = grid_run(&args.output);
    if Outputs::recover(&outputs.report, &run)? && !args.force {
        // A process died that had trained and written all of it.
        let folder = RunFolder::resume_or_new(&run)?;
        folder.check()?;
        folder.clear()?;
        return tell(&Report::read(&outputs.report)?, &outputs, &run);
    }
    outputs.check(args.force)?;
    let folder = RunFolder::resume_or_new(&run)?;
    let mut input = input(&args.input, &args.graph, false)?;
    let graph = &mut input.network.graph;
    let data = Data::load_for(data, graph.preprocessing.as_ref())?;
    set_pixels(&args.pixels, graph, &data)?;
    let mut progress =
        Progress::new(TrainingLog::in_folder(&run), VerbosityArgs::default()).by_same_command();
    let compressed = Compression::onto_grids(input, data)
        .in_folder(folder.clone())
        .bench(!args.no_bench)
        .run(&mut progress);
    drop(progress);
    let compressed = match compressed {
        Err(PipelineError::Interrupted { folder }) => {
            return Ok(interrupt::ended(folder, true));
        }
        other => other.map_err(|e| unfinished(e, &run))?,
    };
    let result = compressed.stage(&outputs)?;
    let report = result.commit(|| folder.clear())?;
    tell(&report, &outputs, &run)
}

fn tell(report: &Report, outputs: &Outputs, run: &Path) -> anyhow::Result<Outcome> {
    let files = Files {
        report: &outputs.report,
        page: None,
        run,
    };
    tell_of(report, files, false)
}

/// Refuses an output that is one of the files to read, which would be lost.
fn check_not_read(args: &ConvertArgs) -> anyhow::Result<()> {
    let Ok(output) = args.output.canonicalize() else {
        // It does not exist yet, or cannot be written.
        return Ok(());
    };
    // What cannot be found is told of when it is read.
    let mut read = network_files(&args.input).unwrap_or_default();
    read.extend([&args.input].into_iter().chain(&args.data).cloned());
    match read
        .iter()
        .any(|path| path.canonicalize().is_ok_and(|path| path == output))
    {
        true => bail!(
            "{}: expected an output that is not read itself, got an input",
            args.output.display()
        ),
        false => Ok(()),
    }
}

/// Options that a format has no use for are a misunderstanding.
fn check_options(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.pixels.are_given() && args.data.is_none() {
        bail!("--mean, --std, --scale: expected --data, which they are for, got none");
    }
    let form = Form::of(&args.output)?;
    if form == Form::Onnx && args.data.is_some() {
        bail!(
            "--data: expected an output ending in .safetensors or .spvd, got {}; a second `compress convert` makes an ONNX file of that",
            args.output.display()
        );
    }
    let packing = ("--packing", args.packing.is_some(), ".spvd");
    let order = ("--keep-unit-order", args.keep_unit_order, ".spvd");
    let sparse = ("--sparse-initializers", args.sparse_initializers, ".onnx");
    let values = ("--values", args.encoding.values.is_some(), ".safetensors");
    let profile = ("--profile", args.encoding.profile.is_some(), ".safetensors");
    let dense = ("--dense", args.dense, ".safetensors");
    let useless = match form {
        Form::Interchange => vec![packing, order, sparse],
        Form::Packed => vec![values, profile, dense, sparse],
        Form::Onnx => vec![values, profile, packing, order],
    };
    match useless.into_iter().find(|(_, given, _)| *given) {
        None => Ok(()),
        Some((option, _, other)) => bail!(
            "{option}: expected an output ending in {other}, which it is for, got {}",
            args.output.display()
        ),
    }
}
