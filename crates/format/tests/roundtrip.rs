//! Networks are read as they were written, and writing is deterministic.
#![allow(clippy::unwrap_used)]

mod networks;

use std::collections::BTreeMap;
use std::fs;

use half::{bf16, f16};
use networks::{Pieces, fill, lenet_5, tiny};
use proptest::prelude::*;
use sparsevd_format::*;
use sparsevd_model::{Csr, Dense, Graph, Network, Shape, Weights, presets};
use sparsevd_testing::arbitrary::Stream;

fn options(values: ValueType, profile: CsrProfile) -> WriteOptions {
    WriteOptions {
        values,
        profile,
        metadata: BTreeMap::new(),
    }
}

fn read(bytes: &[u8]) -> LoadedNetwork {
    read_network_bytes("test.safetensors", bytes, &GraphSource::Auto).unwrap()
}

/// The network with its weights, but not its biases, rounded.
fn rounded(network: &Network, round: impl Fn(f32) -> f32) -> Network {
    let mut out = network.clone();
    for node in network.graph.weighted_nodes() {
        let name = node.op.weight().unwrap();
        let tensor = out.tensors.get_mut(name).unwrap();
        *tensor = match &*tensor {
            Weights::Csr(c) => Weights::Csr(
                Csr::try_new(
                    c.shape().clone(),
                    c.crow_indices().to_vec(),
                    c.col_indices().to_vec(),
                    c.values().iter().map(|v| round(*v)).collect(),
                )
                .unwrap(),
            ),
            Weights::Dense(d) => Weights::Dense(Dense::new(
                d.shape.clone(),
                d.values.iter().map(|v| round(*v)).collect(),
            )),
            _ => unreachable!(),
        };
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_mlp_comes_back_in_every_value_type_and_profile(
        seed in any::<u64>(),
        input in 1_usize..12,
        widths in prop::collection::vec(1_usize..9, 1..4),
        density in prop_oneof![Just(0.0), Just(0.2), Just(1.0)],
        csr in any::<u8>(),
    ) {
        let (graph, tensors) = presets::mlp("net", Shape::from([input]), &widths);
        let network = fill(graph, &tensors, seed, density, |i| csr >> i & 1 == 1);
        for profile in [CsrProfile::Compact, CsrProfile::Interop] {
            for values in [ValueType::F32, ValueType::F16, ValueType::Bf16] {
                let bytes = write_network_bytes(&network, &options(values, profile)).unwrap();
                let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                prop_assert_eq!((8 + n) % 64, 0);
                let want = match values {
                    ValueType::F16 => rounded(&network, |v| f16::from_f32(v).to_f32()),
                    ValueType::Bf16 => rounded(&network, |v| bf16::from_f32(v).to_f32()),
                    _ => network.clone(),
                };
                let loaded = read(&bytes);
                prop_assert_eq!(loaded.network, want);
                prop_assert_eq!(loaded.notes, Vec::<String>::new());
                // Every tensor is aligned to its own elements, so that others may map the file.
                for (name, info) in Pieces::of(&bytes).header.as_object().unwrap() {
                    if name != "__metadata__" {
                        let size = match info["dtype"].as_str().unwrap() {
                            "F32" | "U32" | "I32" => 4,
                            "U8" => 1,
                            _ => 2,
                        };
                        prop_assert_eq!(info["data_offsets"][0].as_u64().unwrap() % size, 0);
                    }
                }
            }
        }
    }
}

#[test]
fn a_file_is_the_same_bytes_every_time_and_keeps_foreign_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lenet.safetensors");
    let network = lenet_5();
    let mut options = WriteOptions::default();
    for i in 0..20 {
        (options.metadata).insert(format!("key {i}"), format!("\"{i}\" \u{e9}"));
    }
    let bytes = write_network_bytes(&network, &options).unwrap();
    assert_eq!(
        write_network(&path, &network, &options).unwrap(),
        bytes.len() as u64
    );
    for _ in 0..4 {
        assert_eq!(write_network_bytes(&network, &options).unwrap(), bytes);
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let loaded = read_network(&path, &GraphSource::Auto).unwrap();
    assert_eq!(loaded.network, network);
    assert_eq!(loaded.metadata, options.metadata);
    // Another reader accepts it and finds what it looks for.
    let view = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(
        view.tensor("conv2.weight.gaps").unwrap().dtype(),
        safetensors::Dtype::U8
    );
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
}

#[test]
fn original_shapes_come_back() {
    let mut network = tiny();
    (network.original_shapes).insert("fc1.bias".into(), Shape::from([5]));
    let loaded = read(&write_network_bytes(&network, &WriteOptions::default()).unwrap());
    assert_eq!(
        loaded.network.original_shapes["fc1.weight"],
        Shape::from([5, 4])
    );
    assert_eq!(loaded.network, network);
}

#[test]
fn wide_matrices_get_wide_columns() {
    for (cols, dtype) in [(65_536, "U16"), (65_537, "U32")] {
        let (graph, tensors) = presets::mlp("wide", Shape::from([cols]), &[2]);
        let network = fill(graph, &tensors, 1, 0.001, |_| true);
        let bytes = write_network_bytes(&network, &WriteOptions::default()).unwrap();
        assert_eq!(
            Pieces::of(&bytes).header["fc1.weight.col_indices"]["dtype"],
            dtype
        );
        assert_eq!(read(&bytes).network, network);
    }
}

/// Of four layouts; bits are padded in each row. `gaps.rs` has more.
#[test]
fn places_take_the_fewest_bytes() {
    // 64 rows of 200 columns: 1,600 bytes of bits; 130 bytes of row starts and two for each value; half a byte or one for each value and for so many zeros. With fewer
    // values than rows no gaps.
    for (nonzeros, layout) in [
        (63, "csr"),
        (64, "gaps8"),
        (735, "gaps4"),
        (3_000, "gaps4"),
        (3_200, "row-bitmask"),
        (12_800, "row-bitmask"),
    ] {
        let (graph, tensors) = presets::mlp("net", Shape::from([200]), &[64]);
        let mut network = fill(graph, &tensors, 1, 0.0, |_| true);
        let mut values = vec![0.0; 12_800];
        (0..nonzeros).for_each(|i| values[i * 7919 % 12_800] = 1.0 + i as f32);
        let csr = Csr::from_dense(&Dense::new([64, 200], values));
        network
            .tensors
            .insert("fc1.weight".into(), Weights::Csr(csr));
        let size = |profile| {
            let bytes = write_network_bytes(&network, &options(ValueType::F32, profile)).unwrap();
            assert_eq!(read(&bytes).network, network, "{nonzeros}");
            let sparse = &Pieces::of(&bytes).header["__metadata__"]["sparsevd.sparse"];
            let is_it = sparse.as_str().unwrap().contains(layout);
            assert_eq!(
                is_it,
                layout == "csr" || profile == CsrProfile::Compact,
                "{nonzeros}: {sparse}"
            );
            bytes.len()
        };
        assert!(size(CsrProfile::Compact) < size(CsrProfile::Interop));
    }
}

#[test]
fn many_non_zeros_get_wide_row_starts() {
    for (nonzeros, dtype) in [(65_535, "U16"), (65_536, "U32")] {
        // More rows than values have no gaps.
        let rows = 70_000;
        let (graph, tensors) = presets::mlp("long", Shape::from([64]), &[rows]);
        let mut network = fill(graph, &tensors, 1, 0.0, |_| true);
        let shape = Shape::from([rows, 64]);
        let starts = (0..=rows as u32).map(|row| row.min(nonzeros)).collect();
        let columns = (0..nonzeros).map(|i| i % 64).collect();
        let csr = Csr::try_new(shape, starts, columns, vec![0.5; nonzeros as usize]).unwrap();
        (network.tensors).insert("fc1.weight".into(), Weights::Csr(csr));
        let bytes = write_network_bytes(&network, &WriteOptions::default()).unwrap();
        let starts = &Pieces::of(&bytes).header["fc1.weight.crow_indices"];
        assert_eq!(starts["dtype"], dtype);
        assert_eq!(read(&bytes).network, network);
    }
}

#[test]
fn a_preset_is_named_and_its_first_shapes_are_known() {
    let mut network = lenet_5();
    let mut stream = Stream(3);
    // 500 to 499 hidden units.
    for (name, shape) in [("fc1.weight", [499, 800]), ("fc2.weight", [10, 499])] {
        let csr = stream.sparse(Shape::from(shape), 0.01);
        (network.tensors).insert(name.into(), Weights::Csr(csr));
    }
    let bias = Dense::zeros(Shape::from([499]));
    (network.tensors).insert("fc1.bias".into(), Weights::Dense(bias));
    let metadata = |network: &Network, profile| {
        let bytes = write_network_bytes(network, &options(ValueType::F32, profile)).unwrap();
        assert_eq!(read(&bytes).network, *network);
        Pieces::of(&bytes).header["__metadata__"].clone()
    };
    // Smaller than the preset without ever having been larger: that is said by the graph in full.
    let foreign = metadata(&network, CsrProfile::Compact);
    assert!(
        foreign["sparsevd.network"]
            .as_str()
            .unwrap()
            .starts_with('{')
    );
    for (name, shape) in [("fc1.weight", [500, 800]), ("fc2.weight", [10, 500])] {
        (network.original_shapes).insert(name.into(), Shape::from(shape));
    }
    let named = metadata(&network, CsrProfile::Compact);
    assert_eq!(named["sparsevd.network"], "lenet-5");
    assert!(named.get("sparsevd.original").is_none());
    let whole = metadata(&network, CsrProfile::Interop);
    assert!(whole["sparsevd.network"].as_str().unwrap().starts_with('{'));
    assert!(whole["sparsevd.original"].as_str().unwrap().contains("500"));
}

#[test]
fn grids_stay_where_16_bits_hold_them_and_biases_are_short_where_that_is_exact() {
    let mut network = tiny();
    for (name, scale) in [("fc1.weight", 0.5), ("fc1.bias", 0.25), ("fc2.weight", 1.0)] {
        network.set_scale(name, scale).unwrap();
    }
    let dtype = |bytes: &[u8], name: &str| Pieces::of(bytes).header[name]["dtype"].clone();
    for (values, bias) in [
        (ValueType::F32, "F32"),
        (ValueType::F16, "F16"),
        (ValueType::Bf16, "BF16"),
        (ValueType::I8, "F16"),
    ] {
        let bytes = write_network_bytes(&network, &options(values, CsrProfile::Compact)).unwrap();
        assert_eq!(dtype(&bytes, "fc1.bias"), bias);
        assert_eq!(read(&bytes).network, network, "{values:?}");
    }
    // Beyond 11 bits of significand: 0.25 and 2^-13 more.
    let bias = Dense::new([3], vec![0.25, 0.5, 0.250_122_07]);
    (network.tensors).insert("fc1.bias".into(), Weights::Dense(bias));
    network.scales.remove("fc1.bias");
    let bytes =
        write_network_bytes(&network, &options(ValueType::F16, CsrProfile::Compact)).unwrap();
    assert_eq!(dtype(&bytes, "fc1.bias"), "F32");
    assert_eq!(read(&bytes).network, network);
}

#[test]
fn misaligned_tensors_are_read_all_the_same() {
    // An odd number of U8 in front moves everything else off its alignment, as other writers do.
    let network = tiny();
    let pieces = Pieces::of(&write_network_bytes(&network, &WriteOptions::default()).unwrap());
    let mut odd = pieces.clone();
    odd.data.insert(0, 7);
    for (name, info) in odd.header.as_object_mut().unwrap() {
        if name != "__metadata__" {
            for end in info["data_offsets"].as_array_mut().unwrap() {
                *end = (end.as_u64().unwrap() + 1).into();
            }
        }
    }
    odd.header["odd"] = serde_json::json!({"dtype": "U8", "shape": [1], "data_offsets": [0, 1]});
    let loaded = read(&odd.join());
    assert_eq!(loaded.network, network);
    assert!(
        loaded.notes[0].ends_with("dropped: odd"),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn quantised_values_are_scaled_per_tensor_or_per_row() {
    let pieces = Pieces::of(&write_network_bytes(&tiny(), &WriteOptions::default()).unwrap());
    let scales: [&[f32]; 2] = [&[0.5], &[0.5, 1.0, 2.0]];
    let want = [
        [1.0, -1.5, 50.0, -64.0, 63.5],
        [1.0, -1.5, 200.0, -256.0, 254.0],
    ];
    for (scale, want) in scales.into_iter().zip(want) {
        let mut q = pieces.clone();
        let bytes: Vec<u8> = scale.iter().flat_map(|s| s.to_le_bytes()).collect();
        q.replace("fc1.weight.scale", "F32", &[scale.len()], &bytes);
        let values = [2_i8, -3, 100, -128, 127].map(i8::cast_unsigned);
        q.replace("fc1.weight.values", "I8", &[5], &values);
        let network = read(&q.join()).network;
        assert_eq!(network.tensors["fc1.weight"].values(), want);
    }
}

#[test]
fn dense_tensors_of_other_float_types_are_widened_or_narrowed() {
    let pieces = Pieces::of(&write_network_bytes(&tiny(), &WriteOptions::default()).unwrap());
    let f16s: Vec<u8> = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect();
    let f64s: Vec<u8> = [1.0_f64, 2.0, 3.0, 4.0, 5.0, 6.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    for (dtype, bytes) in [("F16", f16s), ("F64", f64s)] {
        let mut other = pieces.clone();
        other.replace("fc2.weight", dtype, &[2, 3], &bytes);
        assert_eq!(read(&other.join()).network, tiny(), "{dtype}");
    }
}

#[test]
fn a_value_that_f16_cannot_hold_names_its_tensor_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = tiny();
    if let Some(Weights::Dense(d)) = network.tensors.get_mut("fc2.weight") {
        d.values[4] = 70_000.0;
    }
    let f16 = options(ValueType::F16, CsrProfile::Compact);
    let error = write_network(folder.path().join("x.safetensors"), &network, &f16)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("x.safetensors: tensor `fc2.weight`: element 4")
            && error.contains("F16")
            && error.contains("70000"),
        "{error}"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // bfloat16 has the range, and a bias stays F32 in both.
    write_network_bytes(&network, &options(ValueType::Bf16, CsrProfile::Compact)).unwrap();
    let mut network = tiny();
    if let Some(Weights::Dense(d)) = network.tensors.get_mut("fc2.bias") {
        d.values[0] = 1e30;
    }
    assert_eq!(
        read(&write_network_bytes(&network, &f16).unwrap())
            .network
            .tensors["fc2.bias"],
        network.tensors["fc2.bias"]
    );
}

#[test]
fn what_could_not_be_read_is_not_written() {
    let reserved = WriteOptions {
        metadata: BTreeMap::from([("format".to_owned(), "tf".to_owned())]),
        ..WriteOptions::default()
    };
    let error = write_network_bytes(&tiny(), &reserved).unwrap_err();
    assert!(error.to_string().contains("`format`"), "{error}");

    let mut nan = tiny();
    if let Some(Weights::Dense(d)) = nan.tensors.get_mut("fc1.bias") {
        d.values[1] = f32::NAN;
    }
    let error = write_network_bytes(&nan, &WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`fc1.bias`"), "{error}");

    let mut grown = tiny();
    (grown.original_shapes).insert("fc2.weight".into(), Shape::from([1, 3]));
    let error = write_network_bytes(&grown, &WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`fc2.weight`"), "{error}");

    let mut sparse_bias = tiny();
    let csr = sparsevd_model::Csr::from_dense(&tiny().tensors["fc2.bias"].to_dense());
    (sparse_bias.tensors).insert("fc2.bias".into(), Weights::Csr(csr));
    let error = write_network_bytes(&sparse_bias, &WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`fc2.bias`"), "{error}");

    let mut twice = tiny();
    let bias = twice.tensors["fc1.bias"].clone();
    (twice.tensors).insert("fc1.weight.values".into(), bias);
    let error = write_network_bytes(&twice, &WriteOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`fc1.weight.values`"), "{error}");
}

/// A file of dense tensors without metadata.
fn bare(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut pieces = Pieces {
        header: serde_json::json!({}),
        data: vec![],
    };
    for (name, shape) in tensors {
        let n: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
        pieces.replace(name, "F32", shape, &bytes);
    }
    pieces.join()
}

#[test]
fn the_graph_is_found_in_the_documented_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let at = |name: &str| folder.path().join(name);
    fs::write(
        &path,
        bare(&[
            ("a.weight", &[3, 4]),
            ("a.bias", &[3]),
            ("b.weight", &[2, 3]),
        ]),
    )
    .unwrap();
    let load = |source: &GraphSource| read_network(&path, source);

    // A chain of matrices.
    let loaded = load(&GraphSource::Auto).unwrap();
    assert_eq!(loaded.network.graph.nodes.len(), 4);
    assert!(
        loaded.warnings[0].contains("2 layer(s)")
            && loaded.warnings[0].contains("a.weight, b.weight"),
        "{:?}",
        loaded.warnings
    );

    // A foreign config.json changes nothing but a note.
    fs::write(at("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    let loaded = load(&GraphSource::Auto).unwrap();
    assert!(
        loaded.notes[0].contains("config.json was ignored"),
        "{:?}",
        loaded.notes
    );

    // One that holds a graph is taken, with fields of other programs; its tensors must be there.
    let (mut graph, _) = presets::mlp("from config", Shape::from([4]), &[3, 2]);
    let json = |graph: &Graph| serde_json::to_string(graph).unwrap();
    fs::write(at("config.json"), json(&graph)).unwrap();
    let error = load(&GraphSource::Auto).unwrap_err().to_string();
    assert!(
        error.contains("node `fc1` names the tensor `fc1.weight`"),
        "{error}"
    );
    graph.nodes[0]
        .op
        .rename_tensors("a.weight".into(), Some("a.bias".into()));
    graph.nodes[2].op.rename_tensors("b.weight".into(), None);
    let mut with_more = serde_json::to_value(&graph).unwrap();
    with_more["model_type"] = "mlp".into();
    fs::write(at("config.json"), with_more.to_string()).unwrap();
    let loaded = load(&GraphSource::Auto).unwrap();
    assert_eq!(loaded.network.graph.name, "from config");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);

    // network.json wins over it, and a named file over both.
    graph.name = "from network".into();
    fs::write(at("network.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    assert_eq!(
        load(&GraphSource::Auto).unwrap().network.graph.name,
        "from network"
    );
    graph.name = "named".into();
    fs::write(at("other.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    let named = GraphSource::Named(at("other.json").to_str().unwrap().into());
    assert_eq!(load(&named).unwrap().network.graph.name, "named");

    // The metadata wins over the files beside, and a name over the metadata.
    write_network(&path, &tiny(), &WriteOptions::default()).unwrap();
    assert_eq!(load(&GraphSource::Auto).unwrap().network.graph.name, "tiny");
    for (node, name) in [(0, "fc1"), (2, "fc2")] {
        let [weight, bias] = ["weight", "bias"].map(|kind| format!("{name}.{kind}"));
        graph.nodes[node].op.rename_tensors(weight, Some(bias));
    }
    fs::write(at("other.json"), serde_json::to_string(&graph).unwrap()).unwrap();
    assert_eq!(load(&named).unwrap().network.graph.name, "named");

    // A broken network.json is an error, not a reason to look further.
    fs::write(&path, bare(&[("a.weight", &[3, 4])])).unwrap();
    fs::write(at("network.json"), "{").unwrap();
    let error = load(&GraphSource::Auto).unwrap_err().to_string();
    assert!(error.contains("network.json: graph"), "{error}");
}

#[test]
fn presets_bind_by_order_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(
        &path,
        bare(&[
            ("0.weight", &[20, 1, 5, 5]),
            ("0.bias", &[20]),
            ("3.weight", &[50, 20, 5, 5]),
            ("3.bias", &[50]),
            ("7.weight", &[500, 800]),
            ("7.bias", &[500]),
            ("10.weight", &[10, 500]),
            ("10.bias", &[10]),
        ]),
    )
    .unwrap();
    let load = |name: &str| read_network(&path, &GraphSource::Named(name.into()));
    let loaded = load("lenet-5").unwrap();
    assert_eq!(loaded.network.original_weights(), 430_500);
    assert!(
        loaded.warnings[0].contains("10.weight to fc2"),
        "{:?}",
        loaded.warnings
    );
    let text = |r: Result<LoadedNetwork, FormatError>| r.unwrap_err().to_string();
    assert!(text(load("lenet-300-100")).contains("has 3 weights, the file has 4"));
    let error = text(load("lenet-6"));
    assert!(
        error.contains("`lenet-6`") && error.contains("lenet-300-100, lenet-5"),
        "{error}"
    );
    // Without a name there is no guess: filters are no chain of matrices.
    let error = text(read_network(&path, &GraphSource::Auto));
    for part in [
        "network.json",
        "lenet-5",
        "sparsevd.network",
        "10.weight [10, 500]",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_chain_with_other_tensors_is_not_guessed_at() {
    let bytes = bare(&[
        ("fc1.weight", &[3, 4]),
        ("bn1.weight", &[3]),
        ("bn1.bias", &[3]),
        ("fc2.weight", &[2, 3]),
    ]);
    let error = read_network_bytes("x.safetensors", &bytes, &GraphSource::Auto).unwrap_err();
    assert!(
        error.to_string().contains("`bn1.bias`, `bn1.weight`"),
        "{error}"
    );
}

#[test]
fn encodings_are_exact() {
    let network = lenet_5();
    let sizes: BTreeMap<String, u64> = inspect_encodings(&network).into_iter().collect();
    let file = |network: &Network, values| {
        write_network_bytes(network, &options(values, CsrProfile::Compact))
            .unwrap()
            .len() as u64
    };
    assert_eq!(
        sizes["dense f32, safetensors file"],
        file(&network.to_dense(), ValueType::F32)
    );
    assert_eq!(
        sizes["sparse f32, safetensors file"],
        file(&network, ValueType::F32)
    );
    assert_eq!(
        sizes["sparse f16, safetensors file"],
        file(&network, ValueType::F16)
    );
    let (nonzeros, rows) = (network.nonzeros() as u64, 580);
    assert_eq!(
        sizes["CSR f32 + u32 columns, arrays alone"],
        8 * nonzeros + 4 * (rows + 4) + 4 * rows
    );
    let mask = 20 * 4 + 50 * 63 + 500 * 100 + 10 * 63;
    assert_eq!(
        sizes["bitmask + f16, arrays alone (rows padded to bytes, no row offsets)"],
        mask + 2 * nonzeros + 4 * rows
    );
    // The same network dense has the same list.
    assert_eq!(
        inspect_encodings(&network.to_dense()),
        inspect_encodings(&network)
    );
}
