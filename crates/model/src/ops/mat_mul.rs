//! Products of two computed matrices.

use std::ops::RangeInclusive;

use super::onnx_form::OnnxForm;
use super::operator::{Channels, NodeShapes, Operator};
use super::reshape::MOST_DIMENSIONS;
use crate::{ModelError, Shape};

/// `a b` of two computed values, `[.., n, k]` and `[.., k, m]` to `[.., n, m]`: a product for each index of the dimensions before the last two,
/// which are the same in both.
///
/// A product with a weight is a [`super::Linear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMul;

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn inputs(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let (a, b) = (a.dims(), b.dims());
        if let ([outer @ .., n, k], [other @ .., rows, m]) = (a, b)
            && outer == other
            && k == rows
            && a.len() <= MOST_DIMENSIONS
        {
            return Ok(Shape([outer, &[*n, *m]].concat()));
        }
        let expected =
            format!("matrices [.., n, k] and [.., k, m] of at most {MOST_DIMENSIONS} dimensions");
        let got = format!("{} and {}", node.inputs[0], node.inputs[1]);
        Err(node.mismatch(expected, got))
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm::new("MatMul")
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }

    fn not_trained(&self) -> Option<&'static str> {
        Some("it yet: it has no backward pass")
    }
}
