//! The command line.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use sparsevd_compressor::Scope;
use sparsevd_compressor::recipe::Overrides;
use sparsevd_compressor::variational::Granularity;
use sparsevd_format::{CsrProfile, ValueType};

use sparsevd_cli::{PixelArgs, ShapeArgs};

/// Makes neural networks sparse by Sparse Variational Dropout.
///
/// Every weight gets a dropout rate of its own; weights whose rate diverges are removed, the rest is fine-tuned and written as
/// a sparse safetensors file that `run-sparse` runs, and, where the recipe quantises, as a packed .spvd file of the fewest bytes.
/// The accuracy that is reported is that of the written files.
#[derive(Debug, Parser)]
#[command(
    name = "compress",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  compress models/lenet-300-100/model.safetensors
      recipe and data come from recipe.toml beside the model; writes lenet-300-100.sparse.safetensors
  compress mine.safetensors --network lenet-5 --data path/to/idx/folder
      a network saved by PyTorch under other names, without a recipe
  compress mine.safetensors --data set.npz --mean 0.1307 --std 0.3081
      pixels normalised as when the network was trained
  compress resnet.onnx --method magnitude --sparsity 0.9
      in one shot, without data; with --data and --recipe, errors and fine-tuning too
  compress mine.safetensors --posterior posterior.safetensors
      trained elsewhere, say on GPUs: docs/posterior.md
  compress models/lenet-5/model.safetensors --resume lenet-5.run
      goes on after Ctrl-C
  compress sweep lenet-5.run
      what other thresholds would have given

A file named like a subcommand is meant by ./train. Results go to stdout, progress to stderr where that is a terminal.
Exit code 0: done; 1: the result loses more accuracy than promised (it is written all the same); 2: the command line or a
file is at fault; 130: interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compress: Option<CompressArgs>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compresses a network: what happens when no subcommand is named
    #[command(skip)]
    Compress(CompressArgs),
    /// Writes a preset network with seeded weights
    Init(InitArgs),
    /// Trains a dense network from scratch
    Train(TrainArgs),
    /// Validation error and ratio of a run over thresholds
    Sweep(SweepArgs),
    /// Layers, shapes, density, and bytes by encoding of a file
    Inspect(InspectArgs),
    /// Rewrites a network: dense or sparse, other value and index types
    Convert(ConvertArgs),
}

/// Reads the command line; prints help or what is wrong with it, and exits.
pub fn parse() -> Command {
    let matches = Cli::command().get_matches();
    let parsed = Cli::from_arg_matches(&matches).and_then(|cli| match cli.command {
        Some(command) => Ok(command),
        None => CompressArgs::from_arg_matches(&matches).map(Command::Compress),
    });
    parsed.unwrap_or_else(|error| error.exit())
}

