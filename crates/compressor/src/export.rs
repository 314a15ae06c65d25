//! From the trainable state back to a network: PyTorch layouts, sparse weights as CSR.

use std::collections::BTreeMap;

use sparsevd_model::{Csr, Dense, Graph, Network, Shape, Weights};

use crate::compact::readers;
use crate::error::CompressError;
use crate::layer::Layer;
use crate::parameter::Owner;
use crate::state::State;

/// The network of a state; removed units are gone from its shapes.
///
/// `original` has the shapes before units were removed. Names stay those of the input file.
pub(crate) fn network(
    graph: &Graph,
    state: &State<f32>,
    original: &Network,
    pixels: &dyn Fn(&str) -> usize,
) -> Result<Network, CompressError> {
    let layers = &state.layers;
    // Which layer's units each layer reads, and how many features each unit is.
    let mut sources: Vec<Option<(usize, usize)>> = vec![None; layers.len()];
    for (producer, layer) in layers.iter().enumerate() {
        for reader in readers(graph, layers, &layer.node, pixels).unwrap_or_default() {
            sources[reader.layer] = Some((producer, reader.area));
        }
    }
    let mut all_inputs: Vec<Vec<u32>> = vec![];
    for (layer, source) in layers.iter().zip(&sources) {
        // Input features in the exported shape: those of the units that are left in front, else as they came.
        let inputs: Vec<u32> = match source {
            Some((producer, area)) => {
                let units = &layers[*producer].kept_out;
                units
                    .iter()
                    .flat_map(|u| (0..*area as u32).map(move |p| u * *area as u32 + p))
                    .collect()
            }
            None => (0..layer.original.dims()[1] as u32).collect(),
        };
        all_inputs.push(inputs);
    }
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

/// A weight as CSR where that takes fewer bytes: six per non-zero (f32 and u16) and four per row, against four per element.
pub fn smaller(dense: Dense) -> Weights {
    let csr = Csr::from_dense(&dense);
    if 6 * csr.nonzeros() + 4 * (csr.rows() + 1) < 4 * dense.values.len() {
        Weights::Csr(csr)
    } else {
        Weights::Dense(dense)
    }
}
