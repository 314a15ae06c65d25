//! Types of values, and how a sample of them is divided into rows.

use sparsevd_model::{DType, Shape};

/// The number of rows per sample. A row is what the kernels of a step take as a sample: a sequence of vectors has a row for each vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rows {
    /// Rows per sample; where `free`, rows for each element of the free dimension.
    pub count: usize,
    /// Whether the size of the free dimension multiplies `count`.
    pub free: bool,
}

impl Rows {
    /// A sample is one row.
    pub const ONE: Self = Self {
        count: 1,
        free: false,
    };

    /// Rows of `n` samples whose free dimension has `length` elements.
    #[inline]
    pub fn of(self, n: usize, length: usize) -> usize {
        n * self.count * if self.free { length } else { 1 }
    }
}

/// Type of a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValueType {
    pub dtype: DType,
    /// Shape per sample, where the free dimension has as many elements as the plan is made for.
    pub shape: Shape,
    /// The free dimension.
    pub free: Option<usize>,
}

impl ValueType {
    /// Elements of the free dimension; 1 where there is none.
    pub fn length(&self) -> usize {
        self.free
            .map_or(1, |dimension| self.shape.dims()[dimension])
    }

    /// The fewest rows into which a sample can be divided so that the length of a row is known: the dimensions up to the free one, or one row.
    pub fn rows(&self) -> Rows {
        match self.free {
            None => Rows::ONE,
            Some(dimension) => self.rows_before(dimension + 1),
        }
    }

    /// The dimensions before `axis` as rows.
    pub fn rows_before(&self, axis: usize) -> Rows {
        let before = self.shape.dims()[..axis].iter().enumerate();
        let known = before.filter(|(i, _)| Some(*i) != self.free);
        Rows {
            count: known.map(|(_, size)| size).product(),
            free: self.free.is_some_and(|dimension| dimension < axis),
        }
    }
}
