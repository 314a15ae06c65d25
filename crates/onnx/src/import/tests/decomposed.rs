//! Operators that exporters write as several, in the spellings in which they do.

use sparsevd_model::{Approximate, Network, Op, ops};

use super::*;

/// Nodes from lines `output = Op input input ; attribute integers ; ...`.
fn nodes(lines: &str) -> Vec<NodeProto> {
    let attribute = |made: NodeProto, words: &str| {
        let (name, numbers) = words.trim().split_once(' ').unwrap();
        let numbers: Vec<i64> = numbers
            .split(',')
            .map(|n| n.trim().parse().unwrap())
            .collect();
        if !matches!(name, "keepdims" | "to") {
            return ints(made, name, &numbers);
        }
        let mut made = made;
        made.attribute.push(AttributeProto {
            name: name.into(),
            i: Some(numbers[0]),
            ..AttributeProto::default()
        });
        made
    };
    let line = |line: &str| {
        let mut parts = line.split(';');
        let words: Vec<&str> = parts.next().unwrap().split_whitespace().collect();
        parts.fold(
            node(words[2], words[0], &words[3..], &[words[0]]),
            attribute,
        )
    };
    lines.lines().map(line).collect()
}

fn number(name: &str, number: f32) -> TensorProto {
    TensorProto {
        data_type: data_type::FLOAT,
        float_data: vec![number],
        name: name.into(),
        ..TensorProto::default()
    }
}

/// A model over `x` of `dims` per sample, of these lines.
fn over(dims: &[i64], lines: &str) -> ModelProto {
    let mut model = model(nodes(lines));
    let graph = model.graph.as_mut().unwrap();
    graph.input = vec![value("x", &[&[-1], dims].concat())];
    let numbers = [
        ("half", 0.5),
        ("minus_half", -0.5),
        ("one", 1.0),
        ("two", 2.0),
        ("three", 3.0),
        ("quarter", 0.25),
        ("eighth", 0.125),
        ("root", std::f32::consts::SQRT_2),
        ("inverse_root", std::f32::consts::FRAC_1_SQRT_2),
        ("scale", 0.797_884_6),
        ("cube", 0.044_715),
        ("epsilon", 1e-5),
        ("zero", 0.0),
        ("least", f32::NEG_INFINITY),
        ("other_root", 1.5),
        ("other_cube", 0.045),
    ];
    graph.initializer = numbers.map(|(name, v)| number(name, v)).to_vec();
    graph.initializer.extend([
        ones("gamma", &[4]),
        ones("beta", &[1, 1, 4]),
        ones("rows", &[3, 1]),
        ones("deep_gamma", &[1, 1, 1, 4]),
    ]);
    for (name, v) in [("deep_half", 0.5), ("deep_epsilon", 1e-5)] {
        graph.initializer.push(TensorProto {
            dims: vec![1; 4],
            ..number(name, v)
        });
    }
    for (name, shape) in [("column", [0, 3, 1]), ("square", [1, 3, 3])] {
        graph.initializer.push(TensorProto {
            dims: vec![3],
            data_type: data_type::INT64,
            int64_data: shape.to_vec(),
            name: name.into(),
            ..TensorProto::default()
        });
    }
    model
}

fn names(network: &Network) -> Vec<&'static str> {
    network.graph.nodes.iter().map(|n| n.op.name()).collect()
}

