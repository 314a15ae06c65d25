//! `run-sparse`: runs, measures and checks sparse networks.
//!
//! Exit codes: 0 done, 1 a check failed, 2 the command line or a file is at fault.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod check;
mod eval;
mod infer;
mod isa;
mod load;
mod outcome;
mod plan;
mod print;
mod profile;
mod samples;
mod tune;

use std::process::ExitCode;

use args::Command;

fn main() -> ExitCode {
    let result = match args::parse() {
        Command::Infer(args) => infer::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Isa(args) => isa::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::PeakRss(args) => bench::run_child(&args),
    };
    sparsevd_cli::exit("run-sparse", result)
}
