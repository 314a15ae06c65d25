//! From the trainable state back to a network: PyTorch layouts, sparse weights as CSR.

use std::collections::{BTreeMap, HashMap};

use sparsevd_model::ops::Channels;
use sparsevd_model::{Dense, Graph, Network, Shape, Weights};

use crate::error::CompressError;
use crate::layer::Layer;
use crate::parameter::Owner;
use crate::state::State;

/// The network of a state; removed units are gone from its shapes.
///
/// `original` has the graph, and the shapes before units were removed. Names stay those of the input file.
pub(crate) fn network(
    original: &Network,
    state: &State<f32>,
    shapes: &HashMap<String, Shape>,
) -> Result<Network, CompressError> {
    let (graph, layers) = (&original.graph, &state.layers);
    let all_inputs = inputs(graph, layers, shapes);
    let mut tensors: BTreeMap<String, Weights> = BTreeMap::new();
    let mut original_shapes = BTreeMap::new();
    let mut scales: Vec<(&str, f32)> = vec![];
    for parameter in state.parameters() {
        let Some(name) = parameter.tensor else {
            continue;
        };
        let tensor = match (parameter.owner, &parameter.noise) {
            (Owner::Layer(i), Some(_)) => {
                let dense = to_dense(&layers[i], &all_inputs[i]);
                let known = original.original_shapes.contains_key(name);
                if known || dense.shape != layers[i].original {
                    original_shapes.insert(name.to_owned(), original.original_shape(name));
                }
                smaller(dense)
            }
            (Owner::Plain(i), _) => {
                let numbers = parameter.numbers().to_vec();
                Weights::Dense(Dense::new(state.plain[i].shape.clone(), numbers))
            }
            (Owner::Layer(_) | Owner::Normalisation(_), _) => {
                let numbers = parameter.numbers();
                Weights::Dense(Dense::new([numbers.len()], numbers.to_vec()))
            }
        };
        tensors.insert(name.to_owned(), tensor);
        scales.extend(parameter.rounded.map(|r| (name, r.scale)));
    }
    let mut network = Network::new(graph.clone(), tensors)?;
    network.original_shapes = original_shapes;
    for (name, scale) in scales {
        network.set_scale(name, scale)?;
    }
    Ok(network)
}

/// For each layer, which original inputs its weight has in the exported network: all that its producer still makes.
fn inputs(graph: &Graph, layers: &[Layer<f32>], shapes: &HashMap<String, Shape>) -> Vec<Vec<u32>> {
    // The original channels of each value that are there.
    let mut values: HashMap<&str, Vec<u32>> = HashMap::new();
    for input in &graph.inputs {
        let channels = input.shape.dims().first().map_or(1, |c| *c as u32);
        values.insert(&input.name, (0..channels).collect());
    }
    // Of layers over several vectors of a sample, and of convolutions with groups, all inputs stay.
    let mut of_layers: Vec<Vec<u32>> = layers.iter().map(|l| l.kept_in.clone()).collect();
    for node in &graph.nodes {
        let x = &values[node.inputs[0].as_str()];
        let made = match node.op.channels_of(&shapes[node.inputs[0].as_str()]) {
            Channels::Rows => {
                let place = layers.iter().position(|l| l.node == node.name);
                let place = place.expect("every node with a weight has a layer");
                if layers[place].groups == 1 {
                    of_layers[place].clone_from(x);
                }
                layers[place].kept_out.clone()
            }
            Channels::Flattened => {
                let pixels = shapes[node.inputs[0].as_str()].matrix().1 as u32;
                let features = x.iter();
                (features.flat_map(|c| (0..pixels).map(move |p| c * pixels + p))).collect()
            }
            Channels::Appended => {
                let channels: usize = node.inputs.iter().map(|i| values[i.as_str()].len()).sum();
                (0..channels as u32).collect()
            }
            Channels::Same => x.clone(),
            Channels::All => {
                let channels = shapes[node.name.as_str()].matrix().0;
                (0..channels as u32).collect()
            }
        };
        values.insert(&node.name, made);
    }
    of_layers
}

/// `[units][ky][kx][kept channel]` to `[units][input][ky][kx]`.
fn to_dense(layer: &Layer<f32>, inputs: &[u32]) -> Dense {
    let (area, kept) = (layer.area(), layer.kept_in.len());
    let mut dims = vec![layer.units(), inputs.len()];
    dims.extend_from_slice(&layer.original.dims()[2..]);
    let mut dense = Dense::zeros(Shape(dims));
    for (k, feature) in layer.kept_in.iter().enumerate() {
        let Ok(i) = inputs.binary_search(feature) else {
            continue;
        };
        for unit in 0..layer.units() {
            for a in 0..area {
                dense.values[(unit * inputs.len() + i) * area + a] =
                    layer.weights()[(unit * area + a) * kept + k];
            }
        }
    }
    dense
}

/// As [`Weights::smaller`].
pub fn smaller(dense: Dense) -> Weights {
    Weights::smaller(dense)
}
