//! What every operator must say of itself, in one table.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashSet;

use sparsevd_model::ops::{Attribute, ChannelTensors, Channels, NodeShapes, examples};
use sparsevd_model::{Node, Op, Shape, ops};

/// Names of all variants of [`Op`], which serde lists where it meets an unknown one.
fn names() -> HashSet<String> {
    let error = serde_json::from_str::<Op>(r#"{"op": "?"}"#).unwrap_err();
    let error = error.to_string();
    let (_, list) = error.split_once("expected one of").unwrap();
    list.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The shape of each input of an operator: a map or a vector.
fn shape_of(op: &Op) -> Shape {
    match op.name() {
        "Linear" | "Softmax" => Shape::from([4]),
        "Attention" => Shape::from([3, 4]),
        _ => Shape::from([4, 3, 3]),
    }
}

#[test]
fn every_operator_has_an_example_under_its_own_name() {
    let examples = examples();
    let listed: HashSet<String> = examples.iter().map(|op| op.name().to_owned()).collect();
    assert_eq!(listed, names());
    assert_eq!(listed.len(), examples.len(), "one example each");
    for op in examples {
        let json = serde_json::to_value(&op).unwrap();
        assert_eq!(json["op"], op.name());
        assert_eq!(serde_json::from_value::<Op>(json).unwrap(), op);
    }
}

#[test]
fn numbers_of_packed_files_are_all_there_once() {
    let examples = examples();
    let mut numbers: Vec<usize> = examples
        .iter()
        .filter_map(|op| op.operator().packed_number())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..26).collect::<Vec<_>>());
    let number = |name: &str| {
        let op = examples.iter().find(|op| op.name() == name);
        op.unwrap().operator().packed_number()
    };
    // Files have these: none may move.
    for (name, expected) in [
        ("Conv", Some(0)),
        ("Relu", Some(1)),
        ("Linear", Some(2)),
        ("Add", Some(6)),
        ("Softmax", Some(8)),
        ("Gelu", Some(15)),
        ("Div", Some(18)),
        ("Pad", Some(20)),
        ("LayerNormalization", Some(21)),
        ("PRelu", Some(22)),
        ("Reshape", Some(23)),
        ("Transpose", Some(24)),
        ("Embedding", Some(25)),
        ("BatchNormalization", None),
        ("Attention", None),
        ("ReduceMean", None),
        ("L2Normalize", None),
        ("Elu", None),
        ("Max", None),
        ("MatMul", None),
        ("Expand", None),
        ("LogSoftmax", None),
        ("Slice", None),
    ] {
        assert_eq!(number(name), expected, "{name}");
    }
}

#[test]
fn shapes_follow_from_inputs_and_tensors() {
    for op in examples() {
        let tensor = |_: &Node, name: &str| {
            Ok(match (name, op.name()) {
                ("weight", "Linear") => Shape::from([5, 4]),
                ("weight", _) => Shape::from([5, 4, 2, 2]),
                (_, "LayerNormalization") => Shape::from([3]),
                (_, "Embedding") => Shape::from([7, 2]),
                (_, "PRelu") => Shape::from([4, 1, 1]),
                _ => Shape::from([4]),
            })
        };
        let node = Node {
            name: "n".into(),
            inputs: vec![],
            op: op.clone(),
        };
        let x = shape_of(&op);
        let inputs = vec![&x; *op.inputs().start()];
        let shapes = NodeShapes {
            node: &node,
            inputs: &inputs,
            tensor: &tensor,
        };
        let expected = match op.name() {
            "Linear" => Shape::from([5]),
            "Conv" => Shape::from([5, 2, 2]),
            "MaxPool" | "AveragePool" => Shape::from([4, 2, 2]),
            "GlobalAveragePool" => Shape::from([4, 1, 1]),
            "Flatten" => Shape::from([36]),
            "Pad" => Shape::from([4, 5, 5]),
            "Reshape" => Shape::from([9, 4]),
            "Transpose" => Shape::from([3, 4, 3]),
            "Embedding" => Shape::from([4, 3, 3, 2]),
            "ReduceMean" => Shape::from([3, 3]),
            "Slice" => Shape::from([2, 3, 3]),
            _ => x.clone(),
        };
        assert_eq!(
            op.operator().shape(&shapes).unwrap(),
            expected,
            "{}",
            op.name()
        );
    }
}

