//! Where the graph of a file of tensors comes from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use sparsevd_model::bind::{describe, mlp_from_tensors, rename_by_order};
use sparsevd_model::presets::Preset;
use sparsevd_model::{Graph, ModelError, Network, Shape, Weights, presets};

use super::{MAX_ELEMENTS, metadata_keys};
use crate::FormatError;
use crate::packed::PRESETS;

/// Where to take the graph of a network from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GraphSource {
    /// The file's own metadata, then `network.json` or `config.json` beside it, then a chain of matrices.
    #[default]
    Auto,
    /// A preset name (`lenet-5`) or the path of a graph as JSON. It wins over the metadata.
    Named(String),
}

/// What is known of a file when its graph is looked for.
pub(super) struct Found<'a> {
    /// The file.
    pub path: &'a Path,
    /// The graph in its metadata, or the name of a preset there.
    pub metadata: Option<&'a str>,
    /// Its tensors, CSR weights under their own names.
    pub tensors: &'a [(String, Shape)],
}

/// The graph, its tensor names matched with the file's, and notes for the user.
pub(super) fn find(
    found: &Found<'_>,
    source: &GraphSource,
) -> Result<(Graph, Vec<String>), FormatError> {
    let mut notes = Vec::new();
    let graph = match (source, found.metadata) {
        (GraphSource::Named(name), _) => named(found, name, &mut notes)?,
        (GraphSource::Auto, Some(text)) => match preset(text) {
            Some((graph, _)) => graph,
            None => {
                let what = format!("__metadata__[\"{}\"]", metadata_keys::NETWORK);
                parse(found.path, &what, text)?
            }
        },
        (GraphSource::Auto, None) => match beside(found, &mut notes)? {
            Some(graph) => graph,
            None => chain(found, &mut notes)?,
        },
    };
    Ok((graph, notes))
}

fn named(found: &Found<'_>, name: &str, notes: &mut Vec<String>) -> Result<Graph, FormatError> {
    if let Some((mut graph, expected)) = presets::by_name(name) {
        bind(found, &mut graph, &expected, notes)?;
        return Ok(graph);
    }
    let path = Path::new(name);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(FormatError::invalid(
                found.path,
                "network",
                format!(
                    "the path of a graph as JSON or one of the presets {}",
                    presets::NAMES.join(", ")
                ),
                format!("`{name}`, which is neither"),
            ));
        }
        Err(e) => return Err(FormatError::io(path, "read", e)),
    };
    let mut graph = parse(path, "graph", &text)?;
    bind(found, &mut graph, &[], notes)?;
    Ok(graph)
}

/// `network.json` or `config.json` in the folder of the file.
fn beside(found: &Found<'_>, notes: &mut Vec<String>) -> Result<Option<Graph>, FormatError> {
    for (name, is_ours) in [("network.json", true), ("config.json", false)] {
        let path = found.path.with_file_name(name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) if is_ours => return Err(FormatError::io(&path, "read", e)),
            Err(e) => {
                notes.push(format!("{} was ignored: {e}", path.display()));
                continue;
            }
        };
        // Many models have a config.json of another format; one with nodes and outputs is a graph.
        let looks_like_a_graph = || {
            let value = serde_json::from_str::<Value>(&text).unwrap_or_default();
            value.get("nodes").is_some() && value.get("outputs").is_some()
        };
        if !is_ours && !looks_like_a_graph() {
            notes.push(format!(
                "{} was ignored: it does not hold a graph",
                path.display()
            ));
            continue;
        }
        let mut graph = parse(&path, "graph", &text)?;
        notes.push(format!("the graph was read from {}", path.display()));
        bind(found, &mut graph, &[], notes)?;
        return Ok(Some(graph));
    }
    Ok(None)
}

