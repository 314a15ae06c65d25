//! Gradients of the engine against central differences, in f64, through the very code that trains in f32.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use sparsevd_compressor::engine::{Batch, Engine};
use sparsevd_compressor::objective::{
    CrossEntropy, Distillation, Huber, Objective, SquaredError, Target, Targets,
};
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{State, initialise};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{
    Approximate, DType, Dense, GraphBuilder, Input, Network, Op, Shape, Weights, Window, ops,
    presets,
};
use sparsevd_testing::executor;

fn random(len: usize, stream: u32, scale: f64) -> Vec<f64> {
    let mut out = vec![0.0; len];
    normals(
        Isa::SCALAR,
        NoiseKey {
            seed: 99,
            step: 0,
            layer: 0,
            sample: stream,
        },
        &mut out,
    );
    out.iter_mut().for_each(|x| *x *= scale);
    out
}

/// Puts nodes `(name, op, inputs)` together with random weights of the given shapes. An input that a table is read by is ids.
fn network(input: Shape, nodes: Vec<(&str, Op, Vec<&str>)>, shapes: &[(&str, Shape)]) -> Network {
    let mut b = GraphBuilder::new("test");
    let mut input = Input::new("x", input);
    if matches!(nodes[0].1, Op::Embedding(_)) {
        input.dtype = DType::I32;
    }
    b.free_input(input);
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let values = random(shape.elements(), i as u32, 0.5).into_iter();
        let values = values.map(|x| x as f32).collect();
        b.weights(*name, Dense::new(shape.clone(), values));
    }
    for (name, op, inputs) in nodes {
        b.op(name, op, &inputs);
    }
    b.network(|name, _| panic!("{name} has no shape")).unwrap()
}

fn conv(name: &str, window: Window) -> Op {
    Op::Conv(ops::Conv {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
        window,
        groups: 1,
    })
}

fn linear(name: &str) -> Op {
    Op::Linear(ops::Linear {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
    })
}

fn window(
    kernel: [usize; 2],
    strides: [usize; 2],
    pads: [usize; 4],
    dilations: [usize; 2],
) -> Window {
    Window {
        kernel_shape: kernel,
        strides,
        pads,
        dilations,
    }
}

const SAMPLES: usize = 5;
/// Rows of the tables.
const IDS: usize = 7;

/// Of a batch with and without a teacher.
const DISTILLATION: Distillation = Distillation {
    share: 0.4,
    temperature: 2.0,
};

struct Case {
    network: Network,
    outputs: usize,
    /// Targets are numbers, and the loss is the squared error.
    regression: bool,
    teacher: bool,
}

/// Loss and gradients of a batch.
struct Gradients {
    loss: f64,
    layers: Vec<[Vec<f64>; 2]>,
    biases: Vec<Vec<f64>>,
    normalisations: Vec<[Vec<f64>; 2]>,
    plain: Vec<Vec<f64>>,
}

impl Case {
    fn state(&self, noise: bool) -> State<f64> {
        let mut state = State::from_network(&self.network).unwrap();
        for (i, layer) in state.layers.iter_mut().enumerate() {
            if noise {
                layer.start_noise(-3.0, Granularity::Weight);
            }
            if layer.is_variational() {
                layer.log_sigma2 = random(layer.theta.len(), 50 + i as u32, 1.0)
                    .iter()
                    .map(|x| x - 3.0)
                    .collect();
                layer.refresh_sigma2();
            }
        }
        state
    }

    /// As [`Self::state`] without noise, but with one weight of six in the layers that `few` says.
    fn state_of_few(&self, few: impl Fn(usize) -> bool) -> State<f64> {
        let mut state = self.state(false);
        let layers = state.layers.iter_mut().enumerate();
        for (_, layer) in layers.filter(|(i, l)| few(*i) && !l.is_depthwise()) {
            let keep: Vec<bool> = (0..layer.theta.len())
                .map(|i| (i + i / 7) % 6 == 2)
                .collect();
            layer.remove(&keep);
        }
        state
    }

