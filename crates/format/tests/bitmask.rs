//! Weights in the layout `sparse-bitmask`, against what compressed-tensors wrote (`golden/sparse_bitmask/make.py`).
#![allow(clippy::unwrap_used)]

mod networks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use networks::{Pieces, fill, lenet_5, tiny};
use proptest::prelude::*;
use serde_json::json;
use sparsevd_format::*;
use sparsevd_model::{Shape, Weights, presets};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/sparse_bitmask")
        .join(name)
}

fn options(values: ValueType) -> WriteOptions {
    WriteOptions {
        values,
        profile: CsrProfile::Bitmask,
        metadata: BTreeMap::new(),
    }
}

fn read(bytes: &[u8]) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/bad.safetensors", bytes, &GraphSource::Auto)
}

#[test]
fn a_file_of_compressed_tensors_is_the_network_it_was_made_of() {
    let sparse = read_network(golden("model.safetensors"), &GraphSource::Auto).unwrap();
    let dense = read_network(golden("dense.safetensors"), &GraphSource::Auto).unwrap();
    assert_eq!(sparse.network.to_dense(), dense.network);
    for name in ["conv.weight", "fc.weight"] {
        let tensor = &sparse.network.tensors[name];
        assert!(matches!(tensor, Weights::Csr(_)), "{name}");
    }
}

