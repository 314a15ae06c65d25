//! Operators that change each element by itself, and softmax.

use sparsevd_model::{Approximate, Op, Shape, ops};

use super::importer::{Importer, Value};
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    /// An activation, which is the same in any shape.
    pub(super) fn function<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let op = match node.0.op_type.as_str() {
            // |x| is x, or -x where x is negative.
            "Abs" => Op::LeakyRelu(ops::LeakyRelu { alpha: -1.0 }),
            "Relu" => Op::Relu,
            "LeakyRelu" => Op::LeakyRelu(ops::LeakyRelu {
                alpha: node.float("alpha")?.unwrap_or(0.01),
            }),
            "Clip" => {
                let bound = |name: &str, i: usize, open: f32| -> Result<Option<f32>, NodeError> {
                    let given = match (node.float(name)?, constant(i).and_then(Tensor::floats)) {
                        (Some(bound), _) | (None, Some(&[bound])) => Some(bound),
                        (None, None) if node.input(i).is_none() => None,
                        _ => {
                            return Err(NodeError::unsupported(format!(
                                "a {name} that is no constant number"
                            )));
                        }
                    };
                    Ok(given.filter(|b| b.is_finite() && *b != open))
                };
                let (min, max) = (bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?);
                clip(min, max)
            }
            "Sigmoid" => Op::Sigmoid,
            "HardSigmoid" => Op::HardSigmoid(ops::HardSigmoid {
                alpha: node.float("alpha")?.unwrap_or(0.2),
                beta: node.float("beta")?.unwrap_or(0.5),
            }),
            "HardSwish" => Op::HardSwish,
            "Tanh" => Op::Tanh,
            "Elu" => Op::Elu(ops::Elu {
                alpha: node.float("alpha")?.unwrap_or(1.0),
            }),
            "Softplus" => Op::Softplus,
            "Exp" => Op::Exp,
            "Log" => Op::Log,
            "Sqrt" => Op::Sqrt,
            "Erf" => Op::Erf,
            _ => Op::Gelu(ops::Gelu {
                approximate: match node.text("approximate")?.unwrap_or("none") {
                    "none" => Approximate::None,
                    "tanh" => Approximate::Tanh,
                    other => {
                        return Err(node
                            .invalid("a known approximation", format!("`{other}`"))
                            .into());
                    }
                },
            }),
        };
        self.map(node, x, op)
    }

    /// An operator that changes each element by itself.
    pub(super) fn map(&mut self, node: OnnxNode<'m>, x: &View, op: Op) -> Result<View, NodeError> {
        let made = self.push(node, op, &[x])?;
        Ok(x.elementwise(made))
    }

    /// Powers that are products or quotients.
    pub(super) fn power(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        exponent: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let one = |t: &Tensor| match (t.floats(), t.ints().as_deref()) {
            (Some(&[one]), _) => Some(one),
            (_, Some(&[one])) => Some(one as f32),
            _ => None,
        };
        match exponent
            .filter(|t| t.dims.len() <= x.dims.len())
            .and_then(one)
        {
            Some(1.0) => Ok(x.clone()),
            Some(2.0) => self.between(node, Op::Mul, x, x),
            Some(3.0) => {
                let square = self.between(node, Op::Mul, x, x)?;
                self.between(node, Op::Mul, &square, x)
            }
            Some(-1.0) => self.quotient(node, vec![1.0], x),
            Some(0.5) => self.map(node, x, Op::Sqrt),
            Some(-0.5) => {
                let root = self.map(node, x, Op::Sqrt)?;
                self.quotient(node, vec![1.0], &root)
            }
            Some(other) => Err(NodeError::unsupported(format!("the exponent {other}"))),
            None => Err(NodeError::unsupported(
                "an exponent that is not a constant number",
            )),
        }
    }

    /// `x sigmoid(alpha x)`.
    pub(super) fn swish(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let scaled = match node.float("alpha")?.unwrap_or(1.0) {
            1.0 => x.clone(),
            alpha => self.affine(node, x, vec![alpha], vec![0.0])?,
        };
        let gate = self.map(node, &scaled, Op::Sigmoid)?;
        self.between(node, Op::Mul, x, &gate)
    }

    /// `alpha elu(x / alpha)`.
    pub(super) fn celu(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let alpha = node.float("alpha")?.unwrap_or(1.0);
        // Below 0 the two sides of its formula change places.
        if alpha.is_nan() || alpha <= 0.0 {
            return Err(node.invalid("an alpha above 0", alpha.to_string()).into());
        }
        let shares = self.affine(node, x, vec![1.0 / alpha], vec![0.0])?;
        let made = self.map(node, &shares, Op::Elu(ops::Elu { alpha: 1.0 }))?;
        self.affine(node, &made, vec![alpha], vec![0.0])
    }

    /// `gamma elu(x)`.
    pub(super) fn selu(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let alpha = node.float("alpha")?.unwrap_or(1.673_263_2);
        let gamma = node.float("gamma")?.unwrap_or(1.050_701);
        let made = self.map(node, x, Op::Elu(ops::Elu { alpha }))?;
        self.affine(node, &made, vec![gamma], vec![0.0])
    }

    /// `x tanh(ln(1 + e^x))`.
    pub(super) fn mish(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let softplus = self.map(node, x, Op::Softplus)?;
        let gate = self.map(node, &softplus, Op::Tanh)?;
        self.between(node, Op::Mul, x, &gate)
    }

    /// A clip of which a bound is computed: the smaller of the upper bound and the larger of the lower one and the value.
    pub(super) fn clip_between(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let mut x = x.clone();
        for (i, op) in [(1, Op::Max), (2, Op::Min)] {
            x = match inputs.get(i) {
                Some(Some(Value::Activation(bound))) if bound.elements() == 1 => {
                    self.between(node, op, &x, bound)?
                }
                Some(Some(Value::Constant(bound))) => match (i, bound.floats()) {
                    (1, Some(&[min])) => self.map(node, &x, clip(Some(min), None))?,
                    (2, Some(&[max])) => self.map(node, &x, clip(None, Some(max)))?,
                    _ => return Err(NodeError::unsupported("a bound that is no number")),
                },
                None | Some(None) => x,
                _ => return Err(NodeError::unsupported("a bound that is no number")),
            };
        }
        Ok(x)
    }

    /// A parametric ReLU whose slope is computed.
    pub(super) fn prelu_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        slope: &View,
    ) -> Result<View, NodeError> {
        let above = self.map(node, x, Op::Relu)?;
        let below = self.map(node, x, clip(None, Some(0.0)))?;
        let scaled = self.between(node, Op::Mul, &below, slope)?;
        self.between(node, Op::Add, &above, &scaled)
    }

    /// `x / (1 + |x|)`.
    pub(super) fn softsign(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let size = self.map(node, x, Op::LeakyRelu(ops::LeakyRelu { alpha: -1.0 }))?;
        let below = self.affine(node, &size, vec![1.0], vec![1.0])?;
        self.between(node, Op::Div, x, &below)
    }

    /// The soft shrink: `x` less what of it is between `-lambd` and `lambd`.
    pub(super) fn shrink(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let lambd = node.float("lambd")?.unwrap_or(0.5);
        let bias = node.float("bias")?.unwrap_or(0.0);
        if bias != lambd || lambd < 0.0 {
            return Err(NodeError::unsupported(format!(
                "bias {bias} other than lambd {lambd}"
            )));
        }
        let inner = self.map(node, x, clip(Some(-lambd), Some(lambd)))?;
        self.between(node, Op::Sub, x, &inner)
    }

    /// The first input in the type of the second: all computed values have single precision.
    pub(super) fn cast_like(
        &mut self,
        node: OnnxNode<'m>,
        inputs: &[Option<Value>],
    ) -> Result<Value, NodeError> {
        let [Some(x), Some(like)] = inputs else {
            return Err(node.invalid("two inputs", inputs.len().to_string()).into());
        };
        let is_float = |v: &Value| match v {
            Value::Constant(t) => t.floats().is_some(),
            Value::Activation(view) => !view.dtype.is_id(),
            _ => true,
        };
        match is_float(x) == is_float(like) {
            true => Ok(x.clone()),
            false => Err(NodeError::unsupported(
                "another type than that of its input",
            )),
        }
    }

    pub(super) fn dropout(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        training: Option<&Tensor>,
    ) -> Result<View, NodeError> {
        let trains = training.and_then(Tensor::ints).is_some_and(|t| t != [0]);
        if trains || node.input(2).is_some() && training.is_none() {
            return Err(NodeError::unsupported("training_mode"));
        }
        Ok(x.clone())
    }

    pub(super) fn softmax(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let rank = x.dims.len() + self.batch_axes;
        let given = node
            .int("axis")?
            .unwrap_or(if self.opset < 13 { 1 } else { -1 });
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        // Before opset 13 all dimensions from the axis on counted as one.
        let over = |at: usize| match self.opset < 13 {
            true => x.dims[at..].iter().product::<usize>(),
            false => x.dims[at],
        };
        let Some(axis) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("an axis across samples"));
        };
        match over(axis) {
            size if size == x.elements() => self.softmax_of_all(node, x),
            size if size == x.dims[axis] => self.softmax_along(node, x, axis),
            _ => Err(NodeError::unsupported(format!(
                "axis {given} of {}, from which on all axes count as one",
                Shape(x.dims.clone())
            ))),
        }
    }

    /// The softmax along an axis of a sample.
    pub(super) fn softmax_along(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        axis: usize,
    ) -> Result<View, NodeError> {
        if x.dims[axis] != x.elements() {
            let x = self.in_shape(x, &x.dims)?;
            return self.push(node, softmax_of(node, axis), &[&x]);
        }
        self.softmax_of_all(node, x)
    }

    fn softmax_of_all(&mut self, node: OnnxNode<'m>, x: &View) -> Result<View, NodeError> {
        let vector = self.flat(x)?;
        let made = self.push(node, softmax_of(node, 0), &[&vector])?;
        Ok(View {
            input: None,
            ..x.elementwise(made)
        })
    }
}

/// The softmax along an axis, or its logarithm where the node is that.
fn softmax_of(node: OnnxNode<'_>, axis: usize) -> Op {
    match node.0.op_type.as_str() {
        "LogSoftmax" => Op::LogSoftmax(ops::LogSoftmax { axis }),
        _ => Op::Softmax(ops::Softmax { axis }),
    }
}

/// The operator of two bounds.
pub(super) fn clip(min: Option<f32>, max: Option<f32>) -> Op {
    match (min, max) {
        (Some(0.0), None) => Op::Relu,
        _ => Op::Clip(ops::Clip { min, max }),
    }
}
