//! The command line.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use sparsevd_compressor::Scope;
use sparsevd_compressor::objective::ClassWeights;
use sparsevd_compressor::recipe::{
    Goal, Overrides, PruneBy, QuantiseActivations, RangeChoice, Recipe, Validation,
};
use sparsevd_compressor::report::RunRecord;
use sparsevd_compressor::variational::Granularity;
use sparsevd_format::{CsrProfile, TableOptions, ValueType};
use sparsevd_model::quantised::RowBits;
use sparsevd_model::{Graph, Preprocessing, terminal};
use sparsevd_pipeline::{Data, PruningMethod, RunFolder};

use sparsevd_cli::{
    CompletionsArgs, GraphArgs, ManArgs, MemoryArgs, PixelArgs, ShapeArgs, VerbosityArgs,
};

/// Makes neural networks sparse by Sparse Variational Dropout.
///
/// Every weight gets a dropout rate of its own; weights whose rate diverges are removed, the rest is fine-tuned and written as
/// a sparse safetensors file that `run-sparse` runs, and, where it ends on grids, as a packed .spvd file of the fewest bytes.
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
      in one shot, without data, packed by rounding; with --data, errors and training on grids, and with --recipe fine-tuning too
  compress resnet.onnx --method magnitude --sparsity 0.9 --no-bench
      the same files in less time: nothing is timed for the report, which says so
  compress resnet.onnx --calibrate --sparsity 0.6 --data inputs.npz
      in one shot, with a repair of the weights that stay, by the first 512 inputs; without labels and training
  compress all-MiniLM-L6-v2 --calibrate 1024 --sparsity 0.6 --text sentences.txt --out MiniLM-sparse
      an encoder from its Hugging Face folder, to a folder that `run-sparse embed` takes
  compress all-MiniLM-L6-v2 --calibrate --sparsity 0.8 --recipe distil.toml --text sentences.txt --out MiniLM-sparse
      the same, then trained towards the embeddings of the dense one
  compress classifier.onnx --data inputs.npz --min-agreement 98.5
      without labels: the network is the teacher, and the result must answer 98.5 % of the inputs as it does
  compress mine.safetensors --posterior posterior.safetensors
      trained elsewhere, say on GPUs: docs/posterior.md
  compress models/lenet-5/model.safetensors --resume lenet-5.run
      goes on after Ctrl-C
  compress sweep lenet-5.run
      what other thresholds would have given
  compress compare models/lenet-5/model.safetensors --ratios 50,100 --seeds 0,1,2
      Sparse VD beside gradual pruning

A file named like a subcommand is meant by ./train. Results go to stdout, progress to stderr where that is a terminal. Only help and errors
have colours, on terminals; NO_COLOR=1 switches them off.
Exit code 0: done; 1: the result loses more accuracy than promised, or misses --ratio, --weights or --bytes (it is written all the
same; where its samples are too few to tell, that is said, and the code is 0); 2: the command line or a file is at fault; 130, 143, 129:
ended by Ctrl-C, SIGTERM or SIGHUP, with a checkpoint to go on from where a network was trained."
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
    Compress(Box<CompressArgs>),
    /// Writes a preset network with seeded weights
    Init(InitArgs),
    /// Trains a dense network from scratch
    Train(TrainArgs),
    /// Pruning methods at the same ratios and epochs, over seeds
    Compare(CompareArgs),
    /// Validation error and ratio of a run over thresholds
    Sweep(SweepArgs),
    /// A page that shows a run, weights going to zero, curves, and what came of it, or a network
    Report(ReportArgs),
    /// Layers, shapes, density, and bytes by encoding of a file
    Inspect(InspectArgs),
    /// Rewrites a network: dense or sparse, other value and index types
    Convert(ConvertArgs),
    /// Grids of bytes for what layers read, so that `run-sparse` multiplies int8
    QuantiseActivations(QuantiseActivationsArgs),
    /// Completions for a shell
    Completions(CompletionsArgs),
    /// Man pages
    Man(ManArgs),
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
        None => {
            CompressArgs::from_arg_matches(&matches).map(|args| Command::Compress(Box::new(args)))
        }
    });
    parsed.unwrap_or_else(|error| error.exit())
}