#[test]
fn gelus_are_known_however_they_are_multiplied() {
    use Approximate::{None, Tanh};
    let spellings = [
        // PyTorch, and what optimisers make of it.
        (
            "u = Div x root\ne = Erf u\ng = Add e one\np = Mul x g\ny = Mul p half",
            None,
        ),
        (
            "u = Mul inverse_root x\ne = Erf u\ng = Add one e\nh = Mul x half\ny = Mul h g",
            None,
        ),
        (
            "u = Div x root\ne = Erf u\ng = Add e one\nh = Mul g half\ny = Mul h x",
            None,
        ),
        (
            "u = Div x root\ne = Erf u\ng = Add e one\np = Mul x g\ny = Div p two",
            None,
        ),
        (
            "c = Cast x ; to 1\nu = Div c root\ne = Erf u\ng = Add e one\nf = Cast g ; to 10\np = Mul x f\ny = Mul p half",
            None,
        ),
        // Of a product.
        (
            "a = Mul x three\nu = Div a root\ne = Erf u\ng = Add e one\np = Mul a g\ny = Mul p half",
            None,
        ),
        // Transformers, JAX, and the form with fewer products.
        (
            "c = Pow x three\nk = Mul c cube\ns = Add x k\nt = Mul s scale\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
            Tanh,
        ),
        (
            "b = Mul cube x\nc = Mul b x\nd = Mul c x\ns = Add d x\nt = Mul scale s\nh = Tanh t\ng = Add one h\np = Mul half g\ny = Mul x p",
            Tanh,
        ),
        (
            "b = Mul x x\nc = Mul b cube\ns = Add c one\nr = Mul x scale\nt = Mul r s\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
            Tanh,
        ),
    ];
    for (lines, approximate) in spellings {
        let network = read(&over(&[3, 4], lines)).unwrap();
        let last = &network.graph.nodes.last().unwrap().op;
        let gelu = Op::Gelu(ops::Gelu { approximate });
        assert_eq!(last, &gelu, "{lines}");
        let before: &[&str] = match lines.starts_with("a = Mul") {
            true => &["BatchNormalization", "Gelu"],
            false => &["Gelu"],
        };
        assert_eq!(names(&network), before, "{lines}");
    }
}

#[test]
fn what_is_almost_a_gelu_is_what_it_says() {
    let by_erf = [
        "u = Div x other_root\ne = Erf u\ng = Add e one\np = Mul x g\ny = Mul p half",
        "u = Div x root\ne = Erf u\ng = Add e one\np = Mul u g\ny = Mul p half",
        "u = Div x root\ne = Erf u\ng = Add e one\np = Mul x g\ny = Mul p quarter",
        "u = Div x root\ne = Erf u\ng = Add e two\np = Mul x g\ny = Mul p half",
        "u = Div x root\ne = Erf u\ng = Add e one\np = Div x g\ny = Mul p half",
        "u = Div root x\ne = Erf u\ng = Add e one\np = Mul x g\ny = Mul p half",
    ];
    for lines in by_erf {
        let network = read(&over(&[3, 4], lines)).unwrap();
        let names = names(&network);
        assert!(
            names.contains(&"Erf") && !names.contains(&"Gelu"),
            "{lines}: {names:?}"
        );
    }
    let parts = [
        "c = Pow x three\nk = Mul c other_cube\ns = Add x k\nt = Mul s scale\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
        "c = Pow x two\nk = Mul c cube\ns = Add x k\nt = Mul s scale\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
        "c = Pow x three\nk = Mul c cube\ns = Add x k\nt = Mul s half\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
        "b = Mul x x\nc = Mul b cube\ns = Add c two\nr = Mul x scale\nt = Mul r s\nh = Tanh t\ng = Add h one\np = Mul x half\ny = Mul p g",
    ];
    for lines in parts {
        let network = read(&over(&[3, 4], lines)).unwrap();
        let names = names(&network);
        assert!(
            names.contains(&"Tanh") && !names.contains(&"Gelu"),
            "{lines}: {names:?}"
        );
    }
}

#[test]
fn parts_that_something_else_reads_stay() {
    let lines =
        "u = Div x root\ne = Erf u\ng = Add e one\np = Mul x g\nz = Mul p half\ny = Add z e";
    let network = read(&over(&[3, 4], lines)).unwrap();
    let names_of_both = names(&network);
    assert!(
        names_of_both.contains(&"Erf") && names_of_both.contains(&"Gelu"),
        "{names_of_both:?}"
    );
    let lines = "c = Pow x three\nk = Mul c cube\ns = Add x k\nt = Mul s scale\nh = Tanh t\ng = Add h one\np = Mul x half\nz = Mul p g\ny = Add z h";
    let network = read(&over(&[3, 4], lines)).unwrap();
    let names = names(&network);
    let count = |op: &str| names.iter().filter(|n| **n == op).count();
    assert_eq!(
        [count("Gelu"), count("Tanh"), count("Add")],
        [1, 1, 2],
        "{names:?}"
    );
    // The halves of the product are gone.
    assert!(
        !network.graph.nodes.iter().any(|n| n.name == "p"),
        "{names:?}"
    );
}

