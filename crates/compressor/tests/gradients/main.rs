//! Gradients of the engine against central differences, in f64, through the very code that trains in f32.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bytes;
mod case;
mod lengths;
mod networks;
mod zeros;

use case::*;
use networks::*;
use sparsevd_compressor::State;
use sparsevd_compressor::engine::Engine;
use sparsevd_compressor::objective::{CrossEntropy, Huber, Objective, SquaredError, Target};
use sparsevd_compressor::variational::Granularity;
use sparsevd_kernels::Isa;
use sparsevd_model::{Dense, Op, Shape, Weights, ops};
use sparsevd_testing::executor;

#[test]
fn a_convolutional_chain_with_noise_and_a_teacher() {
    chain().check(true);
}

#[test]
fn a_convolutional_chain_without_noise() {
    chain().check(false);
}

#[test]
fn a_regression_with_and_without_noise_and_a_teacher() {
    for teacher in [false, true] {
        let case = || Case {
            regression: true,
            teacher,
            ..chain()
        };
        case().check(false);
        case().check(true);
    }
}

/// The gradient of each objective by the outputs themselves.
#[test]
fn objectives_by_their_outputs() {
    let outputs = random(4, 90, 1.5);
    let teacher = random(4, 91, 1.0);
    let numbers: Vec<f32> = random(4, 92, 1.0).into_iter().map(|x| x as f32).collect();
    let cross_entropy = CrossEntropy {
        smoothing: 0.0,
        distillation: DISTILLATION,
    };
    let squared_error = SquaredError {
        deviation: 0.7,
        share: 0.4,
    };
    // Most errors above its threshold, and all below it.
    let huber = [0.1, 100.0].map(|deviation| Huber {
        deviation,
        share: 0.4,
    });
    let cases: [(&dyn Objective<f64>, Target<'_>); 4] = [
        (&cross_entropy, Target::Class(2)),
        (&squared_error, Target::Vector(&numbers)),
        (&huber[0], Target::Vector(&numbers)),
        (&huber[1], Target::Vector(&numbers)),
    ];
    for (objective, target) in cases {
        for teacher in [None, Some(teacher.as_slice())] {
            let at = |outputs: &[f64]| {
                let mut gradient = [0.0; 4];
                let loss = objective.differentiate(outputs, target, teacher, 0.5, &mut gradient);
                (loss, gradient)
            };
            let (loss, gradient) = at(&outputs);
            if teacher.is_none() {
                assert_eq!(loss.loss, loss.objective, "{objective:?}");
            }
            for (i, got) in gradient.into_iter().enumerate() {
                let moved = |d: f64| {
                    let mut outputs = outputs.clone();
                    outputs[i] += d;
                    at(&outputs).0.objective
                };
                let want = 0.5 * (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!(
                    (got - want).abs() < 1e-8,
                    "{objective:?}: gradient {got}, difference {want}"
                );
            }
        }
    }
}

#[test]
fn a_residual_network_with_noise() {
    residual().check(true);
}

#[test]
fn normalisation_in_a_residual_network() {
    normalised().check(false);
    normalised().check(true);
}

#[test]
fn layer_normalisation_of_maps_rows_and_vectors() {
    layer_normalised().check(false);
    layer_normalised().check(true);
}

#[test]
fn attention_and_vectors_of_length_1() {
    attentive().check(false);
    attentive().check(true);
}

#[test]
fn ids_and_values_in_other_orders() {
    of_ids().check(false);
    of_ids().check(true);
}

#[test]
fn features_of_pooled_maps() {
    pooled().check(false);
    pooled().check(true);
}

#[test]
fn ids_of_several_dimensions() {
    of_maps_of_ids(&[2, 3]).check(false);
    of_maps_of_ids(&[2, 1, 3]).check(false);
}

#[test]
fn layers_over_the_vectors_of_a_sample() {
    of_vectors().check(false);
    of_vectors().check(true);
}

#[test]
fn parts_and_copies() {
    parts().check(false);
    parts().check(true);
}

/// What the trainer computes is what the slow executor does, whatever order values lie in.
#[test]
fn values_in_other_orders_are_those_of_the_network() {
    let cases = [
        attentive(),
        of_ids(),
        of_vectors(),
        parts(),
        pooled(),
        of_maps_of_ids(&[2, 3]),
        of_maps_of_ids(&[2, 1, 3]),
    ];
    for Case { network, .. } in cases {
        let input = &network.graph.inputs[0];
        let len = input.shape.elements();
        let input: Vec<f32> = match input.dtype.is_id() {
            true => (0..len).map(|i| (i * i % IDS) as f32).collect(),
            false => random(len, 80, 1.0).iter().map(|x| *x as f32).collect(),
        };
        let want = executor::run(&network, &input);
        // The trainer takes maps channels last.
        let dims = network.graph.inputs[0].shape.dims().to_vec();
        let input: Vec<f32> = match dims[..] {
            [c, h, w] => (0..len).map(|i| input[i % c * h * w + i / c]).collect(),
            _ => input,
        };
        let state = State::<f64>::from_network(&network).unwrap();
        let (graph, isa) = (&network.graph, Isa::best());
        let mut engine = Engine::new(graph, state, Granularity::Weight, isa, None).unwrap();
        let fill = |_: usize, out: &mut [f64]| {
            let input = input.iter().map(|&x| f64::from(x));
            out.iter_mut().zip(input).for_each(|(o, x)| *o = x);
        };
        let mut got = engine.predict(1, &fill, &[]);
        if matches!(graph.nodes.last().unwrap().op, Op::Softmax(_)) {
            let sum: f64 = got.iter().map(|s| s.exp()).sum();
            got.iter_mut().for_each(|s| *s = s.exp() / sum);
        }
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} and {want}");
        }
    }
}

