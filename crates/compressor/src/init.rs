//! Weights to start training from, or to measure with.

use std::collections::{BTreeMap, HashSet};

use rand_distr::{Distribution, Normal};
use sparsevd_model::{Dense, Graph, ModelError, Network, Op, Shape, Weights};

use crate::data::{Stream, stream};

/// A network of seeded weights: normal with variance 2 / fan-in (He et al. 2015), biases zero, normalisations that change nothing.
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
    let ones: HashSet<String> = (graph.nodes.iter())
        .filter_map(|n| {
            if let Op::BatchNormalization(norm) = &n.op {
                Some([norm.scale.clone(), norm.variance.clone()])
            } else {
                None
            }
        })
        .flatten()
        .collect();
    for (name, shape) in shapes {
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let mut tensor = Dense::zeros(shape.clone());
        if shape.dims().len() > 1
            && let Ok(normal) = Normal::new(0.0, (2.0 / fan_in as f32).sqrt())
        {
            tensor.values.fill_with(|| normal.sample(&mut rng));
        }
        if ones.contains(name) {
            tensor.values.fill(1.0);
        }
        tensors.insert(name.clone(), Weights::Dense(tensor));
    }
    Network::new(graph, tensors)
}
