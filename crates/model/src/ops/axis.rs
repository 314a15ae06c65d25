//! Dimensions as attributes.

use super::onnx_form::OnnxAttribute;

/// Whether a dimension is the one that files leave out.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(super) fn is_first(axis: &usize) -> bool {
    *axis == 0
}

/// A dimension of one sample as ONNX counts it, behind the batch.
pub(super) fn axis_in_onnx(axis: usize) -> OnnxAttribute {
    OnnxAttribute::Int(i64::try_from(axis).map_or(i64::MAX, |axis| axis.saturating_add(1)))
}