const TORCH: &str = "m = ReduceMean x ; axes -1
d = Sub x m
q = Pow d two
v = ReduceMean q ; axes -1
w = Add v epsilon
s = Sqrt w
n = Div d s
k = Mul n gamma
y = Add k beta";

#[test]
fn layer_normalisations_are_known_in_several_spellings() {
    let spellings = [
        TORCH.to_owned(),
        TORCH.replace("q = Pow d two", "q = Mul d d"),
        TORCH.replace("s = Sqrt w", "s = Pow w half"),
        TORCH
            .replace("s = Sqrt w", "s = Pow w minus_half")
            .replace("n = Div d s", "n = Mul s d"),
        TORCH.replace("n = Div d s", "r = Reciprocal s\nn = Mul r d"),
        TORCH.replace("q = Pow d two", "e = Sub x m\nq = Mul e e"),
        TORCH
            .replace(
                "m = ReduceMean x ; axes -1",
                "f = ReduceSum x ; axes -1\nm = Mul f quarter",
            )
            .replace(
                "v = ReduceMean q ; axes -1",
                "i = ReduceSum q ; axes 2\nv = Mul quarter i",
            ),
        // The mean of squares less the square of the mean, whose shape comes back later.
        "i = ReduceMean x ; axes 2
m = Identity i
q = Mul x x
j = ReduceMean q ; axes 2
p = Mul m m
v = Sub j p
a = Max v zero
w = Add a epsilon
s = Sqrt w
r = Reciprocal s
l = Reshape r column
g = Mul l gamma
f = Reshape m column
d = Sub x f
k = Mul d g
y = Add k beta"
            .to_owned(),
    ];
    for lines in &spellings {
        let network = read(&over(&[3, 4], lines)).unwrap();
        assert_eq!(names(&network), ["LayerNormalization"], "{lines}");
        let Op::LayerNormalization(made) = &network.graph.nodes[0].op else {
            unreachable!()
        };
        assert_eq!((made.dimensions, made.epsilon), (1, 1e-5), "{lines}");
        assert_eq!(
            (made.scale.as_str(), made.bias.as_deref()),
            ("gamma", Some("beta"))
        );
    }
    // Without scale and bias, and times a number.
    let lines = TORCH.replace("k = Mul n gamma\ny = Add k beta", "y = Mul n three");
    let network = read(&over(&[3, 4], &lines)).unwrap();
    let scale = &network.tensors["y.scale"].to_dense().values;
    assert_eq!(
        (names(&network), scale.as_slice()),
        (vec!["LayerNormalization"], &[3.0; 4][..])
    );
}

