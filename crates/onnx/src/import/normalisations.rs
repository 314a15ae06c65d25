//! Normalisations of which a number is computed or an output is read that the network's own operator does not have, and those that are made of
//! it: of instances, of groups, by the root of the mean of squares, and by a norm.

use std::rc::Rc;

use sparsevd_model::{Op, Shape};

use super::importer::{Importer, Value};
use super::layer_normalization::Parameter;
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::node_error::NodeError;
use crate::tensor::{Data, Tensor};

impl<'m> Importer<'m> {
    /// A layer normalisation by operators of the network, with its outputs of the mean and of one over the deviation.
    pub(super) fn layer_normalization_of(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let from = self.normalized_from(node, x)?;
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        let mut made = self.without_parameters(node, x, from, epsilon)?;
        if let Some(Some(scale)) = inputs.get(1) {
            made = self.combined(node, Op::Mul, &made, scale)?;
        }
        if let Some(Some(bias)) = inputs.get(2) {
            made = self.combined(node, Op::Add, &made, bias)?;
        }
        let is_read = |i: usize| {
            let name = node.0.output.get(i).map(String::as_str);
            name.is_some_and(|name| self.uses.contains_key(name))
        };
        let (reads_mean, reads_deviation) = (is_read(1), is_read(2));
        if reads_mean || reads_deviation {
            let mean = self.pooled(node, x, from, Op::GlobalAveragePool)?;
            let deviation = match reads_deviation {
                true => {
                    let difference = self.between(node, Op::Sub, x, &mean)?;
                    let root = self.root_of_mean_square(node, &difference, from, epsilon)?;
                    Some(self.quotient(node, vec![1.0], &root)?)
                }
                false => None,
            };
            self.others = vec![Some(mean), deviation];
        }
        Ok(made)
    }

    /// `x / sqrt(mean(x^2) + epsilon)` over the dimensions from an axis on, times a scale.
    pub(super) fn rms_normalization(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        let from = self.normalized_from(node, x)?;
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        let root = self.root_of_mean_square(node, x, from, epsilon)?;
        let made = self.between(node, Op::Div, x, &root)?;
        match inputs.get(1) {
            Some(Some(scale)) => self.combined(node, Op::Mul, &made, scale),
            _ => Err(node.invalid("a scale", "none").into()),
        }
    }

    /// Each channel of each sample by itself, or in groups of channels.
    pub(super) fn instance_normalization(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        inputs: &[Option<Value>],
    ) -> Result<View, NodeError> {
        // Channels are behind the batch.
        let at = 1 - self.batch_axes;
        let Some(&channels) = x.dims.get(at).filter(|_| x.dims.len() > at + 1) else {
            return Err(NodeError::unsupported(format!(
                "an input {}, which has no channels",
                Shape(x.dims.clone())
            )));
        };
        let groups = match node.0.op_type.as_str() {
            "GroupNormalization" => match node.int("num_groups")?.map(usize::try_from) {
                Some(Ok(groups)) if channels.checked_rem(groups) == Some(0) => groups,
                other => {
                    let expected = format!("a num_groups that divides {channels}");
                    return Err(node.invalid(expected, format!("{other:?}")).into());
                }
            },
            _ => channels,
        };
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        let of_group = x.dims[at..].iter().product::<usize>() / groups.max(1);
        let rows = x.reshaped([&x.dims[..at], &[groups, of_group]].concat());
        let made = self.without_parameters(node, &rows, at + 1, epsilon)?;
        let mut made = made.reshaped(x.dims.clone());
        // One number per channel, aligned with the channels.
        let mut dims = vec![1; x.dims.len() - at];
        dims[0] = channels;
        for (i, op) in [(1, Op::Mul), (2, Op::Add)] {
            let parameter = match inputs.get(i) {
                Some(Some(Value::Activation(v)))
                    if self.batch_axes == 0 && v.elements() == channels =>
                {
                    Value::Activation(v.reshaped(dims.clone()))
                }
                Some(Some(Value::Constant(t))) if t.dims == [channels] => {
                    Value::Constant(Rc::new(Tensor {
                        dims: dims.clone(),
                        ..(**t).clone()
                    }))
                }
                _ => {
                    return Err(NodeError::unsupported(format!(
                        "a scale or bias that is not {channels} numbers"
                    )));
                }
            };
            made = self.combined(node, op, &made, &parameter)?;
        }
        Ok(made)
    }

