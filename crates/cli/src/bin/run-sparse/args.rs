//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use sparsevd_pipeline::{DataSplit, DenseShapes};
use sparsevd_runtime::{Int8Mode, WeightMode, WeightType};

use sparsevd_cli::{CompletionsArgs, GraphArgs, ManArgs, MemoryArgs, PixelArgs, VerbosityArgs};

/// Runs sparse neural networks on CPUs.
#[derive(Debug, Parser)]
#[command(
    name = "run-sparse",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  run-sparse models/lenet-5/sparse.safetensors --input digit.png
  run-sparse eval models/lenet-5/sparse.safetensors --data data/mnist
  run-sparse bench models/lenet-5/sparse.safetensors --against dense
  SPARSE_ISA=avx2 run-sparse plan models/lenet-5/sparse.safetensors

Results go to stdout, the rest to stderr. Exit code 0: done; 1: a check failed; 2: the command line or a file is at fault.
SPARSE_ISA=scalar|avx2|avx512|neon forces an instruction set; `run-sparse isa` lists what this machine has.
SPARSE_TUNE=FILE names the costs that `run-sparse tune` measured.
Only help and errors have colours, on terminals; NO_COLOR=1 switches them off."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    infer: Option<InferArgs>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a network on an input: what happens when no subcommand is named
    #[command(skip)]
    Infer(InferArgs),
    /// Error of a network on a labelled set of images
    Eval(EvalArgs),
    /// Latency, throughput and memory, beside the dense plan of the same network in the same run
    Bench(BenchArgs),
    /// Which kernel runs each node, in which layout, with how many bytes
    Plan(PlanArgs),
    /// Time and GFLOP/s of each node
    Profile(ProfileArgs),
    /// Compares outputs with expected ones; exit code 1 where they differ
    Check(CheckArgs),
    /// Embeddings of the lines of a text, by an encoder from its Hugging Face folder
    Embed(EmbedArgs),
    /// Instruction sets of this machine, with the arithmetic peak of one core in f32 and int8
    Isa(IsaArgs),
    /// Measures what kernels cost on this machine, in f32 and int8, for plans to choose by
    Tune(TuneArgs),
    /// Completions for a shell
    Completions(CompletionsArgs),
    /// Man pages
    Man(ManArgs),
    /// Memory of one plan in a process of its own, for `bench`
    #[command(hide = true)]
    PeakRss(PeakRssArgs),
}

/// The command line.
pub fn command_line() -> clap::Command {
    MemoryArgs::add_to(Cli::command())
}

/// Reads the command line; prints help or what is wrong with it, and exits.
pub fn parse() -> Command {
    let matches = command_line().get_matches();
    MemoryArgs::apply(&matches);
    let parsed = Cli::from_arg_matches(&matches).and_then(|cli| match cli.command {
        Some(command) => Ok(command),
        None => InferArgs::from_arg_matches(&matches).map(Command::Infer),
    });
    parsed.unwrap_or_else(|error| error.exit())
}

/// A network's file and how to read it.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// The network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx; its
    /// content decides which. What is guessed about it is said on stderr and in `warnings` of --json
    pub model: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
    #[command(flatten)]
    pub pixels: PixelArgs,
    /// How sparse linear layers store their non-zeros: fewer bytes are faster where weights come from memory, and round
    #[arg(long, visible_alias = "precision", value_enum, default_value_t = WeightType::F32, value_name = "TYPE")]
    pub values: WeightType,
    /// Whether layers with int8 grids, from `compress quantise-activations` or a quantised ONNX file, multiply int8
    #[arg(long, value_enum, default_value_t = Int8Mode::Faster, value_name = "WHEN")]
    pub int8: Int8Mode,
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

#[derive(Debug, Args)]
pub struct InferArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What to run: .npy, .npz, PNG, IDX (plain or .gz), safetensors, or the rows of a .csv for a network that was trained on such.
    /// Bytes are pixels and are preprocessed as the network or --scale, --mean and --std say; floating-point numbers are the
    /// network's input as they are. Of several inputs each is named (NAME=FILE, once for each), or is the array of its name in a
    /// file of several
    #[arg(long, short, required = true, value_name = "[NAME=]FILE")]
    pub input: Vec<String>,
    /// Array to take from a file of several
    #[arg(long, value_name = "NAME")]
    pub array: Option<String>,
    /// Classes to print per sample
    #[arg(long, default_value_t = 5, value_name = "K")]
    pub top: usize,
    /// Also write all outputs, as array `y` of an .npz, or as an .npy; several outputs as arrays of their names
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite an existing output
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Kernels
    #[arg(long, value_enum, default_value_t = WeightMode::Sparse)]
    pub weights: WeightMode,
    /// Most threads; all cores by default, small networks use one
    #[arg(long, short, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  run-sparse eval models/lenet-300-100/sparse.safetensors --data data/mnist --json
  {\"schema\":1,\"images\":10000,\"error_percent\":1.7,\"top1\":0.983, ...}")]
pub struct EvalArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Labelled images: a folder of IDX files (plain or .gz), of CIFAR's binary batches or of class folders with PNGs, an .npz, a safetensors file, or a table
    /// as .csv. Targets that are numbers give R2
    #[arg(long, short, value_name = "PATH")]
    pub data: PathBuf,
    /// Part of the set to use
    #[arg(long, value_enum, default_value_t = DataSplit::Test)]
    pub split: DataSplit,
    /// Kernels
    #[arg(long, value_enum, default_value_t = WeightMode::Sparse)]
    pub weights: WeightMode,
    /// Most threads; all cores by default, small networks use one
    #[arg(long, short, value_name = "N")]
    pub threads: Option<usize>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  run-sparse bench models/lenet-300-100/sparse.safetensors --against dense -b 1,64

