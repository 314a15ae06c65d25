//! Sparse matrix times one vector: linear layers at batch 1.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::activation::Bounds;
use crate::isa::multiversion;
use crate::spmm::bias_or_zero;
#[cfg(target_arch = "x86_64")]
use crate::table::Table;
use crate::{Activation, Isa};

/// A sparse matrix packed for one vector at a time.
#[derive(Debug, Clone)]
pub struct Spmv {
    isa: Isa,
    rows: usize,
    cols: usize,
    kernel: Kernel,
}

#[derive(Debug, Clone)]
enum Kernel {
    Rows(Rows),
    #[cfg(target_arch = "x86_64")]
    Table(Table),
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
    pub fn pack_rows(isa: Isa, weight: &Csr, bias: Option<&[f32]>, rows: Range<usize>) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        assert!(
            rows.end <= weight.rows(),
            "rows {rows:?} of {}",
            weight.rows()
        );
        #[cfg(target_arch = "x86_64")]
        let table = Table::pack(isa, weight, &bias, rows.clone()).map(Kernel::Table);
        #[cfg(not(target_arch = "x86_64"))]
        let table = None;
        Self {
            isa,
            rows: rows.len(),
            cols: weight.cols(),
            kernel: table.unwrap_or_else(|| Kernel::Rows(Rows::pack(weight, &bias, rows))),
        }
    }

    /// `y = act(W x + b)`.
    ///
    /// # Panics
    /// When `x` does not have one element per column or `y` one per packed row.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], act: Activation) {
        assert_eq!(x.len(), self.cols, "elements of x");
        assert_eq!(y.len(), self.rows, "elements of y");
        match &self.kernel {
            Kernel::Rows(rows) => dot_rows(self.isa, rows, x, y, act.bounds()),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.run(x, y, act.bounds()),
        }
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
    pub fn name(&self) -> &'static str {
        match (&self.kernel, self.isa.name()) {
            #[cfg(target_arch = "x86_64")]
            (Kernel::Table(table), _) => table.name(),
            (_, "avx512") => "avx512-csr-f32-1x4",
            (_, "avx2") => "avx2-csr-f32-1x4",
            (_, "neon") => "neon-csr-f32-1x4",
            (_, _) => "scalar-csr-f32-1x4",
        }
    }

    /// Bytes of packed weights, indices and biases that one run reads.
    pub fn bytes(&self) -> usize {
        match &self.kernel {
            Kernel::Rows(rows) => rows.bytes(),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.bytes(),
        }
    }
}

/// Plain CSR.
///
/// # Invariants
/// - `starts` never falls, begins with 0 and ends with the number of values
/// - columns are below `cols`
#[derive(Debug, Clone)]
struct Rows {
    cols: usize,
    starts: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
    bias: Vec<f32>,
}

impl Rows {
    fn pack(weight: &Csr, bias: &[f32], rows: Range<usize>) -> Self {
        let starts = &weight.crow_indices()[rows.start..=rows.end];
        let range = starts[0] as usize..starts[starts.len() - 1] as usize;
        Self {
            cols: weight.cols(),
            starts: starts.iter().map(|s| s - starts[0]).collect(),
            columns: weight.col_indices()[range.clone()].to_vec(),
            values: weight.values()[range].to_vec(),
            bias: bias[rows].to_vec(),
        }
    }

    fn bytes(&self) -> usize {
        (self.starts.len() + self.columns.len() + self.values.len() + self.bias.len()) * 4
    }
}

multiversion!(fn dot_rows(rows: &Rows, x: &[f32], y: &mut [f32], bounds: Bounds) = dot_rows_body;);