#[derive(Debug, Args)]
pub struct CompressArgs {
    /// The network to compress: a safetensors file, an index or a folder of its shards, or an .onnx; its content decides which.
    /// What is guessed about it is said on stderr and in `warnings` of the report
    pub model: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
    #[command(flatten)]
    pub run: RunArgs,
    /// Weights whose log alpha is above this are removed; the recipe's, else 3
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub threshold: Option<f64>,
    /// How weights are chosen to go
    #[arg(long, value_enum)]
    pub method: Option<Method>,
    /// Prune in one shot by what the layers read of this many training inputs, 512 where no number is given: the weights whose
    /// removal changes the network's outputs least, as measured layer by layer, go, and the others are set anew. No labels and no training, some minutes;
    /// --recipe fine-tunes after it
    #[arg(
        long,
        value_name = "INPUTS",
        num_args = 0..=1,
        default_missing_value = "512",
        requires = "sparsity",
        conflicts_with_all = ["method", "posterior", "goal"]
    )]
    pub calibrate: Option<NonZeroUsize>,
    /// Compress an encoder of texts by the lines of this file. MODEL is its Hugging Face folder, and the result such a folder. --calibrate prunes it, --recipe trains
    /// it towards its own embeddings; with both, training comes second. A run that was interrupted goes on with the same command
    #[arg(
        long,
        value_name = "FILE",
        requires = "out",
        conflicts_with_all = ["data", "resume", "method", "posterior", "goal", "budget", "int8", "min_agreement", "max_r2_drop", "max_class_drop", "validation_from_test"]
    )]
    pub text: Option<PathBuf>,
    /// Train towards the embeddings of the encoder in this folder, and compare with it: the dense one, where MODEL is sparse already
    #[arg(long, value_name = "FOLDER", requires = "text")]
    pub teacher: Option<PathBuf>,
    /// Share of the weights that --method magnitude or --calibrate removes: 0.9 leaves one in ten
    #[arg(
        long,
        value_name = "S",
        required_if_eq("method", "magnitude"),
        conflicts_with = "goal"
    )]
    pub sparsity: Option<f64>,
    /// Where --method magnitude looks for the smallest weights; `global` where it is not said
    #[arg(long, value_enum, requires = "sparsity", conflicts_with = "calibrate")]
    pub scope: Option<Scope>,
    /// A first convolution, unless it has half of the weights, and depthwise ones stay dense; this prunes the first too, and with
    /// --method magnitude the depthwise ones
    #[arg(long, requires = "sparsity")]
    pub every_layer: bool,
    /// Layers that lose no weights, named as `compress inspect` names them or by their weight tensors; the recipe's where it is not said
    #[arg(
        long,
        value_name = "LAYER,..",
        value_delimiter = ',',
        conflicts_with = "posterior"
    )]
    pub keep_dense: Vec<String>,
    /// Prune by a posterior that was trained elsewhere: a safetensors file of NAME.theta with NAME.log_sigma2 or
    /// NAME.log_alpha (docs/posterior.md)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "goal", "sparsity"])]
    pub posterior: Option<PathBuf>,
    /// Factor on the KL term: above 1 sparser, below 1 more careful
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    pub kl_scale: Option<f64>,
    /// Which weights share a dropout rate
    #[arg(long, value_enum)]
    pub alpha: Option<Granularity>,
    /// Points of validation error that the result may lose; the recipe's, else 0.5. Of 0, none that is significant (docs/method.md)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub max_accuracy_drop: Option<f64>,
    /// Percent of validation inputs to which the result must answer as the dense network does, of data without labels; 99.5 where
    /// neither this nor the recipe says another
    #[arg(
        long,
        value_name = "PERCENT",
        allow_negative_numbers = true,
        conflicts_with = "max_accuracy_drop"
    )]
    pub min_agreement: Option<f64>,
    /// R2 on validation that the result of a regression may lose; the recipe's, else 0.02
    #[arg(long, value_name = "R2", allow_negative_numbers = true)]
    pub max_r2_drop: Option<f64>,
    /// Points of recall that any class may lose; the recipe's, else not limited
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub max_class_drop: Option<f64>,
    /// End with int8 layers, as `quantise-activations` makes them and `run-sparse` multiplies them; `quantise_activations` in a recipe has settings for that
    #[arg(long)]
    pub int8: bool,
    /// Leave one weight in R, instead of the fewest that keep the promise
    #[arg(long, value_name = "R", group = "goal")]
    pub ratio: Option<f64>,
    /// Leave N weights
    #[arg(long, value_name = "N", group = "goal")]
    pub weights: Option<usize>,
    /// Leave as many weights as fit into a packed file of N bytes
    #[arg(long, value_name = "N", group = "goal")]
    pub bytes: Option<u64>,
    /// Minutes of training after which no other number of weights is tried
    #[arg(long, value_name = "MIN")]
    pub budget: Option<f64>,
    /// Write no page about the result, NAME.report.html, beside its report
    #[arg(long)]
    pub no_report: bool,
    /// Time no plan for the report, which then has no latencies and says so; a large network takes seconds to time. The networks that are
    /// written are the same. `run-sparse bench` times them later
    #[arg(long, conflicts_with = "text")]
    pub no_bench: bool,
    #[command(flatten)]
    pub encoding: EncodingArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress train lenet-300-100 --data data/mnist --out models/lenet-300-100/model.safetensors
  compress train lenet-5 --data data/mnist --recipe train.toml --epochs 20
  compress train resnet-20 --input 1,28,28 --data data/mnist
  compress train resnet-8 --data cifar-10 --recipe models/resnet-8-cifar10/train.toml
  compress train network.json --data set.npz
  compress train mlp --data houses.csv --target price
      two hidden layers of 100; mlp-300-100 says others. Inputs and outputs are those of the data; mlp:13,64,1 says all sizes

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
    /// Epochs of every phase; the recipe's, else 12, or for small sets as many as make about 2,000 steps
    #[arg(long, value_name = "N")]
    pub epochs: Option<u32>,
}

