//! Rows of a table by their numbers.
//!
//! Ids are exact as floating-point numbers, and rows of the table: the trainer checks the samples before it begins.

use std::sync::Arc;

use sparsevd_kernels::training::Real;

use crate::layers::size::all_places;

/// Where the ids of a sample and the elements of their rows lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Embedding {
    pub width: usize,
    /// The place of each id, in the order of the network.
    ids: Arc<[u32]>,
    /// The place of each element of the output, in that order.
    elements: Arc<[u32]>,
}

impl Embedding {
    /// For ids of these dimensions per sample. `None` where places have more than 32 bits.
    pub fn new(dims: &[usize], width: usize) -> Option<Self> {
        Some(Self {
            width,
            ids: all_places(dims)?,
            elements: all_places(&[dims, &[width]].concat())?,
        })
    }

    /// Calls `visit` for each id with the first element of its row in the table, the number of the sample, and the places of the
    /// elements of the row in the sample's output.
    fn for_each_row<T: Real>(&self, x: &[T], mut visit: impl FnMut(usize, usize, &[u32])) {
        for (sample, x) in x.chunks_exact(self.ids.len()).enumerate() {
            let rows = self.elements.chunks_exact(self.width);
            for (&id, places) in self.ids.iter().zip(rows) {
                visit(
                    x[id as usize].to_f64() as usize * self.width,
                    sample,
                    places,
                );
            }
        }
    }

    /// Writes the row of `table` of each id.
    pub fn forward<T: Real>(&self, table: &[T], x: &[T], y: &mut [T]) {
        let len = self.elements.len();
        self.for_each_row(x, |row, sample, places| {
            let y = &mut y[sample * len..][..len];
            let row = &table[row..row + self.width];
            places
                .iter()
                .zip(row)
                .for_each(|(&p, &t)| y[p as usize] = t);
        });
    }

    /// Adds the gradient by the table. There is none by ids.
    pub fn backward<T: Real>(&self, x: &[T], g: &[T], by_table: &mut [T]) {
        let len = self.elements.len();
        self.for_each_row(x, |row, sample, places| {
            let g = &g[sample * len..][..len];
            let row = &mut by_table[row..row + self.width];
            row.iter_mut()
                .zip(places)
                .for_each(|(d, &p)| *d += g[p as usize]);
        });
    }
}
