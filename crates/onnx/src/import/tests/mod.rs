//! Files that are wrong or beyond what networks here can do.

mod decomposed;
mod ids;
mod layouts;
mod products;
mod quantised;
mod sizes;

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, data_type,
};
use crate::{ExportOptions, read_onnx_bytes, write_onnx_bytes};

fn node(op: &str, name: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    NodeProto {
        input: owned(inputs),
        output: owned(outputs),
        name: name.into(),
        op_type: op.into(),
        ..NodeProto::default()
    }
}

fn ints(node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    let mut node = node;
    node.attribute.push(AttributeProto {
        name: name.into(),
        ints: ints.to_vec(),
        ..AttributeProto::default()
    });
    node
}

fn int(node: NodeProto, name: &str, i: i64) -> NodeProto {
    with_attribute(
        node,
        AttributeProto {
            name: name.into(),
            i: Some(i),
            ..AttributeProto::default()
        },
    )
}

fn float(node: NodeProto, name: &str, f: f32) -> NodeProto {
    with_attribute(
        node,
        AttributeProto {
            name: name.into(),
            f: Some(f),
            ..AttributeProto::default()
        },
    )
}

fn text(node: NodeProto, name: &str, s: &str) -> NodeProto {
    with_attribute(
        node,
        AttributeProto {
            name: name.into(),
            s: Some(Bytes::from(s.to_owned())),
            ..AttributeProto::default()
        },
    )
}

fn with_attribute(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| DimensionProto {
        dim_value: (d >= 0).then_some(d),
        dim_param: (d < 0).then(|| "n".into()),
    });
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: data_type::FLOAT,
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            }),
        }),
    }
}

fn ones(name: &str, dims: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: data_type::FLOAT,
        float_data: vec![1.0; dims.iter().product::<i64>() as usize],
        name: name.into(),
        ..TensorProto::default()
    }
}

/// An initializer of integers.
fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: data_type::INT64,
        int64_data: values.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