/// What every command that trains takes.
#[derive(Debug, Clone, Args)]
pub struct TrainingArgs {
    /// Images with labels: a folder of IDX files (plain or .gz), of CIFAR's binary batches, of train/ and test/ class folders with PNGs or of class folders
    /// alone, an .npz, a safetensors file, a table as .csv or a folder of train.csv and test.csv; the recipe's where it names one.
    /// Targets of an .npz or a safetensors file that are floating-point numbers, of one or two dimensions, make a regression, as do
    /// those of a table with a decimal point. A file of inputs alone, such as an .npz of x_train and x_test, or of x, has no labels: a network is then compressed by
    /// its own answers. Without test images no test error is reported
    #[arg(long, short, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Column of a table that holds the targets; the last where it is not said
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Recipe; recipe.toml beside the model where there is one, else a default that is printed
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Samples to choose settings by and to measure the result on: another data set, a share of the training set (0.1), or a number
    /// of its samples, at most a sixth; the recipe's, else 10000
    #[arg(long, value_name = "PATH|SHARE|N", allow_negative_numbers = true)]
    pub validation: Option<Validation>,
    /// Take N test images for validation, for a network that was trained on every training image
    #[arg(long, value_name = "N", conflicts_with = "validation")]
    pub validation_from_test: Option<usize>,
    /// How much each class counts in the loss; the recipe's, else by its samples
    #[arg(long, value_enum)]
    pub class_weights: Option<ClassWeights>,
    /// Threads; all cores by default. The result does not depend on it
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    #[command(flatten)]
    pub verbosity: VerbosityArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pixels: PixelArgs,
}

