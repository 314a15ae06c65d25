//! `compress convert IN OUT`.

use anyhow::bail;
use sparsevd_format::{PackProfile, check_writable};
use sparsevd_pipeline::{Conversion, Form, PipelineError};

use crate::args::{ConvertArgs, Packing};
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    check_options(args)?;
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
    };
    let bytes = match conversion.write(loaded, &args.output) {
        Err(error @ PipelineError::OffGrid { .. }) => bail!("{}: {error}", args.input.display()),
        written => written?,
    };
    print::text(format_args!(
        "wrote {} ({} bytes)",
        args.output.display(),
        print::count(bytes as usize)
    ))?;
    Ok(Outcome::Done)
}

/// Options that a format has no use for are a misunderstanding.
fn check_options(args: &ConvertArgs) -> anyhow::Result<()> {
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
