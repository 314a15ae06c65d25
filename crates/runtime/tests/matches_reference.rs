//! Plans of random networks against a naive executor of the same DAG.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sparsevd_kernels::Isa;
use sparsevd_model::shape::is_per_channel;
use sparsevd_model::{
    Approximate, Csr, Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window, passes,
};
use sparsevd_runtime::{Plan, PlanOptions, Session, ValueType, WeightMode};

/// Runs one sample through the graph as it stands: plain loops per operator, in f64.
fn reference(network: &Network, input: &[f32]) -> Vec<f64> {
    let shapes = network.shapes().unwrap();
    let mut values: HashMap<&str, Vec<f64>> = HashMap::new();
    let input = input.iter().map(|&v| f64::from(v)).collect();
    values.insert(&network.graph.inputs[0].name, input);
    for node in &network.graph.nodes {
        let x = &values[node.inputs[0].as_str()];
        let from = shapes[node.inputs[0].as_str()].dims();
        let to = shapes[node.name.as_str()].dims();
        let tensor = |name: &str| network.tensors[name].to_dense();
        let bias = |name: &Option<String>, i: usize| {
            name.as_ref()
                .map_or(0.0, |n| f64::from(tensor(n).values[i]))
        };
        let y = match &node.op {
            Op::Linear { weight, bias: b } => {
                let w = tensor(weight);
                (0..to[0])
                    .map(|o| {
                        let row = &w.values[o * from[0]..][..from[0]];
                        bias(b, o)
                            + row
                                .iter()
                                .zip(x)
                                .map(|(w, x)| f64::from(*w) * x)
                                .sum::<f64>()
                    })
                    .collect()
            }
            Op::Conv {
                weight,
                bias: b,
                window,
                groups,
            } => {
                let w = tensor(weight);
                let [per_group, kh, kw] = [1, 2, 3].map(|d| w.shape.dims()[d]);
                let mut y = Vec::new();
                for o in 0..to[0] {
                    let b = bias(b, o);
                    let first = o / (to[0] / groups) * per_group;
                    for (oy, ox) in pixels(to) {
                        let mut sum = b;
                        for (i, ky, kx) in (0..per_group).flat_map(|i| {
                            (0..kh).flat_map(move |y| (0..kw).map(move |x| (i, y, x)))
                        }) {
                            if let Some(at) = seen(window, from, oy, ox, ky, kx) {
                                let w = w.values[((o * per_group + i) * kh + ky) * kw + kx];
                                sum += f64::from(w) * x[(first + i) * from[1] * from[2] + at];
                            }
                        }
                        y.push(sum);
                    }
                }
                y
            }
            Op::MaxPool { window } | Op::AveragePool { window } => {
                let mut y = Vec::new();
                for c in 0..to[0] {
                    for (oy, ox) in pixels(to) {
                        let [kh, kw] = window.kernel_shape;
                        let inside: Vec<f64> = (0..kh)
                            .flat_map(|ky| (0..kw).map(move |kx| (ky, kx)))
                            .filter_map(|(ky, kx)| seen(window, from, oy, ox, ky, kx))
                            .map(|at| x[c * from[1] * from[2] + at])
                            .collect();
                        y.push(match node.op {
                            Op::MaxPool { .. } => {
                                inside.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                            }
                            _ => inside.iter().sum::<f64>() / inside.len() as f64,
                        });
                    }
                }
                y
            }
            Op::GlobalAveragePool => x
                .chunks(from[1] * from[2])
                .map(|c| c.iter().sum::<f64>() / c.len() as f64)
                .collect(),
            Op::Relu => x.iter().map(|v| v.max(0.0)).collect(),
            Op::Clip { min, max } => {
                let bound = |b: &Option<f32>, other: f64| b.map_or(other, f64::from);
                x.iter()
                    .map(|v| v.max(bound(min, f64::MIN)).min(bound(max, f64::MAX)))
                    .collect()
            }
            Op::LeakyRelu { alpha } => x
                .iter()
                .map(|v| if *v < 0.0 { f64::from(*alpha) * v } else { *v })
                .collect(),
            Op::Sigmoid => x.iter().map(|v| 1.0 / (1.0 + (-v).exp())).collect(),
            Op::HardSigmoid { alpha, beta } => x
                .iter()
                .map(|v| (f64::from(*alpha) * v + f64::from(*beta)).clamp(0.0, 1.0))
                .collect(),
            Op::HardSwish => x
                .iter()
                .map(|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0))
                .collect(),
            Op::Tanh => x.iter().map(|v| v.tanh()).collect(),
            Op::Gelu { .. } => x
                .iter()
                .map(|v| sparsevd_testing::reference::gelu(*v))
                .collect(),
            Op::Add | Op::Sub | Op::Mul => {
                let b = &values[node.inputs[1].as_str()];
                let area = x.len() / b.len();
                let pairs = x.iter().enumerate().map(|(i, a)| (a, b[i / area]));
                match node.op {
                    Op::Add => pairs.map(|(a, b)| a + b).collect(),
                    Op::Sub => pairs.map(|(a, b)| a - b).collect(),
                    _ => pairs.map(|(a, b)| a * b).collect(),
                }
            }
            Op::BatchNormalization {
                scale,
                bias,
                mean,
                variance,
                epsilon,
            } => {
                let area = x.len() / from[0];
                let [scale, bias, mean, variance] =
                    [scale, bias, mean, variance].map(|t| tensor(t));
                let number = |t: &Dense, i: usize| f64::from(t.values[i / area]);
                let normal = |(i, v): (usize, &f64)| {
                    let deviation = (number(&variance, i) + f64::from(*epsilon)).sqrt();
                    (v - number(&mean, i)) / deviation * number(&scale, i) + number(&bias, i)
                };
                x.iter().enumerate().map(normal).collect()
            }
            Op::Concat => {
                let inputs = node.inputs.iter().map(|i| &values[i.as_str()]);
                inputs.flatten().copied().collect()
            }
            Op::Pad { pads, value } => {
                let mut y = Vec::new();
                for c in 0..to[0] {
                    for (oy, ox) in pixels(to) {
                        let at = oy.checked_sub(pads[0]).zip(ox.checked_sub(pads[1]));
                        let inside = at.filter(|(y, x)| *y < from[1] && *x < from[2]);
                        y.push(inside.map_or(f64::from(*value), |(iy, ix)| {
                            x[(c * from[1] + iy) * from[2] + ix]
                        }));
                    }
                }
                y
            }
            Op::Flatten => x.clone(),
            Op::Softmax => {
                let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = x.iter().map(|v| (v - max).exp()).sum();
                x.iter().map(|v| (v - max).exp() / total).collect()
            }
            other => panic!("the reference does not know {}", other.name()),
        };
        values.insert(&node.name, y);
    }
    values.remove(network.graph.outputs[0].as_str()).unwrap()
}

