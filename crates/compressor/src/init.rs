//! Weights to start training from.

use std::collections::BTreeMap;

use rand_distr::{Distribution, Normal};
use sparsevd_model::{Dense, Graph, ModelError, Network, Shape, Weights};

use crate::data::{Stream, stream};

/// A network of seeded weights: normal with variance 2 / fan-in (He et al. 2015), biases zero.
///
/// # Errors
/// Shapes that do not fit the graph.
pub fn initialise(
    graph: Graph,
    shapes: &[(String, Shape)],
    seed: u64,
) -> Result<Network, ModelError> {
    let mut rng = stream(seed, Stream::Weights);
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let mut tensor = Dense::zeros(shape.clone());
        if shape.dims().len() > 1
            && let Ok(normal) = Normal::new(0.0, (2.0 / fan_in as f32).sqrt())
        {
            tensor.values.fill_with(|| normal.sample(&mut rng));
        }
        tensors.insert(name.clone(), Weights::Dense(tensor));
    }
    Network::new(graph, tensors)
}