#[test]
fn what_is_almost_a_layer_normalisation_is_none() {
    let others = [
        // The mean of one axis, the variance of another.
        TORCH.replace("m = ReduceMean x ; axes -1", "m = ReduceMean x ; axes 1"),
        TORCH.replace("v = ReduceMean q ; axes -1", "v = ReduceMean q ; axes 1"),
        // The square of something else.
        TORCH.replace("q = Pow d two", "q = Pow x two"),
        TORCH.replace("q = Pow d two", "q = Mul x d"),
        // A sum over another number than that of its elements.
        TORCH.replace(
            "m = ReduceMean x ; axes -1",
            "f = ReduceSum x ; axes -1\nm = Mul f eighth",
        ),
        // Another value over the deviation.
        TORCH.replace("n = Div d s", "n = Div x s"),
        // A variance without its number.
        TORCH.replace("s = Sqrt w", "s = Sqrt v"),
    ];
    for lines in others {
        let network = read(&over(&[3, 4], &lines)).unwrap();
        let names = names(&network);
        assert!(
            names.contains(&"Sqrt") && !names.contains(&"LayerNormalization"),
            "{lines}: {names:?}"
        );
    }
    // A scale of the axis that is not normalised is beside the operator.
    let network = read(&over(
        &[3, 4],
        &TORCH.replace("k = Mul n gamma", "k = Mul n rows"),
    ));
    let network = network.unwrap();
    let Op::LayerNormalization(norm) = &network.graph.nodes[0].op else {
        panic!("{:?}", names(&network))
    };
    assert_eq!((norm.scale.as_str(), &norm.bias), ("n.scale", &None));
    // Statistics of columns beside rows, which have as many elements.
    let turned = "m = ReduceMean x ; axes 1
q = Mul x x
j = ReduceMean q ; axes 1
p = Mul m m
v = Sub j p
w = Add v epsilon
s = Sqrt w
t = Reshape s column
f = Reshape m column
d = Sub x f
y = Div d t";
    let turned = turned.replace("axes 1", "axes 1 ; keepdims 0");
    let grown = turned
        .replace(
            "t = Reshape s column",
            "a = Reshape s column\nt = Expand a square",
        )
        .replace(
            "f = Reshape m column",
            "b = Reshape m column\nf = Expand b square",
        );
    for lines in [turned, grown] {
        let network = read(&over(&[3, 3], &lines)).unwrap();
        let names = names(&network);
        assert!(
            names.contains(&"Sqrt") && !names.contains(&"LayerNormalization"),
            "{lines}: {names:?}"
        );
    }
    // In their place they may grow.
    let lines = "m = ReduceMean x ; axes 1 ; keepdims 0
u = Unsqueeze m ; axes 1
f = Expand u square
d = Sub x f
q = Mul d d
v = ReduceMean q ; axes 1
w = Add v epsilon
a = Expand w square
s = Sqrt a
y = Div d s";
    let network = read(&over(&[3, 3], lines)).unwrap();
    assert!(
        names(&network).contains(&"LayerNormalization"),
        "{:?}",
        names(&network)
    );
}

#[test]
fn constants_of_more_dimensions_than_the_value_make_no_whole() {
    let gelu = "u = Div x root\ne = Erf u\ng = Add e one\np = Mul x g\ny = Mul p deep_half";
    let error = read(&over(&[3, 4], gelu)).unwrap_err();
    let expected = "`y` (Mul): a floating-point constant [1, 1, 1, 1] beside [3, 4]";
    assert!(error.contains(expected), "{error}");
    for (from, to) in [
        ("Add v epsilon", "Add v deep_epsilon"),
        ("Mul n gamma", "Mul n deep_gamma"),
    ] {
        let made = read(&over(&[3, 4], &TORCH.replace(from, to)));
        let whole = made.as_ref().is_ok_and(|network| {
            let norms = network
                .graph
                .nodes
                .iter()
                .filter(|n| n.op.name() == "LayerNormalization");
            // The part before the scale is one.
            norms.count() > usize::from(to.contains("gamma"))
        });
        assert!(!whole, "{to}: {made:?}");
    }
}

#[test]
fn softmaxes_are_known_with_and_without_their_maximum() {
    let whole = "m = ReduceMax x ; axes -1
n = Max m least
d = Sub x n
e = Exp d
s = ReduceSum e ; axes -1
y = Div e s";
    let spellings = [
        (whole.to_owned(), 1),
        (whole.replace("-1", "1"), 0),
        (
            whole.replace("n = Max m least\nd = Sub x n", "d = Sub x m"),
            1,
        ),
        (
            "e = Exp x\ns = ReduceSum e ; axes -1\nr = Reciprocal s\ny = Mul e r".to_owned(),
            1,
        ),
    ];
    for (lines, axis) in &spellings {
        let network = read(&over(&[3, 4], lines)).unwrap();
        let op = &network.graph.nodes[0].op;
        assert_eq!(op, &Op::Softmax(ops::Softmax { axis: *axis }), "{lines}");
        assert_eq!(network.graph.nodes.len(), 1, "{lines}");
    }
    let others = [
        // Over two axes, of another value, and times a number.
        "e = Exp x\ns = ReduceSum e ; axes 1,2\ny = Div e s",
        "e = Exp x\nz = Mul x two\nf = Exp z\ns = ReduceSum f ; axes -1\ny = Div e s",
        "e = Exp x\ns = ReduceSum e ; axes -1\nt = Mul s two\ny = Div e t",
    ];
    for lines in others {
        let network = read(&over(&[3, 4], lines)).unwrap();
        let names = names(&network);
        assert!(
            names.contains(&"Exp") && !names.contains(&"Softmax"),
            "{lines}: {names:?}"
        );
    }
}