#[inline(always)]
fn dot_rows_body(rows: &Rows, x: &[f32], y: &mut [f32], bounds: Bounds) {
    assert!(x.len() == rows.cols && y.len() == rows.bias.len());
    for (row, (y, bias)) in y.iter_mut().zip(&rows.bias).enumerate() {
        let range = rows.starts[row] as usize..rows.starts[row + 1] as usize;
        let (columns, values) = (&rows.columns[range.clone()], &rows.values[range]);
        // SAFETY: columns are below `cols`, which `Csr` checks, and `x` has that many elements.
        let at = |c: u32| unsafe { *x.get_unchecked(c as usize) };
        // Four sums, because one would wait for each addition in turn.
        let mut acc = [0.0; 4];
        let (columns, last_columns) = columns.as_chunks::<4>();
        let (values, last_values) = values.as_chunks::<4>();
        for (c, v) in columns.iter().zip(values) {
            for i in 0..4 {
                acc[i] += v[i] * at(c[i]);
            }
        }
        for (c, v) in last_columns.iter().zip(last_values) {
            acc[0] += v * at(*c);
        }
        *y = bounds.apply(bias + ((acc[0] + acc[1]) + (acc[2] + acc[3])));
    }
}

/// A sparse matrix by columns, for one vector that itself has many zeros: the columns of zero inputs are skipped.
///
/// A zero input times an infinite or NaN weight counts as zero here.
///
/// # Invariants
/// - `starts` never falls, begins with 0 and ends with the number of entries
/// - rows of entries are below the number of rows
#[derive(Debug, Clone)]
pub struct InputSparse {
    isa: Isa,
    starts: Vec<u32>,
    entries: Vec<(u32, f32)>,
    bias: Vec<f32>,
}

impl InputSparse {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        let mut columns: Vec<Vec<(u32, f32)>> = vec![Vec::new(); weight.cols()];
        for row in 0..weight.rows() {
            let (cols, values) = weight.row(row);
            for (&c, &v) in cols.iter().zip(values) {
                columns[c as usize].push((row as u32, v));
            }
        }
        let mut starts = vec![0];
        let mut entries = Vec::with_capacity(weight.nonzeros());
        for column in columns {
            entries.extend(column);
            starts.push(entries.len() as u32);
        }
        Self {
            isa,
            starts,
            entries,
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
        add_columns(self.isa, self, x, y, act.bounds());
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
        match self.isa.name() {
            "avx512" => "avx512-csc-f32-1x1",
            "avx2" => "avx2-csc-f32-1x1",
            "neon" => "neon-csc-f32-1x1",
            _ => "scalar-csc-f32-1x1",
        }
    }

    /// Bytes of packed weights, indices and biases that one run reads when no input is zero.
    pub fn bytes(&self) -> usize {
        (self.entries.len() * 2 + self.starts.len() + self.bias.len()) * 4
    }
}

multiversion!(fn add_columns(w: &InputSparse, x: &[f32], y: &mut [f32], bounds: Bounds) = add_columns_body;);

#[inline(always)]
fn add_columns_body(w: &InputSparse, x: &[f32], y: &mut [f32], bounds: Bounds) {
    const BLOCK: usize = 32;
    assert!(x.len() + 1 == w.starts.len() && y.len() == w.bias.len());
    y.copy_from_slice(&w.bias);
    let mut column = |c: usize| {
        // SAFETY: `c` is below the number of columns, and `starts` has one more; starts are at most the number of entries.
        let entries = unsafe {
            let (start, end) = (*w.starts.get_unchecked(c), *w.starts.get_unchecked(c + 1));
            w.entries.get_unchecked(start as usize..end as usize)
        };
        for &(row, weight) in entries {
            // SAFETY: rows of entries are below the number of rows, the length of `y`.
            unsafe { *y.get_unchecked_mut(row as usize) += weight * x[c] };
        }
    };
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for (b, block) in blocks.iter().enumerate() {
        let mut active = 0_u32;
        for (i, x) in block.iter().enumerate() {
            active |= u32::from(*x != 0.0) << i;
        }
        while active != 0 {
            column(b * BLOCK + active.trailing_zeros() as usize);
            active &= active - 1;
        }
    }
    for (i, x) in rest.iter().enumerate() {
        if *x != 0.0 {
            column(blocks.len() * BLOCK + i);
        }
    }
    for y in y {
        *y = bounds.apply(*y);
    }
}

/// Share of `x` that is not zero, for the choice between [`Spmv`] and [`InputSparse`].
pub fn active_fraction(x: &[f32]) -> f64 {
    x.iter().filter(|x| **x != 0.0).count() as f64 / x.len().max(1) as f64
}
