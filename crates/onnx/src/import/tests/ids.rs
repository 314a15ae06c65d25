//! Inputs of integers, and what may read them.

use super::*;

/// A model over ids `x` `[n, 4]` with a table `t` `[5, 2]`.
fn over_ids(nodes: Vec<NodeProto>) -> ModelProto {
    let mut model = model(nodes);
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![of_type(value("x", &[-1, 4]), data_type::INT64)];
    graph.initializer = vec![
        ones("t", &[5, 2]),
        ones("cube", &[5, 2, 2]),
        ones("row", &[2]),
        integers("four", &[4]),
        integers("five", &[5]),
        integers("numbers", &[0, 1, 2, 3, 4]),
        integers("others", &[1, 2, 3, 4, 5]),
        integers("column", &[-1, 4, 1]),
        integers("twice", &[2, 1, 4]),
        TensorProto {
            dims: vec![2],
            float_data: vec![0.0, 1.0],
            ..ones("values", &[2])
        },
    ];
    model
}

fn of_type(mut value: ValueInfoProto, elem_type: i32) -> ValueInfoProto {
    let tensor = value.r#type.as_mut().and_then(|t| t.tensor_type.as_mut());
    tensor.unwrap().elem_type = elem_type;
    value
}

fn int(mut node: NodeProto, name: &str, i: i64) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        i: Some(i),
        ..AttributeProto::default()
    });
    node
}

#[test]
fn a_bias_is_part_of_the_rows_unless_others_read_them() {
    let gather = |name: &str, made: &str| node("Gather", name, &["t", "x"], &[made]);
    let network = read(&over_ids(vec![
        gather("rows", "a"),
        node("Add", "bias", &["row", "a"], &["y"]),
    ]))
    .unwrap();
    let [only] = network.graph.nodes.as_slice() else {
        panic!("{:?}", network.graph.nodes)
    };
    assert_eq!(only.op.name(), "Embedding");
    assert_eq!(network.tensors.len(), 1);
    assert_eq!(network.tensors["t"].to_dense().values, [2.0; 10]);

    let network = read(&over_ids(vec![
        gather("plain", "p"),
        gather("rows", "a"),
        node("Add", "bias", &["a", "row"], &["b"]),
        node("Mul", "product", &["b", "p"], &["y"]),
    ]))
    .unwrap();
    let sums: Vec<f32> = (network.graph.nodes.iter())
        .filter_map(|n| Some(network.tensors[n.op.tensors().next()?].to_dense().values[0]))
        .collect();
    assert_eq!(sums, [1.0, 2.0]);

    // Both biased: no table is left that none reads.
    let network = read(&over_ids(vec![
        gather("first", "p"),
        node("Add", "first bias", &["p", "row"], &["q"]),
        gather("second", "a"),
        node("Add", "second bias", &["a", "row"], &["b"]),
        node("Mul", "product", &["b", "q"], &["y"]),
    ]))
    .unwrap();
    let read_by = |n: &sparsevd_model::Node| n.op.tensors().next().map(str::to_owned);
    let tables: std::collections::BTreeSet<String> =
        network.graph.nodes.iter().filter_map(read_by).collect();
    assert_eq!(network.tensors.len(), tables.len());
    for table in network.tensors.values() {
        assert_eq!(table.to_dense().values, [2.0; 10]);
    }
}

