//! Broken files: each is an error that names what is wrong, never a panic.
#![allow(clippy::unwrap_used)]

mod networks;

use std::time::{Duration, Instant};

use networks::{Pieces, tiny};
use proptest::prelude::*;
use serde_json::json;
use sparsevd_format::*;

const CROW: &str = "fc1.weight.crow_indices";
const COL: &str = "fc1.weight.col_indices";
const VALUES: &str = "fc1.weight.values";
const BITMASK: &str = "fc1.weight.bitmask";

/// A file with the places of a sparse weight in the indices of the compact profile, which so small a weight does not have there.
fn valid() -> Vec<u8> {
    let options = WriteOptions {
        profile: CsrProfile::Interop,
        ..WriteOptions::default()
    };
    let mut pieces = Pieces::of(&write_network_bytes(&tiny(), &options).unwrap());
    let u16s = |v: &[u16]| -> Vec<u8> { v.iter().flat_map(|v| v.to_le_bytes()).collect() };
    pieces.replace(CROW, "U16", &[4], &u16s(&[0, 2, 2, 5]));
    pieces.replace(COL, "U16", &[5], &u16s(&[0, 3, 0, 1, 2]));
    pieces.join()
}

/// A file with a bit for each element of it.
fn masked() -> Vec<u8> {
    write_network_bytes(&tiny(), &WriteOptions::default()).unwrap()
}

fn read(bytes: &[u8]) -> Result<LoadedNetwork, FormatError> {
    read_network_bytes("dir/bad.safetensors", bytes, &GraphSource::Auto)
}

/// A file broken on purpose, and what its error must say.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    says: Vec<&'static str>,
}

fn case(name: &'static str, says: &[&'static str], change: impl FnOnce(&mut Pieces)) -> Case {
    broken(&valid(), name, says, change)
}

