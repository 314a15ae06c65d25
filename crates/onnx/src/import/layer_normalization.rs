//! Layer normalisation.

use sparsevd_model::{Dense, Op, Shape, ops};

use super::importer::Importer;
use super::view::View;
use crate::attributes::{OnnxNode, axis};
use crate::constants::source;
use crate::node_error::NodeError;
use crate::tensor::Tensor;

impl<'m> Importer<'m> {
    pub(super) fn layer_normalization<'t>(
        &mut self,
        node: OnnxNode<'m>,
        x: &View,
        constant: impl Fn(usize) -> Option<&'t Tensor>,
    ) -> Result<View, NodeError> {
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
                "axis {given} of {}",
                Shape(x.dims.clone())
            )));
        };
        let shape = Shape(laid_out.shape[at..].to_vec());
        let mut tensor = |i: usize, what: &str| -> Result<Option<String>, NodeError> {
            let Some(name) = node.input(i) else {
                return Ok(None);
            };
            let Some(tensor) = constant(i) else {
                let why = format!("a {what} that is no constant");
                return Err(NodeError::unsupported(why));
            };
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
            Ok(Some(self.tensor(name, Dense::new(shape.clone(), values))))
        };
        let Some(scale) = tensor(1, "scale")? else {
            return Err(node.invalid("a scale", "none").into());
        };
        let op = Op::LayerNormalization(ops::LayerNormalization {
            scale,
            bias: tensor(2, "bias")?,
            dimensions: shape.dims().len(),
            epsilon: node.float("epsilon")?.unwrap_or(1e-5),
        });
        let made = self.push(node, op, &[&laid_out])?;
        Ok(View {
            input: None,
            ..laid_out.elementwise(made)
        })
    }
}
