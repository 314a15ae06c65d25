//! Preprocessing and original shapes of a network, as metadata of the file.

use std::collections::BTreeMap;

use sparsevd_model::{Network, Preprocessing, Shape, Weights};

use crate::node_error::Invalid;
use crate::proto::StringStringEntryProto;

/// Key of the preprocessing, as the JSON of `docs/format.md`.
const PREPROCESSING: &str = "sparsevd.preprocessing";

/// Key of the shapes that weights had before dead units were removed: JSON, by tensor name.
const ORIGINAL: &str = "sparsevd.original";

/// The entries of a network's file.
pub(crate) fn entries(
    network: &Network,
    more: &BTreeMap<String, String>,
) -> Vec<StringStringEntryProto> {
    let mut all = more.clone();
    if let Some(preprocessing) = &network.graph.preprocessing {
        all.extend(json(PREPROCESSING, preprocessing));
    }
    if !network.original_shapes.is_empty() {
        all.extend(json(ORIGINAL, &network.original_shapes));
    }
    all.into_iter()
        .map(|(key, value)| StringStringEntryProto { key, value })
        .collect()
}

fn json<T: serde::Serialize>(key: &str, value: &T) -> Option<(String, String)> {
    Some((key.to_owned(), serde_json::to_string(value).ok()?))
}

/// Applies the entries about the network to it, and returns the others.
pub(crate) fn read(
    entries: &[StringStringEntryProto],
    network: &mut Network,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut others = BTreeMap::new();
    for entry in entries {
        let invalid = |expected: &str, got: String| {
            Invalid::new(format!("metadata `{}`", entry.key), expected, got)
        };
        match entry.key.as_str() {
            PREPROCESSING => {
                let p: Preprocessing = serde_json::from_str(&entry.value)
                    .map_err(|e| invalid("a preprocessing as JSON", e.to_string()))?;
                p.check(&network.graph.inputs[0].shape)
                    .map_err(|e| invalid("one that fits the input", e.to_string()))?;
                network.graph.preprocessing = Some(p);
            }
            ORIGINAL => {
                let shapes: BTreeMap<String, Shape> = serde_json::from_str(&entry.value)
                    .map_err(|e| invalid("shapes as JSON", e.to_string()))?;
                for (name, shape) in &shapes {
                    let now = network.tensors.get(name).map(Weights::shape);
                    let now =
                        now.ok_or_else(|| invalid("names of tensors", format!("`{name}`")))?;
                    let holds = now.dims().len() == shape.dims().len()
                        && now.dims().iter().zip(shape.dims()).all(|(n, o)| n <= o)
                        && shape.elements() <= 1 << 32;
                    if !holds {
                        return Err(invalid(
                            &format!("a shape for `{name}` that holds {now}"),
                            shape.to_string(),
                        ));
                    }
                }
                network.original_shapes = shapes;
            }
            _ => {
                others.insert(entry.key.clone(), entry.value.clone());
            }
        }
    }
    Ok(others)
}