#[test]
fn a_layer_that_an_operator_and_something_else_read_keeps_its_bias_to_itself() {
    let lines = "f = MatMul x square_weight
b = Add f gamma
u = Div f root
e = Erf u
g = Add e one
p = Mul f g
z = Mul p half
y = Add z b";
    for dims in [&[4][..], &[3, 4]] {
        let mut model = over(dims, lines);
        let graph = model.graph.as_mut().unwrap();
        graph.initializer.push(ones("square_weight", &[4, 4]));
        let network = read(&model).unwrap();
        let Op::Linear(layer) = &network.graph.nodes[0].op else {
            panic!("{:?}", names(&network))
        };
        assert_eq!(layer.bias, None);
        assert!(names(&network).contains(&"Gelu"));
    }
}

#[test]
fn what_more_than_two_inputs_make_is_no_part_of_a_whole() {
    let lines = TORCH.replace(
        "w = Add v epsilon",
        "a = Max v zero three\nw = Add a epsilon",
    );
    let network = read(&over(&[3, 4], &lines)).unwrap();
    let parts = names(&network);
    assert!(
        parts.contains(&"Sqrt") && !parts.contains(&"LayerNormalization"),
        "{parts:?}"
    );
    let lines = "z = Mul x two
m = ReduceMax x ; axes -1
n = Max m least z
d = Sub x n
e = Exp d
s = ReduceSum e ; axes -1
y = Div e s";
    // `z` may be larger than the maximum of `x`.
    let network = read(&over(&[3, 4], lines)).unwrap();
    let parts = names(&network);
    assert!(
        parts.contains(&"Max") && !parts.contains(&"Softmax"),
        "{parts:?}"
    );
}

#[test]
fn a_statistic_that_was_repeated_is_not_reshaped() {
    let lines = "m = ReduceMean x ; axes 1,3
a = Expand m rows_repeated
f = Reshape a columns
d = Sub x f
q = Mul d d
v = ReduceMean q ; axes 1,3
w = Add v epsilon
s = Sqrt w
y = Div d s";
    let repeated = |rows: &[i64]| {
        let mut model = over(&[3, 3, 3], lines);
        for (name, shape) in [("rows_repeated", rows), ("columns", &[0, 1, 3, 3])] {
            model.graph.as_mut().unwrap().initializer.push(TensorProto {
                dims: vec![4],
                data_type: data_type::INT64,
                int64_data: shape.to_vec(),
                name: name.into(),
                ..TensorProto::default()
            });
        }
        read(&model)
    };
    let error = repeated(&[1, 3, 3, 1]).unwrap_err();
    assert!(error.contains("`m` (ReduceMean): axes [1, 3]"), "{error}");
    // Nor does one sample become several.
    let error = repeated(&[5, 1, 3, 1]).unwrap_err();
    assert!(error.contains("unsupported"), "{error}");
}

#[test]
fn an_input_gets_the_shape_that_the_whole_needs() {
    let lines = "x2 = Reshape x shape
m = ReduceMax x2 ; axes -1
d = Sub x2 m
e = Exp d
s = ReduceSum e ; axes -1
y = Div e s";
    let mut model = over(&[12], lines);
    model.graph.as_mut().unwrap().initializer.push(TensorProto {
        dims: vec![3],
        data_type: data_type::INT64,
        int64_data: vec![0, 3, 4],
        name: "shape".into(),
        ..TensorProto::default()
    });
    let network = read(&model).unwrap();
    assert_eq!(names(&network), ["Softmax"]);
    assert_eq!(network.graph.inputs[0].shape.dims(), [3, 4]);
}
