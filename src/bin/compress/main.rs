//! `compress`: makes networks sparse by Sparse Variational Dropout, trains dense ones, and looks at what came out.
//!
//! Exit codes: 0 done, 1 the result breaks the accuracy promise, 2 the command line or a file is at fault, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
mod compress;
mod convert;
mod init;
mod inputs;
mod inspect;
mod interrupt;
mod measure;
mod output;
mod print;
mod progress;
mod pruned;
mod run_folder;
mod summary;
mod sweep;
mod table;
mod train;
mod training;

use std::io;
use std::process::ExitCode;

use args::Command;

/// What a command that went through has to say to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    PromiseBroken,
    Interrupted,
}

fn main() -> ExitCode {
    let result = match args::parse() {
        Command::Compress(args) => compress::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::PromiseBroken) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        // Whoever reads our output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compress: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
