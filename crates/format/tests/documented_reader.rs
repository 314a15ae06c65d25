//! The Python reader in `docs/format.md` reads our files.
#![allow(clippy::unwrap_used)]

mod networks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use half::f16;
use networks::{Pieces, fill, lenet_5, table_of_int4, tiny};
use serde_json::Value;
use sparsevd_format::*;
use sparsevd_model::{Graph, Network, presets};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    fs::read_to_string(path).unwrap()
}

/// The first fenced block of a language.
fn block(document: &str, language: &str) -> String {
    let start = format!("```{language}\n");
    let after = document.split_once(&start).expect("the block is there").1;
    after.split_once("```").unwrap().0.to_owned()
}

/// A Python that has numpy: `SPARSEVD_PYTHON`, or `python3` where it can import it.
fn python() -> Option<String> {
    let named = std::env::var("SPARSEVD_PYTHON");
    let python = named.clone().unwrap_or_else(|_| "python3".into());
    let check = Command::new(&python).args(["-c", "import numpy"]).output();
    let works = check.is_ok_and(|out| out.status.success());
    assert!(
        works || named.is_err(),
        "SPARSEVD_PYTHON={python} cannot import numpy"
    );
    works.then_some(python)
}

/// LeNet-5 with a tenth of its weights.
fn tenth() -> Network {
    let (graph, tensors) = presets::by_name("lenet-5").unwrap();
    fill(graph, &tensors, 6, 0.1, |_| true)
}

/// The layouts that the metadata of a file name.
fn layouts(file: &Pieces) -> Vec<String> {
    let Some(entries) = file.header["__metadata__"][metadata_keys::SPARSE].as_str() else {
        return vec![];
    };
    let entries: BTreeMap<String, Value> = serde_json::from_str(entries).unwrap();
    let layouts = entries.values().filter_map(|e| e["layout"].as_str());
    layouts.map(str::to_owned).collect()
}

#[test]
fn the_python_block_reads_every_kind_of_file() {
    let code = block(&document(), "python");
    for part in [
        "__metadata__",
        "sparsevd.sparse",
        "values",
        "scale",
        "col_indices",
        "crow_indices",
        "bitmask",
        "gaps4",
        "gaps8",
        "int4",
    ] {
        assert!(code.contains(part), "the reader does not name {part}");
    }
    let Some(python) = python() else {
        println!("not run: no python3 with numpy here; set SPARSEVD_PYTHON to one");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let main = "for i in range(int(sys.argv[1])):
    np.savez(f'{i}.npz', **{k: v.astype('f4') for k, v in read(f'{i}.safetensors').items()})";
    fs::write(at("reader.py"), format!("{code}\nimport sys\n{main}\n")).unwrap();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, network) in [
        ("lenet", lenet_5()),
        ("tiny", tiny()),
        ("a tenth", tenth()),
        ("dense", tiny().to_dense()),
    ] {
        for profile in [CsrProfile::Compact, CsrProfile::Interop] {
            for values in [ValueType::F32, ValueType::F16, ValueType::Bf16] {
                let options = WriteOptions {
                    values,
                    profile,
                    ..WriteOptions::default()
                };
                let bytes = write_network_bytes(&network, &options).unwrap();
                files.push((format!("{name} {profile:?} {values:?}"), bytes));
            }
        }
    }
    for rows in [1, 3] {
        let mut pieces =
            Pieces::of(&write_network_bytes(&tiny(), &WriteOptions::default()).unwrap());
        pieces.replace("fc1.weight.values", "I8", &[5], &[1, 255, 127, 128, 3]);
        let scale: Vec<u8> = (1..=rows)
            .flat_map(|r| (r as f32 / 4.0).to_le_bytes())
            .collect();
        pieces.replace("fc1.weight.scale", "F32", &[rows], &scale);
        let halves: Vec<u8> = (0..6)
            .flat_map(|v| f16::from_f32(v as f32).to_le_bytes())
            .collect();
        pieces.replace("fc2.weight", "F16", &[2, 3], &halves);
        files.push((format!("I8 with {rows} scale(s)"), pieces.join()));
    }
    for rows in [1, 2] {
        let mut pieces =
            Pieces::of(&write_network_bytes(&tiny(), &WriteOptions::default()).unwrap());
        pieces.replace("fc2.weight", "I8", &[2, 3], &[1, 255, 127, 128, 3, 0]);
        pieces.replace(
            "fc2.weight.scale",
            "F32",
            &[rows],
            &[0, 0, 0x40, 0x3f].repeat(rows),
        );
        files.push((format!("dense I8 with {rows} scale(s)"), pieces.join()));
    }
    for width in [6, 7] {
        let bytes = write_network_bytes(&table_of_int4(width), &WriteOptions::default()).unwrap();
        files.push((format!("a table of {width} columns of 4 bits"), bytes));
    }
    let layouts: BTreeSet<String> = (files.iter())
        .flat_map(|(_, bytes)| layouts(&Pieces::of(bytes)))
        .collect();
    let all = ["csr", "gaps4", "gaps8", "row-bitmask"];
    assert_eq!(layouts, all.map(str::to_owned).into());
    for (i, (_, bytes)) in files.iter().enumerate() {
        fs::write(at(&format!("{i}.safetensors")), bytes).unwrap();
    }
    let run = Command::new(&python)
        .current_dir(folder.path())
        .args(["reader.py", &files.len().to_string()])
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    for (i, (name, bytes)) in files.iter().enumerate() {
        let ours = read_network_bytes("x", bytes, &GraphSource::Auto)
            .unwrap()
            .network;
        let theirs = read_npz(at(&format!("{i}.npz"))).unwrap();
        assert_eq!(theirs.len(), ours.tensors.len(), "{name}");
        for (tensor, array) in theirs {
            let dense = ours.tensors[&tensor].to_dense();
            assert_eq!(array.shape, dense.shape.dims(), "{name}: {tensor}");
            assert_eq!(array.data, ArrayData::F32(dense.values), "{name}: {tensor}");
        }
    }
}

#[test]
fn the_graph_in_the_document_is_valid_and_written_as_shown() {
    let json = block(&document(), "json");
    let graph: Graph = serde_json::from_str(&json).unwrap();
    graph.check().unwrap();
    let stream = &mut sparsevd_testing::arbitrary::Stream(1);
    let tensors = [
        ("conv1.weight", vec![4, 1, 5, 5]),
        ("conv1.bias", vec![4]),
        ("fc1.weight", vec![10, 4 * 12 * 12]),
        ("fc1.bias", vec![10]),
    ];
    let tensors = tensors.map(|(name, shape)| {
        let dense = stream.bernoulli(sparsevd_model::Shape(shape), 1.0);
        (name.to_owned(), sparsevd_model::Weights::Dense(dense))
    });
    let network = Network::new(graph, tensors.into()).unwrap();
    let bytes = write_network_bytes(&network, &WriteOptions::default()).unwrap();
    let back = read_network_bytes("x", &bytes, &GraphSource::Auto).unwrap();
    assert_eq!(back.network, network);
}

#[test]
fn the_document_names_every_key_and_preset() {
    let document = document();
    for name in metadata_keys::ALL
        .iter()
        .chain(&sparsevd_model::presets::NAMES)
    {
        assert!(document.contains(&format!("`{name}`")), "{name}");
    }
}
