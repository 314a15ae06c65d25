//! `compress`: makes networks sparse by Sparse Variational Dropout, trains dense ones, and inspects the results.
//!
//! Exit codes: 0 done, 1 the result breaks the accuracy promise, 2 the command line or a file is at fault, 130 interrupted.
#![forbid(unsafe_code)]

mod args;
#[path = "../common/mod.rs"]
mod common;
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

use std::process::ExitCode;

use args::Command;

/// How a command ended, for its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    PromiseBroken,
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::PromiseBroken => Self::from(1),
            Outcome::Interrupted => Self::from(130),
        }
    }
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
    common::exit("compress", result)
}
