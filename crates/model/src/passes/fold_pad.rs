//! Makes a border of zeros part of the convolutions behind it, where it has no other consumer.

use std::collections::HashMap;

use super::values;
use crate::{Network, Op, ops};

/// The network with every border folded that can be; `None` where there is none.
pub fn fold_pad(network: &Network) -> Option<Network> {
    let nodes = &network.graph.nodes;
    let readers = values::consumers(&network.graph);
    let mut convolutions: HashMap<&str, usize> = HashMap::new();
    for node in nodes.iter().filter(|n| matches!(n.op, Op::Conv(_))) {
        *convolutions.entry(node.inputs[0].as_str()).or_default() += 1;
    }
    let mut borders: HashMap<String, [usize; 4]> = HashMap::new();
    let mut renamed: HashMap<String, String> = HashMap::new();
    for node in nodes {
        let name = node.name.as_str();
        if let Op::Pad(ops::Pad { pads, value: 0.0 }) = node.op
            && readers.get(name) == convolutions.get(name)
            // A border of a border waits for the next run.
            && !renamed.contains_key(&node.inputs[0])
        {
            borders.insert(name.to_owned(), pads);
            renamed.insert(name.to_owned(), node.inputs[0].clone());
        }
    }
    if borders.is_empty() {
        return None;
    }
    let mut out = network.clone();
    for node in &mut out.graph.nodes {
        if let (Op::Conv(ops::Conv { window, .. }), Some(more)) =
            (&mut node.op, borders.get(&node.inputs[0]))
        {
            for (pad, more) in window.pads.iter_mut().zip(more) {
                *pad += more;
            }
        }
    }
    out.graph.nodes.retain(|n| !renamed.contains_key(&n.name));
    values::replace(&mut out.graph, &renamed);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::tests::{conv, graph_of, network};

    fn pad(value: f32) -> Op {
        Op::Pad(ops::Pad {
            pads: [1, 0, 0, 2],
            value,
        })
    }

    #[test]
    fn a_border_of_zeros_joins_the_convolutions_that_alone_read_it() {
        let before = network(graph_of(&[
            ("pad", &["x"], pad(0.0)),
            ("a", &["pad"], conv("w1", None)),
            ("b", &["pad"], conv("w2", None)),
            ("sum", &["a", "b"], Op::Add),
        ]));
        let after = fold_pad(&before).unwrap();
        let windows: Vec<_> = (after.graph.nodes.iter())
            .filter_map(|n| Some((n.inputs[0].as_str(), n.op.operator().window()?.pads)))
            .collect();
        assert_eq!(windows, [("x", [1, 0, 0, 2]), ("x", [1, 0, 0, 2])]);
        assert_eq!(
            before.shapes().unwrap()["sum"],
            after.shapes().unwrap()["sum"]
        );
    }

    #[test]
    fn other_numbers_or_readers_keep_it() {
        for nodes in [
            &[
                ("pad", &["x"][..], pad(1.0)),
                ("a", &["pad"], conv("w1", None)),
                ("b", &["a"], Op::Relu),
            ],
            &[
                ("pad", &["x"], pad(0.0)),
                ("a", &["pad"], conv("w1", None)),
                ("sum", &["a", "pad"], Op::Add),
            ],
        ] {
            assert_eq!(fold_pad(&network(graph_of(nodes))), None);
        }
    }
}
