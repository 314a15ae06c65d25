//! Rows of a table as the product of a one-hot value and the table.

use super::reader::Reader;
use crate::import::whole::Rows;
use crate::tensor::Int;

impl<'m> Reader<'_, 'm> {
    /// A value that is a product of a one-hot value and a constant matrix.
    pub fn rows(&self, value: &'m str) -> Option<Rows<'m>> {
        let [one_hot, table] = Self::pair(self.node_of(value, "MatMul")?)?;
        let &[depth, _] = self.constant(table)?.dims.as_slice() else {
            return None;
        };
        let (ids, has_axis) = self.one_hot(self.plain(one_hot), depth)?;
        Some(Rows {
            ids,
            has_axis,
            table,
        })
    }

    /// The ids of a value whose last dimension, of `depth` elements, is 1 at the id and 0 elsewhere, and whether they have that dimension
    /// too, with one element.
    fn one_hot(&self, value: &'m str, depth: usize) -> Option<(&'m str, bool)> {
        let node = self.node(value)?;
        match node.0.op_type.as_str() {
            "Equal" => {
                let [a, b] = Self::pair(node)?;
                let (ids, classes) = match (self.constant(a), self.constant(b)) {
                    (None, Some(classes)) => (a, classes),
                    (Some(classes), None) => (b, classes),
                    _ => return None,
                };
                let counts = |(i, n): (i64, &Int)| matches!(n, Int::Known(n) if *n == i);
                let numbers = classes.sizes().filter(|n| n.len() == depth)?;
                let is_row = classes.dims.last() == Some(&depth);
                let has_axis = self.dims(ids)?.last() == Some(&1);
                // With more dimensions than the ids they would give them more.
                let rank = self.dims(ids)?.len() + self.importer.batch_axes;
                let fits = is_row && has_axis && classes.dims.len() <= rank;
                (fits && (0..).zip(numbers).all(counts)).then_some((ids, true))
            }
            "OneHot" => {
                let [ids, classes, values] = [node.input(0)?, node.input(1)?, node.input(2)?];
                let is_depth = match self.constant(classes)?.sizes()? {
                    [Int::Known(n)] => usize::try_from(*n) == Ok(depth),
                    _ => false,
                };
                let is_one_hot = self.constant(values)?.floats()? == [0.0, 1.0];
                let is_last = node.int("axis").ok()?.is_none_or(|axis| axis == -1);
                (is_depth && is_one_hot && is_last).then_some((ids, false))
            }
            _ => None,
        }
    }
}
