//! Operators of computed values, with the numbers that they have to make.

use prost::Message;
use sparsevd_model::{GraphBuilder, Input, Network, Op, ops};
use sparsevd_testing::executor::run_all;

use super::{float, ints, node, ones, read, value};
use crate::proto::{ModelProto, NodeProto, TensorProto, data_type};

/// A model of one node or a few over inputs of these dimensions.
fn over(inputs: &[(&str, &[i64])], nodes: Vec<NodeProto>, outputs: &[&str]) -> ModelProto {
    let mut model = super::model(nodes);
    model.opset_import[0].version = Some(23);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer.clear();
    graph.input = inputs
        .iter()
        .map(|(name, dims)| value(name, dims))
        .collect();
    graph.output = outputs.iter().map(|name| value(name, &[])).collect();
    model
}

/// What the network of a model computes, one output after the other.
fn outputs(model: &ModelProto, inputs: &[&[f32]]) -> Vec<Vec<f64>> {
    run_all(&read(model).unwrap(), inputs)
}

#[track_caller]
fn assert_numbers(got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (g, w) in got.iter().zip(want) {
        let same = g == w || (g - w).abs() <= 1e-5 * w.abs().max(1.0);
        assert!(same, "expected {want:?}, got {got:?}");
    }
}

fn counted(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

#[test]
fn products_of_computed_matrices_follow_numpy() {
    let product = || vec![node("MatMul", "p", &["a", "b"], &["y"])];
    let plain = over(&[("a", &[2, 3]), ("b", &[3, 2])], product(), &["y"]);
    let made = outputs(&plain, &[&counted(6), &counted(6)]);
    assert_numbers(&made[0], &[10.0, 13.0, 28.0, 40.0]);
    // The second is broadcast to the matrices of the first.
    let broadcast = over(&[("a", &[2, 1, 3]), ("b", &[3, 2])], product(), &["y"]);
    let made = outputs(&broadcast, &[&counted(6), &counted(6)]);
    assert_numbers(&made[0], &[10.0, 13.0, 28.0, 40.0]);
    // A vector is a row before a matrix, and a column behind one.
    let row = over(&[("a", &[3]), ("b", &[3, 2])], product(), &["y"]);
    assert_numbers(
        &outputs(&row, &[&counted(3), &counted(6)])[0],
        &[10.0, 13.0],
    );
    let column = over(&[("a", &[2, 3]), ("b", &[3])], product(), &["y"]);
    assert_numbers(
        &outputs(&column, &[&counted(6), &counted(3)])[0],
        &[5.0, 14.0],
    );
    let wrong = over(&[("a", &[2, 3]), ("b", &[4, 2])], product(), &["y"]);
    let error = read(&wrong).unwrap_err();
    assert!(error.contains("`p` (MatMul)"), "{error}");
}

#[test]
fn products_of_each_sample_stay_apart() {
    let nodes = vec![
        ints(node("Transpose", "t", &["b"], &["c"]), "perm", &[0, 2, 1]),
        node("MatMul", "p", &["a", "c"], &["y"]),
    ];
    let model = over(&[("a", &[-1, 2, 3]), ("b", &[-1, 2, 3])], nodes, &["y"]);
    let network = read(&model).unwrap();
    assert_eq!(network.graph.inputs[0].shape.dims(), [2, 3]);
    let made = run_all(&network, &[&counted(6), &counted(6)]);
    assert_numbers(&made[0], &[5.0, 14.0, 14.0, 50.0]);
    // Samples would meet here.
    let nodes = vec![node("MatMul", "p", &["a", "b"], &["y"])];
    let mixed = over(&[("a", &[-1, 3]), ("b", &[-1, 3])], nodes, &["y"]);
    let error = read(&mixed).unwrap_err();
    assert!(error.contains("mix samples"), "{error}");
}

#[test]
fn a_constant_may_be_the_first_factor() {
    let nodes = vec![node("MatMul", "p", &["w", "x"], &["y"])];
    let mut model = over(&[("x", &[-1, 3, 2])], nodes, &["y"]);
    model.graph.as_mut().unwrap().initializer.push(TensorProto {
        float_data: counted(6),
        ..ones("w", &[2, 3])
    });
    assert_numbers(
        &outputs(&model, &[&counted(6)])[0],
        &[10.0, 13.0, 28.0, 40.0],
    );
}

#[test]
fn gemm_takes_all_of_its_attributes_with_computed_factors() {
    let mut gemm = node("Gemm", "g", &["a", "b", "c"], &["y"]);
    for (name, number) in [("alpha", 0.5), ("beta", 2.0)] {
        gemm = float(gemm, name, number);
    }
    for name in ["transA", "transB"] {
        gemm = super::int(gemm, name, 1);
    }
    let model = over(
        &[("a", &[3, 2]), ("b", &[2, 3]), ("c", &[1, 2])],
        vec![gemm],
        &["y"],
    );
    let made = outputs(&model, &[&counted(6), &counted(6), &[1.0, -1.0]]);
    // a^T = [0 2 4; 1 3 5], b^T = [0 3; 1 4; 2 5].
    assert_numbers(&made[0], &[7.0, 12.0, 8.5, 18.0]);
}

#[test]
fn operands_are_broadcast_to_each_other() {
    for (op, want) in [
        ("Sub", [0.0, -10.0, -20.0, 1.0, -9.0, -19.0]),
        ("Max", [0.0, 10.0, 20.0, 1.0, 10.0, 20.0]),
        ("Min", [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]),
    ] {
        let nodes = vec![node(op, "n", &["a", "b"], &["y"])];
        let model = over(&[("a", &[2, 1]), ("b", &[3])], nodes, &["y"]);
        assert_numbers(
            &outputs(&model, &[&[0.0, 1.0], &[0.0, 10.0, 20.0]])[0],
            &want,
        );
    }
    // Inputs whose first dimensions differ have no batch in common.
    let nodes = vec![node("Add", "n", &["a", "b"], &["y"])];
    let model = over(&[("a", &[2, 2]), ("b", &[1, 2])], nodes, &["y"]);
    let made = outputs(&model, &[&counted(4), &[10.0, 20.0]]);
    assert_numbers(&made[0], &[10.0, 21.0, 12.0, 23.0]);
    let nodes = vec![node("Add", "n", &["a", "b"], &["y"])];
    let open = over(&[("a", &[-1, 3, 2]), ("b", &[-1, 2])], nodes, &["y"]);
    let error = read(&open).unwrap_err();
    assert!(
        error.contains("`n` (Add): operands [3, 2] and [2]"),
        "{error}"
    );
}

#[test]
fn bounds_of_a_clip_may_be_computed() {
    let nodes = vec![node("Clip", "n", &["x", "min", "max"], &["y"])];
    let model = over(&[("x", &[3]), ("min", &[]), ("max", &[])], nodes, &["y"]);
    let made = outputs(&model, &[&[-5.0, 0.5, 5.0], &[-1.0], &[2.0]]);
    assert_numbers(&made[0], &[-1.0, 0.5, 2.0]);
    // The upper bound wins.
    let made = outputs(&model, &[&[-5.0, 0.5, 5.0], &[3.0], &[2.0]]);
    assert_numbers(&made[0], &[2.0, 2.0, 2.0]);
}

#[test]
fn a_layer_normalisation_gives_its_mean_and_one_over_its_deviation() {
    let norm = node(
        "LayerNormalization",
        "n",
        &["x", "s", "b"],
        &["y", "mean", "inverse"],
    );
    let inputs: &[(&str, &[i64])] = &[("x", &[2, 2]), ("s", &[2]), ("b", &[2])];
    let model = over(
        inputs,
        vec![float(norm, "epsilon", 0.0)],
        &["y", "mean", "inverse"],
    );
    let network = read(&model).unwrap();
    assert_eq!(network.graph.outputs, ["y", "mean", "inverse"]);
    let made = run_all(&network, &[&[1.0, 3.0, 0.0, 8.0], &[2.0, 3.0], &[0.5, 0.0]]);
    assert_numbers(&made[0], &[-1.5, 3.0, -1.5, 3.0]);
    assert_numbers(&made[1], &[2.0, 4.0]);
    assert_numbers(&made[2], &[1.0, 0.25]);
}

#[test]
fn other_normalisations_follow_their_formulas() {
    let rms = float(
        node("RMSNormalization", "n", &["x", "s"], &["y"]),
        "epsilon",
        0.0,
    );
    let mut model = over(&[("x", &[-1, 2])], vec![rms], &["y"]);
    let scale = TensorProto {
        float_data: vec![1.0, 2.0],
        ..ones("s", &[2])
    };
    let initializer = &mut model.graph.as_mut().unwrap().initializer;
    initializer.push(scale.clone());
    let root = 12.5_f64.sqrt();
    assert_numbers(
        &outputs(&model, &[&[3.0, 4.0]])[0],
        &[3.0 / root, 8.0 / root],
    );

    for (op, groups) in [
        ("InstanceNormalization", None),
        ("GroupNormalization", Some(2)),
    ] {
        let mut norm = float(node(op, "n", &["x", "s", "s"], &["y"]), "epsilon", 0.0);
        if let Some(groups) = groups {
            norm = super::int(norm, "num_groups", groups);
        }
        let mut model = over(&[("x", &[-1, 2, 1, 2])], vec![norm], &["y"]);
        model
            .graph
            .as_mut()
            .unwrap()
            .initializer
            .push(scale.clone());
        let made = outputs(&model, &[&[1.0, 3.0, 0.0, 8.0]]);
        assert_numbers(&made[0], &[0.0, 2.0, 0.0, 4.0]);
    }
    let norm = super::int(node("LpNormalization", "n", &["x"], &["y"]), "axis", 1);
    let model = over(&[("x", &[-1, 2, 2])], vec![norm], &["y"]);
    let made = outputs(&model, &[&[3.0, 0.0, 4.0, 2.0]]);
    assert_numbers(&made[0], &[0.6, 0.0, 0.8, 1.0]);
}

/// Attention over one head of one column, whose scores are `q k`.
fn attention(inputs: &[(&str, &[i64])], outputs: &[&str]) -> NodeProto {
    let names: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let node = node("Attention", "a", &names, outputs);
    float(node, "scale", 1.0)
}

#[test]
fn a_query_without_keys_attends_to_nothing() {
    let inputs: &[(&str, &[i64])] = &[
        ("q", &[1, 1, 2, 1]),
        ("k", &[1, 1, 2, 1]),
        ("v", &[1, 1, 2, 1]),
        ("mask", &[2, 2]),
    ];
    let model = over(inputs, vec![attention(inputs, &["y"])], &["y"]);
    let hidden = f32::NEG_INFINITY;
    let made = outputs(
        &model,
        &[
            &[0.0; 2],
            &[0.0; 2],
            &[2.0, 6.0],
            &[hidden, hidden, 0.0, hidden],
        ],
    );
    assert_numbers(&made[0], &[0.0, 2.0]);
}

#[test]
fn queries_attend_to_keys_before_them_and_to_those_of_the_past() {
    let inputs: &[(&str, &[i64])] = &[
        ("q", &[1, 1, 2, 1]),
        ("k", &[1, 1, 2, 1]),
        ("v", &[1, 1, 2, 1]),
    ];
    let causal = super::int(attention(inputs, &["y"]), "is_causal", 1);
    let model = over(inputs, vec![causal.clone()], &["y"]);
    let made = outputs(&model, &[&[0.0; 2], &[0.0; 2], &[2.0, 6.0]]);
    assert_numbers(&made[0], &[2.0, 4.0]);

    let past: &[(&str, &[i64])] = &[("past_k", &[1, 1, 1, 1]), ("past_v", &[1, 1, 1, 1])];
    let with_past = [inputs, past].concat();
    let mut node = causal;
    let names = ["q", "k", "v", "", "past_k", "past_v"];
    node.input = names.map(str::to_owned).to_vec();
    let all = ["y", "keys", "values", "scores"];
    node.output = all.map(str::to_owned).to_vec();
    let model = over(
        &with_past,
        vec![super::int(node, "qk_matmul_output_mode", 2)],
        &all,
    );
    assert_eq!(read(&model).unwrap().graph.outputs, all);
    let made = outputs(
        &model,
        &[&[1.0; 2], &[0.0; 2], &[2.0, 6.0], &[0.0], &[10.0]],
    );
    assert_numbers(&made[0], &[6.0, 6.0]);
    assert_numbers(&made[1], &[0.0; 3]);
    assert_numbers(&made[2], &[10.0, 2.0, 6.0]);
    assert!(
        made[3][2] < -1e38 && made[3].iter().sum::<f64>() == made[3][2],
        "{:?}",
        made[3]
    );
}

#[test]
fn heads_of_keys_are_shared_by_heads_of_queries() {
    let inputs: &[(&str, &[i64])] = &[("q", &[1, 1, 4]), ("k", &[1, 2, 2]), ("v", &[1, 2, 2])];
    let mut node = attention(inputs, &["y"]);
    for (name, heads) in [("q_num_heads", 4), ("kv_num_heads", 2)] {
        node = super::int(node, name, heads);
    }
    let model = over(inputs, vec![node], &["y"]);
    // All scores are equal, so that each head has the mean of its values: heads 0 and 1 the first column.
    let made = outputs(&model, &[&[0.0; 4], &[1.0; 4], &[1.0, 10.0, 3.0, 30.0]]);
    assert_numbers(&made[0], &[2.0, 2.0, 20.0, 20.0]);
}

#[test]
fn what_was_written_over_a_free_dimension_is_read_as_it_was() {
    let mut b = GraphBuilder::new("encoder");
    let x = b.free_input(Input::with_free("x", [0, 6], 0, "length"));
    let attention = Op::Attention(ops::Attention { heads: 2 });
    let y = b.op("y", attention, &[&x, &x, &x]);
    let first = ops::Slice {
        axis: 0,
        start: 0,
        end: 1,
    };
    let y = b.op("first", Op::Slice(first), &[&y]);
    b.output(&y);
    let network = Network::new(b.finish().unwrap(), Default::default()).unwrap();
    let bytes = crate::write_onnx_bytes(&network, &crate::ExportOptions::default()).unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    let back = read(&model).unwrap();
    assert_eq!(back.graph.nodes, network.graph.nodes);
    // More than all elements of a short value, and a part of a long one.
    let constants = &mut model.graph.as_mut().unwrap().initializer;
    let ends = constants.iter_mut().find(|c| c.name.contains("ends"));
    let ends = ends.unwrap();
    let name = ends.name.clone();
    *ends = super::integers(&name, &[512]);
    let error = read(&model).unwrap_err();
    assert!(error.contains("--shape"), "{error}");
}

#[test]
fn parts_are_taken_by_slices_splits_and_numbers() {
    let bounds = |name: &str, values: &[i64]| super::integers(name, values);
    let nodes = vec![node("Slice", "s", &["x", "from", "to", "axes"], &["y"])];
    let mut model = over(&[("x", &[-1, 2, 4])], nodes, &["y"]);
    let graph = model.graph.as_mut().unwrap();
    graph.initializer = vec![
        bounds("from", &[-3]),
        bounds("to", &[i64::MAX]),
        bounds("axes", &[2]),
    ];
    assert_numbers(
        &outputs(&model, &[&counted(8)])[0],
        &[1.0, 2.0, 3.0, 5.0, 6.0, 7.0],
    );
    let backwards = [
        bounds("from", &[3]),
        bounds("to", &[1]),
        bounds("axes", &[2]),
    ];
    model.graph.as_mut().unwrap().initializer = backwards.to_vec();
    let error = read(&model).unwrap_err();
    assert!(error.contains("no element along axis 1"), "{error}");

    let split = super::int(node("Split", "s", &["x"], &["a", "b", "c"]), "axis", 1);
    let model = over(&[("x", &[-1, 5])], vec![split], &["c", "a"]);
    let made = outputs(&model, &[&counted(5)]);
    // Equal parts, but for the last.
    assert_numbers(&made[0], &[4.0]);
    assert_numbers(&made[1], &[0.0, 1.0]);

    let gather = super::int(node("Gather", "g", &["x", "which"], &["y"]), "axis", 1);
    let mut model = over(&[("x", &[-1, 3, 2])], vec![gather], &["y"]);
    model.graph.as_mut().unwrap().initializer.push(TensorProto {
        dims: vec![],
        data_type: data_type::INT64,
        int64_data: vec![-1],
        name: "which".into(),
        ..TensorProto::default()
    });
    let network = read(&model).unwrap();
    assert_numbers(&run_all(&network, &[&counted(6)])[0], &[4.0, 5.0]);
    model.graph.as_mut().unwrap().initializer = vec![bounds("which", &[0, 2])];
    let error = read(&model).unwrap_err();
    assert!(error.contains("do not follow each other"), "{error}");
}

#[test]
fn channels_become_pixels_and_pixels_are_repeated() {
    for (mode, want) in [
        ("DCR", [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]),
        ("CRD", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]),
    ] {
        let node = super::text(node("DepthToSpace", "d", &["x"], &["y"]), "mode", mode);
        let model = over(
            &[("x", &[-1, 8, 1, 1])],
            vec![super::int(node, "blocksize", 2)],
            &["y"],
        );
        let made = outputs(&model, &[&counted(8)]);
        assert_numbers(&made[0], &want);
        let node = super::text(
            super::node("SpaceToDepth", "d", &["x"], &["y"]),
            "mode",
            mode,
        );
        let model = over(
            &[("x", &[-1, 2, 2, 2])],
            vec![super::int(node, "blocksize", 2)],
            &["y"],
        );
        let inputs: Vec<f32> = want.iter().map(|v| *v as f32).collect();
        let want: Vec<f64> = (0..8).map(f64::from).collect();
        assert_numbers(&outputs(&model, &[&inputs])[0], &want);
    }
    let resize = |mode: &str, scales: [f32; 4]| {
        let node = super::text(
            node("Resize", "r", &["x", "", "scales"], &["y"]),
            "mode",
            mode,
        );
        let mut model = over(&[("x", &[-1, 1, 1, 2])], vec![node], &["y"]);
        model.graph.as_mut().unwrap().initializer.push(TensorProto {
            float_data: scales.to_vec(),
            ..ones("scales", &[4])
        });
        model
    };
    let made = outputs(&resize("nearest", [1.0, 1.0, 2.0, 3.0]), &[&[1.0, 2.0]]);
    assert_numbers(&made[0], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0].repeat(2));
    for (mode, scales, want) in [
        (
            "linear",
            [1.0, 1.0, 2.0, 2.0],
            [1.0, 1.25, 1.75, 2.0].repeat(2),
        ),
        ("linear", [1.0, 1.0, 1.0, 2.0], vec![1.0, 1.25, 1.75, 2.0]),
        ("nearest", [1.0, 1.0, 1.0, 1.5], vec![1.0, 1.0, 2.0]),
        ("nearest", [1.0, 1.0, 1.0, 0.5], vec![1.0]),
        // A quarter of a pixel before the first, only the tap at distance 1.25 reaches the second: 1 - 0.10546875.
        (
            "cubic",
            [1.0, 1.0, 1.0, 2.0],
            vec![0.89453125, 1.2265625, 1.7734375, 2.10546875],
        ),
    ] {
        let made = outputs(&resize(mode, scales), &[&[1.0, 2.0]]);
        assert_numbers(&made[0], &want);
    }
    let wrong = [
        ("other", [1.0, 1.0, 2.0, 2.0], "mode `other`"),
        ("linear", [1.0, 1.0, 2.0, 0.25], "sizes and scales above 0"),
        ("nearest", [2.0, 1.0, 1.0, 1.0], "another number of samples"),
    ];
    for (mode, scales, why) in wrong {
        let error = read(&resize(mode, scales)).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn reductions_by_roots_and_logarithms_follow_their_formulas() {
    for (op, want) in [
        ("ReduceL2", 50.0_f64.sqrt()),
        ("ReduceLogSum", 12.0_f64.ln()),
        (
            "ReduceLogSumExp",
            (3.0_f64.exp() + 4.0_f64.exp() + 5.0_f64.exp()).ln(),
        ),
    ] {
        let nodes = vec![super::int(node(op, "r", &["x"], &["y"]), "keepdims", 0)];
        let model = over(&[("x", &[3])], nodes, &["y"]);
        assert_numbers(&outputs(&model, &[&[3.0, 4.0, 5.0]])[0], &[want]);
    }
    let nodes = vec![node("ReduceLogSumExp", "r", &["x"], &["y"])];
    let model = over(&[("x", &[2])], nodes, &["y"]);
    // Their exponentials are no numbers.
    let made = outputs(&model, &[&[1000.0, 1000.0]]);
    assert_numbers(&made[0], &[1000.0 + 2.0_f64.ln()]);
}
