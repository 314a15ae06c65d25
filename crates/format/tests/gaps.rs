//! Places of values as the zeros before each: against a slow twin, and broken files are errors that name what is wrong.
#![allow(clippy::unwrap_used)]

mod networks;

use networks::{Pieces, fill};
use proptest::prelude::*;
use serde_json::{Value, json};
use sparsevd_format::*;
use sparsevd_model::{Csr, Dense, Network, Shape, Weights, presets};
use sparsevd_testing::arbitrary::Stream;

const GAPS: &str = "fc1.weight.gaps";
const VALUES: &str = "fc1.weight.values";

/// A layer with a weight of these elements.
fn layer([rows, cols]: [usize; 2], values: Vec<f32>) -> Network {
    let (graph, tensors) = presets::mlp("layer", Shape::from([cols]), &[rows]);
    let mut network = fill(graph, &tensors, 1, 0.0, |_| true);
    let csr = Csr::from_dense(&Dense::new([rows, cols], values));
    let weight = "fc1.weight".to_owned();
    network.tensors.insert(weight, Weights::Csr(csr));
    network
}

fn written(network: &Network) -> Pieces {
    Pieces::of(&write_network_bytes(network, &WriteOptions::default()).unwrap())
}

fn layout(pieces: &Pieces) -> String {
    let entries = pieces.header["__metadata__"][metadata_keys::SPARSE].as_str();
    let entries: Value = serde_json::from_str(entries.unwrap()).unwrap();
    let layout = &entries["fc1.weight"]["layout"];
    layout.as_str().unwrap().to_owned()
}

fn read(pieces: &Pieces) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/bytes.safetensors", &pieces.join(), &GraphSource::Auto)
}

/// The elements in C order that codes and values stand for.
fn decoded(codes: &[u8], most: u8, values: &[f32], elements: usize) -> Vec<f32> {
    let mut out = Vec::new();
    let mut values = values.iter();
    for &code in codes {
        out.extend(vec![0.0; usize::from(code)]);
        if code < most {
            out.extend(values.next());
        }
    }
    out.resize(elements, 0.0);
    out
}

#[test]
fn the_codes_are_those_of_the_document() {
    // 2 zeros; 0; 15 = 15 and 0; 16 = 15 and 1.
    let mut values = vec![0.0; 64];
    for (place, value) in [(2, 1.0), (3, 2.0), (19, 3.0), (36, 4.0)] {
        values[place] = value;
    }
    let mut pieces = written(&layer([2, 32], values.clone()));
    assert_eq!(layout(&pieces), "gaps4");
    assert_eq!(pieces.data[pieces.range(GAPS)], [0x02, 0x0f, 0x1f]);
    let elements = |pieces: &Pieces| {
        let network = read(pieces).unwrap().network;
        network.tensors["fc1.weight"].to_dense().values
    };
    assert_eq!(elements(&pieces), values);
    pieces.edit(metadata_keys::SPARSE, |v| {
        v["fc1.weight"]["layout"] = json!("gaps8")
    });
    pieces.replace(GAPS, "U8", &[4], &[2, 0, 15, 16]);
    assert_eq!(elements(&pieces), values);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_weight_comes_back(seed in any::<u64>(), rows in 1_usize..20, cols in 1_usize..600, zeros in 0.7_f64..0.999) {
        let mut stream = Stream(seed | 1);
        let values = stream.bernoulli(Shape::from([rows, cols]), 1.0 - zeros).values;
        let network = layer([rows, cols], values.clone());
        let pieces = written(&network);
        prop_assert_eq!(&read(&pieces).unwrap().network, &network);
        let bytes = || pieces.data[pieces.range(GAPS)].to_vec();
        let (codes, most) = match &*layout(&pieces) {
            "gaps4" => (bytes().iter().flat_map(|b| [b & 15, b >> 4]).collect(), 15),
            "gaps8" => (bytes(), 255),
            _ => return Ok(()),
        };
        let nonzeros: Vec<f32> = values.iter().copied().filter(|v| *v != 0.0).collect();
        prop_assert_eq!(decoded(&codes, most, &nonzeros, rows * cols), values);
        // No longer than the others.
        let n = nonzeros.len();
        let least = (2 * n + 2 * (rows + 1)).min(rows * cols.div_ceil(8));
        prop_assert!(bytes().len() < least, "{} {}", bytes().len(), least);
    }
}

