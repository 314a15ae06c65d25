//! Rows of a table by ids, which are inputs of integers.

use sparsevd_model::{Op, ops};

use super::build::moved;
use super::importer::Importer;
use super::view::{MOST_TRACKED, View};
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::tensor::{Int, Tensor};

impl<'m> Importer<'m> {
    /// `Gather` of a constant by computed indices.
    pub(super) fn gather(
        &mut self,
        node: OnnxNode<'m>,
        table: &Tensor,
        ids: &View,
    ) -> Result<View, NodeError> {
        let given = node.int("axis")?.unwrap_or(0);
        if axis(given, table.dims.len()) != Some(0) {
            return Err(NodeError::unsupported(format!(
                "axis {given} of a constant"
            )));
        }
        let name = node.input(0).unwrap_or_default();
        self.embedding(node, table, name, ids)
    }

    /// The row of a table for each id of a value.
    pub(super) fn embedding(
        &mut self,
        node: OnnxNode<'m>,
        table: &Tensor,
        name: &str,
        ids: &View,
    ) -> Result<View, NodeError> {
        if !ids.dtype.is_id() {
            return Err(NodeError::unsupported("computed indices of a constant"));
        }
        let &[_, width] = table.dims.as_slice() else {
            let why = format!("indices of {}, which is no matrix", table.describe());
            return Err(NodeError::unsupported(why));
        };
        let table = self.dense(node, "table", table)?;
        let table = self.tensor(name, table);
        *self.tables.entry(table.clone()).or_default() += 1;
        let made = self.push(node, Op::Embedding(ops::Embedding { table }), &[ids])?;
        // Rows are in the order of the ids.
        let order = match &ids.order {
            None => None,
            Some(order) if made.elements() <= MOST_TRACKED => {
                self.decoder.take(&node.label(), &made.shape)?;
                let width = width as u32;
                let row = |&row: &u32| (0..width).map(move |i| row * width + i);
                Some(order.iter().flat_map(row).collect())
            }
            Some(_) => return Err(moved(ids)),
        };
        Ok(View {
            dims: [ids.dims.as_slice(), &[width]].concat(),
            order,
            ..made
        })
    }

    /// An expansion that keeps the shape of a value.
    pub(super) fn expand(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        target: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let Some(target) = target else {
            return Err(node.invalid("a constant shape", "none").into());
        };
        let Some(target) = target.sizes() else {
            return Err(node
                .invalid("integers as a shape", target.describe())
                .into());
        };
        let rank = self.batch_axes + x.dims.len();
        let keeps = |(i, size): (usize, &Int)| {
            let own = match i.checked_sub(self.batch_axes) {
                Some(axis) => Some(x.dims[axis]),
                None => self.batch,
            };
            match size {
                Int::Batch => i < self.batch_axes,
                Int::Known(1) => true,
                Int::Known(n) => own.is_some_and(|own| i64::try_from(own) == Ok(*n)),
            }
        };
        let missing = rank.checked_sub(target.len());
        let is_same = missing.is_some_and(|m| (m..).zip(target).all(keeps));
        if !is_same
            && !x.dtype.is_id()
            && let Some(dims) = self.expanded(x, target)
        {
            return self.broadcast_to(x, &dims);
        }
        if !is_same {
            let from = sparsevd_model::Shape(x.dims.clone());
            return Err(NodeError::unsupported(format!("copies of {from}")));
        }
        Ok(x.clone())
    }

    /// The dimensions of a sample to which a target copies it; `None` where it does not fit, or copies samples.
    fn expanded(&self, x: &View, target: &[Int]) -> Option<Vec<usize>> {
        let rank = self.batch_axes + x.dims.len();
        let known = |size: &Int| match size {
            Int::Known(n) => usize::try_from(*n).ok(),
            Int::Batch => None,
        };
        let target = match (self.batch_axes, target) {
            (1, [batch, rest @ ..]) if target.len() == rank => {
                let own = self.batch.filter(|_| self.declared.len() == 1);
                let keeps =
                    *batch == Int::Batch || known(batch).is_some_and(|n| n == 1 || own == Some(n));
                keeps.then_some(rest)?
            }
            (1, _) if target.len() > rank => return None,
            (_, all) => all,
        };
        let target: Vec<usize> = target.iter().map(known).collect::<Option<_>>()?;
        let rank = x.dims.len().max(target.len());
        let size =
            |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
        (0..rank)
            .map(|i| match (size(&x.dims, i), size(&target, i)) {
                (own, 1) => Some(own),
                (1, n) => Some(n),
                (own, n) => (own == n).then_some(own),
            })
            .collect()
    }
}
