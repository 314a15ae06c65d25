//! Rows of a table by their numbers.

use sparsevd_model::MOST_IDS;
use sparsevd_model::quantised::{self, RowBits, RowLevels};

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
    I8 {
        levels: Vec<i8>,
        scales: Vec<f32>,
    },
    /// Two integers to a byte ([`quantised::pack_int4`]).
    I4 {
        bytes: Vec<u8>,
        scales: Vec<f32>,
    },
}

impl Embedding {
    /// A table whose rows are integers of 4 or 8 bits times scales of theirs ([`quantised::row_levels`]) is held as these, which give back its
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
            Some(RowLevels {
                bits,
                levels,
                scales,
            }) => match bits {
                RowBits::Eight => Table::I8 { levels, scales },
                RowBits::Four => Table::I4 {
                    bytes: quantised::pack_int4(&levels, width),
                    scales,
                },
            },
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
                Table::I8 { levels, scales } => {
                    let scale = scales[row];
                    let levels = levels[row_of].iter();
                    y.iter_mut()
                        .zip(levels)
                        .for_each(|(y, level)| *y = f32::from(*level) * scale);
                }
                Table::I4 { bytes, scales } => {
                    let scale = scales[row];
                    let width = self.width.div_ceil(2);
                    let bytes = &bytes[row * width..(row + 1) * width];
                    for (y, byte) in y.chunks_mut(2).zip(bytes) {
                        let levels = quantised::unpack_int4(*byte);
                        y.iter_mut()
                            .zip(levels)
                            .for_each(|(y, level)| *y = f32::from(level) * scale);
                    }
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
            Table::I8 { .. } => "embedding-i8".into(),
            Table::I4 { .. } => "embedding-i4".into(),
        }
    }

    fn expected_ns(&self, costs: &Costs, work: &Workload) -> f64 {
        work.copies(costs, work.elements)
    }

    fn bytes(&self) -> usize {
        match &self.table {
            Table::F32(table) => size_of_val(table.as_slice()),
            Table::I8 { levels, scales } => levels.len() + size_of_val(scales.as_slice()),
            Table::I4 { bytes, scales } => bytes.len() + size_of_val(scales.as_slice()),
        }
    }
}