#[test]
fn each_density_has_its_layout() {
    let (rows, cols) = (64, 800);
    let found = |zeros: f64| {
        let shape = Shape::from([rows, cols]);
        let values = Stream(3).bernoulli(shape, 1.0 - zeros).values;
        layout(&written(&layer([rows, cols], values)))
    };
    let layouts = [0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99, 0.995].map(found);
    let bits = "row-bitmask";
    let expected = [
        bits, bits, "gaps4", "gaps4", "gaps4", "gaps8", "gaps8", "gaps8",
    ];
    assert_eq!(layouts, expected);
    assert_eq!(found(0.9995), "csr");
}

#[test]
fn broken_codes_are_named() {
    let mut values = vec![0.0; 400];
    (0..40).for_each(|i| values[10 * i + 7] = 1.0 + i as f32);
    let valid = written(&layer([4, 100], values));
    assert_eq!(layout(&valid), "gaps4");
    // 7 zeros, then 9 before each of the others.
    assert_eq!(valid.data[valid.range(GAPS)][..2], [0x97, 0x99]);
    type Change = fn(&mut Pieces);
    let cases: [(&str, Change, &[&str]); 10] = [
        (
            "no codes",
            |p| {
                p.remove(GAPS);
            },
            &["`fc1.weight.gaps`", "it in the file"],
        ),
        (
            "signed codes",
            |p| {
                p.header[GAPS]["dtype"] = json!("I8");
            },
            &["`fc1.weight.gaps`", "U8", "I8"],
        ),
        (
            "two dimensions",
            |p| {
                p.header[GAPS]["shape"] = json!([4, 5]);
            },
            &["`fc1.weight.gaps`", "one dimension", "[4, 5]"],
        ),
        (
            "codes of too few values",
            |p| {
                p.replace(GAPS, "U8", &[19], &[0x99; 19]);
            },
            &["`fc1.weight.gaps`", "those of 40 values", "38"],
        ),
        (
            "codes of more values",
            |p| {
                p.replace(GAPS, "U8", &[21], &[0x09; 21]);
            },
            &[
                "`fc1.weight.gaps`",
                "no more than those of 40 values",
                "2 more",
            ],
        ),
        (
            "a last half byte",
            |p| {
                p.replace(VALUES, "F32", &[39], &[0; 156]);
            },
            &[
                "`fc1.weight.gaps`",
                "no more than those of 39 values",
                "1 more",
            ],
        ),
        (
            "a place behind the matrix",
            |p| {
                p.replace(GAPS, "U8", &[20], &[0xaa; 20]);
            },
            &["`fc1.weight.gaps`", "below 400", "[4, 100]"],
        ),
        (
            "rows that nothing pays for",
            |p| {
                p.edit(metadata_keys::SPARSE, |v| {
                    v["fc1.weight"]["shape"] = json!([1 << 30, 1])
                });
            },
            &[
                "`fc1.weight.gaps`",
                "as many rows as values, 40",
                "[1073741824, 1]",
            ],
        ),
        (
            "a matrix without columns",
            |p| {
                p.edit(metadata_keys::SPARSE, |v| {
                    v["fc1.weight"]["shape"] = json!([4, 0])
                });
            },
            &["`fc1.weight.gaps`", "below 0", "[4, 0]"],
        ),
        (
            "codes that nothing speaks of",
            |p| {
                p.edit(metadata_keys::SPARSE, |v| {
                    v.as_object_mut().unwrap().remove("fc1.weight");
                });
            },
            &["`fc1.weight.gaps`", "an entry for `fc1.weight`", "no entry"],
        ),
    ];
    for (name, change, words) in cases {
        let mut pieces = valid.clone();
        change(&mut pieces);
        let error = read(&pieces).expect_err(name).to_string();
        for word in words {
            assert!(error.contains(word), "{name}: {error}");
        }
    }
}
