//! `compress convert IN OUT`.

use anyhow::bail;
use sparsevd_compressor::smaller;
use sparsevd_format::{PackOptions, PackProfile, WriteOptions, write_network, write_packed};
use sparsevd_model::{Network, Weights};
use sparsevd_onnx::{ExportOptions, write_onnx};

use crate::args::{ConvertArgs, Packing, Values};
use crate::output::Form;
use crate::{Outcome, common, output, print};

pub fn run(args: &ConvertArgs) -> anyhow::Result<Outcome> {
    let form = output::form(&args.output)?;
    check_options(args, form)?;
    output::check(&args.output, args.force)?;
    let loaded = common::network(&args.input, args.network.as_deref(), &args.shapes, false)?;
    let mut network = loaded.network;
    if args.dense {
        network = network.to_dense();
    } else {
        sparsify(&mut network);
    }
    let takes_grids = form == Form::Packed || args.encoding.values == Some(Values::I8);
    if takes_grids && network.scales.is_empty() {
        bail!(
            "{}: expected {}, to write {}; got weights off any grid",
            args.input.display(),
            output::NEEDS_GRID,
            args.output.display()
        );
    }
    let bytes = match form {
        Form::Interchange => {
            let options = WriteOptions {
                values: args.encoding.values(),
                profile: args.encoding.profile(),
                metadata: loaded.metadata,
            };
            write_network(&args.output, &network, &options)?
        }
        Form::Packed => {
            let options = PackOptions {
                profile: profile(args.packing, &network),
                keep_unit_order: args.keep_unit_order,
            };
            write_packed(&args.output, &network, &options)?
        }
        Form::Onnx => {
            let options = ExportOptions {
                sparse_initializers: args.sparse_initializers,
                metadata: loaded.metadata,
            };
            write_onnx(&args.output, &network, &options)?
        }
    };
    print::text(format_args!(
        "wrote {} ({} bytes)",
        args.output.display(),
        print::count(bytes as usize)
    ))?;
    Ok(Outcome::Done)
}

/// The profile of a packed file.
fn profile(packing: Option<Packing>, network: &Network) -> PackProfile {
    match packing.unwrap_or(Packing::Auto) {
        Packing::Auto => PackProfile::for_size_of(network),
        Packing::Small => PackProfile::Small,
        Packing::Large => PackProfile::Large,
    }
}

/// Options that a format has no use for are a misunderstanding.
fn check_options(args: &ConvertArgs, form: Form) -> anyhow::Result<()> {
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

/// Makes every weight CSR that is smaller so.
fn sparsify(network: &mut Network) {
    let weights: Vec<String> = network
        .graph
        .weighted_nodes()
        .filter_map(|n| n.op.weight())
        .map(str::to_owned)
        .collect();
    for name in weights {
        if let Some(tensor) = network.tensors.get_mut(&name)
            && let Weights::Dense(dense) = tensor
        {
            *tensor = smaller(std::mem::take(dense));
        }
    }
}
