//! Statistics of a value over some of its axes: sums, means, largest elements, variances and deviations.

use super::product::is_number;
use super::reader::Reader;
use crate::attributes::OnnxNode;
use crate::constants::{axes, resolve};
use crate::import::view::View;
use crate::tensor::{Data, Int};

/// What is computed of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Sum,
    Mean,
    Max,
    /// The mean of the squared differences from the mean.
    Variance,
    /// A variance and a number.
    Shifted(f32),
    /// The square root of a variance and a number.
    Deviation(f32),
    /// One over that.
    InverseDeviation(f32),
}

/// A statistic of a value over some axes.
#[derive(Debug)]
pub(super) struct Statistic<'m> {
    pub kind: Kind,
    /// The value.
    pub of: &'m str,
    /// Axes of it per sample, in ascending order.
    pub axes: Vec<usize>,
    /// The statistic as the file sees it.
    view: View,
    /// Whether it was repeated along axes that it is over, which a reshaping could not tell from others.
    is_repeated: bool,
}

impl Statistic<'_> {
    /// Whether, broadcast to a value of these dimensions, each element stands beside those that it is of.
    pub fn fits(&self, dims: &[usize]) -> bool {
        let own = &self.view.dims;
        let fits = |(i, (own, of)): (usize, (&usize, &usize))| {
            own == of || *own == 1 && self.axes.contains(&i)
        };
        own.len() == dims.len() && own.iter().zip(dims).enumerate().all(fits)
    }
}

