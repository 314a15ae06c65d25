//! Attention.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// Scaled dot-product attention with several heads (Vaswani et al. 2017): of queries, keys and values, each `[n, d]`, to `[n, d]`.
///
/// Head `h` reads the columns `h w` to `(h + 1) w - 1` of all three, `w = d / heads`, and writes `softmax(q k^T / sqrt(w)) v` there. Every
/// vector attends to all others: there is no mask. The projections before and behind it are layers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attention {
    /// Number of heads, which divides `d`.
    pub heads: usize,
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn inputs(&self) -> RangeInclusive<usize> {
        3..=3
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("heads", Attribute::Size(&mut self.heads));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let q = node.x();
        let &[_, d] = q.dims() else {
            return Err(node.mismatch("vectors [n, d]", q));
        };
        if d == 0 || d.checked_rem(self.heads) != Some(0) {
            let expected = format!("a number of heads that divides {d}");
            return Err(node.mismatch(expected, self.heads));
        }
        match node.inputs.iter().find(|input| **input != q) {
            None => Ok(q.clone()),
            Some(other) => {
                let expected = format!("keys and values of the shape of the queries, {q}");
                Err(node.mismatch(expected, other))
            }
        }
    }

    /// The number of vectors.
    fn takes_free(&self, dimension: usize, rank: usize) -> bool {
        (dimension, rank) == (0, 2)
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let heads = || OnnxAttribute::Int(i64::try_from(self.heads).unwrap_or(i64::MAX));
        OnnxForm {
            opset: 23,
            ..OnnxForm::with(
                "Attention",
                vec![("q_num_heads", heads()), ("kv_num_heads", heads())],
            )
        }
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }
}
