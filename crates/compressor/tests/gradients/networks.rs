//! Networks whose gradients are checked.

use sparsevd_model::{Approximate, Op, Shape, Window, ops};

use crate::case::*;

pub fn chain() -> Case {
    // conv + relu + overlapping pool fused, conv + pool + relu with padding and stride, flatten, two linear layers.
    let nodes = vec![
        (
            "c1",
            conv("c1", window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1])),
            vec!["x"],
        ),
        ("r1", Op::Relu, vec!["c1"]),
        (
            "p1",
            Op::MaxPool(ops::MaxPool {
                window: window([3, 3], [2, 2], [0, 0, 1, 1], [1, 1]),
            }),
            vec!["r1"],
        ),
        (
            "c2",
            conv("c2", window([2, 3], [1, 2], [0, 1, 1, 0], [1, 1])),
            vec!["p1"],
        ),
        (
            "p2",
            Op::MaxPool(ops::MaxPool {
                window: Window::square(2, 1),
            }),
            vec!["c2"],
        ),
        ("r2", Op::Relu, vec!["p2"]),
        ("f", Op::Flatten, vec!["r2"]),
        ("l1", linear("l1"), vec!["f"]),
        ("r3", Op::Relu, vec!["l1"]),
        ("l2", linear("l2"), vec!["r3"]),
    ];
    let shapes = [
        ("c1.weight", Shape::from([4, 2, 3, 3])),
        ("c1.bias", Shape::from([4])),
        ("c2.weight", Shape::from([5, 4, 2, 3])),
        ("c2.bias", Shape::from([5])),
        ("l1.weight", Shape::from([6, 15])),
        ("l1.bias", Shape::from([6])),
        ("l2.weight", Shape::from([3, 6])),
        ("l2.bias", Shape::from([3])),
    ];
    Case {
        network: network(Shape::from([2, 8, 9]), nodes, &shapes),
        outputs: 3,
        regression: false,
        teacher: true,
    }
}

pub fn residual() -> Case {
    // A skip connection, ops that are not fused, dilation, both average pools.
    let nodes = vec![
        (
            "c1",
            conv("c1", window([3, 3], [1, 1], [1, 1, 1, 1], [1, 1])),
            vec!["x"],
        ),
        (
            "c2",
            conv("c2", window([3, 3], [1, 1], [2, 2, 2, 2], [2, 2])),
            vec!["c1"],
        ),
        ("sum", Op::Add, vec!["c1", "c2"]),
        ("relu", Op::Relu, vec!["sum"]),
        (
            "max",
            Op::MaxPool(ops::MaxPool {
                window: window([2, 2], [2, 2], [1, 0, 0, 0], [1, 1]),
            }),
            vec!["relu"],
        ),
        (
            "mean",
            Op::AveragePool(ops::AveragePool {
                window: window([2, 2], [1, 1], [1, 1, 0, 0], [1, 1]),
            }),
            vec!["max"],
        ),
        ("global", Op::GlobalAveragePool, vec!["mean"]),
        ("flat", Op::Flatten, vec!["global"]),
        ("out", linear("out"), vec!["flat"]),
    ];
    let shapes = [
        ("c1.weight", Shape::from([4, 3, 3, 3])),
        ("c1.bias", Shape::from([4])),
        ("c2.weight", Shape::from([4, 4, 3, 3])),
        ("c2.bias", Shape::from([4])),
        ("out.weight", Shape::from([3, 4])),
        ("out.bias", Shape::from([3])),
    ];
    Case {
        network: network(Shape::from([3, 6, 6]), nodes, &shapes),
        outputs: 3,
        regression: false,
        teacher: false,
    }
}

pub fn normalise(name: &str) -> Op {
    let tensor = |part: &str| format!("{name}.{part}");
    Op::BatchNormalization(ops::BatchNormalization {
        scale: tensor("weight"),
        bias: tensor("bias"),
        mean: tensor("running_mean"),
        variance: tensor("running_var"),
        epsilon: 1e-3,
    })
}