    fn gradients(&self, state: State<f64>) -> Gradients {
        self.gradients_of(state, &self.data(SAMPLES))
    }

    /// Inputs of a batch.
    fn data(&self, samples: usize) -> Vec<f64> {
        let input = &self.network.graph.inputs[0];
        let len = samples * input.shape.elements();
        match input.dtype.is_id() {
            // Some rows of the table more often than others.
            true => (0..len).map(|i| (i * i % IDS) as f64).collect(),
            false => random(len, 77, 1.0),
        }
    }

    /// Of a batch of these inputs.
    fn gradients_of(&self, state: State<f64>, data: &[f64]) -> Gradients {
        self.gradients_by(state, data, true)
    }

    fn gradients_by(&self, state: State<f64>, data: &[f64], skip_zeros: bool) -> Gradients {
        let input = self.network.graph.inputs[0].shape.elements();
        let samples = data.len() / input;
        let teacher = random(samples * self.outputs, 78, 1.0);
        let labels: Vec<u16> = (0..samples).map(|i| (i % self.outputs) as u16).collect();
        let numbers = random(samples * self.outputs, 79, 1.0);
        let numbers: Vec<f32> = numbers.into_iter().map(|x| x as f32).collect();
        let cross_entropy = CrossEntropy {
            smoothing: 0.1,
            distillation: DISTILLATION,
        };
        let squared_error = SquaredError {
            deviation: 0.7,
            share: 0.4,
        };
        let (objective, targets): (&dyn Objective<f64>, _) = if self.regression {
            (&squared_error, Targets::vectors(&numbers, self.outputs))
        } else {
            (&cross_entropy, Targets::classes(&labels))
        };
        let mut engine = Engine::new(
            &self.network.graph,
            state,
            Granularity::Weight,
            Isa::best(),
            None,
        )
        .unwrap();
        engine.skip_zeros(skip_zeros);
        let of = |sample: usize, out: &mut [f64]| {
            out.copy_from_slice(&data[sample * input..(sample + 1) * input]);
        };
        // What earlier batches, a smaller one and then a larger one, left in the buffers changes nothing.
        let twice = [&labels[..], &labels].concat();
        let numbers_twice = [&numbers[..], &numbers].concat();
        for (step, samples_then) in [samples.div_ceil(3), 2 * samples].into_iter().enumerate() {
            let earlier = Batch {
                samples: samples_then,
                fill: &|i, out| of((3 * i + 1) % samples, out),
                objective,
                targets: &match self.regression {
                    true => Targets::vectors(&numbers_twice, self.outputs),
                    false => Targets::classes(&twice),
                },
                teacher: None,
            };
            engine.backward(&earlier, 5, step as u32).unwrap();
        }
        let batch = Batch {
            samples,
            fill: &of,
            objective,
            targets: &targets,
            teacher: self.teacher.then_some(&teacher),
        };
        let report = engine.backward(&batch, 5, 9).unwrap();
        Gradients {
            loss: report.objective / samples as f64,
            layers: engine.gradients().to_vec(),
            biases: engine.bias_gradients().to_vec(),
            normalisations: engine.normalisation_gradients().to_vec(),
            plain: engine.plain_gradients().to_vec(),
        }
    }