fn broken(
    valid: &[u8],
    name: &'static str,
    says: &[&'static str],
    change: impl FnOnce(&mut Pieces),
) -> Case {
    let mut pieces = Pieces::of(valid);
    change(&mut pieces);
    Case {
        name,
        bytes: pieces.join(),
        says: says.to_vec(),
    }
}

fn bitmask_cases() -> Vec<Case> {
    let case = |name, says: &[&'static str], change: fn(&mut Pieces)| {
        broken(&masked(), name, says, change)
    };
    vec![
        case(
            "no bits",
            &["`fc1.weight.bitmask`", "it in the file"],
            |p| {
                p.remove(BITMASK);
            },
        ),
        case("bits of I8", &["`fc1.weight.bitmask`", "U8", "I8"], |p| {
            p.header[BITMASK]["dtype"] = json!("I8");
        }),
        case(
            "a row of bits too few",
            &["`fc1.weight.bitmask`", "[3, 1]", "[2, 1]"],
            |p| {
                p.replace(BITMASK, "U8", &[2, 1], &[0; 2]);
            },
        ),
        case(
            "a bit in the padding",
            &["`fc1.weight.bitmask`", "expected 5 set", "got 6"],
            |p| {
                p.set(BITMASK, 1, &[1 << 4]);
            },
        ),
        case(
            "a bit too many",
            &[
                "`fc1.weight.bitmask`",
                "expected 5 set, the number of values, got 6",
            ],
            |p| {
                p.set(BITMASK, 1, &[1]);
            },
        ),
        case(
            "a bit for another",
            &["`fc1.weight.bitmask`", "no bit set from 4 on"],
            |p| {
                p.set(BITMASK, 0, &[1 | 1 << 5]);
            },
        ),
        case(
            "no entry",
            &["`fc1.weight`", "row-bitmask", "no entry there"],
            |p| {
                p.metadata("sparsevd.sparse", "{\"v\":1}");
            },
        ),
        case(
            "another layout's parts",
            &[
                "`fc1.weight.crow_indices`",
                "an entry for `fc1.weight`",
                "another layout",
            ],
            |p| {
                p.replace(CROW, "U16", &[4], &[0; 8]);
            },
        ),
        case(
            "a dense weight of integers whose zero is another",
            &["`fc2.weight`", "F32, F16, BF16 or F64", "I8"],
            |p| {
                p.replace("fc2.weight", "I8", &[2, 3], &[1; 6]);
                p.replace("fc2.weight.scale", "F32", &[1], &1_f32.to_le_bytes());
                p.replace("fc2.weight.zero_point", "I8", &[1], &[3]);
            },
        ),
        case(
            "no columns",
            &["`fc1.weight.bitmask`", "one column or more"],
            |p| {
                let none = |v: &mut serde_json::Value| {
                    v["fc1.weight"]["shape"] = json!([1_u64 << 50, 0]);
                };
                p.edit("sparsevd.sparse", none);
                p.replace(BITMASK, "U8", &[1 << 50, 0], &[]);
            },
        ),
        case(
            "scale beside F32",
            &["`fc1.weight.scale`", "I8", "F32"],
            |p| {
                p.replace("fc1.weight.scale", "F32", &[1], &1_f32.to_le_bytes());
            },
        ),
        case(
            "a dense weight of integers with too few scales",
            &["`fc2.weight.scale`", "[1] or [2]", "[3]"],
            |p| {
                p.replace("fc2.weight", "I8", &[2, 3], &[1; 6]);
                p.replace("fc2.weight.scale", "F32", &[3], &[0; 12]);
            },
        ),
        case(
            "a dense weight of integers without scales",
            &["`fc2.weight`", "F32, F16, BF16 or F64", "I8"],
            |p| {
                p.replace("fc2.weight", "I8", &[2, 3], &[1; 6]);
            },
        ),
    ]
}

/// What a row of integers is multiplied by is applied to it.
#[test]
fn integers_with_scales_are_read_as_their_products() {
    let mut pieces = Pieces::of(&masked());
    let levels = [1, 2, 3, -4, 127, -127_i8].map(i8::cast_unsigned);
    pieces.replace("fc2.weight", "I8", &[2, 3], &levels);
    let scales: Vec<u8> = [0.5_f32, 2.0]
        .iter()
        .flat_map(|s| s.to_le_bytes())
        .collect();
    pieces.replace("fc2.weight.scale", "F32", &[2], &scales);
    let network = read(&pieces.join()).unwrap().network;
    let values = network.tensors["fc2.weight"].to_dense().values;
    assert_eq!(values, [0.5, 1.0, 1.5, -8.0, 254.0, -254.0]);
}

fn raw(name: &'static str, says: &[&'static str], bytes: Vec<u8>) -> Case {
    Case {
        name,
        bytes,
        says: says.to_vec(),
    }
}

