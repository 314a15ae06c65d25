//! Sparse matrix times one vector: linear layers at batch 1.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::{Activation, Isa};

/// A sparse matrix packed for one vector at a time.
#[derive(Debug, Clone)]
pub struct Spmv {
    csr: Csr,
    bias: Vec<f32>,
    rows: Range<usize>,
}

impl Spmv {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        Self::pack_rows(isa, weight, bias, 0..weight.rows())
    }

    /// Packs only `rows` of the matrix, so that threads may share one product: each writes its own part of `y`.
    /// `bias` is that of the whole matrix.
    ///
    /// # Panics
    /// When the rows do not exist or the bias does not have one element per row of the matrix.
    #[track_caller]
    pub fn pack_rows(_isa: Isa, weight: &Csr, bias: Option<&[f32]>, rows: Range<usize>) -> Self {
        assert!(
            rows.end <= weight.rows(),
            "rows {rows:?} of {}",
            weight.rows()
        );
        let bias = bias.map_or_else(|| vec![0.0; weight.rows()], <[f32]>::to_vec);
        assert_eq!(bias.len(), weight.rows(), "elements of the bias");
        Self {
            csr: weight.clone(),
            bias,
            rows,
        }
    }

    /// `y = act(W x + b)`.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per packed row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], act: Activation) {
        assert_eq!(x.len(), self.cols(), "elements of x");
        assert_eq!(y.len(), self.rows(), "elements of y");
        for (y, row) in y.iter_mut().zip(self.rows.clone()) {
            let (columns, values) = self.csr.row(row);
            let dot: f32 = columns
                .iter()
                .zip(values)
                .map(|(&c, v)| v * x[c as usize])
                .sum();
            *y = act.apply(self.bias[row] + dot);
        }
    }

    /// Rows of the packed part.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.csr.cols()
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "scalar-csr-f32-1x1"
    }

    /// Bytes of packed weights, indices and biases that one run reads.
    pub fn bytes(&self) -> usize {
        self.csr.nonzeros() * 8 + self.rows() * 8
    }
}

/// A sparse matrix by columns, for one vector that itself has many zeros: the columns of zero inputs are skipped.
///
/// A zero input times an infinite or NaN weight counts as zero here.
#[derive(Debug, Clone)]
pub struct InputSparse {
    starts: Vec<u32>,
    row_indices: Vec<u32>,
    values: Vec<f32>,
    bias: Vec<f32>,
}

impl InputSparse {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(_isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        let bias = bias.map_or_else(|| vec![0.0; weight.rows()], <[f32]>::to_vec);
        assert_eq!(bias.len(), weight.rows(), "elements of the bias");
        let mut columns: Vec<Vec<(u32, f32)>> = vec![Vec::new(); weight.cols()];
        for row in 0..weight.rows() {
            let (cols, values) = weight.row(row);
            for (&c, &v) in cols.iter().zip(values) {
                columns[c as usize].push((row as u32, v));
            }
        }
        let mut starts = vec![0];
        let (mut row_indices, mut values) = (Vec::new(), Vec::new());
        for column in columns {
            row_indices.extend(column.iter().map(|e| e.0));
            values.extend(column.iter().map(|e| e.1));
            starts.push(values.len() as u32);
        }
        Self {
            starts,
            row_indices,
            values,
            bias,
        }
    }

    /// `y = act(W x + b)`, in time proportional to the non-zeros under non-zero inputs.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], act: Activation) {
        assert_eq!(x.len(), self.cols(), "elements of x");
        assert_eq!(y.len(), self.rows(), "elements of y");
        y.copy_from_slice(&self.bias);
        for (c, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            for i in self.starts[c] as usize..self.starts[c + 1] as usize {
                y[self.row_indices[i] as usize] += self.values[i] * x;
            }
        }
        y.iter_mut().for_each(|y| *y = act.apply(*y));
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.bias.len()
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.starts.len() - 1
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> &'static str {
        "scalar-csc-f32-1x1"
    }

    /// Bytes of packed weights, indices and biases that one run reads when no input is zero.
    pub fn bytes(&self) -> usize {
        (self.values.len() * 2 + self.starts.len() + self.bias.len()) * 4
    }
}

/// Share of `x` that is not zero, for the choice between [`Spmv`] and [`InputSparse`].
pub fn active_fraction(x: &[f32]) -> f64 {
    x.iter().filter(|x| **x != 0.0).count() as f64 / x.len().max(1) as f64
}
