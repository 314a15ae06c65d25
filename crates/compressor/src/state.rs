//! Everything of a network that training changes.

use std::collections::BTreeMap;
use std::ops::Range;

use sparsevd_kernels::training::Real;
use sparsevd_model::Network;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::normalisation::Normalisation;
use crate::parameter::{Owner, ParameterMut, ParameterRef};
use crate::plain_tensor::PlainTensor;

/// The trainable state of a network: its weighted nodes, its batch normalisations and other tensors, each in the order of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct State<T> {
    /// Linear and convolution nodes.
    pub layers: Vec<Layer<T>>,
    /// Batch normalisations.
    pub normalisations: Vec<Normalisation<T>>,
    /// Tensors of other nodes.
    pub plain: Vec<PlainTensor<T>>,
}

impl<T> From<Vec<Layer<T>>> for State<T> {
    /// The state of a network without normalisations and other tensors.
    fn from(layers: Vec<Layer<T>>) -> Self {
        Self {
            layers,
            normalisations: vec![],
            plain: vec![],
        }
    }
}

impl<T: Real> State<T> {
    /// The state of a network, without noise.
    ///
    /// # Errors
    /// A tensor that two nodes share: each would train it its own way.
    pub fn from_network(network: &Network) -> Result<Self, CompressError> {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for node in &network.graph.nodes {
            for tensor in node.op.tensors() {
                if let Some(owner) = owners.insert(tensor, &node.name) {
                    return Err(CompressError::Unsupported {
                        node: node.name.clone(),
                        op: node.op.name(),
                        what: format!("sharing the tensor `{tensor}` with node `{owner}`"),
                    });
                }
            }
        }
        Ok(Self {
            layers: Layer::from_network(network),
            normalisations: (network.graph.nodes.iter())
                .filter_map(|node| Normalisation::from_node(network, node))
                .collect(),
            plain: (network.graph.nodes.iter())
                .flat_map(|node| PlainTensor::from_node(network, node))
                .collect(),
        })
    }

    /// Every parameter, in the order of [`Self::layers`], then of [`Self::normalisations`] and of [`Self::plain`].
    pub fn parameters(&self) -> Vec<ParameterRef<'_, T>> {
        let layers = self.layers.iter().enumerate();
        let normalisations = self.normalisations.iter().enumerate();
        let plain = self.plain.iter().enumerate();
        let layers = layers.flat_map(|(i, l)| l.parameters(Owner::Layer(i)));
        layers
            .chain(normalisations.flat_map(|(i, n)| n.parameters(Owner::Normalisation(i))))
            .chain(plain.map(|(i, t)| t.parameter(Owner::Plain(i))))
            .collect()
    }

    /// Every parameter in the same order, for writing.
    pub fn parameters_mut(&mut self) -> Vec<ParameterMut<'_, T>> {
        let layers = self.layers.iter_mut().enumerate();
        let normalisations = self.normalisations.iter_mut().enumerate();
        let plain = self.plain.iter_mut().enumerate();
        let layers = layers.flat_map(|(i, l)| l.parameters_mut(Owner::Layer(i)));
        layers
            .chain(normalisations.flat_map(|(i, n)| n.parameters_mut(Owner::Normalisation(i))))
            .chain(plain.map(|(i, t)| t.parameter_mut(Owner::Plain(i))))
            .collect()
    }

    /// Places in [`Self::plain`] of the tensors of a node.
    pub(crate) fn plain_of(&self, node: &str) -> Range<usize> {
        let start = self.plain.iter().position(|t| t.node == node).unwrap_or(0);
        let tensors = self.plain[start..].iter();
        start..start + tensors.take_while(|t| t.node == node).count()
    }

    /// Sets the moments of Adam to zero.
    pub fn reset_moments(&mut self) {
        for parameter in self.parameters_mut() {
            let of_noise = parameter.noise.map(|n| n.moments);
            let moments = [parameter.moments, of_noise]
                .into_iter()
                .flatten()
                .flatten();
            moments.for_each(|m| m.fill(T::default()));
        }
    }
}
