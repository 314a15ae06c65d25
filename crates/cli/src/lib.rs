//! What both binaries do alike: reading a network, the options of pixels, printing, completions and man pages, exit codes.
#![forbid(unsafe_code)]

mod shell;

pub use shell::{CompletionsArgs, ManArgs, completions, man};

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command};
use sparsevd_format::{FormatError, GraphSource, LoadedNetwork};
use sparsevd_model::{ModelError, Preprocessing, memory, terminal};
use sparsevd_onnx::{ImportOptions, InputShape, OnnxError, load_with};
use sparsevd_pipeline::PipelineError;
use sparsevd_runtime::RuntimeError;

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

/// How much memory a command may take.
#[derive(Debug, Clone, Default, Args)]
pub struct MemoryArgs {
    /// Most memory that the command may take, such as 4G; what a file describes beyond it is refused. By default three quarters of
    /// what the machine, the control group and `ulimit -v` leave, and for one allocation of more than 1 GiB at most 1,000 times
    /// the bytes of the files
    #[arg(long, global = true, value_name = "SIZE")]
    pub max_memory: Option<Size>,
}

impl MemoryArgs {
    /// Adds the option to a command line, which keeps its own description.
    pub fn add_to(command: Command) -> Command {
        let about = Resettable::from(command.get_about().cloned());
        let long_about = Resettable::from(command.get_long_about().cloned());
        Self::augment_args(command)
            .about(about)
            .long_about(long_about)
    }

    /// Sets the limit of the process, wherever on the command line it stands.
    pub fn apply(matches: &ArgMatches) {
        let mut matches = Some(matches);
        while let Some(level) = matches {
            if let Ok(Some(Size(bytes))) = level.try_get_one("max_memory") {
                memory::set_limit(*bytes);
            }
            matches = level.subcommand().map(|(_, inner)| inner);
        }
    }
}

/// A number of bytes: `1000000`, `512M`, `4G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected bytes, as 1000000, 512M or 4G".to_owned();
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let unit = unit.to_ascii_uppercase();
        let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(wrong()),
        };
        let number = digits.parse::<u64>().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift).filter(|b| *b > 0);
        bytes.map(Self).ok_or_else(wrong)
    }
}

/// How much a command says on stderr.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct VerbosityArgs {
    /// Say on stderr only what is wrong
    #[arg(long, short)]
    pub quiet: bool,
    /// Say on stderr what was chosen and why; it, notes and progress are then said where stderr is no terminal, too
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
}

impl VerbosityArgs {
    /// Whether to write notes on stderr: it is a terminal and not to be quiet, or all is to be said.
    pub fn talks(self) -> bool {
        self.verbose || self.has_bars()
    }

    /// Whether progress bars have a place: stderr is a terminal, and not to be quiet.
    pub fn has_bars(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Writes lines about what was chosen on stderr, where that is asked for.
    pub fn explain(self, text: impl FnOnce() -> String) {
        if self.verbose {
            text().lines().for_each(note);
        }
    }
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

/// Prints text and a line end on stdout in one go, so that a closed pipe is an error like any other.
pub fn text(text: impl Display) -> anyhow::Result<()> {
    let text = text.to_string();
    let lines = text.split('\n').map(|l| terminal::line(l, usize::MAX));
    let lines: Vec<_> = lines.collect();
    out(&lines.join("\n"))
}

/// Prints a line of JSON on stdout.
pub fn json(line: &str) -> anyhow::Result<()> {
    let escaped = |c: char| match terminal::is_unprintable(c) {
        true => (c.encode_utf16(&mut [0; 2]).iter())
            .map(|unit| format!("\\u{unit:04x}"))
            .collect(),
        false => c.to_string(),
    };
    match line.chars().any(terminal::is_unprintable) {
        true => out(&line.chars().map(escaped).collect::<String>()),
        false => out(line),
    }
}

fn out(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
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
    /// By a signal, with its exit code: 128 and its number.
    Interrupted(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::from(1),
            Outcome::Interrupted(code) => Self::from(code),
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
            let hint = match is_memory(&error) {
                true => "; --max-memory sets another limit",
                false => "",
            };
            note(&format!("{program}: {error:#}{hint}"));
            ExitCode::from(2)
        }
    }
}

/// Prints one line on stderr, of bounded length.
pub fn note(line: &str) {
    // A terminal that is gone is no reason to fail.
    let _ = writeln!(io::stderr(), "{}", terminal::line(line, terminal::MESSAGE));
}

/// Whether there was no memory for something.
fn is_memory(error: &anyhow::Error) -> bool {
    let model = |e: &ModelError| matches!(e, ModelError::Memory { .. });
    let format = |e: &FormatError| matches!(e, FormatError::Model { error, .. } if model(error));
    let runtime = |e: &RuntimeError| matches!(e, RuntimeError::Model(e) if model(e));
    let onnx = |e: &OnnxError| matches!(e, OnnxError::Format(e) if format(e));
    if let Some(e) = error.downcast_ref::<PipelineError>() {
        return match e {
            PipelineError::Model(e) => model(e),
            PipelineError::Format(e) => format(e),
            PipelineError::Runtime(e) => runtime(e),
            PipelineError::Onnx(e) => onnx(e),
            _ => false,
        };
    }
    error.downcast_ref().is_some_and(model)
        || error.downcast_ref().is_some_and(format)
        || error.downcast_ref().is_some_and(runtime)
        || error.downcast_ref().is_some_and(onnx)
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
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let sizes = [
            ("1", 1),
            ("4k", 4096),
            ("3M", 3 << 20),
            ("2GiB", 2 << 30),
            ("1TB", 1 << 40),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in ["", "G", "-1", "1.5G", "1X", "0", "99999999999T"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
