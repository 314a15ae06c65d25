//! What a file holds: layers, shapes, density, and bytes by encoding.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use sparsevd_compressor::report::{
    Encoding, PackedSize, SCHEMA, Summary, count, encodings, encodings_table, layers_table,
    packed_table, stored_bytes,
};
use sparsevd_format::{
    FileType, FormatError, LoadedNetwork, WriteOptions, network_files, write_network_bytes,
};
use sparsevd_model::{Network, Preprocessing, terminal};

use crate::compressed::read;
use crate::error::PipelineError;

/// Everything about one file.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Version of this layout.
    pub schema: u32,
    /// The layers.
    #[serde(flatten)]
    pub summary: Summary,
    /// Name of the network.
    pub network: String,
    /// How pixels become its input.
    pub preprocessing: Option<Preprocessing>,
    /// Bytes in several encodings.
    pub encodings: Vec<Encoding>,
    /// Where the bits of the packed form go, where the network is on grids.
    pub packed: Option<PackedInspection>,
    /// Sentences for the user.
    pub notes: Vec<String>,
    /// What was guessed when the file was read.
    pub warnings: Vec<String>,
    /// Metadata of the file that the format gives no meaning to.
    pub metadata: BTreeMap<String, String>,
}

/// Where the bits of the packed form go.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PackedInspection {
    /// By what they encode.
    #[serde(flatten)]
    pub size: PackedSize,
    /// Bits that say where a weight is, for each that is left.
    pub positions_bits_per_weight: f64,
    /// Bits that say what it is.
    pub values_bits_per_weight: f64,
}

/// Most bytes of the dense file that zstd is tried on: level 19 takes about a second for each megabyte.
const MOST_FOR_ZSTD: u64 = 64 << 20;
/// Most nodes of a graph that it is tried on: its text repeats itself, on which level 19 takes minutes.
const MOST_NODES_FOR_ZSTD: usize = 4096;

impl Inspection {
    /// Inspects a file and the network that was read from it.
    ///
    /// # Errors
    /// A file that cannot be read; a network on grids that cannot be packed.
    pub fn new(path: impl AsRef<Path>, loaded: LoadedNetwork) -> Result<Self, PipelineError> {
        let network = &loaded.network;
        let files = network_files(path)?;
        let (bytes, file_bytes, packed) = match FileType::of_file(&files[0])? {
            FileType::Safetensors if files.len() == 1 => {
                let file = read(&files[0])?;
                (stored_bytes(&files[0], &file)?, file.len() as u64, None)
            }
            FileType::Packed => {
                let file = read(&files[0])?;
                (None, file.len() as u64, Some(PackedSize::of(&file)?))
            }
            _ => {
                let sizes = files.iter().map(|file| size(file));
                (None, sizes.sum::<Result<u64, _>>()?, None)
            }
        };
        let packed = match packed {
            Some(size) => Some(size),
            None => PackedSize::of_network(network)?,
        };
        let mut encodings = encodings(network, packed.map(|p| p.bytes));
        if let Some(zstd) = zstd_over_dense(network)? {
            encodings.insert(1, zstd);
        }
        let summary = Summary::new(network, bytes.as_ref(), file_bytes);
        let packed = packed.map(|size| {
            let per_weight = |bits: u64| bits as f64 / summary.nonzeros.max(1) as f64;
            PackedInspection {
                size,
                positions_bits_per_weight: per_weight(size.liveness_bits + size.positions_bits),
                values_bits_per_weight: per_weight(size.values_bits),
            }
        });
        Ok(Self {
            schema: SCHEMA,
            summary,
            network: network.graph.name.clone(),
            preprocessing: network.graph.preprocessing.clone(),
            encodings,
            packed,
            notes: loaded.notes,
            warnings: loaded.warnings,
            metadata: loaded.metadata,
        })
    }
}

impl fmt::Display for Inspection {
    /// Notes, what is not zero, and tables of layers, encodings and the packed form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{}", terminal::line(note, terminal::MESSAGE))?;
        }
        let s = &self.summary;
        writeln!(
            f,
            "{}: {} of {} weights are not zero, {}; {} parameters with biases; file of {} bytes\n",
            terminal::name(&self.network),
            count(s.nonzeros),
            count(s.weights),
            match s.ratio {
                Some(ratio) => format!("{ratio:.1} times fewer"),
                None => "so that the network is constant".into(),
            },
            count(s.parameters),
            count(s.file_bytes as usize)
        )?;
        write!(
            f,
            "{}\n{}",
            layers_table(s),
            encodings_table(&self.encodings)
        )?;
        let Some(packed) = &self.packed else {
            return Ok(());
        };
        writeln!(
            f,
            "\n{}\nbits per weight left: {:.2} for where it is, {:.2} for what it is",
            packed_table(&packed.size, s.nonzeros),
            packed.positions_bits_per_weight,
            packed.values_bits_per_weight
        )
    }
}

/// Size of a file in bytes.
fn size(path: &Path) -> Result<u64, FormatError> {
    let metadata = std::fs::metadata(path).map_err(|error| FormatError::Io {
        path: path.into(),
        action: "read",
        error,
    })?;
    Ok(metadata.len())
}

/// What a general compressor makes of the network with its zeros; `None` where trying would take minutes.
fn zstd_over_dense(network: &Network) -> Result<Option<Encoding>, PipelineError> {
    let elements: usize = (network.tensors.values())
        .map(|t| t.shape().elements())
        .fold(0, usize::saturating_add);
    if elements as u64 > MOST_FOR_ZSTD / 4 || network.graph.nodes.len() > MOST_NODES_FOR_ZSTD {
        return Ok(None);
    }
    let dense = write_network_bytes(&network.to_dense(), &WriteOptions::default())?;
    let compressed = zstd::bulk::compress(&dense, 19)
        .map_err(|e| PipelineError::invalid("zstd", "the dense file compressed", e.to_string()))?;
    Ok(Some(Encoding {
        encoding: "zstd -19 over dense f32, safetensors file".into(),
        bytes: compressed.len() as u64,
    }))
}
