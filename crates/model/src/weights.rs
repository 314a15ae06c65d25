//! Weights: dense or CSR.

use crate::{Csr, ModelError, Shape};

/// A dense tensor in C order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dense {
    /// Dimensions.
    pub shape: Shape,
    /// Elements in C order.
    pub values: Vec<f32>,
}

impl Dense {
    /// A tensor of the given shape.
    ///
    /// # Panics
    /// When the number of values is not that of the shape.
    #[track_caller]
    pub fn new(shape: impl Into<Shape>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.elements(), values.len(), "values of a tensor {shape}");
        Self { shape, values }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let values = vec![0.0; shape.elements()];
        Self { shape, values }
    }
}

/// A weight or bias tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Weights {
    /// All elements.
    Dense(Dense),
    /// Only the non-zeros, by row.
    Csr(Csr),
}

impl From<Dense> for Weights {
    fn from(dense: Dense) -> Self {
        Self::Dense(dense)
    }
}

impl From<Csr> for Weights {
    fn from(csr: Csr) -> Self {
        Self::Csr(csr)
    }
}

impl Weights {
    /// A weight as CSR where that takes fewer bytes: six per non-zero (f32 and u16) and four per row, against four per element.
    pub fn smaller(dense: Dense) -> Self {
        let csr = Csr::from_dense(&dense);
        if 6 * csr.nonzeros() + 4 * (csr.rows() + 1) < 4 * dense.values.len() {
            Self::Csr(csr)
        } else {
            Self::Dense(dense)
        }
    }

    /// Dense shape.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Dense(d) => d.shape.clone(),
            Self::Csr(c) => c.shape().clone(),
        }
    }

    /// Number of elements that are not zero.
    pub fn nonzeros(&self) -> usize {
        match self {
            Self::Dense(d) => d.values.iter().filter(|v| **v != 0.0).count(),
            Self::Csr(c) => c.nonzeros(),
        }
    }

    /// All elements, zeros included.
    pub fn to_dense(&self) -> Dense {
        match self {
            Self::Dense(d) => d.clone(),
            Self::Csr(c) => c.to_dense(),
        }
    }

    /// The elements that are stored.
    pub fn values(&self) -> &[f32] {
        match self {
            Self::Dense(d) => &d.values,
            Self::Csr(c) => c.values(),
        }
    }

    /// Checks that every stored element is a finite number.
    ///
    /// # Errors
    /// The first element that is NaN or infinite.
    pub fn check_finite(&self) -> Result<(), ModelError> {
        match self.values().iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(index) => Err(ModelError::NotFinite {
                tensor: String::new(),
                got: self.values()[index],
                index,
            }),
        }
    }
}
