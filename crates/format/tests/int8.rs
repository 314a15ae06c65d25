//! Networks with int8 layers: they are read as they were written, and broken files are errors that name what is wrong.
#![allow(clippy::unwrap_used)]

mod networks;

use networks::{Pieces, lenet_5, tiny};
use proptest::prelude::*;
use serde_json::json;
use sparsevd_format::*;
use sparsevd_model::{Int8Grid, Int8Input, Network, Weights, quantised};
use sparsevd_testing::arbitrary::Stream;

const GRID: Int8Grid = Int8Grid {
    scale: 0.0234375,
    zero_point: 128,
};

/// `tiny` whose first layer may run in int8.
fn in_int8() -> Network {
    let mut network = tiny();
    network.set_int8("fc1", GRID, vec![1.0, 0.75, 0.5]).unwrap();
    network
}

fn read(bytes: &[u8]) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/bytes.safetensors", bytes, &GraphSource::Auto)
}

#[test]
fn layers_in_bytes_come_back_in_every_profile_and_type_of_the_others() {
    let network = in_int8();
    for profile in [CsrProfile::Compact, CsrProfile::Interop] {
        for values in [ValueType::F32, ValueType::F16, ValueType::Bf16] {
            let options = WriteOptions {
                values,
                profile,
                ..WriteOptions::default()
            };
            let bytes = write_network_bytes(&network, &options).unwrap();
            assert_eq!(bytes, write_network_bytes(&network, &options).unwrap());
            let back = read(&bytes).unwrap();
            assert_eq!(back.network, network, "{profile:?} {values:?}");
            assert!(back.metadata.is_empty(), "{:?}", back.metadata);
            let header = Pieces::of(&bytes).header;
            assert_eq!(header["fc1.weight.values"]["dtype"], "I8");
            assert_eq!(header["fc1.weight.scale"]["shape"], json!([3]));
        }
    }
}

