//! Networks as safetensors: whatever the bytes, an error or a network that is written in every profile and read again.
//!
//! `cargo +nightly fuzz run safetensors fuzz/corpus/safetensors crates/format/tests/golden/sparse_bitmask`
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparsevd_format::{
    CsrProfile, GraphSource, WriteOptions, read_network_bytes, write_network_bytes,
};

fuzz_target!(|bytes: &[u8]| {
    let read =
        |bytes: &[u8]| read_network_bytes("fuzz/none.safetensors", bytes, &GraphSource::Auto);
    let Ok(first) = read(bytes) else { return };
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
});
