//! `QuantizeLinear` and `DequantizeLinear`: clamps of computed values, weights by their integers, and the layers that may run in int8.
//!
//! A pair of them rounds a value to integers and gives back their numbers. A network computes without the rounding, and keeps the clamp to the range of the
//! integers: a quantiser leaves a ReLU or a clip out of the file where that range says as much.

use std::rc::Rc;

use sparsevd_model::{Op, ops};

use super::activations::clip;
use super::grid::{Grid, Integers, nearest};
use super::importer::{Importer, Value};
use super::int8::{Int8Candidate, Steps};
use super::ranges::Range;
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::node_error::{Invalid, NodeError};
use crate::proto::data_type;
use crate::tensor::{Data, Int, Tensor};

/// Most nodes between a clamp and an earlier one that it joins.
const MOST_BETWEEN: usize = 8;

/// Scales and zero points as a node has them.
struct Parameters {
    /// One, or one for each element along an axis.
    scales: Vec<f32>,
    /// As many.
    zero_points: Vec<i64>,
    /// The data type of the zero points, where there are such.
    kind: Option<i32>,
}

impl<'m> Importer<'m> {
    /// A value as integers.
    pub(super) fn quantize(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let parameters = self.parameters(node, inputs)?;
        let given = node
            .int("output_dtype")?
            .and_then(|d| i32::try_from(d).ok());
        let kind = (parameters.kind.or(given.filter(|d| *d != 0))).unwrap_or(data_type::UINT8);
        let integers = Integers::of(kind)
            .ok_or_else(|| NodeError::unsupported(format!("integers of data type {kind}")))?;
        let (least, most) = integers.ends();
        let is_one = |z: &&i64| (least..=most).contains(*z);
        if let Some(other) = parameters.zero_points.iter().find(|z| !is_one(z)) {
            let expected = format!("a zero point from {least} to {most}");
            return Err(node.invalid(expected, other.to_string()).into());
        }
        match inputs.first() {
            Some(Some(Value::Activation(x))) => {
                let grid = one(&parameters, integers)?;
                Ok(Value::Activation(View {
                    grid: Some(grid),
                    is_quantised: true,
                    ..self.clamped(node, x, grid)?
                }))
            }
            Some(Some(Value::Constant(x))) => {
                let made = self.integers_of(node, x, &parameters, integers)?;
                if let Some(name) = node.0.output.first() {
                    self.types.insert(name, integers.data_type());
                }
                Ok(Value::Constant(Rc::new(made)))
            }
            _ => Err(node.invalid("a value", "none").into()),
        }
    }

    /// The numbers of integers.
    pub(super) fn dequantize(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let parameters = self.parameters(node, inputs)?;
        match inputs.first() {
            Some(Some(Value::Activation(x))) => {
                let Some(was) = x.grid.filter(|_| x.is_quantised) else {
                    let got = format!("`{}`, a value of numbers", x.name);
                    return Err(node.invalid("integers of a QuantizeLinear", got).into());
                };
                same_type(node, Some(was.integers.data_type()), parameters.kind)?;
                let is = one(&parameters, was.integers)?;
                if is != was {
                    let text =
                        |g: Grid| format!("scale {} and zero point {}", g.scale, g.zero_point);
                    return Err(NodeError::unsupported(format!(
                        "{} for integers of {}",
                        text(is),
                        text(was)
                    )));
                }
                Ok(Value::Activation(View {
                    is_quantised: false,
                    ..x.clone()
                }))
            }
            Some(Some(Value::Constant(x))) => {
                let kind = node.input(0).and_then(|name| self.types.get(name).copied());
                same_type(node, kind, parameters.kind)?;
                let made = self.numbers_of(node, x, &parameters, kind)?;
                Ok(Value::Constant(Rc::new(made)))
            }
            _ => Err(node.invalid("a value", "none").into()),
        }
    }

    /// Notes that the last node of the network, which reads `x`, may run in int8, where the file has its weight as integers too, with scales along the axis
    /// of its outputs.
    pub(super) fn note_int8(&mut self, x: &View, weight: Option<&str>, axis: usize) {
        let Some((node, last)) = self.nodes.iter().enumerate().next_back() else {
            return;
        };
        let rows = last.op.weight().and_then(|w| self.tensors.get(w));
        let rows = rows.and_then(|w| w.shape().dims().first().copied());
        let grid = x.grid.filter(|_| !x.is_quantised).and_then(Grid::bytes);
        let (Some(rows), Some(input), Some(weight)) = (rows, grid, weight) else {
            return;
        };
        // A matrix that is transposed has its rows along the other axis.
        let (steps, axis) = match self.transposed.get(weight) {
            Some(of) => (self.steps.get(of), 1 - axis.min(1)),
            None => (self.steps.get(weight), axis),
        };
        if let Some(rows) = steps.and_then(|s| s.along(axis, rows)) {
            self.int8.push(Int8Candidate { node, input, rows });
        }
    }