/// A pure chain of matrices as an MLP. Any tensor that has no place in it is an error: a file with, say, batch
/// normalisation would otherwise be read as something it is not.
fn chain(found: &Found<'_>, notes: &mut Vec<String>) -> Result<Graph, FormatError> {
    let no_graph = |reason: String| {
        let ways = format!(
            "no graph was found (give one as JSON in __metadata__[\"{}\"], as network.json beside the file, as a \
             path, or as one of the presets {}), and it cannot be read as a multi-layer perceptron: {reason}",
            metadata_keys::NETWORK,
            presets::NAMES.join(", ")
        );
        let list = describe(found.tensors.iter().map(|(n, s)| (n.as_str(), s.clone())));
        FormatError::model(
            found.path,
            ModelError::Unbindable {
                reason: ways,
                found: list,
            },
        )
    };
    let graph = mlp_from_tensors(found.tensors).map_err(|e| match e {
        ModelError::Unbindable { reason, .. } => no_graph(reason),
        other => FormatError::model(found.path, other),
    })?;
    let extra: Vec<&str> = unused(&graph, found.tensors);
    if !extra.is_empty() {
        return Err(no_graph(format!(
            "`{}` is neither a matrix nor a bias of one",
            extra.join("`, `")
        )));
    }
    let layers = graph.weighted_nodes().count();
    let names: Vec<&str> = graph
        .weighted_nodes()
        .filter_map(|n| n.op.weight())
        .collect();
    notes.push(format!(
        "no graph was given: read as a multi-layer perceptron of {layers} layer(s), with ReLU between them, in the \
         order {}, over pixels scaled by 1/255",
        names.join(", ")
    ));
    Ok(graph)
}

/// A preset that files may name.
fn preset(name: &str) -> Option<Preset> {
    PRESETS.contains(&name).then(|| presets::by_name(name))?
}

/// The preset that says everything about a network's graph and about the shapes its weights had at first.
pub(super) fn preset_of(network: &Network) -> Option<&'static str> {
    PRESETS.into_iter().find(|name| {
        preset(name).is_some_and(|(graph, shapes)| {
            let holds = |(name, shape): &(String, Shape)| {
                let now = network.tensors.get(name).map(Weights::shape);
                now.is_some_and(|now| now.fits_in(shape))
            };
            graph == network.graph
                && shapes.iter().all(holds)
                && network.original_shapes == preset_shapes(name, network)
        })
    })
}

/// The shapes that weights have in a preset, where a network has others.
pub(super) fn preset_shapes(name: &str, network: &Network) -> BTreeMap<String, Shape> {
    let tensors = preset(name).map_or(Vec::new(), |(_, tensors)| tensors);
    let weights: Vec<&str> = (network.graph.weighted_nodes())
        .filter_map(|n| n.op.weight())
        .collect();
    let differs = |(name, shape): &(String, Shape)| {
        let now = network.tensors.get(name).map(Weights::shape);
        weights.contains(&name.as_str()) && now.is_some_and(|now| now != *shape)
    };
    tensors.into_iter().filter(differs).collect()
}

/// Names of the tensors that no node uses.
pub(super) fn unused<'f>(graph: &Graph, tensors: &'f [(String, Shape)]) -> Vec<&'f str> {
    let used: std::collections::HashSet<&str> =
        (graph.nodes.iter().flat_map(|n| n.op.tensors())).collect();
    tensors
        .iter()
        .map(|(n, _)| n.as_str())
        .filter(|n| !used.contains(n))
        .collect()
}

fn bind(
    found: &Found<'_>,
    graph: &mut Graph,
    expected: &[(String, Shape)],
    notes: &mut Vec<String>,
) -> Result<(), FormatError> {
    let before = graph.clone();
    rename_by_order(graph, expected, found.tensors)
        .map_err(|e| FormatError::model(found.path, e))?;
    if *graph != before {
        let pairs: Vec<String> = graph
            .weighted_nodes()
            .filter_map(|n| Some(format!("{} to {}", n.op.weight()?, n.name)))
            .collect();
        notes.push(format!(
            "the tensors were matched with network `{}` by their order: {}",
            graph.name,
            pairs.join(", ")
        ));
    }
    Ok(())
}

/// A graph from JSON, checked as far as that goes without the tensors.
fn parse(path: &Path, what: &str, json: &str) -> Result<Graph, FormatError> {
    let graph: Graph = serde_json::from_str(json).map_err(|e| {
        FormatError::invalid(
            path,
            what,
            "the JSON of a graph or the name of a preset (docs/format.md)",
            e.to_string(),
        )
    })?;
    if graph.inputs.is_empty() {
        return Err(FormatError::invalid(
            path,
            what,
            "at least one input",
            "none",
        ));
    }
    for input in &graph.inputs {
        let elements = input.shape.elements();
        if elements == 0 || elements > MAX_ELEMENTS {
            return Err(FormatError::invalid(
                path,
                format!("{what}: input `{}`", input.name),
                format!("a shape of 1 to {MAX_ELEMENTS} elements"),
                input.shape.to_string(),
            ));
        }
    }
    graph.check().map_err(|e| FormatError::model(path, e))?;
    Ok(graph)
}
