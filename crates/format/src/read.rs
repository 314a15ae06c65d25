//! Networks from files of any kind that this crate reads.

use std::path::Path;

use crate::encoder::{is_encoder, read_encoder};
use crate::file_type::FileType;
use crate::packed;
use crate::safetensors::{Container, GraphSource, ShardList, read_container, read_model};
use crate::{FormatError, LoadedNetwork};

/// Reads a network, dense, CSR or `sparse-bitmask`, from a safetensors file, from the index of its shards or the folder they are
/// in, or from a packed file. Its content decides which ([`FileType`]). A folder with an encoder of texts is read as by [`read_encoder`].
///
/// The graph comes from `source` when it is named; otherwise from the file's metadata, from `network.json` or a
/// `config.json` that holds a graph beside the file, or, for a pure chain of matrices, is taken to be an MLP with ReLU, which
/// [`LoadedNetwork::warnings`] then says.
///
/// # Errors
/// Another kind of file, with what it is and how to convert it; anything that is not as `docs/format.md` has it, tensors
/// that do not fit the graph, values that are not finite, a shard that is missing.
pub fn read_network(
    path: impl AsRef<Path>,
    source: &GraphSource,
) -> Result<LoadedNetwork, FormatError> {
    let path = path.as_ref();
    if path.is_dir() {
        if *source == GraphSource::Auto && is_encoder(path) {
            return Ok(read_encoder(path)?.loaded);
        }
        let shards = ShardList::of_folder(path)?.read()?;
        return read_container(&shards.path, &shards.join()?, source);
    }
    read_network_bytes(path, &read_model(path)?, source)
}

/// Reads a network from the bytes of a file; `path` names it in errors, and a graph or shards may lie beside it.
///
/// # Errors
/// As [`read_network`].
pub fn read_network_bytes(
    path: impl AsRef<Path>,
    bytes: &[u8],
    source: &GraphSource,
) -> Result<LoadedNetwork, FormatError> {
    let path = path.as_ref();
    match FileType::of(bytes) {
        FileType::Packed => match source {
            GraphSource::Auto => packed::unpack_named(path, bytes, &packed::Limits::default()),
            GraphSource::Named(name) => Err(FormatError::invalid(
                path,
                "network",
                "no graph to be named: a packed file has its own",
                format!("`{name}`"),
            )),
        },
        FileType::ShardIndex => {
            let shards = ShardList::of_index(path, bytes)?.read()?;
            read_container(path, &shards.join()?, source)
        }
        // The last two are errors of the container, which names what is missing.
        FileType::Safetensors | FileType::Unknown | FileType::Empty => {
            read_container(path, &Container::parse(path, bytes)?, source)
        }
        FileType::Onnx => Err(FormatError::invalid(
            path,
            "file",
            "a safetensors or packed network",
            "an ONNX model, which `sparsevd_onnx::read_onnx` reads",
        )),
        other => Err(FormatError::invalid(
            path,
            "file",
            "a network: safetensors, packed .spvd or ONNX",
            other.instead_of_network(path),
        )),
    }
}
