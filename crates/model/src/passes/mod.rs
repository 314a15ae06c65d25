//! Rewrites of a network that keep what it computes; each is a file of its own.

pub mod channels;
mod drop_dead_channels;
mod fold_batch_normalization;
mod fold_embedding;
mod fold_pad;
mod fuse_attention;
mod insert_batch_normalization;
mod values;

use std::borrow::Cow;

use crate::Network;

pub use drop_dead_channels::drop_dead_channels;
pub use fold_batch_normalization::{fold_batch_normalization, normalisation};
pub use fold_embedding::fold_embedding;
pub use fold_pad::fold_pad;
pub use fuse_attention::fuse_attention;
pub use insert_batch_normalization::{
    ChannelStatistics, insert_batch_normalization, without_normalization,
};

/// The network as it is best run or pruned: normalisations and borders are part of the layers beside them, and
/// functions of the rows of a table part of the table, where that is exact.
pub fn for_running(network: &Network) -> Cow<'_, Network> {
    let mut out = Cow::Borrowed(network);
    for pass in [fold_batch_normalization, fold_pad, fold_embedding] {
        if let Some(next) = pass(&out) {
            out = Cow::Owned(next);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window, ops};

    /// A graph over `[2, 5, 5]` whose last node is the output.
    pub(super) fn graph_of(nodes: &[(&str, &[&str], Op)]) -> Graph {
        let nodes: Vec<Node> = nodes
            .iter()
            .map(|(name, inputs, op)| Node {
                name: (*name).into(),
                inputs: inputs.iter().map(ToString::to_string).collect(),
                op: op.clone(),
            })
            .collect();
        Graph {
            name: "test".into(),
            inputs: vec![Input::new("x", Shape::from([2, 5, 5]))],
            outputs: nodes.last().map(|n| n.name.clone()).into_iter().collect(),
            nodes,
            preprocessing: None,
        }
    }

    pub(super) fn conv(weight: &str, bias: Option<&str>) -> Op {
        Op::Conv(ops::Conv {
            weight: weight.into(),
            bias: bias.map(str::to_owned),
            window: Window::square(1, 1),
            groups: 1,
        })
    }

    /// The graph with ones for every tensor it names: weights `w...` are filters, the rest has one number per channel.
    pub(super) fn network(graph: Graph) -> Network {
        let names = graph.nodes.iter().flat_map(|n| n.op.tensors());
        let tensors: BTreeMap<String, Weights> = names
            .map(|name| {
                let shape = match name.strip_prefix('w') {
                    Some(_) => Shape::from([2, 2, 1, 1]),
                    None => Shape::from([2]),
                };
                let ones = vec![1.0; shape.elements()];
                (name.to_owned(), Weights::Dense(Dense::new(shape, ones)))
            })
            .collect();
        Network::new(graph, tensors).unwrap()
    }
}