#[test]
fn the_parts_are_those_that_compressed_tensors_writes() {
    let network = read_network(golden("model.safetensors"), &GraphSource::Auto)
        .unwrap()
        .network;
    let theirs = Pieces::of(&std::fs::read(golden("model.safetensors")).unwrap());
    let f32s = Pieces::of(&write_network_bytes(&network, &options(ValueType::F32)).unwrap());
    let bf16s = Pieces::of(&write_network_bytes(&network, &options(ValueType::Bf16)).unwrap());
    for (weight, ours) in [("conv", f32s), ("fc", bf16s)] {
        for part in ["shape", "compressed", "bitmask", "row_offsets"] {
            let name = format!("{weight}.{part}");
            for key in ["dtype", "shape"] {
                assert_eq!(ours.header[&name][key], theirs.header[&name][key], "{name}");
            }
            let (a, b) = (ours.range(&name), theirs.range(&name));
            assert_eq!(ours.data[a], theirs.data[b], "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_mlp_comes_back(
        seed in any::<u64>(),
        input in 1_usize..20,
        widths in prop::collection::vec(1_usize..20, 1..4),
        density in prop_oneof![Just(0.0), Just(0.2), Just(1.0)],
        csr in any::<u8>(),
    ) {
        let (graph, tensors) = presets::mlp("net", Shape::from([input]), &widths);
        let network = fill(graph, &tensors, seed, density, |i| csr >> i & 1 == 1);
        let bytes = write_network_bytes(&network, &options(ValueType::F32)).unwrap();
        let loaded = read(&bytes).unwrap();
        prop_assert_eq!(loaded.network, network);
        prop_assert_eq!(loaded.notes, Vec::<String>::new());
    }
}

#[test]
fn filters_come_back_with_their_original_shapes() {
    let bytes = write_network_bytes(&lenet_5(), &options(ValueType::F32)).unwrap();
    assert_eq!(read(&bytes).unwrap().network, lenet_5());
    let bytes = write_network_bytes(&tiny(), &options(ValueType::F32)).unwrap();
    assert_eq!(read(&bytes).unwrap().network, tiny());
}

#[test]
fn what_the_layout_cannot_hold_is_refused() {
    let error = write_network_bytes(&tiny(), &options(ValueType::I8)).unwrap_err();
    assert!(error.to_string().contains("floating-point one"), "{error}");
    let mut network = tiny();
    let weight = network.tensors.remove("fc1.weight").unwrap();
    network.tensors.insert("fc1.w".into(), weight);
    network.original_shapes.clear();
    network.graph.nodes[0]
        .op
        .rename_tensors("fc1.w".into(), Some("fc1.bias".into()));
    let error = write_network_bytes(&network, &options(ValueType::F32)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`fc1.w`") && text.contains("ends in `.weight`"),
        "{text}"
    );
}

/// What is broken, how, and what the error must say.
type Case = (&'static str, fn(&mut Pieces), &'static [&'static str]);

/// Breaks `tiny`, whose `fc1.weight` is `[3, 4]` with rows of 2, 0 and 3 non-zeros.
const CASES: [Case; 20] = [
    (
        "a mask of another shape",
        |p| {
            p.replace("fc1.bitmask", "U8", &[3, 2], &[0; 6]);
        },
        &[
            "`fc1.bitmask`",
            "[3, 1], a bit for each element of [3, 4]",
            "[3, 2]",
        ],
    ),
    (
        "a mask in one dimension",
        |p| {
            p.replace("fc1.bitmask", "U8", &[3], &[9, 0, 7]);
        },
        &["`fc1.bitmask`", "[3, 1]", "got [3]"],
    ),
    (
        "a mask of I8",
        |p| p.header["fc1.bitmask"]["dtype"] = json!("I8"),
        &["`fc1.bitmask`", "U8", "I8"],
    ),
    (
        "a bit too many",
        |p| {
            p.set("fc1.bitmask", 1, &[1_u8]);
        },
        &[
            "`fc1.compressed`",
            "6, the bits that are set in `fc1.bitmask`",
            "got 5",
        ],
    ),
    (
        "a bit too few",
        |p| {
            p.set("fc1.bitmask", 0, &[1_u8]);
        },
        &["`fc1.compressed`", "4, the bits", "got 5"],
    ),
    (
        "a bit in the padding",
        |p| {
            p.set("fc1.bitmask", 0, &[0x11_u8]);
        },
        &["`fc1.bitmask`", "row 0", "no bit set from 4 on", "bit 4"],
    ),
    (
        "values of F64",
        |p| {
            p.replace("fc1.compressed", "F64", &[5], &[0; 40]);
        },
        &["`fc1.compressed`", "F32, F16 or BF16", "F64"],
    ),
    (
        "values of F8",
        |p| {
            p.replace("fc1.compressed", "F8_E4M3", &[5], &[0; 5]);
        },
        &["`fc1.compressed`", "F32, F16 or BF16", "F8_E4M3"],
    ),
    (
        "values in two dimensions",
        |p| p.header["fc1.compressed"]["shape"] = json!([5, 1]),
        &["`fc1.compressed`", "one dimension", "[5, 1]"],
    ),
    (
        "a value that is no number",
        |p| {
            p.set("fc1.compressed", 0, &f32::NAN.to_le_bytes());
        },
        &["`fc1.weight`", "finite"],
    ),
    (
        "no values",
        |p| {
            p.remove("fc1.compressed");
        },
        &["`fc1.compressed`", "it in the file"],
    ),
    (
        "no shape",
        |p| {
            p.remove("fc1.shape");
        },
        &["`fc1.shape`", "it in the file"],
    ),
    (
        "a negative shape",
        |p| {
            p.set("fc1.shape", 0, &(-3_i64).to_le_bytes());
        },
        &["`fc1.shape`", "elements", "[-3, 4]"],
    ),
    (
        "a shape of 2^80",
        |p| {
            p.set("fc1.shape", 0, &(1_i64 << 40).to_le_bytes());
            p.set("fc1.shape", 1, &(1_i64 << 40).to_le_bytes());
        },
        &["`fc1.shape`", "elements", "1099511627776"],
    ),
    (
        "many rows of nothing",
        |p| {
            p.set("fc1.shape", 0, &(1_i64 << 32).to_le_bytes());
            p.set("fc1.shape", 1, &0_i64.to_le_bytes());
            p.replace("fc1.bitmask", "U8", &[1 << 32, 0], &[]);
        },
        &["`fc1.shape`", "elements", "[4294967296, 0]"],
    ),
    (
        "a shape of floats",
        |p| {
            p.replace("fc1.shape", "F32", &[2], &[0; 8]);
        },
        &["`fc1.shape`", "an integer dtype", "F32"],
    ),
    (
        "offsets that are wrong",
        |p| {
            p.set("fc1.row_offsets", 2, &3_i64.to_le_bytes());
        },
        &["`fc1.row_offsets`", "element 2", "2, the bits", "got 3"],
    ),
    (
        "an offset too many",
        |p| {
            p.replace("fc1.row_offsets", "I64", &[4], &[0; 32]);
        },
        &["`fc1.row_offsets`", "3, one for each row", "got 4"],
    ),
    (
        "no offsets",
        |p| {
            p.remove("fc1.row_offsets");
        },
        &["`fc1.row_offsets`", "it in the file"],
    ),
    (
        "a dense weight too",
        |p| {
            p.replace("fc1.weight", "F32", &[3, 4], &[0; 48]);
        },
        &[
            "`fc1.weight`",
            "sparse-bitmask",
            "a dense tensor of that name too",
        ],
    ),
];

#[test]
fn every_broken_file_is_an_error_that_says_what_is_wrong() {
    let valid = write_network_bytes(&tiny(), &options(ValueType::F32)).unwrap();
    let mut failures = Vec::new();
    for (name, change, says) in CASES {
        let mut pieces = Pieces::of(&valid);
        change(&mut pieces);
        match read(&pieces.join()) {
            Ok(_) => failures.push(format!("{name}: was read")),
            Err(error) => {
                let text = error.to_string();
                let absent: Vec<_> = says.iter().filter(|s| !text.contains(**s)).collect();
                if !absent.is_empty() || !text.contains("dir/bad.safetensors: ") {
                    failures.push(format!("{name}: lacks {absent:?}: {text}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut bytes = write_network_bytes(&tiny(), &options(ValueType::F32)).unwrap();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Ok(loaded) = read(&bytes) {
            prop_assert!(loaded.network.tensors.values().all(|t| t.check_finite().is_ok()));
        }
    }
}
