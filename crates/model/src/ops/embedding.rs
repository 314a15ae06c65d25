//! Rows of a table by their numbers.

use serde::{Deserialize, Serialize};

use super::onnx_form::OnnxForm;
use super::operator::{Attribute, Channels, NodeShapes, Operator};
use crate::{DType, MOST_IDS, ModelError, Shape};

/// For each id of the input the row of a table `[rows, width]` of that number: `[..]` to `[.., width]`.
///
/// An id is an integer from 0 to `rows - 1`. PyTorch's `Embedding`; ONNX's `Gather` along the first axis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedding {
    /// Tensor name of the table.
    pub table: String,
}

impl Operator for Embedding {
    fn name(&self) -> &'static str {
        "Embedding"
    }

    fn tensors(&self) -> Vec<&str> {
        vec![&self.table]
    }

    /// As PyTorch begins with.
    fn initial(&self, _tensor: &str) -> Option<f32> {
        None
    }

    fn visit_attributes(&mut self, visit: &mut dyn FnMut(&'static str, Attribute<'_>)) {
        visit("table", Attribute::Tensor(&mut self.table));
    }

    fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
        let table = node.tensor(&self.table)?;
        match table.dims() {
            &[rows, width] if (1..=MOST_IDS).contains(&rows) => {
                let ids = node.x().dims().iter().copied();
                Ok(Shape(ids.chain([width]).collect()))
            }
            _ => {
                let expected = format!("a table [rows, width] of 1 to {MOST_IDS} rows");
                Err(node.mismatch(expected, table))
            }
        }
    }

    fn takes(&self, _input: usize, dtype: DType) -> bool {
        dtype.is_id()
    }

    fn takes_free(&self, _dimension: usize, _rank: usize) -> bool {
        true
    }

    fn channels(&self) -> Channels {
        Channels::All
    }

    fn onnx(&self) -> OnnxForm {
        OnnxForm {
            tensors_first: true,
            ..OnnxForm::new("Gather")
        }
    }

    fn packed_number(&self) -> Option<usize> {
        Some(25)
    }
}
