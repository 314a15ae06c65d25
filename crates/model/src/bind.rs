//! Matching a graph with the tensors of a file whose names may differ.

use std::cmp::Ordering;

use crate::{Graph, ModelError, Shape, presets};

/// Compares names so that numbers inside them count as numbers: `layer2` before `layer10`.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (na, rest_a) = split_number(a);
                let (nb, rest_b) = split_number(b);
                let order = na.len().cmp(&nb.len()).then_with(|| na.cmp(nb));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

/// The leading digits without leading zeros, and what follows.
fn split_number(s: &[u8]) -> (&[u8], &[u8]) {
    let end = s
        .iter()
        .position(|c| !c.is_ascii_digit())
        .unwrap_or(s.len());
    let (digits, rest) = s.split_at(end);
    let zeros = digits.iter().take_while(|&&c| c == b'0').count();
    (&digits[zeros..], rest)
}

/// Names and shapes in one line, for error messages; long lists are cut.
pub fn describe<'a>(tensors: impl Iterator<Item = (&'a str, Shape)>) -> String {
    const MOST: usize = 24;
    let all: Vec<String> = tensors.map(|(n, s)| format!("{n} {s}")).collect();
    match all.len() {
        0 => "(none)".into(),
        n if n > MOST => format!("{}, ... ({} more)", all[..MOST].join(", "), n - MOST),
        _ => all.join(", "),
    }
}

/// Gives the graph the tensor names of a file.
///
/// Where every tensor that the graph names is there, nothing changes. Otherwise the file's weights (two or more
/// dimensions) and biases (one dimension) are ordered by natural sort of their names and matched, in that order, with
/// the graph's nodes; each pair must agree in shape with `expected`, the shapes the graph itself was made for.
///
/// # Errors
/// [`ModelError::Unbindable`] where counts or shapes disagree.
pub fn rename_by_order(
    graph: &mut Graph,
    expected: &[(String, Shape)],
    found: &[(String, Shape)],
) -> Result<(), ModelError> {
    let has = |name: &str| found.iter().any(|(n, _)| n == name);
    let all_there = graph
        .weighted_nodes()
        .all(|n| n.op.weight().is_none_or(has) && n.op.bias().is_none_or(has));
    if all_there {
        return Ok(());
    }
    let fail = |reason: String| ModelError::Unbindable {
        reason,
        found: describe(found.iter().map(|(n, s)| (n.as_str(), s.clone()))),
    };
    let mut sorted: Vec<&(String, Shape)> = found.iter().collect();
    sorted.sort_by(|a, b| natural_cmp(&a.0, &b.0));
    let weights: Vec<_> = sorted.iter().filter(|(_, s)| s.dims().len() >= 2).collect();
    let shape_of = |name: &str| expected.iter().find(|(n, _)| n == name).map(|(_, s)| s);
    let nodes: Vec<usize> = (0..graph.nodes.len())
        .filter(|&i| graph.nodes[i].op.weight().is_some())
        .collect();
    if weights.len() != nodes.len() {
        return Err(fail(format!(
            "network `{}` has {} weights, the file has {}",
            graph.name,
            nodes.len(),
            weights.len()
        )));
    }
    for (&i, (weight, shape)) in nodes.iter().zip(weights) {
        let node = &mut graph.nodes[i];
        let old = node.op.weight().unwrap_or_default().to_owned();
        if let Some(want) = shape_of(&old)
            && want != shape
        {
            return Err(fail(format!(
                "node `{}` of network `{}` expects a weight {want}, the file's next one is `{weight}` {shape}",
                node.name, graph.name
            )));
        }
        let bias = match node.op.bias() {
            None => None,
            Some(_) => {
                let name = bias_name(weight);
                let bias = sorted
                    .iter()
                    .find(|(n, s)| *n == name && s.dims().len() == 1);
                let Some((bias, _)) = bias else {
                    return Err(fail(format!(
                        "node `{}` needs the bias `{name}` beside the weight `{weight}`",
                        node.name
                    )));
                };
                Some(bias.clone())
            }
        };
        node.op.rename_tensors(weight.clone(), bias);
    }
    Ok(())
}

/// Name of the bias that belongs to a weight: `0.weight` to `0.bias`.
pub fn bias_name(weight: &str) -> String {
    match weight.strip_suffix("weight") {
        Some(stem) => format!("{stem}bias"),
        None => format!("{weight}.bias"),
    }
}