pub fn grouped(name: &str, window: Window, groups: usize) -> Op {
    Op::Conv(ops::Conv {
        weight: format!("{name}.weight"),
        bias: None,
        window,
        groups,
    })
}

/// Shapes of a normalisation's tensors.
pub fn channels(name: &str, n: usize) -> Vec<(String, Shape)> {
    ["weight", "bias", "running_mean", "running_var"]
        .map(|part| (format!("{name}.{part}"), Shape::from([n])))
        .to_vec()
}

pub fn weights<const N: usize>(name: &str, dims: [usize; N]) -> Vec<(String, Shape)> {
    vec![(format!("{name}.weight"), Shape::from(dims))]
}

pub fn with_bias<const N: usize>(name: &str, dims: [usize; N]) -> Vec<(String, Shape)> {
    let bias = (format!("{name}.bias"), Shape::from([dims[0]]));
    [weights(name, dims), vec![bias]].concat()
}

pub fn case(
    input: Shape,
    nodes: Vec<(&str, Op, Vec<&str>)>,
    shapes: &[Vec<(String, Shape)>],
) -> Case {
    let shapes = shapes.concat();
    let shapes: Vec<(&str, Shape)> = (shapes.iter())
        .map(|(n, s)| (n.as_str(), s.clone()))
        .collect();
    Case {
        network: network(input, nodes, &shapes),
        outputs: 3,
        regression: false,
        teacher: false,
    }
}

/// Two blocks of a residual network with normalisation: a value read thrice, a strided shortcut, an unfolded normalisation.
pub fn normalised() -> Case {
    let same = |stride| window([3, 3], [stride; 2], [1; 4], [1, 1]);
    let nodes = vec![
        ("c1", grouped("c1", same(1), 1), vec!["x"]),
        ("n1", normalise("n1"), vec!["c1"]),
        ("r1", Op::Relu, vec!["n1"]),
        ("c2", grouped("c2", same(1), 1), vec!["r1"]),
        ("n2", normalise("n2"), vec!["c2"]),
        ("a1", Op::Add, vec!["n2", "r1"]),
        ("r2", Op::Relu, vec!["a1"]),
        ("c3", conv("c3", same(2)), vec!["r2"]),
        ("n3", normalise("n3"), vec!["c3"]),
        (
            "c4",
            conv("c4", window([1, 1], [2, 2], [0; 4], [1, 1])),
            vec!["r2"],
        ),
        ("a2", Op::Add, vec!["n3", "c4"]),
        ("n4", normalise("n4"), vec!["a2"]),
        ("r3", Op::Relu, vec!["n4"]),
        ("g", Op::GlobalAveragePool, vec!["r3"]),
        ("f", Op::Flatten, vec!["g"]),
        ("l1", linear("l1"), vec!["f"]),
        ("n5", normalise("n5"), vec!["l1"]),
        ("r4", Op::Relu, vec!["n5"]),
        ("l2", linear("l2"), vec!["r4"]),
    ];
    let shapes = [
        weights("c1", [4, 2, 3, 3]),
        channels("n1", 4),
        weights("c2", [4, 4, 3, 3]),
        channels("n2", 4),
        with_bias("c3", [5, 4, 3, 3]),
        channels("n3", 5),
        with_bias("c4", [5, 4, 1, 1]),
        channels("n4", 5),
        with_bias("l1", [6, 5]),
        channels("n5", 6),
        with_bias("l2", [3, 6]),
    ];
    case(Shape::from([2, 6, 7]), nodes, &shapes)
}

/// A layer normalisation over the last `dimensions`.
pub fn layer_norm(name: &str, dimensions: usize, bias: bool) -> Op {
    Op::LayerNormalization(ops::LayerNormalization {
        scale: format!("{name}.weight"),
        bias: bias.then(|| format!("{name}.bias")),
        dimensions,
        epsilon: 1e-2,
    })
}

