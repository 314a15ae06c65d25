//! Sparse matrix times tiles of sixteen samples: batched linear layers and 1x1 convolutions.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::{Activation, Isa, LANES};

/// A sparse matrix packed for batches in [`crate::Layout::Tiled`].
#[derive(Debug, Clone)]
pub struct Spmm {
    csr: Csr,
    bias: Vec<f32>,
    rows: Range<usize>,
}

impl Spmm {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        Self::pack_rows(isa, weight, bias, 0..weight.rows())
    }

    /// Packs only `rows` of the matrix, so that threads may share one product by rows: each writes its own part of a tile's output.
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

    /// `y = act(W x + b)` over `x` = `[tiles][cols][16]` into `y` = `[tiles][rows][16]`. Threads may take tiles of one batch each.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], tiles: usize, act: Activation) {
        let (rows, cols) = (self.rows(), self.cols());
        assert_eq!(x.len(), tiles * cols * LANES, "elements of x");
        assert_eq!(y.len(), tiles * rows * LANES, "elements of y");
        for t in 0..tiles {
            for (r, row) in self.rows.clone().enumerate() {
                let mut acc = [self.bias[row]; LANES];
                let (columns, values) = self.csr.row(row);
                for (&c, &v) in columns.iter().zip(values) {
                    for (lane, a) in acc.iter_mut().enumerate() {
                        *a += v * x[(t * cols + c as usize) * LANES + lane];
                    }
                }
                y[(t * rows + r) * LANES..][..LANES].copy_from_slice(&acc.map(|v| act.apply(v)));
            }
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
        "scalar-csr-f32-1x16"
    }

    /// Bytes of packed weights, indices and biases that one run over a tile reads.
    pub fn bytes(&self) -> usize {
        self.csr.nonzeros() * 8 + self.rows() * 8
    }
}