/// What training and compressing have in common.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub training: TrainingArgs,
    /// File to write; ./NAME.sparse.safetensors for a compressed network and ./NAME.safetensors for a trained one where it
    /// is not said. A recipe that ends with a `quantise` phase makes a .spvd beside it, as do --posterior, --calibrate and
    /// --method magnitude, and either may be named
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Overwrite an existing output, and begin anew in a run folder that has a checkpoint
    #[arg(long)]
    pub force: bool,
    /// Seed of everything random; the recipe's, else 0
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Folder for checkpoints and frames; ./NAME.run, or ./NAME.train.run, where it is not said; OUT.encoder.run with --text
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub run: Option<PathBuf>,
    /// Go on from the checkpoint of a run folder, with the recipe and data that the run began with
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress compare models/lenet-300-100/model.safetensors
      Sparse VD beside gradual pruning by magnitude and by Fisher information: 20, 50 and 100 times fewer weights, seed 0
  compress compare models/lenet-5/model.safetensors --methods sparse-vd --ratios 100,150,200,280 --seeds 0,1,2,3,4
      error against ratio of one method
  compress compare mine.safetensors --data path/to/data --seeds 0,1,2 --json
      each seed, all counts and the recipe of every method

All methods have the same recipe: the same epochs, augmentation and distillation. Its search is left out. With Sparse VD the phases up
to the posterior are trained once for a seed; where it leaves fewer weights than asked for, so does the result. Bytes are of grids whose
scale is relative to a unit: the posterior's sigma with Sparse VD, a sixth of the root mean square of the weights otherwise. Of several
grids of the recipe each network takes the coarsest that keeps the promise.
The same command goes on after an interruption. Ratios, seeds and methods may be added: what is finished is not trained again.")]
pub struct CompareArgs {
    /// The network to compress
    pub model: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
    /// The methods; the others are compared with the first
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "METHOD,..",
        default_value = "sparse-vd,gradual-magnitude,fisher"
    )]
    pub methods: Vec<PruningMethod>,
    /// Weights of the network over weights that are to be left
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "R,..",
        allow_negative_numbers = true,
        default_value = "20,50,100"
    )]
    pub ratios: Vec<f64>,
    /// Seeds of everything random
    #[arg(long, value_delimiter = ',', value_name = "S,..", default_value = "0")]
    pub seeds: Vec<u64>,
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Folder of the comparison, with the networks; ./NAME.compare where it is not said
    #[arg(long, value_name = "DIR")]
    pub run: Option<PathBuf>,
}

/// How a network is written.
#[derive(Debug, Clone, Args)]
pub struct EncodingArgs {
    /// Element type of the weights in a .safetensors file; f32 where it is not said. Biases go along where it costs them nothing
    #[arg(long, value_enum)]
    pub values: Option<ValueType>,
    /// How sparse weights are stored there: in the fewest bytes (compact, where it is not said), as torch and scipy take them, or as
    /// compressed-tensors does
    #[arg(long, value_enum)]
    pub profile: Option<CsrProfile>,
}

impl EncodingArgs {
    /// Element type of weights.
    pub fn values(&self) -> ValueType {
        self.values.unwrap_or_default()
    }

