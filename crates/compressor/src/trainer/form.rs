//! The network that a run trains: as it came, and for quantise phases with its batch normalisations folded.

use std::sync::Arc;

use sparsevd_model::passes::fold_batch_normalization;
use sparsevd_model::{Graph, Network, Node};

use crate::normalisation::Normalisation;
use crate::state::State;

/// A network and its state before training.
#[derive(Clone)]
pub(super) struct Form {
    pub network: Network,
    pub dense: State<f32>,
}

impl Form {
    /// The same with every batch normalisation that can be folded as part of the layer before it; `None` where there is none.
    pub fn folded(&self) -> Option<Arc<Self>> {
        let network = fold_batch_normalization(&self.network)?;
        let mut dense = self.dense.clone();
        fold(&mut dense, &folds(&self.network.graph, &network.graph));
        Some(Arc::new(Self { network, dense }))
    }
}

/// A layer that takes the normalisation of its outputs.
pub(super) struct Fold {
    /// Name of the layer's node.
    layer: String,
    /// Name of the normalisation's node.
    normalisation: String,
    /// Tensor name of the bias that the layer then has.
    bias: Option<String>,
}

impl Fold {
    /// The normalisation that a layer takes, of those that there are.
    pub fn of<'n, T>(
        folds: &[Self],
        layer: &str,
        normalisations: &'n [Normalisation<T>],
    ) -> Option<&'n Normalisation<T>> {
        let fold = folds.iter().find(|fold| fold.layer == layer)?;
        let mut all = normalisations.iter();
        all.find(|normalisation| normalisation.node == fold.normalisation)
    }
}

/// The normalisations of the graph `from` that are parts of layers in the graph `to`.
pub(super) fn folds(from: &Graph, to: &Graph) -> Vec<Fold> {
    let in_folded = |name: &str| to.nodes.iter().find(|n| n.name == name);
    let gone = from.nodes.iter().filter(|n| in_folded(&n.name).is_none());
    let fold = |node: &Node| {
        let layer = in_folded(node.inputs.first()?)?;
        Some(Fold {
            layer: layer.name.clone(),
            normalisation: node.name.clone(),
            bias: layer.op.bias().map(str::to_owned),
        })
    };
    gone.filter_map(fold).collect()
}