fn container_cases() -> Vec<Case> {
    let header_length = |n: u64| {
        let mut bytes = valid();
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        bytes
    };
    let header = |text: &[u8]| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes
    };
    let offsets = |tensor: &'static str, from: usize, to: usize| {
        move |p: &mut Pieces| p.header[tensor]["data_offsets"] = json!([from, to])
    };
    vec![
        raw("empty", &["at least the 8 bytes", "0 bytes"], vec![]),
        raw("seven bytes", &["7 bytes"], vec![0; 7]),
        raw(
            "header past the end",
            &["header length", "1000000"],
            header_length(1_000_000),
        ),
        raw(
            "header of 2^64 - 1",
            &["header length"],
            header_length(u64::MAX),
        ),
        raw("header no JSON", &["header"], header(b"{\"fc1")),
        raw(
            "header an array",
            &["header", "an object of tensors"],
            header(b"[]"),
        ),
        raw("header no UTF-8", &["header"], header(b"{\"\xff\": 1}")),
        raw("header nested deep", &["header"], header(&[b'['; 100_000])),
        raw(
            "bytes after the data",
            &["data"],
            [valid(), vec![0]].concat(),
        ),
        case("metadata of numbers", &["__metadata__"], |p| {
            p.header["__metadata__"]["x"] = json!(1);
        }),
        case("unknown dtype", &["`fc1.bias`", "F31"], |p| {
            p.header["fc1.bias"]["dtype"] = json!("F31");
        }),
        case("negative shape", &["`fc1.bias`"], |p| {
            p.header["fc1.bias"]["shape"] = json!([-3])
        }),
        case(
            "shape that overflows",
            &["`fc1.bias`", "a size in bytes that exists"],
            |p| {
                p.header["fc1.bias"]["shape"] = json!([1_u64 << 40, 1_u64 << 40]);
            },
        ),
        case(
            "shape too large for its bytes",
            &["`fc1.bias`", "16 bytes for F32 [4]", "12 bytes"],
            |p| {
                p.header["fc1.bias"]["shape"] = json!([4]);
            },
        ),
        case(
            "dtype too small for its bytes",
            &["`fc1.bias`", "6 bytes for F16 [3]"],
            |p| {
                p.header["fc1.bias"]["dtype"] = json!("F16");
            },
        ),
        // In the file: fc1.bias 0..12, fc1.weight.values 12..32, fc2.bias 32..40, ...
        case(
            "overlap",
            &["`fc2.bias`", "data_offsets", "a start at 32"],
            offsets("fc2.bias", 28, 36),
        ),
        case(
            "hole",
            &["`fc1.weight.values`", "a start at 12"],
            offsets("fc1.weight.values", 16, 36),
        ),
        case(
            "end before start",
            &["`fc1.bias`", "data_offsets"],
            offsets("fc1.bias", 0, 0),
        ),
        case(
            "past the end",
            &["data_offsets", "`fc2.bias`"],
            offsets("fc2.bias", 32, 40_000),
        ),
        raw("the same tensor twice", &["`a`", "twice"], {
            let one = r#""a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
            header(format!("{{{one},{one}}}").as_bytes())
        }),
    ]
}

