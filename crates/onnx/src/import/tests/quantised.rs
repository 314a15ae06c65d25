//! Quantised files: pairs of `QuantizeLinear` and `DequantizeLinear`, operators over integers, and both ways of files with grids.

use std::collections::BTreeMap;

use sparsevd_model::{
    Conv2d, Csr, Dense, GraphBuilder, Int8Grid, Int8Input, Network, Op, Weights, ops,
};

use super::*;

/// An initializer of integers of a type.
fn typed(name: &str, data_type: i32, dims: &[i64], values: &[i32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type,
        int32_data: values.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

fn numbers(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: data_type::FLOAT,
        float_data: values.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

/// A pair that makes `{value}.q` and `{value}.d` by the scale and zero point of these names.
fn pair(value: &str, scale: &str, zero: &str) -> [NodeProto; 2] {
    let names = [value, ".q", ".d"].map(|part| format!("{value}{part}"));
    let [quantised, dequantised] = [1, 2].map(|i| names[i].as_str());
    let parameters = [scale, zero];
    [
        node(
            "QuantizeLinear",
            &format!("q of {value}"),
            &[&[value][..], &parameters].concat(),
            &[quantised],
        ),
        node(
            "DequantizeLinear",
            &format!("d of {value}"),
            &[&[quantised][..], &parameters].concat(),
            &[dequantised],
        ),
    ]
}

/// Levels of a weight of which most are zero, so that CSR is smaller.
fn levels(elements: usize) -> Vec<i32> {
    let level = |i: usize| match i % 4 {
        0 => (i as i32 * 37 + 11) % 255 - 127,
        _ => 0,
    };
    (0..elements).map(level).collect()
}

/// A model with scales 0.25 and 0.5, zero points of all types, and integer weights: `wq` `[2, 2, 3, 3]`, `mq` `[8, 16]`, and `fq` `[32, 8]`.
fn quantised(nodes: Vec<NodeProto>) -> ModelProto {
    let mut model = model(nodes);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.extend([
        numbers("s", &[], &[0.25]),
        numbers("half", &[1], &[0.5]),
        numbers("tenth", &[], &[0.1]),
        numbers("of two", &[2], &[0.5, 0.1]),
        numbers(
            "of eight",
            &[8],
            &[0.5, 0.25, 1.0, 0.125, 2.0, 0.1, 0.3, 4.0],
        ),
        typed("u0", data_type::UINT8, &[], &[0]),
        typed("u128", data_type::UINT8, &[], &[128]),
        typed("i0", data_type::INT8, &[], &[0]),
        typed("i-128", data_type::INT8, &[], &[-128]),
        typed("w0", data_type::UINT16, &[], &[0]),
        typed("zeros", data_type::INT8, &[2], &[0, 0]),
        typed("wq", data_type::INT8, &[2, 2, 3, 3], &levels(36)),
        typed("mq", data_type::INT8, &[8, 16], &levels(128)),
        typed("lq", data_type::INT8, &[64, 8], &levels(512)),
        typed("fq", data_type::INT8, &[32, 8], &levels(256)),
        typed("tq", data_type::INT8, &[8, 32], &levels(256)),
    ]);
    model
}

/// The operators of a network, with the bounds of clamps.
fn operators(network: &Network) -> Vec<String> {
    let text = |op: &Op| match op {
        Op::Clip(ops::Clip { min, max }) => {
            let end = |v: &Option<f32>| v.map_or(String::new(), |v| v.to_string());
            format!("Clip {}..{}", end(min), end(max))
        }
        other => other.name().to_owned(),
    };
    network.graph.nodes.iter().map(|n| text(&n.op)).collect()
}

#[test]
fn a_pair_is_the_clamp_to_its_range() {
    let conv = || node("Conv", "conv", &["x", "w"], &["a"]);
    let relu = |from: &str, to: &str| node("Relu", to, &[from], &[to]);
    let pool =
        |from: &str, to: &str| ints(node("MaxPool", to, &[from], &[to]), "kernel_shape", &[2, 2]);
    let out = |from: &str| node("Tanh", "out", &[from], &["y"]);
    let after_conv = |zero: &str| {
        [
            vec![conv()],
            pair("a", "s", zero).to_vec(),
            vec![out("a.d")],
        ]
        .concat()
    };
    let with = |before: Vec<NodeProto>, value: &str, zero: &str, after: Vec<NodeProto>| {
        [before, pair(value, "s", zero).to_vec(), after].concat()
    };
    let cases: Vec<(&str, Vec<NodeProto>, &[&str])> = vec![
        (
            "unsigned, zero first",
            after_conv("u0"),
            &["Conv", "Clip 0..63.75", "Tanh"],
        ),
        (
            "without a zero point",
            after_conv(""),
            &["Conv", "Clip 0..63.75", "Tanh"],
        ),
        (
            "unsigned",
            after_conv("u128"),
            &["Conv", "Clip -32..31.75", "Tanh"],
        ),
        (
            "signed",
            after_conv("i0"),
            &["Conv", "Clip -32..31.75", "Tanh"],
        ),
        (
            "signed, zero first",
            after_conv("i-128"),
            &["Conv", "Clip 0..63.75", "Tanh"],
        ),
        (
            "16 bits",
            after_conv("w0"),
            &["Conv", "Clip 0..16383.75", "Tanh"],
        ),
        (
            "behind a ReLU of its own",
            with(vec![conv(), relu("a", "b")], "b", "u0", vec![out("b.d")]),
            &["Conv", "Clip 0..63.75", "Tanh"],
        ),
        (
            "behind a ReLU and a max-pooling of its own",
            with(
                vec![conv(), relu("a", "b"), pool("b", "c")],
                "c",
                "u0",
                vec![out("c.d")],
            ),
            &["Conv", "Clip 0..63.75", "MaxPool", "Tanh"],
        ),
        (
            "behind a ReLU that others read",
            with(
                vec![conv(), relu("a", "b")],
                "b",
                "u0",
                vec![node("Mul", "out", &["b", "b.d"], &["y"])],
            ),
            &["Conv", "Relu", "Clip ..63.75", "Mul"],
        ),
        (
            "behind a sigmoid, which passes neither end",
            with(
                vec![conv(), node("Sigmoid", "b", &["a"], &["b"])],
                "b",
                "i0",
                vec![out("b.d")],
            ),
            &["Conv", "Sigmoid", "Tanh"],
        ),
        (
            "again behind a max-pooling",
            [
                vec![conv()],
                pair("a", "s", "u0").to_vec(),
                vec![pool("a.d", "p")],
                pair("p", "s", "u0").to_vec(),
                vec![out("p.d")],
            ]
            .concat(),
            &["Conv", "Clip 0..63.75", "MaxPool", "Tanh"],
        ),
        (
            "of integers that are pooled",
            vec![
                conv(),
                pair("a", "s", "u0")[0].clone(),
                pool("a.q", "p"),
                node("DequantizeLinear", "d", &["p", "s", "u0"], &["d"]),
                out("d"),
            ],
            &["Conv", "Clip 0..63.75", "MaxPool", "Tanh"],
        ),
        (
            "before a sum alone, with zero inside",
            with(
                vec![conv()],
                "a",
                "u128",
                vec![node("Add", "out", &["a.d", "a.d"], &["y"])],
            ),
            &["Conv", "Add"],
        ),
        (
            "before a sum alone, with zero first",
            with(
                vec![conv()],
                "a",
                "u0",
                vec![node("Add", "out", &["a.d", "a.d"], &["y"])],
            ),
            &["Conv", "Clip 0..63.75", "Add"],
        ),
        (
            "before a sum and another operator",
            with(
                vec![conv()],
                "a",
                "u128",
                vec![
                    node("Tanh", "t", &["a.d"], &["t"]),
                    node("Add", "out", &["a.d", "t"], &["y"]),
                ],
            ),
            &["Conv", "Clip -32..31.75", "Tanh", "Add"],
        ),
        (
            "of the input and of the output",
            [
                pair("x", "s", "u128").to_vec(),
                vec![node("Conv", "conv", &["x.d", "w"], &["a"])],
                pair("a", "half", "i0").to_vec(),
                vec![node("Identity", "out", &["a.d"], &["y"])],
            ]
            .concat(),
            &["Clip -32..31.75", "Conv", "Clip -64..63.5"],
        ),
    ];
    let mut wrong = Vec::new();
    for (what, nodes, want) in cases {
        match read(&quantised(nodes)).map(|n| operators(&n)) {
            Ok(got) if got == want => {}
            got => wrong.push(format!("{what}: {got:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rounded scale of a grid.
fn grid_scale(scale: f32) -> f32 {
    sparsevd_model::quantised::nearest_scale(scale, 16).unwrap()
}

#[test]
fn layers_over_integers_have_grids() {
    let weight = |levels: &str, scale: &str, axis: i64| {
        let zero = if scale == "of two" { "zeros" } else { "" };
        int(
            node("DequantizeLinear", "weight", &[levels, scale, zero], &["v"]),
            "axis",
            axis,
        )
    };
    let conv = |from: &str| node("Conv", "conv", &[from, "v"], &["y"]);
    let flat = || node("Flatten", "flat", &["x"], &["f"]);
    let gemm = |from: &str| node("Gemm", "gemm", &[from, "v"], &["y"]);
    let over_x = |zero: &str, scale: &str, axis, layer: NodeProto| {
        [
            pair("x", "tenth", zero).to_vec(),
            vec![weight("wq", scale, axis), layer],
        ]
        .concat()
    };
    let over_flat =
        |nodes: Vec<NodeProto>| [vec![flat()], pair("f", "s", "u0").to_vec(), nodes].concat();
    let of_eight = [0.5, 0.25, 1.0, 0.125, 2.0, 0.1, 0.3, 4.0].map(grid_scale);
    let tenth = grid_scale(0.1);
    let of_two = [0.5, tenth];
    let pooled = |node: NodeProto| ints(node, "kernel_shape", &[1, 1]);
    type Want<'a> = Option<(f32, u8, &'a [f32])>;
    let cases: Vec<(&str, Vec<NodeProto>, Want<'_>)> = vec![
        (
            "per tensor",
            over_x("u128", "half", 1, conv("x.d")),
            Some((tenth, 128, &[0.5, 0.5])),
        ),
        (
            "per channel, signed",
            over_x("i-128", "of two", 0, conv("x.d")),
            Some((tenth, 0, &of_two)),
        ),
        (
            "an axis from behind",
            over_x("i0", "of two", -4, conv("x.d")),
            Some((tenth, 128, &of_two)),
        ),
        (
            "per input channel",
            over_x("i0", "of two", 1, conv("x.d")),
            None,
        ),
        ("16 bits", over_x("w0", "half", 1, conv("x.d")), None),
        (
            "an input of numbers",
            over_x("u0", "half", 1, conv("x")),
            None,
        ),
        (
            "integers that are pooled and reshaped",
            [
                pair("x", "s", "u0").to_vec(),
                vec![
                    pooled(node("MaxPool", "pool", &["x.d"], &["p"])),
                    node("Flatten", "flat", &["p"], &["pf"]),
                    weight("fq", "of eight", 1),
                    gemm("pf"),
                ],
            ]
            .concat(),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "parts on one grid",
            over_flat(vec![
                node("Relu", "relu", &["f"], &["r"]),
                pair("r", "s", "u0")[0].clone(),
                pair("r", "s", "u0")[1].clone(),
                int(node("Concat", "join", &["f.d", "r.d"], &["j"]), "axis", 1),
                weight("lq", "of eight", 1),
                gemm("j"),
            ]),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "parts on two grids",
            over_flat(vec![
                node("Relu", "relu", &["f"], &["r"]),
                pair("r", "half", "u0")[0].clone(),
                pair("r", "half", "u0")[1].clone(),
                int(node("Concat", "join", &["f.d", "r.d"], &["j"]), "axis", 1),
                weight("lq", "of eight", 1),
                gemm("j"),
            ]),
            None,
        ),
        (
            "Gemm",
            over_flat(vec![weight("fq", "of eight", 1), gemm("f.d")]),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "Gemm, transB",
            over_flat(vec![
                weight("tq", "of eight", -2),
                int(gemm("f.d"), "transB", 1),
            ]),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "Gemm with a factor",
            over_flat(vec![
                weight("fq", "of eight", 1),
                float(gemm("f.d"), "alpha", 2.0),
            ]),
            None,
        ),
        (
            "MatMul",
            over_flat(vec![
                weight("fq", "of eight", 1),
                node("MatMul", "product", &["f.d", "v"], &["y"]),
            ]),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "MatMul by a transposed weight",
            over_flat(vec![
                weight("tq", "of eight", 0),
                ints(node("Transpose", "turn", &["v"], &["t"]), "perm", &[1, 0]),
                node("MatMul", "product", &["f.d", "t"], &["y"]),
            ]),
            Some((0.25, 0, &of_eight)),
        ),
        (
            "a weight in numbers that is quantised and back",
            [
                pair("x", "s", "u0").to_vec(),
                vec![
                    node(
                        "DequantizeLinear",
                        "first",
                        &["wq", "half", "i0"],
                        &["w numbers"],
                    ),
                    node(
                        "QuantizeLinear",
                        "again",
                        &["w numbers", "half", "i0"],
                        &["w again"],
                    ),
                    node(
                        "DequantizeLinear",
                        "back",
                        &["w again", "half", "i0"],
                        &["v"],
                    ),
                    conv("x.d"),
                ],
            ]
            .concat(),
            Some((0.25, 0, &[0.5, 0.5])),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, nodes, want) in cases {
        let network = read(&quantised(nodes)).unwrap_or_else(|e| panic!("{what}: {e}"));
        let layer = network.graph.nodes.last().unwrap();
        let grid = network.int8.inputs.get(&layer.name);
        let grid = grid.and_then(|input| input.grid());
        let rows = network.int8.rows.get(layer.op.weight().unwrap());
        let got = grid.zip(rows).map(|(g, r)| (g.scale, g.zero_point, &r[..]));
        if got != want {
            wrong.push(format!("{what}: {got:?}"));
        }
        network.check_int8().unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn weights_and_biases_are_the_numbers_of_their_integers() {
    let bias = |scale: &str, axis| {
        int(
            node("DequantizeLinear", "bias", &["bq", scale], &["b"]),
            "axis",
            axis,
        )
    };
    let mut model = quantised(vec![
        pair("x", "s", "u0")[0].clone(),
        pair("x", "s", "u0")[1].clone(),
        int(
            node(
                "DequantizeLinear",
                "weight",
                &["wq", "of two", "zeros"],
                &["v"],
            ),
            "axis",
            0,
        ),
        bias("products", 0),
        node("Conv", "conv", &["x.d", "v", "b"], &["y"]),
    ]);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.extend([
        typed("bq", data_type::INT32, &[2], &[123_456_789, -7]),
        numbers("products", &[2], &[0.123_456_79, 0.025]),
    ]);
    let network = read(&model).unwrap();
    let weight = network.tensors["v"].to_dense();
    let scales = [0.5, grid_scale(0.1)];
    let want: Vec<f32> = (levels(36).iter().enumerate())
        .map(|(i, q)| *q as f32 * scales[i / 18])
        .collect();
    assert_eq!(weight.values, want);
    // Scales of biases are not rounded.
    let bias = network.tensors["b"].to_dense().values;
    let want = [
        123_456_789.0 * f64::from(0.123_456_79_f32),
        -7.0 * f64::from(0.025_f32),
    ];
    assert_eq!(bias, want.map(|v| v as f32));
    assert!(matches!(network.tensors["v"], Weights::Csr(_)));
}

#[test]
fn unsigned_weights_with_a_zero_point_are_levels_around_it() {
    let read_with = |levels: &[i32], zero: i32| {
        let mut model = quantised(
            [
                pair("x", "s", "u0").to_vec(),
                vec![
                    node("DequantizeLinear", "weight", &["uq", "half", "z"], &["v"]),
                    node("Conv", "conv", &["x.d", "v"], &["y"]),
                ],
            ]
            .concat(),
        );
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.extend([
            typed("uq", data_type::UINT8, &[2, 2, 3, 3], levels),
            typed("z", data_type::UINT8, &[1], &[zero]),
        ]);
        read(&model).unwrap()
    };
    let shifted: Vec<i32> = levels(36).iter().map(|q| q + 128).collect();
    let network = read_with(&shifted, 128);
    let want: Vec<f32> = levels(36).iter().map(|q| *q as f32 * 0.5).collect();
    assert_eq!(network.tensors["v"].to_dense().values, want);
    assert_eq!(network.int8.inputs.len(), 1);
    // A level of 150 is more than a byte with a sign holds: the layer stays in f32.
    let mut wide = vec![100; 36];
    wide[0] = 250;
    let network = read_with(&wide, 100);
    assert_eq!(network.tensors["v"].to_dense().values[0], 75.0);
    assert!(network.int8.is_empty());
}

#[test]
fn a_convolution_without_zeros_has_grids() {
    let mut model = quantised(
        [
            pair("x", "s", "u0").to_vec(),
            vec![
                node(
                    "DequantizeLinear",
                    "weight",
                    &["full", "half", "i0"],
                    &["v"],
                ),
                node("Conv", "conv", &["x.d", "v"], &["y"]),
            ],
        ]
        .concat(),
    );
    let full = typed("full", data_type::INT8, &[2, 2, 3, 3], &[3; 36]);
    model.graph.as_mut().unwrap().initializer.push(full);
    let network = read(&model).unwrap();
    assert_eq!(network.tensors["v"].to_dense().values, [1.5; 36]);
    let layer = network.int8_layer("y", "v").unwrap().unwrap();
    assert_eq!(layer.levels.values(), [3.0; 36]);
    assert_eq!(layer.rows, [0.5; 2]);
}

#[test]
fn quantised_files_that_are_wrong_or_beyond_us_name_the_node() {
    let conv = |weight: &str| node("Conv", "conv", &["x", weight], &["y"]);
    let weight = |inputs: &[&str]| node("DequantizeLinear", "weight", inputs, &["v"]);
    let quantise = |inputs: &[&str]| node("QuantizeLinear", "q", inputs, &["a"]);
    let back = |inputs: &[&str]| node("DequantizeLinear", "d", inputs, &["y"]);
    let on_x = |inputs: &[&str]| vec![quantise(inputs), back(&["a", "s", "u0"])];
    let cases: Vec<(&str, Vec<NodeProto>)> = vec![
        (
            "`q` (QuantizeLinear): a scale that is no constant",
            vec![
                node("Relu", "r", &["x"], &["r"]),
                quantise(&["x", "r", "u0"]),
                back(&["a", "s", "u0"]),
            ],
        ),
        (
            "`q` (QuantizeLinear): expected a scale, got none",
            on_x(&["x"]),
        ),
        (
            "`q` (QuantizeLinear): expected finite scales above 0, got 0",
            on_x(&["x", "zero", "u0"]),
        ),
        (
            "`q` (QuantizeLinear): expected finite scales above 0, got -0.5",
            on_x(&["x", "negative", "u0"]),
        ),
        (
            "`q` (QuantizeLinear): expected finite scales above 0, got NaN",
            on_x(&["x", "nan", "u0"]),
        ),
        (
            "`q` (QuantizeLinear): expected a number or a list of numbers as scale, got integer constant []",
            on_x(&["x", "u0", "u0"]),
        ),
        (
            "`q` (QuantizeLinear): expected an integer as zero point for each of 1 scale(s), got floating-point constant []",
            on_x(&["x", "s", "s"]),
        ),
        (
            "`q` (QuantizeLinear): expected an integer as zero point for each of 1 scale(s), got integer constant [2]",
            on_x(&["x", "s", "zeros"]),
        ),
        (
            "`q` (QuantizeLinear): integers of data type 6",
            on_x(&["x", "s", "i32"]),
        ),
        (
            "`q` (QuantizeLinear): expected a zero point from 0 to 255, got 300",
            on_x(&["x", "s", "u300"]),
        ),
        (
            "`q` (QuantizeLinear): 2 scales for one computed value",
            on_x(&["x", "of two", "zeros"]),
        ),
        (
            "`q` (QuantizeLinear): a block_size",
            vec![
                int(quantise(&["x", "s", "u0"]), "block_size", 2),
                back(&["a", "s", "u0"]),
            ],
        ),
        (
            "`d` (DequantizeLinear): scale 0.5 and zero point 0 for integers of scale 0.25 and zero point 0",
            vec![quantise(&["x", "s", "u0"]), back(&["a", "half", "u0"])],
        ),
        (
            "`d` (DequantizeLinear): expected a zero point of data type 2, as the integers have, got data type 3",
            vec![quantise(&["x", "s", "u0"]), back(&["a", "s", "i0"])],
        ),
        (
            "`d` (DequantizeLinear): expected integers of a QuantizeLinear, got `x`, a value of numbers",
            vec![back(&["x", "s", "u0"])],
        ),
        (
            "`r` (Relu): its input `a` of quantised integers",
            vec![
                quantise(&["x", "s", "u0"]),
                node("Relu", "r", &["a"], &["y"]),
            ],
        ),
        (
            "output `y`: expected a value of floating-point numbers, got quantised integers",
            vec![node("QuantizeLinear", "q", &["x", "s", "u0"], &["y"])],
        ),
        (
            "`weight` (DequantizeLinear): expected a zero point of data type 3, as the integers have, got data type 2",
            vec![weight(&["wq", "s", "u0"]), conv("v")],
        ),
        (
            "`weight` (DequantizeLinear): expected 3 scales along axis 2, got 2 scales and axis 2",
            vec![
                int(weight(&["wq", "of two", "zeros"]), "axis", 2),
                conv("v"),
            ],
        ),
        (
            "`weight` (DequantizeLinear): expected an axis of 4, got 2 scales and axis 7",
            vec![
                int(weight(&["wq", "of two", "zeros"]), "axis", 7),
                conv("v"),
            ],
        ),
        (
            "`weight` (DequantizeLinear): expected integers, got floating-point constant [2, 2, 3, 3]",
            vec![weight(&["w", "s"]), conv("v")],
        ),
    ];
    let mut wrong = Vec::new();
    for (want, nodes) in cases {
        let mut model = quantised(nodes);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.extend([
            numbers("zero", &[], &[0.0]),
            numbers("negative", &[], &[-0.5]),
            numbers("nan", &[], &[f32::NAN]),
            typed("i32", data_type::INT32, &[], &[0]),
            typed("u300", data_type::UINT8, &[], &[300]),
        ]);
        match read(&model) {
            Err(error) if error.contains(want) => {}
            other => wrong.push(format!("{want}: {:?}", other.map(|n| operators(&n)))),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn operators_over_integers_are_those_of_numbers_between_pairs() {
    let microsoft = |node: NodeProto| NodeProto {
        domain: "com.microsoft".into(),
        ..node
    };
    let dequantise = |from: &str, scale: &str, zero: &str, to: &str, axis| {
        int(
            node("DequantizeLinear", to, &[from, scale, zero], &[to]),
            "axis",
            axis,
        )
    };
    let quantise = |from: &str, scale: &str, zero: &str, to: &str| {
        node("QuantizeLinear", to, &[from, scale, zero], &[to])
    };
    let start = || vec![quantise("x", "s", "u128", "xq")];
    let padded = |node: NodeProto| ints(node, "pads", &[1; 4]);
    let end = |from: &str| vec![dequantise(from, "s", "u0", "y", 1)];
    let conv = ["xq", "s", "u128", "wq", "of two", "zeros", "s", "u0", "bq"];
    let integers = [
        start(),
        vec![
            padded(node("QLinearConv", "conv", &conv, &["a"])),
            ints(
                node("MaxPool", "p", &["a"], &["p"]),
                "kernel_shape",
                &[1, 1],
            ),
            microsoft(node(
                "QLinearAdd",
                "add",
                &["p", "s", "u0", "a", "s", "u0", "half", "u0"],
                &["b"],
            )),
            microsoft(node(
                "QLinearGlobalAveragePool",
                "mean",
                &["b", "half", "u0", "s", "u0"],
                &["c"],
            )),
            node("Flatten", "flat", &["c"], &["f"]),
            microsoft(int(
                node(
                    "QGemm",
                    "gemm",
                    &["f", "s", "u0", "gq", "half", "", "gb", "s", "u0"],
                    &["g"],
                ),
                "transB",
                1,
            )),
            node(
                "QLinearMatMul",
                "product",
                &["g", "s", "u0", "hq", "of two", "zeros", "s", "u0"],
                &["h"],
            ),
        ],
        end("h"),
    ]
    .concat();
    let pairs = [
        start(),
        vec![
            dequantise("xq", "s", "u128", "xd", 0),
            dequantise("wq", "of two", "zeros", "wd", 0),
            node("Mul", "m", &["s", "of two"], &["ss"]),
            dequantise("bq", "ss", "", "bd", 0),
            padded(node("Conv", "conv", &["xd", "wd", "bd"], &["an"])),
            quantise("an", "s", "u0", "a"),
            ints(
                node("MaxPool", "p", &["a"], &["p"]),
                "kernel_shape",
                &[1, 1],
            ),
            dequantise("p", "s", "u0", "pd", 0),
            dequantise("a", "s", "u0", "ad", 0),
            node("Add", "add", &["pd", "ad"], &["bn"]),
            quantise("bn", "half", "u0", "b"),
            dequantise("b", "half", "u0", "bd2", 0),
            node("GlobalAveragePool", "mean", &["bd2"], &["cn"]),
            quantise("cn", "s", "u0", "c"),
            node("Flatten", "flat", &["c"], &["f"]),
            dequantise("f", "s", "u0", "fd", 0),
            dequantise("gq", "half", "", "gd", 0),
            node("Mul", "m2", &["s", "half"], &["sh"]),
            dequantise("gb", "sh", "", "gbd", 0),
            int(
                node("Gemm", "gemm", &["fd", "gd", "gbd"], &["gn"]),
                "transB",
                1,
            ),
            quantise("gn", "s", "u0", "g"),
            dequantise("g", "s", "u0", "gd2", 0),
            dequantise("hq", "of two", "zeros", "hd", 1),
            node("MatMul", "product", &["gd2", "hd"], &["hn"]),
            quantise("hn", "s", "u0", "h"),
        ],
        end("h"),
    ]
    .concat();
    let [is, want] = [integers, pairs].map(|nodes| {
        let mut model = quantised(nodes);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.extend([
            typed("bq", data_type::INT32, &[2], &[40, -3]),
            typed("gq", data_type::INT8, &[16, 2], &levels(32)),
            typed("gb", data_type::INT32, &[16], &levels(16)),
            typed("hq", data_type::INT8, &[16, 2], &levels(32)),
        ]);
        read(&model).unwrap()
    });
    assert_eq!(operators(&is), operators(&want));
    let values = |n: &Network| -> Vec<Vec<f32>> {
        let of_node = |node: &sparsevd_model::Node| -> Vec<Vec<f32>> {
            node.op
                .tensors()
                .map(|t| n.tensors[t].to_dense().values)
                .collect()
        };
        n.graph.nodes.iter().flat_map(of_node).collect()
    };
    assert_eq!(values(&is), values(&want));
    let grids = |n: &Network| -> Vec<Option<Int8Input>> {
        let nodes = n.graph.nodes.iter();
        nodes
            .map(|node| n.int8.inputs.get(&node.name).copied())
            .collect()
    };
    assert_eq!(grids(&is), grids(&want));
    assert!(grids(&is).iter().flatten().count() >= 2, "{:?}", is.int8);
    // What has no form here is refused by its name.
    let mut other = quantised(vec![
        quantise("x", "s", "u0", "xq"),
        microsoft(int(
            node(
                "QLinearGlobalAveragePool",
                "mean",
                &["xq", "s", "u0", "s", "u0"],
                &["c"],
            ),
            "channels_last",
            1,
        )),
        dequantise("c", "s", "u0", "y", 1),
    ]);
    let error = read(&other).unwrap_err();
    assert!(
        error.contains("`mean` (com.microsoft::QLinearGlobalAveragePool)"),
        "{error}"
    );
    other.graph.as_mut().unwrap().node[1] = node("MatMulInteger", "product", &["xq", "mq"], &["c"]);
    let error = read(&other).unwrap_err();
    assert!(error.contains("`product` (MatMulInteger)"), "{error}");
}

/// A network with grids: two layers that read one value by one grid, one that reads it by another, and layers over vectors.
fn with_grids() -> Network {
    let mut b = GraphBuilder::new("n");
    let x = b.input("x", [2, 4, 4]);
    let relu = b.op("relu", Op::Relu, &[&x]);
    let layer = |b: &mut GraphBuilder, name: &str, from: &str| {
        b.conv(name, from, &Conv2d::square(2, 3).padding(1).without_bias())
    };
    let (a, c) = (layer(&mut b, "a", &relu), layer(&mut b, "c", &relu));
    let sum = b.op("sum", Op::Add, &[&a, &c]);
    let d = layer(&mut b, "d", &relu);
    let sum = b.op("sum2", Op::Add, &[&sum, &d]);
    let rows = b.op(
        "rows",
        Op::Reshape(ops::Reshape {
            shape: [8, 4].into(),
        }),
        &[&sum],
    );
    let vectors = b.linear("vectors", &rows, 16);
    let out = b.op("out", Op::Flatten, &[&vectors]);
    let out = b.linear("fc", &out, 5);
    b.output(&out);
    let mut network = b
        .network(|name, shape| {
            let rows = shape.dims()[0];
            let of_row = shape.elements() / rows;
            let number = |(i, q): (usize, i32)| q as f32 * (1 + i / of_row) as f32 * 0.125;
            let levels = levels(shape.elements()).into_iter().enumerate();
            let dense = Dense::new(shape.clone(), levels.map(number).collect());
            match name.ends_with("weight") {
                true => Weights::Csr(Csr::from_dense(&dense)),
                false => dense.into(),
            }
        })
        .unwrap();
    let grids = BTreeMap::from([
        ("a", (0.0625, 0)),
        ("c", (0.0625, 0)),
        ("d", (0.5, 3)),
        ("vectors", (2.0, 120)),
        ("fc", (1.5, 7)),
    ]);
    for (node, (scale, zero_point)) in grids {
        let rows = network.tensors[&format!("{node}.weight")].shape().dims()[0];
        let scales = (1..=rows).map(|r| r as f32 * 0.125).collect();
        let grid = Int8Grid { scale, zero_point };
        network.set_int8(node, grid, scales).unwrap();
    }
    network
}

#[test]
fn grids_are_written_as_pairs_and_come_back() {
    let network = with_grids();
    for sparse_initializers in [false, true] {
        let options = ExportOptions {
            sparse_initializers,
            ..ExportOptions::default()
        };
        let bytes = write_onnx_bytes(&network, &options).unwrap();
        assert_eq!(bytes, write_onnx_bytes(&network, &options).unwrap());
        let file = ModelProto::decode(Bytes::from(bytes.clone())).unwrap();
        let nodes = &file.graph.as_ref().unwrap().node;
        let count = |op: &str| nodes.iter().filter(|n| n.op_type == op).count();
        // Of four values and grids, and five weights.
        assert_eq!((count("QuantizeLinear"), count("DequantizeLinear")), (4, 9));
        let back = read_onnx_bytes("back.onnx", bytes).unwrap().network;
        assert_eq!(back.int8, network.int8);
        assert_eq!(back.tensors, network.tensors);
        // The clamps of the ranges are all that is new, and there once. A layer reads the last dimension of any shape.
        let layers = |n: &Network| -> Vec<&str> {
            let all = n.graph.nodes.iter().map(|n| n.op.name());
            all.filter(|op| !["Clip", "Relu", "Reshape"].contains(op))
                .collect()
        };
        assert_eq!(layers(&back), layers(&network));
        let again = write_onnx_bytes(&back, &options).unwrap();
        let again = read_onnx_bytes("again.onnx", again).unwrap().network;
        assert_eq!(again, back);
    }
}

#[test]
fn what_has_a_scale_for_each_vector_is_written_without_a_pair() {
    let mut network = with_grids();
    let rows = network.int8.rows["vectors.weight"].clone();
    network
        .set_int8("vectors", Int8Input::PerVector, rows)
        .unwrap();
    let bytes = write_onnx_bytes(&network, &ExportOptions::default()).unwrap();
    let back = read_onnx_bytes("back.onnx", bytes).unwrap().network;
    // No operator has such scales: the layer is one of numbers, with the weights as they are.
    assert_eq!(
        back.tensors["vectors.weight"].to_dense(),
        network.tensors["vectors.weight"].to_dense()
    );
    network.int8.remove("vectors", "vectors.weight");
    assert_eq!(back.int8, network.int8);
}

#[test]
fn names_of_written_integers_are_free() {
    let mut network = with_grids();
    let taken = [
        "a.weight.int8",
        "a.weight.scale",
        "relu.quantised",
        "relu.scale",
    ];
    for (node, name) in network.graph.nodes.iter_mut().zip(taken) {
        let old = std::mem::replace(&mut node.name, name.to_owned());
        if let Some(grid) = network.int8.inputs.remove(&old) {
            network.int8.inputs.insert(name.to_owned(), grid);
        }
    }
    let old = ["relu", "a", "c", "sum"];
    for node in &mut network.graph.nodes {
        for input in &mut node.inputs {
            if let Some(i) = old.iter().position(|o| o == input) {
                taken[i].clone_into(input);
            }
        }
    }
    let bytes = write_onnx_bytes(&network, &ExportOptions::default()).unwrap();
    let back = read_onnx_bytes("back.onnx", bytes).unwrap().network;
    assert_eq!(back.int8, network.int8);
    assert_eq!(back.tensors, network.tensors);
}
