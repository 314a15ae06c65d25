//! The packed form `*.spvd`: a whole network, graph and quantised weights, entropy-coded.
//!
//! The format is documented in `docs/format.md`. Weights must be on grids ([`Network::scales`]); they come back
//! exactly. Everything that decides what a bit means is integer arithmetic, so every platform reads the same numbers.

mod adaptive;
mod checked;
mod chunks;
mod crc;
mod error;
mod factors;
mod fields;
mod graph;
mod large;
mod logistic;
mod matrix;
mod neighbours;
mod order;
mod range;
mod rans;
mod skeleton;
mod small;

use std::collections::BTreeMap;
use std::path::Path;

use sparsevd_model::quantised::is_scale;
use sparsevd_model::{Csr, DType, Dense, Graph, ModelError, Network, Op, Weights};

use crate::{FormatError, LoadedNetwork, write_atomically};
use error::PackedError;
pub(crate) use graph::PRESETS;
use matrix::Levels;
use skeleton::Tensor;

/// First bytes of a packed file.
pub(crate) const MAGIC: &[u8; 4] = b"SPVD";

/// Version of the format that is written, and the newest that is read.
const VERSION: u8 = 1;

/// How a network is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PackProfile {
    /// Context mixing over one stream: the smallest, for networks of up to about a million weights.
    #[default]
    Small,
    /// Static rates in independent chunks that are read in parallel: for networks of millions of weights.
    Large,
}

/// Most elements, zeros included, of a network that is packed small where nothing else is asked for: it is read in a
/// tenth of a second.
const SMALL_ELEMENTS: usize = 1 << 21;

impl PackProfile {
    /// The profile that suits a network by its size: small up to 2^21 elements of its weights, zeros included.
    pub fn for_size_of(network: &Network) -> Self {
        let elements =
            (network.tensors.values()).fold(0_usize, |n, t| n.saturating_add(t.shape().elements()));
        if elements <= SMALL_ELEMENTS {
            Self::Small
        } else {
            Self::Large
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Small => 1,
            Self::Large => 2,
        }
    }
}

/// Options of [`pack`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackOptions {
    /// How.
    pub profile: PackProfile,
    /// Keep the order of hidden units. By default they are sorted where that changes nothing but the order of sums,
    /// which saves 2 to 4 % of a small file. The large profile always keeps it.
    pub keep_unit_order: bool,
}

impl PackOptions {
    /// The profile that suits a network ([`PackProfile::for_size_of`]), hidden units sorted where it does that.
    pub fn for_size_of(network: &Network) -> Self {
        match PackProfile::for_size_of(network) {
            PackProfile::Small => Self::small(),
            PackProfile::Large => Self::large(),
        }
    }

    /// The small profile.
    pub const fn small() -> Self {
        Self {
            profile: PackProfile::Small,
            keep_unit_order: false,
        }
    }

    /// The large profile.
    pub const fn large() -> Self {
        Self {
            profile: PackProfile::Large,
            keep_unit_order: true,
        }
    }
}

/// What a file may make a reader allocate and compute; more is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of the graph, its inputs and its outputs, each.
    pub nodes: usize,
    /// Elements of the dense shape of a tensor or of a value that flows through the graph.
    pub elements: usize,
    /// Elements of all tensors that are stored dense.
    pub dense_elements: usize,
    /// Non-zeros of all tensors.
    pub nonzeros: usize,
    /// Elements, zeros included, of all weights of a file of the small profile: each takes some 50 ns.
    pub small_cells: usize,
}

impl Limits {
    /// No limits: a writer may pack any network.
    fn for_writing() -> Self {
        Self {
            nodes: usize::MAX,
            elements: usize::MAX,
            dense_elements: usize::MAX,
            nonzeros: usize::MAX,
            small_cells: usize::MAX,
        }
    }
}

impl Default for Limits {
    /// Enough for networks of some 2^28 weights stored; a hostile file takes seconds and a gigabyte at most.
    fn default() -> Self {
        Self {
            nodes: 1 << 14,
            elements: 1 << 32,
            dense_elements: 1 << 28,
            nonzeros: 1 << 27,
            small_cells: 1 << 24,
        }
    }
}

/// Where the bits of a packed file go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PackedBreakdown {
    /// Magic, version, checksum, graph, names, shapes and scales, and what is left of the last byte.
    pub header: u64,
    /// How many non-zeros each unit has.
    pub liveness: u64,
    /// Where they are.
    pub positions: u64,
    /// Signs and magnitudes.
    pub values: u64,
    /// Biases.
    pub biases: u64,
}

/// The integers of a network, in the order of its tensors.
#[derive(Debug, Clone, PartialEq)]
enum Integers {
    Weight(Levels),
    Bias(Vec<i32>),
}

