//! Plans of random networks against a naive executor of the same DAG.
#![allow(clippy::unwrap_used, reason = "a test")]

mod networks;

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sparsevd_kernels::Isa;
use sparsevd_model::{Conv2d, Dense, GraphBuilder, Network, Op, Shape, passes, presets};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode, WeightType};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::close::assert_sums_close;
use sparsevd_testing::executor::{run as reference, run_all};

use networks::{build, build_several, folded, recipe, two_convolutions};

/// Runs of a plan against the reference.
fn check(network: &Network, seed: u64, options: &PlanOptions, runs: &[usize]) {
    let session = Session::new(Plan::new(network, options).unwrap(), options.threads).unwrap();
    let plan = session.plan();
    for &n in runs {
        let mut stream = Stream(seed ^ n as u64);
        let inputs: Vec<Vec<f32>> = (plan.inputs().iter())
            .map(|v| stream.floats(n * v.shape.elements()))
            .collect();
        // What a run does not write would show.
        let mut outputs: Vec<Vec<f32>> = (plan.outputs().iter())
            .map(|v| vec![f32::NAN; n * v.shape.elements()])
            .collect();
        let named: Vec<(&str, &[f32])> = (plan.inputs().iter().zip(&inputs))
            .map(|(v, x)| (v.name.as_str(), x.as_slice()))
            .collect();
        let mut named_outputs: Vec<(&str, &mut [f32])> = (plan.outputs().iter().zip(&mut outputs))
            .map(|(v, y)| (v.name.as_str(), y.as_mut_slice()))
            .collect();
        session.run(n, &named[..], &mut named_outputs[..]).unwrap();
        for sample in 0..n {
            let of_sample =
                |all: &Vec<f32>| all[sample * (all.len() / n)..][..all.len() / n].to_vec();
            let x: Vec<Vec<f32>> = inputs.iter().map(of_sample).collect();
            let x: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
            for (y, want) in outputs.iter().zip(run_all(network, &x)) {
                let context = format!("sample {sample} of {n}\n{plan}");
                assert_sums_close(&of_sample(y), &want, 1e-4, context);
            }
        }
    }
}

/// What does not fit is left out of a network, but no operator may be left out of all.
#[test]
fn random_networks_have_every_operator() {
    let mut runner = TestRunner::deterministic();
    let recipes = proptest::collection::vec(recipe(), 400);
    let recipes = recipes.new_tree(&mut runner).unwrap().current();
    let networks = (recipes.chunks(4)).map(|r| build(Shape::from([3, 5, 5]), r, 0.5, 1, false));
    let operators: BTreeSet<&str> = networks
        .flat_map(|n| n.graph.nodes)
        .map(|node| node.op.name())
        .collect();
    let expected = [
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gelu",
        "GlobalAveragePool",
        "HardSigmoid",
        "HardSwish",
        "LayerNormalization",
        "LeakyRelu",
        "Linear",
        "Log",
        "LogSoftmax",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "PRelu",
        "Pad",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Sqrt",
        "Sub",
        "Tanh",
        "Transpose",
    ];
    assert_eq!(operators, BTreeSet::from(expected));
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
                    check(&network, seed, &options, &[batch, 1, 5]);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_output_of_several_inputs_is_what_the_network_says(
        channels in 1usize..5,
        size in [3usize..9, 3..9],
        recipes in proptest::collection::vec(recipe(), 0..9),
        outputs in proptest::collection::vec(any::<usize>(), 1..4),
        density in prop_oneof![Just(0.1), Just(0.6)],
        seed in any::<u64>(),
    ) {
        let input = Shape::from([channels, size[0], size[1]]);
        let network = build_several(input, &recipes, &outputs, density, seed);
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            for (batch, threads) in [(1, 1), (3, 2), (17, 1), (40, 3)] {
                let options = PlanOptions { weights, batch, threads, ..PlanOptions::default() };
                check(&network, seed, &options, &[batch, 1, 5]);
            }
        }
    }
}