fn pixels(map: &[usize]) -> impl Iterator<Item = (usize, usize)> + use<> {
    let (h, w) = (map[1], map[2]);
    (0..h).flat_map(move |y| (0..w).map(move |x| (y, x)))
}

/// Offset in the plane of the pixel under a window element, unless it is padding.
fn seen(w: &Window, from: &[usize], oy: usize, ox: usize, ky: usize, kx: usize) -> Option<usize> {
    let y = (oy * w.strides[0] + ky * w.dilations[0]).checked_sub(w.pads[0])?;
    let x = (ox * w.strides[1] + kx * w.dilations[1]).checked_sub(w.pads[1])?;
    (y < from[1] && x < from[2]).then_some(y * from[2] + x)
}

/// One more node of a random network.
#[derive(Debug, Clone)]
enum Recipe {
    Conv {
        out: usize,
        kernel: [usize; 2],
        strides: [usize; 2],
        pads: [usize; 4],
        dilations: [usize; 2],
        grouped: bool,
        bias: bool,
    },
    Pool {
        max: bool,
        kernel: [usize; 2],
        strides: [usize; 2],
        pads: [usize; 4],
    },
    /// An activation.
    Activation(Op),
    /// A sum, difference or product with an earlier value of the same shape, or one number per channel, chosen by this number.
    Arithmetic(Op, usize),
    /// Behind an earlier value of the same size, chosen by this number, and the value itself once more.
    Concat(usize),
    BatchNormalization,
    Pad([usize; 4], f32),
    GlobalAveragePool,
    Flatten,
    Linear {
        out: usize,
        bias: bool,
    },
    Softmax,
}

