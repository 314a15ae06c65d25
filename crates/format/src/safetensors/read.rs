//! Networks from safetensors.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use safetensors::tensor::Dtype;
use serde::de::DeserializeOwned;
use sparsevd_model::quantised::is_scale;
use sparsevd_model::{Csr, Dense, Int8Grids, Int8Input, ModelError, Network, Shape, Weights};

use super::bitmask::{self, BitmaskNames};
use super::gaps::{self, CodeBits};
use super::graph::{Found, GraphSource, find, preset_shapes};
use super::stored::{self, Stored, Tensor};
use super::{
    CROW_INDICES, Container, GAPS, INT4, Layout, MAX_ELEMENTS, PartNames, SCALE, SparseEntry,
    VALUES, int4, metadata_keys,
};
use crate::{FormatError, LoadedNetwork};

/// The network of a safetensors file, or of the shards of one.
pub(crate) fn read_container(
    path: &Path,
    file: &Container<'_>,
    source: &GraphSource,
) -> Result<LoadedNetwork, FormatError> {
    let sparse = sparse_entries(path, file)?;
    let int4 = int4_shapes(path, file)?;
    let masked = bitmask::entries(path, file, &sparse)?;
    let tensors = logical_tensors(path, file, &sparse, &int4, &masked)?;
    let found = find(
        Found {
            path,
            file,
            tensors,
        },
        source,
    )?;
    let (graph, mut notes) = (found.graph, found.notes);
    let used: BTreeSet<&str> = graph.nodes.iter().flat_map(|n| n.op.tensors()).collect();
    let mut dropped = Vec::new();
    let mut weights = BTreeMap::new();
    for Tensor {
        name,
        shape,
        stored,
    } in &found.tensors
    {
        if !used.contains(name.as_str()) {
            dropped.push(name.as_str());
            continue;
        }
        let tensor = match stored {
            Stored::Sparse(weight, layout) => {
                Weights::Csr(sparse_weight(path, file, weight, *layout, shape)?)
            }
            Stored::Levels(name) => {
                let levels = file.integers(name)?.into_iter().map(|q| q as f32);
                Weights::Dense(of_levels(path, file, name, shape, levels)?)
            }
            Stored::Int4(name) => {
                let levels = int4::levels(path, file, name, shape)?;
                let levels = levels.into_iter().map(f32::from);
                Weights::Dense(of_levels(path, file, name, shape, levels)?)
            }
            Stored::Bitmask(names) => bitmask::read(path, file, name, names, shape)?,
            Stored::Dense(name) => Weights::Dense(Dense {
                shape: shape.clone(),
                values: file.floats(name)?,
            }),
            Stored::Masked { original, mask } => {
                Weights::Dense(stored::masked(file, shape, original, mask)?)
            }
            Stored::WeightNorm { g, v } => {
                Weights::Dense(stored::weight_norm(path, file, shape, g, v)?)
            }
        };
        weights.insert(name.clone(), tensor);
    }
    if !dropped.is_empty() {
        notes.push(format!(
            "the graph does not use these tensors, they were dropped: {}",
            dropped.join(", ")
        ));
    }
    for node in &graph.nodes {
        let mut vectors = node.op.tensors().filter(|t| Some(*t) != node.op.weight());
        let is_csr = |name: &str| matches!(weights.get(name), Some(Weights::Csr(_)));
        if let Some(vector) = vectors.find(|t| is_csr(t)) {
            return Err(FormatError::tensor(
                path,
                vector,
                "layout",
                format!("a dense tensor for node `{}`", node.name),
                "csr",
            ));
        }
    }
    let mut network = Network::new(graph, weights).map_err(|e| FormatError::model(path, e))?;
    check_values(path, &network)?;
    network.original_shapes = original_shapes(path, file, &network)?;
    read_scales(path, file, &found.tensors, &mut network)?;
    read_bytes(path, file, &found.tensors, &mut network)?;
    let metadata = file
        .metadata
        .iter()
        .filter(|(key, _)| !metadata_keys::ALL.contains(&key.as_str()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    Ok(LoadedNetwork {
        network,
        notes,
        warnings: found.warnings,
        metadata,
    })
}

/// The tensors under the names of the file: each weight in parts is one, with its dense shape.
fn logical_tensors(
    path: &Path,
    file: &Container<'_>,
    sparse: &BTreeMap<String, SparseEntry>,
    int4: &BTreeMap<String, Shape>,
    masked: &BTreeMap<String, Shape>,
) -> Result<Vec<Tensor>, FormatError> {
    let alone = |name: &str, layout: &str, part: &str, other: Option<&str>| match other {
        None => Ok(()),
        Some(other) => Err(FormatError::tensor(
            path,
            name,
            "layout",
            format!("only the {layout} parts `{part}` and its siblings"),
            format!("{other} of that name too"),
        )),
    };
    let mut parts = BTreeSet::new();
    let (mut tensors, mut scales) = (Vec::new(), BTreeSet::new());
    for (name, shape) in masked {
        if let Some(names) = BitmaskNames::new(name) {
            let other = if file.contains(name) {
                Some("a dense tensor")
            } else {
                sparse
                    .contains_key(name)
                    .then_some("parts of another layout")
            };
            alone(name, "sparse-bitmask", &names.bitmask, other)?;
            parts.extend([
                names.shape.clone(),
                names.compressed.clone(),
                names.bitmask.clone(),
                names.row_offsets.clone(),
            ]);
            tensors.push(Tensor {
                name: name.clone(),
                shape: shape.clone(),
                stored: Stored::Bitmask(names),
            });
        }
    }
    for (name, SparseEntry { layout, shape }) in sparse {
        let names = PartNames::new(name);
        let other = file.contains(name).then_some("a dense tensor");
        alone(name, "sparse", &names.values, other)?;
        parts.extend([names.values, names.scale]);
        match layout {
            Layout::Csr => parts.extend([names.col_indices, names.crow_indices]),
            Layout::RowBitmask => parts.extend([names.bitmask]),
            Layout::Gaps4 | Layout::Gaps8 => parts.extend([names.gaps]),
        }
        tensors.push(Tensor {
            name: name.clone(),
            shape: shape.clone(),
            stored: Stored::Sparse(name.clone(), *layout),
        });
    }
    for (name, shape) in int4 {
        let names = PartNames::new(name);
        let other = if file.contains(name) {
            Some("a dense tensor")
        } else if sparse.contains_key(name) || masked.contains_key(name) {
            Some("parts of another layout")
        } else {
            file.contains(&zero_point(name)).then_some("a zero point")
        };
        alone(name, "int4", &names.int4, other)?;
        parts.extend([names.int4, names.scale]);
        tensors.push(Tensor {
            name: name.clone(),
            shape: shape.clone(),
            stored: Stored::Int4(name.clone()),
        });
    }
    for (name, shape) in file.shapes() {
        if parts.contains(name) {
            continue;
        }
        // Beside what belongs to them: other writers may have tensors of such names.
        for (part, beside, key) in [
            (CROW_INDICES, CROW_INDICES, metadata_keys::SPARSE),
            (GAPS, VALUES, metadata_keys::SPARSE),
            (INT4, SCALE, metadata_keys::INT4),
        ] {
            if let Some(weight) = name.strip_suffix(part)
                && file.contains(&format!("{weight}{beside}"))
            {
                let expected = format!("an entry for `{weight}` in __metadata__[\"{key}\"]");
                let got = match sparse.contains_key(weight) {
                    true => "one of another layout",
                    false => "no entry",
                };
                return Err(FormatError::tensor(path, name, "part", expected, got));
            }
        }
        let stored = match scale_of_levels(file, name)? {
            Some(scale) => {
                scales.insert(scale);
                Stored::Levels(name.to_owned())
            }
            None => Stored::Dense(name.to_owned()),
        };
        tensors.push(Tensor {
            name: name.to_owned(),
            shape,
            stored,
        });
    }
    tensors.retain(|tensor| !scales.contains(&tensor.name));
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// The name that other writers give to the integers of zero.
fn zero_point(name: &str) -> String {
    format!("{name}.zero_point")
}

/// The name of the scales of a dense tensor of integers of 8 bits, two or more; one integer is a counter. `None` for another tensor, and where zero is
/// another number than 0.
fn scale_of_levels(file: &Container<'_>, name: &str) -> Result<Option<String>, FormatError> {
    let scale = PartNames::new(name).scale;
    let is_i8 = file.dtype(name)? == Dtype::I8 && file.shape(name)?.elements() > 1;
    let is_symmetric = !file.contains(&zero_point(name));
    Ok((is_i8 && is_symmetric && file.contains(&scale)).then_some(scale))
}

/// A dense tensor of integers, each times the scale of its row.
fn of_levels(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    shape: &Shape,
    levels: impl Iterator<Item = f32>,
) -> Result<Dense, FormatError> {
    let (rows, cols) = shape.matrix();
    let scales = scale(path, file, &PartNames::new(name).scale, rows)?;
    let mut values: Vec<f32> = levels.collect();
    for (row, values) in values.chunks_mut(cols.max(1)).enumerate() {
        let scale = scales[if scales.len() == 1 { 0 } else { row }];
        values.iter_mut().for_each(|v| *v *= scale);
    }
    Ok(Dense {
        shape: shape.clone(),
        values,
    })
}

/// Row starts and columns of a sparse weight.
fn places(
    path: &Path,
    file: &Container<'_>,
    names: &PartNames,
    layout: Layout,
    shape: &Shape,
) -> Result<[Vec<u32>; 2], FormatError> {
    let (rows, cols) = shape.matrix();
    let values = file.shape(&names.values)?.elements();
    let of_gaps = |bits| {
        let codes = file.bytes(&names.gaps)?;
        gaps::places(path, &names.gaps, codes, bits, [rows, cols], values)
    };
    match layout {
        Layout::Csr => Ok([
            file.indices(&names.crow_indices)?,
            file.indices(&names.col_indices)?,
        ]),
        Layout::RowBitmask => bitmask::row_places(path, file, &names.bitmask, [rows, cols], values),
        Layout::Gaps4 => of_gaps(CodeBits::Four),
        Layout::Gaps8 => of_gaps(CodeBits::Eight),
    }
}

/// One sparse weight from its parts.
fn sparse_weight(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    layout: Layout,
    shape: &Shape,
) -> Result<Csr, FormatError> {
    let names = PartNames::new(name);
    let (rows, _) = shape.matrix();
    let vectors = match layout {
        Layout::Csr => &[&names.values, &names.col_indices, &names.crow_indices][..],
        Layout::RowBitmask => &[&names.values],
        Layout::Gaps4 | Layout::Gaps8 => &[&names.values, &names.gaps],
    };
    for part in vectors {
        let got = file.shape(part)?;
        if got.dims().len() != 1 {
            return Err(FormatError::tensor(
                path,
                part,
                "shape",
                "one dimension",
                got.to_string(),
            ));
        }
    }
    let [crow_indices, col_indices] = places(path, file, &names, layout, shape)?;
    let dtype = file.dtype(&names.values)?;
    let quantised = dtype == Dtype::I8;
    let values = match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => file.floats(&names.values)?,
        Dtype::I8 => (file.integers(&names.values)?.into_iter())
            .map(|q| q as f32)
            .collect(),
        other => return Err(file.wrong_dtype(&names.values, "F32, F16, BF16 or I8", other)),
    };
    if !quantised && file.contains(&names.scale) {
        return Err(FormatError::tensor(
            path,
            &names.scale,
            "scale",
            "one only beside I8 values",
            dtype.to_string(),
        ));
    }
    let broken = |e: ModelError| FormatError::model(path, e.for_tensor(name));
    let csr = Csr::try_new(shape.clone(), crow_indices, col_indices, values).map_err(broken)?;
    if !quantised {
        return Ok(csr);
    }
    let scale = scale(path, file, &names.scale, rows)?;
    let mut scaled = Vec::with_capacity(csr.nonzeros());
    for row in 0..rows {
        let factor = scale[if scale.len() == 1 { 0 } else { row }];
        scaled.extend(csr.row(row).1.iter().map(|q| q * factor));
    }
    let (crow, col) = (csr.crow_indices().to_vec(), csr.col_indices().to_vec());
    Csr::try_new(shape.clone(), crow, col, scaled).map_err(broken)
}

fn scale(
    path: &Path,
    file: &Container<'_>,
    name: &str,
    rows: usize,
) -> Result<Vec<f32>, FormatError> {
    let shape = file.shape(name)?;
    if file.dtype(name)? != Dtype::F32 {
        return Err(file.wrong_dtype(name, "F32", file.dtype(name)?));
    }
    if shape.dims() != [1] && (shape.dims() != [rows] || rows == 0) {
        return Err(FormatError::tensor(
            path,
            name,
            "shape",
            format!("[1] or [{rows}], one per row"),
            shape.to_string(),
        ));
    }
    let scale = file.floats(name)?;
    match scale.iter().position(|s| !s.is_finite()) {
        None => Ok(scale),
        Some(at) => Err(FormatError::tensor(
            path,
            name,
            format!("element {at}"),
            "a finite number",
            scale[at].to_string(),
        )),
    }
}

/// Layouts and dense shapes of the sparse weights.
fn sparse_entries(
    path: &Path,
    file: &Container<'_>,
) -> Result<BTreeMap<String, SparseEntry>, FormatError> {
    let entries = versioned::<SparseEntry>(path, file, metadata_keys::SPARSE)?;
    let what = format!("__metadata__[\"{}\"]", metadata_keys::SPARSE);
    for (name, entry) in &entries {
        check_shape(path, name, &what, &entry.shape)?;
    }
    Ok(entries)
}

/// Shapes of the tables whose integers have four bits.
fn int4_shapes(path: &Path, file: &Container<'_>) -> Result<BTreeMap<String, Shape>, FormatError> {
    let shapes = versioned::<Shape>(path, file, metadata_keys::INT4)?;
    let what = format!("__metadata__[\"{}\"]", metadata_keys::INT4);
    for (name, shape) in &shapes {
        check_shape(path, name, &what, shape)?;
    }
    Ok(shapes)
}

fn original_shapes(
    path: &Path,
    file: &Container<'_>,
    network: &Network,
) -> Result<BTreeMap<String, Shape>, FormatError> {
    let preset = (file.metadata.get(metadata_keys::NETWORK))
        .filter(|_| !file.metadata.contains_key(metadata_keys::ORIGINAL));
    let shapes = match preset {
        Some(name) => preset_shapes(name, network),
        None => versioned::<Shape>(path, file, metadata_keys::ORIGINAL)?,
    };
    for (name, shape) in &shapes {
        check_original(path, name, shape, network)?;
    }
    Ok(shapes)
}

/// Scales of the grids: the scale of I8 values, and what the metadata has of the other tensors.
fn read_scales(
    path: &Path,
    file: &Container<'_>,
    tensors: &[Tensor],
    network: &mut Network,
) -> Result<(), FormatError> {
    let scales = versioned::<f32>(path, file, metadata_keys::STEPS)?;
    for (name, scale) in scales {
        network
            .set_scale(&name, scale)
            .map_err(|e| FormatError::model(path, e))?;
    }
    for Tensor { name, stored, .. } in tensors {
        let Stored::Sparse(weight, _) = stored else {
            continue;
        };
        let names = PartNames::new(weight);
        if !network.tensors.contains_key(name) || file.dtype(&names.values)? != Dtype::I8 {
            continue;
        }
        // Any factor serves values; only one of few bits, for the whole tensor, is the scale of a grid.
        if let [scale] = *file.floats(&names.scale)?
            && is_scale(scale)
        {
            network
                .set_scale(name, scale)
                .map_err(|e| FormatError::model(path, e))?;
        }
    }
    Ok(())
}

/// The layers that may run in int8: how their inputs become bytes, and the scales of I8 values.
fn read_bytes(
    path: &Path,
    file: &Container<'_>,
    tensors: &[Tensor],
    network: &mut Network,
) -> Result<(), FormatError> {
    let inputs = versioned::<Int8Input>(path, file, metadata_keys::INT8)?;
    let weights: HashMap<&str, &str> = (network.graph.weighted_nodes())
        .filter_map(|n| Some((n.name.as_str(), n.op.weight()?)))
        .collect();
    let parts: HashMap<&str, &Tensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
    let mut rows = BTreeMap::new();
    for name in inputs.keys() {
        // A node or weight that cannot run in int8 is refused below.
        let weight = weights.get(name.as_str()).copied();
        let Some((weight, tensor)) = weight.and_then(|w| Some((w, parts.get(w)?))) else {
            continue;
        };
        let Stored::Sparse(stored, _) = &tensor.stored else {
            continue;
        };
        let names = PartNames::new(stored);
        if file.dtype(&names.values)? != Dtype::I8 {
            let got = file.dtype(&names.values)?;
            return Err(file.wrong_dtype(&names.values, "I8 for an int8 layer", got));
        }
        let (of_weight, _) = tensor.shape.matrix();
        let mut scales = scale(path, file, &names.scale, of_weight)?;
        if let [one] = scales[..] {
            scales = vec![one; of_weight];
        }
        rows.insert(weight.to_owned(), scales);
    }
    network.int8 = Int8Grids { inputs, rows };
    let checked = network.check_int8();
    checked.map_err(|e| FormatError::model(path, e))
}

/// Checks that a shape can be what a tensor of the network had before dead units were removed.
pub(super) fn check_original(
    path: &Path,
    name: &str,
    shape: &Shape,
    network: &Network,
) -> Result<(), FormatError> {
    let wrong = |expected: String, got: String| {
        let what = format!(
            "original shape in __metadata__[\"{}\"]",
            metadata_keys::ORIGINAL
        );
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    let Some(now) = network.tensors.get(name).map(Weights::shape) else {
        return wrong(
            "a tensor that the network has".into(),
            "none of that name".into(),
        );
    };
    if !now.fits_in(shape) || shape.elements() > MAX_ELEMENTS {
        return wrong(
            format!(
                "a shape that holds the present one, {now}, of at most {MAX_ELEMENTS} elements"
            ),
            shape.to_string(),
        );
    }
    Ok(())
}

fn check_shape(path: &Path, name: &str, what: &str, shape: &Shape) -> Result<(), FormatError> {
    if shape.dims().len() < 2 || shape.elements() > MAX_ELEMENTS {
        return Err(FormatError::tensor(
            path,
            name,
            format!("shape in {what}"),
            format!("two dimensions or more and at most {MAX_ELEMENTS} elements"),
            shape.to_string(),
        ));
    }
    Ok(())
}

/// Entries of a metadata value of the form `{"v":1, TENSOR: entry, ...}`; empty where the key is absent.
fn versioned<T: DeserializeOwned>(
    path: &Path,
    file: &Container<'_>,
    key: &str,
) -> Result<BTreeMap<String, T>, FormatError> {
    let what = format!("__metadata__[\"{key}\"]");
    let Some(text) = file.metadata.get(key) else {
        return Ok(BTreeMap::new());
    };
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|e| {
            FormatError::invalid(path, &what, "a JSON object of tensors", e.to_string())
        })?;
    match object.remove("v") {
        Some(v) if v == 1 => {}
        v => {
            return Err(FormatError::invalid(
                path,
                format!("{what}: \"v\""),
                "1",
                v.map_or("none".into(), |v| v.to_string()),
            ));
        }
    }
    object
        .into_iter()
        .map(|(name, value)| match serde_json::from_value(value) {
            Ok(entry) => Ok((name, entry)),
            Err(e) => Err(FormatError::tensor(
                path,
                &name,
                format!("entry in {what}"),
                "an entry as in docs/format.md",
                e.to_string(),
            )),
        })
        .collect()
}

/// Bounds the values that flow through the graph: padding alone can make them as large as it says.
fn check_values(path: &Path, network: &Network) -> Result<(), FormatError> {
    let types = network.types().map_err(|e| FormatError::model(path, e))?;
    for node in &network.graph.nodes {
        if let Some(shape) = types.get(node.name.as_str()).map(|t| t.shape(1))
            && shape.elements() > MAX_ELEMENTS
        {
            return Err(FormatError::invalid(
                path,
                format!("node `{}`", node.name),
                format!("a value of at most {MAX_ELEMENTS} elements"),
                shape.to_string(),
            ));
        }
    }
    Ok(())
}