/// Writes a network as a packed file, atomically; returns the number of bytes.
///
/// # Errors
/// As [`pack`], and what the system refuses.
pub fn write_packed(
    path: impl AsRef<Path>,
    network: &Network,
    options: &PackOptions,
) -> Result<u64, FormatError> {
    let path = path.as_ref();
    let bytes = pack_inner(network, options).map_err(|e| e.at(path))?;
    write_atomically(path, |out| out.write_all(&bytes))
}

/// The bytes of a network as a packed file. The same network and options give the same bytes.
///
/// # Errors
/// A network that is not valid, a tensor without a scale or off its grid, a tensor that no node uses. The file is
/// called `(memory)` in them.
pub fn pack(network: &Network, options: &PackOptions) -> Result<Vec<u8>, FormatError> {
    pack_inner(network, options).map_err(|e| e.at(Path::new("(memory)")))
}

/// Reads a packed file within the default [`Limits`].
///
/// # Errors
/// As [`unpack`], and what the system refuses.
pub fn read_packed(path: impl AsRef<Path>) -> Result<LoadedNetwork, FormatError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|e| FormatError::io(path, "read", e))?;
    unpack_named(path, &bytes, &Limits::default())
}

/// Reads a network from the bytes of a packed file.
///
/// # Errors
/// Anything that is not as `docs/format.md` has it, or more than the limits allow.
pub fn unpack(bytes: &[u8], limits: &Limits) -> Result<LoadedNetwork, FormatError> {
    unpack_named(Path::new("(memory)"), bytes, limits)
}

pub(crate) fn unpack_named(
    path: &Path,
    bytes: &[u8],
    limits: &Limits,
) -> Result<LoadedNetwork, FormatError> {
    let network = match content(bytes).map_err(|e| e.at(path))? {
        Content::Small(rest) => small::decode(rest, limits),
        Content::Large(rest) => large::decode(rest, limits),
    }
    .map_err(|e| e.at(path))?;
    Ok(LoadedNetwork {
        network,
        notes: Vec::new(),
        warnings: Vec::new(),
        metadata: BTreeMap::new(),
    })
}

/// Where the bits of a packed file go, by decoding it within the default [`Limits`].
///
/// # Errors
/// As [`unpack`].
pub fn packed_breakdown(bytes: &[u8]) -> Result<PackedBreakdown, FormatError> {
    let limits = Limits::default();
    let breakdown = || match content(bytes)? {
        Content::Small(rest) => small::breakdown(rest, &limits),
        Content::Large(rest) => large::breakdown(rest, &limits),
    };
    let mut spent = breakdown().map_err(|e: PackedError| e.at(Path::new("(memory)")))?;
    let known = spent.liveness + spent.positions + spent.values + spent.biases;
    spent.header = (8 * bytes.len() as u64).saturating_sub(known);
    Ok(spent)
}

fn pack_inner(network: &Network, options: &PackOptions) -> Result<Vec<u8>, PackedError> {
    check(network)?;
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION << 4 | options.profile.code());
    match options.profile {
        PackProfile::Small if options.keep_unit_order => small::encode(network, &mut bytes)?,
        PackProfile::Small => small::encode(&order::sort_units(network)?, &mut bytes)?,
        PackProfile::Large => large::encode(network, &mut bytes)?,
    }
    Ok(bytes)
}

/// What follows the magic, by profile.
enum Content<'a> {
    Small(&'a [u8]),
    Large(&'a [u8]),
}

fn content(bytes: &[u8]) -> Result<Content<'_>, PackedError> {
    let Some((&[m0, m1, m2, m3, kind], rest)) = bytes.split_first_chunk::<5>() else {
        return Err(PackedError::part(
            "packed file",
            "at least 5 bytes",
            bytes.len().to_string(),
        ));
    };
    let magic = [m0, m1, m2, m3];
    if magic != *MAGIC {
        return Err(PackedError::part(
            "magic",
            format!("{MAGIC:?}"),
            format!("{magic:?}"),
        ));
    }
    if kind >> 4 != VERSION {
        return Err(PackedError::part(
            "version of the packed format",
            format!("{VERSION}, the newest that this program reads"),
            (kind >> 4).to_string(),
        ));
    }
    match kind & 15 {
        1 => Ok(Content::Small(rest)),
        2 => Ok(Content::Large(rest)),
        other => Err(PackedError::part("profile", "1 or 2", other.to_string())),
    }
}