    fn parameters(
        &self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Parameters, NodeError> {
        if node.int("block_size")?.unwrap_or(0) != 0 {
            return Err(NodeError::unsupported("a block_size"));
        }
        let scale = match inputs.get(1) {
            Some(Some(Value::Constant(scale))) => scale,
            Some(Some(_)) => return Err(NodeError::unsupported("a scale that is no constant")),
            _ => return Err(node.invalid("a scale", "none").into()),
        };
        let is_list = |t: &Tensor| t.dims.len() < 2 && t.data.len() > 0;
        let scales = (scale.floats().filter(|_| is_list(scale))).ok_or_else(|| {
            node.invalid("a number or a list of numbers as scale", scale.describe())
        })?;
        if let Some(bad) = scales.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return Err(node
                .invalid("finite scales above 0", bad.to_string())
                .into());
        }
        let (zero_points, kind) = match inputs.get(2) {
            None | Some(None) => (vec![0; scales.len()], None),
            Some(Some(Value::Constant(zero))) => {
                let fits = zero.data.len() == scales.len() && is_list(zero);
                let ints = zero.ints().filter(|_| fits).ok_or_else(|| {
                    let expected = format!(
                        "an integer as zero point for each of {} scale(s)",
                        scales.len()
                    );
                    node.invalid(expected, zero.describe())
                })?;
                let kind = node.input(2).and_then(|name| self.types.get(name).copied());
                if kind.is_none() {
                    return Err(NodeError::unsupported("a zero point that is computed"));
                }
                (ints, kind)
            }
            Some(Some(_)) => {
                return Err(NodeError::unsupported("a zero point that is no constant"));
            }
        };
        Ok(Parameters {
            scales: scales.to_vec(),
            zero_points,
            kind,
        })
    }

    /// The value within the range of a grid, by a clamp at each end that it may pass.
    ///
    /// A quantiser leaves the ReLU or clip before a value out of the file where the range of its integers says as much, so no end may be left out for being that of
    /// a calibration alone. One may: a range with zero inside of a value that sums alone read, the branch of a residual block. There a clamp would keep the sum from
    /// joining the layer, and a clip with a negative bound is not found there.
    fn clamped(&mut self, node: OnnxNode<'m>, x: &View, grid: Grid) -> Result<View, NodeError> {
        let Range { least, most } = grid.range();
        let made = node.0.output.first().map_or("", String::as_str);
        if least < 0.0 && most > 0.0 && !self.read_by_others.contains(made) {
            return Ok(x.clone());
        }
        let known = self.range(&x.name);
        let min = Some(least).filter(|v| v.is_finite() && *v > known.least);
        let max = Some(most).filter(|v| v.is_finite() && *v < known.most);
        if (min, max) == (None, None) || self.joins_clamp(node, x, min, max) {
            return Ok(x.clone());
        }
        self.map(node, x, clip(min, max))
    }

    /// Makes a clamp part of the ReLU or clip before it, also in front of a max-pooling, where no other node reads what they make: a layer takes one clamp.
    fn joins_clamp(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        min: Option<f32>,
        max: Option<f32>,
    ) -> bool {
        let Some(mut name) = node.input(0).filter(|name| *name == x.name) else {
            return false;
        };
        let mut between = Vec::new();
        let recent = self.nodes.iter_mut().rev().take(MOST_BETWEEN);
        for before in recent {
            if before.name != name {
                continue;
            }
            if self.uses.get(name) != Some(&1) {
                return false;
            }
            between.push(before.name.clone());
            let (old_min, old_max) = match &before.op {
                Op::MaxPool(_) => {
                    let read = before
                        .inputs
                        .first()
                        .and_then(|i| self.uses.get_key_value(i.as_str()));
                    let Some((read, _)) = read else {
                        return false;
                    };
                    name = read;
                    continue;
                }
                Op::Relu => (Some(0.0), None),
                Op::Clip(ops::Clip { min, max }) => (*min, *max),
                _ => return false,
            };
            let inner = |a: Option<f32>, b: Option<f32>, f: fn(f32, f32) -> f32| match (a, b) {
                (Some(a), Some(b)) => Some(f(a, b)),
                (a, b) => a.or(b),
            };
            let (low, high) = (inner(old_min, min, f32::max), inner(old_max, max, f32::min));
            if matches!((low, high), (Some(low), Some(high)) if low > high) {
                return false;
            }
            before.op = clip(low, high);
            for name in between {
                let range = self.ranges.entry(name).or_insert(Range::ALL);
                *range = range.clamped(low, high);
            }
            return true;
        }
        false
    }