proptest! {
    #[test]
    fn passes_over_a_network_change_no_output(
        channels in 1usize..5,
        size in [3usize..9, 3..9],
        folded in folded(),
        recipes in proptest::collection::vec(recipe(), 0..8),
        csr in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let recipes = [&folded[..], &recipes].concat();
        let network = build(Shape::from([channels, size[0], size[1]]), &recipes, 0.6, seed, csr);
        let x = Stream(!seed).floats(channels * size[0] * size[1]);
        let want = reference(&network, &x);
        let after = [
            ("fold_batch_normalization", passes::fold_batch_normalization(&network)),
            ("fold_pad", passes::fold_pad(&network)),
        ];
        // A value that a later node reads too is not folded.
        prop_assume!(after.iter().any(|(_, after)| after.is_some()));
        for (name, after) in after {
            let Some(after) = after else { continue };
            prop_assert!(after.graph.nodes.len() < network.graph.nodes.len());
            assert_sums_close(&reference(&after, &x), &want, 1e-5, name);
        }
    }
}

proptest! {
    #[test]
    fn channels_that_nobody_needs_leave_without_a_trace(
        channels in 1usize..5,
        size in [3usize..9, 3..9],
        recipes in proptest::collection::vec(recipe(), 0..12),
        density in prop_oneof![Just(0.02), Just(0.1), Just(0.3)],
        csr in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let recipes = [&two_convolutions()[..], &recipes].concat();
        let network = build(Shape::from([channels, size[0], size[1]]), &recipes, density, seed, csr);
        let after = passes::drop_dead_channels(&network);
        // Not every network has a dead channel, or can lose it.
        prop_assume!(after.is_some());
        let after = after.unwrap();
        let elements = |n: &Network| n.tensors.values().map(|t| t.shape().elements()).sum::<usize>();
        let back = after.in_original_shapes().unwrap();
        prop_assert!(elements(&after) < elements(&back));
        let x = Stream(!seed).floats(channels * size[0] * size[1]);
        let want = reference(&network, &x);
        for (name, same) in [("after", &after), ("back", &back)] {
            assert_sums_close(&reference(same, &x), &want, 1e-5, name);
        }
    }
}

/// A network with enough work for threads: two convolutions, a residual sum, and a wide matrix, sparse and dense layers mixed.
fn wide() -> Network {
    let mut b = GraphBuilder::new("wide");
    let x = b.input("x", [16, 14, 14]);
    let conv = Conv2d::square(16, 3).padding(1);
    let y = b.conv("conv1", &x, &conv);
    let y = b.op("relu1", Op::Relu, &[&y]);
    let y = b.conv("conv2", &y, &conv);
    let y = b.op("sum", Op::Add, &[&y, &x]);
    let y = b.op("relu2", Op::Relu, &[&y]);
    let y = b.op("flat", Op::Flatten, &[&y]);
    let y = b.linear("fc1", &y, 700);
    let y = b.op("relu3", Op::Relu, &[&y]);
    b.linear("fc2", &y, 40);
    let mut stream = Stream(7);
    let tensor = |name: &str, shape: &Shape| {
        let density = match name {
            "conv1.weight" => 0.9,
            "conv2.weight" => 0.2,
            "fc1.weight" => 0.3,
            "fc2.weight" => 0.95,
            _ => 1.0,
        };
        stream.bernoulli(shape.clone(), density).into()
    };
    b.network(tensor).unwrap()
}

