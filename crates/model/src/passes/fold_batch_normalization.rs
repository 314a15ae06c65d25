//! Makes a batch normalisation part of the convolution or linear layer before it, where that layer has no other consumer.
//!
//! `scale (W x + b - mean) / sqrt(variance + epsilon) + bias` is a layer with other weights and another bias.

use std::collections::HashMap;

use super::values;
use crate::bind::bias_name;
use crate::{Dense, Network, Op, Weights};

/// Factor and summand per channel of a batch normalisation, or `None` for another operator or where a tensor is missing.
pub fn normalisation(network: &Network, op: &Op) -> Option<(Vec<f32>, Vec<f32>)> {
    let Op::BatchNormalization(norm) = op else {
        return None;
    };
    let numbers = |name: &str| Some(network.tensors.get(name)?.to_dense().values);
    let tensors: Vec<Vec<f32>> = op.tensors().map(numbers).collect::<Option<_>>()?;
    let channels = tensors.iter().map(Vec::len).min()?;
    Some(
        (0..channels)
            .map(|c| norm.affine(std::array::from_fn(|t| tensors[t][c])))
            .map(|[factor, summand]| (factor, summand))
            .unzip(),
    )
}

/// The network with every normalisation folded that can be; `None` where there is none.
pub fn fold_batch_normalization(network: &Network) -> Option<Network> {
    let folds = foldable(network);
    if folds.is_empty() {
        return None;
    }
    let mut out = network.clone();
    // Names of the layers that normalisations became part of.
    let mut renamed: HashMap<String, String> = HashMap::new();
    for &(layer, norm) in &folds {
        let (factors, summands) = normalisation(network, &network.graph.nodes[norm].op)?;
        let node = &mut out.graph.nodes[layer];
        let weight = node.op.weight()?.to_owned();
        let bias = match node.op.bias() {
            Some(bias) => bias.to_owned(),
            None => free_name(&out.tensors, &weight),
        };
        node.op.rename_tensors(weight.clone(), Some(bias.clone()));
        let before = out.tensors.get(&bias).map(Weights::to_dense);
        let moved = (0..factors.len()).map(|i| {
            let b = before.as_ref().map_or(0.0, |b| f64::from(b.values[i]));
            (b * f64::from(factors[i]) + f64::from(summands[i])) as f32
        });
        let moved = Dense::new([factors.len()], moved.collect());
        out.tensors.insert(bias.clone(), Weights::Dense(moved));
        if let Some(tensor) = out.tensors.get_mut(&weight) {
            scale_rows(tensor, &factors);
        }
        out.scales.remove(&weight);
        out.scales.remove(&bias);
        let name = out.graph.nodes[layer].name.clone();
        out.int8.remove(&name, &weight);
        renamed.insert(network.graph.nodes[norm].name.clone(), name);
    }
    out.graph.nodes.retain(|n| !renamed.contains_key(&n.name));
    values::replace(&mut out.graph, &renamed);
    let used: std::collections::HashSet<&str> =
        (out.graph.nodes.iter().flat_map(|n| n.op.tensors())).collect();
    out.tensors.retain(|name, _| used.contains(name.as_str()));
    out.original_shapes
        .retain(|name, _| used.contains(name.as_str()));
    Some(out)
}

/// Layers and the normalisations that alone read them, by node.
fn foldable(network: &Network) -> Vec<(usize, usize)> {
    let nodes = &network.graph.nodes;
    if !nodes
        .iter()
        .any(|n| matches!(n.op, Op::BatchNormalization(_)))
    {
        return Vec::new();
    }
    let readers = values::consumers(&network.graph);
    let mut users: HashMap<&str, usize> = HashMap::new();
    for tensor in nodes.iter().flat_map(|n| n.op.tensors()) {
        *users.entry(tensor).or_default() += 1;
    }
    let makers: HashMap<&str, usize> = nodes.iter().map(|n| n.name.as_str()).zip(0..).collect();
    // Over several vectors of a sample, the units of a layer are not its channels.
    let types = network.types().unwrap_or_default();
    let is_plain = |layer: usize| match &nodes[layer].op {
        Op::Linear(_) => (types.get(nodes[layer].name.as_str())).is_some_and(|t| t.dims.len() == 1),
        _ => true,
    };
    let is_norm = |i: &usize| matches!(nodes[*i].op, Op::BatchNormalization(_));
    (0..nodes.len())
        .filter(is_norm)
        .filter_map(|norm| {
            let before = nodes[norm].inputs.first()?.as_str();
            let &layer = makers.get(before)?;
            let op = &nodes[layer].op;
            let alone = op.weight().is_some()
                && is_plain(layer)
                && readers.get(before) == Some(&1)
                && op.tensors().all(|t| users.get(t) == Some(&1));
            let finite = normalisation(network, &nodes[norm].op)
                .is_some_and(|(a, b)| a.iter().chain(&b).all(|v| v.is_finite()));
            (alone && finite).then_some((layer, norm))
        })
        .collect()
}

/// A name for the bias of a weight that no tensor has yet.
fn free_name(tensors: &std::collections::BTreeMap<String, Weights>, weight: &str) -> String {
    let mut name = bias_name(weight);
    while tensors.contains_key(&name) {
        name.push_str(".folded");
    }
    name
}

fn scale_rows(weight: &mut Weights, factors: &[f32]) {
    match weight {
        Weights::Dense(dense) => {
            let cols = dense.shape.matrix().1;
            for (row, factor) in dense.values.chunks_mut(cols.max(1)).zip(factors) {
                row.iter_mut().for_each(|v| *v *= factor);
            }
        }
        Weights::Csr(csr) => {
            *csr = csr.map_values(|row, v| v * factors[row]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::passes::tests::{conv, graph_of, network};

    fn norm(n: usize) -> Op {
        let name = |part: &str| format!("{part}{n}");
        Op::BatchNormalization(ops::BatchNormalization {
            scale: name("scale"),
            bias: name("shift"),
            mean: name("mean"),
            variance: name("variance"),
            epsilon: 1e-3,
        })
    }

    #[test]
    fn a_normalisation_joins_the_layer_it_alone_reads() {
        let graph = graph_of(&[
            ("a", &["x"], conv("w1", None)),
            ("bn", &["a"], norm(1)),
            ("b", &["bn"], conv("w2", Some("b2"))),
            ("bn2", &["b"], norm(2)),
            ("sum", &["bn2", "x"], Op::Add),
        ]);
        let folded = fold_batch_normalization(&network(graph)).unwrap();
        let names: Vec<_> = folded.graph.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "sum"]);
        assert_eq!(folded.graph.nodes[2].inputs, ["b", "x"]);
        assert_eq!(folded.graph.nodes[0].op.bias(), Some("w1.bias"));
        folded.shapes().unwrap();
        assert!(!folded.tensors.contains_key("mean1"));
    }

    #[test]
    fn a_layer_that_others_read_or_a_shared_weight_stays() {
        for nodes in [
            &[
                ("a", &["x"][..], conv("w1", None)),
                ("bn", &["a"], norm(1)),
                ("sum", &["bn", "a"], Op::Add),
            ],
            &[
                ("a", &["x"], conv("w1", None)),
                ("bn", &["a"], norm(1)),
                ("b", &["bn"], conv("w1", None)),
            ],
        ] {
            assert_eq!(fold_batch_normalization(&network(graph_of(nodes))), None);
        }
    }
}
