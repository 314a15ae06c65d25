//! Operators that give a value another shape and move no number.

use super::View;
use crate::attributes::{OnnxNode, axis};
use crate::constants::{axes, permutation, reshaped, resolve};
use crate::node_error::NodeError;
use crate::proto::data_type;
use crate::tensor::{Data, Int, Tensor};

fn seen_as(x: &View, dims: Vec<usize>) -> View {
    View { dims, ..x.clone() }
}

/// Axes behind the batch, counted from there; the batch itself is none.
fn behind_batch(node: OnnxNode<'_>, axes: &[i64], rank: usize) -> Result<Vec<usize>, NodeError> {
    let axes = resolve(node, axes, rank)?;
    let behind: Option<Vec<usize>> = axes.iter().map(|a| a.checked_sub(1)).collect();
    behind.ok_or_else(|| NodeError::unsupported("the batch as an axis"))
}

pub(super) fn cast(node: OnnxNode<'_>, x: &View) -> Result<View, NodeError> {
    let to = node
        .int("to")?
        .ok_or_else(|| node.invalid("`to`", "none"))?;
    if to != i64::from(data_type::FLOAT) {
        return Err(NodeError::unsupported(format!("data type {to}")));
    }
    Ok(x.clone())
}

pub(super) fn flatten(node: OnnxNode<'_>, x: &View) -> Result<View, NodeError> {
    let given = node.int("axis")?.unwrap_or(1);
    let rank = x.dims.len() + 1;
    let at = axis(given, rank).or((given == rank as i64).then_some(rank));
    let at = at.ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
    let joined: usize = x.dims[..at.saturating_sub(1)].iter().product();
    if at == 0 || joined != 1 {
        return Err(NodeError::unsupported(format!(
            "axis {given}, which mixes samples"
        )));
    }
    Ok(seen_as(x, vec![x.dims.iter().product()]))
}

pub(super) fn squeeze(
    node: OnnxNode<'_>,
    x: &View,
    input: Option<&Tensor>,
) -> Result<View, NodeError> {
    let axes = axes(node, input)?;
    let Some(axes) = axes else {
        return Err(NodeError::unsupported(
            "no axes: one sample would lose its batch",
        ));
    };
    let gone = behind_batch(node, &axes, x.dims.len() + 1)?;
    if gone.iter().any(|&a| x.dims[a] != 1) {
        return Err(node
            .invalid("axes of one element", format!("{axes:?}"))
            .into());
    }
    let stays = x.dims.iter().enumerate().filter(|(i, _)| !gone.contains(i));
    Ok(seen_as(x, stays.map(|(_, d)| *d).collect()))
}

pub(super) fn unsqueeze(
    node: OnnxNode<'_>,
    x: &View,
    input: Option<&Tensor>,
) -> Result<View, NodeError> {
    let axes = axes(node, input)?.ok_or_else(|| node.invalid("axes", "none"))?;
    let rank = x.dims.len() + axes.len();
    let new = behind_batch(node, &axes, rank + 1)?;
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
    Ok(seen_as(x, dims))
}

pub(super) fn transpose(node: OnnxNode<'_>, x: &View) -> Result<View, NodeError> {
    let perm = permutation(node, x.dims.len() + 1)?;
    let order: Option<Vec<usize>> = perm[1..].iter().map(|p| p.checked_sub(1)).collect();
    let Some(order) = order else {
        return Err(NodeError::unsupported("the batch moved"));
    };
    // Axes of one element may go anywhere.
    let wide: Vec<usize> = order.iter().copied().filter(|&a| x.dims[a] != 1).collect();
    if !wide.is_sorted() {
        return Err(NodeError::unsupported(format!(
            "an order of axes, {perm:?}, that moves numbers"
        )));
    }
    Ok(seen_as(x, order.iter().map(|&a| x.dims[a]).collect()))
}

pub(super) fn reshape(
    node: OnnxNode<'_>,
    x: &View,
    target: &Tensor,
    batch: Option<usize>,
) -> Result<View, NodeError> {
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
    let known = |t: &Int| match t {
        Int::Known(n) => Some(*n),
        Int::Batch => None,
    };
    let rest: Vec<i64> = rest
        .iter()
        .map(known)
        .collect::<Option<_>>()
        .ok_or_else(mixes)?;
    let keeps_zero = node.int("allowzero")?.unwrap_or(0) == 0;
    let whole = match *first {
        Int::Batch => true,
        Int::Known(0) => keeps_zero,
        // The batch is what the known dimensions leave.
        Int::Known(-1) => !rest.contains(&-1) && reshaped(node, &x.dims, &rest).is_ok(),
        Int::Known(n) => batch.is_some_and(|b| i64::try_from(b) == Ok(n)),
    };
    if !whole {
        return Err(mixes());
    }
    Ok(seen_as(x, reshaped(node, &x.dims, &rest)?))
}
