//! Sparse matrix times tiles of sixteen samples: batched linear layers and 1x1 convolutions.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::cost::Costs;
use crate::kernel::{CallSplit, Operands, PackedKernel, Workload};
use crate::sell::{self, Entry, LineStrides, Sell};
use crate::{Clamp, Isa, LANES, Precision, length, select, tiles};

/// A sparse matrix packed for batches in [`crate::Layout::Tiled`].
#[derive(Debug, Clone)]
pub struct Spmm {
    isa: Isa,
    rows: usize,
    cols: usize,
    precision: Precision,
    sell: Sell,
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

    /// Packs only `rows` of the matrix, so that threads can split a product by rows: a run writes only these rows. `bias` is that of the whole matrix.
    ///
    /// # Panics
    /// When `rows` is out of range or the bias does not have one element per row of the matrix.
    #[track_caller]
    pub fn pack_rows(isa: Isa, weight: &Csr, bias: Option<&[f32]>, rows: Range<usize>) -> Self {
        Self::pack_with(isa, weight, bias, rows, Precision::F32)
    }

    /// As [`Spmm::pack_rows`], with non-zeros rounded to `precision` ([`Precision::rounded`]).
    ///
    /// # Panics
    /// As [`Spmm::pack_rows`].
    #[track_caller]
    pub fn pack_with(
        isa: Isa,
        weight: &Csr,
        bias: Option<&[f32]>,
        rows: Range<usize>,
        precision: Precision,
    ) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        let tile = select::spmm_tile(isa, weight);
        let weight = &*precision.of(weight);
        let entries: Vec<Vec<Entry>> = rows
            .clone()
            .map(|row| {
                let (columns, stored) = weight.row(row);
                let entry = |(&c, &weight): (&u32, &f32)| Entry {
                    block: c as usize / tile.columns,
                    offset: c as usize % tile.columns * LANES,
                    weight,
                };
                columns.iter().zip(stored).map(entry).collect()
            })
            .collect();
        let blocks = weight.cols().div_ceil(tile.columns).max(1);
        let bases: Vec<usize> = (0..blocks).map(|b| b * tile.columns * LANES).collect();
        let bias = &bias[rows.clone()];
        let sell = Sell::pack(&entries, bias, &bases, LANES, tile.lines, precision);
        Self {
            isa,
            rows: rows.len(),
            cols: weight.cols(),
            precision,
            sell,
        }
    }

    /// `y = clamp(W x + b)` for `n` samples: `x` is `[tiles][cols][16]`, `y` `[tiles][rows][16]`. Threads can split a batch by tiles.
    ///
    /// Lanes of `y` past the last sample may keep their values.
    ///
    /// # Panics
    /// When `x` or `y` has another length.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], n: usize, clamp: Clamp) {
        let tiles = tiles(n);
        length::check("x", x.len(), [tiles, self.cols, LANES]);
        length::check("y", y.len(), [tiles, self.rows, LANES]);
        if y.is_empty() {
            return;
        }
        let strides = LineStrides {
            lines: tiles,
            x_line: self.cols * LANES,
            y_line: self.rows * LANES,
            strips: 1,
            x_strip: 0,
            y_strip: 0,
            narrow: (1..=LANES / 2).contains(&(n % LANES)),
        };
        // SAFETY: `Csr` keeps columns below `cols`, packed rows are below `rows`, and the slices hold `tiles` tiles of a line for each.
        unsafe {
            sell::run(
                self.isa,
                &self.sell,
                x.as_ptr(),
                y.as_mut_ptr(),
                strides,
                clamp.bounds(),
            );
        }
    }

    /// For each column, whether it has a non-zero in the packed rows.
    pub fn read(&self) -> Vec<bool> {
        let mut read = vec![false; self.cols];
        for at in self.sell.read() {
            read[at / LANES] = true;
        }
        read
    }

    /// Rows of the packed part.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// `{isa}-{format}-{dtype}-{tile}`.
    pub fn name(&self) -> String {
        format!("{}-sell4-{}-4x16", self.isa, self.precision.name())
    }

    /// Bytes of packed weights, offsets, row numbers and biases that one run over a tile reads.
    pub fn bytes(&self) -> usize {
        self.sell.bytes()
    }
}

/// The bias, or zeros where there is none.
///
/// # Panics
/// When it does not have one element per row.
#[track_caller]
pub(crate) fn bias_or_zero(bias: Option<&[f32]>, rows: usize) -> Vec<f32> {
    let bias = bias.map_or_else(|| vec![0.0; rows], <[f32]>::to_vec);
    assert_eq!(bias.len(), rows, "elements of the bias");
    bias
}

impl PackedKernel for Spmm {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y, operands.n, operands.clamp);
    }

    fn call_split(&self) -> Option<CallSplit> {
        Some(CallSplit::Samples(LANES))
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.blocks(|n| costs.spmm(work.size, n))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn reads(&self) -> Option<Vec<bool>> {
        Some(self.read())
    }
}
