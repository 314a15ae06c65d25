//! Tensors that are neither weights nor biases of layers: few numbers, stored as they are.

use std::collections::{BTreeMap, HashSet};

use sparsevd_model::ops::MOST_DIMENSIONS;
use sparsevd_model::{Dense, Graph, Network, Shape, Weights};

use super::error::PackedError;
use super::fields::{Field, Fields};
use super::limits::Limits;
use super::range::Coder;

/// A tensor, and the shape that it had in the original network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plain {
    pub dense: Dense,
    pub original: Shape,
}

/// Plain tensors by name.
pub(super) type PlainTensors = BTreeMap<String, Plain>;

/// Names of the plain tensors of a graph, in the order of their first use.
fn names(graph: &Graph) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = graph.nodes.iter().flat_map(|n| n.op.plain_tensors());
    let names = names.map(|(_, name)| name);
    names.filter(|name| seen.insert(name.clone())).collect()
}

/// Codes shapes and numbers; a reader passes no network.
pub(super) fn plain_tensors<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    graph: &Graph,
    have: Option<&Network>,
    limits: &Limits,
) -> Result<PlainTensors, PackedError> {
    let of_layers: HashSet<&str> = (graph.nodes.iter())
        .flat_map(|n| [n.op.weight(), n.op.bias()])
        .flatten()
        .collect();
    let mut tensors = PlainTensors::new();
    let mut total = 0_usize;
    for name in names(graph) {
        if of_layers.contains(name.as_str()) {
            let got = "a weight or bias beside it";
            return Err(PackedError::tensor(&name, "use", "one", got));
        }
        let tensor = have.and_then(|n| n.tensors.get(&name));
        let tensor = tensor.map(Weights::to_dense);
        let before = have.map(|n| n.original_shape(&name));
        let dims = tensor.as_ref().map_or(&[][..], |t| t.shape.dims());
        let rank = fields.number(coder, dims.len(), Field::Dimensions)?;
        if rank > MOST_DIMENSIONS {
            let expected = format!("at most {MOST_DIMENSIONS} dimensions");
            let got = rank.to_string();
            return Err(PackedError::tensor(&name, "shape", expected, got));
        }
        let mut shape = Vec::with_capacity(rank);
        for d in 0..rank {
            let size = dims.get(d).copied().unwrap_or(0);
            shape.push(fields.number(coder, size, Field::Dimension)?);
        }
        let shape = Shape(shape);
        let mut original = shape.clone();
        let differs = before.as_ref().is_some_and(|o| *o != shape);
        if !fields.flag(coder, !differs, Field::SameOriginal) {
            for (d, dim) in original.0.iter_mut().enumerate() {
                let more = before.as_ref().and_then(|o| o.dims().get(d));
                let more = more.map_or(0, |o| o.saturating_sub(*dim));
                *dim = dim.saturating_add(fields.number(coder, more, Field::Dimension)?);
            }
        }
        total = total.saturating_add(shape.elements());
        if total > limits.dense_elements {
            let limit = limits.dense_elements;
            return Err(PackedError::limit(
                "elements of dense tensors",
                limit,
                total,
            ));
        }
        if original.elements() > limits.elements {
            let expected = format!("at most {} elements, the limit", limits.elements);
            let got = original.to_string();
            return Err(PackedError::tensor(&name, "original shape", expected, got));
        }
        let mut values = Vec::new();
        for i in 0..shape.elements() {
            let value = tensor.as_ref().map_or(0.0, |t| t.values[i]);
            values.push(Fields::float(coder, value));
            if coder.exhausted() {
                return Err(PackedError::damaged("tensors"));
            }
        }
        let dense = Dense { shape, values };
        tensors.insert(name, Plain { dense, original });
    }
    Ok(tensors)
}
