//! Files of networks.

use std::path::Path;

use sparsevd_format::{
    CsrProfile, FormatError, GraphSource, Limits, PackOptions, WriteOptions, inspect_encodings,
    network_files, pack, packed_breakdown, read_network, read_network_bytes, unpack,
    write_network_bytes,
};
use sparsevd_model::{Network, passes};
use sparsevd_onnx::{ExportOptions, read_onnx_bytes, write_onnx_bytes};

use crate::place::{Place, check_error};
use crate::seeds;

thread_local! {
    static PLACE: Place = Place::new();
    static SHARDS: Place = shards_beside();
    static GRAPHS: Place = tensors_beside();
}

/// What a packed file may have here. Where it lies in memory makes no difference to the reader.
pub(crate) const LIMITS: Limits = Limits {
    nodes: 1 << 10,
    elements: 1 << 20,
    dense_elements: 1 << 20,
    nonzeros: 1 << 20,
    small_cells: 1 << 18,
};

/// A network is written in every profile and read again.
pub(crate) fn safetensors(bytes: &[u8]) {
    let read = |bytes: &[u8]| {
        let nowhere = Path::new("fuzz/none.safetensors");
        read_network_bytes(nowhere, bytes, &GraphSource::Auto)
    };
    let first = match read(bytes) {
        Ok(first) => first,
        Err(error) => return check_error(&error),
    };
    for profile in [
        CsrProfile::Compact,
        CsrProfile::Interop,
        CsrProfile::Bitmask,
    ] {
        let options = WriteOptions {
            profile,
            ..WriteOptions::default()
        };
        // A name that the format takes, or that the layout has no place for, is refused.
        if let Ok(again) = write_network_bytes(&first.network, &options) {
            let again = read(&again).expect("what was written can be read");
            assert_eq!(again.network, first.network);
        }
    }
    describe(&first.network);
}

/// Neither rewrites nor descriptions of a network that was read fail.
fn describe(network: &Network) {
    inspect_encodings(network);
    let folded = passes::for_running(network);
    if let Some(alive) = passes::drop_dead_channels(&folded) {
        alive.types().expect("a network without dead channels");
    }
}

/// Whether an input is one of the sixteenth that slow checks are done for.
fn is_drawn(bytes: &[u8]) -> bool {
    crc32fast::hash(bytes).is_multiple_of(16)
}

/// A packed network packs again. Where only the checksum of the bytes is wrong, the right one is tried too.
pub(crate) fn packed(bytes: &[u8]) {
    let Some((bytes, network)) = unpacked(bytes) else {
        return;
    };
    // The models of a packed file take a hundred times as long to set up as most inputs to be read.
    if !is_drawn(&bytes) {
        return;
    }
    let again = pack(&network, &PackOptions::large()).expect("what was read can be packed");
    unpack(&again, &LIMITS).expect("what was packed can be read");
    packed_breakdown(&bytes).expect("what was read has its parts");
}

/// The network of a packed file, and the bytes with the checksum of their content.
pub(crate) fn unpacked(bytes: &[u8]) -> Option<(Vec<u8>, Network)> {
    let mut bytes = bytes.to_vec();
    // A checksum of decisions can only be known by decoding, whose error has it.
    for _ in 0..2 {
        let error = match unpack(&bytes, &LIMITS) {
            Ok(read) => return Some((bytes, read.network)),
            Err(error) => error,
        };
        check_error(&error);
        let right = match &error {
            FormatError::Invalid { what, got, .. }
                if what.starts_with("checksum of the decoded") =>
            {
                u32::from_str_radix(got.trim_start_matches("0x"), 16).expect("a checksum")
            }
            _ => return None,
        };
        // Behind the magic, the profile and, of the large one, the length of the header.
        let place = match bytes[4] & 15 {
            2 => 9..13,
            _ => 5..7,
        };
        let digits = &right.to_le_bytes()[..place.len()];
        bytes[place].copy_from_slice(digits);
    }
    panic!("the right checksum is refused");
}

/// A network is written and read again. The data of tensors may be in a file beside the model.
pub(crate) fn onnx(bytes: &[u8]) {
    let path = PLACE.with(|place| {
        let beside = place.path().join("data.bin");
        if !beside.exists() {
            place.write("data.bin", &[0x3f; 4096]);
        }
        place.path().join("fuzz.onnx")
    });
    let read = match read_onnx_bytes(&path, bytes.to_vec()) {
        Ok(read) => read,
        Err(error) => return check_error(&error),
    };
    let options = ExportOptions::default();
    let again = write_onnx_bytes(&read.network, &options).expect("what was read can be written");
    read_onnx_bytes(&path, again).expect("what was written can be read");
    describe(&read.network);
}

/// A folder with the two shards of a network.
fn shards_beside() -> Place {
    let place = Place::new();
    for (name, bytes) in seeds::shard_files() {
        place.write(&name, &bytes);
    }
    place
}

/// The bytes as the index of two shards.
pub(crate) fn shards(bytes: &[u8]) {
    SHARDS.with(|place| {
        let path = place.write("net.safetensors.index.json", bytes);
        match read_network(&path, &GraphSource::Auto) {
            Ok(read) => describe(&read.network),
            Err(error) => check_error(&error),
        }
        if let Ok(files) = network_files(&path) {
            let inside = |file: &std::path::PathBuf| file.parent() == Some(place.path());
            assert!(files.iter().all(inside), "{files:?}");
        }
    });
}

/// A folder with tensors that have no graph.
fn tensors_beside() -> Place {
    let place = Place::new();
    place.write("net.safetensors", &seeds::tensors());
    place
}

/// The bytes as a graph for tensors: one that is named, and one that lies beside them.
pub(crate) fn graph(bytes: &[u8]) {
    GRAPHS.with(|place| {
        let named = place.write("config.json", bytes);
        let path = place.path().join("net.safetensors");
        let named = GraphSource::Named(named.to_string_lossy().into_owned());
        // A name is first looked for among the presets, which takes longer than to read most graphs.
        let named = is_drawn(bytes).then_some(named);
        for source in named.into_iter().chain([GraphSource::Auto]) {
            match read_network(&path, &source) {
                Ok(read) => describe(&read.network),
                Err(error) => check_error(&error),
            }
        }
    });
}