/// Layer normalisations of the input, of whole maps, of rows, and of vectors.
pub fn layer_normalised() -> Case {
    let nodes = vec![
        ("n1", layer_norm("n1", 2, true), vec!["x"]),
        (
            "c1",
            conv("c1", window([3, 3], [1, 1], [1; 4], [1, 1])),
            vec!["n1"],
        ),
        ("n2", layer_norm("n2", 3, true), vec!["c1"]),
        ("r1", Op::Relu, vec!["n2"]),
        ("n3", layer_norm("n3", 1, false), vec!["r1"]),
        ("f", Op::Flatten, vec!["n3"]),
        ("l1", linear("l1"), vec!["f"]),
        ("n4", layer_norm("n4", 1, true), vec!["l1"]),
        ("l2", linear("l2"), vec!["n4"]),
    ];
    let tensor = |name: &str, dims: &[usize]| (name.to_owned(), Shape(dims.to_vec()));
    let shapes = [
        vec![tensor("n1.weight", &[3, 4]), tensor("n1.bias", &[3, 4])],
        with_bias("c1", [3, 2, 3, 3]),
        vec![
            tensor("n2.weight", &[3, 3, 4]),
            tensor("n2.bias", &[3, 3, 4]),
        ],
        vec![tensor("n3.weight", &[4])],
        with_bias("l1", [5, 36]),
        vec![tensor("n4.weight", &[5]), tensor("n4.bias", &[5])],
        with_bias("l2", [3, 5]),
    ];
    case(Shape::from([2, 3, 4]), nodes, &shapes)
}

/// Ids, whose rows become a map by way of a reshaping and a transposition, with normalisations of either order; behind the map another
/// transposition and reshapings, a sum of two orders, and a softmax at the end, which the loss has itself.
pub fn of_ids() -> Case {
    let reshape = |shape: &[usize]| {
        Op::Reshape(ops::Reshape {
            shape: shape.to_vec(),
        })
    };
    let transpose = |perm: &[usize]| {
        Op::Transpose(ops::Transpose {
            perm: perm.to_vec(),
        })
    };
    let gelu = Op::Gelu(ops::Gelu {
        approximate: Approximate::Tanh,
    });
    let table = "e.weight".to_owned();
    let nodes = vec![
        ("e", Op::Embedding(ops::Embedding { table }), vec!["x"]),
        ("g", gelu, vec!["e"]),
        ("rows", reshape(&[4, 6]), vec!["g"]),
        ("columns", transpose(&[1, 0]), vec!["rows"]),
        ("n1", layer_norm("n1", 1, true), vec!["columns"]),
        ("map", reshape(&[6, 1, 4]), vec!["n1"]),
        (
            "c",
            conv("c", window([1, 2], [1, 1], [0; 4], [1, 1])),
            vec!["map"],
        ),
        ("n2", layer_norm("n2", 2, false), vec!["c"]),
        // [5, 1, 3] to [1, 3, 5], and back as other numbers.
        ("moved", transpose(&[1, 2, 0]), vec!["n2"]),
        ("other", reshape(&[5, 1, 3]), vec!["moved"]),
        ("sum", Op::Add, vec!["c", "other"]),
        ("deep", reshape(&[5, 1, 3, 1]), vec!["sum"]),
        ("turned", transpose(&[3, 2, 1, 0]), vec!["deep"]),
        ("flat", Op::Flatten, vec!["turned"]),
        ("relu", Op::Relu, vec!["flat"]),
        ("l", linear("l"), vec!["relu"]),
        ("n3", layer_norm("n3", 1, true), vec!["l"]),
        ("out", linear("out"), vec!["n3"]),
        ("p", Op::Softmax(ops::Softmax::default()), vec!["out"]),
    ];
    let tensor = |name: &str, dims: &[usize]| (name.to_owned(), Shape(dims.to_vec()));
    let shapes = [
        weights("e", [IDS, 3]),
        vec![tensor("n1.weight", &[4]), tensor("n1.bias", &[4])],
        with_bias("c", [5, 6, 1, 2]),
        vec![tensor("n2.weight", &[1, 3])],
        with_bias("l", [6, 15]),
        vec![tensor("n3.weight", &[6]), tensor("n3.bias", &[6])],
        with_bias("out", [3, 6]),
    ];
    case(Shape::from([8]), nodes, &shapes)
}

