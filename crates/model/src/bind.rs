//! Matching a graph with the tensors of a file whose names may differ.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use crate::{Graph, ModelError, Node, Shape, presets};

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

/// Checks that a file has every tensor that a graph names.
///
/// # Errors
/// [`ModelError::Unbindable`] with the first names that no tensor has, the node of each and the most similar name of a tensor.
pub fn check_names(graph: &Graph, found: &[(String, Shape)]) -> Result<(), ModelError> {
    const MOST: usize = 8;
    let there: HashSet<&str> = found.iter().map(|(n, _)| n.as_str()).collect();
    let missing: Vec<(&Node, &str)> = (graph.nodes.iter())
        .flat_map(|node| node.op.tensors().map(move |tensor| (node, tensor)))
        .filter(|(_, tensor)| !there.contains(tensor))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let listed = missing.iter().take(MOST).map(|(node, tensor)| {
        let similar = match most_similar(tensor, found) {
            Some(name) => format!(" (the most similar name is `{name}`)"),
            None => String::new(),
        };
        format!(
            "node `{}` names the tensor `{tensor}`, which the file does not have{similar}",
            node.name
        )
    });
    let mut reason = format!(
        "graph `{}`: {}",
        graph.name,
        listed.collect::<Vec<_>>().join("; ")
    );
    if missing.len() > MOST {
        reason += &format!("; and {} more", missing.len() - MOST);
    }
    Err(unbindable(reason, found))
}

/// The name of a tensor that differs in the fewest characters, where that is at most a third of them.
fn most_similar<'f>(name: &str, found: &'f [(String, Shape)]) -> Option<&'f str> {
    // Names and lists beyond these are not written by people.
    const LONGEST: usize = 128;
    const MOST: usize = 4096;
    let near = |other: &str| {
        let fits = name.len() <= LONGEST && other.len() <= LONGEST;
        fits.then(|| distance(name.as_bytes(), other.as_bytes()))
            .filter(|d| *d <= (name.len() / 3).max(1))
    };
    found
        .iter()
        .take(MOST)
        .filter_map(|(other, _)| Some((near(other)?, other)))
        .min_by(|a, b| a.0.cmp(&b.0).then_with(|| natural_cmp(a.1, b.1)))
        .map(|(_, other)| other.as_str())
}

/// The edit distance of Levenshtein: insertions, deletions and substitutions of bytes.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn unbindable(reason: String, found: &[(String, Shape)]) -> ModelError {
    ModelError::Unbindable {
        reason,
        found: describe(found.iter().map(|(n, s)| (n.as_str(), s.clone()))),
    }
}

