//! Where the graph of a file of tensors comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::Value;
use sparsevd_model::bind::{check_names, describe, mlp_from_tensors, rename_by_order};
use sparsevd_model::presets::Preset;
use sparsevd_model::{Graph, ModelError, Network, Shape, Weights, presets};

use super::shards::shard;
use super::stored::{Plain, Tensor, shapes};
use super::{Container, MAX_ELEMENTS, metadata_keys};
use crate::presets::PRESETS;
use crate::{FileType, FormatError, MAX_JSON, read_file, read_text};

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
    /// Its content.
    pub file: &'a Container<'a>,
    /// Its tensors, weights in parts under their own names.
    pub tensors: Vec<Tensor>,
}

/// A graph and the tensors that it names.
pub(super) struct Bound {
    pub graph: Graph,
    /// The tensors of the file, under the names that the graph has.
    pub tensors: Vec<Tensor>,
    /// As [`crate::LoadedNetwork::notes`].
    pub notes: Vec<String>,
    /// As [`crate::LoadedNetwork::warnings`].
    pub warnings: Vec<String>,
}

/// The graph, its tensor names matched with the file's, and sentences for the user.
pub(super) fn find(found: Found<'_>, source: &GraphSource) -> Result<Bound, FormatError> {
    if let GraphSource::Named(name) = source {
        return match presets::by_name(name) {
            Some(preset) => by_order(found, preset),
            None => {
                let graph = read_graph(found.path, name)?;
                by_name(found, graph, vec![])
            }
        };
    }
    if let Some(text) = found.file.metadata.get(metadata_keys::NETWORK) {
        let graph = match preset(text) {
            Some((graph, _)) => graph,
            None => {
                let what = format!("__metadata__[\"{}\"]", metadata_keys::NETWORK);
                parse(found.path, &what, text, Fields::Known)?
            }
        };
        return Ok(found.with_names(graph));
    }
    let mut notes = Vec::new();
    match beside(&found, &mut notes)? {
        Some(graph) => by_name(found, graph, notes),
        None => chain(&found, notes),
    }
}

impl Found<'_> {
    /// A graph that names the tensors of the file.
    fn with_names(self, graph: Graph) -> Bound {
        Bound {
            graph,
            tensors: self.tensors,
            notes: vec![],
            warnings: vec![],
        }
    }

    /// The tensors under the names of a plain module.
    fn plain(&self) -> Result<Plain, FormatError> {
        Plain::of(self.path, self.file, &self.tensors)
    }

    fn fails(&self, error: ModelError) -> FormatError {
        FormatError::model(self.path, error)
    }
}

/// A graph as the JSON of a file that the user names.
fn read_graph(network: &Path, name: &str) -> Result<Graph, FormatError> {
    let path = Path::new(name);
    let text = match read_file(path, MAX_JSON) {
        Ok(text) => text,
        Err(FormatError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
            return Err(FormatError::invalid(
                network,
                "network",
                format!(
                    "the path of a graph as JSON or one of the presets {}",
                    presets::names()
                ),
                format!("`{name}`, which is neither{}", presets::hint(name)),
            ));
        }
        Err(e) => return Err(e),
    };
    match String::from_utf8(text) {
        Ok(text) => parse(path, "graph", &text, Fields::Known),
        Err(e) => Err(FormatError::invalid(
            path,
            "graph",
            "the JSON of a graph (docs/format.md)",
            FileType::of(e.as_bytes()).description(),
        )),
    }
}

/// The graph with the tensors that it names, each of which must be in the file.
fn by_name(found: Found<'_>, graph: Graph, notes: Vec<String>) -> Result<Bound, FormatError> {
    if check_names(&graph, &shapes(&found.tensors)).is_ok() {
        return Ok(Bound {
            notes,
            ..found.with_names(graph)
        });
    }
    let plain = found.plain()?;
    check_names(&graph, &shapes(&plain.tensors)).map_err(|e| found.fails(e))?;
    Ok(Bound {
        graph,
        tensors: plain.tensors,
        notes,
        warnings: plain.notes,
    })
}

/// A preset, its tensors matched by their names where the file has them all, otherwise by their order and shapes.
fn by_order(found: Found<'_>, (mut graph, expected): Preset) -> Result<Bound, FormatError> {
    if check_names(&graph, &shapes(&found.tensors)).is_ok() {
        return Ok(found.with_names(graph));
    }
    let plain = found.plain()?;
    let mut warnings = plain.notes;
    let named = graph.clone();
    rename_by_order(&mut graph, &expected, &shapes(&plain.tensors)).map_err(|e| found.fails(e))?;
    if graph != named {
        let pairs: Vec<String> = graph
            .weighted_nodes()
            .filter_map(|n| Some(format!("{} to {}", n.op.weight()?, n.name)))
            .collect();
        warnings.push(format!(
            "the tensors were matched with network `{}` by their order and shapes: {}",
            graph.name,
            pairs.join(", ")
        ));
    }
    Ok(Bound {
        graph,
        tensors: plain.tensors,
        notes: vec![],
        warnings,
    })
}

