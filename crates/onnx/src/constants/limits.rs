//! How many dimensions and elements a constant may have.

use crate::attributes::OnnxNode;
use crate::node_error::Invalid;
use crate::tensor::Decoder;

/// Most axes that an operator may name, or a value may get.
pub(crate) const MOST_AXES: usize = 16;

/// The number of elements of a constant of these dimensions, which is subtracted from the budget.
pub(super) fn take(
    node: OnnxNode<'_>,
    dims: &[usize],
    decoder: &Decoder,
) -> Result<usize, Invalid> {
    if dims.len() > MOST_AXES {
        let expected = format!("a result of at most {MOST_AXES} dimensions");
        return Err(node.invalid(expected, dims.len().to_string()));
    }
    decoder.take(&node.label(), dims)
}