    /// How sparse weights are stored.
    pub fn profile(&self) -> CsrProfile {
        self.profile.unwrap_or_default()
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
    /// The data set, where it is no longer where the run had it
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
    /// Threads; all cores by default. The result does not depend on it
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress report lenet-5.run
      writes lenet-5.report.html
  compress report lenet-5.report.json --html page.html
      without the weights over training, which are in the run folder
  compress report lenet-5.run --gif lenet-5.gif
  compress report lenet-5.spvd
      layers, weights, bytes and speed of a network, whose run is not needed

The page is one file that loads nothing from elsewhere. `compress` writes it beside every result, unless --no-report is given.")]
pub struct ReportArgs {
    /// Run folder of `compress`, a report that it wrote, or a network
    #[arg(value_name = "RUN|REPORT|NETWORK")]
    pub of: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
    /// File to write; ./NAME.report.html where it is not said
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the weights over training as an animated picture too, 800 pixels wide
    #[arg(long, value_name = "FILE")]
    pub gif: Option<PathBuf>,
    /// Time no plan of a network, where one is named: its page has no latencies then. A run and a report have those of their compression
    #[arg(long)]
    pub no_bench: bool,
    /// Write the weights before training and at its end as a picture too
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress inspect lenet-5.sparse.safetensors --json
  compress inspect lenet-5.spvd
      where its bits go, too

zstd is tried on dense files up to 64 MiB with up to 4,096 nodes, and a network on grids is packed even where its file is not.
Weights and ratio count the matrices and filters of the original network, biases apart, as papers do.")]
pub struct InspectArgs {
    /// A network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx
    pub file: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
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
  compress convert pruned-elsewhere.onnx packed.spvd --grid
  compress convert pruned-elsewhere.onnx packed.spvd --grid --data path/to/data

Without --dense, every weight that is smaller as CSR becomes CSR. A .spvd file and --values i8 take weights on grids, of a file of any
kind, and lose nothing, nor does a 16-bit type that holds every point of the grids. A `quantise` phase of the recipe puts weights on
grids, --grid rounds those that are on none.
Grids of int8 layers go along to a .safetensors file, to a .spvd file where all rows of a weight have one scale, and to an .onnx file as QuantizeLinear and DequantizeLinear, which onnxruntime runs; a
quantised .onnx file brings its own.
Metadata of the input, such as the recipe, goes along to a .safetensors file and is dropped from a .spvd file.")]
pub struct ConvertArgs {
    /// A network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx
    pub input: PathBuf,
    /// File to write, .safetensors, .spvd or .onnx
    pub output: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
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
    /// Round weights that are on no grid to one of their layer, so that a .spvd file and --values i8 take them; batch normalisation is
    /// folded into the layer before it, whatever the output
    #[arg(long)]
    pub grid: bool,
    /// Train all weights onto grids on data, with labels or without, as the default recipe ends, on the coarser of its grids; zeros stay. Writes OUTPUT, a report in
    /// NAME.grid.report.json and the run in NAME.grid.run beside it; after Ctrl-C the same command goes on
    #[arg(long, short, value_name = "PATH", requires = "grid",
        conflicts_with_all = ["dense", "packing", "keep_unit_order", "sparse_initializers"])]
    pub data: Option<PathBuf>,
    /// Time no plan for the report of --data, which then has no latencies and says so
    #[arg(long, requires = "data")]
    pub no_bench: bool,
    #[command(flatten)]
    pub pixels: PixelArgs,
    /// Overwrite an existing output and the report of an earlier --data; never the input, nor a run that is not finished
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress init resnet-50 --seed 1 --out resnet-50.safetensors
  compress init resnet-20 --input 1,28,28 --out resnet-20.onnx

Presets: lenet-300-100, lenet-5, vgg-like (CIFAR), resnet-8, resnet-20, resnet-20-mnist (28x28, stride 2 at first), mobilenet-v1, resnet-50,
and mlp:784,300,100,10 with the sizes of a multi-layer perceptron.
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

/// Bits of the integers of a table of embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableBits {
    /// From -7 to 7, two to a byte
    #[value(name = "4")]
    Four,
    /// From -127 to 127
    #[value(name = "8")]
    Eight,
}

impl From<TableBits> for RowBits {
    fn from(bits: TableBits) -> Self {
        match bits {
            TableBits::Four => Self::Four,
            TableBits::Eight => Self::Eight,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  compress quantise-activations lenet-5.sparse.safetensors --data data/mnist
  compress quantise-activations resnet-8.safetensors --data inputs.npz --keep-f32 conv1,fc -o resnet-8.int8.safetensors
  compress quantise-activations lenet-5.spvd --data data/mnist -o lenet-5.int8.spvd
  compress quantise-activations resnet-8.safetensors --data cifar-10 --epochs 4
      weights are trained while layers read rounded numbers
  compress quantise-activations minilm-80 --dynamic --text sentences.txt -o minilm-80-int8
      an encoder from its Hugging Face folder, to such a folder, with a scale for each token
  compress quantise-activations minilm-80 --dynamic --tables=4 --max-error 0.2 --text sentences.txt -o minilm-80-int4
      its table of words in integers of 4 bits, too: the smallest folder

Weights of an int8 layer are rounded to integers of at most 127 times a scale of their row; zeros stay. Weights that the file has on such a grid stay as
they are. In a .spvd file all rows of a weight have one scale. Batch normalisation is folded before.
Layers stay f32 that --keep-f32 names, whose weights are not sparse, and, those of the largest errors first, as many as --max-error needs.
`run-sparse` multiplies int8 where that should be faster (--int8); docs/int8.md has the formulas.")]
pub struct QuantiseActivationsArgs {
    /// A network: a safetensors file, sparse or dense, an index or a folder of its shards, a packed .spvd or an .onnx; with --text, the Hugging Face folder
    /// of an encoder
    pub model: PathBuf,
    #[command(flatten)]
    pub graph: GraphArgs,
    /// Samples: a data set as `compress` takes it, with labels or without
    #[arg(long, short, value_name = "PATH", required_unless_present = "text")]
    pub data: Option<PathBuf>,
    /// Samples of an encoder of texts: the lines of this file. The result is such a folder again
    #[arg(long, value_name = "FILE", requires_all = ["dynamic", "out"], conflicts_with_all = ["data", "range", "network", "shapes", "mean", "std", "scale"])]
    pub text: Option<PathBuf>,
    /// Linear layers take a scale for each vector that they read, such as that of a token, when they run, and no grid of samples
    #[arg(long)]
    pub dynamic: bool,
    /// Round tables of embeddings, too: to integers of 8 bits, or of BITS, times a scale for each row. The file stores the integers. A table that 4 bits
    /// would change too much has 8
    #[arg(
        long,
        value_name = "BITS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "8",
        conflicts_with = "epochs"
    )]
    pub tables: Option<TableBits>,
    /// Samples that ranges are found on, and layers that stay f32, drawn from those to train on where there are such
    #[arg(long, default_value_t = NonZeroUsize::new(QuantiseActivations::default().samples).unwrap_or(NonZeroUsize::MIN), value_name = "N")]
    pub samples: NonZeroUsize,
    /// Most samples that the result is compared on with the network in f32: those to test on, else others; 1000, or of texts 200
    #[arg(long, value_name = "N")]
    pub held_out: Option<NonZeroUsize>,
    /// Which of the numbers that a layer reads its bytes reach
    #[arg(long, value_enum, default_value_t = RangeChoice::Mse)]
    pub range: RangeChoice,
    /// Layers that stay f32, by the name of the node or of its weight
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    pub keep_f32: Vec<String>,
    /// Largest error of the outputs on the samples that ranges are found on, relative to how far outputs are from the mean of their sample, before any training
    #[arg(long, default_value_t = QuantiseActivations::default().max_error, value_name = "E")]
    pub max_error: f64,
    /// Train the weights for N epochs while layers read the numbers of their bytes, beside the network in f32; the zeros of weights stay. The better of rounded
    /// and trained weights on validation samples is written. A run that was interrupted goes on with the same command
    #[arg(long, value_name = "N", conflicts_with_all = ["text", "dynamic"])]
    pub epochs: Option<NonZeroU32>,
    /// Learning rate of --epochs at its highest
    #[arg(long, value_name = "RATE", default_value_t = QuantiseActivations::default().lr, requires = "epochs")]
    pub lr: f64,
    /// Samples that say which weights are better: another data set, a share of the training set (0.1), or a number of its samples, at most a sixth; 10000 where
    /// nothing is said
    #[arg(
        long,
        value_name = "PATH|SHARE|N",
        allow_negative_numbers = true,
        requires = "epochs"
    )]
    pub validation: Option<Validation>,
    /// Take N test images for that, for a network that was trained on every training image
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "validation",
        requires = "epochs"
    )]
    pub validation_from_test: Option<usize>,
    #[command(flatten)]
    pub pixels: PixelArgs,
    /// Threads; all cores where none is named
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// File to write, .safetensors, or .spvd where weights and biases are on grids already; NAME.int8.safetensors where none is named; with --text, a folder
    #[arg(long, short, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Overwrite an existing output
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How weights are chosen to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// By the dropout rates that training finds
    SparseVd,
    /// Weights of the smallest magnitude, in one shot
    Magnitude,
    /// Weights of the smallest magnitude, gradually in the recipe's epochs, to --ratio, --weights or the `weights` of its fine-tuning
    GradualMagnitude,
    /// The same for weights of the least Fisher information, which estimates the loss that removing a weight costs
    Fisher,
}

