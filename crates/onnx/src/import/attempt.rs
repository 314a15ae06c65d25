//! What an import assumes of a file, and which assumptions are tried.
//!
//! A file is imported in several attempts. The first takes the first dimension of its inputs as the batch, in the
//! layout that they declare. Where an operator needs an input in another layout, as after a Transpose from channels last,
//! the next attempt gives it that layout. Where operators mix samples and all sizes are fixed, another attempt takes the
//! whole input as one sample. Another keeps the shape of a Concat along an axis other than the first, which the others take as a vector. Where
//! none of these will do, values are reshaped and transposed by operators of the network.

use std::collections::{BTreeMap, HashMap, HashSet};

use sparsevd_model::limits::MAX_NODES;
use sparsevd_model::{Input, Network};

use super::importer::{ImportError, Importer};
use super::{inputs, qoperator};
use crate::attributes::OnnxNode;
use crate::node_error::Invalid;
use crate::options::ImportOptions;
use crate::proto::{GraphProto, ModelProto};
use crate::tensor::Decoder;

/// Oldest set of operators that is understood.
const OLDEST_OPSET: i64 = 7;

/// Most runs through the nodes of a file: each gives an input another layout than the declared one, or finds operators that are written as
/// several.
const MOST_RUNS: usize = 8;

/// The network that a file describes.
pub(crate) fn import(
    model: &ModelProto,
    decoder: &Decoder,
    options: &ImportOptions,
) -> Result<Network, ImportError> {
    let graph = (model.graph.as_ref()).ok_or_else(|| Invalid::new("file", "a graph", "none"))?;
    let rewritten = qoperator::as_pairs(graph);
    let graph = rewritten.as_ref().unwrap_or(graph);
    if graph.node.len() > MAX_NODES {
        let expected = format!("at most {MAX_NODES}");
        return Err(
            Invalid::new("nodes of the graph", expected, graph.node.len().to_string()).into(),
        );
    }
    let moves = |attempt| Attempt {
        keeps_axes: true,
        moves: true,
        ..attempt
    };
    if inputs::has_no_batch(graph) && options.shapes.is_empty() {
        return attempts(model, graph, decoder, options, NO_BATCH)
            .or_else(|_| attempts(model, graph, decoder, options, moves(NO_BATCH)));
    }
    if inputs::have_other_batches(graph)
        && options.shapes.is_empty()
        && let Ok(network) = attempts(model, graph, decoder, options, NO_BATCH)
            .or_else(|_| attempts(model, graph, decoder, options, moves(NO_BATCH)))
    {
        return Ok(network);
    }
    if let Some(symbol) = inputs::free_symbol(graph, options)
        && let Some(network) = with_free(model, graph, decoder, options, &symbol)
    {
        return Ok(network);
    }
    let first = attempts(model, graph, decoder, options, BATCH);
    if !matches!(first, Err(ImportError::Unsupported(_))) {
        return first;
    }
    let no_batch = inputs::may_have_no_batch(graph);
    let keeps_axes = Attempt {
        keeps_axes: true,
        ..BATCH
    };
    let has_concat = graph.node.iter().any(|n| n.op_type == "Concat");
    let others = [
        no_batch.then_some(NO_BATCH),
        has_concat.then_some(keeps_axes),
        Some(moves(BATCH)),
        no_batch.then_some(moves(NO_BATCH)),
    ];
    let mut refused = first;
    for other in others.into_iter().flatten() {
        match attempts(model, graph, decoder, options, other) {
            Ok(network) => return Ok(network),
            // The nodes that no attempt with a batch can import.
            Err(error @ ImportError::Unsupported(_)) if other.batch_axes == 1 => {
                refused = Err(error);
            }
            Err(_) => {}
        }
    }
    refused
}

/// What one attempt to import a file assumes about it.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// 1 where the first dimension of every value is the batch, 0 where the file has no batch.
    batch_axes: usize,
    /// Whether a Concat along an axis other than the first keeps its shape.
    keeps_axes: bool,
    /// Whether values get another order or shape by operators of the network where nothing else will do.
    moves: bool,
    /// The size that the free dimension of the inputs gets, where they have one.
    length: Option<usize>,
}

/// The attempt for a file with a batch.
const BATCH: Attempt = Attempt {
    batch_axes: 1,
    keeps_axes: false,
    moves: false,
    length: None,
};

/// The attempt for a file without one.
const NO_BATCH: Attempt = Attempt {
    batch_axes: 0,
    ..BATCH
};

