//! Operators that a file writes as several, and the values that they read.

use sparsevd_model::Approximate;

/// An operator that the file writes as several.
#[derive(Debug, Clone)]
pub(super) enum Whole<'m> {
    Gelu {
        x: &'m str,
        approximate: Approximate,
    },
    LayerNormalization(LayerNormalization<'m>),
    Rows(Rows<'m>),
    /// Along an axis per sample.
    Softmax {
        x: &'m str,
        axis: usize,
    },
}

impl<'m> Whole<'m> {
    /// The computed value that it reads.
    pub fn x(&self) -> &'m str {
        match self {
            Self::Gelu { x, .. } | Self::Softmax { x, .. } => x,
            Self::LayerNormalization(whole) => whole.x,
            Self::Rows(rows) => rows.ids,
        }
    }

    /// All values that it reads.
    pub fn inputs(&self) -> impl Iterator<Item = &'m str> {
        let [scale, bias] = match self {
            Self::LayerNormalization(whole) => [whole.scale, whole.bias],
            Self::Rows(rows) => [Some(rows.table), None],
            Self::Gelu { .. } | Self::Softmax { .. } => [None, None],
        };
        [Some(self.x()), scale, bias].into_iter().flatten()
    }
}

/// The row of a table for each id.
#[derive(Debug, Clone)]
pub(super) struct Rows<'m> {
    pub ids: &'m str,
    /// Whether the ids have a last dimension, of one element, in the place of the row's.
    pub has_axis: bool,
    /// Name of a constant.
    pub table: &'m str,
}

/// `number scale (x - mean) / sqrt(variance + epsilon) + bias` over some axes.
#[derive(Debug, Clone)]
pub(super) struct LayerNormalization<'m> {
    pub x: &'m str,
    pub axes: Vec<usize>,
    pub number: f32,
    /// Names of constants.
    pub scale: Option<&'m str>,
    pub bias: Option<&'m str>,
    pub epsilon: f32,
}
