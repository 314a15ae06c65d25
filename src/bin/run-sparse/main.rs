//! `run-sparse`: runs, measures and checks sparse networks.
//!
//! Exit codes: 0 done, 1 a check failed, 2 the command line or a file is at fault.

mod args;
mod bench;
mod check;
mod eval;
mod infer;
mod isa;
mod load;
mod plan;
mod print;
mod profile;
mod samples;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

/// What a command that went through has to say to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    CheckFailed,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match (cli.command, cli.infer) {
        (Some(Command::Eval(args)), _) => eval::run(&args),
        (Some(Command::Bench(args)), _) => bench::run(&args),
        (Some(Command::Plan(args)), _) => plan::run(&args),
        (Some(Command::Profile(args)), _) => profile::run(&args),
        (Some(Command::Check(args)), _) => check::run(&args),
        (Some(Command::Isa(args)), _) => isa::run(&args),
        (Some(Command::PeakRss(args)), _) => bench::run_child(&args),
        (None, Some(args)) => infer::run(&args),
        (None, None) => unreachable!("clap asks for a model or a subcommand"),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        // Whoever reads our output has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("run-sparse: {error:#}");
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