/// Makes normalisations of a state parts of their layers.
pub(super) fn fold(state: &mut State<f32>, folds: &[Fold]) {
    for fold in folds {
        let mut all = state.normalisations.iter();
        let place = all.position(|n| n.node == fold.normalisation);
        let layer = state.layers.iter_mut().find(|l| l.node == fold.layer);
        if let (Some(place), Some(layer)) = (place, layer) {
            let normalisation = state.normalisations.remove(place);
            layer.absorb(&normalisation, fold.bias.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sparsevd_model::{Conv2d, GraphBuilder, Op, Shape};

    use super::*;
    use crate::export;
    use crate::init::initialise;
    use crate::variational::Granularity;

    /// A convolution with a normalisation, and another one behind ReLU, where no layer can take it.
    fn came() -> Form {
        let mut b = GraphBuilder::new("net");
        let x = b.input("x", [2, 3, 3]);
        let x = b.conv("c", &x, &Conv2d::square(3, 2).without_bias());
        let x = b.batch_normalization("n", &x);
        let x = b.op("r", Op::Relu, &[&x]);
        let x = b.batch_normalization("m", &x);
        let x = b.op("flat", Op::Flatten, &[&x]);
        b.output(&x);
        let (graph, tensors) = b.finish_with_tensors().unwrap();
        let mut network = initialise(graph, &tensors, 1).unwrap();
        for (name, values) in [
            ("n.weight", [2.0, -0.5, 0.0]),
            ("n.bias", [0.25, 0.5, 0.75]),
            ("n.running_mean", [1.0, -1.0, 3.0]),
            ("n.running_var", [4.0, 0.25, 1.0]),
        ] {
            let mut tensor = network.tensors[name].to_dense();
            tensor.values = values.into();
            network.tensors.insert(name.into(), tensor.into());
        }
        let dense = State::from_network(&network).unwrap();
        Form { network, dense }
    }

    /// Before a normalisation, the size of weights says nothing, and fine-tuning changes it.
    #[test]
    fn deviations_stay_those_of_the_posterior_where_weights_grow() {
        let came = came();
        let folded = came.folded().unwrap();
        let folds = folds(&came.network.graph, &folded.network.graph);
        let mut state = came.dense.clone();
        state.layers[0].start_noise(-4.0, Granularity::Weight);
        let mut at_once = state.clone();
        fold(&mut at_once, &folds);
        at_once.layers[0].stop_noise(None);
        let normalisation = state.normalisations[0].clone();
        state.layers[0].stop_noise(Some(&normalisation));
        state.layers[0]
            .theta
            .iter_mut()
            .for_each(|theta| *theta *= 8.0);
        let grown = &mut state.normalisations[0];
        grown.mean.iter_mut().for_each(|mean| *mean *= 8.0);
        grown
            .variance
            .iter_mut()
            .for_each(|variance| *variance *= 64.0);
        fold(&mut state, &folds);
        let [want, got] = [at_once, state].map(|state| {
            let layer = &state.layers[0];
            [layer.median_sigma().unwrap(), f64::from(layer.theta[0])]
        });
        assert!(
            want.iter()
                .zip(&got)
                .all(|(a, b)| (a / b - 1.0).abs() < 1e-3),
            "{want:?} {got:?}"
        );
    }

    #[test]
    fn a_state_that_is_folded_is_written_as_the_network_that_is() {
        let came = came();
        let folded = came.folded().unwrap();
        assert!(folded.folded().is_none());
        let nodes = folded.network.graph.nodes.iter();
        assert_eq!(
            nodes.map(|n| &n.name).collect::<Vec<_>>(),
            ["c", "r", "m", "flat"]
        );
        let shapes = came.network.shapes().unwrap().into_iter();
        let shapes: HashMap<String, Shape> = shapes.map(|(n, s)| (n.to_owned(), s)).collect();
        // Trained: other weights, of which one was removed, and other statistics.
        let mut state = came.dense.clone();
        let layer = &mut state.layers[0];
        layer.start_noise(-4.0, Granularity::Weight);
        let numbers = layer
            .theta
            .iter_mut()
            .zip(&mut layer.log_sigma2)
            .enumerate();
        numbers
            .for_each(|(i, (theta, log))| (*theta, *log) = (*theta + 0.1, -4.0 - 0.1 * i as f32));
        layer.remove(&(0..24).map(|i| i != 5).collect::<Vec<_>>());
        state.normalisations[0].mean[1] = 0.5;
        let rates =
            |state: &State<f32>| state.layers[0].posterior().log_alphas().collect::<Vec<_>>();
        let before: Vec<f32> = rates(&state);
        let written = export::network(&came.network, &state, &shapes).unwrap();
        let written = fold_batch_normalization(&written).unwrap();
        fold(
            &mut state,
            &folds(&came.network.graph, &folded.network.graph),
        );
        let after = rates(&state);
        assert!(
            before[..16]
                .iter()
                .zip(&after)
                .all(|(a, b)| (a - b).abs() < 1e-4)
        );
        assert_eq!(state.normalisations.len(), 1);
        // The unit of factor 0 has no weights; what it sends is 0.75.
        assert_eq!(state.layers[0].alive(), 15);
        assert_eq!(state.layers[0].bias[2], 0.75);
        let network = export::network(&folded.network, &state, &shapes).unwrap();
        assert_eq!(network.graph.nodes, written.graph.nodes);
        for (name, tensor) in &written.tensors {
            let [want, got] = [tensor, &network.tensors[name]].map(|t| t.to_dense().values);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * a.abs().max(1.0);
            assert!(want.iter().zip(&got).all(near), "{name}: {want:?} {got:?}");
        }
    }
}
