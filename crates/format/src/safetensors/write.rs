//! Networks to safetensors.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Serialize;
use sparsevd_model::quantised::{self, RowBits};
use sparsevd_model::{Csr, Network, Op, Shape, Weights};

use super::gaps::CodeBits;
use super::graph::preset_of;
use super::parts::{
    CsrProfile, Part, Source, bitmask_parts, csr_parts, gaps_parts, layout, levels_of_rows,
    row_bitmask_parts, table_parts,
};
use super::read::check_original;
use super::{Layout, MAX_ELEMENTS, PartNames, SparseEntry, metadata_keys};
use crate::{FormatError, Staged, write_atomically};

/// Element type that the values of weights are written as.
///
/// Biases are written as F16 beside F16 and I8 values, and as BF16 beside BF16 values, where that changes none of their
/// elements; otherwise as F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum ValueType {
    /// 32 bits: lossless.
    #[default]
    F32,
    /// Half precision.
    ///
    /// Rounded to nearest; a value that would become infinite is an error.
    F16,
    /// bfloat16.
    ///
    /// Rounded to nearest; a value that would become infinite is an error.
    Bf16,
    /// Integers and a scale per tensor: lossless, for a network on grids.
    ///
    /// The integers have 8 bits. Every CSR weight must have a scale and no integer beyond 127; dense weights are written as F32.
    I8,
}

/// How a network is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Element type of the weights' values.
    pub values: ValueType,
    /// How sparse weights are stored.
    pub profile: CsrProfile,
    /// More entries for `__metadata__`; the keys in [`metadata_keys::ALL`] are taken.
    pub metadata: BTreeMap<String, String>,
}

/// Writes a network as safetensors, atomically; returns the number of bytes.
///
/// The same network and options give the same bytes.
///
/// # Errors
/// A network that is not valid, a value that the value type cannot hold, names that collide, or the system refuses.
pub fn write_network(
    path: impl AsRef<Path>,
    network: &Network,
    options: &WriteOptions,
) -> Result<u64, FormatError> {
    let path = path.as_ref();
    let plan = Plan::new(path, network, options)?;
    plan.check_values(path)?;
    write_atomically(path, |out| plan.write(out))
}

impl Staged {
    /// Adds a network, as [`write_network`] writes it.
    ///
    /// # Errors
    /// As [`write_network`].
    pub fn add_network(
        &mut self,
        path: impl AsRef<Path>,
        network: &Network,
        options: &WriteOptions,
    ) -> Result<u64, FormatError> {
        let path = path.as_ref();
        let plan = Plan::new(path, network, options)?;
        plan.check_values(path)?;
        self.add(path, |out| plan.write(out))
    }
}

/// The bytes that [`write_network`] writes.
///
/// # Errors
/// As [`write_network`]; the file is called `(memory)` in them.
pub fn write_network_bytes(
    network: &Network,
    options: &WriteOptions,
) -> Result<Vec<u8>, FormatError> {
    let path = Path::new("(memory)");
    let plan = Plan::new(path, network, options)?;
    plan.check_values(path)?;
    let mut bytes = Vec::with_capacity(plan.len());
    plan.write(&mut bytes)
        .map_err(|e| FormatError::io(path, "write", e))?;
    Ok(bytes)
}

/// Everything of a file but the encoded numbers: the header is whole, so the size is known.
pub(super) struct Plan<'n> {
    header: Vec<u8>,
    tensors: Vec<Part<'n>>,
}

impl<'n> Plan<'n> {
    pub fn new(
        path: &Path,
        network: &'n Network,
        options: &WriteOptions,
    ) -> Result<Self, FormatError> {
        Self::in_layouts(path, network, options, false)
    }

    /// Size of the file of a network with all weights dense, which are not made for it.
    pub fn dense_len(network: &Network) -> Result<usize, FormatError> {
        let options = WriteOptions::default();
        Ok(Plan::in_layouts(Path::new(""), network, &options, true)?.len())
    }

