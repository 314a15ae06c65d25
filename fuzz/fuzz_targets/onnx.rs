//! ONNX files: whatever the bytes, an error or a network that is written and read again.
//!
//! `cargo +nightly fuzz run onnx fuzz/corpus/onnx tests/golden/onnx`
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparsevd_onnx::{ExportOptions, read_onnx_bytes, write_onnx_bytes};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = read_onnx_bytes("fuzz.onnx", bytes.to_vec()) {
        let options = ExportOptions::default();
        let again =
            write_onnx_bytes(&read.network, &options).expect("what was read can be written");
        read_onnx_bytes("fuzz.onnx", again).expect("what was written can be read");
    }
});