#[test]
fn zeros_and_constants_agree_with_the_formula() {
    let none = ChannelTensors { element: &|_| None };
    for op in examples() {
        let operator = op.operator();
        let name = op.name();
        let keeps_zero = [
            "Relu",
            "Clip",
            "LeakyRelu",
            "PRelu",
            "HardSwish",
            "Tanh",
            "Gelu",
            "Add",
            "Sub",
            "Mul",
            "Elu",
            "Sqrt",
            "Erf",
            "Max",
            "Min",
        ];
        assert_eq!(operator.keeps_zero(), keeps_zero.contains(&name), "{name}");
        if operator.channels() != Channels::Same || name == "BatchNormalization" {
            continue;
        }
        // The output over constant maps of 0 and of 2.
        for (x, expected) in [
            (
                0.0,
                match name {
                    "Sigmoid" | "HardSigmoid" => Some(0.5),
                    "Div" | "Log" => None,
                    "Softplus" => Some(std::f32::consts::LN_2),
                    "Exp" => Some(1.0),
                    _ => Some(0.0),
                },
            ),
            (
                2.0_f32,
                match name {
                    "Sigmoid" => Some(0.880_797),
                    "HardSigmoid" => Some(0.9),
                    "HardSwish" => Some(5.0 / 3.0),
                    "Tanh" => Some(0.964_027_6),
                    "Gelu" => Some(1.954_499_7),
                    "Softplus" => Some(2.126_928),
                    "Exp" => Some(7.389_056),
                    "Log" => Some(std::f32::consts::LN_2),
                    "Sqrt" => Some(std::f32::consts::SQRT_2),
                    "Erf" => Some(0.995_322_3),
                    "Sub" => Some(0.0),
                    "Div" => Some(1.0),
                    "Add" | "Mul" => Some(4.0),
                    // A border of zeros around twos.
                    "Pad" => None,
                    _ => Some(2.0),
                },
            ),
        ] {
            let got = operator.constant(&[Some(x), Some(x)], &none);
            let close = match (got, expected) {
                (Some(got), Some(expected)) => (got - expected).abs() < 1e-6,
                (got, expected) => got == expected,
            };
            assert!(close, "{name} of {x}: {got:?}, expected {expected:?}");
        }
        let unknown = operator.constant(&[None, Some(0.0)], &none);
        let expected = (name == "Mul").then_some(0.0);
        assert_eq!(unknown, expected, "{name} of an unknown number and 0");
    }
}

#[test]
fn tensors_are_attributes_and_the_other_way_round() {
    for op in examples() {
        let mut op = op;
        let mut names = Vec::new();
        op.visit_attributes(&mut |_, attribute| match attribute {
            Attribute::Tensor(name) => {
                name.push_str(".renamed");
                names.push(name.clone());
            }
            Attribute::Bias(bias) => {
                *bias = Some("b".into());
                names.push("b".into());
            }
            _ => {}
        });
        let tensors: Vec<String> = op.tensors().map(str::to_owned).collect();
        assert_eq!(tensors, names, "{}", op.name());
    }
}

#[test]
fn onnx_names_are_those_of_the_standard() {
    for op in examples() {
        let form = op.operator().onnx();
        let expected = match op.name() {
            "Linear" => "Gemm",
            "Embedding" => "Gather",
            "L2Normalize" => "LpNormalization",
            name => name,
        };
        assert_eq!(form.op_type, expected);
        let opset = match op.name() {
            "Gelu" => 20,
            "Attention" => 23,
            "ReduceMean" => 18,
            _ => 17,
        };
        assert_eq!(form.opset, opset, "{}", op.name());
    }
}

/// The output of an operator over inputs of these shapes, or the error.
fn output(op: Op, inputs: &[&[usize]]) -> Result<Shape, String> {
    let node = Node {
        name: "n".into(),
        inputs: vec![],
        op: op.clone(),
    };
    let inputs: Vec<Shape> = inputs.iter().map(|dims| Shape(dims.to_vec())).collect();
    let shapes = NodeShapes {
        node: &node,
        inputs: &inputs.iter().collect::<Vec<_>>(),
        tensor: &|_, _| unreachable!("no tensors"),
    };
    let shape = op.operator().shape(&shapes);
    shape.map_err(|error| error.to_string())
}

