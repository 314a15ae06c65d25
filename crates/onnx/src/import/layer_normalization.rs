//! Layer normalisation.

use sparsevd_model::{Dense, Op, Shape, ops};

use super::importer::Importer;
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::constants::source;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

/// A constant of a normalisation, which broadcasts to what is normalised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter<'t> {
    pub name: &'t str,
    pub tensor: &'t Tensor,
}

impl<'m> Importer<'m> {
    pub(super) fn layer_normalization<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
        let parameter = |i: usize, what: &str| -> Result<Option<Parameter<'_>>, NodeError> {
            let Some(name) = node.input(i) else {
                return Ok(None);
            };
            match constant(i) {
                Some(tensor) => Ok(Some(Parameter { name, tensor })),
                None => Err(NodeError::unsupported(format!(
                    "a {what} that is no constant"
                ))),
            }
        };
        if let Some(other) = node.int("stash_type")?.filter(|t| *t != 1) {
            return Err(NodeError::unsupported(format!("stash_type {other}")));
        }
        let rank = x.dims.len() + self.batch_axes;
        let given = node.int("axis")?.unwrap_or(-1);
        let from = axis(given, rank)
            .ok_or_else(|| node.invalid(format!("an axis of {rank}"), given.to_string()))?;
        let Some(from) = from.checked_sub(self.batch_axes) else {
            return Err(NodeError::unsupported("statistics over several samples"));
        };
        let Some(scale) = parameter(1, "scale")? else {
            return Err(node.invalid("a scale", "none").into());
        };
        let epsilon = node.float("epsilon")?.unwrap_or(1e-5);
        self.normalized(node, x, from, scale, parameter(2, "bias")?, epsilon)
    }

    /// The layer normalisation over the dimensions of a sample from `from` on.
    pub(super) fn normalized(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        from: usize,
        scale: Parameter<'_>,
        bias: Option<Parameter<'_>>,
        epsilon: f32,
    ) -> Result<View, NodeError> {
        let normalized = &x.dims[from..];
        let elements = Shape(normalized.to_vec()).elements();
        // Groups are consecutive elements: any shape of the network with the group as its trailing dimensions will do.
        let trailing = |x: &View| {
            let fits = |from: &usize| x.shape[*from..].iter().product::<usize>() == elements;
            let at = (0..x.shape.len()).rev().find(fits);
            at.filter(|_| x.order.is_none())
        };
        let laid_out = match trailing(x) {
            Some(_) => x.clone(),
            None => self.in_shape(x, &x.dims)?.reshaped(x.dims.clone()),
        };
        let Some(at) = trailing(&laid_out) else {
            return Err(NodeError::unsupported(format!(
                "axis {from} of {} per sample",
                Shape(x.dims.clone())
            )));
        };
        let shape = Shape(laid_out.shape[at..].to_vec());
        let mut name = |parameter: &Parameter<'_>, what: &str| -> Result<String, NodeError> {
            let Parameter { name, tensor } = *parameter;
            let dims = tensor.dims.as_slice();
            let fits = |(t, x): (&usize, &usize)| *t == 1 || t == x;
            let is_broadcast = dims.len() <= normalized.len()
                && dims.iter().rev().zip(normalized.iter().rev()).all(fits);
            if !is_broadcast {
                let expected = format!("a {what} of {}", Shape(normalized.to_vec()));
                return Err(node.invalid(expected, tensor.describe()).into());
            }
            let dense = self.dense(node, what, tensor)?;
            self.decoder.take(&node.label(), normalized)?;
            let value = |i| dense.values[source(i, normalized, dims)];
            let values = (0..elements).map(value).collect();
            Ok(self.tensor(name, Dense::new(shape.clone(), values)))
        };
        let op = Op::LayerNormalization(ops::LayerNormalization {
            scale: name(&scale, "scale")?,
            bias: bias.map(|b| name(&b, "bias")).transpose()?,
            dimensions: shape.dims().len(),
            epsilon,
        });
        let made = self.push(node, op, &[&laid_out])?;
        Ok(View {
            input: None,
            ..laid_out.elementwise(made)
        })
    }
}
