//! `compress init NAME`: a preset with seeded weights.

use anyhow::bail;
use sparsevd_compressor::initialise;
use sparsevd_format::{WriteOptions, check_writable, write_network};
use sparsevd_model::presets;
use sparsevd_onnx::{ExportOptions, write_onnx};
use sparsevd_pipeline::{Form, NEEDS_GRID};

use crate::args::InitArgs;
use crate::print;
use sparsevd_cli::Outcome;

pub fn run(args: &InitArgs) -> anyhow::Result<Outcome> {
    let preset = match args.input.as_deref() {
        None => presets::by_name(&args.name),
        Some(&[c, h, w]) => presets::for_input(&args.name, [c, h, w]),
        Some(_) => bail!("--input: expected channels, height and width, as 1,28,28"),
    };
    let Some((graph, shapes)) = preset else {
        bail!(
            "expected one of the presets {}, the convolutional ones with an --input that they fit, got {}{}",
            presets::names(),
            args.name,
            presets::hint(&args.name)
        );
    };
    let form = Form::of(&args.out)?;
    check_writable(&args.out, args.force)?;
    let network = initialise(graph, &shapes, args.seed)?;
    let bytes = match form {
        Form::Interchange => write_network(&args.out, &network, &WriteOptions::default())?,
        Form::Onnx => write_onnx(&args.out, &network, &ExportOptions::default())?,
        Form::Packed => bail!(
            "{}: expected an output ending in .safetensors or .onnx, got .spvd; that takes {NEEDS_GRID}",
            args.out.display()
        ),
    };
    print::text(format_args!(
        "{}: {} weights of seed {}; wrote {} ({} bytes)",
        network.graph.name,
        print::count(network.original_weights()),
        args.seed,
        args.out.display(),
        print::count(bytes as usize)
    ))?;
    Ok(Outcome::Done)
}