impl Method {
    /// By what it prunes gradually, where it does.
    pub fn gradual(self) -> Option<PruneBy> {
        match self {
            Self::SparseVd | Self::Magnitude => None,
            Self::GradualMagnitude => Some(PruneBy::Magnitude),
            Self::Fisher => Some(PruneBy::Fisher),
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
            threshold: self.threshold,
            kl_scale: self.kl_scale,
            alpha: self.alpha,
            max_accuracy_drop: self.max_accuracy_drop,
            min_agreement: self.min_agreement,
            max_r2_drop: self.max_r2_drop,
            max_class_drop: self.max_class_drop,
            keep_dense: (!self.keep_dense.is_empty()).then(|| self.keep_dense.clone()),
            goal: Goal::of(self.ratio, self.weights, self.bytes),
            int8: self.int8,
            ..self.run.overrides()
        }
    }
}

impl TrainArgs {
    /// The settings that take the place of the recipe's.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            epochs: self.epochs,
            ..self.run.overrides()
        }
    }
}

/// What is said where no data set is named.
pub const NO_DATA: &str = "no data set: expected --data PATH, or `data` in a recipe, got neither";

impl RunArgs {
    /// The folder of the run.
    pub fn folder(&self, default: String) -> anyhow::Result<RunFolder> {
        let Some(resumed) = &self.resume else {
            let path = self.run.clone().unwrap_or_else(|| default.into());
            return Ok(match self.force {
                true => RunFolder::overwrite(path),
                false => RunFolder::new(path),
            });
        };
        let folder = RunFolder::resume(resumed)?;
        if folder.record().is_none() {
            // Says what is missing.
            RunRecord::read(resumed)?;
        }
        Ok(folder)
    }