    /// A constant as integers.
    fn integers_of(
        &self,
        node: OnnxNode<'m>,
        x: &Tensor,
        parameters: &Parameters,
        integers: Integers,
    ) -> Result<Tensor, NodeError> {
        let values =
            (x.floats()).ok_or_else(|| node.invalid("floating-point numbers", x.describe()))?;
        let (_, index) = along(node, x, parameters)?;
        self.decoder.take(&node.label(), &x.dims)?;
        let (least, most) = integers.ends();
        let integer = |(i, v): (usize, &f32)| {
            let (scale, zero) = (
                parameters.scales[index(i)],
                parameters.zero_points[index(i)],
            );
            let q = (v / scale).round_ties_even() as i64;
            Int::Known(q.saturating_add(zero).clamp(least, most))
        };
        Ok(Tensor {
            dims: x.dims.clone(),
            data: Data::Int(values.iter().enumerate().map(integer).collect()),
        })
    }

    /// The numbers of constant integers.
    fn numbers_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &Tensor,
        parameters: &Parameters,
        kind: Option<i32>,
    ) -> Result<Tensor, NodeError> {
        let ints = x
            .ints()
            .ok_or_else(|| node.invalid("integers", x.describe()))?;
        let (axis, index) = along(node, x, parameters)?;
        self.decoder.take(&node.label(), &x.dims)?;
        // The scale of a bias is a product of two, and no grid is made of it.
        let scales: Rc<[f32]> = match kind {
            Some(data_type::INT32) => parameters.scales.as_slice().into(),
            _ => parameters.scales.iter().map(|s| nearest(*s)).collect(),
        };
        let number = |(i, q): (usize, &i64)| {
            let level = q.saturating_sub(parameters.zero_points[index(i)]);
            // Exact in double precision, so that it is rounded once.
            (level as f64 * f64::from(scales[index(i)])) as f32
        };
        let values = ints.iter().enumerate().map(number).collect();
        if let Some(name) = node.0.output.first() {
            self.steps.insert(name, Steps { scales, axis });
        }
        Ok(Tensor {
            dims: x.dims.clone(),
            data: Data::Float(values),
        })
    }
}

/// The axis along which a constant has a scale for each element, and the scale that each element has.
fn along<'p>(
    node: OnnxNode<'_>,
    x: &Tensor,
    parameters: &'p Parameters,
) -> Result<(usize, impl Fn(usize) -> usize + use<'p>), NodeError> {
    let count = parameters.scales.len();
    let given = node.int("axis")?.unwrap_or(1);
    let at = axis(given, x.dims.len());
    if count > 1 && at.is_none_or(|at| x.dims[at] != count) {
        let expected = match at {
            Some(at) => format!("{} scales along axis {given}", x.dims[at]),
            None => format!("an axis of {}", x.dims.len()),
        };
        let got = format!("{count} scales and axis {given}");
        return Err(node.invalid(expected, got).into());
    }
    let at = at.unwrap_or(0);
    let inner: usize = x.dims.iter().skip(at + 1).product();
    let index = move |i: usize| match count {
        1 => 0,
        _ => i / inner.max(1) % count,
    };
    Ok((at, index))
}

/// The grid of a whole value.
fn one(parameters: &Parameters, integers: Integers) -> Result<Grid, NodeError> {
    match (&parameters.scales[..], &parameters.zero_points[..]) {
        (&[scale], &[zero_point]) => Ok(Grid {
            scale,
            zero_point,
            integers,
        }),
        (scales, _) => Err(NodeError::unsupported(format!(
            "{} scales for one computed value",
            scales.len()
        ))),
    }
}

/// Checks that integers and their zero point have one data type, where both are known.
fn same_type(node: OnnxNode<'_>, of: Option<i32>, zero_point: Option<i32>) -> Result<(), Invalid> {
    match (of, zero_point) {
        (Some(of), Some(zero)) if of != zero => {
            let expected = format!("a zero point of data type {of}, as the integers have");
            Err(node.invalid(expected, format!("data type {zero}")))
        }
        _ => Ok(()),
    }
}