/// Checks what a packed file can say.
fn check(network: &Network) -> Result<(), PackedError> {
    let shapes = network.shapes()?;
    let graph = &network.graph;
    if let Some(input) = graph.inputs.iter().find(|i| i.dtype != DType::F32) {
        return Err(PackedError::part(
            format!("input `{}`", input.name),
            "f32",
            input.tensor_type().to_string(),
        ));
    }
    for node in &graph.nodes {
        let shape = node.inputs.first().and_then(|i| shapes.get(i.as_str()));
        if let (Op::Linear(_), Some(shape)) = (&node.op, shape)
            && shape.dims().len() != 1
        {
            return Err(PackedError::part(
                format!("node `{}`", node.name),
                "one vector of a sample",
                shape.to_string(),
            ));
        }
    }
    if let Some(node) = graph.nodes.iter().find(|n| !graph::has_number(&n.op)) {
        // Folding it here would move the weights off their grids.
        let expected = if matches!(node.op, Op::BatchNormalization(_)) {
            "normalisation that was folded into the layer before it before weights came on grids, as `compress` does"
        } else {
            "an operator that the packed format has"
        };
        return Err(PackedError::part(
            format!("node `{}`", node.name),
            expected,
            node.op.name(),
        ));
    }
    let Some(input) = graph.inputs.first() else {
        return Err(PackedError::part(
            "inputs of the graph",
            "at least one",
            "none",
        ));
    };
    if let Some(p) = &graph.preprocessing {
        p.check(&input.shape)?;
    }
    let biases: Vec<&str> = graph.nodes.iter().filter_map(|n| n.op.bias()).collect();
    let weights: Vec<&str> = graph.nodes.iter().filter_map(|n| n.op.weight()).collect();
    for (name, tensor) in &network.tensors {
        let wrong = |what: &str, expected: &str, got: &str| {
            Err(PackedError::tensor(name, what, expected, got))
        };
        let Some(&scale) = network.scales.get(name) else {
            let expected = "a scale: quantise the network before it is packed";
            return wrong("grid", expected, "none");
        };
        if !is_scale(scale) {
            return Err(ModelError::Step {
                tensor: name.clone(),
                got: scale,
            }
            .into());
        }
        let is_bias = biases.contains(&name.as_str());
        if !is_bias && !weights.contains(&name.as_str()) {
            return wrong("use", "a node that uses it", "none");
        }
        if is_bias && matches!(tensor, Weights::Csr(_)) {
            return wrong("layout", "a dense bias", "csr");
        }
    }
    for (name, shape) in &network.original_shapes {
        let now = network
            .tensors
            .get(name)
            .map(Weights::shape)
            .unwrap_or_default();
        if !now.fits_in(shape) {
            return Err(PackedError::tensor(
                name,
                "original shape",
                format!("one that holds the present one, {now}"),
                shape.to_string(),
            ));
        }
    }
    Ok(())
}

/// The integers of a tensor of a network, and the number of them in each row where it is a weight.
fn integers(network: &Network, tensor: &Tensor) -> Result<Integers, PackedError> {
    let levels = network.grid(&tensor.name, tensor.scale)?;
    if tensor.columns.is_none() {
        return Ok(Integers::Bias(levels));
    }
    let (rows, cols) = tensor.shape.matrix();
    let mut out = Levels {
        starts: vec![0],
        ..Levels::default()
    };
    let mut push = |column: usize, level: i32| {
        if level != 0 {
            out.columns.push(column as u32);
            out.levels.push(level);
        }
        out.levels.len() as u32
    };
    let mut starts = Vec::with_capacity(rows);
    match network.tensors.get(&tensor.name) {
        Some(Weights::Csr(csr)) => {
            let mut at = 0;
            for row in 0..rows {
                let mut end = starts.last().copied().unwrap_or(0);
                for &column in csr.row(row).0 {
                    end = push(column as usize, levels[at]);
                    at += 1;
                }
                starts.push(end);
            }
        }
        _ => {
            for row in 0..rows {
                let mut end = starts.last().copied().unwrap_or(0);
                for column in 0..cols {
                    end = push(column, levels[row * cols + column]);
                }
                starts.push(end);
            }
        }
    }
    out.starts.extend(starts);
    Ok(Integers::Weight(out))
}

/// A network from its parts.
fn assemble(
    graph: Graph,
    tensors: Vec<Tensor>,
    integers: Vec<Integers>,
) -> Result<Network, PackedError> {
    let (mut weights, mut originals, mut scales) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (tensor, integers) in tensors.into_iter().zip(integers) {
        let value = |q: &i32| sparsevd_model::quantised::value(*q, tensor.scale);
        let built = match integers {
            Integers::Bias(levels) => Weights::Dense(Dense {
                shape: tensor.shape.clone(),
                values: levels.iter().map(value).collect(),
            }),
            Integers::Weight(levels) => {
                let values = levels.levels.iter().map(value).collect();
                let csr = Csr::try_new(tensor.shape.clone(), levels.starts, levels.columns, values)
                    .map_err(|e: ModelError| e.for_tensor(&tensor.name))?;
                if tensor.dense {
                    Weights::Dense(csr.to_dense())
                } else {
                    Weights::Csr(csr)
                }
            }
        };
        if tensor.original != tensor.shape {
            originals.insert(tensor.name.clone(), tensor.original);
        }
        scales.insert(tensor.name.clone(), tensor.scale);
        weights.insert(tensor.name, built);
    }
    let mut network = Network::new(graph, weights)?;
    network.original_shapes = originals;
    network.scales = scales;
    Ok(network)
}
