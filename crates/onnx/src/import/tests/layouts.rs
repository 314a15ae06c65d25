//! Values in other shapes, orders and types than the network's.

use sparsevd_model::{Op, ops};

use super::*;

/// A model whose input `x` has those dimensions, a negative one open.
fn over(input: &[i64], nodes: Vec<NodeProto>) -> ModelProto {
    let mut model = model(nodes);
    model.graph.as_mut().unwrap().input[0] = value("x", input);
    model
}

fn names(model: &ModelProto) -> Result<Vec<&'static str>, String> {
    let network = read(model)?;
    Ok(network.graph.nodes.iter().map(|n| n.op.name()).collect())
}

#[test]
fn transposes_become_nodes_only_where_a_layer_or_output_needs_the_order() {
    let turn = |from: &str, to: &str, perm: &[i64]| {
        ints(
            node("Transpose", &format!("turn {to}"), &[from], &[to]),
            "perm",
            perm,
        )
    };
    let conv = |from: &str| node("Conv", "conv", &[from, "w"], &["y"]);
    let cases = [
        // An input [2, 6, 6]; of an input [2, 2, 2] the order could not be told.
        (
            over(
                &[-1, 6, 6, 2],
                vec![turn("x", "t", &[0, 3, 1, 2]), conv("t")],
            ),
            vec!["Conv"],
        ),
        (
            over(
                &[-1, 2, 2, 2],
                vec![
                    turn("x", "t", &[0, 3, 1, 2]),
                    node("GlobalAveragePool", "pool", &["t"], &["y"]),
                ],
            ),
            vec!["Reshape", "Transpose", "Reshape", "GlobalAveragePool"],
        ),
        // Channels last in another order than [height, width, channels].
        (
            over(
                &[-1, 6, 5, 2],
                vec![turn("x", "t", &[0, 3, 2, 1]), conv("t")],
            ),
            vec!["Transpose", "Conv"],
        ),
        // Inside the network there is no layout to choose.
        (
            over(
                &[-1, 2, 6, 6],
                vec![
                    node("Conv", "first", &["x", "w"], &["a"]),
                    turn("a", "t", &[0, 1, 3, 2]),
                    conv("t"),
                ],
            ),
            vec!["Conv", "Transpose", "Conv"],
        ),
        (
            over(&[-1, 6, 5], vec![turn("x", "y", &[0, 2, 1])]),
            vec!["Transpose"],
        ),
        // Two that cancel, with an operator on single numbers between.
        (
            over(
                &[-1, 2, 6, 6],
                vec![
                    turn("x", "t", &[0, 2, 3, 1]),
                    node("Relu", "relu", &["t"], &["r"]),
                    turn("r", "u", &[0, 3, 1, 2]),
                    conv("u"),
                ],
            ),
            vec!["Relu", "Conv"],
        ),
    ];
    for (model, wanted) in cases {
        assert_eq!(names(&model).unwrap(), wanted);
    }
    let batch = over(&[-1, 6, 5], vec![turn("x", "y", &[1, 0, 2])]);
    let error = read(&batch).unwrap_err();
    assert!(
        error.contains("`turn y` (Transpose): the batch moved"),
        "{error}"
    );
}

#[test]
fn vectors_become_maps_inside_a_network_by_a_node() {
    let mut model = over(
        &[-1, 8],
        vec![
            node("MatMul", "product", &["x", "n"], &["a"]),
            node("Reshape", "map", &["a", "shape"], &["b"]),
            node("Conv", "conv", &["b", "w"], &["y"]),
        ],
    );
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(ones("n", &[8, 32]));
    graph.initializer.push(integers("shape", &[-1, 2, 4, 4]));
    assert_eq!(names(&model).unwrap(), ["Linear", "Reshape", "Conv"]);
}

