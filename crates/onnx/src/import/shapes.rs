//! Operators that give a value another shape or order of axes, and become no node until a layer needs them (`Importer::in_shape`).

use super::importer::Importer;
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::constants::{AxisSlice, MOST_AXES, axes, permutation, reshaped, resolve, slices};
use crate::node_error::NodeError;
use crate::proto::data_type;
use crate::tensor::{Data, Int, Tensor};

pub(super) fn cast(node: OnnxNode<'_>, x: &View) -> Result<View, NodeError> {
    let to = node
        .int("to")?
        .ok_or_else(|| node.invalid("`to`", "none"))?;
    // Half and double precision are single in a network.
    let floats = [
        data_type::FLOAT,
        data_type::DOUBLE,
        data_type::FLOAT16,
        data_type::BFLOAT16,
    ];
    let integers = [data_type::INT32, data_type::INT64];
    let same: &[i32] = match x.dtype.is_id() {
        true => &integers,
        false => &floats,
    };
    if !same.iter().any(|f| i64::from(*f) == to) {
        return Err(NodeError::unsupported(format!("data type {to}")));
    }
    Ok(x.clone())
}

impl<'m> Importer<'m> {
    /// Axes of a sample; the batch is none.
    fn inner_axes(
        &self,
        node: OnnxNode<'m>,
        axes: &[i64],
        rank: usize,
    ) -> Result<Vec<usize>, NodeError> {
        let axes = resolve(node, axes, rank + self.batch_axes)?;
        let inner: Option<Vec<usize>> = axes
            .iter()
            .map(|a| a.checked_sub(self.batch_axes))
            .collect();
        inner.ok_or_else(|| NodeError::unsupported("the batch as an axis"))
    }

    pub(super) fn flatten(&self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let given = node.int("axis")?.unwrap_or(1);
        let rank = x.dims.len() + self.batch_axes;
        let at = axis(given, rank).or((given == rank as i64).then_some(rank));
        let at = at.ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        if self.batch_axes == 0 {
            let dims = vec![product(&x.dims[..at]), product(&x.dims[at..])];
            return Ok(x.reshaped(dims));
        }
        if at == 0 || product(&x.dims[..at - 1]) != 1 {
            return Err(NodeError::unsupported(format!(
                "axis {given}, which mixes samples"
            )));
        }
        Ok(x.reshaped(vec![product(&x.dims)]))
    }

    pub(super) fn squeeze(
        &self,
        node: OnnxNode<'m>,
        x: &View,
        input: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let axes = axes(node, input)?;
        let gone = match &axes {
            Some(axes) => self.inner_axes(node, axes, x.dims.len())?,
            None if self.batch_axes == 0 => (0..x.dims.len()).filter(|&a| x.dims[a] == 1).collect(),
            None => {
                return Err(NodeError::unsupported(
                    "no axes: one sample would lose its batch",
                ));
            }
        };
        if gone.iter().any(|&a| x.dims[a] != 1) {
            return Err(node
                .invalid("axes of one element", format!("{axes:?}"))
                .into());
        }
        let stays = x.dims.iter().enumerate().filter(|(i, _)| !gone.contains(i));
        Ok(x.reshaped(stays.map(|(_, d)| *d).collect()))
    }

    pub(super) fn unsqueeze(
        &self,
        node: OnnxNode<'m>,
        x: &View,
        input: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let axes = axes(node, input)?.ok_or_else(|| node.invalid("axes", "none"))?;
        let rank = x.dims.len() + axes.len();
        if rank > MOST_AXES {
            let expected = format!("at most {MOST_AXES} dimensions");
            return Err(node.invalid(expected, rank.to_string()).into());
        }
        let new = self.inner_axes(node, &axes, rank)?;
        let mut old = x.dims.iter().copied();
        let dims = (0..rank)
            .map(|i| {
                if new.contains(&i) {
                    1
                } else {
                    old.next().unwrap_or(1)
                }
            })
            .collect();
        Ok(x.reshaped(dims))
    }

    pub(super) fn transpose(&self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        // An axis that is the batch and another stays as the batch does.
        let rank = x.dims.len() + if x.is_merged { 0 } else { self.batch_axes };
        let perm = permutation(node, rank)?;
        if self.batch_axes == 1 && perm.first() != Some(&0) {
            return Err(NodeError::unsupported("the batch moved"));
        }
        if x.is_merged {
            return Ok(x.transposed(&node.label(), &perm, self.decoder)?);
        }
        let (_, perm) = perm.split_at(self.batch_axes);
        let perm: Vec<usize> = perm.iter().map(|p| p - self.batch_axes).collect();
        Ok(x.transposed(&node.label(), &perm, self.decoder)?)
    }