#[derive(Debug, Args)]
pub struct CompressArgs {
    /// The network to compress: a safetensors file, an index or a folder of its shards, or an .onnx; its content decides which.
    /// What is guessed about it is said on stderr and in `warnings` of the report
    pub model: PathBuf,
    /// Graph of a file that has none: a preset (lenet-5, resnet-20, ...) or a graph as JSON, which names the tensors of the file
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Option<String>,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub pixels: PixelArgs,
    /// Weights whose log alpha is above this are removed; the recipe's, else 3
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// How weights are chosen to go
    #[arg(long, value_enum)]
    pub method: Option<Method>,
    /// Share of the weights that --method magnitude removes: 0.9 leaves one in ten
    #[arg(
        long,
        value_name = "S",
        required_if_eq("method", "magnitude"),
        requires = "method"
    )]
    pub sparsity: Option<f64>,
    /// Where --method magnitude looks for the smallest weights
    #[arg(long, value_enum, default_value_t = PruningScope::Global, requires = "sparsity")]
    pub scope: PruningScope,
    /// Let --method magnitude prune the first convolution and depthwise ones too, which it leaves dense
    #[arg(long, requires = "sparsity")]
    pub every_layer: bool,
    /// Prune by a posterior that was trained elsewhere: a safetensors file of NAME.theta with NAME.log_sigma2 or
    /// NAME.log_alpha (docs/posterior.md)
    #[arg(long, value_name = "FILE", conflicts_with = "method")]
    pub posterior: Option<PathBuf>,
    /// Factor on the KL term: above 1 sparser, below 1 more careful
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub kl_scale: Option<f64>,
    /// Which weights share a dropout rate
    #[arg(long, value_enum)]
    pub alpha: Option<Alpha>,
    /// Points of validation error that the result may lose; the recipe's, else 0.5
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub max_accuracy_drop: Option<f64>,
    /// R2 on validation that the result of a regression may lose; the recipe's, else 0.02
    #[arg(long, value_name = "R2", allow_negative_numbers = true)]
    pub max_r2_drop: Option<f64>,
    #[command(flatten)]
    pub encoding: EncodingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress train lenet-300-100 --data data/mnist --out models/lenet-300-100/model.safetensors
  compress train lenet-5 --data data/mnist --recipe train.toml --epochs 20
  compress train resnet-20 --input 1,28,28 --data data/mnist
  compress train network.json --data set.npz
  compress train mlp --data houses.csv --target price
      two hidden layers of 100; mlp-300-100 says others. Inputs and outputs are those of the data

Batch normalisation is trained by the statistics of each batch, and written as part of the layer before it where that is exact.
A network.json is a graph as in docs/format.md with the shapes of its tensors beside it:
  {\"name\": ..., \"inputs\": ..., \"nodes\": ..., \"outputs\": ..., \"tensors\": {\"fc1.weight\": [300, 784], \"fc1.bias\": [300]}}")]
pub struct TrainArgs {
    /// A preset (lenet-300-100, lenet-5, resnet-20-mnist, ...), mlp or mlp-WIDTH-WIDTH.. for the sizes of the data, or a graph as
    /// JSON with the shapes of its tensors
    pub network: String,
    /// Channels, height and width of the input, for a convolutional preset
    #[arg(long, value_delimiter = ',', value_name = "C,H,W")]
    pub input: Option<Vec<usize>>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub pixels: PixelArgs,
    /// Epochs of every phase; the recipe's, else 12, or for small sets as many as make about 2,000 steps
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
}

/// What training and compressing have in common.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Labelled images: a folder of IDX files (plain or .gz), of train/ and test/ class folders with PNGs or of class folders
    /// alone, an .npz, a safetensors file, a table as .csv or a folder of train.csv and test.csv; the recipe's where it names one.
    /// Targets of an .npz or a safetensors file that are floating-point numbers, of one or two dimensions, make a regression, as do
    /// those of a table with a decimal point. Without test images no test error is reported
    #[arg(long, short, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Column of a table that holds the targets; the last where it is not said
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Recipe; recipe.toml beside the model where there is one, else a default that is printed
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// File to write; ./NAME.sparse.safetensors for a compressed network and ./NAME.safetensors for a trained one where it
    /// is not said. A recipe that ends with a `quantise` phase makes a .spvd beside it, and either may be named
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite an existing output, and begin anew in a run folder that has a checkpoint
    #[arg(long)]
    pub force: bool,
    /// Seed of everything random; the recipe's, else 0
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Threads; all cores by default. The result does not depend on it
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Folder for checkpoints and what pictures need; ./NAME.run, or ./NAME.train.run, where it is not said
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run: Option<PathBuf>,
    /// Go on from the checkpoint of a run folder, with the recipe and data that the run began with
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How a network is written.
#[derive(Debug, Clone, Args)]
pub struct EncodingArgs {
    /// Element type of the weights in a .safetensors file; f32 where it is not said. Biases go along where it costs them nothing
    #[arg(long, value_enum)]
    pub values: Option<Values>,
    /// How sparse weights are stored there: in the fewest bytes (compact, where it is not said), as torch and scipy take them, or as
    /// compressed-tensors does
    #[arg(long, value_enum)]
    pub profile: Option<Indices>,
}