    /// Reads the data set of a run, where one is named; a table by the columns that `preprocessing` stores, where it does.
    pub fn data(
        &self,
        folder: &RunFolder,
        recipe: &Recipe,
        preprocessing: Option<&Preprocessing>,
    ) -> anyhow::Result<Option<Data>> {
        let path = folder.data_path(self.training.data.as_deref(), recipe);
        self.training.data(path, preprocessing)
    }

    /// The settings that take the place of the recipe's.
    fn overrides(&self) -> Overrides {
        Overrides {
            seed: self.seed,
            ..self.training.overrides()
        }
    }
}

impl TrainingArgs {
    /// Sets how pixels and the columns of a table become the input of a graph.
    pub fn set_pixels(&self, graph: &mut Graph, data: &Data) -> anyhow::Result<()> {
        set_pixels(&self.pixels, graph, data)
    }

    /// Reads the data set at a path, where there is one; a table by the columns that `preprocessing` stores, where it does.
    pub fn data(
        &self,
        path: Option<&Path>,
        preprocessing: Option<&Preprocessing>,
    ) -> anyhow::Result<Option<Data>> {
        let options = TableOptions {
            target: self.target.as_deref(),
            table: preprocessing.and_then(|p| p.table.as_ref()),
        };
        Ok(path
            .map(|path| Data::load_with(path, &options))
            .transpose()?)
    }

    /// The settings that take the place of the recipe's.
    pub fn overrides(&self) -> Overrides {
        let from_test = self.validation_from_test.map(Validation::from_test);
        Overrides {
            validation: self.validation.clone().or(from_test),
            class_weights: self.class_weights,
            ..Overrides::default()
        }
    }
}

/// Sets how pixels and the columns of a table become the input of a graph: as the command line says, over what is stored.
pub fn set_pixels(pixels: &PixelArgs, graph: &mut Graph, data: &Data) -> anyhow::Result<()> {
    if pixels.are_given() {
        if let Some(input) = graph.inputs.iter().find(|i| i.dtype.is_id()) {
            let name = terminal::name(&input.name);
            bail!("--mean, --std, --scale: expected pixels, got input `{name}` of ids");
        }
        let Some(stored) = data.preprocessing_or_default(graph.preprocessing.take()) else {
            bail!(
                "--mean, --std, --scale: expected a data set of pixels from 0 to 255, got numbers, which are the input as they are"
            );
        };
        graph.preprocessing = Some(pixels.over(stored));
    }
    Ok(())
}
