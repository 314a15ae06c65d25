//! Windows of convolutions and pooling.

use serde::{Deserialize, Serialize};

use super::onnx_form::OnnxAttribute;
use crate::limits::MAX_ELEMENTS;

/// How a convolution or pooling window moves over a feature map (ONNX attribute names).
///
/// `pads` is top, left, bottom, right, in pixels, as in ONNX.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Window height and width in pixels.
    pub kernel_shape: [usize; 2],
    /// Steps down and right in pixels.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub strides: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    #[serde(default, skip_serializing_if = "is_zeros")]
    pub pads: [usize; 4],
    /// Distance between window elements.
    #[serde(default = "ones", skip_serializing_if = "is_ones")]
    pub dilations: [usize; 2],
}

fn ones() -> [usize; 2] {
    [1, 1]
}

fn is_ones(pair: &[usize; 2]) -> bool {
    *pair == ones()
}

fn is_zeros(pads: &[usize; 4]) -> bool {
    *pads == [0; 4]
}

impl Window {
    /// The window over maps whose rows are the columns.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let turned = |[down, right]: [usize; 2]| [right, down];
        let [top, left, bottom, right] = self.pads;
        Self {
            kernel_shape: turned(self.kernel_shape),
            strides: turned(self.strides),
            pads: [left, top, right, bottom],
            dilations: turned(self.dilations),
        }
    }

    /// A square window without padding or dilation.
    pub fn square(size: usize, stride: usize) -> Self {
        Self {
            kernel_shape: [size, size],
            strides: [stride, stride],
            pads: [0; 4],
            dilations: [1, 1],
        }
    }

    /// Output height and width over an input of `height` by `width`, or `None` where the window does not fit,
    /// a stride or dilation is zero, or the input with its padding is larger than any map ([`MAX_ELEMENTS`]).
    pub fn output(&self, height: usize, width: usize) -> Option<[usize; 2]> {
        let side = |n: usize, k: usize, s: usize, d: usize, before: usize, after: usize| {
            if k == 0 || s == 0 || d == 0 {
                return None;
            }
            let reach = d.checked_mul(k - 1)?.checked_add(1)?;
            let padded = n.checked_add(before)?.checked_add(after)?;
            Some(padded.checked_sub(reach)? / s + 1)
        };
        let [kh, kw] = self.kernel_shape;
        let [top, left, bottom, right] = self.pads;
        let [rows, columns] = self.padded(height, width);
        if rows.saturating_mul(columns) > MAX_ELEMENTS {
            return None;
        }
        Some([
            side(height, kh, self.strides[0], self.dilations[0], top, bottom)?,
            side(width, kw, self.strides[1], self.dilations[1], left, right)?,
        ])
    }

    /// Whether there is one position, in which it has all of an input of that height and width and no padding.
    pub fn is_whole(&self, height: usize, width: usize) -> bool {
        self.kernel_shape == [height, width] && self.dilations == [1; 2] && self.pads == [0; 4]
    }

    /// Height and width of an input with its padding; saturates instead of overflowing.
    pub fn padded(&self, height: usize, width: usize) -> [usize; 2] {
        let [top, left, bottom, right] = self.pads;
        let side = |n: usize, before: usize, after| n.saturating_add(before).saturating_add(after);
        [side(height, top, bottom), side(width, left, right)]
    }

    /// The attributes in ONNX; dilations only where the operator has them.
    pub(super) fn onnx(&self, dilations: bool) -> Vec<(&'static str, OnnxAttribute)> {
        let ints = |sizes: &[usize]| OnnxAttribute::Ints(sizes.iter().map(|&n| n as i64).collect());
        let mut all = vec![
            ("kernel_shape", ints(&self.kernel_shape)),
            ("strides", ints(&self.strides)),
            ("pads", ints(&self.pads)),
        ];
        if dilations {
            all.push(("dilations", ints(&self.dilations)));
        }
        all
    }
}
