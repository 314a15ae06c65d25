//! Maps of another size: pixels repeated or interpolated, and channels as pixels or the other way round.

use sparsevd_model::{Dense, Op, Shape, ops};

use super::importer::Importer;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::constants::resolve;
use crate::node_error::NodeError;
use crate::tensor::{Int, Tensor};

/// Most elements that an axis may get.
const MOST: usize = 1 << 20;

impl<'m> Importer<'m> {
    /// Channels that become blocks of pixels, or blocks of pixels that become channels.
    pub(super) fn depth_and_space(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
    ) -> Result<View, NodeError> {
        let dims = x.dims.clone();
        let map = dims.split_at_checked(1 - self.batch_axes);
        let Some((before, &[c, h, w])) = map else {
            return Err(NodeError::unsupported(format!(
                "an input {}, which is not a feature map",
                Shape(dims)
            )));
        };
        let block = node.int("blocksize")?.map(usize::try_from);
        let Some(Ok(b @ 1..)) = block else {
            return Err(node
                .invalid("a positive blocksize", format!("{block:?}"))
                .into());
        };
        let is_dcr = match node.text("mode")?.unwrap_or("DCR") {
            "DCR" => true,
            "CRD" => false,
            other => return Err(node.invalid("a mode DCR or CRD", other).into()),
        };
        let to_space = node.0.op_type == "DepthToSpace";
        let area = b.checked_mul(b);
        let divides = |n: usize, by: usize| n.is_multiple_of(by);
        let fits = match to_space {
            true => area.is_some_and(|area| divides(c, area)),
            false => divides(h, b) && divides(w, b),
        };
        if !fits {
            let expected = format!("sizes that blocks of {b} divide");
            return Err(node
                .invalid(expected, Shape(dims.clone()).to_string())
                .into());
        }
        let (split, perm, sizes) = match (to_space, is_dcr) {
            (true, true) => {
                let c = c / (b * b);
                ([b, b, c, h, w], [2, 3, 0, 4, 1], [c, h * b, w * b])
            }
            (true, false) => {
                let c = c / (b * b);
                ([c, b, b, h, w], [0, 3, 1, 4, 2], [c, h * b, w * b])
            }
            (false, _) => {
                let (h, w) = (h / b, w / b);
                let perm = match is_dcr {
                    true => [2, 4, 0, 1, 3],
                    false => [0, 2, 4, 1, 3],
                };
                ([c, h, b, w, b], perm, [c * b * b, h, w])
            }
        };
        let behind = before.len();
        let perm: Vec<usize> = (0..behind).chain(perm.map(|p| p + behind)).collect();
        let split = x.reshaped([before, &split].concat());
        let made = split.transposed(&node.label(), &perm, self.decoder)?;
        Ok(made.reshaped([before, &sizes].concat()))
    }