fn csr_cases() -> Vec<Case> {
    let i32s = |v: &[i32]| -> Vec<u8> { v.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let i8s = |p: &mut Pieces| {
        p.replace(VALUES, "I8", &[5], &[1; 5]);
    };
    vec![
        case("rows that go back", &["`fc1.weight`", "row 1"], |p| {
            p.set(CROW, 2, &1_u16.to_le_bytes());
        }),
        case(
            "rows past the values",
            &["`fc1.weight`", "crow_indices"],
            |p| {
                p.set(CROW, 1, &9_u16.to_le_bytes());
            },
        ),
        case(
            "first row start",
            &["`fc1.weight`", "first of crow_indices"],
            |p| {
                p.set(CROW, 0, &1_u16.to_le_bytes());
            },
        ),
        case(
            "last row start",
            &[
                "`fc1.weight`",
                "last of crow_indices",
                "5, the number of values",
            ],
            |p| {
                p.set(CROW, 3, &4_u16.to_le_bytes());
            },
        ),
        case(
            "column out of range",
            &["`fc1.weight`", "columns below 4", "got 4"],
            |p| {
                p.set(COL, 4, &4_u16.to_le_bytes());
            },
        ),
        case(
            "columns out of order",
            &["`fc1.weight`", "strictly increasing", "0 after 3"],
            |p| {
                p.set(COL, 0, &3_u16.to_le_bytes())
                    .set(COL, 1, &0_u16.to_le_bytes());
            },
        ),
        case(
            "a column twice",
            &["`fc1.weight`", "strictly increasing"],
            |p| {
                p.set(COL, 1, &0_u16.to_le_bytes());
            },
        ),
        case("not a number", &["`fc1.weight`", "finite", "NaN"], |p| {
            p.set(VALUES, 2, &f32::NAN.to_le_bytes());
        }),
        case("infinite bias", &["`fc2.bias`", "finite", "inf"], |p| {
            p.set("fc2.bias", 1, &f32::INFINITY.to_le_bytes());
        }),
        case("f64 too large", &["`fc2.bias`", "element 1", "f32"], |p| {
            let wide: Vec<u8> = [0.0, 1e300_f64]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect();
            p.replace("fc2.bias", "F64", &[2], &wide);
        }),
        case(
            "a column too many",
            &["`fc1.weight`", "length of col_indices", "got 6"],
            |p| {
                p.replace(COL, "U32", &[6], &[0; 24]);
            },
        ),
        case(
            "a row start too few",
            &["`fc1.weight`", "length of crow_indices", "4 for 3 rows"],
            |p| {
                p.replace(CROW, "U32", &[3], &[0; 12]);
            },
        ),
        case(
            "negative row start",
            &["`fc1.weight.crow_indices`", "element 1", "got -1"],
            |p| {
                p.replace(CROW, "I32", &[4], &i32s(&[0, -1, 2, 5]));
            },
        ),
        case(
            "negative column",
            &["`fc1.weight.col_indices`", "element 2", "got -7"],
            |p| {
                p.replace(COL, "I32", &[5], &i32s(&[0, 3, -7, 1, 2]));
            },
        ),
        case(
            "columns of I64",
            &["`fc1.weight.col_indices`", "U16, U32 or I32", "I64"],
            |p| {
                p.replace(COL, "I64", &[5], &[0; 40]);
            },
        ),
        case(
            "row starts of U8",
            &["`fc1.weight.crow_indices`", "U16, U32 or I32", "U8"],
            |p| {
                p.replace(CROW, "U8", &[4], &[0; 4]);
            },
        ),
        case(
            "values in two dimensions",
            &["`fc1.weight.values`", "one dimension"],
            |p| {
                p.header[VALUES]["shape"] = json!([5, 1]);
            },
        ),
        case(
            "values of I16",
            &["`fc1.weight.values`", "I8", "I16"],
            |p| {
                p.replace(VALUES, "I16", &[5], &[0; 10]);
            },
        ),
        case(
            "I8 without scale",
            &["`fc1.weight.scale`", "it in the file"],
            i8s,
        ),
        case(
            "scale of the wrong length",
            &["`fc1.weight.scale`", "[1] or [3]", "[2]"],
            |p| {
                i8s(p);
                p.replace("fc1.weight.scale", "F32", &[2], &[0; 8]);
            },
        ),
        case("scale of F16", &["`fc1.weight.scale`", "F32", "F16"], |p| {
            i8s(p);
            p.replace("fc1.weight.scale", "F16", &[1], &[0; 2]);
        }),
        case("scale not finite", &["`fc1.weight.scale`", "finite"], |p| {
            i8s(p);
            p.replace("fc1.weight.scale", "F32", &[1], &f32::NAN.to_le_bytes());
        }),
        case(
            "scale beside F32",
            &["`fc1.weight.scale`", "I8", "F32"],
            |p| {
                p.replace("fc1.weight.scale", "F32", &[1], &1_f32.to_le_bytes());
            },
        ),
        case(
            "missing columns",
            &["`fc1.weight.col_indices`", "it in the file"],
            |p| {
                p.remove(COL);
            },
        ),
        case(
            "dense and CSR at once",
            &["`fc1.weight`", "a dense tensor of that name"],
            |p| {
                p.replace("fc1.weight", "F32", &[1], &[0; 4]);
            },
        ),
        case(
            "integer weight",
            &["`fc2.weight`", "F32, F16, BF16 or F64", "I32"],
            |p| {
                p.header["fc2.weight"]["dtype"] = json!("I32");
            },
        ),
    ]
}

fn metadata_cases() -> Vec<Case> {
    const SPARSE: &str = "sparsevd.sparse";
    const ORIGINAL: &str = "sparsevd.original";
    const NETWORK: &str = "sparsevd.network";
    vec![
        case("sparse no JSON", &[SPARSE], |p| {
            p.metadata(SPARSE, "{");
        }),
        case("sparse an array", &[SPARSE], |p| {
            p.metadata(SPARSE, "[]");
        }),
        case(
            "sparse of another version",
            &[SPARSE, "\"v\"", "got 2"],
            |p| {
                p.edit(SPARSE, |v| v["v"] = json!(2));
            },
        ),
        case("sparse without version", &[SPARSE, "got none"], |p| {
            p.metadata(SPARSE, "{}");
        }),
        case(
            "another layout",
            &["`fc1.weight`", SPARSE, "csr", "row-bitmask", "coo"],
            |p| {
                p.edit(SPARSE, |v| v["fc1.weight"]["layout"] = json!("coo"));
            },
        ),
        case("unknown field", &["`fc1.weight`", SPARSE, "blocks"], |p| {
            p.edit(SPARSE, |v| v["fc1.weight"]["blocks"] = json!(4));
        }),
        case(
            "one dimension",
            &["`fc1.weight`", "two dimensions", "[12]"],
            |p| {
                p.edit(SPARSE, |v| v["fc1.weight"]["shape"] = json!([12]));
            },
        ),
        case("a shape of 2^62", &["`fc1.weight`", "elements"], |p| {
            p.edit(SPARSE, |v| {
                v["fc1.weight"]["shape"] = json!([3, 1_u64 << 62])
            });
        }),
        case("a shape with a fraction", &["`fc1.weight`", SPARSE], |p| {
            p.edit(SPARSE, |v| v["fc1.weight"]["shape"] = json!([3, 4.5]));
        }),
        case(
            "a shape that does not fit the graph",
            &["fc1", "[3, 5]"],
            |p| {
                p.edit(SPARSE, |v| v["fc1.weight"]["shape"] = json!([3, 5]));
            },
        ),
        case(
            "CSR parts without an entry",
            &["`fc1.weight`", SPARSE, "no entry"],
            |p| {
                p.metadata(SPARSE, "{\"v\":1}");
            },
        ),
        case(
            "a CSR entry without parts",
            &["`ghost.values`", "it in the file"],
            |p| {
                p.edit(SPARSE, |v| {
                    v["ghost"] = json!({"layout": "csr", "shape": [1, 1]})
                });
                p.edit(NETWORK, |v| v["nodes"][2]["weight"] = json!("ghost"));
            },
        ),
        case(
            "a CSR bias",
            &["`fc1.weight`", "dense tensor", "fc2"],
            |p| {
                p.edit(NETWORK, |v| v["nodes"][2]["bias"] = json!("fc1.weight"));
            },
        ),
        case("original no JSON", &[ORIGINAL], |p| {
            p.metadata(ORIGINAL, "nope");
        }),
        case("original of another version", &[ORIGINAL, "\"v\""], |p| {
            p.edit(ORIGINAL, |v| v["v"] = json!("1"));
        }),
        case(
            "original smaller",
            &["`fc1.weight`", ORIGINAL, "[3, 4]", "[2, 4]"],
            |p| {
                p.edit(ORIGINAL, |v| v["fc1.weight"] = json!([2, 4]));
            },
        ),
        case("original of nothing", &["`ghost`", ORIGINAL], |p| {
            p.edit(ORIGINAL, |v| v["ghost"] = json!([2, 4]));
        }),
        case("graph no JSON", &[NETWORK], |p| {
            p.metadata(NETWORK, "{\"name\": ");
        }),
        case("graph of an unknown operator", &[NETWORK, "Sinh"], |p| {
            p.edit(NETWORK, |v| v["nodes"][1]["op"] = json!("Sinh"));
        }),
        case("a bound beyond its type", &["`relu1`", "finite"], |p| {
            p.edit(NETWORK, |v| {
                v["nodes"][1]["op"] = json!("Clip");
                v["nodes"][1]["max"] = json!(1e300);
            });
        }),
        case("a border of no map", &["`relu1`", "feature map"], |p| {
            p.edit(NETWORK, |v| {
                v["nodes"][1]["op"] = json!("Pad");
                v["nodes"][1]["pads"] = json!([usize::MAX, 0, 1, 0]);
            });
        }),
        case(
            "statistics that are not there",
            &["`relu1`", "`gone`"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("BatchNormalization");
                    for part in ["scale", "bias", "mean", "variance"] {
                        v["nodes"][1][part] = json!("gone");
                    }
                });
            },
        ),
        case(
            "more dimensions than there are to normalise",
            &["`relu1`", "1 to 1 dimensions of [3]", "2"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("LayerNormalization");
                    v["nodes"][1]["scale"] = json!("fc1.bias");
                    v["nodes"][1]["dimensions"] = json!(2);
                });
            },
        ),
        case(
            "a slope of another size",
            &["`fc2.bias`", "[3]", "[2]"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("PRelu");
                    v["nodes"][1]["slope"] = json!("fc2.bias");
                });
            },
        ),
        case(
            "a shape of another number of elements",
            &["`relu1`", "1 to 8 dimensions of 3 elements", "[2, 2]"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("Reshape");
                    v["nodes"][1]["shape"] = json!([2, 2]);
                });
            },
        ),
        case(
            "a shape of more elements than can be counted",
            &["`relu1`", "dimensions of 3 elements"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("Reshape");
                    v["nodes"][1]["shape"] = json!([3, 1_u64 << 32, 1_u64 << 32]);
                });
            },
        ),
        case(
            "a shape without dimensions",
            &["`relu1`", "1 to 8 dimensions of 3 elements"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("Reshape");
                    v["nodes"][1]["shape"] = json!([]);
                });
            },
        ),
        case(
            "a shape of too many dimensions",
            &["`relu1`", "1 to 8 dimensions of 3 elements"],
            |p| {
                p.edit(NETWORK, |v| {
                    let mut shape = vec![1; 9];
                    shape[0] = 3;
                    v["nodes"][1]["op"] = json!("Reshape");
                    v["nodes"][1]["shape"] = json!(shape);
                });
            },
        ),
        case(
            "an order that has a dimension twice",
            &["`relu1`", "each of 1 dimensions once", "[0, 0]"],
            |p| {
                p.edit(NETWORK, |v| {
                    v["nodes"][1]["op"] = json!("Transpose");
                    v["nodes"][1]["perm"] = json!([0, 0]);
                });
            },
        ),
        case("an epsilon below zero", &["`relu1`", "at least 0"], |p| {
            p.edit(NETWORK, |v| {
                v["nodes"][1]["op"] = json!("LayerNormalization");
                v["nodes"][1]["scale"] = json!("fc1.bias");
                v["nodes"][1]["dimensions"] = json!(1);
                v["nodes"][1]["epsilon"] = json!(-1e-5);
            });
        }),
        case("nothing to concatenate", &["`relu1`", "at least 1"], |p| {
            p.edit(NETWORK, |v| {
                v["nodes"][1]["op"] = json!("Concat");
                v["nodes"][1]["inputs"] = json!([]);
            });
        }),
        case(
            "graph with a cycle",
            &["`fc1`", "`fc2`", "not a network input nor an earlier node"],
            |p| {
                p.edit(NETWORK, |v| v["nodes"][0]["inputs"] = json!(["fc2"]));
            },
        ),
        case("a node that reads itself", &["`relu1`"], |p| {
            p.edit(NETWORK, |v| v["nodes"][1]["inputs"] = json!(["relu1"]));
        }),
        case("two nodes of one name", &["`fc1`"], |p| {
            p.edit(NETWORK, |v| v["nodes"][2]["name"] = json!("fc1"));
        }),
        case(
            "graph without inputs",
            &[NETWORK, "at least one input"],
            |p| {
                p.metadata(
                    NETWORK,
                    r#"{"name":"n","inputs":[],"nodes":[],"outputs":["x"],"preprocessing":{}}"#,
                );
            },
        ),
        case(
            "a preset that is none",
            &[NETWORK, "the JSON of a graph or the name of a preset"],
            |p| {
                p.metadata(NETWORK, "lenet-6");
            },
        ),
        case("a preset of other tensors", &["`fc1`", "784"], |p| {
            p.metadata(NETWORK, "lenet-300-100");
        }),
        case("no input, an output", &["output"], |p| {
            p.edit(NETWORK, |v| v["outputs"] = json!(["ghost"]));
        }),
        case("a huge input", &[NETWORK, "`input`", "elements"], |p| {
            p.edit(NETWORK, |v| {
                v["inputs"][0]["shape"] = json!([1_u64 << 40, 1_u64 << 40])
            });
        }),
        case("an empty input", &[NETWORK, "`input`", "[0]"], |p| {
            p.edit(NETWORK, |v| v["inputs"][0]["shape"] = json!([0]));
        }),
        case(
            "a missing tensor",
            &["`ghost`", "`fc2`", "fc1.bias [3]"],
            |p| {
                p.edit(NETWORK, |v| v["nodes"][2]["weight"] = json!("ghost"));
            },
        ),
        case(
            "a bias of the wrong size",
            &["`fc1.bias`", "[2]", "[3]"],
            |p| {
                p.edit(NETWORK, |v| v["nodes"][2]["bias"] = json!("fc1.bias"));
            },
        ),
        case(
            "preprocessing that divides by zero",
            &["preprocessing", "std"],
            |p| {
                p.edit(NETWORK, |v| v["preprocessing"]["std"] = json!([0.0]));
            },
        ),
        case(
            "padding without end",
            &["`pad`", "a window that fits"],
            |p| {
                p.edit(NETWORK, |v| {
                    let far = 1_u64 << 40;
                    v["inputs"] = json!([{"name": "input", "shape": [1, 1, 4]}]);
                    v["nodes"] = json!([{"name": "pad", "inputs": ["input"], "op": "Conv",
                    "weight": "k", "kernel_shape": [1, 1], "pads": [far, far, 0, 0]}]);
                    v["outputs"] = json!(["pad"]);
                });
                p.replace("k", "F32", &[1, 1, 1, 1], &1_f32.to_le_bytes());
                p.remove("fc1.weight");
                p.metadata(ORIGINAL, "{\"v\":1}");
            },
        ),
    ]
}