    /// Vectors along an axis by their Euclidean norm.
    pub(super) fn lp_normalization(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
    ) -> Result<View, NodeError> {
        let p = node.int("p")?.unwrap_or(2);
        if p != 2 {
            return Err(NodeError::unsupported(format!("the norm of order {p}")));
        }
        let rank = x.dims.len() + self.batch_axes;
        let given = node.int("axis")?.unwrap_or(-1);
        let at = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(at) = at.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("a norm across samples"));
        };
        let mut perm: Vec<usize> = (0..x.dims.len()).filter(|i| *i != at).collect();
        perm.push(at);
        let turned = x.transposed(&node.label(), &perm, self.decoder)?;
        let vectors = self.in_shape(&turned, &turned.dims.clone())?;
        let made = self.push(node, Op::L2Normalize, &[&vectors])?;
        let mut back: Vec<usize> = (0..perm.len()).collect();
        back.sort_by_key(|&i| perm[i]);
        Ok(made.transposed(&node.label(), &back, self.decoder)?)
    }

    /// The largest number or the mean, as `pool` says, over the dimensions from `from` on, which have one element then.
    pub(super) fn pooled(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        from: usize,
        pool: Op,
    ) -> Result<View, NodeError> {
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        let map = [product(&x.dims[..from]), product(&x.dims[from..]), 1];
        let name = node.0.output.first().map_or("", String::as_str);
        let name = self.free_name(&format!("{name}.pooled"));
        let plain = match x.order {
            Some(_) => self.in_shape(x, &x.dims.clone())?,
            None => x.clone(),
        };
        let map = self.in_shape(&plain, &map)?;
        let made = self.push_named(name, pool, &[&map])?;
        let mut dims = x.dims.clone();
        dims[from..].fill(1);
        Ok(made.reshaped(dims))
    }

    /// The first of the dimensions of a sample that are normalised.
    fn normalized_from(&self, node: OnnxNode<'m>, x: &View) -> Result<usize, NodeError> {
        if let Some(other) = node.int("stash_type")?.filter(|t| *t != 1) {
            return Err(NodeError::unsupported(format!("stash_type {other}")));
        }
        let rank = x.dims.len() + self.batch_axes;
        let given = node.int("axis")?.unwrap_or(-1);
        let from = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let from = from.checked_sub(self.batch_axes);
        from.ok_or_else(|| NodeError::unsupported("statistics over several samples"))
    }

    /// The layer normalisation with neither scale nor bias.
    fn without_parameters(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        from: usize,
        epsilon: f32,
    ) -> Result<View, NodeError> {
        let one = Tensor {
            dims: vec![],
            data: Data::Float(vec![1.0]),
        };
        let name = format!("{}.ones", node.name());
        let scale = Parameter {
            name: &name,
            tensor: &one,
        };
        self.normalized(node, x, from, scale, None, epsilon)
    }

    fn root_of_mean_square(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        from: usize,
        epsilon: f32,
    ) -> Result<View, NodeError> {
        let squares = self.between(node, Op::Mul, x, x)?;
        let mean = self.pooled(node, &squares, from, Op::GlobalAveragePool)?;
        let shifted = self.affine(node, &mean, vec![1.0], vec![epsilon])?;
        self.map(node, &shifted, Op::Sqrt)
    }

    /// A sum or product with a value that is computed or constant.
    fn combined(
        &mut self,
        node: OnnxNode<'m>,
        op: Op,
        x: &View,
        other: &Value,
    ) -> Result<View, NodeError> {
        match other {
            Value::Activation(other) => self.between(node, op, x, other),
            Value::Constant(other) => {
                let name = op.name();
                self.with(node, name, x, other, false)
            }
            _ => Err(NodeError::unsupported("a parameter of another type")),
        }
    }
}
