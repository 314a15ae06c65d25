//! How many weights share a dropout rate: the method and the two earlier ones it generalises.

use serde::{Deserialize, Serialize};

/// Which weights share one dropout rate alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Granularity {
    /// None: Sparse Variational Dropout.
    ///
    /// Every weight has its own rate (Molchanov et al. 2017).
    #[default]
    Weight,
    /// Those of an output unit or filter.
    ///
    /// Variational dropout with a rate per neuron (Kingma et al. 2015, section 3.4).
    Unit,
    /// Those of a layer: Gaussian dropout with a learned rate.
    ///
    /// Srivastava et al. 2014; Kingma et al. 2015, section 3.
    Layer,
}

impl Granularity {
    /// Number of weights per rate in a matrix of `rows` by `cols`.
    pub fn group(self, rows: usize, cols: usize) -> usize {
        match self {
            Self::Weight => 1,
            Self::Unit => cols.max(1),
            Self::Layer => (rows * cols).max(1),
        }
    }
}