    /// A resize: elements that are all repeated equally often are copied; along any other axis, each new element is a sum of old ones, and the axis
    /// is multiplied by a matrix.
    pub(super) fn resize<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let rank = x.dims.len() + self.batch_axes;
        let axes = match node.ints("axes")? {
            Some(axes) => resolve(node, axes, rank)?,
            None => (0..rank).collect(),
        };
        let (scales, sizes) = match self.opset {
            ..=10 => (constant(1), None),
            _ => (constant(2), constant(3)),
        };
        // An empty tensor is an absent one.
        let scales = scales.and_then(Tensor::floats).filter(|s| !s.is_empty());
        let sizes = sizes.and_then(Tensor::sizes).filter(|s| !s.is_empty());
        let count = scales.map_or(sizes.map(<[Int]>::len), |s| Some(s.len()));
        if count != Some(axes.len()) {
            return Err(NodeError::unsupported(
                "scales or sizes that are not one constant for each axis",
            ));
        }
        if sizes.is_some() {
            match node.text("keep_aspect_ratio_policy")?.unwrap_or("stretch") {
                "stretch" => {}
                other => {
                    return Err(NodeError::unsupported(format!(
                        "keep_aspect_ratio_policy `{other}`"
                    )));
                }
            }
        }
        let interpolation = Interpolation::of(node, self.opset)?;
        let mut factors = vec![1; x.dims.len()];
        let mut matrices = Vec::new();
        for (i, &axis) in axes.iter().enumerate() {
            let Some(at) = axis.checked_sub(self.batch_axes) else {
                let keeps = match (scales, sizes.map(|sizes| sizes[i])) {
                    (Some(scales), _) => scales[i] == 1.0,
                    (_, Some(Int::Batch)) => true,
                    (_, Some(Int::Known(size))) => {
                        let batch = self.batch.filter(|_| self.declared.len() == 1);
                        batch.is_some_and(|n| i64::try_from(n) == Ok(size))
                    }
                    _ => false,
                };
                if keeps {
                    continue;
                }
                return Err(NodeError::unsupported("another number of samples"));
            };
            let wrong = |got: String| node.invalid("sizes and scales above 0", got);
            let own = x.dims[at];
            let resized = match (scales, sizes.map(|sizes| sizes[i])) {
                (Some(scales), _) => {
                    let scale = f64::from(scales[i]);
                    let size = own as f64 * scale;
                    // onnxruntime multiplies in single precision.
                    if size.floor() != f64::from((own as f32 * scales[i]).floor()) {
                        return Err(NodeError::unsupported(format!(
                            "a scale of {scale}, which makes {size} of {own} elements: its precision decides how many"
                        )));
                    }
                    Resized {
                        own,
                        size: size.floor() as usize,
                        scale,
                        exact: size,
                    }
                }
                (_, Some(Int::Known(size))) => {
                    let size = usize::try_from(size).map_err(|_| wrong(size.to_string()))?;
                    Resized {
                        own,
                        size,
                        scale: size as f64 / own.max(1) as f64,
                        exact: size as f64,
                    }
                }
                _ => return Err(wrong("the batch".into()).into()),
            };
            let Resized { size, exact, .. } = resized;
            if size == 0 || own == 0 {
                return Err(wrong(size.to_string()).into());
            }
            if size > MOST {
                let what = format!("a size of {size}, which is more than {MOST}");
                return Err(NodeError::unsupported(what));
            }
            if self.opset <= 10 && resized.scale < 1.0 {
                // The version does not say how places are rounded.
                return Err(NodeError::unsupported("a scale below 1 before opset 11"));
            }
            // ONNX's reference aligns the last element with the size before it is rounded, onnxruntime with that after.
            if interpolation.transformation == "align_corners" && exact != size as f64 {
                return Err(NodeError::unsupported(format!(
                    "align_corners and a size of {exact}"
                )));
            }
            self.decoder.take(&node.label(), &[size])?;
            let factor = size / own;
            let repeats = |to: usize| {
                let source = interpolation.terms(to, resized);
                matches!(source[..], [(from, 1.0)] if from == to / factor.max(1))
            };
            if factor.checked_mul(own) == Some(size) && (0..size).all(repeats) {
                factors[at] = factor;
            } else {
                matrices.push((at, resized));
            }
        }
        let mut x = self.with_repeats(x, &factors)?;
        for (at, resized) in matrices {
            x = self.along_axis(node, &x, at, resized, &interpolation)?;
        }
        Ok(x)
    }

    /// The value with an axis resized, by a linear layer over it.
    fn along_axis(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        at: usize,
        resized: Resized,
        interpolation: &Interpolation<'_>,
    ) -> Result<View, NodeError> {
        if !self.moves {
            return Err(NodeError::unsupported(format!(
                "another size along axis {at} of {} per sample",
                Shape(x.dims.clone())
            )));
        }
        let Resized { own, size, .. } = resized;
        self.decoder.take(&node.label(), &[size, own])?;
        let mut values = vec![0.0_f32; size * own];
        for (to, row) in values.chunks_exact_mut(own).enumerate() {
            for (from, weight) in interpolation.terms(to, resized) {
                row[from] += weight as f32;
            }
        }
        let weight = self.tensor(
            &format!("{}.matrix", node.name()),
            Dense::new([size, own], values),
        );
        // The axis as the last, and back.
        let rank = x.dims.len();
        let there: Vec<usize> = (0..rank).filter(|&i| i != at).chain([at]).collect();
        let last = x.transposed(&node.label(), &there, self.decoder)?;
        let last = self.moved_to(&last, &last.dims.clone())?;
        let op = Op::Linear(ops::Linear { weight, bias: None });
        let name = self.free_name(&format!("{}.resized", node.name()));
        let made = self.push_named(name, op, &[&last])?;
        let back: Vec<usize> = (0..at).chain([rank - 1]).chain(at..rank - 1).collect();
        Ok(made.transposed(&node.label(), &back, self.decoder)?)
    }

    /// The value with each element along an axis as many times as `factors` say.
    fn with_repeats(&mut self, x: &View, factors: &[usize]) -> Result<View, NodeError> {
        let (mut single, mut copied, mut dims) = (Vec::new(), Vec::new(), Vec::new());
        for (&size, &factor) in x.dims.iter().zip(factors) {
            single.push(size);
            copied.push(size);
            if factor > 1 {
                single.push(1);
                copied.push(factor);
            }
            dims.push(size * factor);
        }
        if single == copied {
            return Ok(x.clone());
        }
        let plain = self.in_shape(x, &x.dims.clone())?;
        let made = self.broadcast_to(&plain.reshaped(single), &copied)?;
        Ok(made.reshaped(dims))
    }
}

/// An axis of `own` elements that gets `size`.
#[derive(Debug, Clone, Copy)]
struct Resized {
    own: usize,
    size: usize,
    scale: f64,
    /// The size before it is rounded down.
    exact: f64,
}