#[test]
fn slopes_of_channels_and_of_all() {
    with_slopes().check(false);
    with_slopes().check(true);
}

#[test]
fn depthwise_and_grouped_convolutions_and_a_gate() {
    mobile().check(false);
    mobile().check(true);
}

/// `scale x + bias` with constants, as the ONNX importer writes it.
fn arithmetic(name: &str) -> Op {
    let mut op = normalise(name);
    if let Op::BatchNormalization(norm) = &mut op {
        norm.epsilon = 0.0;
    }
    op
}

/// Sets the statistics of arithmetic with constants to mean 0 and variance 1.
fn with_constants(mut case: Case, names: &[&str]) -> Case {
    for name in names {
        for (part, value) in [("running_mean", 0.0), ("running_var", 1.0)] {
            let tensor = case.network.tensors.get_mut(&format!("{name}.{part}"));
            let shape = tensor.as_ref().unwrap().shape();
            let values = vec![value; shape.elements()];
            *tensor.unwrap() = Weights::Dense(Dense::new(shape, values));
        }
    }
    case
}

/// A normalisation of the network's input, and arithmetic with constants in the middle, with a ReLU that joins it.
#[test]
fn a_normalisation_of_the_input_and_arithmetic_with_constants() {
    let same = || window([3, 3], [1, 1], [1; 4], [1, 1]);
    let nodes = vec![
        ("n1", normalise("n1"), vec!["x"]),
        ("r1", Op::Relu, vec!["n1"]),
        ("c1", conv("c1", same()), vec!["r1"]),
        ("a1", arithmetic("a1"), vec!["c1"]),
        ("r2", Op::Relu, vec!["a1"]),
        ("c2", conv("c2", same()), vec!["r2"]),
        ("n2", normalise("n2"), vec!["c2"]),
        ("f", Op::Flatten, vec!["n2"]),
        ("out", linear("out"), vec!["f"]),
    ];
    let shapes = [
        channels("n1", 2),
        with_bias("c1", [4, 2, 3, 3]),
        channels("a1", 4),
        with_bias("c2", [3, 4, 3, 3]),
        channels("n2", 3),
        with_bias("out", [3, 3 * 20]),
    ];
    let case = || {
        let case = case(Shape::from([2, 4, 5]), nodes.clone(), &shapes);
        with_constants(case, &["a1"])
    };
    case().check(false);
    case().check(true);
}

/// Arithmetic with constants on the input gives the loss and the gradients that the inputs after it give by themselves; a
/// normalisation gives those of inputs that are normalised by the statistics of the batch.
#[test]
fn a_first_node_has_the_values_of_its_results_as_inputs() {
    let input = Shape::from([2, 2, 3]);
    let layers = |first: &'static str| {
        vec![
            (
                "c",
                conv("c", window([2, 2], [1, 1], [0; 4], [1, 1])),
                vec![first],
            ),
            ("f", Op::Flatten, vec!["c"]),
            ("out", linear("out"), vec!["f"]),
        ]
    };
    let shapes = [with_bias("c", [4, 2, 2, 2]), with_bias("out", [3, 8])];
    for constant in [true, false] {
        let op = if constant {
            arithmetic("a")
        } else {
            normalise("a")
        };
        let nodes = [vec![("a", op, vec!["x"])], layers("a")].concat();
        let with_first = [shapes.as_slice(), &[channels("a", 2)]].concat();
        let mut whole = case(input.clone(), nodes, &with_first);
        if constant {
            whole = with_constants(whole, &["a"]);
        }
        let rest = case(input.clone(), layers("x"), &shapes);
        let data = random(SAMPLES * input.elements(), 77, 1.0);
        // Inputs are [sample][height][width][channel].
        let mut after = data.clone();
        for c in 0..2 {
            let numbers =
                |part: &str| f64::from(whole.network.tensors[&format!("a.{part}")].values()[c]);
            let channel = || data.iter().skip(c).step_by(2);
            let n = channel().count() as f64;
            let (mean, variance) = if constant {
                (0.0, 1.0)
            } else {
                let mean = channel().sum::<f64>() / n;
                let squares = channel().map(|x| (x - mean) * (x - mean)).sum::<f64>();
                (mean, squares / n + 1e-3)
            };
            for x in after.iter_mut().skip(c).step_by(2) {
                *x = (*x - mean) / variance.sqrt() * numbers("weight") + numbers("bias");
            }
        }
        let got = whole.gradients_of(whole.state(true), &data);
        let want = rest.gradients_of(rest.state(true), &after);
        assert!(want.loss > 0.1);
        assert!(
            (got.loss - want.loss).abs() < 1e-6,
            "{} and {}",
            got.loss,
            want.loss
        );
        let all = |g: &Gradients| -> Vec<f64> {
            let layers = g.layers.iter().flatten().chain(&g.biases);
            layers.flatten().copied().collect()
        };
        for (got, want) in all(&got).into_iter().zip(all(&want)) {
            assert!((got - want).abs() < 1e-6, "{constant}: {got} and {want}");
        }
    }
}