impl EncodingArgs {
    /// Element type of weights.
    pub fn values(&self) -> ValueType {
        self.values.map(ValueType::from).unwrap_or_default()
    }

    /// How sparse weights are stored.
    pub fn profile(&self) -> CsrProfile {
        self.profile.map(CsrProfile::from).unwrap_or_default()
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress sweep lenet-5.run
  compress sweep lenet-5.run --thresholds 0,1,2,3 --json

Takes the state at the end of the last sparse-vd phase, before fine-tuning. Weights that were removed earlier stay removed.")]
pub struct SweepArgs {
    /// Run folder of `compress`
    pub run: PathBuf,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Labelled images, where they are no longer where the run had them
    #[arg(long, short, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Thresholds on log alpha
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "T,..",
        allow_hyphen_values = true,
        default_value = "-1,0,1,2,3,4"
    )]
    pub thresholds: Vec<f64>,
    /// Threads; all cores by default
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress inspect lenet-5.sparse.safetensors --json
  compress inspect lenet-5.spvd
      where its bits go, too

zstd is tried on dense files up to 64 MiB, and a network on grids is packed even where its file is not.
Weights and ratio count the matrices and filters of the original network, biases apart, as papers do.")]
pub struct InspectArgs {
    /// A network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx
    pub file: PathBuf,
    /// Graph of a file that has none: a preset or a graph as JSON, which names the tensors of the file
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Option<String>,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress convert lenet-5.sparse.safetensors lenet-5.f16.safetensors --values f16
  compress convert lenet-5.sparse.safetensors for-torch.safetensors --profile interop
  compress convert lenet-5.sparse.safetensors bitmask.safetensors --profile bitmask
  compress convert lenet-5.sparse.safetensors dense.safetensors --dense
  compress convert lenet-5.sparse.safetensors lenet-5.spvd
  compress convert resnet.sparse.safetensors resnet.spvd --packing large
  compress convert lenet-5.spvd lenet-5.sparse.safetensors --values i8
  compress convert pruned-elsewhere.safetensors sparse.safetensors --network lenet-5
  compress convert resnet-20.onnx resnet-20.safetensors
  compress convert lenet-5.sparse.safetensors lenet-5.onnx

Without --dense, every weight that is smaller as CSR becomes CSR. A .spvd file and --values i8 take weights on grids, which a
`quantise` phase of the recipe makes; they lose nothing, nor does a 16-bit type that holds every point of the grids.
Metadata of the input, such as the recipe, goes along to a .safetensors file and is dropped from a .spvd file.")]
pub struct ConvertArgs {
    /// A network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx
    pub input: PathBuf,
    /// File to write, .safetensors, .spvd or .onnx
    pub output: PathBuf,
    /// Graph of a file that has none: a preset or a graph as JSON, which names the tensors of the file
    #[arg(long, value_name = "NAME|FILE")]
    pub network: Option<String>,
    #[command(flatten)]
    pub shapes: ShapeArgs,
    #[command(flatten)]
    pub encoding: EncodingArgs,
    /// Write every weight with its zeros
    #[arg(long)]
    pub dense: bool,
    /// Write sparse weights of an .onnx file as sparse initializers, which fewer runtimes read
    #[arg(long, conflicts_with = "dense")]
    pub sparse_initializers: bool,
    /// How a .spvd file is packed
    #[arg(long, value_enum)]
    pub packing: Option<Packing>,
    /// Keep the order of hidden units in a small .spvd file; sorted, they take fewer bytes and give the same outputs but for the
    /// order of sums
    #[arg(long)]
    pub keep_unit_order: bool,
    /// Overwrite an existing output
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress init resnet-50 --seed 1 --out resnet-50.safetensors
  compress init resnet-20 --input 1,28,28 --out resnet-20.onnx

Presets: lenet-300-100, lenet-5, vgg-like (CIFAR), resnet-20, resnet-20-mnist (28x28, stride 2 at first), mobilenet-v1, resnet-50.
Weights are normal with variance 2 / fan-in (He et al. 2015), biases zero, normalisations change nothing.")]
pub struct InitArgs {
    /// The preset
    pub name: String,
    /// Seed of the weights
    #[arg(long, default_value_t = 0, value_name = "S")]
    pub seed: u64,
    /// Channels, height and width of the input, for a convolutional preset
    #[arg(long, value_delimiter = ',', value_name = "C,H,W")]
    pub input: Option<Vec<usize>>,
    /// File to write, .safetensors or .onnx
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Overwrite an existing output
    #[arg(long)]
    pub force: bool,
}

/// How weights are chosen to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// By the dropout rates that training finds
    SparseVd,
    /// The smallest, in one shot
    Magnitude,
}

/// Among which weights the smallest are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PruningScope {
    /// All layers together
    Global,
    /// Each layer for itself
    Layer,
}

impl From<PruningScope> for Scope {
    fn from(scope: PruningScope) -> Self {
        match scope {
            PruningScope::Global => Self::Global,
            PruningScope::Layer => Self::Layer,
        }
    }
}

/// Which weights share a dropout rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Alpha {
    /// None: Sparse Variational Dropout
    Weight,
    /// Those of an output unit or filter
    Unit,
    /// Those of a layer: Gaussian dropout with a learned rate
    Layer,
}