/// `network.json` or `config.json` in the folder of the file.
fn beside(found: &Found<'_>, notes: &mut Vec<String>) -> Result<Option<Graph>, FormatError> {
    for (name, is_ours) in [("network.json", true), ("config.json", false)] {
        let path = found.path.with_file_name(name);
        let text = match read_text(&path, MAX_JSON) {
            Ok(text) => text,
            Err(FormatError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => continue,
            Err(e) if is_ours => return Err(e),
            Err(e) => {
                notes.push(format!("a file was ignored: {e}"));
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
        let fields = if is_ours { Fields::Known } else { Fields::Any };
        let graph = parse(&path, "graph", &text, fields)?;
        notes.push(format!("the graph was read from {}", path.display()));
        return Ok(Some(graph));
    }
    Ok(None)
}

/// A pure chain of matrices as an MLP. Any tensor that has no place in it is an error: a file with, say, batch
/// normalisation would otherwise be read as something it is not.
fn chain(found: &Found<'_>, notes: Vec<String>) -> Result<Bound, FormatError> {
    let Plain {
        tensors,
        notes: mut warnings,
    } = found.plain()?;
    let pairs = shapes(&tensors);
    let no_graph = |reason: String| {
        let ways = format!(
            "no graph was found (give one as JSON in __metadata__[\"{}\"], as network.json beside the file, as a \
             path, or as one of the presets {}), and it cannot be read as a multi-layer perceptron: {reason}",
            metadata_keys::NETWORK,
            presets::names()
        );
        found.fails(ModelError::Unbindable {
            reason: ways,
            found: describe(pairs.iter().map(|(n, s)| (n.as_str(), s.clone()))),
        })
    };
    let name = found.path.file_name().unwrap_or_default().to_string_lossy();
    if let Some((stem, number, count @ 2..)) = shard(&name) {
        return Err(no_graph(format!(
            "it is shard {number} of the {count} of `{stem}`: name their index, or their folder"
        )));
    }
    let graph = mlp_from_tensors(&pairs).map_err(|e| match e {
        ModelError::Unbindable { reason, .. } => no_graph(reason),
        other => found.fails(other),
    })?;
    let used: BTreeSet<&str> = graph.nodes.iter().flat_map(|n| n.op.tensors()).collect();
    let extra: Vec<&str> = (tensors.iter().map(|t| t.name.as_str()))
        .filter(|name| !used.contains(name))
        .collect();
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
    warnings.push(format!(
        "no graph was given: read as a multi-layer perceptron of {layers} layer(s), with ReLU between them, in the \
         order {}, over pixels scaled by 1/255",
        names.join(", ")
    ));
    Ok(Bound {
        graph,
        tensors,
        notes,
        warnings,
    })
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

/// Fields that the JSON of a graph may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fields {
    /// Those of a graph, and `tensors`, the shapes that `compress train` takes.
    Known,
    /// Any others too: the file is not only ours.
    Any,
}

/// A graph from JSON, checked as far as that goes without the tensors.
fn parse(path: &Path, what: &str, json: &str, fields: Fields) -> Result<Graph, FormatError> {
    const KNOWN: [&str; 6] = [
        "name",
        "inputs",
        "nodes",
        "outputs",
        "preprocessing",
        "tensors",
    ];
    let wrong = |e: serde_json::Error| {
        FormatError::invalid(
            path,
            what,
            "the JSON of a graph or the name of a preset (docs/format.md)",
            e.to_string(),
        )
    };
    let graph: Graph = serde_json::from_str(json).map_err(wrong)?;
    let all: BTreeMap<String, IgnoredAny> = serde_json::from_str(json).map_err(wrong)?;
    let unknown = all.keys().find(|k| !KNOWN.contains(&k.as_str()));
    if let (Fields::Known, Some(unknown)) = (fields, unknown) {
        return Err(FormatError::invalid(
            path,
            what,
            format!("the fields {}", KNOWN.join(", ")),
            format!("`{unknown}`"),
        ));
    }
    if graph.inputs.is_empty() {
        return Err(FormatError::invalid(
            path,
            what,
            "at least one input",
            "none",
        ));
    }
    for input in &graph.inputs {
        // A free dimension is 0.
        let elements = input.tensor_type().shape(1).elements();
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