#[test]
fn every_broken_file_is_an_error_that_says_what_is_wrong() {
    let all = [
        container_cases(),
        csr_cases(),
        bitmask_cases(),
        metadata_cases(),
    ];
    let cases: Vec<Case> = all.into_iter().flatten().collect();
    let mut failures = Vec::new();
    for Case { name, bytes, says } in cases {
        match read(&bytes) {
            Ok(_) => failures.push(format!("{name}: was read")),
            Err(error) => {
                let text = error.to_string();
                let mut says = says.clone();
                says.push("dir/bad.safetensors: ");
                let absent: Vec<_> = says.iter().filter(|s| !text.contains(**s)).collect();
                if !absent.is_empty() || text.contains('\n') {
                    failures.push(format!("{name}: lacks {absent:?}: {text}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_surgery_itself_breaks_nothing() {
    for valid in [valid(), masked()] {
        let read = read(&Pieces::of(&valid).join()).unwrap();
        assert_eq!(read.network, tiny());
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = valid();
    for sixteenth in 0..16 {
        assert!(read(&bytes[..bytes.len() * sixteenth / 16]).is_err());
    }
    for cut in 1..64 {
        assert!(read(&bytes[..bytes.len() - cut]).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        is_masked in any::<bool>(),
    ) {
        let mut bytes = if is_masked { masked() } else { valid() };
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        let start = Instant::now();
        if let Ok(loaded) = read(&bytes) {
            // What is accepted can be used: nothing in it breaks a promise of its types.
            let dense = loaded.network.to_dense();
            prop_assert!(dense.tensors.values().all(|t| t.check_finite().is_ok()));
            let _ = inspect_encodings(&loaded.network);
        }
        prop_assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn flipped_characters_of_the_graph_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 32_u8..127), 1..4)
    ) {
        let mut pieces = Pieces::of(&valid());
        let graph = pieces.header["__metadata__"]["sparsevd.network"].as_str().unwrap();
        let mut text = graph.as_bytes().to_vec();
        for (at, character) in flips {
            let at = at.index(text.len());
            text[at] = character;
        }
        pieces.metadata("sparsevd.network", std::str::from_utf8(&text).unwrap());
        let _ = read(&pieces.join());
    }
}