#[test]
fn attention_takes_three_values_of_vectors_that_its_heads_divide() {
    let attention = |heads| Op::Attention(ops::Attention { heads });
    let same = |heads, dims: &[usize]| output(attention(heads), &[dims; 3]);
    assert_eq!(same(3, &[5, 12]), Ok(Shape::from([5, 12])));
    for heads in [0, 5, 13, usize::MAX] {
        let error = same(heads, &[5, 12]).unwrap_err();
        let expected = format!(
            "node `n` (Attention): expected a number of heads that divides 12, got {heads}"
        );
        assert_eq!(error, expected);
    }
    for dims in [&[12][..], &[2, 5, 12], &[]] {
        let error = same(3, dims).unwrap_err();
        assert!(error.contains("expected vectors [n, d]"), "{error}");
    }
    assert!(same(1, &[5, 0]).is_err());
    let error = output(attention(3), &[&[5, 12], &[5, 12], &[4, 12]]).unwrap_err();
    assert_eq!(
        error,
        "node `n` (Attention): expected keys and values of the shape of the queries, [5, 12], got [4, 12]"
    );
}

#[test]
fn products_and_copies_say_which_dimensions_they_take() {
    let product = |a: &[usize], b: &[usize]| output(Op::MatMul, &[a, b]);
    assert_eq!(product(&[2, 5, 3], &[2, 3, 7]), Ok(Shape::from([2, 5, 7])));
    assert_eq!(product(&[5, 3], &[3, 7]), Ok(Shape::from([5, 7])));
    let ones = [1; 9];
    for (a, b) in [
        (&[5, 3][..], &[5, 3][..]),
        (&[2, 5, 3], &[3, 7]),
        (&[2, 5, 3], &[4, 3, 7]),
        (&[3], &[3]),
        (&ones, &ones),
    ] {
        let error = product(a, b).unwrap_err();
        assert!(error.contains("expected matrices"), "{error}");
    }
    let expand = |x: &[usize], shape: &[usize]| {
        let shape = shape.to_vec();
        output(Op::Expand(ops::Expand { shape }), &[x])
    };
    assert_eq!(expand(&[2, 1, 3], &[2, 5, 3]), Ok(Shape::from([2, 5, 3])));
    let slice = |axis, start, end| output(Op::Slice(ops::Slice { axis, start, end }), &[&[2, 5]]);
    assert_eq!(slice(1, 1, 5), Ok(Shape::from([2, 4])));
    for (axis, start, end) in [
        (2, 0, 1),
        (1, 2, 2),
        (1, 3, 2),
        (1, 0, 6),
        (0, 1, usize::MAX),
    ] {
        let error = slice(axis, start, end).unwrap_err();
        assert!(error.contains("along dimension"), "{error}");
    }
    for (x, shape) in [
        (&[2, 1, 3][..], &[2, 5][..]),
        (&[2, 1], &[1, 1]),
        (&[2, 1], &[4, 1]),
        (&[1, 1], &[usize::MAX, 2]),
        (&ones, &ones),
        (&[], &[]),
    ] {
        let error = expand(x, shape).unwrap_err();
        assert!(
            error.contains("larger where that has one element"),
            "{error}"
        );
    }
}

#[test]
fn means_and_norms_say_which_dimensions_they_take() {
    let mean = |axis, dims: &[usize]| output(Op::ReduceMean(ops::ReduceMean { axis }), &[dims]);
    assert_eq!(mean(0, &[5, 12]), Ok(Shape::from([12])));
    assert_eq!(mean(0, &[5, 2, 3]), Ok(Shape::from([2, 3])));
    assert_eq!(
        mean(1, &[5, 12]),
        Err("node `n` (ReduceMean): expected the first dimension, 0, as its axis, got 1".into())
    );
    for dims in [&[5][..], &[0, 3], &[]] {
        let error = mean(0, dims).unwrap_err();
        assert!(
            error.contains("expected one or more values [n, ..]"),
            "{error}"
        );
    }
    assert_eq!(output(Op::L2Normalize, &[&[5, 3]]), Ok(Shape::from([5, 3])));
    assert!(output(Op::L2Normalize, &[&[]]).is_err());
}
