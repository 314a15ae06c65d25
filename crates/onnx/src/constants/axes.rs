//! Axes that an operator names.

use super::limits::MOST_AXES;
use crate::attributes::{OnnxNode, axis};
use crate::node_error::Invalid;
use crate::tensor::Tensor;

/// Axes from the attribute, or from the input that replaced it in later opsets.
pub(crate) fn axes(
    node: OnnxNode<'_>,
    input: Option<&Tensor>,
) -> Result<Option<Vec<i64>>, Invalid> {
    let axes = match (node.ints("axes")?, input) {
        (Some(axes), _) => axes.to_vec(),
        (None, None) => return Ok(None),
        (None, Some(input)) => {
            (input.ints()).ok_or_else(|| node.invalid("integers as axes", input.describe()))?
        }
    };
    if axes.len() > MOST_AXES {
        return Err(node.invalid(format!("at most {MOST_AXES} axes"), axes.len().to_string()));
    }
    Ok(Some(axes))
}

/// Axes counted from the front.
pub(crate) fn resolve(
    node: OnnxNode<'_>,
    axes: &[i64],
    rank: usize,
) -> Result<Vec<usize>, Invalid> {
    let mut resolved = Vec::new();
    for &a in axes {
        match axis(a, rank) {
            Some(a) if !resolved.contains(&a) => resolved.push(a),
            _ => return Err(node.invalid(format!("different axes of {rank}"), format!("{axes:?}"))),
        }
    }
    Ok(resolved)
}