fn activation() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Clip {
            min: Some(-0.25),
            max: Some(0.5)
        }),
        Just(Op::Clip {
            min: None,
            max: Some(0.5)
        }),
        Just(Op::LeakyRelu { alpha: 0.1 }),
        Just(Op::Sigmoid),
        Just(Op::HardSigmoid {
            alpha: 0.3,
            beta: 0.4
        }),
        Just(Op::HardSwish),
        Just(Op::Tanh),
        Just(Op::Gelu {
            approximate: Approximate::None
        }),
    ]
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let two = |r: std::ops::RangeInclusive<usize>| [r.clone(), r];
    prop_oneof![
        4 => (1usize..6, two(1..=3), two(1..=2), [0usize..3, 0..3, 0..3, 0..3], two(1..=2), any::<[bool; 2]>()).prop_map(
            |(out, kernel, strides, pads, dilations, [grouped, bias])| Recipe::Conv { out, kernel, strides, pads, dilations, grouped, bias }),
        2 => (any::<bool>(), two(1..=3), two(1..=2), [0usize..2, 0..2, 0..2, 0..2]).prop_map(
            |(max, kernel, strides, pads)| Recipe::Pool { max, kernel, strides, pads }),
        2 => Just(Recipe::Activation(Op::Relu)),
        3 => activation().prop_map(Recipe::Activation),
        3 => (prop_oneof![2 => Just(Op::Add), 1 => Just(Op::Sub), 1 => Just(Op::Mul)], any::<usize>())
            .prop_map(|(op, n)| Recipe::Arithmetic(op, n)),
        1 => any::<usize>().prop_map(Recipe::Concat),
        2 => Just(Recipe::BatchNormalization),
        1 => ([0usize..3, 0..3, 0..3, 0..3], prop_oneof![Just(0.0), Just(0.5)]).prop_map(
            |(pads, value)| Recipe::Pad(pads, value)),
        1 => Just(Recipe::GlobalAveragePool),
        2 => Just(Recipe::Flatten),
        4 => (1usize..40, any::<bool>()).prop_map(|(out, bias)| Recipe::Linear { out, bias }),
        1 => Just(Recipe::Softmax),
    ]
}

/// Random numbers that need no state beyond a counter.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, shape: Shape, density: f64) -> Dense {
        let values = (0..shape.elements())
            .map(|_| {
                let keep = f64::from(self.next().abs()) < density;
                let v = self.next();
                if keep { v } else { 0.0 }
            })
            .collect();
        Dense::new(shape, values)
    }
}

