//! Hostile files before the real binaries: one line that names the file, exit code 2, nothing written.
#![allow(clippy::unwrap_used, reason = "a test")]

mod synthetic;

use sparsevd_format::{CsrProfile, WriteOptions, write_network_bytes};
use sparsevd_model::{Csr, Dense, Network, Shape, presets};

use synthetic::Workplace;

/// A small network with a CSR weight, whose bytes are damaged in many ways.
fn network() -> Network {
    let preset = presets::mlp("small", Shape::from([1, 2, 2]), &[3, 2]);
    Network::from_preset(preset, |name, shape| {
        let values = (0..shape.elements()).map(|i| match i % 2 {
            0 => 0.5 + i as f32,
            _ => 0.0,
        });
        let dense = Dense::new(shape.clone(), values.collect());
        match name {
            "fc1.weight" => Csr::from_dense(&dense).into(),
            _ => dense.into(),
        }
    })
    .unwrap()
}

/// The file with its header changed as text; the length follows.
fn with_header(file: &[u8], change: impl FnOnce(String) -> String) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8(file[8..8 + length].to_vec()).unwrap();
    let changed = change(header.clone());
    assert_ne!(header, changed, "the change did not take");
    let mut bytes = (changed.len() as u64).to_le_bytes().to_vec();
    bytes.extend(changed.as_bytes());
    bytes.extend(&file[8 + length..]);
    bytes
}

/// The file with the data of a tensor changed.
fn with_data(file: &[u8], tensor: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    let [from, to] =
        [0, 1].map(|i| header[tensor]["data_offsets"][i].as_u64().unwrap() as usize + 8 + length);
    let mut bytes = file.to_vec();
    change(&mut bytes[from..to]);
    bytes
}

#[test]
fn hostile_networks_are_refused_by_both_binaries() {
    let w = Workplace::without_network();
    // In the compact profile so small a weight has a bit for each element.
    let masked = write_network_bytes(&network(), &WriteOptions::default()).unwrap();
    let options = WriteOptions {
        profile: CsrProfile::Interop,
        ..WriteOptions::default()
    };
    let good = write_network_bytes(&network(), &options).unwrap();
    let tensor = |name: &str, header: &str| -> String {
        let at = header.find(&format!("\"{name}\":{{\"dtype\"")).unwrap();
        header[at..at + header[at..].find('}').unwrap() + 1].to_owned()
    };
    let header = |change: &dyn Fn(String) -> String| with_header(&good, change);
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &[]),
        ("seven-bytes", good[..7].to_vec(), &[]),
        ("cut-header", good[..100].to_vec(), &[]),
        ("cut-data", good[..good.len() - 1].to_vec(), &[]),
        ("longer", [&good[..], &[0]].concat(), &[]),
        (
            "huge-header",
            [&u64::MAX.to_le_bytes()[..], &good[8..]].concat(),
            &[],
        ),
        ("no-json", header(&|h| h.replacen('{', "[", 1)), &[]),
        (
            "overlap",
            header(&|h| {
                let of = |name| tensor(name, &h);
                let (weight, bias) = (of("fc2.weight"), of("fc1.bias"));
                let offsets = weight[weight.find("\"data_offsets\"").unwrap()..].to_owned();
                h.replace(
                    &bias,
                    &format!(
                        "{}{offsets}",
                        &bias[..bias.find("\"data_offsets\"").unwrap()]
                    ),
                )
            }),
            &[],
        ),
        (
            "shape",
            header(&|h| h.replacen("\"shape\":[2,3]", "\"shape\":[2,4]", 1)),
            &[],
        ),
        (
            "overflow",
            header(&|h| h.replacen("\"shape\":[2,3]", "\"shape\":[9223372036854775807,4]", 1)),
            &[],
        ),
        (
            "dtype",
            header(&|h| {
                h.replace(
                    &tensor("fc2.weight", &h),
                    &tensor("fc2.weight", &h).replace("F32", "I32"),
                )
            }),
            &["fc2.weight", "I32"],
        ),
        (
            "crow",
            with_data(&good, "fc1.weight.crow_indices", |d| {
                d[4..8].copy_from_slice(&99u32.to_le_bytes())
            }),
            &["fc1.weight", "expected"],
        ),
        (
            "crow-back",
            with_data(&good, "fc1.weight.crow_indices", |d| {
                d[8..12].copy_from_slice(&0u32.to_le_bytes())
            }),
            &["fc1.weight", "expected"],
        ),
        (
            "column",
            with_data(&good, "fc1.weight.col_indices", |d| {
                d[..4].copy_from_slice(&400u32.to_le_bytes())
            }),
            &["fc1.weight", "column", "400"],
        ),
        (
            "bits",
            with_data(&masked, "fc1.weight.bitmask", |d| d.fill(0xff)),
            &["fc1.weight.bitmask", "set"],
        ),
        (
            "nan",
            with_data(&good, "fc1.weight.values", |d| {
                d[..4].copy_from_slice(&f32::NAN.to_le_bytes())
            }),
            &["fc1.weight", "NaN"],
        ),
        (
            "infinite-bias",
            with_data(&good, "fc2.bias", |d| {
                d[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())
            }),
            &["fc2.bias", "inf"],
        ),
        (
            "csr-shape",
            header(&|h| {
                h.replace(
                    "\\\"shape\\\":[3,4]",
                    "\\\"shape\\\":[4294967296,4294967296]",
                )
            }),
            &["fc1.weight"],
        ),
        (
            "csr-rows",
            header(&|h| h.replace("\\\"shape\\\":[3,4]", "\\\"shape\\\":[4,4]")),
            &["fc1.weight"],
        ),
        (
            "csr-unsaid",
            header(&|h| h.replace("sparsevd.sparse", "sparsevd.sparsa")),
            &["fc1.weight"],
        ),
        (
            "graph-json",
            header(&|h| h.replace("\\\"op\\\":\\\"Relu\\\"", "\\\"op\\\":\\\"Selu\\\"")),
            &["Selu"],
        ),
        (
            "graph-order",
            header(&|h| {
                h.replace(
                    "\\\"inputs\\\":[\\\"fc1\\\"]",
                    "\\\"inputs\\\":[\\\"fc9\\\"]",
                )
            }),
            &["fc9"],
        ),
        (
            "graph-tensor",
            header(&|h| {
                h.replace(
                    "\\\"weight\\\":\\\"fc2.weight\\\"",
                    "\\\"weight\\\":\\\"fc3.weight\\\"",
                )
            }),
            &["fc3.weight"],
        ),
        (
            "graph-input",
            header(&|h| h.replace("\\\"shape\\\":[1,2,2]", "\\\"shape\\\":[1,2,3]")),
            &["fc1"],
        ),
    ];
    let mut failures = vec![];
    for (name, bytes, words) in &cases {
        let file = format!("{name}.safetensors");
        w.write(&file, bytes);
        let words: Vec<&str> = words.iter().copied().chain([file.as_str()]).collect();
        failures.extend(w.complaint(&["inspect", &file], &words));
        failures.extend(w.complaint(&["convert", &file, "out.safetensors", "--dense"], &words));
        failures.extend(w.complaint(&[&file, "--data", "data"], &words));
        let output = w.run_sparse(&["plan", &file]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(2) || stderr.lines().count() != 1 || !stderr.contains(&file)
        {
            failures.push(format!(
                "run-sparse plan {file}: {:?}, {stderr}",
                output.status.code()
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    // What was damaged was good.
    w.write("good.safetensors", &good);
    w.ok(&["inspect", "good.safetensors"]);
}