#[test]
fn scales_of_vectors_come_back_and_have_no_packed_form() {
    let mut network = tiny();
    network
        .set_int8("fc1", Int8Input::PerVector, vec![0.25; 3])
        .unwrap();
    let bytes = write_network_bytes(&network, &WriteOptions::default()).unwrap();
    assert_eq!(read(&bytes).unwrap().network, network);
    let metadata = Pieces::of(&bytes).header["__metadata__"][metadata_keys::INT8].clone();
    assert_eq!(metadata, r#"{"v":1,"fc1":"per-vector"}"#);
    network.find_scales(&network.layer_tensors()).unwrap();
    let error = pack(&network, &PackOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("`fc1`") && error.contains("a scale for each vector"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_levels_and_scales_come_back(seed in any::<u64>()) {
        let mut stream = Stream(seed | 1);
        let mut network = lenet_5();
        for node in ["conv1", "conv2", "fc1", "fc2"] {
            let weight = format!("{node}.weight");
            let Weights::Csr(csr) = &network.tensors[&weight] else { unreachable!() };
            let scale = |stream: &mut Stream| {
                let target = 2_f32.powi((stream.bits() % 40) as i32 - 20) * (1.0 + stream.unit() as f32);
                quantised::nearest_scale(target, 16).unwrap()
            };
            let rows: Vec<f32> = (0..csr.rows()).map(|_| scale(&mut stream)).collect();
            let csr = csr.map_values(|row, v| ((v.to_bits() % 255) as f32 - 127.0) * rows[row]);
            network.tensors.insert(weight, csr.into());
            let grid = Int8Grid { scale: scale(&mut stream), zero_point: stream.bits() as u8 };
            network.set_int8(node, grid, rows).unwrap();
        }
        let bytes = write_network_bytes(&network, &WriteOptions::default()).unwrap();
        prop_assert_eq!(read(&bytes).unwrap().network, network);
    }
}

#[test]
fn broken_files_are_named() {
    let valid = write_network_bytes(&in_int8(), &WriteOptions::default()).unwrap();
    type Change = fn(&mut Pieces);
    let cases: [(&str, Change, &[&str]); 14] = [
        (
            "version",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["v"] = json!(2));
            },
            &["sparsevd.int8", "expected 1", "2"],
        ),
        (
            "field",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"]["more"] = json!(1));
            },
            &["fc1", "more"],
        ),
        (
            "no scale",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"] = json!({"zero_point": 1}));
            },
            &["fc1", "scale"],
        ),
        (
            "zero point",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"]["zero_point"] = json!(256));
            },
            &["fc1", "256"],
        ),
        (
            "negative",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"]["zero_point"] = json!(-1));
            },
            &["fc1", "-1"],
        ),
        (
            "scale of too many bits",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"]["scale"] = json!(0.1));
            },
            &["fc1", "scale", "0.1"],
        ),
        (
            "negative scale",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"]["scale"] = json!(-0.5));
            },
            &["fc1", "-0.5"],
        ),
        (
            "ghost",
            |p| {
                p.edit(metadata_keys::INT8, |v| {
                    v["ghost"] = json!({"scale": 0.5, "zero_point": 0})
                });
            },
            &["ghost", "none"],
        ),
        (
            "no layer",
            |p| {
                p.edit(metadata_keys::INT8, |v| {
                    v["relu1"] = json!({"scale": 0.5, "zero_point": 0})
                });
            },
            &["relu1", "Relu"],
        ),
        (
            "dense weight",
            |p| {
                p.edit(metadata_keys::INT8, |v| {
                    v["fc2"] = json!({"scale": 0.5, "zero_point": 0})
                });
            },
            &["fc2", "CSR"],
        ),
        (
            "another word",
            |p| {
                p.edit(metadata_keys::INT8, |v| v["fc1"] = json!("per-channel"));
            },
            &["fc1", "per-channel", "per-vector"],
        ),
        (
            "level of -128",
            |p| {
                p.set("fc1.weight.values", 0, &[0x80]);
            },
            &["fc1", "127", "-128"],
        ),
        (
            "row scale of too many bits",
            |p| {
                p.set("fc1.weight.scale", 1, &0.1_f32.to_le_bytes());
            },
            &["fc1", "0.1"],
        ),
        (
            "no JSON",
            |p| {
                p.metadata(metadata_keys::INT8, "{");
            },
            &["sparsevd.int8", "JSON"],
        ),
    ];
    for (name, change, says) in cases {
        let mut pieces = Pieces::of(&valid);
        change(&mut pieces);
        let error = read(&pieces.join()).expect_err(name).to_string();
        for part in says {
            assert!(error.contains(part), "{name}: `{part}` is not in {error}");
        }
    }
    // Grids of a weight that is not stored as integers.
    let mut plain = Pieces::of(&write_network_bytes(&tiny(), &WriteOptions::default()).unwrap());
    plain.metadata(
        metadata_keys::INT8,
        r#"{"v":1,"fc1":{"scale":0.5,"zero_point":3}}"#,
    );
    let error = read(&plain.join()).unwrap_err().to_string();
    assert!(
        error.contains("I8") && error.contains("fc1.weight"),
        "{error}"
    );
}

#[test]
fn writers_refuse_what_they_have_no_place_for() {
    let network = in_int8();
    let bitmask = WriteOptions {
        profile: CsrProfile::Bitmask,
        ..WriteOptions::default()
    };
    let error = write_network_bytes(&network, &bitmask)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("int8") && error.contains("bitmask"),
        "{error}"
    );
    let mut quantised = network.clone();
    quantised.find_scales(&network.layer_tensors()).unwrap();
    let error = pack(&quantised, &PackOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`fc1.weight`") && error.contains("scale of a row"),
        "{error}"
    );
    quantised.int8 = Default::default();
    pack(&quantised, &PackOptions::default()).unwrap();
    // A weight that was changed since is found, never written as something else.
    let mut moved = network;
    let Weights::Csr(csr) = &moved.tensors["fc1.weight"] else {
        unreachable!()
    };
    let csr = csr.map_values(|_, v| 1.01 * v);
    moved.tensors.insert("fc1.weight".into(), csr.into());
    let error = write_network_bytes(&moved, &WriteOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`fc1.weight`"), "{error}");
}
