//! Weights to start training from, or to measure with.

use std::collections::{BTreeMap, HashMap};

use rand_distr::{Distribution, Normal};
use sparsevd_model::{Dense, Graph, ModelError, Network, Shape, Weights};

use crate::data::{Stream, stream};
use crate::objective::Targets;
use crate::units;

/// Makes the outputs of a network that is to be trained about as large as its targets: weights of the last layer times the power
/// of two nearest to the deviation of targets that are numbers, and its bias their mean. Classes change nothing.
pub fn fit_outputs(network: Network, targets: &Targets<'_>) -> Network {
    let Some(mean) = units::means(targets) else {
        return network;
    };
    let unit = units::output_unit(&network, targets);
    let mut network = units::scale_outputs(network, unit);
    let bias = units::last_layer(&network).and_then(|op| op.bias().map(str::to_owned));
    if let Some(tensor) = bias.and_then(|name| network.tensors.get_mut(&name)) {
        let mean: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
        if tensor.shape() == Shape::from([mean.len()]) {
            *tensor = Dense::new([mean.len()], mean).into();
        }
    }
    network
}

/// A network of seeded weights: normal with variance 2 / fan-in (He et al. 2015), rows of tables with variance 1, biases zero,
/// normalisations that change nothing.
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
    let plain: HashMap<String, Option<f32>> = (graph.nodes.iter())
        .flat_map(|node| {
            let plain = node.op.plain_tensors().into_iter();
            plain.map(|(_, name)| {
                let initial = node.op.operator().initial(&name);
                (name, initial)
            })
        })
        .collect();
    for (name, shape) in shapes {
        let fan_in: usize = shape.dims().iter().skip(1).product();
        let mut tensor = Dense::zeros(shape.clone());
        let deviation = match plain.get(name) {
            Some(Some(constant)) => {
                tensor.values.fill(*constant);
                None
            }
            Some(None) => Some(1.0),
            None => (shape.dims().len() > 1).then(|| (2.0 / fan_in as f32).sqrt()),
        };
        if let Some(Ok(normal)) = deviation.map(|deviation| Normal::new(0.0, deviation)) {
            tensor.values.fill_with(|| normal.sample(&mut rng));
        }
        tensors.insert(name.clone(), Weights::Dense(tensor));
    }
    Network::new(graph, tensors)
}
