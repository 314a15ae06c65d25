//! Layers that lose no weights because a recipe or a command line says so.

use std::collections::BTreeSet;

use sparsevd_model::{Network, Node};

use crate::error::CompressError;

/// Whether a layer is among these, by the name of its node or of its weight.
pub fn is_kept_dense(node: &Node, layers: &[String]) -> bool {
    let weight = node.op.weight();
    layers
        .iter()
        .any(|l| *l == node.name || Some(l.as_str()) == weight)
}

/// The names of the weights of these layers, which are named as [`is_kept_dense`] takes them.
///
/// # Errors
/// A name that no weighted node or weight of the network has.
pub(crate) fn weights_of<'n>(
    network: &'n Network,
    layers: &[String],
) -> Result<BTreeSet<&'n str>, CompressError> {
    let nodes = || network.graph.weighted_nodes();
    let weight_of = |layer: &String| {
        let mut named = nodes().filter(|node| is_kept_dense(node, std::slice::from_ref(layer)));
        named
            .next()
            .and_then(|node| node.op.weight())
            .ok_or_else(|| {
                let names: Vec<&str> = nodes().map(|node| node.name.as_str()).collect();
                let expected = format!("the name of a layer, of {}", names.join(", "));
                CompressError::setting("keep_dense", expected, layer)
            })
    };
    layers.iter().map(weight_of).collect()
}

#[cfg(test)]
mod tests {
    use sparsevd_model::presets;

    use super::*;
    use crate::initialise;

    #[test]
    fn a_layer_goes_by_its_node_or_its_weight() {
        let (graph, shapes) = presets::by_name("lenet-300-100").unwrap();
        let network = initialise(graph, &shapes, 0).unwrap();
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let weights = weights_of(&network, &names).map_err(|e| e.to_string());
            weights.map(|w| w.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), Ok(vec![]));
        assert_eq!(
            of(&["fc3", "fc1.weight"]),
            Ok(vec!["fc1.weight", "fc3.weight"])
        );
        let error = of(&["fc2", "fc4"]).unwrap_err();
        assert_eq!(
            error,
            "keep_dense: expected the name of a layer, of fc1, fc2, fc3, got fc4"
        );
    }
}
