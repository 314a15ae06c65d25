//! Packed files: whatever the bytes, an error or a network that packs again, within the limits.
//!
//! `cargo +nightly fuzz run unpack fuzz/corpus/unpack tests/golden/packed/v1`
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparsevd_format::{Limits, PackOptions, pack, packed_breakdown, unpack};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        nodes: 1 << 10,
        elements: 1 << 20,
        dense_elements: 1 << 20,
        nonzeros: 1 << 20,
        small_cells: 1 << 18,
    };
    if let Ok(read) = unpack(bytes, &limits) {
        let again =
            pack(&read.network, &PackOptions::large()).expect("what was read can be packed");
        unpack(&again, &limits).expect("what was packed can be read");
        packed_breakdown(bytes).expect("what was read has its parts");
    }
});