/// Ids of two and of three dimensions, whose rows are maps and deeper, flattened for a linear layer.
pub fn of_maps_of_ids(dims: &[usize]) -> Case {
    let table = "e.weight".to_owned();
    let nodes = vec![
        ("e", Op::Embedding(ops::Embedding { table }), vec!["x"]),
        ("n", layer_norm("n", 1, true), vec!["e"]),
        ("f", Op::Flatten, vec!["n"]),
        ("l", linear("l"), vec!["f"]),
    ];
    let shapes = [
        weights("e", [IDS, 2]),
        channels("n", 2)[..2].to_vec(),
        with_bias("l", [3, 2 * dims.iter().product::<usize>()]),
    ];
    case(Shape(dims.to_vec()), nodes, &shapes)
}

/// Features of pooled maps through what reads vectors, before linear layers.
pub fn pooled() -> Case {
    let nodes = vec![
        (
            "c",
            conv("c", window([2, 2], [1, 1], [0; 4], [1, 1])),
            vec!["x"],
        ),
        ("p", Op::GlobalAveragePool, vec!["c"]),
        ("f", Op::Flatten, vec!["p"]),
        ("n", layer_norm("n", 1, true), vec!["f"]),
        ("sum", Op::Add, vec!["n", "f"]),
        (
            "both",
            Op::Concat(ops::Concat { axis: 0 }),
            vec!["sum", "f"],
        ),
        ("l1", linear("l1"), vec!["both"]),
        ("t", Op::Tanh, vec!["l1"]),
        ("l2", linear("l2"), vec!["t"]),
    ];
    let shapes = [
        with_bias("c", [4, 2, 2, 2]),
        channels("n", 4)[..2].to_vec(),
        with_bias("l1", [5, 8]),
        with_bias("l2", [3, 5]),
    ];
    case(Shape::from([2, 3, 4]), nodes, &shapes)
}

/// A convolution whose gradient is zero but for one position of each channel, without its max-pooling being a part of it.
pub fn pooled_whole() -> Case {
    let whole = ops::MaxPool {
        window: window([5, 6], [1, 1], [0; 4], [1, 1]),
    };
    let nodes = vec![
        ("first", conv("first", Window::square(1, 1)), vec!["x"]),
        (
            "c",
            conv("c", window([3, 2], [1, 1], [1, 0, 0, 0], [1, 1])),
            vec!["first"],
        ),
        ("t", Op::Tanh, vec!["c"]),
        ("p", Op::MaxPool(whole), vec!["t"]),
        ("f", Op::Flatten, vec!["p"]),
        ("l", linear("l"), vec!["f"]),
    ];
    let shapes = [
        with_bias("first", [3, 2, 1, 1]),
        with_bias("c", [4, 3, 3, 2]),
        with_bias("l", [3, 4]),
    ];
    case(Shape::from([2, 6, 7]), nodes, &shapes)
}