/// How a resized element is made of those of the input.
struct Interpolation<'m> {
    mode: Mode,
    /// From places of the output to places of the input.
    transformation: &'m str,
    /// Whether places outside of the input have no weight, rather than the element at the edge.
    excludes_outside: bool,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Nearest(Rounding),
    Linear,
    /// By the parameter of the cubic function between one and two elements away.
    Cubic(f64),
}

#[derive(Debug, Clone, Copy)]
enum Rounding {
    Floor,
    Ceil,
    HalfDown,
    HalfUp,
}

impl<'m> Interpolation<'m> {
    fn of(node: OnnxNode<'m>, opset: i64) -> Result<Self, NodeError> {
        // The first version of the operator has no attributes for it.
        let [transformation, rounding] = match opset {
            ..=10 => ["asymmetric", "floor"],
            _ => ["half_pixel", "round_prefer_floor"],
        };
        let transformation = node
            .text("coordinate_transformation_mode")?
            .unwrap_or(transformation);
        let known = [
            "half_pixel",
            "half_pixel_symmetric",
            "pytorch_half_pixel",
            "asymmetric",
            "align_corners",
        ];
        if !known.contains(&transformation) {
            return Err(NodeError::unsupported(format!(
                "coordinate_transformation_mode `{transformation}`"
            )));
        }
        if node.int("antialias")?.unwrap_or(0) != 0 {
            return Err(NodeError::unsupported("antialias"));
        }
        let mode = match node.text("mode")?.unwrap_or("nearest") {
            "nearest" => Mode::Nearest(match node.text("nearest_mode")?.unwrap_or(rounding) {
                "round_prefer_floor" => Rounding::HalfDown,
                "round_prefer_ceil" => Rounding::HalfUp,
                "floor" => Rounding::Floor,
                "ceil" => Rounding::Ceil,
                other => return Err(node.invalid("a known nearest_mode", other).into()),
            }),
            "linear" => Mode::Linear,
            "cubic" => Mode::Cubic(node.float("cubic_coeff_a")?.map_or(-0.75, f64::from)),
            other => return Err(NodeError::unsupported(format!("mode `{other}`"))),
        };
        Ok(Self {
            mode,
            transformation,
            excludes_outside: node.int("exclude_outside")?.unwrap_or(0) != 0,
        })
    }

    /// The elements that make up element `to`, with their weights, which add up to 1.
    fn terms(&self, to: usize, resized: Resized) -> Vec<(usize, f64)> {
        let place = self.place(to, resized);
        let first = place.floor();
        // How far behind the first element.
        let t = place - first;
        let taps: Vec<(f64, f64)> = match self.mode {
            Mode::Nearest(rounding) => {
                let at = match rounding {
                    Rounding::Floor => place.floor(),
                    Rounding::Ceil => place.ceil(),
                    Rounding::HalfUp => (place + 0.5).floor(),
                    Rounding::HalfDown => (place - 0.5).ceil(),
                };
                vec![(at, 1.0)]
            }
            Mode::Linear => vec![(first, 1.0 - t), (first + 1.0, t)],
            Mode::Cubic(a) => (-1..=2)
                .map(|i| (first + f64::from(i), cubic(a, (t - f64::from(i)).abs())))
                .collect(),
        };
        let last = resized.own as f64 - 1.0;
        let is_inside = |at: f64| (0.0..=last).contains(&at);
        let excludes = self.excludes_outside && matches!(self.mode, Mode::Cubic(_));
        let total: f64 = match excludes {
            true => (taps.iter().filter(|tap| is_inside(tap.0)).map(|tap| tap.1)).sum(),
            false => 1.0,
        };
        let mut terms: Vec<(usize, f64)> = Vec::new();
        for (at, weight) in taps {
            if weight == 0.0 || excludes && !is_inside(at) {
                continue;
            }
            let from = at.clamp(0.0, last) as usize;
            match terms.iter_mut().find(|term| term.0 == from) {
                Some(term) => term.1 += weight / total,
                None => terms.push((from, weight / total)),
            }
        }
        terms
    }

    /// The place in the input of element `to` of the output.
    fn place(&self, to: usize, resized: Resized) -> f64 {
        let Resized {
            own,
            size,
            scale,
            exact,
        } = resized;
        let (to, own) = (to as f64, own as f64);
        match self.transformation {
            "asymmetric" => to / scale,
            "align_corners" if size < 2 => 0.0,
            "align_corners" => to * (own - 1.0) / (size as f64 - 1.0),
            "pytorch_half_pixel" if size < 2 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = size as f64 / exact;
                own / 2.0 * (1.0 - adjustment) + (to + 0.5) / scale - 0.5
            }
            _ => (to + 0.5) / scale - 0.5,
        }
    }
}

/// The cubic function of convolution with parameter `a` at distance `x` (Keys, "Cubic convolution interpolation for digital image processing",
/// 1981, equation 15).
fn cubic(a: f64, x: f64) -> f64 {
    match x {
        ..=1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        ..2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
