//! `compress`: makes networks sparse by Sparse Variational Dropout, trains dense ones, and inspects the results.
//!
//! Exit codes: 0 done, 1 the result breaks the accuracy promise, 2 the command line or a file is at fault, 130 interrupted
//! by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
#![forbid(unsafe_code)]

mod args;
mod compare;
mod compress;
mod convert;
mod encoder;
mod init;
mod inspect;
mod interrupt;
mod print;
mod progress;
mod pruning;
mod quantise_activations;
mod report;
mod sweep;
mod train;

use std::process::ExitCode;

use anyhow::anyhow;
use sparsevd_format::FormatError;
use sparsevd_pipeline::PipelineError;

use args::Command;
use sparsevd_cli::Outcome;

fn main() -> ExitCode {
    let command = args::parse();
    if let Err(error) = interrupt::handle() {
        return sparsevd_cli::exit("compress", Err::<Outcome, _>(error));
    }
    let other_output = match &command {
        Command::Convert(_) => "name another output",
        Command::Compress(_)
        | Command::Init(_)
        | Command::Train(_)
        | Command::Compare(_)
        | Command::Sweep(_)
        | Command::Report(_)
        | Command::Inspect(_)
        | Command::QuantiseActivations(_)
        | Command::Completions(_)
        | Command::Man(_) => "name another by --out",
    };
    let result = match command {
        Command::Compress(args) => compress::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::QuantiseActivations(args) => quantise_activations::run(&args),
        Command::Completions(args) => sparsevd_cli::completions(&args, args::command_line()),
        Command::Man(args) => sparsevd_cli::man(&args, args::command_line()),
    };
    sparsevd_cli::exit(
        "compress",
        result.or_else(|error| explain(error, other_output)),
    )
}

/// Names the options that get around an error; an interruption is a way to end.
fn explain(error: anyhow::Error, other_output: &str) -> anyhow::Result<Outcome> {
    use PipelineError::{
        Format, Interrupted, Locked, NoCheckpoint, NoPreprocessing, NoTable, Occupied,
        OtherComparison,
    };

    let exists = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(FormatError::Exists { path }), _)
        | (_, Some(Format(FormatError::Exists { path }))) => Some(path),
        _ => None,
    };
    if let Some(path) = exists {
        return Err(anyhow!(
            "{}: exists already; overwrite it by --force, or {other_output}",
            path.display()
        ));
    }
    match error.downcast_ref() {
        Some(Interrupted { folder }) => Ok(interrupt::ended(folder.clone(), false)),
        Some(Occupied { folder }) => {
            let folder = folder.display();
            Err(anyhow!(
                "{folder}: an earlier run left a checkpoint here; go on with it by --resume {folder}, or begin anew by --force"
            ))
        }
        Some(Locked { .. }) => Err(anyhow!(
            "{error}; wait for its end, or name another folder by --run"
        )),
        Some(OtherComparison { .. }) => Err(anyhow!("{error}; name another folder by --run")),
        Some(NoCheckpoint { .. }) => Err(anyhow!("--resume {error}")),
        Some(NoPreprocessing { .. }) => Err(anyhow!("{error}; {}", sparsevd_cli::PIXEL_OPTIONS)),
        Some(NoTable { .. }) => Err(anyhow!(
            "{error}; --mean and --std say how they become its input, and --scale 1 leaves them as they are"
        )),
        _ => Err(error),
    }
}
