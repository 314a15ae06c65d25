//! Networks that are trained from scratch: a graph and the shapes of its tensors.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use sparsevd_format::{MAX_JSON, read_text};
use sparsevd_model::{Graph, Shape, presets, shape};

use crate::error::CompressError;

/// Most elements of one tensor.
const MOST_ELEMENTS: usize = 1 << 32;

/// A graph with the shapes of its tensors, in the order of the nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The graph.
    pub graph: Graph,
    /// Names and shapes of weights and biases.
    pub tensors: Vec<(String, Shape)>,
}

/// The graph's JSON with the shapes beside it.
#[derive(Deserialize)]
struct File {
    #[serde(flatten)]
    graph: Graph,
    #[serde(default)]
    tensors: BTreeMap<String, Shape>,
}

/// A preset for an input of channels, height and width.
///
/// # Errors
/// A name that is no preset for other inputs, or an input that the preset cannot take.
pub fn for_input(name: &str, input: &[usize]) -> Result<Architecture, CompressError> {
    let preset = match *input {
        [c, h, w] => presets::for_input(name, [c, h, w]),
        _ => None,
    };
    let (graph, tensors) = preset.ok_or_else(|| {
        let expected = format!(
            "channels, height and width that a convolutional preset fits, as 1,28,28 does resnet-20, for `{name}`"
        );
        let got: Vec<String> = input.iter().map(usize::to_string).collect();
        CompressError::setting("input", expected, got.join(","))
    })?;
    Ok(Architecture { graph, tensors })
}

/// Widths of the hidden layers of `mlp`.
const MLP: [usize; 2] = [100, 100];

/// Whether a name is that of [`mlp`], `mlp` alone or with widths.
pub fn is_mlp(name: &str) -> bool {
    name == "mlp" || name.starts_with("mlp-")
}

/// A multi-layer perceptron for inputs and outputs of those sizes, where `name` is one: `mlp`, or `mlp-300-100` with the widths of
/// its hidden layers; `None` for another name.
///
/// # Errors
/// Widths that are no numbers from 1 to 65,536, or more than 16 of them.
pub fn mlp(
    name: &str,
    input: &Shape,
    outputs: usize,
) -> Option<Result<Architecture, CompressError>> {
    let named = name.strip_prefix("mlp")?;
    let width = |w: &str| w.parse().ok().filter(|w| (1..=1 << 16).contains(w));
    let widths: Option<Vec<usize>> = match named {
        "" => Some(MLP.to_vec()),
        _ => named.strip_prefix('-')?.split('-').map(width).collect(),
    };
    Some(match widths {
        Some(mut widths) if widths.len() <= 16 => {
            widths.push(outputs);
            let (graph, tensors) = presets::mlp(name, input.clone(), &widths);
            Ok(Architecture { graph, tensors })
        }
        _ => {
            let expected =
                "mlp, or mlp-300-100 with the widths of its hidden layers, 1 to 65536 each";
            Err(CompressError::setting("network", expected, name))
        }
    })
}

/// A preset by its name, or the graph of a JSON file that has `tensors`, a map of names to shapes, beside its nodes.
///
/// # Errors
/// A name that is neither, a file that is no graph, shapes that are missing or do not fit.
pub fn by_name_or_file(name: &str) -> Result<Architecture, CompressError> {
    if let Some((graph, tensors)) = presets::by_name(name) {
        return Ok(Architecture { graph, tensors });
    }
    let path = Path::new(name);
    let fail = |what: String| CompressError::Report {
        path: path.into(),
        what,
    };
    let text = read_text(path, MAX_JSON).map_err(|e| {
        let presets = presets::names();
        fail(format!(
            "expected one of the presets {presets}, mlp or mlp-300-100 with the widths of its hidden layers and the other sizes of the data, or a graph as JSON: {}{}",
            e.without_path(),
            presets::hint(name)
        ))
    })?;
    let File { graph, tensors } = serde_json::from_str(&text)
        .map_err(|e| fail(format!("expected a graph as JSON, with `tensors`: {e}")))?;
    graph.check()?;
    let mut shapes: Vec<(String, Shape)> = vec![];
    for name in graph.nodes.iter().flat_map(|n| n.op.tensors()) {
        let Some(shape) = tensors.get(name) else {
            return Err(fail(format!(
                "expected the shape of tensor `{name}` in `tensors`, got {} others",
                tensors.len()
            )));
        };
        if shape.elements() == 0 || shape.elements() > MOST_ELEMENTS {
            return Err(fail(format!(
                "tensor `{name}`: expected 1 to {MOST_ELEMENTS} elements, got shape {shape}"
            )));
        }
        if !shapes.iter().any(|(n, _)| n == name) {
            shapes.push((name.to_owned(), shape.clone()));
        }
    }
    // Before anything is allocated for them.
    shape::infer(&graph, &|_, name| {
        Ok(tensors.get(name).cloned().unwrap_or_default())
    })?;
    Ok(Architecture {
        graph,
        tensors: shapes,
    })
}