impl From<Alpha> for Granularity {
    fn from(alpha: Alpha) -> Self {
        match alpha {
            Alpha::Weight => Self::Weight,
            Alpha::Unit => Self::Unit,
            Alpha::Layer => Self::Layer,
        }
    }
}

/// Element types of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Values {
    /// 32 bits: lossless
    F32,
    /// Half precision
    F16,
    /// bfloat16
    Bf16,
    /// Integers and a scale per tensor: lossless, for a network on grids
    I8,
}

impl From<Values> for ValueType {
    fn from(values: Values) -> Self {
        match values {
            Values::F32 => Self::F32,
            Values::F16 => Self::F16,
            Values::Bf16 => Self::Bf16,
            Values::I8 => Self::I8,
        }
    }
}

/// How sparse weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Indices {
    /// CSR with u16 where it suffices, u32 elsewhere; a preset's graph is named, not written out
    Compact,
    /// CSR with i32, and the graph in full
    Interop,
    /// sparse-bitmask, which compressed-tensors up to 0.14 reads, and the graph in full
    Bitmask,
}

impl From<Indices> for CsrProfile {
    fn from(profile: Indices) -> Self {
        match profile {
            Indices::Compact => Self::Compact,
            Indices::Interop => Self::Interop,
            Indices::Bitmask => Self::Bitmask,
        }
    }
}

/// How a packed file is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Packing {
    /// Small up to two million weights, zeros included, large beyond: where nothing is said
    Auto,
    /// Fewest bytes, some 50 ns for every weight, zeros included, to read
    Small,
    /// A few per cent more bytes, read many times faster and on all cores
    Large,
}

impl CompressArgs {
    /// The settings that take the place of the recipe's.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            seed: self.run.seed,
            threshold: self.threshold,
            kl_scale: self.kl_scale,
            alpha: self.alpha.map(Granularity::from),
            max_accuracy_drop: self.max_accuracy_drop,
            max_r2_drop: self.max_r2_drop,
            epochs: None,
        }
    }
}

impl TrainArgs {
    /// The settings that take the place of the recipe's.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            seed: self.run.seed,
            epochs: self.epochs,
            ..Overrides::default()
        }
    }
}

impl RunArgs {
    /// Number of threads; 0 is one for each core.
    pub fn threads(&self) -> usize {
        self.threads.map_or(0, usize::from)
    }
}