/// Builds the network that the recipes describe; a recipe that does not fit where it stands is left out.
fn build(input: Shape, recipes: &[Recipe], density: f64, seed: u64, csr: bool) -> Network {
    let mut numbers = Numbers(seed);
    let mut graph = Graph {
        name: "random".into(),
        inputs: vec![Input {
            name: "x".into(),
            shape: input.clone(),
        }],
        nodes: vec![],
        outputs: vec!["x".into()],
        preprocessing: None,
    };
    let mut tensors: BTreeMap<String, Weights> = BTreeMap::new();
    let mut shapes: Vec<(String, Shape)> = vec![("x".into(), input)];
    for (i, recipe) in recipes.iter().enumerate() {
        let (last, shape) = shapes.last().unwrap().clone();
        let dims = shape.dims().to_vec();
        let mut weigh = |numbers: &mut Numbers, shape: Shape, with_bias: bool| {
            let out = shape.dims()[0];
            let dense = numbers.tensor(shape, density);
            let weight = if csr {
                Weights::Csr(Csr::from_dense(&dense))
            } else {
                Weights::Dense(dense)
            };
            tensors.insert(format!("w{i}"), weight);
            let bias = with_bias.then(|| format!("b{i}"));
            if let Some(bias) = &bias {
                tensors.insert(
                    bias.clone(),
                    Weights::Dense(numbers.tensor(Shape::from([out]), 1.0)),
                );
            }
            (format!("w{i}"), bias)
        };
        let mut inputs = vec![last];
        let op = match (recipe, dims.as_slice()) {
            (
                &Recipe::Conv {
                    out,
                    kernel,
                    strides,
                    pads,
                    dilations,
                    grouped,
                    bias,
                },
                &[c, ..],
            ) => {
                let groups = if grouped { c } else { 1 };
                let (weight, bias) = weigh(
                    &mut numbers,
                    Shape::from([out * groups, c / groups, kernel[0], kernel[1]]),
                    bias,
                );
                Op::Conv {
                    weight,
                    bias,
                    groups,
                    window: Window {
                        kernel_shape: kernel,
                        strides,
                        pads,
                        dilations,
                    },
                }
            }
            (
                &Recipe::Pool {
                    max,
                    kernel,
                    strides,
                    pads,
                },
                &[_, _, _],
            ) => {
                let window = Window {
                    kernel_shape: kernel,
                    strides,
                    pads,
                    dilations: [1, 1],
                };
                if max {
                    Op::MaxPool { window }
                } else {
                    Op::AveragePool { window }
                }
            }
            (Recipe::GlobalAveragePool, &[_, _, _]) => Op::GlobalAveragePool,
            (Recipe::Activation(op), _) => op.clone(),
            (Recipe::Flatten, _) => Op::Flatten,
            (Recipe::Arithmetic(op, n), _) => {
                let fits = |s: &Shape| *s == shape || is_per_channel(s, &shape);
                let second: Vec<_> = shapes.iter().filter(|(_, s)| fits(s)).collect();
                inputs.push(second[n % second.len()].0.clone());
                op.clone()
            }
            (Recipe::Concat(n), _) => {
                let same: Vec<_> = (shapes.iter())
                    .filter(|(_, s)| s.dims()[1..] == dims[1..])
                    .collect();
                inputs.push(same[n % same.len()].0.clone());
                inputs.push(inputs[0].clone());
                Op::Concat
            }
            (Recipe::BatchNormalization, &[c, ..]) => {
                let mut tensor = |part: &str, positive: bool| {
                    let mut values = numbers.tensor(Shape::from([c]), 1.0);
                    if positive {
                        values.values.iter_mut().for_each(|v| *v = v.abs() + 0.1);
                    }
                    let name = format!("{part}{i}");
                    tensors.insert(name.clone(), Weights::Dense(values));
                    name
                };
                Op::BatchNormalization {
                    scale: tensor("scale", false),
                    bias: tensor("shift", false),
                    mean: tensor("mean", false),
                    variance: tensor("variance", true),
                    epsilon: 1e-3,
                }
            }
            (&Recipe::Pad(pads, value), &[_, _, _]) => Op::Pad { pads, value },
            (&Recipe::Linear { out, bias }, &[inn]) => {
                let (weight, bias) = weigh(&mut numbers, Shape::from([out, inn]), bias);
                Op::Linear { weight, bias }
            }
            (Recipe::Softmax, &[_]) => Op::Softmax,
            _ => continue,
        };
        let name = format!("n{i}");
        graph.nodes.push(Node {
            name: name.clone(),
            inputs,
            op,
        });
        graph.outputs = vec![name.clone()];
        match Network::new(graph.clone(), tensors.clone()) {
            Ok(network) => {
                let shape = network.shapes().unwrap()[name.as_str()].clone();
                shapes.push((name, shape));
            }
            Err(_) => {
                graph.nodes.pop();
                graph.outputs = vec![shapes.last().unwrap().0.clone()];
            }
        }
    }
    Network::new(graph, tensors).unwrap()
}

