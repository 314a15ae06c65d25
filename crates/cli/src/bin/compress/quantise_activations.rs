//! `compress quantise-activations MODEL --data PATH`, or `FOLDER --dynamic --text FILE`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, bail};
use serde::Serialize;
use sparsevd_compressor::recipe::{Recipe, Validation};
use sparsevd_format::{
    MAX_JSON, PackOptions, WriteOptions, check_writable, read_text, write_network, write_packed,
};
use sparsevd_model::Network;
use sparsevd_pipeline::{
    ActivationQuantisation, Data, Form, PipelineError, QuantisationReport, QuantisedActivations,
    RunFolder, TrainingLog, check_encoder_out, find_all_scales, int8_run, model_name,
    write_encoder,
};

use crate::args::{QuantiseActivationsArgs, set_pixels};
use crate::encoder::lines;
use crate::interrupt::unfinished;
use crate::progress::Progress;
use crate::{interrupt, print};
use sparsevd_cli::{Outcome, VerbosityArgs};

/// What is printed as JSON.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    report: QuantisationReport,
    /// The file or folder.
    path: &'a Path,
    /// Bytes of the file, or of the weights in the folder.
    bytes: u64,
    /// What was guessed about the network.
    warnings: Vec<String>,
}

impl Written<'_> {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            print::json(self)?;
        } else {
            let (path, bytes) = (self.path.display(), print::count(self.bytes as usize));
            print::text(format_args!(
                "{}\nwrote {path} ({bytes} bytes)",
                self.report
            ))?;
        }
        Ok(())
    }
}

pub fn run(args: &QuantiseActivationsArgs) -> anyhow::Result<Outcome> {
    if let Some(text) = &args.text {
        return of_texts(args, text);
    }
    let data = args.data.as_ref().context("--data: expected a data set")?;
    let default = || PathBuf::from(format!("{}.int8.safetensors", model_name(&args.model)));
    let out = args.out.clone().unwrap_or_else(default);
    let form = Form::of(&out)?;
    if form == Form::Onnx {
        bail!(
            "--out: expected a file ending in .safetensors or .spvd, of which `compress convert` makes .onnx, got {}",
            out.display()
        );
    }
    if form == Form::Packed && args.epochs.is_some() {
        bail!(
            "--epochs: expected a file ending in .safetensors, as trained weights leave the grids of packed files, got {}",
            out.display()
        );
    }
    if form == Form::Packed && args.dynamic {
        bail!(
            "--dynamic: expected a file ending in .safetensors, as packed files have grids of samples alone, got {}",
            out.display()
        );
    }
    if form == Form::Packed && args.tables.is_some() {
        bail!(
            "--tables: expected a file ending in .safetensors, as packed files have one scale for a tensor, got {}",
            out.display()
        );
    }
    check_writable(&out, args.force)?;
    let mut loaded = sparsevd_cli::network(&args.model, &args.graph, args.json)?;
    if form == Form::Packed {
        find_all_scales(&mut loaded.network, &out)?;
    }
    let graph = &mut loaded.network.graph;
    let data = Data::load_for(data, graph.preprocessing.as_ref())?;
    set_pixels(&args.pixels, graph, &data)?;
    let settings = ActivationQuantisation {
        one_scale: form == Form::Packed,
        ..settings(args, 1000)
    };
    let (done, folder) = match args.epochs {
        None => (settings.run(loaded.network, data, threads(args))?, None),
        Some(epochs) => {
            let folder = RunFolder::resume_or_new(int8_run(&out))?;
            match train(args, epochs, &settings, loaded.network, data, &folder)? {
                Ok(done) => (done, Some(folder)),
                Err(interrupted) => return Ok(interrupted),
            }
        }
    };
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
    if let Some(folder) = folder {
        folder.clear()?;
    }
    let written = Written {
        report: done.report,
        path: &out,
        bytes,
        warnings: loaded.warnings,
    };
    written.print(args.json)?;
    Ok(Outcome::Done)
}

/// Quantises and trains; the outcome where a signal stopped that. A run that is not finished goes on.
fn train(
    args: &QuantiseActivationsArgs,
    epochs: NonZeroU32,
    settings: &ActivationQuantisation,
    network: Network,
    data: Data,
    folder: &RunFolder,
) -> anyhow::Result<Result<QuantisedActivations, Outcome>> {
    let mut recipe = Recipe::default_for_activations(epochs.get(), args.lr);
    let from_test = args.validation_from_test.map(Validation::from_test);
    if let Some(validation) = args.validation.clone().or(from_test) {
        recipe.validation = validation;
    }
    recipe.check()?;
    folder.check_unrecorded("compress quantise-activations")?;
    let run = folder.path();
    let mut progress =
        Progress::new(TrainingLog::in_folder(run), VerbosityArgs::default()).by_same_command();
    let done = settings.run_and_train(
        network,
        data,
        &recipe,
        Some(folder),
        threads(args),
        &mut progress,
    );
    drop(progress);
    match done {
        Err(PipelineError::Interrupted { folder }) => Ok(Err(interrupt::ended(folder, true))),
        other => Ok(Ok(other.map_err(|e| unfinished(e, run))?)),
    }
}

/// An encoder, on the lines of a text.
fn of_texts(args: &QuantiseActivationsArgs, text: &Path) -> anyhow::Result<Outcome> {
    let out = args.out.as_ref().context("--out: expected a folder")?;
    check_encoder_out(&args.model, out, args.force)?;
    let text = read_text(text, MAX_JSON)?;
    let done = settings(args, 200).run_on_texts(&args.model, &lines(&text), threads(args))?;
    let written = Written {
        bytes: write_encoder(&args.model, out, &done.network, args.force)?,
        report: done.report,
        path: out,
        warnings: vec![],
    };
    written.print(args.json)?;
    Ok(Outcome::Done)
}

fn settings(args: &QuantiseActivationsArgs, held_out: usize) -> ActivationQuantisation {
    ActivationQuantisation {
        samples: args.samples.get(),
        held_out: args.held_out.map_or(held_out, NonZeroUsize::get),
        range: args.range,
        keep_f32: args.keep_f32.clone(),
        max_error: args.max_error,
        dynamic: args.dynamic,
        tables: args.tables.map(Into::into),
        one_scale: false,
    }
}

fn threads(args: &QuantiseActivationsArgs) -> usize {
    let all = || thread::available_parallelism().map_or(1, usize::from);
    args.threads.map_or_else(all, usize::from)
}