impl<'m> Reader<'_, 'm> {
    /// A value that is a statistic of another.
    pub fn statistic(&self, value: &'m str) -> Option<Statistic<'m>> {
        let node = self.node(self.plain(value))?;
        let op = node.0.op_type.as_str();
        let first = node.input(0)?;
        if op.starts_with("Reduce") {
            return self.reduction(node);
        }
        if ["Reshape", "Squeeze", "Unsqueeze", "Expand"].contains(&op) {
            let statistic = self.statistic(first)?;
            let view = self.moved(node, &statistic)?;
            return Some(Statistic {
                view,
                is_repeated: statistic.is_repeated || op == "Expand",
                ..statistic
            });
        }
        let made = self.combined(node, op, first)?;
        self.keeps_rank(node, made.view.dims.len()).then_some(made)
    }

    /// A statistic that an operator makes of another, element by element.
    fn combined(&self, node: OnnxNode<'m>, op: &str, first: &'m str) -> Option<Statistic<'m>> {
        let with = |kind, statistic| Some(Statistic { kind, ..statistic });
        match op {
            // A sum over the number of elements.
            "Mul" | "Div" => {
                let (sum, number) = self.beside_number(node)?;
                let statistic = self.statistic(sum)?;
                let dims = self.dims(statistic.of)?;
                let elements: usize = statistic.axes.iter().map(|&a| dims[a]).product();
                let times = if op == "Mul" { number } else { 1.0 / number };
                let is_mean = statistic.kind == Kind::Sum
                    && (op == "Mul" || sum == first)
                    && is_number(times, 1.0 / elements as f64);
                is_mean.then(|| self.mean(statistic))
            }
            // What rounding leaves below zero, and the least of a maximum.
            "Max" => {
                let (rest, number) = self.beside_number(node)?;
                let statistic = self.statistic(rest)?;
                let is_plain = match statistic.kind {
                    Kind::Variance => number == 0.0,
                    Kind::Max => number == f64::NEG_INFINITY,
                    _ => false,
                };
                is_plain.then_some(statistic)
            }
            "Add" => {
                let (rest, number) = self.beside_number(node)?;
                let statistic = self.statistic(rest)?;
                match statistic.kind {
                    Kind::Variance => with(Kind::Shifted(number as f32), statistic),
                    _ => None,
                }
            }
            "Sqrt" | "Pow" => {
                let exponent = if op == "Sqrt" {
                    Some(0.5)
                } else {
                    self.number(node.input(1)?)
                };
                let statistic = self.statistic(first)?;
                match (statistic.kind, exponent) {
                    (Kind::Shifted(e), Some(0.5)) => with(Kind::Deviation(e), statistic),
                    (Kind::Shifted(e), Some(-0.5)) => with(Kind::InverseDeviation(e), statistic),
                    _ => None,
                }
            }
            "Reciprocal" => {
                let statistic = self.statistic(first)?;
                match statistic.kind {
                    Kind::Deviation(e) => with(Kind::InverseDeviation(e), statistic),
                    _ => None,
                }
            }
            // The mean of squares less the square of the mean.
            "Sub" => {
                let squares = self.statistic(first)?;
                let mean = self.statistic(self.square(node.input(1)?)?)?;
                let is_variance = [squares.kind, mean.kind] == [Kind::Mean; 2]
                    && self.square(squares.of) == Some(mean.of)
                    && squares.axes == mean.axes
                    && squares.view.dims == mean.view.dims;
                is_variance.then_some(Statistic {
                    kind: Kind::Variance,
                    ..mean
                })
            }
            _ => None,
        }
    }

    /// `x` of a value that is `x` less its mean over some axes, and these.
    pub fn centred(&self, value: &'m str) -> Option<(&'m str, Vec<usize>)> {
        let [x, mean] = Self::pair(self.node_of(self.plain(value), "Sub")?)?;
        let (x, mean) = (self.plain(x), self.statistic(mean)?);
        let is_centred = mean.kind == Kind::Mean && mean.of == x && mean.fits(&self.dims(x)?);
        is_centred.then_some((x, mean.axes))
    }

    fn reduction(&self, node: OnnxNode<'m>) -> Option<Statistic<'m>> {
        let of = self.plain(node.input(0)?);
        let dims = self.dims(of)?;
        let batch = self.importer.batch_axes;
        let input = node.input(1).map(|name| self.constant(name));
        // Axes that are computed are none that are known.
        if matches!(input, Some(None)) {
            return None;
        }
        let given = axes(node, input.flatten().as_deref()).ok()??;
        let over = resolve(node, &given, dims.len() + batch).ok()?;
        let over: Option<Vec<usize>> = over.iter().map(|a| a.checked_sub(batch)).collect();
        let mut axes = over.filter(|axes| !axes.is_empty())?;
        axes.sort_unstable();
        let keeps = node.int("keepdims").ok()?.unwrap_or(1) != 0;
        let left = (0..dims.len()).filter_map(|i| match axes.contains(&i) {
            true => keeps.then_some(1),
            false => Some(dims[i]),
        });
        let view = View::new(of.into(), left.collect());
        let (kind, is_mean) = match node.0.op_type.as_str() {
            "ReduceMean" => (Kind::Mean, true),
            "ReduceSum" => (Kind::Sum, false),
            "ReduceMax" => (Kind::Max, false),
            _ => return None,
        };
        let statistic = Statistic {
            kind,
            of,
            axes,
            view,
            is_repeated: false,
        };
        Some(match is_mean {
            true => self.mean(statistic),
            false => statistic,
        })
    }

    /// A mean, which of squared differences from the mean is a variance.
    fn mean(&self, statistic: Statistic<'m>) -> Statistic<'m> {
        let centred = self.square(statistic.of).and_then(|d| self.centred(d));
        match centred {
            Some((x, axes)) if axes == statistic.axes => Statistic {
                kind: Kind::Variance,
                of: x,
                ..statistic
            },
            _ => Statistic {
                kind: Kind::Mean,
                ..statistic
            },
        }
    }

    /// A statistic behind an operator that gives it another shape: dimensions of one come and go, and become larger.
    fn moved(&self, node: OnnxNode<'m>, statistic: &Statistic<'m>) -> Option<View> {
        let x = &statistic.view;
        let target = node.input(1).map(|name| self.constant(name));
        if matches!(target, Some(None)) {
            return None;
        }
        let target = target.flatten();
        if statistic.is_repeated {
            return None;
        }
        let moved = match node.0.op_type.as_str() {
            "Reshape" => self.importer.reshape(node, x, target.as_deref()?).ok()?,
            "Squeeze" => self.importer.squeeze(node, x, target.as_deref()).ok()?,
            "Unsqueeze" => self.importer.unsqueeze(node, x, target.as_deref()).ok()?,
            _ => {
                // Only in its place does it grow along the axes that it is over.
                if !statistic.fits(&self.dims(statistic.of)?) {
                    return None;
                }
                let Data::Int(target) = &target.as_deref()?.data else {
                    return None;
                };
                let (batch, inner) = target.split_at_checked(self.importer.batch_axes)?;
                let keeps_batch = |size: &Int| match size {
                    Int::Batch | Int::Known(1) => true,
                    Int::Known(n) => self.importer.batch.map(|b| b as i64) == Some(*n),
                };
                if !batch.iter().all(keeps_batch) {
                    return None;
                }
                let same_rank = inner.len() == x.dims.len();
                let sizes = x.dims.iter().zip(inner).map(|(&own, to)| match to {
                    Int::Known(1) => Some(own),
                    Int::Known(to) if own == 1 => usize::try_from(*to).ok(),
                    Int::Known(to) => (usize::try_from(*to) == Ok(own)).then_some(own),
                    Int::Batch => None,
                });
                let dims: Vec<usize> = sizes.collect::<Option<_>>()?;
                return same_rank.then(|| x.reshaped(dims));
            }
        };
        let wide =
            |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|d| *d != 1).collect() };
        (wide(&moved.dims) == wide(&x.dims)).then_some(moved)
    }
}
