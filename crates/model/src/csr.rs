//! Compressed sparse rows.

use crate::{Dense, ModelError, Shape};

/// A sparse weight by rows (PyTorch's `crow_indices`, `col_indices`, `values`).
///
/// Filters `[out, in/groups, kh, kw]` flatten to `[out, in/groups*kh*kw]`.
///
/// # Invariants
/// - `crow_indices` has `rows + 1` entries, begins with 0, never falls and ends with the number of values (always checked)
/// - columns are below `cols` and strictly increase within a row (always checked)
/// - rows, columns and non-zeros fit in 32 bits (always checked)
#[derive(Debug, Clone, PartialEq)]
pub struct Csr {
    shape: Shape,
    crow_indices: Vec<u32>,
    col_indices: Vec<u32>,
    values: Vec<f32>,
}

impl Csr {
    /// Checks the parts of a CSR matrix and puts them together.
    ///
    /// # Errors
    /// The first broken invariant of the type.
    pub fn try_new(
        shape: impl Into<Shape>,
        crow_indices: Vec<u32>,
        col_indices: Vec<u32>,
        values: Vec<f32>,
    ) -> Result<Self, ModelError> {
        let shape = shape.into();
        let (rows, cols) = shape.matrix();
        let broken = |what, expected: String, got: String| ModelError::Csr {
            tensor: String::new(),
            what,
            expected,
            got,
        };
        if rows >= u32::MAX as usize || cols > u32::MAX as usize {
            return Err(broken(
                "shape",
                "rows and columns below 2^32".into(),
                shape.to_string(),
            ));
        }
        if crow_indices.len() != rows + 1 {
            return Err(broken(
                "length of crow_indices",
                format!("{} for {rows} rows", rows + 1),
                crow_indices.len().to_string(),
            ));
        }
        if col_indices.len() != values.len() {
            return Err(broken(
                "length of col_indices",
                format!("{}, the number of values", values.len()),
                col_indices.len().to_string(),
            ));
        }
        if crow_indices[0] != 0 {
            return Err(broken(
                "first of crow_indices",
                "0".into(),
                crow_indices[0].to_string(),
            ));
        }
        if crow_indices[rows] as usize != values.len() {
            return Err(broken(
                "last of crow_indices",
                format!("{}, the number of values", values.len()),
                crow_indices[rows].to_string(),
            ));
        }
        for row in 0..rows {
            let (start, end) = (crow_indices[row], crow_indices[row + 1]);
            if start > end || end as usize > values.len() {
                return Err(broken(
                    "crow_indices",
                    format!(
                        "row {row} to end between {start} and {}, the number of values",
                        values.len()
                    ),
                    end.to_string(),
                ));
            }
            let columns = &col_indices[start as usize..end as usize];
            if let Some(pair) = columns.windows(2).find(|p| p[0] >= p[1]) {
                return Err(broken(
                    "col_indices",
                    format!("strictly increasing columns in row {row}"),
                    format!("{} after {}", pair[1], pair[0]),
                ));
            }
            if let Some(&last) = columns.last()
                && last as usize >= cols
            {
                return Err(broken(
                    "col_indices",
                    format!("columns below {cols} in row {row}"),
                    last.to_string(),
                ));
            }
        }
        Ok(Self {
            shape,
            crow_indices,
            col_indices,
            values,
        })
    }

    /// The non-zeros of a dense tensor.
    ///
    /// # Panics
    /// When the tensor has 2^32 rows, columns or non-zeros.
    #[track_caller]
    pub fn from_dense(dense: &Dense) -> Self {
        let (rows, cols) = dense.shape.matrix();
        let mut crow_indices = Vec::with_capacity(rows + 1);
        let (mut col_indices, mut values) = (Vec::new(), Vec::new());
        crow_indices.push(0);
        for row in 0..rows {
            for (col, &v) in dense.values[row * cols..(row + 1) * cols]
                .iter()
                .enumerate()
            {
                if v != 0.0 {
                    col_indices.push(u32::try_from(col).expect("columns fit in 32 bits"));
                    values.push(v);
                }
            }
            crow_indices.push(u32::try_from(values.len()).expect("non-zeros fit in 32 bits"));
        }
        Self {
            shape: dense.shape.clone(),
            crow_indices,
            col_indices,
            values,
        }
    }

    /// All elements, zeros included.
    pub fn to_dense(&self) -> Dense {
        let mut dense = Dense::zeros(self.shape.clone());
        let (_, cols) = self.shape.matrix();
        for row in 0..self.rows() {
            let (columns, values) = self.row(row);
            for (&c, &v) in columns.iter().zip(values) {
                dense.values[row * cols + c as usize] = v;
            }
        }
        dense
    }

    /// Dense shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.crow_indices.len() - 1
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> usize {
        self.shape.matrix().1
    }

    /// Stored elements.
    pub fn nonzeros(&self) -> usize {
        self.values.len()
    }

    /// Row starts, `rows + 1` of them.
    pub fn crow_indices(&self) -> &[u32] {
        &self.crow_indices
    }

    /// Column of each value.
    pub fn col_indices(&self) -> &[u32] {
        &self.col_indices
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Columns and values of one row.
    ///
    /// # Panics
    /// When the row does not exist.
    #[track_caller]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.crow_indices[row] as usize..self.crow_indices[row + 1] as usize;
        (&self.col_indices[range.clone()], &self.values[range])
    }

    /// The same pattern with other values; `f` gets the row and the value.
    #[must_use]
    pub fn map_values(&self, f: impl Fn(usize, f32) -> f32) -> Self {
        let mut mapped = self.clone();
        for (row, bounds) in self.crow_indices.windows(2).enumerate() {
            for v in &mut mapped.values[bounds[0] as usize..bounds[1] as usize] {
                *v = f(row, *v);
            }
        }
        mapped
    }

    /// The matrix as sprs has it, with a copy of its parts. Needs the feature `sprs`.
    #[cfg(feature = "sprs")]
    pub fn to_sprs(&self) -> sprs::CsMatI<f32, u32> {
        sprs::CsMatI::new(
            (self.rows(), self.cols()),
            self.crow_indices.clone(),
            self.col_indices.clone(),
            self.values.clone(),
        )
    }

    /// A matrix from sprs; column-major storage is turned into rows. Needs the feature `sprs`.
    ///
    /// # Errors
    /// When the matrix has 2^32 rows or columns.
    #[cfg(feature = "sprs")]
    pub fn from_sprs(matrix: &sprs::CsMatI<f32, u32>) -> Result<Self, ModelError> {
        let by_rows = matrix.to_csr();
        Self::try_new(
            [by_rows.rows(), by_rows.cols()],
            by_rows.indptr().to_proper().to_vec(),
            by_rows.indices().to_vec(),
            by_rows.data().to_vec(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sprs_gets_the_matrix_and_gives_it_back_from_rows_or_columns() {
        let values = vec![0.0, 1.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 4.0];
        let dense = Dense::new([3, 4], values);
        let csr = Csr::from_dense(&dense);
        let matrix = csr.to_sprs();
        assert_eq!((matrix.rows(), matrix.cols(), matrix.nnz()), (3, 4, 4));
        assert_eq!(matrix.get(2, 3), Some(&4.0));
        assert_eq!(Csr::from_sprs(&matrix).unwrap(), csr);
        let by_columns = matrix.to_csc();
        assert!(by_columns.is_csc());
        assert_eq!(Csr::from_sprs(&by_columns).unwrap(), csr);
    }
}
