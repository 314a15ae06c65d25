//! What both binaries do alike: reading a network, the options of pixels, printing, completions and man pages, exit codes.
#![forbid(unsafe_code)]

mod shell;

pub use shell::{CompletionsArgs, ManArgs, completions, man};

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use sparsevd_format::{GraphSource, LoadedNetwork};
use sparsevd_model::Preprocessing;
use sparsevd_onnx::{ImportOptions, InputShape, load_with};

/// How pixels become the input of a network; overrides what is stored with it.
#[derive(Debug, Clone, Default, Args)]
pub struct PixelArgs {
    /// Mean per channel, subtracted from scaled pixels; overrides what is stored with the network
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "M,..",
        allow_negative_numbers = true
    )]
    pub mean: Option<Vec<f32>>,
    /// Standard deviation per channel, divided by after that
    #[arg(long, value_delimiter = ',', value_name = "S,..")]
    pub std: Option<Vec<f32>>,
    /// Factor on pixels of 0 to 255, before mean and deviation
    #[arg(long, value_name = "F")]
    pub scale: Option<f32>,
}

impl PixelArgs {
    /// Whether the command line sets any of them.
    pub fn are_given(&self) -> bool {
        self.mean.is_some() || self.std.is_some() || self.scale.is_some()
    }

    /// The stored preprocessing, with what the command line sets in place of it.
    pub fn over(&self, stored: Preprocessing) -> Preprocessing {
        Preprocessing {
            mean: self.mean.clone().unwrap_or(stored.mean),
            std: self.std.clone().unwrap_or(stored.std),
            scale: self.scale.unwrap_or(stored.scale),
            table: stored.table,
        }
    }
}

/// What to do about pixels of a network that does not say how they become its input.
pub const PIXEL_OPTIONS: &str = "--scale 0.00392157 makes them 0 to 1, --scale 1 leaves them as they are, and --mean and --std normalise them";

/// Shapes of inputs that an ONNX file leaves open.
#[derive(Debug, Clone, Default, Args)]
pub struct ShapeArgs {
    /// Shape of an input of an .onnx file that leaves it open; name and batch N may be left out
    #[arg(long = "shape", value_name = "NAME=N,C,H,W")]
    pub shapes: Vec<InputShape>,
}

/// Where a network has its graph from.
#[derive(Debug, Clone, Default, Args)]
pub struct GraphArgs {
    /// Graph of a file that has none: a preset (lenet-5, resnet-20, ...) or a graph as JSON, which names the tensors of the file
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Option<String>,
    /// Shapes that its file leaves open
    #[command(flatten)]
    pub shapes: ShapeArgs,
}

/// Reads a network. What was guessed goes to stderr, wherever that leads, unless `quiet`.
pub fn network(path: &Path, graph: &GraphArgs, quiet: bool) -> anyhow::Result<LoadedNetwork> {
    let source = match &graph.network {
        Some(name) => GraphSource::Named(name.clone()),
        None => GraphSource::Auto,
    };
    let options = ImportOptions {
        shapes: graph.shapes.shapes.clone(),
    };
    let loaded = load_with(path, &source, &options)?;
    if !quiet {
        for warning in &loaded.warnings {
            note(&format!("warning: {}: {warning}", path.display()));
        }
    }
    Ok(loaded)
}

/// Whether to write notes on stderr: it is a terminal, and not `quiet`.
pub fn talks(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal()
}

/// Prints text and a line end on stdout in one go, so that a closed pipe is an error like any other.
pub fn text(text: impl Display) -> anyhow::Result<()> {
    let text = text.to_string();
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", lines.join("\n"))?;
    out.flush()?;
    Ok(())
}

/// How a command ended, for its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// The result breaks the accuracy promise, or outputs are not the expected ones.
    Failed,
    /// By Ctrl-C.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Interrupted => Self::from(130),
        }
    }
}

/// The exit code of a command, which says on stderr what went wrong.
pub fn exit(program: &str, result: anyhow::Result<impl Into<ExitCode>>) -> ExitCode {
    match result {
        Ok(outcome) => outcome.into(),
        // The reader of stdout has closed the pipe, such as `head`: that is no error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("{program}: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Prints one line on stderr.
pub fn note(line: &str) {
    eprintln!("{}", printable(line));
}

/// One line for a terminal: control characters, which names in a file may have, are escaped.
fn printable(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        assert_eq!(
            super::printable("fc1\u{1b}[2J\r\nok\u{9b}\té"),
            "fc1\\u{1b}[2J\\r\\nok\\u{9b}\té"
        );
    }
}
