//! The weights of a layer that are left, for passes that compute with those alone: training on its own zeros.

mod conv;
mod linear;
mod weights;

pub(crate) use conv::{SparseConv, borders};
pub(crate) use linear::SparseLinear;
pub(crate) use weights::Vectors;

/// Which weights of a layer are left, and where they read and write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sparse {
    Linear(SparseLinear),
    Conv(SparseConv),
}

impl Sparse {
    pub fn conv(&self) -> Option<&SparseConv> {
        match self {
            Self::Conv(conv) => Some(conv),
            Self::Linear(_) => None,
        }
    }

    pub fn linear(&self) -> Option<&SparseLinear> {
        match self {
            Self::Linear(linear) => Some(linear),
            Self::Conv(_) => None,
        }
    }
}
