//! Symmetric positive definite matrices in double precision, row by row.

use rayon::prelude::*;

use crate::error::CompressError;

/// A square matrix times a vector.
pub(crate) fn multiply(matrix: &[f64], x: &[f64], n: usize) -> Vec<f64> {
    matrix.chunks_exact(n).map(|row| dot(row, x)).collect()
}

/// With eight sums, so that the compiler can vectorise.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest = a8.remainder().iter().zip(b8.remainder());
    let rest: f64 = rest.map(|(a, b)| a * b).sum();
    for (a, b) in a8.zip(b8) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The lower triangle `L` of `L L^T = a`, in its place; what is above is left as it was.
pub(crate) fn cholesky(a: &mut [f64], n: usize) -> Result<(), CompressError> {
    for i in 0..n {
        let (before, row) = a.split_at_mut(i * n);
        let row = &mut row[..n];
        for j in 0..i {
            let other = &before[j * n..j * n + j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let square = row[i] - dot(&row[..i], &row[..i]);
        if !(square > 0.0 && square.is_finite()) {
            let expected = "finite inputs of every layer";
            return Err(CompressError::setting("calibration", expected, "others"));
        }
        row[i] = square.sqrt();
    }
    Ok(())
}

/// The upper triangle `U` of `U^T U = a`.
pub(crate) fn upper_factor(mut a: Vec<f64>, n: usize) -> Result<Vec<f64>, CompressError> {
    cholesky(&mut a, n)?;
    let transposed = (0..n * n).map(|i| (i / n, i % n));
    let upper = transposed.map(|(i, j)| if j < i { 0.0 } else { a[j * n + i] });
    Ok(upper.collect())
}

/// The inverse of a positive definite matrix.
pub(crate) fn inverse(a: &[f64], n: usize) -> Result<Vec<f64>, CompressError> {
    let mut l = a.to_vec();
    cholesky(&mut l, n)?;
    // Row by row of the transposed inverse of L, whose rows are its columns.
    let columns: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|c| {
            let mut column = vec![0.0; n];
            column[c] = 1.0 / l[c * n + c];
            for i in c + 1..n {
                column[i] = -dot(&l[i * n + c..i * n + i], &column[c..i]) / l[i * n + i];
            }
            column
        })
        .collect();
    let rows: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let of = |j: usize| dot(&columns[i][i.max(j)..], &columns[j][i.max(j)..]);
            (0..n).map(of).collect()
        })
        .collect();
    Ok(rows.concat())
}
