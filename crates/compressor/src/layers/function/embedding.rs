//! Rows of a table by their numbers.
//!
//! Ids are exact as floating-point numbers; who fills the network's input checks that they are rows of the table.

use sparsevd_kernels::training::Real;

/// Writes the row of `table` of each id.
pub(super) fn forward<T: Real>(table: &[T], width: usize, ids: &[T], y: &mut [T]) {
    for (id, y) in ids.iter().zip(y.chunks_exact_mut(width)) {
        y.copy_from_slice(&table[row(*id) * width..][..width]);
    }
}

/// Adds the gradient by the table. There is none by ids.
pub(super) fn backward<T: Real>(width: usize, ids: &[T], g: &[T], by_table: &mut [T]) {
    for (id, g) in ids.iter().zip(g.chunks_exact(width)) {
        let by_row = &mut by_table[row(*id) * width..][..width];
        by_row.iter_mut().zip(g).for_each(|(d, &g)| *d += g);
    }
}

fn row<T: Real>(id: T) -> usize {
    id.to_f64() as usize
}
