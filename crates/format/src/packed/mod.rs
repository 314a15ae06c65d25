//! The packed form `*.spvd`: a whole network, graph and quantised weights, entropy-coded.
//!
//! The format is documented in `docs/format.md`. Weights must be on grids ([`Network::scales`]); they come back
//! exactly. Everything that decides what a bit means is integer arithmetic, so every platform reads the same numbers.

mod adaptive;
mod breakdown;
mod checked;
mod chunks;
mod crc;
mod error;
mod factors;
mod fields;
mod graph;
mod grids;
mod integers;
mod large;
mod limits;
mod logistic;
mod matrix;
mod neighbours;
mod order;
mod plain;
mod range;
mod rans;
mod scale;
mod skeleton;
mod small;

use std::collections::BTreeMap;
use std::path::Path;

use sparsevd_model::quantised::is_scale;
use sparsevd_model::{DType, Input, ModelError, Network, Op, Weights};

use crate::file_type::PACKED_MAGIC as MAGIC;
use crate::{FormatError, LoadedNetwork, Staged, read_file, write_atomically};
use error::PackedError;
use small::EmptyRows;

pub use breakdown::PackedBreakdown;
pub use limits::Limits;

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
}

/// Options of [`pack`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackOptions {
    /// How.
    pub profile: PackProfile,
    /// Keep the order of hidden units. By default they are sorted where that changes nothing but the order of sums,
    /// which saves 1 to 5 % of a small file. The large profile always keeps it.
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

impl Staged {
    /// Adds a packed network, as [`write_packed`] writes it.
    ///
    /// # Errors
    /// As [`write_packed`].
    pub fn add_packed(
        &mut self,
        path: impl AsRef<Path>,
        network: &Network,
        options: &PackOptions,
    ) -> Result<u64, FormatError> {
        let path = path.as_ref();
        let bytes = pack_inner(network, options).map_err(|e| e.at(path))?;
        self.add(path, |out| out.write_all(&bytes))
    }
}

/// The bytes of a network as a packed file. The same network and options give the same bytes.
///
/// # Errors
/// A network that is not valid, a tensor without a scale or off its grid, rows of an int8 layer with scales of their own, a tensor that no node uses. The file is
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
    let bytes = read_file(path, u64::MAX)?;
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
    let (has_grids, content) = content(bytes).map_err(|e| e.at(path))?;
    let network = match content {
        Content::Small(empty_rows, rest) => small::decode(rest, empty_rows, has_grids, limits),
        Content::Large(rest) => large::decode(rest, has_grids, limits),
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
        (has_grids, Content::Small(empty_rows, rest)) => {
            small::breakdown(rest, empty_rows, has_grids, &limits)
        }
        (has_grids, Content::Large(rest)) => large::breakdown(rest, has_grids, &limits),
    };
    let mut spent = breakdown().map_err(|e: PackedError| e.at(Path::new("(memory)")))?;
    let known = spent.liveness + spent.positions + spent.values + spent.biases;
    spent.header = (8 * bytes.len() as u64).saturating_sub(known);
    Ok(spent)
}

fn pack_inner(network: &Network, options: &PackOptions) -> Result<Vec<u8>, PackedError> {
    check(network)?;
    let has_grids = !network.int8.is_empty();
    let grids = if has_grids { GRIDS } else { 0 };
    let begin = |profile: u8| [MAGIC.as_slice(), &[VERSION << 4 | grids | profile]].concat();
    let small = |network: &Network, profile: u8, empty_rows: EmptyRows| {
        let mut bytes = begin(profile);
        small::encode(network, empty_rows, has_grids, &mut bytes).map(|()| bytes)
    };
    match options.profile {
        PackProfile::Small if options.keep_unit_order => {
            let plain = small(network, SMALL, EmptyRows::Any)?;
            let marked = small(network, SMALL_MARKED, EmptyRows::Marked)?;
            Ok(if marked.len() < plain.len() {
                marked
            } else {
                plain
            })
        }
        PackProfile::Small => small(&order::sort_units(network)?, SMALL, EmptyRows::Any),
        PackProfile::Large => {
            let mut bytes = begin(LARGE);
            large::encode(network, has_grids, &mut bytes)?;
            Ok(bytes)
        }
    }
}

/// Profiles as a file names them. The marked one is small, and marks units without weights.
const SMALL: u8 = 1;
const LARGE: u8 = 2;
const SMALL_MARKED: u8 = 3;

/// A bit beside the profile: the file has grids of int8 layers.
const GRIDS: u8 = 4;

/// What follows the magic, by profile.
enum Content<'a> {
    Small(EmptyRows, &'a [u8]),
    Large(&'a [u8]),
}

/// Whether a file has grids of int8 layers, and the rest of it.
fn content(bytes: &[u8]) -> Result<(bool, Content<'_>), PackedError> {
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
    let content = match kind & 15 & !GRIDS {
        SMALL => Content::Small(EmptyRows::Any, rest),
        SMALL_MARKED => Content::Small(EmptyRows::Marked, rest),
        LARGE => Content::Large(rest),
        _ => {
            let expected = "1 to 3, or 5 to 7 with grids of int8 layers";
            let got = (kind & 15).to_string();
            return Err(PackedError::part("profile", expected, got));
        }
    };
    Ok((kind & GRIDS != 0, content))
}

/// Checks what a packed file can say.
fn check(network: &Network) -> Result<(), PackedError> {
    let shapes = network.shapes()?;
    let graph = &network.graph;
    // A file says what an input is only where a table is read by it.
    let ids = network.ids();
    let has_form =
        |i: &&Input| i.dtype == DType::F32 || i.dtype.is_id() && ids.contains_key(i.name.as_str());
    if let Some(input) = graph.inputs.iter().find(|i| !has_form(i)) {
        return Err(PackedError::part(
            format!("input `{}`", input.name),
            "f32, or i32 or i64 that numbers the rows of a table",
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
        } else if matches!(node.op, Op::Concat(_) | Op::Softmax(_)) {
            "axis 0, the one that the packed format has"
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
    let plain: Vec<String> = (graph.nodes.iter())
        .flat_map(|n| n.op.plain_tensors())
        .map(|(_, name)| name)
        .collect();
    for (name, tensor) in &network.tensors {
        let wrong = |what: &str, expected: &str, got: &str| {
            Err(PackedError::tensor(name, what, expected, got))
        };
        if plain.contains(name) {
            if network.scales.contains_key(name) {
                let expected = "none, for a tensor that is neither weight nor bias of a layer";
                return wrong("grid", expected, "a scale");
            }
            continue;
        }
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
    grids::check(network)?;
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