#[test]
fn what_ids_cannot_do_is_refused_with_a_reason() {
    let gather = |table: &str| node("Gather", "rows", &[table, "x"], &["y"]);
    let one_hot = |numbers: &str| {
        vec![
            node("Reshape", "column", &["x", "column"], &["c"]),
            node("Equal", "equal", &["c", numbers], &["e"]),
            int(node("Cast", "cast", &["e"], &["h"]), "to", 1),
            node("MatMul", "product", &["h", "t"], &["y"]),
        ]
    };
    let first = |values: &[&str]| {
        let mut inputs = vec!["x", "five"];
        inputs.extend(values);
        vec![
            node("OneHot", "hot", &inputs, &["h"]),
            node("MatMul", "product", &["h", "t"], &["y"]),
        ]
    };
    assert!(read(&over_ids(one_hot("numbers"))).is_ok());
    assert!(read(&over_ids(first(&["values"]))).is_ok());
    let mut along_other = first(&["values"]);
    along_other[0] = int(along_other[0].clone(), "axis", 1);
    let mut narrow = first(&["values"]);
    narrow[0].input[1] = "four".into();
    let cases = [
        (
            vec![node("Relu", "relu", &["x"], &["y"])],
            "`x` of type i64",
        ),
        (
            vec![node("Add", "sum", &["x", "row"], &["y"])],
            "`x` of type i64",
        ),
        (
            vec![int(node("Cast", "cast", &["x"], &["y"]), "to", 1)],
            "`cast` (Cast): data type 1",
        ),
        (vec![int(gather("t"), "axis", 1)], "axis 1 of a constant"),
        (vec![gather("cube")], "which is no matrix"),
        (
            vec![
                node("Expand", "copies", &["x", "twice"], &["c"]),
                node("Gather", "rows", &["t", "c"], &["y"]),
            ],
            "`copies` (Expand): copies of [4]",
        ),
        (
            vec![node("Identity", "same", &["x"], &["y"])],
            "expected a value of floating-point numbers, got ids",
        ),
        (
            vec![node("CastLike", "cast", &["x", "row"], &["y"])],
            "`cast` (CastLike): another type",
        ),
        (one_hot("others"), "`equal` (Equal)"),
        (along_other, "`hot` (OneHot)"),
        (narrow, "`hot` (OneHot)"),
    ];
    for (nodes, reason) in cases {
        let error = read(&over_ids(nodes)).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    let mut bytes = over_ids(vec![gather("t")]);
    let input = &mut bytes.graph.as_mut().unwrap().input;
    input[0] = of_type(value("x", &[-1, 4]), data_type::UINT8);
    let error = read(&bytes).unwrap_err();
    assert!(error.contains("data type uint8"), "{error}");
    let mut floats = over_ids(vec![gather("t")]);
    floats.graph.as_mut().unwrap().input = vec![value("x", &[-1, 4])];
    let error = read(&floats).unwrap_err();
    assert!(error.contains("computed indices of a constant"), "{error}");
}

#[test]
fn an_expansion_to_its_own_shape_is_nothing_whatever_the_batch() {
    for batch in [-1, 1, 3] {
        let mut model = over_ids(vec![
            node("Shape", "shape", &["x"], &["s"]),
            node("Expand", "same", &["x", "s"], &["e"]),
            node("Gather", "rows", &["t", "e"], &["y"]),
        ]);
        model.graph.as_mut().unwrap().input =
            vec![of_type(value("x", &[batch, 4]), data_type::INT32)];
        let network = read(&model).unwrap();
        let ops: Vec<&str> = network.graph.nodes.iter().map(|n| n.op.name()).collect();
        assert_eq!(ops, ["Embedding"], "{batch}");
        assert_eq!(network.graph.inputs[0].shape.dims(), [4]);
    }
}

#[test]
fn integers_that_no_node_reads_are_no_inputs() {
    let mut model = over_ids(vec![node("Gather", "rows", &["t", "x"], &["y"])]);
    let input = &mut model.graph.as_mut().unwrap().input;
    input.push(of_type(value("steps", &[]), data_type::INT64));
    let network = read(&model).unwrap();
    assert_eq!(network.graph.inputs.len(), 1);
}

#[test]
fn a_map_of_one_dimension_and_one_pixel_keeps_its_channels() {
    let mut model = model(vec![
        node("Gemm", "fc", &["x", "w"], &["v"]),
        node("Unsqueeze", "map", &["v", "two"], &["m"]),
        node("Conv", "conv", &["m", "filters"], &["c"]),
        node("GlobalAveragePool", "mean", &["c"], &["y"]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("x", &[-1, 16])];
    graph.initializer = vec![
        ones("w", &[16, 8]),
        ones("filters", &[4, 8, 1]),
        integers("two", &[2]),
    ];
    let network = read(&model).unwrap();
    let output = &network.graph.outputs[0];
    assert_eq!(network.shapes().unwrap()[output.as_str()].dims(), [4, 1, 1]);
}

#[test]
fn a_column_that_is_reshaped_anyway_becomes_a_row() {
    let mut model = over_ids(vec![
        node("Gather", "rows", &["t", "x"], &["r"]),
        node("Unsqueeze", "map", &["r", "three"], &["m"]),
        node("Conv", "conv", &["m", "filters"], &["c"]),
        node("Relu", "relu", &["c"], &["y"]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph
        .initializer
        .extend([ones("filters", &[3, 4, 2, 1]), integers("three", &[3])]);
    let network = read(&model).unwrap();
    assert_eq!(network.shapes().unwrap()["c"].dims(), [3, 1, 1]);
    assert_eq!(network.tensors["filters"].shape().dims(), [3, 4, 1, 2]);
    assert_eq!(network.graph.nodes[1].op.name(), "Reshape");
}
