//! A convolution with a pooling that its kernel may or may not compute: sparse and dense plans have the same results.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use sparsevd_kernels::Isa;
use sparsevd_model::{Graph, Input, Network, Node, Op, Shape, Weights, Window, ops};
use sparsevd_runtime::{Plan, PlanOptions, Session, WeightMode};
use sparsevd_testing::arbitrary::Stream;

/// A dense 3x3 convolution of maps of `side` pixels in a row, a sparse 1x1 convolution with strides, a ReLU, and a max-pooling of two by two.
fn network(side: usize, stride: usize) -> Network {
    let conv = |weight: &str, window| {
        Op::Conv(ops::Conv {
            weight: weight.into(),
            bias: None,
            window,
            groups: 1,
        })
    };
    let stem = Window {
        pads: [1; 4],
        ..Window::square(3, 1)
    };
    let node = |name: &str, input: &str, op| Node {
        name: name.into(),
        inputs: vec![input.into()],
        op,
    };
    let window = Window::square(2, 2);
    let graph = Graph {
        name: "fused".into(),
        inputs: vec![Input::new("x", Shape::from([16, side, side]))],
        nodes: vec![
            node("stem", "x", conv("stem.weight", stem)),
            node(
                "conv",
                "stem",
                conv("conv.weight", Window::square(1, stride)),
            ),
            node("relu", "conv", Op::Relu),
            node("pool", "relu", Op::MaxPool(ops::MaxPool { window })),
        ],
        outputs: vec!["pool".into()],
        preprocessing: None,
    };
    let mut stream = Stream(7);
    let stem = stream.bernoulli(Shape::from([16, 16, 3, 3]), 1.0);
    let conv = stream.sparse(Shape::from([8, 16, 1, 1]), 0.3);
    let tensors = BTreeMap::from([
        ("stem.weight".to_owned(), Weights::Dense(stem)),
        ("conv.weight".to_owned(), Weights::Csr(conv)),
    ]);
    Network::new(graph, tensors).unwrap()
}

#[test]
fn a_pooling_behind_a_convolution_with_strides_is_right_in_every_plan() {
    for (side, stride) in [(16, 2), (20, 2), (28, 1), (28, 2), (30, 3), (31, 2)] {
        let network = network(side, stride);
        for isa in Isa::available() {
            for batch in [1, 8, 16] {
                let run = |weights| {
                    let options = PlanOptions {
                        weights,
                        isa,
                        batch,
                        ..PlanOptions::default()
                    };
                    let plan = Plan::new(&network, &options).unwrap();
                    let outputs = plan.output_shape().elements();
                    let session = Session::new(plan, 1).unwrap();
                    let x: Vec<f32> = (0..batch * 16 * side * side)
                        .map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0)
                        .collect();
                    let mut y = vec![f32::NAN; batch * outputs];
                    session.run(batch, &x, &mut y).unwrap();
                    (y, session.plan().to_string())
                };
                let (sparse, plan) = run(WeightMode::Sparse);
                let (dense, _) = run(WeightMode::Dense);
                let largest = dense.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
                for (i, (a, b)) in sparse.iter().zip(&dense).enumerate() {
                    assert!(
                        (a - b).abs() <= 1e-5 * largest,
                        "element {i}: {a}, dense {b}, side {side}, stride {stride}\n{plan}"
                    );
                }
            }
        }
    }
}
