//! Sparse matrix times one vector that itself has many zeros: column by column, without the columns of zero inputs.

use sparsevd_model::Csr;

use crate::clamp::Bounds;
use crate::cost::Costs;
use crate::isa::multiversion;
use crate::kernel::{Operands, PackedKernel, Workload, each_sample};
use crate::spmm::bias_or_zero;
use crate::spmv::Spmv;
use crate::{Clamp, Isa, length};

/// A sparse matrix packed by columns.
///
/// A column is stored in steps of four entries, whose row indices take one load where they fit in sixteen bits. Where the length of a column is no
/// multiple of four, the last step has entries of weight 0 in spare rows behind those of the matrix.
///
/// Unlike in other kernels, a zero input times an infinite or NaN weight is zero.
///
/// # Invariants
/// - `starts` begins with 0, does not decrease and ends with the number of steps
/// - row indices are below the number of rows and `SPARE` together
#[derive(Debug, Clone)]
pub struct InputSparse {
    isa: Isa,
    /// First step of each column.
    starts: Vec<u32>,
    rows: Rows,
    weights: Vec<[f32; STEP]>,
    bias: Vec<f32>,
}

/// Entries of a step.
const STEP: usize = 4;

/// Rows behind those of the matrix. Columns take turns with them, so that no addition waits for the one before.
const SPARE: usize = 32;

#[derive(Debug, Clone)]
enum Rows {
    /// Four in a word, the first lowest.
    Short(Vec<u64>),
    Long(Vec<[u32; STEP]>),
}

impl InputSparse {
    /// Packs `weight`, `[out, in]`, and its bias (zero where there is none).
    ///
    /// # Panics
    /// When the bias does not have one element per row.
    #[track_caller]
    pub fn pack(isa: Isa, weight: &Csr, bias: Option<&[f32]>) -> Self {
        let rows: Vec<u32> = (0..weight.rows() as u32).collect();
        Self::pack_rows(isa, weight, bias, &rows)
    }

    /// Packs some rows of `weight` in that order. They have the same outputs, to the bit, as among all rows.
    ///
    /// # Panics
    /// When the bias does not have one element per row of `weight`, or a row is not one of its rows.
    #[track_caller]
    pub fn pack_rows(isa: Isa, weight: &Csr, bias: Option<&[f32]>, rows: &[u32]) -> Self {
        let bias = bias_or_zero(bias, weight.rows());
        let bias: Vec<f32> = rows.iter().map(|&row| bias[row as usize]).collect();
        let mut columns: Vec<Vec<(u32, f32)>> = vec![Vec::new(); weight.cols()];
        for (i, &row) in rows.iter().enumerate() {
            let (cols, values) = weight.row(row as usize);
            for (&c, &v) in cols.iter().zip(values) {
                columns[c as usize].push((i as u32, v));
            }
        }
        let mut spare = (0..SPARE as u32).cycle().map(|i| bias.len() as u32 + i);
        let (mut starts, mut rows, mut weights) = (vec![0], Vec::new(), Vec::new());
        for column in &mut columns {
            let whole = column.len().next_multiple_of(STEP);
            column.resize_with(whole, || (spare.next().unwrap_or(0), 0.0));
            for step in column.as_chunks::<STEP>().0 {
                rows.push(step.map(|(row, _)| row));
                weights.push(step.map(|(_, weight)| weight));
            }
            starts.push(weights.len() as u32);
        }
        let short = |rows: &[u32; STEP]| {
            let words = rows.iter().rev();
            words.fold(0, |packed, &row| packed << 16 | u64::from(row))
        };
        Self {
            isa,
            starts,
            rows: if bias.len() + SPARE <= 1 << 16 {
                Rows::Short(rows.iter().map(short).collect())
            } else {
                Rows::Long(rows)
            },
            weights,
            bias,
        }
    }

    /// `y = clamp(W x + b)` for one vector, in time proportional to the non-zeros in columns of non-zero inputs.
    ///
    /// # Panics
    /// When `x` does not have one element per column, `y` one per row, or `scratch` fewer than [`InputSparse::scratch_len`].
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], scratch: &mut [f32], clamp: Clamp) {
        length::check("x", x.len(), [self.cols()]);
        length::check("y", y.len(), [self.rows()]);
        length::check_at_least("the scratch", scratch.len(), self.scratch_len());
        let sums = &mut scratch[..self.scratch_len()];
        add_columns(self.isa, self, x, y, sums, clamp.bounds());
    }

    /// Elements of scratch that a run needs.
    pub fn scratch_len(&self) -> usize {
        self.rows() + SPARE
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
    pub fn name(&self) -> String {
        format!("{}-csc-f32-1x4", self.isa)
    }

    /// Bytes of packed weights, indices and biases that one run reads when no input is zero.
    pub fn bytes(&self) -> usize {
        let rows = match &self.rows {
            Rows::Short(r) => size_of_val(&r[..]),
            Rows::Long(r) => size_of_val(&r[..]),
        };
        size_of_val(&self.weights[..]) + rows + (self.starts.len() + self.bias.len()) * 4
    }
}

multiversion!(
    fn add_columns(
        w: &InputSparse,
        x: &[f32],
        y: &mut [f32],
        sums: &mut [f32],
        bounds: Bounds,
    ) = add_columns_body;
);