    fn check(&self, noise: bool) {
        let state = self.state(noise);
        let got = self.gradients(state.clone());
        let h = 1e-5;
        let mut checked = 0;
        let mut probe = |what: &str, got: f64, change: &dyn Fn(&mut State<f64>, f64)| {
            let at = |d: f64| {
                let mut moved = state.clone();
                change(&mut moved, d);
                self.gradients(moved).loss
            };
            let want = (at(h) - at(-h)) / (2.0 * h);
            assert!(
                (got - want).abs() <= 1e-6 + 1e-4 * want.abs(),
                "{what}: gradient {got}, difference {want}"
            );
            checked += usize::from(want.abs() > 1e-9);
        };
        for (l, layer) in state.layers.iter().enumerate() {
            let name = &layer.node;
            let n = layer.theta.len();
            for i in (0..n).step_by((n / 25).max(1)) {
                let by_theta = got.layers[l][0][i];
                probe(&format!("{name} theta[{i}]"), by_theta, &|s, d| {
                    s.layers[l].theta[i] += d
                });
                if layer.is_variational() {
                    let by_sigma2 = got.layers[l][1][i];
                    probe(&format!("{name} sigma2[{i}]"), by_sigma2, &|s, d| {
                        s.layers[l].sigma2[i] += d
                    });
                }
            }
            for (i, &gradient) in got.biases[l].iter().enumerate() {
                probe(&format!("{name} bias[{i}]"), gradient, &|s, d| {
                    s.layers[l].bias[i] += d
                });
            }
        }
        let trained = got.normalisations.iter().enumerate();
        for (n, [by_scale, by_bias]) in trained.filter(|(n, _)| !state.normalisations[*n].constant)
        {
            let name = &state.normalisations[n].node;
            for i in 0..by_scale.len() {
                probe(&format!("{name} scale[{i}]"), by_scale[i], &|s, d| {
                    s.normalisations[n].scale[i] += d
                });
                probe(&format!("{name} bias[{i}]"), by_bias[i], &|s, d| {
                    s.normalisations[n].bias[i] += d
                });
            }
        }
        for (t, tensor) in state.plain.iter().enumerate() {
            for (i, &gradient) in got.plain[t].iter().enumerate() {
                let what = format!("{}[{i}]", tensor.name);
                probe(&what, gradient, &|s, d| s.plain[t].values[i] += d);
            }
        }
        assert!(checked > 20, "only {checked} gradients were not zero");
    }
}