#[test]
fn a_gradient_that_is_mostly_zero() {
    pooled_whole().check(false);
    pooled_whole().check(true);
}

#[test]
fn branches_that_meet_again() {
    branches().check(false);
    branches().check(true);
}

#[test]
fn what_has_no_gradient_is_refused_by_name() {
    let shared = vec![
        ("l1", linear("l"), vec!["x"]),
        ("l2", linear("l"), vec!["l1"]),
    ];
    let shared = case(Shape::from([3]), shared, &[with_bias("l", [3, 3])]);
    let error = State::<f32>::from_network(&shared.network).unwrap_err();
    assert!(
        error.to_string().starts_with("node `l2` (Linear)"),
        "{error}"
    );
    let softmax = |axis| Op::Softmax(ops::Softmax { axis });
    let slopes = ops::PRelu {
        slope: "s.weight".into(),
    };
    let rows = Op::Reshape(ops::Reshape { shape: vec![3, 2] });
    let slopes = vec![
        ("rows", rows, vec!["x"]),
        ("s", Op::PRelu(slopes), vec!["rows"]),
        ("f", Op::Flatten, vec!["s"]),
        ("l", linear("l"), vec!["f"]),
    ];
    let hidden = vec![("p", softmax(0), vec!["x"]), ("l", linear("l"), vec!["p"])];
    let with_function = |op: Op| vec![("p", op, vec!["x"]), ("l", linear("l"), vec!["p"])];
    let logarithms = with_function(Op::LogSoftmax(ops::LogSoftmax::default()));
    let matrix = ops::Reshape { shape: vec![1, 6] };
    let product = vec![
        ("row", Op::Reshape(matrix.clone()), vec!["x"]),
        (
            "column",
            Op::Transpose(ops::Transpose { perm: vec![1, 0] }),
            vec!["row"],
        ),
        ("p", Op::MatMul, vec!["column", "row"]),
        ("f", Op::Flatten, vec!["p"]),
    ];
    let statistics = |name: &str, of: &str| {
        let rows = ops::Reshape { shape: vec![1, 6] };
        vec![
            ("rows", Op::Reshape(rows), vec!["x"]),
            ("n", normalise(name), vec!["rows"]),
            ("f", Op::Flatten, vec!["n"]),
            ("l", linear(of), vec!["f"]),
        ]
    };
    let read_twice = vec![
        ("l", linear("l"), vec!["x"]),
        ("p", softmax(0), vec!["l"]),
        ("sum", Op::Add, vec!["p", "l"]),
    ];
    let rows_of_maps = vec![
        (
            "map",
            Op::Reshape(ops::Reshape {
                shape: vec![1, 1, 6],
            }),
            vec!["x"],
        ),
        ("l", linear("l"), vec!["map"]),
        ("f", Op::Flatten, vec!["l"]),
    ];
    for (nodes, start) in [
        (rows_of_maps, "node `l` (Linear)"),
        (hidden, "node `p` (Softmax)"),
        (logarithms, "node `p` (LogSoftmax)"),
        (product, "node `p` (MatMul)"),
        (read_twice, "node `p` (Softmax)"),
        (slopes, "node `s` (PRelu)"),
        (statistics("n", "l"), "node `n` (BatchNormalization)"),
    ] {
        let shapes = [
            with_bias("l", [6, 6]),
            weights("s", [3, 1]),
            channels("n", 1),
        ];
        let case = case(Shape::from([6]), nodes, &shapes);
        let state = State::<f32>::from_network(&case.network).unwrap();
        let graph = &case.network.graph;
        let error = Engine::new(graph, state, Granularity::Weight, Isa::best(), None).err();
        let error = error.unwrap().to_string();
        assert!(error.starts_with(start), "{error}");
    }
}
