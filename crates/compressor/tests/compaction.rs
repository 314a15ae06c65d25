//! Compaction and export give the same outputs as the network they began with.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use sparsevd_compressor::engine::Engine;
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{Layer, compact};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window};

fn random(sample: u32, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    normals(
        Isa::SCALAR,
        NoiseKey {
            seed: 11,
            step: 0,
            layer: 0,
            sample,
        },
        &mut out,
    );
    out
}

/// Convolutions with and without padding, pooling, and two linear layers; where `residual`, a skip connection too.
fn network(padding: usize, residual: bool, seed: u32) -> Network {
    let conv = |name: &str, size: usize, pad: usize| Op::Conv {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
        window: Window {
            pads: [pad; 4],
            ..Window::square(size, 1)
        },
        groups: 1,
    };
    let linear = |name: &str| Op::Linear {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
    };
    let mut nodes = vec![
        ("c1", conv("c1", 3, 0), vec!["x"]),
        ("r1", Op::Relu, vec!["c1"]),
        (
            "p1",
            Op::MaxPool {
                window: Window::square(2, 2),
            },
            vec!["r1"],
        ),
        ("c2", conv("c2", 3, padding), vec!["p1"]),
    ];
    let mut last = "c2";
    if residual {
        nodes.push(("c3", conv("c3", 3, 1), vec!["c2"]));
        nodes.push(("sum", Op::Add, vec!["c2", "c3"]));
        last = "sum";
    }
    nodes.extend([
        ("r2", Op::Relu, vec![last]),
        ("f", Op::Flatten, vec!["r2"]),
        ("l1", linear("l1"), vec!["f"]),
        ("r3", Op::Relu, vec!["l1"]),
        ("l2", linear("l2"), vec!["r3"]),
    ]);
    let nodes = nodes.into_iter().map(|(name, op, inputs)| Node {
        name: name.into(),
        op,
        inputs: inputs.into_iter().map(str::to_owned).collect(),
    });
    let graph = Graph {
        name: "test".into(),
        inputs: vec![Input {
            name: "x".into(),
            shape: Shape::from([2, 10, 10]),
        }],
        nodes: nodes.collect(),
        outputs: vec!["l2".into()],
        preprocessing: None,
    };
    let side = 2 + 2 * padding;
    let mut shapes = vec![
        ("c1", vec![6, 2, 3, 3]),
        ("c2", vec![5, 6, 3, 3]),
        ("l1", vec![8, 5 * side * side]),
        ("l2", vec![3, 8]),
    ];
    if residual {
        shapes.push(("c3", vec![5, 5, 3, 3]));
    }
    let mut tensors = BTreeMap::new();
    for (i, (name, dims)) in shapes.into_iter().enumerate() {
        let (out, shape) = (dims[0], Shape(dims));
        let weights = random(seed.wrapping_add(2 * i as u32), shape.elements());
        tensors.insert(
            format!("{name}.weight"),
            Weights::Dense(Dense::new(shape, weights)),
        );
        tensors.insert(
            format!("{name}.bias"),
            Weights::Dense(Dense::new(
                [out],
                random(seed.wrapping_add(2 * i as u32 + 1), out),
            )),
        );
    }
    Network::new(graph, tensors).unwrap()
}

fn outputs(graph: &Graph, layers: Vec<Layer<f32>>) -> Vec<f32> {
    let x = random(1000, 4 * 200);
    let mut engine = Engine::new(graph, layers, Granularity::Weight, Isa::best(), None).unwrap();
    engine.predict(
        4,
        &|i, out| out.copy_from_slice(&x[i * 200..(i + 1) * 200]),
        &[],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn dead_units_leave_without_a_trace(
        padding in 0usize..2,
        residual: bool,
        seed in 0u32..1000,
        density in 0.02f32..0.5,
        dead in proptest::collection::vec((0usize..5, 0usize..8), 0..12),
    ) {
        let network = network(padding, residual, seed);
        let mut layers = Layer::<f32>::from_network(&network);
        for (i, layer) in layers.iter_mut().enumerate() {
            let n = layer.theta.len();
            // Few weights live, and some units are dead on purpose.
            let draw = random(2000 + seed + i as u32, n);
            let mut keep: Vec<bool> = draw.iter().map(|d| d.abs() < density).collect();
            for &(l, u) in dead.iter().filter(|(l, u)| *l == i && *u < layer.units()) {
                let _ = l;
                keep[u * layer.patch()..(u + 1) * layer.patch()].fill(false);
            }
            layer.remove(&keep);
        }
        let before = outputs(&network.graph, layers.clone());
        let shapes = network.shapes().unwrap();
        let pixels = |name: &str| shapes[name].dims()[1..].iter().product();
        let units: usize = layers.iter().map(Layer::units).sum();
        let shrank = compact(&network.graph, &mut layers, &pixels);
        if dead.iter().any(|(l, u)| *l == 0 && *u < 6) && padding == 0 {
            prop_assert!(shrank && layers.iter().map(Layer::units).sum::<usize>() < units);
        }
        let after = outputs(&network.graph, layers);
        for (a, b) in after.iter().zip(&before) {
            prop_assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} after, {b} before");
        }
    }
}
