//! Maps of another size without a computed number: pixels repeated, and channels as pixels or the other way round.

use sparsevd_model::Shape;

use super::importer::Importer;
use super::view::View;
use crate::attributes::OnnxNode;
use crate::constants::resolve;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

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

    /// A nearest-neighbour resize by whole factors, which repeats pixels.
    pub(super) fn resize<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        match node.text("mode")?.unwrap_or("nearest") {
            "nearest" => {}
            other => return Err(NodeError::unsupported(format!("mode `{other}`"))),
        }
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
        let sizes = sizes.and_then(Tensor::ints).filter(|s| !s.is_empty());
        let count = scales.map_or(sizes.as_ref().map(Vec::len), |s| Some(s.len()));
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
        let place = Nearest::of(node, self.opset)?;
        let mut factors = vec![1; x.dims.len()];
        for (i, &axis) in axes.iter().enumerate() {
            let refused = || {
                let given = match (scales, &sizes) {
                    (Some(scales), _) => format!("scale {}", scales[i]),
                    (_, Some(sizes)) => format!("size {}", sizes[i]),
                    _ => "none".into(),
                };
                NodeError::unsupported(format!(
                    "a {given} along axis {axis} of {} per sample that does not repeat each element equally often",
                    Shape(x.dims.clone())
                ))
            };
            let Some(at) = axis.checked_sub(self.batch_axes) else {
                let keeps = match (scales, &sizes) {
                    (Some(scales), _) => scales[i] == 1.0,
                    (_, Some(sizes)) => {
                        let batch = self.batch.filter(|_| self.declared.len() == 1);
                        batch.is_some_and(|n| i64::try_from(n) == Ok(sizes[i]))
                    }
                    _ => false,
                };
                if keeps {
                    continue;
                }
                return Err(NodeError::unsupported("another number of samples"));
            };
            let own = x.dims[at];
            let (size, scale) = match (scales, &sizes) {
                (Some(scales), _) => {
                    let scale = f64::from(scales[i]);
                    ((own as f64 * scale).floor() as usize, scale)
                }
                (_, Some(sizes)) => {
                    let size = usize::try_from(sizes[i]).map_err(|_| refused())?;
                    (size, size as f64 / own.max(1) as f64)
                }
                _ => return Err(refused()),
            };
            let factor = size.checked_div(own).unwrap_or(0);
            if factor == 0 || factor.checked_mul(own) != Some(size) {
                return Err(refused());
            }
            self.decoder.take(&node.label(), &[size])?;
            if !(0..size).all(|to| place.source(to, own, size, scale) == to / factor) {
                return Err(refused());
            }
            factors[at] = factor;
        }
        self.with_repeats(x, &factors)
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

/// Which element of an axis a resized one has.
struct Nearest<'m> {
    transformation: &'m str,
    rounding: &'m str,
}

impl<'m> Nearest<'m> {
    fn of(node: OnnxNode<'m>, opset: i64) -> Result<Self, NodeError> {
        // The first version of the operator has no attributes for it.
        let [transformation, rounding] = match opset {
            ..=10 => ["asymmetric", "floor"],
            _ => ["half_pixel", "round_prefer_floor"],
        };
        let nearest = Self {
            transformation: node
                .text("coordinate_transformation_mode")?
                .unwrap_or(transformation),
            rounding: node.text("nearest_mode")?.unwrap_or(rounding),
        };
        let known = [
            "half_pixel",
            "pytorch_half_pixel",
            "asymmetric",
            "align_corners",
        ];
        if !known.contains(&nearest.transformation) {
            let other = nearest.transformation;
            return Err(NodeError::unsupported(format!(
                "coordinate_transformation_mode `{other}`"
            )));
        }
        let known = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"];
        if !known.contains(&nearest.rounding) {
            return Err(node
                .invalid("a known nearest_mode", nearest.rounding)
                .into());
        }
        Ok(nearest)
    }

    /// The index of the source of element `to`, of `own` elements that become `size`.
    fn source(&self, to: usize, own: usize, size: usize, scale: f64) -> usize {
        let to = to as f64;
        let place = match self.transformation {
            "asymmetric" => to / scale,
            "align_corners" if size < 2 => 0.0,
            "align_corners" => to * (own as f64 - 1.0) / (size as f64 - 1.0),
            "pytorch_half_pixel" if size < 2 => 0.0,
            _ => (to + 0.5) / scale - 0.5,
        };
        let rounded = match self.rounding {
            "floor" => place.floor(),
            "ceil" => place.ceil(),
            "round_prefer_ceil" => (place + 0.5).floor(),
            _ => (place - 0.5).ceil(),
        };
        (rounded.max(0.0) as usize).min(own.saturating_sub(1))
    }
}
