//! `run-sparse`: runs, measures and checks sparse networks.
//!
//! Exit codes: 0 done, 1 a check failed, 2 the command line or a file is at fault.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod check;
mod embed;
mod eval;
mod infer;
mod isa;
mod load;
mod plan;
mod print;
mod profile;
mod tune;

use std::process::ExitCode;

use anyhow::anyhow;
use sparsevd_pipeline::PipelineError;

use args::Command;

fn main() -> ExitCode {
    let result = match args::parse() {
        Command::Infer(args) => infer::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Isa(args) => isa::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Completions(args) => sparsevd_cli::completions(&args, args::command_line()),
        Command::Man(args) => sparsevd_cli::man(&args, args::command_line()),
        Command::PeakRss(args) => bench::run_child(&args),
    };
    sparsevd_cli::exit("run-sparse", result.map_err(explain))
}

/// Names the options that get around an error.
fn explain(error: anyhow::Error) -> anyhow::Error {
    use PipelineError::{
        InputName, InputTwice, NoArray, NoInput, NoPreprocessing, NoTable, SeveralInputs,
    };

    match error.downcast_ref() {
        Some(e @ NoPreprocessing { .. }) => anyhow!("{e}; {}", sparsevd_cli::PIXEL_OPTIONS),
        Some(NoTable { data, network }) => anyhow!(
            "{data}: expected a network that stores the columns of its table, as `compress train` writes it, got `{network}` without"
        ),
        Some(SeveralInputs { inputs, outputs }) => anyhow!(
            "--data: expected a network with one input and one output, got {inputs} and {outputs}"
        ),
        Some(e @ (InputName { .. } | InputTwice { .. })) => anyhow!("--input {e}"),
        Some(NoInput { input, inputs }) => anyhow!(
            "input `{input}`: expected a file (--input {input}=FILE), as the network has the inputs {inputs}"
        ),
        Some(NoArray {
            path,
            expected,
            has_choice: true,
            got,
        }) => anyhow!(
            "{}: expected an array {expected} (or --array NAME), got {got}",
            path.display()
        ),
        _ => error,
    }
}
