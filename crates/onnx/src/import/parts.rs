//! Parts of values: slices, splits, and elements by their constant numbers.

use sparsevd_model::{Op, Shape, ops};

use super::importer::Importer;
use super::view::{View, ids};
use crate::attributes::{OnnxNode, axis};
use crate::constants::MOST_AXES;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    /// The elements from `start` on and before `end` along an axis of a sample.
    pub(super) fn part(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        axis: usize,
        [start, end]: [usize; 2],
    ) -> Result<View, NodeError> {
        if [start, end] == [0, x.dims[axis]] {
            return Ok(x.clone());
        }
        if x.dtype.is_id() {
            return Err(ids(x));
        }
        if start >= end {
            return Err(NodeError::unsupported(format!(
                "no element along axis {axis} of {} per sample",
                Shape(x.dims.clone())
            )));
        }
        let x = self.in_shape(x, &x.dims.clone())?;
        self.push(node, Op::Slice(ops::Slice { axis, start, end }), &[&x])
    }

    /// The parts of a value along an axis, one for each output.
    pub(super) fn split(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        sizes: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let rank = x.dims.len() + self.batch_axes;
        let given = node.int("axis")?.unwrap_or(0);
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(at) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("parts of the batch"));
        };
        let (size, count) = (x.dims[at], node.0.output.len());
        if let Some(outputs) = node.int("num_outputs")?
            && usize::try_from(outputs) != Ok(count)
        {
            let expected = format!("num_outputs of {count}, which are its outputs");
            return Err(node.invalid(expected, outputs.to_string()).into());
        }
        let sizes = match (node.ints("split")?, sizes) {
            (Some(sizes), _) => Some(sizes.to_vec()),
            (None, Some(sizes)) => {
                Some((sizes.ints()).ok_or_else(|| node.invalid("integers", sizes.describe()))?)
            }
            (None, None) if node.input(1).is_some() => {
                return Err(NodeError::unsupported("sizes that are no constants"));
            }
            (None, None) => None,
        };
        let sizes: Vec<usize> = match sizes {
            Some(sizes) => {
                let sizes = sizes.iter().map(|&n| usize::try_from(n).ok());
                sizes.collect::<Option<_>>().unwrap_or_default()
            }
            // The last part is smaller where they cannot be equal.
            None => {
                let each = size.div_ceil(count.max(1)).max(1);
                let start = |i: usize| i.saturating_mul(each).min(size);
                (0..count).map(|i| start(i + 1) - start(i)).collect()
            }
        };
        let total = sizes.iter().try_fold(0_usize, |n, &s| n.checked_add(s));
        if sizes.len() != count || total != Some(size) {
            let expected = format!("{count} sizes that make {size} together");
            return Err(node.invalid(expected, format!("{sizes:?}")).into());
        }
        let mut parts = Vec::new();
        let mut start = 0;
        for (&size, name) in sizes.iter().zip(&node.0.output) {
            let is_read = self.uses.contains_key(name.as_str());
            parts.push(match is_read {
                true => Some(self.part(node, x, at, [start, start + size])?),
                false => None,
            });
            start += size;
        }
        let first = parts.remove(0);
        self.others = parts;
        // Of a first output that nothing reads, any value will do.
        Ok(first.unwrap_or_else(|| x.clone()))
    }

    /// Elements of a computed value by constant numbers, which follow each other.
    pub(super) fn elements_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        indices: &Tensor,
    ) -> Result<View, NodeError> {
        let rank = x.dims.len() + self.batch_axes;
        let given = node.int("axis")?.unwrap_or(0);
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(at) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("samples by their numbers"));
        };
        let size = x.dims[at];
        let numbers = indices.ints().unwrap_or_default();
        let chosen = numbers.iter().map(|&i| axis(i, size));
        let chosen: Option<Vec<usize>> = chosen.collect();
        let Some(chosen) = chosen.filter(|c| !c.is_empty()) else {
            return Err(node
                .invalid(format!("numbers below {size}"), indices.describe())
                .into());
        };
        let first = chosen[0];
        if !chosen.iter().copied().eq(first..first + chosen.len()) {
            return Err(NodeError::unsupported(format!(
                "elements {chosen:?}, which do not follow each other"
            )));
        }
        let made = self.part(node, x, at, [first, first + chosen.len()])?;
        let mut dims = made.dims[..at].to_vec();
        dims.extend(&indices.dims);
        dims.extend(&made.dims[at + 1..]);
        if dims.len() > MOST_AXES {
            let expected = format!("at most {MOST_AXES} dimensions");
            return Err(node.invalid(expected, dims.len().to_string()).into());
        }
        Ok(made.reshaped(dims))
    }
}
