//! Arithmetic of two values, element by element.

use std::ops::RangeInclusive;

use super::onnx_form::OnnxForm;
use super::operator::{ChannelTensors, Channels, NodeShapes, Operator};
use crate::{ModelError, Shape};

/// `a + b` of two values of one shape, or with one number per channel (`[c]` or `[c, 1, 1]`) as the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Add;

/// `a - b`, with shapes as for [`Add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sub;

/// `a b`, with shapes as for [`Add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mul;

/// `a / b`, with shapes as for [`Add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Div;

/// The larger of `a` and `b`, with shapes as for [`Add`]; NaN where either is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Max;

/// The smaller of `a` and `b`, with shapes as for [`Add`]; NaN where either is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Min;

/// Whether a shape holds one number for each channel of a feature map: `[c]` or `[c, 1, 1]` beside `[c, h, w]`.
pub fn is_per_channel(shape: &Shape, map: &Shape) -> bool {
    matches!(
        (shape.dims(), map.dims()),
        (&[c] | &[c, 1, 1], &[channels, _, _]) if c == channels
    )
}

fn same_or_per_channel(node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
    let (a, b) = (node.inputs[0], node.inputs[1]);
    if a != b && !is_per_channel(b, a) {
        let expected =
            format!("a second input of the shape of the first, {a}, or one number per channel");
        return Err(node.mismatch(expected, b));
    }
    Ok(a.clone())
}

macro_rules! arithmetic {
    ($op:ident, $number:expr, keeps_zero: $keeps_zero:literal, |$a:ident, $b:ident| $constant:expr) => {
        impl Operator for $op {
            fn name(&self) -> &'static str {
                stringify!($op)
            }

            fn inputs(&self) -> RangeInclusive<usize> {
                2..=2
            }

            fn shape(&self, node: &NodeShapes<'_>) -> Result<Shape, ModelError> {
                same_or_per_channel(node)
            }

            fn takes_free(&self, _dimension: usize, _rank: usize) -> bool {
                true
            }

            fn keeps_zero(&self) -> bool {
                $keeps_zero
            }

            fn channels(&self) -> Channels {
                Channels::Same
            }

            fn constant(&self, inputs: &[Option<f32>], _: &ChannelTensors<'_>) -> Option<f32> {
                let ($a, $b) = (inputs[0], inputs[1]);
                $constant
            }

            fn onnx(&self) -> OnnxForm {
                OnnxForm::new(stringify!($op))
            }

            fn packed_number(&self) -> Option<usize> {
                $number
            }
        }
    };
}

arithmetic!(Add, Some(6), keeps_zero: true, |a, b| Some(a? + b?));
arithmetic!(Sub, Some(16), keeps_zero: true, |a, b| Some(a? - b?));
arithmetic!(Mul, Some(17), keeps_zero: true, |a, b| match (a, b) {
    (Some(0.0), _) | (_, Some(0.0)) => Some(0.0),
    _ => Some(a? * b?),
});
arithmetic!(Div, Some(18), keeps_zero: false, |a, b| Some(a? / b.filter(|b| *b != 0.0)?));
arithmetic!(Max, None, keeps_zero: true, |a, b| Some(a?.max(b?)));
arithmetic!(Min, None, keeps_zero: true, |a, b| Some(a?.min(b?)));
