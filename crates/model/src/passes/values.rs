//! The consumers of the values of a graph.

use std::collections::HashMap;

use crate::Graph;

/// How often each value is read by a node or returned by the network.
pub(super) fn consumers(graph: &Graph) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs);
    for value in inputs.chain(&graph.outputs) {
        *counts.entry(value.as_str()).or_default() += 1;
    }
    counts
}

/// Lets all consumers of a value that is a key of `replaced` read the value that it maps to.
pub(super) fn replace(graph: &mut Graph, replaced: &HashMap<String, String>) {
    let inputs = graph.nodes.iter_mut().flat_map(|n| &mut n.inputs);
    for value in inputs.chain(&mut graph.outputs) {
        if let Some(to) = replaced.get(value) {
            value.clone_from(to);
        }
    }
}