/// Two linear layers, the first with `density` of its weights and the second with 0.3.
fn mlp(stream: &mut Stream, input: usize, widths: [usize; 2], density: f64) -> Network {
    let preset = presets::mlp("mlp", Shape::from([input]), &widths);
    Network::from_preset(preset, |name, shape| {
        let density = match name {
            "fc1.weight" => density,
            "fc2.weight" => 0.3,
            _ => 1.0,
        };
        stream.bernoulli(shape.clone(), density).into()
    })
    .unwrap()
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
                check(&network, 3, &options, &[batch, 1, 9]);
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
    let mut stream = Stream(5);
    let network = mlp(&mut stream, 400, [600, 10], 0.05);
    let options = PlanOptions::default();
    let blank = stream.bernoulli([8, 400], 0.1).values;
    let plan = Plan::calibrated(&network, &options, &blank).unwrap();
    assert!(plan.nodes()[0].kernel.contains("csc"), "{plan}");
    let session = Session::new(plan, 1).unwrap();
    for x in [&blank[..400], &[0.7; 400]] {
        let mut y = [f32::NAN; 10];
        session.run(1, x, &mut y).unwrap();
        assert_sums_close(&y, &reference(&network, x), 1e-4, session.plan());
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
    session.run(2, &x, &mut expected).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..4 {
                    let mut y = vec![0.0; 80];
                    session.run(2, &x, &mut y).unwrap();
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
    let error = |network: &Network| {
        let plan = Plan::new(network, &PlanOptions::default());
        plan.unwrap_err().to_string()
    };
    let mut twice = network.clone();
    twice.graph.outputs = ["fc1", "fc2", "fc1"].map(String::from).to_vec();
    assert_eq!(
        error(&twice),
        "network `wide`: outputs: expected each value once, got `fc1` again"
    );
    let mut b = GraphBuilder::new("nothing");
    b.input("x", [2]);
    let mut nothing = b
        .network(|_, shape| Dense::zeros(shape.clone()).into())
        .unwrap();
    nothing.graph.inputs.clear();
    assert!(Plan::new(&nothing, &PlanOptions::default()).is_err());
}

#[test]
fn two_names_of_one_value_are_two_outputs() {
    // Flattening moves no number, so that both are one value of the plan.
    let mut b = GraphBuilder::new("names");
    let x = b.input("x", [2, 3, 3]);
    let y = b.op("relu", Op::Relu, &[&x]);
    let flat = b.op("flat", Op::Flatten, &[&y]);
    for name in [&x, &y, &flat] {
        b.output(name);
    }
    let network = b
        .network(|_, shape| Dense::zeros(shape.clone()).into())
        .unwrap();
    for batch in [1, 16] {
        let options = PlanOptions {
            batch,
            ..PlanOptions::default()
        };
        check(&network, 1, &options, &[1, 5, 16]);
    }
}

#[test]
fn any_batch_of_an_mlp_is_right_whatever_its_last_tile_holds() {
    let network = mlp(&mut Stream(9), 90, [300, 10], 0.1);
    for weights in [WeightMode::Sparse, WeightMode::Dense] {
        for planned in [1, 2, 9, 16, 17, 24, 33, 41] {
            let options = PlanOptions {
                weights,
                batch: planned,
                ..PlanOptions::default()
            };
            check(&network, 3, &options, &[planned, 1, 7, 9, 17, 25, 40, 65]);
        }
    }
}

#[test]
fn stored_values_are_the_rounded_weights_and_integers_on_a_grid_are_exact() {
    let mut network = mlp(&mut Stream(4), 70, [40, 10], 0.2);
    let step = 0.046875;
    for tensor in network.tensors.values_mut() {
        let mut dense = tensor.to_dense();
        for v in &mut dense.values {
            *v = (*v / step).round().clamp(-127.0, 127.0) * step;
        }
        *tensor = dense.into();
    }
    for tensor in ["fc1.weight", "fc2.weight"] {
        network.scales.insert(tensor.into(), step);
    }
    let x: Vec<f32> = (0..16 * 70).map(|i| (i % 23) as f32 / 23.0 - 0.4).collect();
    for batch in [1, 16] {
        let outputs = [
            WeightType::F32,
            WeightType::I8,
            WeightType::F16,
            WeightType::Bf16,
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
            let mut y = vec![f32::NAN; batch * 10];
            session.run(batch, &x[..batch * 70], &mut y).unwrap();
            y
        });
        let exact: Vec<f64> = outputs[0].iter().map(|&v| f64::from(v)).collect();
        assert_sums_close(&outputs[1], &exact, 1e-5, "i8");
        assert_sums_close(&outputs[2], &exact, 1e-5, "a grid of 127 steps fits f16");
        assert_sums_close(&outputs[3], &exact, 0.1, "bf16");
    }
}

#[test]
fn weights_too_large_for_half_precision_are_an_error() {
    let preset = presets::mlp("mlp", Shape::from([2]), &[2]);
    let network = Network::from_preset(preset, |name, shape| match name {
        "fc1.weight" => Dense::new([2, 2], vec![1.0, 0.0, 0.0, 70_000.0]).into(),
        _ => Dense::zeros(shape.clone()).into(),
    })
    .unwrap();
    let options = PlanOptions {
        values: WeightType::F16,
        ..PlanOptions::default()
    };
    let error = Plan::new(&network, &options).unwrap_err().to_string();
    assert!(
        error.contains("`fc1.weight`") && error.contains("f16") && error.contains("70000"),
        "{error}"
    );
}