#[test]
fn slices_that_keep_everything_are_nothing_and_samples_stay() {
    let sliced = |starts: &[i64], ends: &[i64], axes: &[i64]| {
        let slice = node("Slice", "slice", &["x", "starts", "ends", "axes"], &["s"]);
        let mut model = model(vec![slice, node("Relu", "relu", &["s"], &["y"])]);
        let graph = model.graph.as_mut().unwrap();
        let bounds = [("starts", starts), ("ends", ends), ("axes", axes)];
        graph
            .initializer
            .extend(bounds.map(|(name, values)| integers(name, values)));
        names(&model)
    };
    let most = i64::from(i32::MAX);
    assert_eq!(
        sliced(&[0; 4], &[most, most, i64::MAX, 4], &[0, 1, 2, 3]).unwrap(),
        ["Relu"]
    );
    assert_eq!(sliced(&[0], &[4], &[-1]).unwrap(), ["Relu"]);
    for (start, end, axis) in [(0, 3, 3), (0, -1, 3), (1, most, 2)] {
        assert_eq!(
            sliced(&[start], &[end], &[axis]).unwrap(),
            ["Slice", "Relu"]
        );
    }
    let error = sliced(&[0], &[1], &[0]).unwrap_err();
    let wanted = "`slice` (Slice): a part of axis 0, from 0 to 1";
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn inputs_of_integers_are_refused_at_nodes_that_compute_with_them_and_unused_ones_left_out() {
    let integers = |name: &str| {
        let mut proto = value(name, &[-1, 2, 4, 4]);
        proto
            .r#type
            .as_mut()
            .unwrap()
            .tensor_type
            .as_mut()
            .unwrap()
            .elem_type = data_type::INT64;
        proto
    };
    let mut model = model(vec![
        node("Conv", "conv", &["x", "w"], &["a"]),
        node("Add", "add", &["a", "i"], &["y"]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph.input.push(integers("i"));
    graph.input.push(value("unused", &[-1, 3]));
    let error = read(&model).unwrap_err();
    assert!(
        error.contains("`add` (Add): its input `i` of type i64"),
        "{error}"
    );
    model.graph.as_mut().unwrap().node[1].input[1] = "a".into();
    let network = read(&model).unwrap();
    let inputs: Vec<&str> = network
        .graph
        .inputs
        .iter()
        .map(|i| i.name.as_str())
        .collect();
    assert_eq!(inputs, ["x"]);
    model.graph.as_mut().unwrap().input.remove(0);
    let error = read(&model).unwrap_err();
    assert!(
        error.contains("`conv` (Conv): expected inputs that are there, got `x`"),
        "{error}"
    );
}

#[test]
fn a_file_that_mixes_samples_of_a_fixed_batch_is_one_sample() {
    let reduce = || ints(node("ReduceMax", "max", &["x"], &["y"]), "axes", &[0, 1]);
    let network = read(&over(&[3, 4], vec![reduce()])).unwrap();
    assert_eq!(network.graph.inputs[0].shape.dims(), [1, 12, 1]);
    let error = read(&over(&[-1, 4], vec![reduce()])).unwrap_err();
    assert!(error.contains("`max` (ReduceMax): axes [0, 1]"), "{error}");
}

#[test]
fn several_outputs_keep_the_names_of_the_file_and_one_the_name_of_its_node() {
    // A bias becomes part of the layer before it, and a Flatten is nothing for what a vector already is.
    let nodes = || {
        vec![
            node("Flatten", "flat", &["x"], &["v"]),
            node("MatMul", "product", &["v", "k"], &["p"]),
            node("Add", "bias", &["p", "b"], &["scores"]),
            node("Relu", "relu", &["scores"], &["r"]),
            node("Identity", "same", &["r"], &["y"]),
        ]
    };
    let mut model = model(nodes());
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(ones("k", &[32, 3]));
    graph.initializer.push(ones("b", &[3]));
    assert_eq!(read(&model).unwrap().graph.outputs, ["r"]);
    let graph = model.graph.as_mut().unwrap();
    graph.output.push(value("scores", &[]));
    let network = read(&model).unwrap();
    assert_eq!(network.graph.outputs, ["y", "scores"]);
    let last = network.graph.nodes.last().unwrap();
    assert_eq!(
        (last.name.as_str(), last.inputs.as_slice()),
        ("y", &["scores".to_owned()][..])
    );
}

#[test]
fn a_concat_along_a_later_axis_is_a_vector_where_that_is_enough_and_keeps_its_shape_where_not() {
    let ops = |nodes: Vec<NodeProto>| {
        let mut model = over(&[-1, 4, 6], nodes);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(ones("k", &[12, 3]));
        let network = read(&model).unwrap();
        let nodes = network.graph.nodes.into_iter();
        nodes.map(|n| n.op).collect::<Vec<Op>>()
    };
    let concat = || {
        let mut both = node("Concat", "both", &["x", "x"], &["z"]);
        both.attribute.push(AttributeProto {
            name: "axis".into(),
            i: Some(2),
            ..AttributeProto::default()
        });
        both
    };
    let product = node("MatMul", "product", &["z", "k"], &["y"]);
    let kept = ops(vec![concat(), product]);
    assert_eq!(kept[0], Op::Concat(ops::Concat { axis: 1 }));
    assert_eq!(kept.len(), 2);
    let nodes = vec![
        concat(),
        node("Flatten", "flat", &["z"], &["v"]),
        node("MatMul", "layer", &["v", "k"], &["y"]),
    ];
    let mut model = over(&[-1, 4, 6], nodes);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(ones("k", &[48, 2]));
    let network = read(&model).unwrap();
    let first = Op::Concat(ops::Concat { axis: 0 });
    assert!(network.graph.nodes.iter().any(|n| n.op == first));
}

/// A Reshape to the first shape, a Transpose, and a Reshape to the second, of an input.
fn turned(input: &[i64], first: &[i64], perm: &[i64], second: &[i64]) -> ModelProto {
    let turn = node("Transpose", "turn", &["a"], &["t"]);
    let mut model = over(
        input,
        vec![
            node("Reshape", "merge", &["x", "first"], &["a"]),
            ints(turn, "perm", perm),
            node("Reshape", "split", &["t", "second"], &["y"]),
        ],
    );
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.push(integers("first", first));
    graph.initializer.push(integers("second", second));
    model
}

#[test]
fn heads_that_are_merged_with_the_batch_and_split_again_are_dimensions_of_a_sample() {
    // As PyTorch writes the transposed keys of `scaled_dot_product_attention`.
    let wanted = Op::Transpose(ops::Transpose {
        perm: vec![0, 2, 1],
    });
    for (batch, first, second) in [
        (-1, [-1, 4, 5], [-1, 3, 5, 4]),
        (1, [3, 4, 5], [1, 3, 5, 4]),
        (1, [3, 4, -1], [-1, 3, 5, 4]),
        (2, [6, 4, 5], [2, 3, 5, 4]),
        // A zero of the merged value is its own second axis, of five.
        (-1, [-1, 4, 5], [-1, 0, 3, 4]),
    ] {
        let shape = [batch, 3, 4, 5];
        let mut model = turned(&shape, &first, &[0, 2, 1], &second);
        let graph = model.graph.as_mut().unwrap();
        graph.node.push(node("Softmax", "s", &["y"], &["z"]));
        graph.output[0] = value("z", &[]);
        let network = read(&model).unwrap_or_else(|e| panic!("{first:?} {second:?}: {e}"));
        let ops: Vec<&Op> = network.graph.nodes.iter().map(|n| &n.op).collect();
        assert_eq!(ops[0], &wanted, "{first:?} {second:?}");
        let types = network.types().unwrap();
        let made = types[network.graph.nodes[0].name.as_str()].shape(1);
        assert_eq!(made.dims(), [3, 5, 4]);
    }
}

#[test]
fn an_axis_that_mixes_samples_is_split_before_anything_computes_with_it() {
    let merged = |then: NodeProto| {
        let merge = node("Reshape", "merge", &["x", "first"], &["a"]);
        let mut model = over(&[-1, 3, 4, 5], vec![merge, then]);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(integers("first", &[-1, 4, 5]));
        read(&model).unwrap_err()
    };
    for op in ["Relu", "Softmax", "Shape", "Flatten", "GlobalMaxPool"] {
        let error = merged(node(op, "then", &["a"], &["y"]));
        let wanted = format!("`then` ({op}): its input `x`, an axis of which mixes samples");
        assert!(error.contains(&wanted), "{error}");
    }
    let error = merged(node("Identity", "then", &["a"], &["y"]));
    assert!(
        error.contains("output `y`") && error.contains("mixes samples"),
        "{error}"
    );
    for (first, perm, second, part) in [
        (
            &[-1, 4, 5][..],
            &[1, 0, 2][..],
            &[-1, 3, 5, 4][..],
            "the batch moved",
        ),
        (
            &[-1, 7, 5],
            &[0, 2, 1],
            &[-1, 3, 5, 4],
            "[-1, 7, 5], which mixes samples",
        ),
        (
            &[6, 4, 5],
            &[0, 2, 1],
            &[-1, 3, 5, 4],
            "[6, 4, 5], which mixes samples",
        ),
        (&[-1, 4, 5], &[0, 2, 1], &[-1, 2, 5, 4], "mixes samples"),
        // Zero is the merged axis: as many heads again.
        (
            &[-1, 4, 5],
            &[0, 2, 1],
            &[0, 3, 5, 4],
            "a shape for [3, 5, 4]",
        ),
    ] {
        let error = read(&turned(&[-1, 3, 4, 5], first, perm, second)).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
}
