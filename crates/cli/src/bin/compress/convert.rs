//! `compress convert IN OUT`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use sparsevd_compressor::recipe::Recipe;
use sparsevd_format::{PackProfile, check_writable};
use sparsevd_pipeline::{
    Compression, Conversion, Data, Form, Outputs, PipelineError, RunFolder, TrainingLog, model_name,
};

use crate::args::{ConvertArgs, Packing, set_pixels};
use crate::compress::{input, tell_of};
use crate::print;
use crate::progress::Progress;
use sparsevd_cli::Outcome;

pub fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    check_options(args)?;
    check_writable(&args.output, args.force)?;
    if let Some(data) = &args.data {
        return train(args, data);
    }
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

/// Trains the network onto grids.
fn train(args: &ConvertArgs, data: &Path) -> anyhow::Result<Outcome> {
    let recipe = Recipe::default_for_grids();
    let outputs = Outputs {
        values: args.encoding.values(),
        profile: args.encoding.profile(),
        ..Outputs::new(&args.output, &recipe)?
    };
    outputs.check(args.force)?;
    let run = PathBuf::from(format!("{}.run", model_name(&args.output)));
    let folder = match args.force {
        true => RunFolder::overwrite(&run),
        false => RunFolder::new(&run),
    };
    let mut input = input(&args.input, &args.graph, false)?;
    let graph = &mut input.network.graph;
    let data = Data::load_for(data, graph.preprocessing.as_ref())?;
    set_pixels(&args.pixels, graph, &data)?;
    let mut progress = Progress::new(TrainingLog::in_folder(&run), false)?;
    let compressed = Compression::onto_grids(input, data)
        .in_folder(folder)
        .run(&mut progress)?;
    drop(progress);
    let report = compressed.write(&outputs)?;
    tell_of(&report, &outputs, &run, false)
}

/// Options that a format has no use for are a misunderstanding.
fn check_options(args: &ConvertArgs) -> anyhow::Result<()> {
    if args.pixels.are_given() && args.data.is_none() {
        bail!("--mean, --std, --scale: expected --data, which they are for, got none");
    }
    let packing = ("--packing", args.packing.is_some(), ".spvd");
    let order = ("--keep-unit-order", args.keep_unit_order, ".spvd");
    let sparse = ("--sparse-initializers", args.sparse_initializers, ".onnx");
    let values = ("--values", args.encoding.values.is_some(), ".safetensors");
    let profile = ("--profile", args.encoding.profile.is_some(), ".safetensors");
    let dense = ("--dense", args.dense, ".safetensors");
    let useless = match Form::of(&args.output)? {
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
