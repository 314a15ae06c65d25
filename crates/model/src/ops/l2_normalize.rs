//! Vectors of length 1.

use super::onnx_form::{OnnxAttribute, OnnxForm};
use super::operator::{Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `x / max(||x||, 1e-12)` of each vector along the last dimension, with the Euclidean norm: PyTorch's `F.normalize`.
///
/// ONNX's `LpNormalization` has no smallest norm, and differs for shorter vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct L2Normalize;

impl Operator for L2Normalize {
    fn name(&self) -> &'static str {
        "L2Normalize"
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        match node.x().dims() {
            [] => Err(node.mismatch("one dimension or more", node.x())),
            _ => Ok(node.x().clone()),
        }
    }

    /// A dimension before that of the vectors.
    fn takes_free(&self, dimension: usize, rank: usize) -> bool {
        dimension + 1 < rank
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        let attributes = vec![
            ("axis", OnnxAttribute::Int(-1)),
            ("p", OnnxAttribute::Int(2)),
        ];
        OnnxForm::with("LpNormalization", attributes)
    }

    fn packed_number(&self) -> Option<usize> {
        None
    }

    fn not_trained(&self) -> Option<&'static str> {
        Some("lengths of the rows of a map")
    }
}
