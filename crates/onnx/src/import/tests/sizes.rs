//! Sizes that a file promises and no memory or time has.

use super::{int, integers, ints, model, node, ones, read, value};
use crate::proto::{ModelProto, NodeProto};

/// A network of one node over `x`, of that shape, with these weights.
fn over(dims: &[i64], nodes: Vec<NodeProto>, weights: &[(&str, &[i64])]) -> ModelProto {
    let mut model = model(nodes);
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("x", dims)];
    graph.initializer = weights
        .iter()
        .map(|(name, dims)| ones(name, dims))
        .collect();
    model
}

#[test]
fn transposed_convolutions_of_strides_that_nothing_holds_are_refused() {
    for strides in [
        [1 << 32, 1 << 32],
        [i64::MAX, 1],
        [1, i64::MAX - 1],
        [0, 1],
        [-1, 1],
    ] {
        for pad in ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"] {
            for size in [1, 3] {
                let up = node("ConvTranspose", "up", &["x", "w"], &["y"]);
                let up = super::text(ints(up, "strides", &strides), "auto_pad", pad);
                let model = over(&[-1, 1, size, size], vec![up], &[("w", &[1, 1, 2, 2])]);
                let error = read(&model).unwrap_err();
                assert!(error.contains("`up`"), "{strides:?} {pad}: {error}");
            }
        }
    }
}

#[test]
fn constants_of_any_number_of_dimensions_are_refused() {
    // Each Gather has nearly twice as many dimensions as the last.
    let grows = |i: usize| {
        let (from, to) = (format!("g{i}"), format!("g{}", i + 1));
        node("Gather", &to, &[&from, &from], &[&to])
    };
    let mut nodes: Vec<NodeProto> = (0..40).map(grows).collect();
    nodes.push(node("Reshape", "y", &["x", "g40"], &["y"]));
    let mut growing = over(&[-1, 4], nodes, &[]);
    let mut zero = integers("g0", &[0]);
    zero.dims = vec![1, 1];
    growing.graph.as_mut().unwrap().initializer.push(zero);
    let error = read(&growing).unwrap_err();
    assert!(error.contains("at most 16 dimensions, got 17"), "{error}");

    let shape = node("ConstantOfShape", "many", &["ones"], &["c"]);
    let mut many = over(
        &[-1, 4],
        vec![shape, node("Add", "y", &["x", "c"], &["y"])],
        &[],
    );
    let graph = many.graph.as_mut().unwrap();
    graph.initializer.push(integers("ones", &[1; 100]));
    let error = read(&many).unwrap_err();
    assert!(error.contains("at most 16 dimensions, got 100"), "{error}");
}

#[test]
fn constants_without_elements_take_no_time() {
    let made = |name: &str| node("ConstantOfShape", name, &["shape"], &[name]);
    let nodes = vec![
        made("a"),
        made("b"),
        int(node("Concat", "c", &["a", "b"], &["c"]), "axis", 1),
        int(node("Gather", "d", &["c", "first"], &["d"]), "axis", 2),
        node("Reshape", "y", &["x", "d"], &["y"]),
    ];
    let mut empty = over(&[-1, 4], nodes, &[]);
    let graph = empty.graph.as_mut().unwrap();
    graph.initializer = vec![
        integers("shape", &[1 << 40, 0, 1 << 40]),
        integers("first", &[0]),
    ];
    assert!(read(&empty).is_err());
}
