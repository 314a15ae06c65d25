//! `compress quantise-activations MODEL --data PATH`.

use std::path::PathBuf;
use std::thread;

use anyhow::bail;
use serde::Serialize;
use sparsevd_format::{PackOptions, WriteOptions, check_writable, write_network, write_packed};
use sparsevd_pipeline::{
    ActivationQuantisation, Data, Form, QuantisationReport, find_all_scales, model_name,
};

use crate::args::{QuantiseActivationsArgs, set_pixels};
use crate::print;
use sparsevd_cli::Outcome;

/// What is printed as JSON.
#[derive(Serialize)]
struct Written {
    #[serde(flatten)]
    report: QuantisationReport,
    /// The file.
    path: PathBuf,
    /// Its size.
    bytes: u64,
    /// What was guessed about the network.
    warnings: Vec<String>,
}

pub fn run(args: &QuantiseActivationsArgs) -> anyhow::Result<Outcome> {
    let default = || PathBuf::from(format!("{}.int8.safetensors", model_name(&args.model)));
    let out = args.out.clone().unwrap_or_else(default);
    let form = Form::of(&out)?;
    if form == Form::Onnx {
        bail!(
            "--out: expected a file ending in .safetensors or .spvd, of which `compress convert` makes .onnx, got {}",
            out.display()
        );
    }
    check_writable(&out, args.force)?;
    let mut loaded = sparsevd_cli::network(&args.model, &args.graph, args.json)?;
    if form == Form::Packed {
        find_all_scales(&mut loaded.network, &out)?;
    }
    let graph = &mut loaded.network.graph;
    let data = Data::load_for(&args.data, graph.preprocessing.as_ref())?;
    set_pixels(&args.pixels, graph, &data)?;
    let settings = ActivationQuantisation {
        samples: args.samples.get(),
        held_out: args.held_out.get(),
        range: args.range,
        keep_f32: args.keep_f32.clone(),
        max_error: args.max_error,
        one_scale: form == Form::Packed,
    };
    let threads = args.threads.map(usize::from);
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let done = settings.run(loaded.network, data, threads)?;
    let network = &done.network;
    let bytes = match form {
        Form::Packed => write_packed(&out, network, &PackOptions::for_size_of(network))?,
        Form::Interchange | Form::Onnx => {
            let options = WriteOptions {
                metadata: loaded.metadata,
                ..WriteOptions::default()
            };
            write_network(&out, network, &options)?
        }
    };
    if args.json {
        print::json(&Written {
            report: done.report,
            path: out,
            bytes,
            warnings: loaded.warnings,
        })?;
    } else {
        let bytes_text = print::count(bytes as usize);
        print::text(format_args!(
            "{}\nwrote {} ({bytes_text} bytes)",
            done.report,
            out.display()
        ))?;
    }
    Ok(Outcome::Done)
}
