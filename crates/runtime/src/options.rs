//! What a plan is made for.

use std::fmt;

use serde::Serialize;
use sparsevd_kernels::cost::Costs;
use sparsevd_kernels::{Isa, Precision};

/// Whether a plan may use the zeros of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum WeightMode {
    /// Sparse where that is faster.
    ///
    /// Layers for which sparse kernels are expected to be slower are dense.
    Sparse,
    /// Dense everywhere: the baseline.
    Dense,
}

impl fmt::Display for WeightMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sparse => "sparse",
            Self::Dense => "dense",
        })
    }
}

/// How sparse linear layers store their non-zeros. Sums are f32 for every type; convolutions and dense kernels always store f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum WeightType {
    /// As they are.
    #[default]
    F32,
    /// Eight significant bits.
    Bf16,
    /// Eleven significant bits.
    ///
    /// The largest weight must be at most 65504.
    F16,
    /// Integers up to 127 times a scale: exact for tensors that the file has like that.
    ///
    /// Other tensors are rounded to the nearest integer.
    I8,
    /// Fewer bytes where that is expected to be faster, else as they are.
    ///
    /// Layers whose weights come from memory: i8 where the file has them on such a grid, so that it is exact, else bf16, which rounds.
    Auto,
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I8 => "i8",
            Self::Auto => "auto",
        })
    }
}

impl From<Precision> for WeightType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
            Precision::F16 => Self::F16,
            Precision::I8 { .. } => Self::I8,
        }
    }
}

/// Whether layers that have int8 grids multiply int8. Layers of a file without such grids never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Int8Mode {
    /// No layer.
    Never,
    /// Layers for which that is expected to be faster.
    #[default]
    Faster,
    /// All layers for which there is a kernel, whatever its time.
    Always,
}

impl fmt::Display for Int8Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::Faster => "faster",
            Self::Always => "always",
        })
    }
}

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanOptions {
    /// Sparse or dense kernels.
    pub weights: WeightMode,
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Most threads that a run may use. A network too small for them gets fewer.
    pub threads: usize,
    /// Samples per run for which kernels are chosen. Runs of any other number of samples work too.
    pub batch: usize,
    /// Elements of the free dimension for which kernels are chosen, where the network has one. A plan is for lengths up to the next power of two;
    /// a session plans others when they come.
    pub length: usize,
    /// How sparse linear layers store their non-zeros.
    pub values: WeightType,
    /// Whether layers that have int8 grids multiply int8. A dense plan has none that do.
    pub int8: Int8Mode,
    /// Time of the kernels on this machine.
    pub costs: Costs,
}

impl Default for PlanOptions {
    /// A sparse plan for single samples on one thread with the best instruction set of the machine.
    fn default() -> Self {
        Self {
            weights: WeightMode::Sparse,
            isa: Isa::best(),
            threads: 1,
            batch: 1,
            length: 1,
            values: WeightType::F32,
            int8: Int8Mode::default(),
            costs: Costs::default(),
        }
    }
}
