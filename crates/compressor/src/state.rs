//! Everything of a network that training changes.

use std::collections::BTreeMap;

use sparsevd_kernels::training::Real;
use sparsevd_model::Network;

use crate::error::CompressError;
use crate::layer::Layer;
use crate::normalisation::Normalisation;

/// The trainable state of a network: its weighted nodes and its batch normalisations, each in the order of the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct State<T> {
    /// Linear and convolution nodes.
    pub layers: Vec<Layer<T>>,
    /// Batch normalisations.
    pub normalisations: Vec<Normalisation<T>>,
}

impl<T> From<Vec<Layer<T>>> for State<T> {
    /// The state of a network without normalisations.
    fn from(layers: Vec<Layer<T>>) -> Self {
        Self {
            layers,
            normalisations: vec![],
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
        })
    }

    /// Sets the moments of Adam to zero.
    pub fn reset_moments(&mut self) {
        self.layers.iter_mut().for_each(Layer::reset_moments);
        let normalisations = &mut self.normalisations;
        normalisations
            .iter_mut()
            .for_each(Normalisation::reset_moments);
    }
}