#[inline(always)]
fn add_columns_body(w: &InputSparse, x: &[f32], y: &mut [f32], sums: &mut [f32], bounds: Bounds) {
    match &w.rows {
        Rows::Short(rows) => add_steps(w, rows, x, sums),
        Rows::Long(rows) => add_steps(w, rows, x, sums),
    }
    for (y, sum) in y.iter_mut().zip(sums) {
        *y = bounds.apply(*sum);
    }
}

/// The row indices of a step.
trait StepRows: Copy {
    fn get(self) -> [usize; STEP];
}

impl StepRows for u64 {
    #[inline(always)]
    fn get(self) -> [usize; STEP] {
        let q = self as usize;
        [q & 0xffff, q >> 16 & 0xffff, q >> 32 & 0xffff, q >> 48]
    }
}

impl StepRows for [u32; STEP] {
    #[inline(always)]
    fn get(self) -> [usize; STEP] {
        self.map(|row| row as usize)
    }
}

#[inline(always)]
fn add_steps<R: StepRows>(w: &InputSparse, rows: &[R], x: &[f32], sums: &mut [f32]) {
    const BLOCK: usize = 32;
    assert!(x.len() + 1 == w.starts.len() && sums.len() == w.bias.len() + SPARE);
    assert!(rows.len() == w.weights.len());
    let (of_rows, spare) = sums.split_at_mut(w.bias.len());
    of_rows.copy_from_slice(&w.bias);
    spare.fill(0.0);
    let mut column = |c: usize, x: f32| {
        // SAFETY: `c` is below `x.len()`, and `starts` has one more element. Starts do not decrease and are at most the number of steps (invariants), which
        // is the length of `rows` and `weights`.
        let (rows, weights) = unsafe {
            let (start, end) = (*w.starts.get_unchecked(c), *w.starts.get_unchecked(c + 1));
            let range = start as usize..end as usize;
            (
                rows.get_unchecked(range.clone()),
                w.weights.get_unchecked(range),
            )
        };
        for (rows, weights) in rows.iter().zip(weights) {
            let at = rows.get();
            for i in 0..STEP {
                // SAFETY: row indices are below the length of `sums` (invariants, and the assertion above).
                let sum = unsafe { sums.get_unchecked_mut(at[i]) };
                *sum = fused(weights[i], x, *sum);
            }
        }
    };
    let (blocks, rest) = x.as_chunks::<BLOCK>();
    for (b, block) in blocks.iter().enumerate() {
        let mut active = 0_u32;
        for (i, x) in block.iter().enumerate() {
            active |= u32::from(*x != 0.0) << i;
        }
        while active != 0 {
            let i = active.trailing_zeros() as usize;
            column(b * BLOCK + i, block[i]);
            active &= active - 1;
        }
    }
    for (i, x) in rest.iter().enumerate() {
        if *x != 0.0 {
            column(blocks.len() * BLOCK + i, *x);
        }
    }
}

/// `a * b + c`, fused if the compile target has the instruction.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_feature = "fma") {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// A matrix packed twice, which multiplies all inputs or only the non-zero ones, depending on their number in the vector.
#[derive(Debug, Clone)]
pub struct ByActivity {
    all: Spmv,
    active: InputSparse,
    most: usize,
}

impl ByActivity {
    /// `active` multiplies vectors with at most `most` non-zeros, `all` the others.
    ///
    /// # Panics
    /// When the two matrices differ in shape.
    #[track_caller]
    pub fn new(all: Spmv, active: InputSparse, most: usize) -> Self {
        let shape = [all.rows(), all.cols()];
        assert_eq!(shape, [active.rows(), active.cols()], "shape");
        Self { all, active, most }
    }

    /// `y = clamp(W x + b)` for one vector: `x` is `[in]`, `y` `[out]`.
    ///
    /// # Panics
    /// As [`InputSparse::run`].
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32], scratch: &mut [f32], clamp: Clamp) {
        if count_active(self.active.isa, x) <= self.most {
            self.active.run(x, y, scratch, clamp);
        } else {
            self.all.run(x, y, clamp);
        }
    }

    /// The names of both kernels.
    pub fn name(&self) -> String {
        format!("{} | {}", self.active.name(), self.all.name())
    }

    /// The largest number of non-zeros of a vector whose zeros are skipped.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes of both packings.
    pub fn bytes(&self) -> usize {
        self.active.bytes() + self.all.bytes()
    }
}

/// The share of elements of `x` that are not zero.
pub fn active(isa: Isa, x: &[f32]) -> f64 {
    count_active(isa, x) as f64 / x.len().max(1) as f64
}

multiversion!(fn count_active(x: &[f32]) -> usize = count_active_body;);

#[inline(always)]
fn count_active_body(x: &[f32]) -> usize {
    let active: u32 = x.iter().map(|v| u32::from(*v != 0.0)).sum();
    active as usize
}

impl PackedKernel for ByActivity {
    fn run(&self, operands: Operands<'_>) {
        each_sample(operands.x, operands.y, operands.n, |x, y| {
            Self::run(self, x, y, operands.scratch, operands.clamp);
        });
    }

    fn scratch_len(&self) -> usize {
        self.active.scratch_len()
    }

    fn order(&self) -> Option<&[u32]> {
        self.all.order()
    }

    fn name(&self) -> String {
        Self::name(self)
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        let skipping = costs.input_sparse(work.size, self.most);
        work.each(skipping.min(costs.spmv(work.size)))
    }

    fn bytes(&self) -> usize {
        Self::bytes(self)
    }

    fn is_sparse(&self) -> bool {
        true
    }

    fn skips_zero_inputs(&self) -> bool {
        true
    }
}
