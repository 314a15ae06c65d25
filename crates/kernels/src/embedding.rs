//! Rows of a table by their numbers.

use sparsevd_model::MOST_IDS;

use crate::cost::Costs;
use crate::kernel::{Operands, PackedKernel, Workload};
use crate::length;

/// Copies a row of a table for each id, over [`crate::Layout::Single`].
#[derive(Debug, Clone)]
pub struct Embedding {
    /// `[rows, width]`.
    table: Vec<f32>,
    rows: usize,
    width: usize,
}

impl Embedding {
    /// # Panics
    /// When `table` is not `rows` rows of `width` numbers, or has more rows than an `f32` can number.
    #[track_caller]
    pub fn new(table: Vec<f32>, [rows, width]: [usize; 2]) -> Self {
        length::check("the table", table.len(), [rows, width]);
        assert!(
            rows <= MOST_IDS,
            "rows of the table: expected at most {MOST_IDS}, got {rows}"
        );
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
            y.copy_from_slice(&self.table[row * self.width..][..self.width]);
        }
    }
}

impl PackedKernel for Embedding {
    fn run(&self, operands: Operands<'_>) {
        Self::run(self, operands.x, operands.y);
    }

    fn name(&self) -> String {
        "embedding-f32".into()
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, work.elements)
    }

    fn bytes(&self) -> usize {
        self.table.len() * size_of::<f32>()
    }
}