/// Layers over the vectors of a sample and, after a transposition, over their columns, a residual connection around two, and a value that is
/// read both as vectors and flattened.
pub fn of_vectors() -> Case {
    let perm = vec![1, 0];
    let nodes = vec![
        ("l1", linear("l1"), vec!["x"]),
        ("n", layer_norm("n", 1, true), vec!["l1"]),
        ("l2", linear("l2"), vec!["n"]),
        ("g", Op::Relu, vec!["l2"]),
        ("l3", linear("l3"), vec!["g"]),
        ("sum", Op::Add, vec!["l3", "l1"]),
        ("t", Op::Transpose(ops::Transpose { perm }), vec!["sum"]),
        ("mix", linear("mix"), vec!["t"]),
        ("tanh", Op::Tanh, vec!["mix"]),
        ("f1", Op::Flatten, vec!["tanh"]),
        ("a", linear("a"), vec!["f1"]),
        ("f2", Op::Flatten, vec!["sum"]),
        ("r", Op::Relu, vec!["f2"]),
        ("b", linear("b"), vec!["r"]),
        ("both", Op::Add, vec!["a", "b"]),
    ];
    let shapes = [
        with_bias("l1", [4, 5]),
        channels("n", 4)[..2].to_vec(),
        with_bias("l2", [6, 4]),
        with_bias("l3", [4, 6]),
        with_bias("mix", [2, 3]),
        with_bias("a", [3, 8]),
        with_bias("b", [3, 12]),
    ];
    case(Shape::from([3, 5]), nodes, &shapes)
}

/// Parts and copies of a map and of vectors: some channels, some rows, weights of channels from their means, and the first vector added to all.
pub fn parts() -> Case {
    let slice = |axis, start, end| Op::Slice(ops::Slice { axis, start, end });
    let expand = |shape: &[usize]| {
        Op::Expand(ops::Expand {
            shape: shape.to_vec(),
        })
    };
    let shape = vec![8, 6];
    let nodes = vec![
        (
            "c",
            conv("c", window([2, 3], [1, 1], [1, 1, 0, 1], [1, 1])),
            vec!["x"],
        ),
        ("channels", slice(0, 1, 3), vec!["c"]),
        ("rows", slice(1, 1, 4), vec!["c"]),
        ("means", Op::GlobalAveragePool, vec!["c"]),
        ("wide", expand(&[4, 4, 3]), vec!["means"]),
        ("gated", Op::Mul, vec!["c", "wide"]),
        ("f1", Op::Flatten, vec!["channels"]),
        ("a", linear("a"), vec!["f1"]),
        ("f2", Op::Flatten, vec!["rows"]),
        ("b", linear("b"), vec!["f2"]),
        (
            "vectors",
            Op::Reshape(ops::Reshape { shape }),
            vec!["gated"],
        ),
        ("l", linear("l"), vec!["vectors"]),
        ("first", slice(0, 0, 1), vec!["l"]),
        ("copies", expand(&[8, 4]), vec!["first"]),
        ("sum", Op::Add, vec!["copies", "l"]),
        ("middle", slice(1, 1, 3), vec!["sum"]),
        ("f3", Op::Flatten, vec!["middle"]),
        ("d", linear("d"), vec!["f3"]),
        ("two", Op::Add, vec!["a", "b"]),
        ("all", Op::Add, vec!["two", "d"]),
    ];
    let shapes = [
        with_bias("c", [4, 2, 2, 3]),
        with_bias("a", [3, 24]),
        with_bias("b", [3, 36]),
        with_bias("l", [4, 6]),
        with_bias("d", [3, 16]),
    ];
    case(Shape::from([2, 4, 3]), nodes, &shapes)
}

