//! Puts a batch normalisation after convolutions, with which they train as they did before it was folded.

use std::collections::{HashMap, HashSet};

use super::values;
use crate::{Dense, Network, Node, Op, Weights, ops};

/// What is added to variances, as in PyTorch.
const EPSILON: f32 = 1e-5;

/// Mean and variance of each channel of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStatistics {
    /// Means.
    pub mean: Vec<f32>,
    /// Variances.
    pub variance: Vec<f32>,
}

/// The names of the convolutions that no normalisation follows, but for those that make an output.
pub fn without_normalization(network: &Network) -> Vec<&str> {
    let nodes = &network.graph.nodes;
    let followed = |name: &String| {
        let normalises = |n: &Node| matches!(n.op, Op::BatchNormalization(_));
        nodes
            .iter()
            .any(|n| normalises(n) && n.inputs.contains(name))
    };
    let convolutions = nodes.iter().filter(|n| matches!(n.op, Op::Conv(_)));
    let names = convolutions.map(|n| &n.name);
    let is_output = |name: &String| network.graph.outputs.contains(name);
    let names = names.filter(|name| !followed(name) && !is_output(name));
    names.map(String::as_str).collect()
}

/// The network with a normalisation after each convolution that `statistics` has those of the output of, by its name. It computes what it did,
/// but for rounding: scale and bias undo what the statistics do. The convolution's bias becomes part of that of the normalisation.
/// [`fold_batch_normalization`](super::fold_batch_normalization) is the way back.
pub fn insert_batch_normalization(
    network: &Network,
    statistics: &HashMap<String, ChannelStatistics>,
) -> Network {
    let mut out = network.clone();
    let taken = |name: &str| network.graph.nodes.iter().any(|n| n.name == name);
    let normalised: HashMap<String, String> = (network.graph.nodes.iter())
        .filter(|node| matches!(node.op, Op::Conv(_)) && statistics.contains_key(&node.name))
        .map(|node| (node.name.clone(), free(&node.name, "normalised", taken)))
        .collect();
    values::replace(&mut out.graph, &normalised);
    for mut node in std::mem::take(&mut out.graph.nodes) {
        let (Op::Conv(conv), Some(name)) = (&node.op, normalised.get(&node.name)) else {
            out.graph.nodes.push(node);
            continue;
        };
        let before = (conv.bias.as_ref())
            .and_then(|bias| out.tensors.get(bias))
            .map(|bias| bias.to_dense().values);
        let ChannelStatistics { mean, variance } = &statistics[&node.name];
        let scale = variance.iter().map(|v| (v + EPSILON).sqrt()).collect();
        let without_bias = (mean.iter().enumerate())
            .map(|(c, mean)| mean - before.as_ref().map_or(0.0, |before| before[c]))
            .collect();
        let mut tensor = |part: &str, values: Vec<f32>| {
            let tensor = free(name, part, |name| out.tensors.contains_key(name));
            let dense = Dense::new([values.len()], values);
            out.tensors.insert(tensor.clone(), Weights::Dense(dense));
            tensor
        };
        let op = ops::BatchNormalization {
            scale: tensor("scale", scale),
            bias: tensor("bias", mean.clone()),
            mean: tensor("mean", without_bias),
            variance: tensor("variance", variance.clone()),
            epsilon: EPSILON,
        };
        let weight = conv.weight.clone();
        node.op.rename_tensors(weight, None);
        let inputs = vec![node.name.clone()];
        out.graph.nodes.push(node);
        out.graph.nodes.push(Node {
            name: name.clone(),
            inputs,
            op: Op::BatchNormalization(op),
        });
    }
    let used: HashSet<&str> = (out.graph.nodes.iter().flat_map(|n| n.op.tensors())).collect();
    out.tensors.retain(|name, _| used.contains(name.as_str()));
    out
}

/// `stem.part`, or a longer name where that is taken.
fn free(stem: &str, part: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut name = format!("{stem}.{part}");
    while taken(&name) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::fold_batch_normalization;
    use crate::passes::tests::{conv, graph_of, network};

    #[test]
    fn what_is_inserted_folds_to_the_network_as_it_was() {
        let graph = graph_of(&[
            ("a", &["x"], conv("w1", Some("b1"))),
            ("r", &["a"], Op::Relu),
            ("b", &["r"], conv("w2", None)),
            ("sum", &["b", "a"], Op::Add),
            ("out", &["sum"], conv("w3", None)),
        ]);
        let network = network(graph);
        assert_eq!(without_normalization(&network), ["a", "b"]);
        let of = |mean: f32| ChannelStatistics {
            mean: vec![mean, -mean],
            variance: vec![4.0, 0.0],
        };
        let statistics = [("a".to_owned(), of(3.0)), ("b".to_owned(), of(0.5))].into();
        let inserted = insert_batch_normalization(&network, &statistics);
        inserted.shapes().unwrap();
        assert!(without_normalization(&inserted).is_empty());
        let names: Vec<&str> = inserted
            .graph
            .nodes
            .iter()
            .map(|n| n.name.as_str())
            .collect();
        let expected = ["a", "a.normalised", "r", "b", "b.normalised", "sum", "out"];
        assert_eq!(names, expected);
        let sum = &inserted.graph.nodes[5].inputs;
        assert_eq!(sum, &["b.normalised", "a.normalised"]);
        assert_eq!(
            inserted.tensors["a.normalised.mean"].to_dense().values,
            [2.0, -4.0]
        );
        let folded = fold_batch_normalization(&inserted).unwrap();
        let names: Vec<&str> = folded.graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "r", "b", "sum", "out"]);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        for node in [0, 2] {
            let [was, is] = [&network, &folded].map(|n| {
                let node = &n.graph.nodes[node];
                let bias = n.bias(node).map_or(vec![0.0; 2], <[f32]>::to_vec);
                (n.weight(node).unwrap().to_dense().values, bias)
            });
            assert!(near(&was.0, &is.0) && near(&was.1, &is.1), "{was:?} {is:?}");
        }
    }
}