Both plans are run by turns in one process. Where dead units have left the network, the dense plan has them back: it is what the
network cost before. `--dense-shapes left` measures a dense plan of the units that are left, the harder opponent. A latency is one whole run, input to output, clock excluded. Before and
after, the FMA peak of the core, the rate at which it reads memory, the time that a hypervisor took and preemptions are read; where they say that
the machine was disturbed, the batch is measured again, twice at most, and what it was is printed.
Peak RSS is that of a process which loads the file, plans it and runs it, and does nothing else. Of fewer than a hundred runs, p99 is the slowest.")]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also measure this plan of the same network
    #[arg(long, value_enum, value_name = "PLAN")]
    pub against: Option<WeightMode>,
    /// Shapes of the dense plan: those of the network before dead units left, or those of what is left
    #[arg(long, value_enum, default_value_t = DenseShapes::Original, value_name = "SHAPES")]
    pub dense_shapes: DenseShapes,
    /// Samples per run, one or more numbers
    #[arg(
        long,
        short,
        value_delimiter = ',',
        default_value = "1,64",
        value_name = "B,.."
    )]
    pub batch: Vec<usize>,
    /// Most threads
    #[arg(long, short, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Run the test images of this labelled set instead of random input
    #[arg(long, short, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Run these samples instead of random input, as for inference
    #[arg(long, short, value_name = "[NAME=]FILE", conflicts_with = "data")]
    pub input: Vec<String>,
    /// Elements of a free dimension, such as the length of a sequence, where no input says it
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub length: usize,
    /// Seconds of runs per plan and batch; of a network that is too slow for them, three runs count all the same
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Kernels
    #[arg(long, value_enum, default_value_t = WeightMode::Sparse)]
    pub weights: WeightMode,
    /// Samples per run
    #[arg(long, short, default_value_t = 1, value_name = "B")]
    pub batch: usize,
    /// Most threads
    #[arg(long, short, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Labelled images like those that will come: a layer whose inputs are mostly zero then skips zeros at batch 1
    #[arg(long, short, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Elements of a free dimension, such as the length of a sequence, where no input says it
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub length: usize,
    /// Samples like those that will come, as for inference
    #[arg(long, short, value_name = "[NAME=]FILE", conflicts_with = "data")]
    pub input: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  run-sparse profile models/lenet-5/sparse.safetensors -b 64

GFLOP/s counts the arithmetic on non-zeros, and `peak` is its share of the FMA peak of one core, of layers that multiply int8 of the int8 peak; `expect` is what the plan expected; `dense` is the rate that a dense kernel would need to be as fast.")]
pub struct ProfileArgs {
    #[command(flatten)]
    pub plan: PlanArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example, with outputs of another framework:
  np.savez('expect.npz', x=x.numpy(), y=model(x).numpy())
  run-sparse check model.safetensors --expect expect.npz")]
pub struct CheckArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Arrays `x`, inputs (channels first, or last where the shape says so), and `y`, the outputs expected of them: .npz or safetensors.
    /// Several inputs or outputs are arrays of their names
    #[arg(long, short, value_name = "FILE")]
    pub expect: PathBuf,
    /// Take an input from another file
    #[arg(long, short, value_name = "[NAME=]FILE")]
    pub input: Vec<String>,
    /// Largest error allowed, as a share of the largest expected output
    #[arg(long, default_value_t = 1e-4, value_name = "T")]
    pub tolerance: f64,
    /// Kernels
    #[arg(long, value_enum, default_value_t = WeightMode::Sparse)]
    pub weights: WeightMode,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  run-sparse embed all-MiniLM-L6-v2 --text sentences.txt --out embeddings.npy

Without --out each embedding is a line of JSON: line, tokens, truncated, embedding. Embeddings have the order of the lines. An empty line has one too,
of the tokens that stand around every text. A line of more tokens than the encoder takes is cut, which is said on stderr.")]
pub struct EmbedArgs {
    /// The folder of the encoder: config.json, model.safetensors and tokenizer.json, with modules.json of sentence-transformers
    pub folder: PathBuf,
    /// A text in UTF-8, each line of which is embedded; - is stdin
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Write the embeddings: an array [lines, width] as .npy, or lines of JSON as .jsonl
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Most lines of one number of tokens that run together
    #[arg(long, short, default_value_t = 16, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=65536))]
    pub batch: usize,
    /// Kernels
    #[arg(long, value_enum, default_value_t = WeightMode::Sparse)]
    pub weights: WeightMode,
    /// Whether layers with int8 grids, from `compress quantise-activations`, multiply int8
    #[arg(long, value_enum, default_value_t = Int8Mode::Faster, value_name = "WHEN")]
    pub int8: Int8Mode,
    /// Most threads; all cores by default
    #[arg(long, short, value_name = "N")]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

#[derive(Debug, Args)]
pub struct IsaArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Plans choose kernels, and `plan` says what to expect, by what kernels cost. Without a measurement these are the costs of the machine that the
kernels were developed on, and int8 takes a share of the time of f32. `tune` takes some seconds per instruction set; the machine should have nothing else to do.

The costs are a JSON file: the one that SPARSE_TUNE names, else sparsevd/tune.json in XDG_CONFIG_HOME or ~/.config. All commands look there.")]
pub struct TuneArgs {
    /// File to write instead; name it in SPARSE_TUNE to use it
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PeakRssArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[arg(long, value_enum)]
    pub weights: WeightMode,
    #[arg(long, value_enum)]
    pub dense_shapes: DenseShapes,
    #[arg(long)]
    pub batch: usize,
    #[arg(long)]
    pub length: usize,
    #[arg(long)]
    pub threads: usize,
}