/// A block of a transformer over the vectors of a sample: attention whose keys and values are one value, then one with three, layer normalisations, the mean
/// of the vectors and a vector of length 1.
pub fn attentive() -> Case {
    let attention = |heads| Op::Attention(ops::Attention { heads });
    let gelu = ops::Gelu {
        approximate: sparsevd_model::Approximate::None,
    };
    let nodes = vec![
        ("in", linear("in"), vec!["x"]),
        ("q0", linear("q0"), vec!["in"]),
        ("a0", attention(1), vec!["q0", "in", "in"]),
        ("q", linear("q"), vec!["a0"]),
        ("k", linear("k"), vec!["a0"]),
        ("v", linear("v"), vec!["a0"]),
        ("a", attention(2), vec!["q", "k", "v"]),
        ("o", linear("o"), vec!["a"]),
        ("s1", Op::Add, vec!["o", "in"]),
        ("n1", layer_norm("n1", 1, true), vec!["s1"]),
        ("up", linear("up"), vec!["n1"]),
        ("gelu", Op::Gelu(gelu), vec!["up"]),
        ("down", linear("down"), vec!["gelu"]),
        ("s2", Op::Add, vec!["down", "n1"]),
        ("n2", layer_norm("n2", 1, true), vec!["s2"]),
        (
            "mean",
            Op::ReduceMean(ops::ReduceMean::default()),
            vec!["n2"],
        ),
        ("unit", Op::L2Normalize, vec!["mean"]),
        ("out", linear("out"), vec!["unit"]),
    ];
    let shapes = [
        with_bias("in", [6, 4]),
        with_bias("q0", [6, 6]),
        with_bias("q", [6, 6]),
        with_bias("k", [6, 6]),
        with_bias("v", [6, 6]),
        with_bias("o", [6, 6]),
        channels("n1", 6)[..2].to_vec(),
        with_bias("up", [8, 6]),
        with_bias("down", [6, 8]),
        channels("n2", 6)[..2].to_vec(),
        with_bias("out", [3, 6]),
    ];
    case(Shape::from([5, 4]), nodes, &shapes)
}

/// Parametric ReLUs of the input, of maps, with one slope, and of vectors.
pub fn with_slopes() -> Case {
    let prelu = |name: &str| {
        Op::PRelu(ops::PRelu {
            slope: format!("{name}.weight"),
        })
    };
    let nodes = vec![
        ("p1", prelu("p1"), vec!["x"]),
        (
            "c1",
            conv("c1", window([3, 3], [1, 1], [1; 4], [1, 1])),
            vec!["p1"],
        ),
        ("p2", prelu("p2"), vec!["c1"]),
        ("p3", prelu("p3"), vec!["p2"]),
        ("f", Op::Flatten, vec!["p3"]),
        ("l1", linear("l1"), vec!["f"]),
        ("p4", prelu("p4"), vec!["l1"]),
        ("l2", linear("l2"), vec!["p4"]),
    ];
    let shapes = [
        weights("p1", [2, 1, 1]),
        with_bias("c1", [4, 2, 3, 3]),
        weights("p2", [4, 1, 1]),
        weights("p3", [1]),
        with_bias("l1", [5, 48]),
        weights("p4", [5]),
        with_bias("l2", [3, 5]),
    ];
    case(Shape::from([2, 3, 4]), nodes, &shapes)
}

/// Depthwise and grouped convolutions, a squeeze-and-excitation gate, bounded activations.
pub fn mobile() -> Case {
    let nodes = vec![
        (
            "c1",
            conv("c1", window([3, 3], [1, 1], [1; 4], [1, 1])),
            vec!["x"],
        ),
        ("h1", Op::HardSwish, vec!["c1"]),
        (
            "d1",
            grouped("d1", window([3, 3], [2, 1], [1, 2, 1, 2], [1, 2]), 4),
            vec!["h1"],
        ),
        ("n1", normalise("n1"), vec!["d1"]),
        (
            "clip",
            Op::Clip(ops::Clip {
                min: Some(-0.6),
                max: Some(0.9),
            }),
            vec!["n1"],
        ),
        (
            "d2",
            Op::Conv(ops::Conv {
                weight: "d2.weight".into(),
                bias: Some("d2.bias".into()),
                window: window([2, 2], [1, 1], [0; 4], [1, 1]),
                groups: 4,
            }),
            vec!["clip"],
        ),
        (
            "g1",
            grouped("g1", window([3, 2], [1, 1], [1, 0, 1, 1], [1, 1]), 2),
            vec!["d2"],
        ),
        ("r1", Op::Relu, vec!["g1"]),
        ("squeeze", Op::GlobalAveragePool, vec!["r1"]),
        (
            "s1",
            conv("s1", window([1, 1], [1, 1], [0; 4], [1, 1])),
            vec!["squeeze"],
        ),
        (
            "gate",
            Op::HardSigmoid(ops::HardSigmoid {
                alpha: 0.2,
                beta: 0.5,
            }),
            vec!["s1"],
        ),
        ("mul", Op::Mul, vec!["r1", "gate"]),
        ("f", Op::Flatten, vec!["mul"]),
        ("out", linear("out"), vec!["f"]),
    ];
    let shapes = [
        with_bias("c1", [4, 2, 3, 3]),
        weights("d1", [4, 1, 3, 3]),
        channels("n1", 4),
        with_bias("d2", [8, 1, 2, 2]),
        weights("g1", [6, 4, 3, 2]),
        with_bias("s1", [6, 6, 1, 1]),
        with_bias("out", [3, 6 * 2 * 6]),
    ];
    case(Shape::from([2, 6, 7]), nodes, &shapes)
}