fn chain() -> Case {
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

fn residual() -> Case {
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

fn normalise(name: &str) -> Op {
    let tensor = |part: &str| format!("{name}.{part}");
    Op::BatchNormalization(ops::BatchNormalization {
        scale: tensor("weight"),
        bias: tensor("bias"),
        mean: tensor("running_mean"),
        variance: tensor("running_var"),
        epsilon: 1e-3,
    })
}

fn grouped(name: &str, window: Window, groups: usize) -> Op {
    Op::Conv(ops::Conv {
        weight: format!("{name}.weight"),
        bias: None,
        window,
        groups,
    })
}

/// Shapes of a normalisation's tensors.
fn channels(name: &str, n: usize) -> Vec<(String, Shape)> {
    ["weight", "bias", "running_mean", "running_var"]
        .map(|part| (format!("{name}.{part}"), Shape::from([n])))
        .to_vec()
}

fn weights<const N: usize>(name: &str, dims: [usize; N]) -> Vec<(String, Shape)> {
    vec![(format!("{name}.weight"), Shape::from(dims))]
}

fn with_bias<const N: usize>(name: &str, dims: [usize; N]) -> Vec<(String, Shape)> {
    let bias = (format!("{name}.bias"), Shape::from([dims[0]]));
    [weights(name, dims), vec![bias]].concat()
}

fn case(input: Shape, nodes: Vec<(&str, Op, Vec<&str>)>, shapes: &[Vec<(String, Shape)>]) -> Case {
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
fn normalised() -> Case {
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
fn layer_norm(name: &str, dimensions: usize, bias: bool) -> Op {
    Op::LayerNormalization(ops::LayerNormalization {
        scale: format!("{name}.weight"),
        bias: bias.then(|| format!("{name}.bias")),
        dimensions,
        epsilon: 1e-2,
    })
}

/// Layer normalisations of the input, of whole maps, of rows, and of vectors.
fn layer_normalised() -> Case {
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
fn of_ids() -> Case {
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
fn of_maps_of_ids(dims: &[usize]) -> Case {
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
fn pooled() -> Case {
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
fn pooled_whole() -> Case {
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
fn of_vectors() -> Case {
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

/// Parametric ReLUs of the input, of maps, with one slope, and of vectors.
fn with_slopes() -> Case {
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
fn mobile() -> Case {
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
fn branches() -> Case {
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

/// What the trainer computes is what the slow executor does, whatever order values lie in.
#[test]
fn values_in_other_orders_are_those_of_the_network() {
    let cases = [
        of_ids(),
        of_vectors(),
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

/// Products with all weights, of which many are zero, and with those that are left alone.
#[test]
fn zeros_that_are_skipped_change_nothing() {
    let cases = [
        chain(),
        residual(),
        normalised(),
        of_ids(),
        pooled(),
        pooled_whole(),
        of_vectors(),
        mobile(),
        branches(),
    ];
    // In all layers, and in every other one, so that both kinds meet.
    let few: [fn(usize) -> bool; 3] = [|_| true, |i| i % 2 == 0, |i| i % 2 == 1];
    for (number, variant) in (0..cases.len()).flat_map(|c| (0..few.len()).map(move |v| (c, v))) {
        let case = &cases[number];
        let state = case.state_of_few(few[variant]);
        let number = format!("{number}, variant {variant}");
        // Two whole blocks of vectors and a part of one.
        let data = case.data(40);
        let want = case.gradients_by(state.clone(), &data, false);
        let got = case.gradients_by(state.clone(), &data, true);
        let close = |what: &str, got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len(), "case {number}, {what}");
            for (got, want) in got.iter().zip(want) {
                let most = 1e-12 + 1e-9 * want.abs();
                assert!(
                    (got - want).abs() <= most,
                    "case {number}, {what}: {got}, {want}"
                );
            }
        };
        close("loss", &[got.loss], &[want.loss]);
        assert!(want.loss.is_finite() && want.loss > 0.0);
        let (mut skipped, mut flowing) = (0, 0);
        for (l, layer) in state.layers.iter().enumerate() {
            let living = |g: &Gradients| -> Vec<f64> {
                let all = g.layers[l][0].iter().zip(&layer.mask);
                all.filter(|(_, m)| **m > 0.0).map(|(g, _)| *g).collect()
            };
            close(&layer.node, &living(&got), &living(&want));
            flowing += usize::from(living(&want).iter().any(|g| g.abs() > 1e-4));
            let dead = got.layers[l][0].iter().zip(&layer.mask);
            let mut dead = dead.filter(|(_, m)| **m == 0.0).map(|(g, _)| *g);
            // Gradients of weights that were removed are only there where nothing was skipped.
            let removed = layer.mask.contains(&0.0);
            skipped += usize::from(removed && dead.all(|g| g == 0.0));
        }
        assert!(skipped > 0, "case {number}: no layer skipped its zeros");
        assert!(
            2 * flowing > state.layers.len(),
            "case {number}: {flowing} layers have gradients"
        );
        for (got, want) in got.biases.iter().zip(&want.biases) {
            close("bias", got, want);
        }
        for (got, want) in got.plain.iter().zip(&want.plain) {
            close("tensors", got, want);
        }
        let normalisations = got.normalisations.iter().zip(&want.normalisations);
        for (got, want) in normalisations {
            close("scale", &got[0], &want[0]);
            close("shift", &got[1], &want[1]);
        }
    }
}

/// In single precision, as training runs, on every instruction set.
#[test]
fn zeros_are_skipped_in_single_precision_too() {
    for case in [chain(), normalised(), of_vectors()] {
        let mut state = State::<f32>::from_network(&case.network).unwrap();
        let few = case.state_of_few(|_| true);
        for (layer, few) in state.layers.iter_mut().zip(&few.layers) {
            let keep: Vec<bool> = few.mask.iter().map(|m| *m > 0.0).collect();
            layer.remove(&keep);
        }
        let data = case.data(40);
        let len = data.len() / 40;
        let labels: Vec<u16> = (0..40).map(|i| (i % case.outputs) as u16).collect();
        let gradients = |isa, skip| {
            let graph = &case.network.graph;
            let mut engine =
                Engine::new(graph, state.clone(), Granularity::Weight, isa, None).unwrap();
            engine.skip_zeros(skip);
            let batch = Batch {
                samples: 40,
                fill: &|i, out: &mut [f32]| {
                    let row = &data[i * len..(i + 1) * len];
                    out.iter_mut().zip(row).for_each(|(o, x)| *o = *x as f32);
                },
                objective: &CrossEntropy {
                    smoothing: 0.0,
                    distillation: Distillation::NONE,
                },
                targets: &Targets::classes(&labels),
                teacher: None,
            };
            let loss = engine.backward(&batch, 5, 9).unwrap().loss;
            let living = engine
                .gradients()
                .iter()
                .zip(&state.layers)
                .flat_map(|(g, layer)| {
                    let all = g[0].iter().zip(&layer.mask);
                    all.filter(|(_, m)| **m > 0.0)
                        .map(|(g, _)| *g)
                        .collect::<Vec<f32>>()
                });
            (loss, living.collect::<Vec<f32>>())
        };
        let (loss, want) = gradients(Isa::SCALAR, false);
        let largest = want.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        assert!(largest > 1e-3, "{largest}");
        for isa in Isa::available() {
            let (got_loss, got) = gradients(isa, true);
            assert!(
                (got_loss - loss).abs() < 1e-5 * loss,
                "{isa}: {got_loss}, {loss}"
            );
            for (got, want) in got.iter().zip(&want) {
                assert!((got - want).abs() < 1e-5 * largest, "{isa}: {got}, {want}");
            }
        }
    }
}

/// Of a network whose values lie as vectors of samples from the first convolution to the last, in several shards.
#[test]
fn zeros_are_skipped_with_the_same_bits_on_two_threads() {
    let (graph, shapes) = presets::for_input("resnet-20", [3, 16, 16]).unwrap();
    let network = initialise(graph, &shapes, 1).unwrap();
    let mut state = State::<f32>::from_network(&network).unwrap();
    for layer in &mut state.layers {
        let keep: Vec<bool> = (0..layer.theta.len())
            .map(|i| (i + i / 7) % 20 == 2)
            .collect();
        layer.remove(&keep);
    }
    let samples = 90;
    let images: Vec<f32> = random(samples * 768, 3, 1.0)
        .iter()
        .map(|x| *x as f32)
        .collect();
    let labels: Vec<u16> = (0..samples as u16).map(|i| i % 10).collect();
    let gradients = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = (threads > 1).then(|| Arc::new(pool.unwrap()));
        let state = state.clone();
        let mut engine = Engine::new(
            &network.graph,
            state,
            Granularity::Weight,
            Isa::best(),
            pool,
        )
        .unwrap();
        let batch = Batch {
            samples,
            fill: &|i, out: &mut [f32]| out.copy_from_slice(&images[i * 768..(i + 1) * 768]),
            objective: &CrossEntropy {
                smoothing: 0.0,
                distillation: Distillation::NONE,
            },
            targets: &Targets::classes(&labels),
            teacher: None,
        };
        let loss = engine.backward(&batch, 5, 9).unwrap().loss;
        (
            loss,
            engine.gradients().to_vec(),
            engine.normalisation_gradients().to_vec(),
        )
    };
    let one = gradients(1);
    assert!(one.0 > 0.0 && one.1.iter().all(|[g, _]| g.iter().any(|g| *g != 0.0)));
    assert!(gradients(2) == one);
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
    let copies = with_function(Op::Expand(ops::Expand { shape: vec![6] }));
    let slice = ops::Slice {
        axis: 0,
        start: 0,
        end: 6,
    };
    let part = with_function(Op::Slice(slice));
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
        (copies, "node `p` (Expand)"),
        (part, "node `p` (Slice)"),
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
