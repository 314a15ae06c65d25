//! What the programs `compress` and `run-sparse` do, as a library: a dense network becomes a sparse one in files, with a report on them.
//!
//! [`Compression`] takes a network, data and a recipe, trains, and gives a [`Compressed`] network, which writes itself and
//! measures what it wrote:
//!
//! ```no_run
//! use sparsevd_compressor::recipe::Recipe;
//! use sparsevd_pipeline::{Compression, Data, Silent};
//!
//! let network = sparsevd_onnx::load("models/lenet-5/model.safetensors")?;
//! let data = Data::load("data/mnist")?;
//! let recipe = Recipe::read("models/lenet-5/recipe.toml".as_ref())?;
//! let compressed = Compression::new(network, data, recipe).run(&mut Silent)?;
//! let report = compressed.save("lenet-5.sparse.safetensors")?;
//! println!("{} of {} weights left", report.summary.nonzeros, report.summary.weights);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`Observer`] in the place of [`Silent`] receives progress and may stop the run; [`Compression::in_folder`] keeps
//! checkpoints, from which [`Compression::resume`] goes on to the same bytes. A [`MethodComparison`] compresses by several methods, at the
//! same ratios and over several seeds, and puts their errors into one table.
//!
//! A session of the runtime takes [`InputSamples`] from files and gives [`OutputValues`], which a [`Comparison`] holds against expected
//! ones. With the feature `text`, a `TextEncoder` gives the embeddings of texts. [`Data::part`] gives [`LabelledSamples`] to score it on; a [`Benchmark`] times it by plans that [`KernelCosts`] of the machine chose.
#![forbid(unsafe_code)]

mod answers;
mod benchmark;
mod calibrate;
mod choices;
mod compare;
mod comparison;
mod compressed;
mod compression;
mod convert;
mod cosines;
mod data;
#[cfg(feature = "text")]
mod encoder_compression;
#[cfg(feature = "text")]
mod encoder_folder;
mod error;
mod file_report;
mod input;
mod input_samples;
mod inspect;
mod invariance;
mod kernel_costs;
mod labelled;
mod lock;
mod measure;
mod normalised;
mod output_values;
mod outputs;
mod posterior;
mod preprocessing;
mod pruning;
mod quantise_activations;
mod recipe;
mod run_folder;
mod sample_set;
mod search;
mod split;
mod sweep;
#[cfg(feature = "text")]
mod text_encoder;
mod threads;
mod train;
mod training;
mod training_log;

pub use benchmark::{Around, Benchmark, DenseShapes, IsaPeak, IsaReport, ProfileReport};
pub use choices::plan_choices;
pub use compare::{
    ComparedMethods, MethodComparison, MethodResult, PairedMethods, PruningMethod, SeedResult,
};
pub use comparison::{Check, Comparison};
pub use compressed::{Compressed, StagedResult};
pub use compression::Compression;
pub use convert::{Conversion, Converted, GridRounding, find_all_scales};
pub use cosines::Cosines;
pub use data::Data;
#[cfg(feature = "text")]
pub use encoder_compression::{CompressedEncoder, EncoderCompression};
#[cfg(feature = "text")]
pub use encoder_folder::{check_encoder_out, write_encoder};
pub use error::{NEEDS_GRID, PipelineError};
pub use file_report::report_on_file;
pub use input::{InputNetwork, ModelFile, absolute_source, model_name};
pub use input_samples::InputSamples;
pub use inspect::{Inspection, PackedInspection};
pub use kernel_costs::KernelCosts;
pub use labelled::{DataSplit, EvaluationReport, LabelledSamples};
pub use measure::Scores;
pub use output_values::{
    NamedPrediction, OutputValues, PredictedOutputs, Predictions, SamplePrediction, TopClass,
    write_outputs,
};
pub use outputs::{Form, Outputs, encoder_run, grid_run, int8_run};
pub use quantise_activations::{
    ActivationQuantisation, Agreement, Int8Scores, QuantisationReport, QuantisedActivations,
    QuantisedLayer, RoundedTables, TrainedActivations,
};
pub use recipe::{DEFAULT_GRIDS, DEFAULT_RECIPE, FoundRecipe, ONLY_FINE_TUNING};
pub use run_folder::{RecordedRun, RunFolder, frame_files, report_path};
pub use sparsevd_compressor::trainer::{Observer, Silent};
pub use sweep::{Sweep, SweepPoint, SweepScore, check_thresholds};
#[cfg(feature = "text")]
pub use text_encoder::{Embeddings, TextEncoder};
pub use train::{ScoreReport, Trained, Training, TrainingReport};
pub use training_log::TrainingLog;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