/// Two sizes of the free dimension for which a file is imported.
const PROBES: [usize; 2] = [89, 97];

/// The network with the free dimension of its inputs; `None` where an operator does not take it.
///
/// The file is imported for two sizes. Where the networks differ in the shapes of their inputs alone, no node and no tensor depends on it.
fn with_free(
    model: &ModelProto,
    graph: &GraphProto,
    decoder: &Decoder,
    options: &ImportOptions,
    symbol: &str,
) -> Option<Network> {
    let import = |length| {
        let attempt = Attempt {
            // The order of a value of any length cannot be tracked.
            keeps_axes: true,
            length: Some(length),
            ..BATCH
        };
        attempts(model, graph, decoder, options, attempt).ok()
    };
    let [mut network, other] = [import(PROBES[0])?, import(PROBES[1])?];
    for (input, other) in network.graph.inputs.iter_mut().zip(&other.graph.inputs) {
        if input.shape == other.shape {
            continue;
        }
        let sizes = input.shape.dims().iter().zip(other.shape.dims());
        let is_free = |(a, b): (&usize, &usize)| [*a, *b] == PROBES;
        let dimension = sizes.into_iter().position(is_free)?;
        *input =
            Input::with_free(&input.name, input.shape.clone(), dimension, symbol).of(input.dtype);
    }
    let other = other.graph.at_length(PROBES[1]) == network.graph.at_length(PROBES[1])
        && other.tensors == network.tensors;
    (other && network.graph.free_symbol().is_some() && network.types().is_ok()).then_some(network)
}

/// Imports a file, and again where an input has to have another layout, or an operator was found that the file writes as several.
fn attempts(
    model: &ModelProto,
    graph: &GraphProto,
    decoder: &Decoder,
    options: &ImportOptions,
    attempt: Attempt,
) -> Result<Network, ImportError> {
    let mut layouts = HashMap::new();
    let mut whole = HashMap::new();
    for _ in 0..MOST_RUNS {
        decoder.reset();
        let mut importer = Importer {
            opset: opset(model, graph)?,
            decoder,
            values: HashMap::new(),
            uses: HashMap::new(),
            batch_axes: attempt.batch_axes,
            batch: None,
            layouts: layouts.clone(),
            keeps_axes: attempt.keeps_axes,
            moves: attempt.moves,
            length: attempt.length,
            declared: Vec::new(),
            names: HashSet::new(),
            nodes: Vec::new(),
            tensors: BTreeMap::new(),
            transposed: HashMap::new(),
            types: HashMap::new(),
            steps: HashMap::new(),
            read_by_others: HashSet::new(),
            ranges: HashMap::new(),
            int8: Vec::new(),
            tables: HashMap::new(),
            unsupported: Vec::new(),
            wanted: None,
            producers: producers(graph),
            whole: whole.clone(),
            found: HashMap::new(),
            others: Vec::new(),
        };
        if let Some(network) = importer.network(graph, options)? {
            return Ok(network);
        }
        // What reads an input inside such an operator needs no layout of it.
        match (importer.found, importer.wanted) {
            (found, Some((input, layout))) if found.is_empty() => {
                layouts.insert(input, layout);
            }
            (found, _) => whole.extend(found),
        }
    }
    let expected =
        format!("layouts of inputs and operators of several nodes that {MOST_RUNS} runs settle");
    Err(Invalid::new("file", expected, "more").into())
}

/// The node that makes each value.
fn producers(graph: &GraphProto) -> HashMap<&str, OnnxNode<'_>> {
    let all = (graph.node.iter()).flat_map(|node| {
        node.output
            .iter()
            .map(move |o| (o.as_str(), OnnxNode(node)))
    });
    all.filter(|(output, _)| !output.is_empty()).collect()
}

fn opset(model: &ModelProto, graph: &GraphProto) -> Result<i64, Invalid> {
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let mut versions = model.opset_import.iter().filter(|o| own(&o.domain));
    match versions.next().map(|o| o.version) {
        Some(Some(version)) if version >= OLDEST_OPSET => Ok(version),
        // Operators of other domains are unsupported by name.
        None if !graph.node.iter().any(|n| own(&n.domain)) => Ok(OLDEST_OPSET),
        other => Err(Invalid::new(
            "opset_import",
            format!("a version of ONNX's operators from {OLDEST_OPSET} on"),
            other.flatten().map_or("none".into(), |v| v.to_string()),
        )),
    }
}