/// Branches that meet again: concatenation, borders, differences, quotients, flattened maps beside vectors, and the smooth
/// activations.
pub fn branches() -> Case {
    let gelu = |approximate| Op::Gelu(ops::Gelu { approximate });
    let pointwise = || window([1, 1], [1, 1], [0; 4], [1, 1]);
    let nodes = vec![
        ("c1", conv("c1", pointwise()), vec!["x"]),
        ("t", Op::Tanh, vec!["c1"]),
        (
            "pad",
            Op::Pad(ops::Pad {
                pads: [1, 0, 0, 2],
                value: 0.5,
            }),
            vec!["t"],
        ),
        (
            "c2",
            conv("c2", window([2, 3], [1, 1], [0; 4], [1, 1])),
            vec!["pad"],
        ),
        ("ge", gelu(Approximate::None), vec!["c2"]),
        (
            "cat",
            Op::Concat(ops::Concat::default()),
            vec!["t", "ge", "t"],
        ),
        ("c3", conv("c3", pointwise()), vec!["cat"]),
        (
            "leaky",
            Op::LeakyRelu(ops::LeakyRelu { alpha: 0.2 }),
            vec!["c3"],
        ),
        ("gt", gelu(Approximate::Tanh), vec!["c3"]),
        ("diff", Op::Sub, vec!["leaky", "gt"]),
        ("s", Op::Sigmoid, vec!["c3"]),
        ("div", Op::Div, vec!["diff", "s"]),
        ("square", Op::Mul, vec!["div", "div"]),
        ("elu", Op::Elu(ops::Elu { alpha: 0.8 }), vec!["square"]),
        ("plus", Op::Softplus, vec!["elu"]),
        ("root", Op::Sqrt, vec!["plus"]),
        ("log", Op::Log, vec!["root"]),
        ("erf", Op::Erf, vec!["log"]),
        ("exp", Op::Exp, vec!["erf"]),
        ("larger", Op::Max, vec!["exp", "s"]),
        ("smaller", Op::Min, vec!["larger", "plus"]),
        ("f", Op::Flatten, vec!["smaller"]),
        ("l1", linear("l1"), vec!["f"]),
        ("l2", linear("l2"), vec!["l1"]),
        ("sum", Op::Add, vec!["l2", "f"]),
        ("fx", Op::Flatten, vec!["x"]),
        (
            "cat2",
            Op::Concat(ops::Concat::default()),
            vec!["sum", "fx", "l1"],
        ),
        ("out", linear("out"), vec!["cat2"]),
    ];
    let shapes = [
        with_bias("c1", [3, 2, 1, 1]),
        with_bias("c2", [4, 3, 2, 3]),
        with_bias("c3", [2, 10, 1, 1]),
        with_bias("l1", [4, 24]),
        with_bias("l2", [24, 4]),
        with_bias("out", [3, 24 + 24 + 4]),
    ];
    case(Shape::from([2, 3, 4]), nodes, &shapes)
}