    pub(super) fn reshape(
        &self,
        node: OnnxNode<'m>,
        x: &View,
        target: &Tensor,
    ) -> Result<View, NodeError> {
        if self.batch_axes == 0 {
            let target = (target.ints())
                .ok_or_else(|| node.invalid("integers as a shape", target.describe()))?;
            return Ok(x.reshaped(reshaped(node, &x.dims, &target)?));
        }
        let Data::Int(target) = &target.data else {
            return Err(node
                .invalid("integers as a shape", target.describe())
                .into());
        };
        let mixes = || {
            let shape: Vec<String> = target
                .iter()
                .map(|t| match t {
                    Int::Known(n) => n.to_string(),
                    Int::Batch => "batch".into(),
                })
                .collect();
            NodeError::unsupported(format!(
                "the shape [{}], which mixes samples",
                shape.join(", ")
            ))
        };
        let Some((first, rest)) = target.split_first() else {
            return Err(mixes());
        };
        let keeps_zero = node.int("allowzero")?.unwrap_or(0) == 0;
        // The dimensions behind the first one of the file.
        let behind = &x.dims[usize::from(x.is_merged)..];
        let known = |(i, t): (usize, &Int)| match t {
            Int::Known(0) if keeps_zero => match behind.get(i) {
                Some(&size) => Ok(size as i64),
                None => Err(node
                    .invalid("no 0 behind the last dimension", (i + 1).to_string())
                    .into()),
            },
            Int::Known(n) => Ok(*n),
            Int::Batch => Err(mixes()),
        };
        let rest: Vec<i64> = (rest.iter().enumerate().map(known)).collect::<Result<_, _>>()?;
        // Of the batch and the first dimension of a sample in one axis, that dimension.
        let merged: Option<usize> = match *first {
            Int::Batch => None,
            Int::Known(0) if keeps_zero => x.is_merged.then(|| x.dims[0]),
            // The first axis is what the known dimensions leave.
            Int::Known(-1) if rest.contains(&-1) => return Err(mixes()),
            Int::Known(-1) => {
                let taken = rest.iter().try_fold(1_usize, |product, &n| {
                    product.checked_mul(usize::try_from(n).ok()?)
                });
                match taken.filter(|&taken| taken > 0 && x.elements().is_multiple_of(taken)) {
                    Some(taken) if taken == x.elements() => None,
                    Some(taken) => Some(x.elements() / taken),
                    None => return Err(mixes()),
                }
            }
            Int::Known(n) => {
                let n = usize::try_from(n).map_err(|_| mixes())?;
                match self.batch {
                    Some(b) if b == n => None,
                    Some(b) if b > 0 && n.is_multiple_of(b) => Some(n / b),
                    _ => return Err(mixes()),
                }
            }
        };
        let first = merged.map(|n| i64::try_from(n).map_err(|_| mixes()));
        let target: Vec<i64> = first.transpose()?.into_iter().chain(rest).collect();
        Ok(View {
            is_merged: merged.is_some(),
            ..x.reshaped(reshaped(node, &x.dims, &target)?)
        })
    }

    /// A slice of neighbours along each axis.
    pub(super) fn slice<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        /// Ends from which on exporters mean all samples, whatever their number.
        const ALL: i64 = 1_000_000_000;
        if (1..node.0.input.len()).any(|i| node.input(i).is_some() && constant(i).is_none()) {
            return Err(NodeError::unsupported("bounds that are not constants"));
        }
        let inputs: Vec<Option<&Tensor>> = (0..node.0.input.len()).map(constant).collect();
        let (batch_axes, length) = (self.batch_axes, self.length);
        let is_free = |axis: usize| {
            let at = axis.checked_sub(batch_axes);
            at.is_some_and(|at| length == Some(x.dims[at]))
        };
        let keeps = |slice: &AxisSlice| {
            let size = match slice.axis.checked_sub(self.batch_axes) {
                Some(axis) => x.dims[axis] as i64,
                // With several inputs there may be several numbers of samples.
                None if self.declared.len() == 1 => self.batch.map_or(ALL, |n| n as i64),
                None => ALL,
            };
            // One that is computed from the free dimension is as large as that.
            let all =
                slice.end == size || slice.end >= if is_free(slice.axis) { ALL } else { size };
            slice.step == 1 && slice.start == 0 && all
        };
        let all = slices(node, x.dims.len() + self.batch_axes, &inputs)?;
        let parts: Vec<&AxisSlice> = all.iter().filter(|s| !keeps(s)).collect();
        let mut made = x.clone();
        for &AxisSlice {
            axis,
            start,
            end,
            step,
        } in parts
        {
            let at = axis.checked_sub(self.batch_axes).filter(|_| step == 1);
            let Some(at) = at.filter(|_| !x.dtype.is_id()) else {
                return Err(NodeError::unsupported(format!(
                    "a part of axis {axis}, from {start} to {end} by steps of {step}"
                )));
            };
            let size = x.dims[at] as i64;
            // Of longer values it would be a part.
            if is_free(axis) && (size + 1..ALL).contains(&end) {
                return Err(NodeError::unsupported(format!(
                    "the first {end} elements of a dimension of any size"
                )));
            }
            let place = |n: i64| {
                let n = if n < 0 { n.saturating_add(size) } else { n };
                n.clamp(0, size) as usize
            };
            made = self.part(node, &made, at, [place(start), place(end)])?;
        }
        Ok(made)
    }
}