    /// With `dense`, the numbers of CSR weights are left out, and their size is that of dense ones.
    fn in_layouts(
        path: &Path,
        network: &'n Network,
        options: &WriteOptions,
        dense: bool,
    ) -> Result<Self, FormatError> {
        network.types().map_err(|e| FormatError::model(path, e))?;
        for (name, tensor) in &network.tensors {
            tensor
                .check_finite()
                .map_err(|e| FormatError::model(path, e.for_tensor(name)))?;
        }
        for (name, shape) in &network.original_shapes {
            check_original(path, name, shape, network)?;
        }
        network
            .check_int8()
            .map_err(|e| FormatError::model(path, e))?;
        if options.profile == CsrProfile::Bitmask && !network.int8.is_empty() {
            return Err(FormatError::invalid(
                path,
                "profile",
                "another than sparse-bitmask, which has no scales, for a network with int8 layers",
                "bitmask",
            ));
        }
        if options.profile == CsrProfile::Bitmask && options.values == ValueType::I8 {
            return Err(FormatError::invalid(
                path,
                "type of the values",
                "a floating-point one, as sparse-bitmask has no scales",
                "I8",
            ));
        }
        let weights: BTreeSet<&str> = network
            .graph
            .weighted_nodes()
            .filter_map(|n| n.op.weight())
            .collect();
        // Other profiles are for readers that know nothing of scales.
        let with_scales = options.profile == CsrProfile::Compact && !dense;
        let tables: BTreeSet<&str> = (network.graph.nodes.iter())
            .filter(|node| matches!(node.op, Op::Embedding(_)) && with_scales)
            .flat_map(|node| node.op.tensors())
            .collect();
        let values = |name: &str, tensor: &Weights| match (weights.contains(name), options.values) {
            (_, ValueType::F32) | (true, ValueType::I8) => Dtype::F32,
            (true, ValueType::F16) => Dtype::F16,
            (true, ValueType::Bf16) => Dtype::BF16,
            (false, ValueType::F16 | ValueType::I8) => exact_or_f32(tensor, Dtype::F16),
            (false, ValueType::Bf16) => exact_or_f32(tensor, Dtype::BF16),
        };
        let mut scales = BTreeMap::new();
        let mut tensors = Vec::new();
        let mut sparse = BTreeMap::new();
        let mut int4 = BTreeMap::new();
        for (name, tensor) in &network.tensors {
            let scale = network.scales.get(name);
            if let Some(&scale) = scale {
                (network.grid(name, scale)).map_err(|e| FormatError::model(path, e))?;
            }
            if let (Weights::Dense(table), true) = (tensor, tables.contains(name.as_str()))
                && table.values.len() > 1
                && scale.is_none()
                && let Some(levels) = quantised::row_levels(&table.values, table.shape.matrix().1)
            {
                tensors.extend(table_parts(name, &table.shape, &levels));
                if levels.bits == RowBits::Four {
                    int4.insert(name.clone(), table.shape.clone());
                }
                continue;
            }
            let as_levels = options.values == ValueType::I8
                && matches!(tensor, Weights::Csr(_))
                && !network.int8.rows.contains_key(name);
            let dtype = values(name, tensor);
            // What is rounded off the grid has no scale.
            if let Some(scale) = scale
                && !as_levels
                && holds(dtype, tensor)
            {
                scales.insert(name.clone(), f64::from(*scale));
            }
            match tensor {
                Weights::Dense(dense) => tensors.push(Part {
                    name: name.clone(),
                    dtype,
                    shape: dense.shape.dims().to_vec(),
                    source: Source::Floats(&dense.values),
                }),
                Weights::Csr(csr) if dense => tensors.push(Part {
                    name: name.clone(),
                    dtype,
                    shape: csr.shape().dims().to_vec(),
                    source: Source::Floats(&[]),
                }),
                Weights::Csr(csr) => {
                    check_csr(path, name, csr, &weights)?;
                    if options.profile == CsrProfile::Bitmask {
                        tensors.extend(bitmask_parts(path, name, csr, dtype)?);
                        continue;
                    }
                    let layout = layout(csr, options.profile);
                    let entry = SparseEntry {
                        layout,
                        shape: csr.shape().clone(),
                    };
                    sparse.insert(name.clone(), entry);
                    let mut parts = match layout {
                        Layout::Csr => csr_parts(path, name, csr, dtype, options.profile)?.into(),
                        Layout::RowBitmask => row_bitmask_parts(name, csr, dtype),
                        Layout::Gaps4 => gaps_parts(name, csr, dtype, CodeBits::Four),
                        Layout::Gaps8 => gaps_parts(name, csr, dtype, CodeBits::Eight),
                    };
                    if let Some(rows) = network.int8.rows.get(name) {
                        parts[0].dtype = Dtype::I8;
                        parts[0].source = Source::Bytes(levels_of_rows(csr, rows));
                        tensors.push(Part {
                            name: PartNames::new(name).scale,
                            dtype: Dtype::F32,
                            shape: vec![rows.len()],
                            source: Source::Floats(rows),
                        });
                    } else if as_levels {
                        let scale = levels(path, name, csr, scale.copied())?;
                        parts[0].dtype = Dtype::I8;
                        parts[0].source = Source::Levels(csr.values(), scale);
                        tensors.push(Part {
                            name: PartNames::new(name).scale,
                            dtype: Dtype::F32,
                            shape: vec![1],
                            source: Source::Scale(scale),
                        });
                    }
                    tensors.extend(parts);
                }
                _ => {
                    return Err(FormatError::tensor(
                        path,
                        name,
                        "layout",
                        "dense or CSR",
                        "another",
                    ));
                }
            }
        }
        // Larger element types first, then by name: every tensor is then aligned to its own element size.
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let mut names = BTreeSet::from(["__metadata__"]);
        if let Some(twice) = tensors.iter().find(|t| !names.insert(&t.name)) {
            return Err(FormatError::tensor(
                path,
                &twice.name,
                "name",
                "a name of its own in the file",
                "a name that another tensor or the format takes",
            ));
        }
        let metadata = metadata(path, network, options, sparse, int4, scales)?;
        let header = header(path, &tensors, &metadata)?;
        Ok(Self { header, tensors })
    }

