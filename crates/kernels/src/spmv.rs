//! Sparse matrix times one vector: linear layers at batch 1.

use std::ops::Range;

use sparsevd_model::Csr;

use crate::activation::Bounds;
use crate::isa::multiversion;
use crate::spmm::bias_or_zero;
#[cfg(target_arch = "x86_64")]
use crate::table::Table;
use crate::values::{Bf16, F16, Value, Values, level};
use crate::{Activation, Isa};

pub use crate::input_sparse::{ByActivity, InputSparse, active};

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
        Self::pack_values(isa, weight, bias, rows, Values::F32)
    }

    /// As [`Spmv::pack_rows`] with non-zeros stored as `values`: every one is what [`Values::rounded`] makes of it.
    ///
    /// # Panics
    /// As [`Spmv::pack_rows`].
    #[track_caller]
    pub fn pack_values(
        isa: Isa,
        weight: &Csr,
        bias: Option<&[f32]>,
        rows: Range<usize>,
        values: Values,
    ) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        assert!(
            rows.end <= weight.rows(),
            "rows {rows:?} of {}",
            weight.rows()
        );
        let weight = &*values.of(weight);
        #[cfg(target_arch = "x86_64")]
        let table = Table::pack(isa, weight, &bias, rows.clone(), values).map(Kernel::Table);
        #[cfg(not(target_arch = "x86_64"))]
        let table = None;
        Self {
            isa,
            rows: rows.len(),
            cols: weight.cols(),
            kernel: table.unwrap_or_else(|| Kernel::Rows(Rows::pack(weight, &bias, rows, values))),
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
    pub fn name(&self) -> String {
        let kernel = match &self.kernel {
            Kernel::Rows(rows) => format!("csr-{}-1x4", rows.values.name()),
            #[cfg(target_arch = "x86_64")]
            Kernel::Table(table) => table.name(),
        };
        format!("{}-{kernel}", self.isa)
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

/// Plain CSR, with columns of two bytes where they fit.
///
/// # Invariants
/// - `starts` never falls, begins with 0 and ends with the number of values
/// - columns are below `cols`
#[derive(Debug, Clone)]
struct Rows {
    cols: usize,
    starts: Vec<u32>,
    columns: Columns,
    values: Stored,
    bias: Vec<f32>,
}

#[derive(Debug, Clone)]
enum Columns {
    Short(Vec<u16>),
    Long(Vec<u32>),
}

#[derive(Debug, Clone)]
enum Stored {
    F32(Vec<f32>),
    Bf16(Vec<Bf16>),
    F16(Vec<F16>),
    I8(Vec<i8>, f32),
}

impl Stored {
    fn new(weights: &[f32], values: Values) -> Self {
        let weights = weights.iter().copied();
        match values {
            Values::F32 => Self::F32(weights.collect()),
            Values::Bf16 => Self::Bf16(weights.map(Bf16::of).collect()),
            Values::F16 => Self::F16(weights.map(F16::of).collect()),
            Values::I8 { step } => Self::I8(weights.map(|w| level(w, step)).collect(), step),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::Bf16(_) => "bf16",
            Self::F16(_) => "f16",
            Self::I8(..) => "i8",
        }
    }
}

impl Rows {
    fn pack(weight: &Csr, bias: &[f32], rows: Range<usize>, values: Values) -> Self {
        let starts = &weight.crow_indices()[rows.start..=rows.end];
        let range = starts[0] as usize..starts[starts.len() - 1] as usize;
        let columns = &weight.col_indices()[range.clone()];
        Self {
            cols: weight.cols(),
            starts: starts.iter().map(|s| s - starts[0]).collect(),
            columns: if weight.cols() <= 1 << 16 {
                Columns::Short(columns.iter().map(|&c| c as u16).collect())
            } else {
                Columns::Long(columns.to_vec())
            },
            values: Stored::new(&weight.values()[range], values),
            bias: bias[rows].to_vec(),
        }
    }

    fn bytes(&self) -> usize {
        let columns = match &self.columns {
            Columns::Short(c) => size_of_val(&c[..]),
            Columns::Long(c) => size_of_val(&c[..]),
        };
        let values = match &self.values {
            Stored::F32(v) => size_of_val(&v[..]),
            Stored::Bf16(v) => size_of_val(&v[..]),
            Stored::F16(v) => size_of_val(&v[..]),
            Stored::I8(v, _) => size_of_val(&v[..]),
        };
        (self.starts.len() + self.bias.len()) * 4 + columns + values
    }
}

fn dot_rows(isa: Isa, rows: &Rows, x: &[f32], y: &mut [f32], bounds: Bounds) {
    match &rows.values {
        Stored::F32(v) => dot_values::<f32>(isa, rows, v, 1.0, x, y, bounds),
        Stored::Bf16(v) => dot_values::<Bf16>(isa, rows, v, 1.0, x, y, bounds),
        Stored::F16(v) => dot_values::<F16>(isa, rows, v, 1.0, x, y, bounds),
        Stored::I8(v, step) => dot_values::<i8>(isa, rows, v, *step, x, y, bounds),
    }
}

multiversion!(fn dot_values[V: Value](rows: &Rows, values: &[V], step: f32, x: &[f32], y: &mut [f32], bounds: Bounds) = dot_values_body::<V>;);

#[inline(always)]
fn dot_values_body<V: Value>(
    rows: &Rows,
    values: &[V],
    step: f32,
    x: &[f32],
    y: &mut [f32],
    bounds: Bounds,
) {
    match &rows.columns {
        Columns::Short(columns) => dot_columns(rows, columns, values, step, x, y, bounds),
        Columns::Long(columns) => dot_columns(rows, columns, values, step, x, y, bounds),
    }
}

/// The number of a column.
trait Column: Copy {
    fn index(self) -> usize;
}

impl Column for u16 {
    #[inline(always)]
    fn index(self) -> usize {
        self.into()
    }
}

impl Column for u32 {
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }
}

#[inline(always)]
fn dot_columns<C: Column, V: Value>(
    rows: &Rows,
    columns: &[C],
    values: &[V],
    step: f32,
    x: &[f32],
    y: &mut [f32],
    bounds: Bounds,
) {
    assert!(x.len() == rows.cols && y.len() == rows.bias.len());
    for (row, (y, bias)) in y.iter_mut().zip(&rows.bias).enumerate() {
        let range = rows.starts[row] as usize..rows.starts[row + 1] as usize;
        let (columns, values) = (&columns[range.clone()], &values[range]);
        // SAFETY: columns are below `cols`, which `Csr` checks, and `x` has that many elements.
        let at = |c: C| unsafe { *x.get_unchecked(c.index()) };
        // Four sums, because one would wait for each addition in turn.
        let mut acc = [0.0; 4];
        let (columns, last_columns) = columns.as_chunks::<4>();
        let (values, last_values) = values.as_chunks::<4>();
        for (c, v) in columns.iter().zip(values) {
            for i in 0..4 {
                acc[i] += v[i].get(step) * at(c[i]);
            }
        }
        for (c, v) in last_columns.iter().zip(last_values) {
            acc[0] += v.get(step) * at(*c);
        }
        *y = bounds.apply(bias + ((acc[0] + acc[1]) + (acc[2] + acc[3])));
    }
}
