//! Tables of four bits: they are read as they were written, and broken files are errors that name what is wrong.
#![allow(clippy::unwrap_used)]

mod networks;

use networks::{Pieces, table_of_int4};
use serde_json::json;
use sparsevd_format::*;

fn read(bytes: &[u8]) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/bytes.safetensors", bytes, &GraphSource::Auto)
}

fn written(width: usize) -> Vec<u8> {
    write_network_bytes(&table_of_int4(width), &WriteOptions::default()).unwrap()
}

#[test]
fn tables_of_four_bits_come_back() {
    for width in [1, 2, 7, 8] {
        let network = table_of_int4(width);
        let bytes = written(width);
        let back = read(&bytes).unwrap();
        assert_eq!(back.network, network, "{width}");
        assert!(back.metadata.is_empty() && back.notes.is_empty());
        let header = Pieces::of(&bytes).header;
        let half = width.div_ceil(2);
        assert_eq!(header["words.int4"]["dtype"], "U8");
        assert_eq!(header["words.int4"]["shape"], json!([5, half]));
        assert_eq!(header["words.scale"]["shape"], json!([5]));
        // Readers that know nothing of it get numbers.
        let interop = WriteOptions {
            profile: CsrProfile::Interop,
            ..WriteOptions::default()
        };
        let bytes = write_network_bytes(&network, &interop).unwrap();
        assert_eq!(Pieces::of(&bytes).header["words"]["dtype"], "F32");
        assert_eq!(read(&bytes).unwrap().network, network);
    }
}

#[test]
fn one_scale_may_serve_all_rows() {
    let mut pieces = Pieces::of(&written(2));
    pieces.replace("words.int4", "U8", &[5, 1], &[0x17, 0x29, 0xf0, 0x0f, 0x77]);
    pieces.replace("words.scale", "F32", &[1], &0.5_f32.to_le_bytes());
    let table = read(&pieces.join()).unwrap().network.tensors["words"].to_dense();
    let levels = [7, 1, -7, 2, 0, -1, -1, 0, 7, 7];
    assert_eq!(table.values, levels.map(|q| q as f32 * 0.5));
}

#[test]
fn tensors_of_such_names_alone_are_dense() {
    let mut pieces = Pieces::of(&written(2));
    pieces.replace("other.int4", "F32", &[2], &[0; 8]);
    pieces.replace("other.gaps", "F32", &[2], &[0; 8]);
    let notes = read(&pieces.join()).unwrap().notes.join(" ");
    assert!(notes.contains("other.gaps, other.int4"), "{notes}");
}

#[test]
fn broken_tables_are_named() {
    type Change = fn(&mut Pieces);
    let cases: [(&str, Change, &[&str]); 15] = [
        (
            "version",
            |p| {
                p.edit(metadata_keys::INT4, |v| v["v"] = json!(2));
            },
            &["sparsevd.int4", "expected 1", "2"],
        ),
        (
            "no shape",
            |p| {
                p.edit(metadata_keys::INT4, |v| v["words"] = json!("wide"));
            },
            &["`words`", "sparsevd.int4"],
        ),
        (
            "one dimension",
            |p| {
                p.edit(metadata_keys::INT4, |v| v["words"] = json!([35]));
            },
            &["`words`", "two dimensions", "[35]"],
        ),
        (
            "more columns",
            |p| {
                p.edit(metadata_keys::INT4, |v| v["words"] = json!([5, 9]));
            },
            &["`words.int4`", "[5, 5]", "[5, 4]"],
        ),
        (
            "no columns",
            |p| {
                p.edit(metadata_keys::INT4, |v| v["words"] = json!([5, 0]));
                p.replace("words.int4", "U8", &[5, 0], &[]);
            },
            &["`words.int4`", "at least one column", "[5, 0]"],
        ),
        (
            "signed bytes",
            |p| {
                p.header["words.int4"]["dtype"] = json!("I8");
            },
            &["`words.int4`", "U8", "I8"],
        ),
        (
            "no scales",
            |p| {
                p.remove("words.scale");
            },
            &["`words.scale`"],
        ),
        (
            "-8",
            |p| {
                let start = p.range("words.int4").start;
                p.data[start + 1] = 0x80;
            },
            &["`words.int4`", "element 3", "-8"],
        ),
        (
            "something behind a row",
            |p| {
                let start = p.range("words.int4").start;
                p.data[start + 7] |= 0x10;
            },
            &["`words.int4`", "row 1", "expected 0", "got 1"],
        ),
        (
            "a dense tensor of that name",
            |p| {
                p.replace("words", "F32", &[5, 7], &[0; 140]);
            },
            &["`words`", "words.int4", "a dense tensor"],
        ),
        (
            "a sparse weight of that name",
            |p| {
                let entries = r#"{"v":1,"words":{"layout":"csr","shape":[5,7]}}"#;
                p.metadata(metadata_keys::SPARSE, entries);
            },
            &["`words`", "words.int4", "parts of another layout"],
        ),
        (
            "a zero point",
            |p| {
                p.replace("words.zero_point", "I8", &[5], &[1; 5]);
            },
            &["`words`", "words.int4", "a zero point"],
        ),
        (
            "too few scales",
            |p| {
                p.replace("words.scale", "F32", &[4], &[0; 16]);
            },
            &["`words.scale`", "[1] or [5]", "[4]"],
        ),
        (
            "a scale that is no number",
            |p| {
                let start = p.range("words.scale").start;
                p.data[start + 8..start + 12].copy_from_slice(&f32::NAN.to_le_bytes());
            },
            &["`words.scale`", "element 2", "finite", "NaN"],
        ),
        (
            "integers that nothing speaks of",
            |p| {
                p.edit(metadata_keys::INT4, |v| {
                    v.as_object_mut().unwrap().remove("words");
                });
            },
            &["`words.int4`", "an entry for `words`", "no entry"],
        ),
    ];
    let valid = written(7);
    for (name, change, words) in cases {
        let mut pieces = Pieces::of(&valid);
        change(&mut pieces);
        let error = read(&pieces.join()).expect_err(name).to_string();
        for word in words {
            assert!(error.contains(word), "{name}: {error}");
        }
        assert!(error.contains("dir/bytes.safetensors"), "{name}: {error}");
    }
}