    /// Size of the file in bytes.
    pub fn len(&self) -> usize {
        8 + self.header.len() + self.tensors.iter().map(Part::bytes).sum::<usize>()
    }

    /// Checks that every number can be held by the type it is written as.
    fn check_values(&self, path: &Path) -> Result<(), FormatError> {
        self.tensors.iter().try_for_each(|t| t.check_values(path))
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        self.tensors.iter().try_for_each(|t| t.write(out))
    }
}

/// `narrow` where it holds every element as it is, otherwise F32.
fn exact_or_f32(tensor: &Weights, narrow: Dtype) -> Dtype {
    if holds(narrow, tensor) {
        narrow
    } else {
        Dtype::F32
    }
}

/// Whether a floating-point type holds every element of a tensor as it is.
fn holds(dtype: Dtype, tensor: &Weights) -> bool {
    let values = match tensor {
        Weights::Dense(dense) => dense.values.as_slice(),
        Weights::Csr(csr) => csr.values(),
        _ => return false,
    };
    match dtype {
        Dtype::F16 => values.iter().all(|v| f16::from_f32(*v).to_f32() == *v),
        Dtype::BF16 => values.iter().all(|v| bf16::from_f32(*v).to_f32() == *v),
        _ => true,
    }
}

/// What a reader checks of a CSR tensor before it looks at the numbers.
fn check_csr(
    path: &Path,
    name: &str,
    csr: &Csr,
    weights: &BTreeSet<&str>,
) -> Result<(), FormatError> {
    let wrong = |what: &str, expected: &str, got: String| {
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    if !weights.contains(name) {
        return wrong("layout", "dense, as it is no node's weight", "csr".into());
    }
    if csr.shape().elements() > MAX_ELEMENTS {
        let expected = format!("at most {MAX_ELEMENTS} elements");
        return wrong("shape", &expected, csr.shape().to_string());
    }
    Ok(())
}

/// The scale of a CSR weight whose integers fit in 8 bits.
fn levels(path: &Path, name: &str, csr: &Csr, scale: Option<f32>) -> Result<f32, FormatError> {
    let wrong = |what: String, expected: &str, got: String| {
        Err(FormatError::tensor(path, name, what, expected, got))
    };
    let Some(scale) = scale else {
        let expected = "a scale, as I8 values are those of a grid";
        return wrong("grid".into(), expected, "none".into());
    };
    let fits = |v: &f32| (v / scale).round().abs() <= 127.0;
    match csr.values().iter().position(|v| !fits(v)) {
        None => Ok(scale),
        Some(at) => wrong(
            format!("element {at}"),
            "an integer of at most 127 times the scale",
            format!("{}", (csr.values()[at] / scale).round()),
        ),
    }
}

/// `{"v":1, TENSOR: entry, ...}`, the form of metadata about tensors.
#[derive(Serialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    entries: BTreeMap<String, T>,
}