/// A model over `x` `[n, 2, 4, 4]` with filters `w` `[2, 2, 3, 3]`, whose output is `y`.
fn model(nodes: Vec<NodeProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: Some(17),
        }],
        graph: Some(GraphProto {
            node: nodes,
            initializer: vec![ones("w", &[2, 2, 3, 3]), ones("m", &[8, 3])],
            input: vec![value("x", &[-1, 2, 4, 4])],
            output: vec![value("y", &[])],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

fn read(model: &ModelProto) -> Result<sparsevd_model::Network, String> {
    let read = read_onnx_bytes(Path::new("model.onnx"), model.encode_to_vec());
    read.map(|l| l.network).map_err(|e| e.to_string())
}

#[test]
fn one_error_lists_every_unsupported_node() {
    let mut lists = model(vec![
        node("Conv", "first", &["x", "w"], &["a"]),
        node("Einsum", "sum", &["a"], &["b"]),
        node("Relu", "after", &["b"], &["c"]),
        NodeProto {
            domain: "com.example".into(),
            ..node("Fancy", "", &["c"], &["d"])
        },
        ints(
            node("Transpose", "turn", &["a"], &["e"]),
            "perm",
            &[0, 2, 3, 1],
        ),
        ints(
            node("MaxPool", "pool", &["e"], &["f"]),
            "kernel_shape",
            &[2, 2],
        ),
        node("Conv", "narrow", &["a", "v"], &["g"]),
        ints(
            node("Conv", "strided", &["x", "w"], &["h"]),
            "strides",
            &[0, 1],
        ),
        ints(
            node("Conv", "long", &["x", "w"], &["i"]),
            "dilations",
            &[9, 9],
        ),
        node("Concat", "join", &["d", "f", "g", "h", "i"], &["y"]),
    ]);
    lists
        .graph
        .as_mut()
        .unwrap()
        .initializer
        .push(ones("v", &[1, 5, 1, 1]));
    let error = read(&lists).unwrap_err();
    let reasons = [
        "model.onnx: 5 unsupported node(s): `sum` (Einsum)",
        "`d` (com.example::Fancy)",
        "`narrow` (Conv): expected 5 input channels in 1 group(s) for the weight `v` [1, 5, 1, 1], got an input [2, 2, 2]",
        "`strided` (Conv): expected a kernel, strides and dilations of at least 1",
        "`long` (Conv): expected a window that fits the input",
    ];
    let missing: Vec<&&str> = reasons.iter().filter(|r| !error.contains(**r)).collect();
    assert!(missing.is_empty(), "{missing:#?} in {error}");
}

#[test]
fn what_no_output_depends_on_is_left_out() {
    let mut model = model(vec![
        node("Einsum", "unread", &["x"], &["a"]),
        node("Relu", "reader of the unread", &["a"], &["b"]),
        node("LSTM", "first output left out", &["x"], &["", "hidden"]),
        node("Conv", "conv", &["x", "w"], &["c"]),
        node("Clip", "no lower bound", &["c", "", "bound"], &["y"]),
        node("Loop", "behind the output", &["y"], &["d"]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(ones("bound", &[]));
    let network = read(&model).unwrap();
    let ops: Vec<&str> = network.graph.nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(ops, ["Conv", "Clip"]);
}

#[test]
fn what_old_opsets_could_say_and_we_cannot_is_refused() {
    let mut old = model(vec![
        node(
            "BatchNormalization",
            "norm",
            &["x", "s", "s", "s", "s"],
            &["n"],
        ),
        node("Upsample", "up", &["x", "scales"], &["u"]),
        node("Softmax", "share", &["x"], &["t"]),
        node("Dropout", "drop", &["x"], &["d", "mask"]),
        node("Concat", "join", &["n", "u", "t", "mask"], &["y"]),
    ]);
    old.opset_import[0].version = Some(7);
    let graph = old.graph.as_mut().unwrap();
    graph
        .initializer
        .extend([ones("s", &[2]), ones("scales", &[4])]);
    graph.node[0].attribute.push(AttributeProto {
        name: "spatial".into(),
        i: Some(0),
        ..AttributeProto::default()
    });
    graph.node[2].attribute.push(AttributeProto {
        name: "axis".into(),
        i: Some(2),
        ..AttributeProto::default()
    });
    assert_eq!(
        read(&old).unwrap_err(),
        "model.onnx: 4 unsupported node(s): `norm` (BatchNormalization): statistics per pixel; `up` (Upsample); \
         `share` (Softmax): axis 2 of [2, 4, 4], from which on all axes count as one; `drop` (Dropout): its output `mask`"
    );
}

#[test]
fn layer_normalisations_that_are_not_supported_say_why() {
    let norm = |name: &str, inputs: &[&str], output: &str, attribute: (&str, i64)| {
        let mut node = node("LayerNormalization", name, inputs, &[output]);
        node.attribute.push(AttributeProto {
            name: attribute.0.into(),
            i: Some(attribute.1),
            ..AttributeProto::default()
        });
        node
    };
    let mut wrong = model(vec![
        norm("samples", &["x", "s"], "a", ("axis", 0)),
        norm("beyond", &["x", "s"], "b", ("axis", 4)),
        norm("half", &["x", "s"], "c", ("stash_type", 10)),
        norm("long", &["x", "l"], "e", ("axis", -1)),
        node("Concat", "join", &["a", "b", "c", "e"], &["y"]),
    ]);
    let graph = wrong.graph.as_mut().unwrap();
    graph.initializer.extend([ones("s", &[4]), ones("l", &[3])]);
    assert_eq!(
        read(&wrong).unwrap_err(),
        "model.onnx: 4 unsupported node(s): `samples` (LayerNormalization): statistics over several samples; \
         `beyond` (LayerNormalization): expected an axis of 4, got 4; `half` (LayerNormalization): stash_type 10; \
         `long` (LayerNormalization): expected a scale of [4], got floating-point constant [3]"
    );
}

#[test]
fn wrong_graphs_are_errors_that_name_the_node() {
    let conv = || node("Conv", "conv", &["x", "w"], &["y"]);
    let cases: Vec<(&str, ModelProto)> = vec![
        (
            "node `a` (Relu): expected inputs that are there, got `q`",
            model(vec![
                node("Relu", "a", &["q"], &["p"]),
                node("Relu", "b", &["p"], &["q"]),
                node("Add", "c", &["p", "q"], &["y"]),
            ]),
        ),
        (
            "node `b` (Relu): expected outputs with names of their own",
            model(vec![conv(), node("Relu", "b", &["y"], &["y"])]),
        ),
        (
            "`conv` (Conv): expected kernel_shape [3, 3]",
            model(vec![ints(conv(), "kernel_shape", &[2, 2])]),
        ),
        (
            "`conv` (Conv): expected a kernel, strides and dilations of at least 1",
            model(vec![ints(conv(), "strides", &[0, 1])]),
        ),
        (
            "`conv` (Conv): expected 2 numbers of 0 or more as `dilations`",
            model(vec![ints(conv(), "dilations", &[-1, 1])]),
        ),
        (
            "a window that fits the input",
            model(vec![ints(conv(), "dilations", &[1, i64::MAX])]),
        ),
        (
            "`pool` (MaxPool): expected 4 numbers of 0 or more as `pads`",
            model(vec![ints(
                ints(
                    node("MaxPool", "pool", &["x"], &["y"]),
                    "kernel_shape",
                    &[2, 2],
                ),
                "pads",
                &[0, 0],
            )]),
        ),
        ("`pool` (MaxPool): expected a window that can be counted", {
            let mut pool = ints(
                node("MaxPool", "pool", &["x"], &["y"]),
                "kernel_shape",
                &[2, 2],
            );
            pool.attribute.push(AttributeProto {
                name: "ceil_mode".into(),
                i: Some(1),
                ..AttributeProto::default()
            });
            model(vec![ints(pool, "pads", &[i64::MAX; 4])])
        }),
        (
            "`product` (MatMul): expected an input of shape [8] or [.., 8]",
            model(vec![node("MatMul", "product", &["x", "m"], &["y"])]),
        ),
        ("output `y`: expected a value of the graph", model(vec![])),
        (
            "output `y`: expected a value that depends on the input",
            model(vec![node("Identity", "i", &["w"], &["y"])]),
        ),
        (
            "opset_import: expected a version of ONNX's operators from 7 on, got 6",
            {
                let mut old = model(vec![conv()]);
                old.opset_import[0].version = Some(6);
                old
            },
        ),
        (
            "initializers: expected one tensor of each name, got `w` again",
            {
                let mut twice = model(vec![conv()]);
                twice
                    .graph
                    .as_mut()
                    .unwrap()
                    .initializer
                    .push(ones("w", &[1]));
                twice
            },
        ),
        (
            "input `x`: expected sizes of all dimensions behind the batch, which `--shape x=2,n,4` gives with numbers in place of \
             names, got [2,n,4]",
            {
                let mut open = model(vec![conv()]);
                open.graph.as_mut().unwrap().input[0] = value("x", &[-1, 2, -1, 4]);
                open
            },
        ),
        ("initializer `w`: expected 36 elements", {
            let mut short = model(vec![conv()]);
            short.graph.as_mut().unwrap().initializer[0]
                .float_data
                .pop();
            short
        }),
        ("tensor `w`: expected finite values, got NaN", {
            let mut nan = model(vec![conv()]);
            nan.graph.as_mut().unwrap().initializer[0].float_data[0] = f32::NAN;
            nan
        }),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(want, model)| match read(model) {
            Err(e) if e.contains(want) => None,
            other => Some(format!("expected {want}, got {other:?}")),
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn constants_beyond_the_budget_are_errors() {
    let shape = TensorProto {
        dims: vec![2],
        data_type: data_type::INT64,
        int64_data: vec![1 << 20, 1 << 20],
        name: "shape".into(),
        ..TensorProto::default()
    };
    let mut huge = model(vec![
        node("ConstantOfShape", "fill", &["shape"], &["k"]),
        node("MatMul", "product", &["x", "k"], &["y"]),
    ]);
    huge.graph.as_mut().unwrap().initializer.push(shape);
    let error = read(&huge).unwrap_err();
    assert!(
        error.contains("`fill`") && error.contains("in all"),
        "{error}"
    );
}

#[test]
fn weights_without_elements_and_shapes_without_weights_cost_nothing() {
    let mut empty = model(vec![node("Conv", "conv", &["x", "e", "b"], &["y"])]);
    let graph = empty.graph.as_mut().unwrap();
    graph.initializer.push(ones("e", &[1 << 40, 0, 3, 3]));
    graph.initializer.push(ones("b", &[1]));
    let error = read(&empty).unwrap_err();
    assert!(
        error.contains("`conv` (Conv): expected at least one number"),
        "{error}"
    );
    let mut wide = model(vec![node("Neg", "neg", &["x"], &["y"])]);
    wide.graph.as_mut().unwrap().input[0] = value("x", &[-1, 1 << 31]);
    let error = read(&wide).unwrap_err();
    assert!(
        error.contains("`neg`") && error.contains("in all"),
        "{error}"
    );
}

#[test]
fn names_that_file_and_network_use_twice_are_kept_apart() {
    // One matrix as it is and turned; a value named like a tensor that is added.
    let mut twice = model(vec![
        node("Flatten", "f", &["x"], &["f"]),
        node("Gemm", "g", &["f", "q"], &["g"]),
        ints(node("Gemm", "h", &["g", "q"], &["h"]), "unused", &[]),
        node("Add", "a", &["h", "g"], &["y"]),
    ]);
    let graph = twice.graph.as_mut().unwrap();
    graph.initializer.push(ones("q", &[32, 32]));
    graph.initializer[2].float_data[1] = 5.0;
    graph.node[2].attribute[0] = AttributeProto {
        name: "transB".into(),
        i: Some(1),
        ..AttributeProto::default()
    };
    let network = read(&twice).unwrap();
    let names: Vec<&String> = network.tensors.keys().collect();
    assert_eq!(names, ["q", "q.2"]);
    assert_eq!(network.tensors["q"].to_dense().values[32], 5.0);
    assert_eq!(network.tensors["q.2"].to_dense().values[1], 5.0);
}

#[test]
fn any_byte_may_be_wrong() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/onnx");
    let mut read_well = 0;
    for name in [
        "residual",
        "perceptron",
        "shape_chain",
        "mobile",
        "sparse",
        "half",
        "opset_7",
        "opset_23",
        "channels_last",
        "one_dimension",
        "elementwise",
        "no_batch",
        "quantised/qdq",
        "quantised/qoperator",
    ] {
        let bytes = std::fs::read(golden.join(format!("{name}.onnx"))).unwrap();
        let path = Path::new("mutated.onnx");
        assert!(read_onnx_bytes(path, bytes.clone()).is_ok(), "{name}");
        for end in 0..bytes.len() {
            // A cut may fall between two fields of the outermost message, and lose only the set of operators or the like.
            if let Err(error) = read_onnx_bytes(path, bytes[..end].to_vec()) {
                assert!(error.to_string().starts_with("mutated.onnx: "), "{error}");
            }
        }
        let mut state = 1_u64;
        for _ in 0..4000 {
            let mut mutated = bytes.clone();
            for _ in 0..1 + state % 3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % mutated.len();
                mutated[at] ^= 1 << (state >> 29 & 7);
            }
            match read_onnx_bytes(path, mutated) {
                Ok(read) => {
                    read_well += 1;
                    let again = write_onnx_bytes(&read.network, &ExportOptions::default()).unwrap();
                    read_onnx_bytes(path, again).unwrap();
                }
                Err(error) => {
                    assert!(error.to_string().starts_with("mutated.onnx: "), "{error}");
                }
            }
        }
    }
    assert!(
        read_well > 100,
        "most mutations hit weights, {read_well} were read"
    );
}

#[test]
fn external_data_are_read_from_the_folder_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let entry = |key: &str, value: &str| crate::proto::StringStringEntryProto {
        key: key.into(),
        value: value.into(),
    };
    let mut model = model(vec![node("Conv", "conv", &["x", "w"], &["y"])]);
    model.graph.as_mut().unwrap().initializer[0] = TensorProto {
        dims: vec![2, 2, 3, 3],
        data_type: data_type::FLOAT,
        name: "w".into(),
        data_location: 1,
        external_data: vec![entry("location", "w.bin"), entry("offset", "4")],
        raw_data: Some(Bytes::new()),
        ..TensorProto::default()
    };
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    let error = crate::read_onnx(&path).unwrap_err().to_string();
    assert!(
        error.contains("initializer `w`") && error.contains("w.bin"),
        "{error}"
    );
    let bytes: Vec<u8> = (0..37).flat_map(|i| (i as f32).to_le_bytes()).collect();
    std::fs::write(folder.path().join("w.bin"), bytes).unwrap();
    let network = crate::read_onnx(&path).unwrap().network;
    assert_eq!(network.tensors["w"].values()[..2], [1.0, 2.0]);
}