/// Gives the graph of a preset the tensor names of a file.
///
/// Where every tensor that the graph names is there, nothing changes. Otherwise the file's weights (two or more
/// dimensions) are matched with the graph's nodes in the natural order of their names, each with the bias (one dimension) that
/// belongs to it. Where their shapes are not those `expected`, the order of their groups (`features.*`, `classifier.*`) may
/// be another, if there is just one in which the shapes agree.
///
/// # Errors
/// [`ModelError::Unbindable`] where counts or shapes disagree, or where several orders of the groups fit.
pub fn rename_by_order(
    graph: &mut Graph,
    expected: &[(String, Shape)],
    found: &[(String, Shape)],
) -> Result<(), ModelError> {
    if check_names(graph, found).is_ok() {
        return Ok(());
    }
    let fail = |reason: String| unbindable(reason, found);
    let mut weights: Vec<&(String, Shape)> =
        found.iter().filter(|(_, s)| s.dims().len() >= 2).collect();
    weights.sort_by(|a, b| natural_cmp(&a.0, &b.0));
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
    let shape_of = |name: &str| expected.iter().find(|(n, _)| n == name).map(|(_, s)| s);
    let shapes: Vec<Option<&Shape>> = (nodes.iter())
        .map(|&i| graph.nodes[i].op.weight().and_then(shape_of))
        .collect();
    let fits = |at: usize, shape: &Shape| shapes[at].is_none_or(|expected| expected == shape);
    if let Some(at) = (0..nodes.len()).find(|&at| !fits(at, &weights[at].1)) {
        weights = match orders(&weights, &|at, _, shape| fits(at, shape)) {
            Fitting::One(weights) => weights,
            Fitting::Several(groups) => {
                return Err(fail(format!(
                    "the shapes of network `{}` fit several orders of the groups {groups}; give the graph as JSON with \
                     the names of the tensors",
                    graph.name
                )));
            }
            Fitting::None => {
                let (weight, shape) = weights[at];
                return Err(fail(format!(
                    "node `{}` of network `{}` expects a weight {}, the file's next one is `{weight}` {shape}",
                    graph.nodes[nodes[at]].name,
                    graph.name,
                    shapes[at].cloned().unwrap_or_default()
                )));
            }
        };
    }
    for (&i, (weight, _)) in nodes.iter().zip(weights) {
        let node = &mut graph.nodes[i];
        let bias = match node.op.bias() {
            None => None,
            Some(_) => {
                let name = bias_name(weight);
                let bias = found
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

/// The orders of the groups of some weights in which every weight fits its place.
enum Fitting<'f> {
    /// None does.
    None,
    /// Just one: the weights in it.
    One(Vec<&'f (String, Shape)>),
    /// Several, or there are too many to try: the names of the groups.
    Several(String),
}

/// Looks for orders of the groups in which every weight fits its place and the shape before it.
///
/// A group are the weights whose names have the same first part, digits at its end apart: `features.0` and `features.3`,
/// `fc1` and `fc2`. Their order within it stays.
fn orders<'f>(
    weights: &[&'f (String, Shape)],
    fits: &impl Fn(usize, Option<&Shape>, &Shape) -> bool,
) -> Fitting<'f> {
    const MOST_GROUPS: usize = 64;
    let key = |name: &'f str| {
        let first = name.split('.').next().unwrap_or_default();
        first.trim_end_matches(|c: char| c.is_ascii_digit())
    };
    let mut groups: Vec<(&str, Vec<&(String, Shape)>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for weight in weights {
        let key = key(&weight.0);
        let place = *places.entry(key).or_insert_with(|| {
            groups.push((key, vec![]));
            groups.len() - 1
        });
        groups[place].1.push(weight);
    }
    // The search is as deep as there are groups.
    if groups.len() > MOST_GROUPS {
        return Fitting::Several(format!("(all {})", groups.len()));
    }
    let mut search = Search {
        groups: &groups,
        fits,
        taken: Vec::new(),
        found: Vec::new(),
        left: 10_000,
    };
    search.extend(0, None);
    match search.found.as_slice() {
        [] if search.left > 0 => Fitting::None,
        [order] if search.left > 0 => {
            let weights = order.iter().flat_map(|&g| groups[g].1.iter().copied());
            Fitting::One(weights.collect())
        }
        _ => {
            let names: Vec<&str> = groups.iter().map(|(k, _)| *k).collect();
            Fitting::Several(format!("`{}`", names.join("`, `")))
        }
    }
}

/// A search for orders of groups in which all shapes fit.
struct Search<'a, F> {
    groups: &'a [(&'a str, Vec<&'a (String, Shape)>)],
    fits: &'a F,
    /// The groups so far.
    taken: Vec<usize>,
    /// Orders that fit, at most two.
    found: Vec<Vec<usize>>,
    /// Weights that may still be looked at.
    left: usize,
}

impl<F: Fn(usize, Option<&Shape>, &Shape) -> bool> Search<'_, F> {
    /// Tries every group that is left at place `at` of the weights, behind the weight of shape `before`.
    fn extend(&mut self, at: usize, before: Option<&Shape>) {
        if self.taken.len() == self.groups.len() {
            self.found.push(self.taken.clone());
            return;
        }
        for g in 0..self.groups.len() {
            if self.left == 0 || self.found.len() > 1 {
                return;
            }
            if self.taken.contains(&g) {
                continue;
            }
            let group = &self.groups[g].1;
            let mut before = before;
            let mut fit = true;
            for (i, (_, shape)) in group.iter().enumerate() {
                self.left = self.left.saturating_sub(1);
                fit = (self.fits)(at + i, before, shape);
                if !fit || self.left == 0 {
                    break;
                }
                before = Some(shape);
            }
            if fit && self.left > 0 {
                self.taken.push(g);
                self.extend(at + group.len(), before);
                self.taken.pop();
            }
        }
    }
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
/// They are in the natural order of their names, or with their groups (`encoder.*`, `decoder.*`) in the only order in which their
/// sizes follow each other.
///
/// # Errors
/// [`ModelError::Unbindable`] where a weight is not 2-D, or the sizes follow each other in no order of the groups or in several.
pub fn mlp_from_tensors(found: &[(String, Shape)]) -> Result<Graph, ModelError> {
    let fail = |reason: String| unbindable(reason, found);
    let mut weights: Vec<_> = found.iter().filter(|(_, s)| s.dims().len() >= 2).collect();
    weights.sort_by(|a, b| natural_cmp(&a.0, &b.0));
    if weights.is_empty() || weights.iter().any(|(_, s)| s.dims().len() != 2) {
        return Err(fail(
            "the weights are not a pure chain of 2-D matrices".into(),
        ));
    }
    let follows = |_: usize, before: Option<&Shape>, shape: &Shape| {
        before.is_none_or(|before| before.dims()[0] == shape.dims()[1])
    };
    let weights = match orders(&weights, &follows) {
        Fitting::One(weights) => weights,
        Fitting::Several(groups) => {
            return Err(fail(format!("several orders of the groups {groups} fit")));
        }
        Fitting::None => {
            let mut pairs = weights.windows(2);
            let broken = pairs.find(|p| !follows(1, Some(&p[0].1), &p[1].1));
            return Err(fail(match broken {
                Some([a, b]) => format!("`{}` {} cannot feed `{}` {}", a.0, a.1, b.0, b.1),
                _ => "the sizes do not follow each other".into(),
            }));
        }
    };
    let first = &weights[0].1;
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
    let names: HashSet<&str> = found.iter().map(|(n, _)| n.as_str()).collect();
    let mut it = weights.iter();
    for node in &mut graph.nodes {
        if node.op.weight().is_some()
            && let Some((w, _)) = it.next()
        {
            let bias = Some(bias_name(w)).filter(|b| names.contains(b.as_str()));
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
    fn groups_bind_in_the_only_order_that_fits() {
        let (graph, expected) = presets::by_name("lenet-5").unwrap();
        let names = ["features.0", "features.3", "classifier.0", "classifier.2"];
        let found: Vec<(String, Shape)> = (expected.iter().enumerate())
            .map(|(i, (name, shape))| {
                let kind = name.rsplit('.').next().unwrap();
                (format!("{}.{kind}", names[i / 2]), shape.clone())
            })
            .collect();
        let mut bound = graph.clone();
        rename_by_order(&mut bound, &expected, &found).unwrap();
        let weights: Vec<_> = (bound.weighted_nodes())
            .filter_map(|n| n.op.weight())
            .collect();
        assert_eq!(weights, names.map(|n| format!("{n}.weight")));

        // Of two groups with the same shapes none is the first.
        let (graph, expected) = presets::mlp("twins", Shape::from([4]), &[4, 4, 2]);
        let found = [
            "b.weight", "b.bias", "c.weight", "c.bias", "a.weight", "a.bias",
        ]
        .map(str::to_owned)
        .into_iter()
        .zip(expected.iter().map(|(_, s)| s.clone()))
        .collect::<Vec<_>>();
        let error = rename_by_order(&mut graph.clone(), &expected, &found).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("several orders of the groups `a`, `b`, `c`"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error_with_the_most_similar_one() {
        let (mut graph, expected) = presets::mlp("net", Shape::from([4]), &[3, 2]);
        assert_eq!(check_names(&graph, &expected), Ok(()));
        graph.nodes[0]
            .op
            .rename_tensors("fc1.wieght".into(), Some("nothing.like.it".into()));
        let error = check_names(&graph, &expected).unwrap_err().to_string();
        assert_eq!(
            error,
            "graph `net`: node `fc1` names the tensor `fc1.wieght`, which the file does not have (the most similar name is \
             `fc1.weight`); node `fc1` names the tensor `nothing.like.it`, which the file does not have; the tensors found \
             are: fc1.weight [3, 4], fc1.bias [3], fc2.weight [2, 3], fc2.bias [2]"
        );
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
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
        let two = |a: [usize; 2], b: [usize; 2]| {
            let found = [
                ("a.weight".to_owned(), a.into()),
                ("b.weight".to_owned(), b.into()),
            ];
            match mlp_from_tensors(&found) {
                Ok(graph) => (graph.weighted_nodes())
                    .filter_map(|n| n.op.weight())
                    .collect::<Vec<_>>()
                    .join(", "),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(two([3, 4], [2, 3]), "a.weight, b.weight");
        assert_eq!(two([2, 3], [3, 4]), "b.weight, a.weight");
        let neither = two([3, 4], [3, 4]);
        assert!(
            neither.contains("`a.weight` [3, 4] cannot feed `b.weight` [3, 4]"),
            "{neither}"
        );
        // An autoencoder: 3 to 4 to 3, or 4 to 3 to 4.
        let either = two([3, 4], [4, 3]);
        assert!(
            either.contains("several orders of the groups `a`, `b` fit"),
            "{either}"
        );
    }
}