impl<T: Serialize> Versioned<T> {
    fn json(path: &Path, entries: BTreeMap<String, T>) -> Result<String, FormatError> {
        if entries.contains_key("v") {
            let expected = "another name: `v` is the version in the metadata";
            return Err(FormatError::tensor(path, "v", "name", expected, "v"));
        }
        to_json(path, &Self { v: 1, entries })
    }
}

fn metadata(
    path: &Path,
    network: &Network,
    options: &WriteOptions,
    sparse: BTreeMap<String, SparseEntry>,
    int4: BTreeMap<String, Shape>,
    scales: BTreeMap<String, f64>,
) -> Result<BTreeMap<String, String>, FormatError> {
    let mut metadata = options.metadata.clone();
    if let Some(taken) = metadata_keys::ALL
        .iter()
        .find(|key| metadata.contains_key(**key))
    {
        return Err(FormatError::invalid(
            path,
            "metadata to write",
            "keys that the format does not take",
            format!("`{taken}`"),
        ));
    }
    metadata.insert(metadata_keys::FORMAT.into(), "pt".into());
    let preset = match options.profile {
        CsrProfile::Compact => preset_of(network),
        CsrProfile::Interop | CsrProfile::Bitmask => None,
    };
    let graph = match preset {
        Some(name) => name.to_owned(),
        None => to_json(path, &network.graph)?,
    };
    metadata.insert(metadata_keys::NETWORK.into(), graph);
    if !sparse.is_empty() {
        metadata.insert(metadata_keys::SPARSE.into(), Versioned::json(path, sparse)?);
    }
    if !int4.is_empty() {
        metadata.insert(metadata_keys::INT4.into(), Versioned::json(path, int4)?);
    }
    if !scales.is_empty() {
        metadata.insert(metadata_keys::STEPS.into(), Versioned::json(path, scales)?);
    }
    if !network.int8.is_empty() {
        let grids = network.int8.inputs.clone();
        metadata.insert(metadata_keys::INT8.into(), Versioned::json(path, grids)?);
    }
    if preset.is_none() && !network.original_shapes.is_empty() {
        let original = network.original_shapes.iter();
        let original = original.map(|(n, s)| (n.clone(), s)).collect();
        metadata.insert(
            metadata_keys::ORIGINAL.into(),
            Versioned::json(path, original)?,
        );
    }
    Ok(metadata)
}

/// The header, padded with spaces so that the data begins at a multiple of 64 bytes.
fn header(
    path: &Path,
    tensors: &[Part<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, FormatError> {
    let mut offset = 0;
    let infos = tensors.iter().map(|t| {
        let start = offset;
        offset += t.bytes();
        let info = TensorInfo {
            dtype: t.dtype,
            shape: t.shape.clone(),
            data_offsets: (start, offset),
        };
        (t.name.clone(), info)
    });
    let tensors = Metadata::new(None, infos.collect()).map_err(|e| {
        FormatError::invalid(
            path,
            "network",
            "tensors that safetensors can hold",
            e.to_string(),
        )
    })?;
    // The crate keeps `__metadata__` in a map without order; it is put in front here, sorted, for the same bytes
    // every time.
    let tensors = to_json(path, &tensors)?;
    let tensors = tensors.strip_prefix('{').unwrap_or(&tensors);
    let comma = if tensors == "}" { "" } else { "," };
    let metadata = to_json(path, metadata)?;
    let mut header = format!("{{\"__metadata__\":{metadata}{comma}{tensors}").into_bytes();
    header.resize((8 + header.len()).next_multiple_of(64) - 8, b' ');
    Ok(header)
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<String, FormatError> {
    serde_json::to_string(value).map_err(|e| FormatError::io(path, "write", e.into()))
}
