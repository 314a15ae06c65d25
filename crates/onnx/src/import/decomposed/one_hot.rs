//! Rows of a table as the product of a one-hot value and the table.

use super::reader::Reader;
use crate::import::whole::Rows;

impl<'m> Reader<'_, 'm> {
    /// A value that is a product of a one-hot value and a constant matrix.
    pub fn rows(&self, value: &'m str) -> Option<Rows<'m>> {
        let [one_hot, table] = Self::pair(self.node_of(value, "MatMul")?)?;
        let &[depth, _] = self.constant(table)?.dims.as_slice() else {
            return None;
        };
        let (ids, has_axis, classes) = self.one_hot(self.plain(one_hot))?;
        (classes == depth).then_some(Rows {
            ids,
            has_axis,
            table,
        })
    }

    /// The ids of a value that is 1 where its last index is the id and 0 elsewhere, whether they have that dimension too, with one element,
    /// and how many there may be.
    fn one_hot(&self, value: &'m str) -> Option<(&'m str, bool, usize)> {
        let node = self.node(value)?;
        match node.0.op_type.as_str() {
            "Equal" => {
                let [a, b] = Self::pair(node)?;
                let (ids, classes) = match (self.constant(a), self.constant(b)) {
                    (None, Some(classes)) => (a, classes),
                    (Some(classes), None) => (b, classes),
                    _ => return None,
                };
                let numbers = classes.ints()?;
                let counts = (0..).zip(&numbers).all(|(i, n)| *n == i);
                let is_row = classes.dims.last() == Some(&numbers.len());
                let has_axis = self.dims(ids)?.last() == Some(&1);
                // With more dimensions than the ids they would give them more.
                let rank = self.dims(ids)?.len() + self.importer.batch_axes;
                let fits = counts && is_row && has_axis && classes.dims.len() <= rank;
                fits.then_some((ids, true, numbers.len()))
            }
            "OneHot" => {
                let inputs = [node.input(0)?, node.input(1)?, node.input(2)?];
                let [ids, depth, values] = inputs;
                let depth = match self.constant(depth)?.ints()?.as_slice() {
                    &[depth] => usize::try_from(depth).ok()?,
                    _ => return None,
                };
                let is_one_hot = self.constant(values)?.floats()? == [0.0, 1.0];
                let is_last = node.int("axis").ok()?.is_none_or(|axis| axis == -1);
                (is_one_hot && is_last).then_some((ids, false, depth))
            }
            _ => None,
        }
    }
}
