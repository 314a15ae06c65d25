//! Rows of a table by their numbers.

use sparsevd_model::MOST_IDS;
use sparsevd_model::quantised::{self, RowLevels};

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::length;

/// Copies a row of a table for each id, over [`crate::Layout::Single`].
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Table,
    rows: usize,
    width: usize,
}

/// `[rows, width]`.
#[derive(Debug, Clone)]
enum Table {
    F32(Vec<f32>),
    I8(RowLevels),
}

impl Embedding {
    /// A table whose rows are integers of 8 bits times scales of theirs ([`quantised::row_levels`]) is held as these, which give back its
    /// numbers, but for the sign of zero.
    ///
    /// # Panics
    /// When `table` is not `rows` rows of `width` numbers, or has more rows than an `f32` can number.
    #[track_caller]
    pub fn new(table: Vec<f32>, [rows, width]: [usize; 2]) -> Self {
        length::check("the table", table.len(), [rows, width]);
        assert!(
            rows <= MOST_IDS,
            "rows of the table: expected at most {MOST_IDS}, got {rows}"
        );
        let table = match quantised::row_levels(&table, width) {
            Some(levels) => Table::I8(levels),
            None => Table::F32(table),
        };
        Self { table, rows, width }
    }

    /// Writes to `y` the row of each id of `x`.
    ///
    /// # Panics
    /// When `y` does not hold a row for each id, or an id is no integer from 0 to the number of rows less one.
    #[track_caller]
    pub fn run(&self, x: &[f32], y: &mut [f32]) {
        length::check("y", y.len(), [x.len(), self.width]);
        if y.is_empty() {
            return;
        }
        for (&id, y) in x.iter().zip(y.chunks_exact_mut(self.width)) {
            // Negative numbers and NaN become 0, which the comparison finds out.
            let row = id as usize;
            assert!(
                row as f32 == id && row < self.rows,
                "rows of the table: expected an id from 0 to {}, got {id}",
                self.rows - 1
            );
            let row_of = row * self.width..(row + 1) * self.width;
            match &self.table {
                Table::F32(table) => y.copy_from_slice(&table[row_of]),
                Table::I8(RowLevels { levels, scales }) => {
                    let scale = scales[row];
                    let levels = levels[row_of].iter();
                    y.iter_mut()
                        .zip(levels)
                        .for_each(|(y, level)| *y = f32::from(*level) * scale);
                }
            }
        }
    }
}

impl PackedKernel for Embedding {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y);
    }

    fn name(&self) -> String {
        match self.table {
            Table::F32(_) => "embedding-f32".into(),
            Table::I8(_) => "embedding-i8".into(),
        }
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, work.elements)
    }

    fn bytes(&self) -> usize {
        match &self.table {
            Table::F32(table) => size_of_val(table.as_slice()),
            Table::I8(RowLevels { levels, scales }) => {
                levels.len() + size_of_val(scales.as_slice())
            }
        }
    }
}