/// Reads a pure chain of 2-D weights as a multi-layer perceptron with ReLU between the layers.
///
/// # Errors
/// [`ModelError::Unbindable`] where a weight is not 2-D, or the sizes do not follow each other.
pub fn mlp_from_tensors(found: &[(String, Shape)]) -> Result<Graph, ModelError> {
    let fail = |reason: String| ModelError::Unbindable {
        reason,
        found: describe(found.iter().map(|(n, s)| (n.as_str(), s.clone()))),
    };
    let mut weights: Vec<_> = found.iter().filter(|(_, s)| s.dims().len() >= 2).collect();
    weights.sort_by(|a, b| natural_cmp(&a.0, &b.0));
    let (Some((_, first)), true) = (
        weights.first(),
        weights.iter().all(|(_, s)| s.dims().len() == 2),
    ) else {
        return Err(fail(
            "the weights are not a pure chain of 2-D matrices".into(),
        ));
    };
    for pair in weights.windows(2) {
        if pair[0].1.dims()[0] != pair[1].1.dims()[1] {
            return Err(fail(format!(
                "`{}` {} cannot feed `{}` {}",
                pair[0].0, pair[0].1, pair[1].0, pair[1].1
            )));
        }
    }
    let inputs = first.dims()[1];
    let widths: Vec<usize> = weights.iter().map(|(_, s)| s.dims()[0]).collect();
    // A square number of inputs is read as one image channel, so that image sets fit it.
    let side = inputs.isqrt();
    let input = if side * side == inputs && side > 1 {
        Shape::from([1, side, side])
    } else {
        Shape::from([inputs])
    };
    let (mut graph, expected) = presets::mlp("mlp", input, &widths);
    let without_bias = |w: &str| !found.iter().any(|(n, _)| *n == bias_name(w));
    let mut it = weights.iter();
    for node in &mut graph.nodes {
        if node.op.weight().is_some()
            && let Some((w, _)) = it.next()
        {
            let bias = (!without_bias(w)).then(|| bias_name(w));
            node.op.rename_tensors(w.clone(), bias);
        }
    }
    debug_assert!(!expected.is_empty());
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = vec![
            "layer10.weight",
            "layer2.weight",
            "a",
            "layer2.bias",
            "02",
            "1",
        ];
        names.sort_by(|a, b| natural_cmp(a, b));
        assert_eq!(
            names,
            [
                "1",
                "02",
                "a",
                "layer2.bias",
                "layer2.weight",
                "layer10.weight"
            ]
        );
    }

    #[test]
    fn a_foreign_lenet_5_binds_by_order_and_shape() {
        let (mut graph, expected) = presets::by_name("lenet-5").unwrap();
        let shapes: Vec<Shape> = expected.iter().map(|(_, s)| s.clone()).collect();
        let names = [
            "0.weight",
            "0.bias",
            "3.weight",
            "3.bias",
            "7.weight",
            "7.bias",
            "10.weight",
            "10.bias",
        ];
        let mut found: Vec<_> = names.iter().map(ToString::to_string).zip(shapes).collect();
        rename_by_order(&mut graph, &expected, &found).unwrap();
        let weights: Vec<_> = graph
            .weighted_nodes()
            .filter_map(|n| n.op.weight())
            .collect();
        assert_eq!(weights, ["0.weight", "3.weight", "7.weight", "10.weight"]);

        found[4].1 = Shape::from([400, 800]);
        let (mut graph, _) = presets::by_name("lenet-5").unwrap();
        let error = rename_by_order(&mut graph, &expected, &found)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`7.weight` [400, 800]") && error.contains("[500, 800]"),
            "{error}"
        );
    }

    #[test]
    fn a_chain_of_matrices_is_an_mlp() {
        let found = vec![
            ("b.10.weight".to_owned(), Shape::from([10, 30])),
            ("b.2.weight".to_owned(), Shape::from([30, 784])),
            ("b.2.bias".to_owned(), Shape::from([30])),
        ];
        let graph = mlp_from_tensors(&found).unwrap();
        assert_eq!(graph.inputs[0].shape, Shape::from([1, 28, 28]));
        let ops: Vec<_> = graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["Flatten", "Linear", "Relu", "Linear"]);
        assert_eq!(graph.nodes[1].op.bias(), Some("b.2.bias"));
        assert_eq!(graph.nodes[3].op.bias(), None);
        let bad = vec![
            ("a.weight".to_owned(), Shape::from([3, 4])),
            ("b.weight".to_owned(), Shape::from([3, 4])),
        ];
        assert!(mlp_from_tensors(&bad).is_err());
    }
}