/// Compares with the scale of the reference, since sums of large numbers may cancel.
fn check(
    network: &Network,
    seed: u64,
    options: &PlanOptions,
    runs: &[usize],
) -> Result<(), TestCaseError> {
    let session = Session::new(Plan::new(network, options).unwrap(), options.threads).unwrap();
    let (inn, out) = (
        session.plan().input_shape().elements(),
        session.plan().output_shape().elements(),
    );
    for &n in runs {
        let mut numbers = Numbers(seed ^ n as u64);
        let x: Vec<f32> = (0..n * inn).map(|_| numbers.next()).collect();
        // What a run does not write would show.
        let mut y = vec![f32::NAN; n * out];
        session.run(n, &x, &mut y);
        for (sample, (x, y)) in x.chunks(inn).zip(y.chunks(out)).enumerate() {
            let expected = reference(network, x);
            let scale = expected.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
            for (i, (&got, want)) in y.iter().zip(&expected).enumerate() {
                prop_assert!(
                    (f64::from(got) - want).abs() <= 1e-4 * scale,
                    "output {i} of sample {sample} of {n}: expected {want}, got {got}\n{}",
                    session.plan()
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_computes_what_the_network_says(
        channels in 1usize..5,
        size in [3usize..9, 3..9],
        recipes in proptest::collection::vec(recipe(), 0..9),
        density in prop_oneof![Just(0.02), Just(0.2), Just(0.6), Just(1.0)],
        csr in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let network = build(Shape::from([channels, size[0], size[1]]), &recipes, density, seed, csr);
        for isa in Isa::available() {
            for weights in [WeightMode::Sparse, WeightMode::Dense] {
                for batch in [1, 3, 16, 17] {
                    let options = PlanOptions { weights, isa, batch, ..PlanOptions::default() };
                    check(&network, seed, &options, &[batch, 1, 5])?;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn passes_over_a_network_change_no_output(
        channels in 1usize..5,
        size in [3usize..9, 3..9],
        recipes in proptest::collection::vec(recipe(), 0..12),
        csr in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let network = build(Shape::from([channels, size[0], size[1]]), &recipes, 0.6, seed, csr);
        let mut numbers = Numbers(!seed);
        let x: Vec<f32> = (0..channels * size[0] * size[1]).map(|_| numbers.next()).collect();
        let want = reference(&network, &x);
        let scale = want.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        for (name, pass) in [
            ("fold_batch_normalization", passes::fold_batch_normalization as fn(&Network) -> Option<Network>),
            ("fold_pad", passes::fold_pad),
        ] {
            let Some(after) = pass(&network) else { continue };
            prop_assert!(after.graph.nodes.len() < network.graph.nodes.len());
            for (got, want) in reference(&after, &x).iter().zip(&want) {
                prop_assert!((got - want).abs() <= 1e-5 * scale, "{name}: expected {want}, got {got}");
            }
        }
    }
}

/// A network with enough work for threads: two convolutions, a residual sum, and a wide matrix, sparse and dense layers mixed.
fn wide() -> Network {
    let mut numbers = Numbers(7);
    let mut graph = Graph {
        name: "wide".into(),
        inputs: vec![Input {
            name: "x".into(),
            shape: Shape::from([16, 14, 14]),
        }],
        nodes: vec![],
        outputs: vec!["fc2".into()],
        preprocessing: None,
    };
    let mut push = |name: &str, inputs: &[&str], op: Op| {
        let inputs = inputs.iter().map(ToString::to_string).collect();
        graph.nodes.push(Node {
            name: name.into(),
            inputs,
            op,
        });
    };
    let window = Window {
        pads: [1; 4],
        ..Window::square(3, 1)
    };
    let conv = |w: &str| Op::Conv {
        weight: w.into(),
        bias: Some("b16".into()),
        window: window.clone(),
        groups: 1,
    };
    let linear = |w: &str| Op::Linear {
        weight: w.into(),
        bias: None,
    };
    push("conv1", &["x"], conv("c1"));
    push("relu1", &["conv1"], Op::Relu);
    push("conv2", &["relu1"], conv("c2"));
    push("sum", &["conv2", "x"], Op::Add);
    push("relu2", &["sum"], Op::Relu);
    push("flat", &["relu2"], Op::Flatten);
    push("fc1", &["flat"], linear("f1"));
    push("relu3", &["fc1"], Op::Relu);
    push("fc2", &["relu3"], linear("f2"));
    let tensors = [
        ("c1", Shape::from([16, 16, 3, 3]), 0.9),
        ("c2", Shape::from([16, 16, 3, 3]), 0.2),
        ("f1", Shape::from([700, 3136]), 0.3),
        ("f2", Shape::from([40, 700]), 0.95),
        ("b16", Shape::from([16]), 1.0),
    ];
    let tensors = tensors
        .into_iter()
        .map(|(n, s, d)| (n.to_owned(), Weights::Dense(numbers.tensor(s, d))))
        .collect();
    Network::new(graph, tensors).unwrap()
}

#[test]
fn threads_split_batches_and_single_samples_without_changing_them() {
    let network = wide();
    for weights in [WeightMode::Sparse, WeightMode::Dense] {
        for batch in [1, 4, 16, 40] {
            for threads in [1, 2, 3] {
                let options = PlanOptions {
                    weights,
                    threads,
                    batch,
                    ..PlanOptions::default()
                };
                check(&network, 3, &options, &[batch, 1, 9]).unwrap();
            }
        }
    }
}

#[test]
fn a_sparse_plan_runs_dense_layers_dense() {
    let plan = Plan::new(
        &wide(),
        &PlanOptions {
            batch: 16,
            ..PlanOptions::default()
        },
    )
    .unwrap();
    let sparse: Vec<_> = plan
        .nodes()
        .iter()
        .filter(|n| n.weights > 0)
        .map(|n| (n.name.as_str(), n.sparse))
        .collect();
    assert_eq!(
        sparse,
        [
            ("conv1", false),
            ("conv2", true),
            ("fc1", true),
            ("fc2", false)
        ],
        "{plan}"
    );
}

#[test]
fn large_layers_are_split_where_one_sample_must_feed_all_threads() {
    let options = PlanOptions {
        weights: WeightMode::Dense,
        threads: 2,
        ..PlanOptions::default()
    };
    let plan = Plan::new(&wide(), &options).unwrap();
    assert_eq!(plan.threads(), 2);
    assert!(plan.nodes().iter().any(|n| n.parts == 2), "{plan}");
}

#[test]
fn a_plan_calibrated_on_blank_inputs_skips_zeros_and_is_right_on_any() {
    let mut numbers = Numbers(5);
    let graph = sparsevd_model::presets::mlp("mlp", Shape::from([400]), &[600, 10]).0;
    let tensors = [
        ("fc1.weight", Shape::from([600, 400]), 0.05),
        ("fc1.bias", Shape::from([600]), 1.0),
        ("fc2.weight", Shape::from([10, 600]), 0.3),
        ("fc2.bias", Shape::from([10]), 1.0),
    ];
    let tensors = tensors
        .into_iter()
        .map(|(n, s, d)| (n.to_owned(), Weights::Dense(numbers.tensor(s, d))))
        .collect();
    let network = Network::new(graph, tensors).unwrap();
    let options = PlanOptions::default();
    let blank = numbers.tensor(Shape::from([8, 400]), 0.1).values;
    let plan = Plan::calibrated(&network, &options, &blank).unwrap();
    assert!(plan.nodes()[0].kernel.contains("csc"), "{plan}");
    let session = Session::new(plan, 1).unwrap();
    for x in [&blank[..400], &[0.7; 400]] {
        let mut y = [0.0; 10];
        session.run(1, x, &mut y);
        for (got, want) in y.iter().zip(reference(&network, x)) {
            assert!((f64::from(*got) - want).abs() < 1e-3, "{got} {want}");
        }
    }
    let plan = Plan::calibrated(&network, &options, &[0.7; 800]).unwrap();
    assert!(!plan.nodes()[0].kernel.contains("csc"), "{plan}");
}

#[test]
fn callers_on_many_threads_share_one_session() {
    let network = wide();
    let plan = Plan::new(
        &network,
        &PlanOptions {
            batch: 4,
            ..PlanOptions::default()
        },
    )
    .unwrap();
    let session = Session::new(plan, 1).unwrap();
    let x: Vec<f32> = (0..2 * 3136)
        .map(|i| (i % 17) as f32 / 17.0 - 0.5)
        .collect();
    let mut expected = vec![0.0; 80];
    session.run(2, &x, &mut expected);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let mut y = vec![0.0; 80];
                    session.run(2, &x, &mut y);
                    assert_eq!(y, expected);
                }
            });
        }
    });
}

#[test]
fn networks_that_cannot_run_are_errors_that_say_what_and_why() {
    let network = wide();
    let plan = |batch, threads| {
        Plan::new(
            &network,
            &PlanOptions {
                batch,
                threads,
                ..PlanOptions::default()
            },
        )
    };
    assert_eq!(
        plan(0, 1).unwrap_err().to_string(),
        "batch: expected at least 1, got 0"
    );
    assert_eq!(
        plan(1, 0).unwrap_err().to_string(),
        "threads: expected at least 1, got 0"
    );
    let mut two = network.clone();
    two.graph.outputs.push("fc1".into());
    let error = Plan::new(&two, &PlanOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "network `wide`: number of outputs: expected one, got 2 (fc2, fc1)"
    );
}

#[test]
#[should_panic(expected = "elements of 2 input samples")]
fn a_slice_of_the_wrong_length_is_a_bug_of_the_caller() {
    let session = Session::new(Plan::new(&wide(), &PlanOptions::default()).unwrap(), 1).unwrap();
    session.run(2, &[0.0; 3136], &mut [0.0; 80]);
}

#[test]
fn any_batch_of_an_mlp_is_right_whatever_its_last_tile_holds() {
    let mut numbers = Numbers(9);
    let graph = sparsevd_model::presets::mlp("mlp", Shape::from([90]), &[300, 10]).0;
    let tensors = [
        ("fc1.weight", Shape::from([300, 90]), 0.1),
        ("fc1.bias", Shape::from([300]), 1.0),
        ("fc2.weight", Shape::from([10, 300]), 0.3),
        ("fc2.bias", Shape::from([10]), 1.0),
    ];
    let tensors = tensors
        .into_iter()
        .map(|(n, s, d)| (n.to_owned(), Weights::Dense(numbers.tensor(s, d))))
        .collect();
    let network = Network::new(graph, tensors).unwrap();
    for weights in [WeightMode::Sparse, WeightMode::Dense] {
        for planned in [1, 2, 9, 16, 17, 24, 33, 41] {
            let options = PlanOptions {
                weights,
                batch: planned,
                ..PlanOptions::default()
            };
            check(&network, 3, &options, &[planned, 1, 7, 9, 17, 25, 40, 65]).unwrap();
        }
    }
}

#[test]
fn stored_values_are_the_rounded_weights_and_integers_on_a_grid_are_exact() {
    let mut numbers = Numbers(4);
    let graph = sparsevd_model::presets::mlp("mlp", Shape::from([70]), &[40, 10]).0;
    let step = 0.046875;
    let mut on_grid = |shape: Shape, density| {
        let mut tensor = numbers.tensor(shape, density);
        for v in &mut tensor.values {
            *v = (*v / step).round().clamp(-127.0, 127.0) * step;
        }
        Weights::Dense(tensor)
    };
    let tensors = [
        ("fc1.weight", Shape::from([40, 70]), 0.2),
        ("fc1.bias", Shape::from([40]), 1.0),
        ("fc2.weight", Shape::from([10, 40]), 0.3),
        ("fc2.bias", Shape::from([10]), 1.0),
    ];
    let tensors = tensors
        .into_iter()
        .map(|(n, s, d)| (n.to_owned(), on_grid(s, d)))
        .collect();
    let mut network = Network::new(graph, tensors).unwrap();
    for tensor in ["fc1.weight", "fc2.weight"] {
        network.steps.insert(tensor.into(), step);
    }
    let x: Vec<f32> = (0..16 * 70).map(|i| (i % 23) as f32 / 23.0 - 0.4).collect();
    for batch in [1, 16] {
        let outputs = [
            ValueType::F32,
            ValueType::I8,
            ValueType::F16,
            ValueType::Bf16,
        ]
        .map(|values| {
            let options = PlanOptions {
                values,
                batch,
                ..PlanOptions::default()
            };
            let plan = Plan::new(&network, &options).unwrap();
            let kernels: Vec<_> = plan.nodes().iter().map(|n| n.kernel.clone()).collect();
            assert!(
                batch > 1 || kernels[0].contains(&format!("-{values}-")),
                "{values}: {kernels:?}"
            );
            let session = Session::new(plan, 1).unwrap();
            let mut y = vec![0.0; batch * 10];
            session.run(batch, &x[..batch * 70], &mut y);
            y
        });
        let error = |i: usize| {
            let pairs = outputs[0].iter().zip(&outputs[i]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(error(1) < 1e-5, "i8: {}", error(1));
        assert!(
            error(2) < 1e-5,
            "a grid of 127 steps fits f16: {}",
            error(2)
        );
        assert!(error(3) < 0.2, "bf16: {}", error(3));
    }
}

#[test]
fn weights_too_large_for_half_precision_are_an_error() {
    let graph = sparsevd_model::presets::mlp("mlp", Shape::from([2]), &[2]).0;
    let weight = Dense::new([2, 2], vec![1.0, 0.0, 0.0, 70_000.0]);
    let tensors = [("fc1.weight", weight), ("fc1.bias", Dense::zeros([2]))];
    let tensors = tensors
        .into_iter()
        .map(|(n, t)| (n.to_owned(), Weights::Dense(t)))
        .collect();
    let network = Network::new(graph, tensors).unwrap();
    let options = PlanOptions {
        values: ValueType::F16,
        ..PlanOptions::default()
    };
    let error = Plan::new(&network, &options).unwrap_err().to_string();
    assert!(
        error.contains("`fc1.weight`") && error.contains("f16") && error.contains("70000"),
        "{error}"
    );
}
