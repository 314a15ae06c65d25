//! Compaction and export give the same outputs as the network they began with.
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use sparsevd_compressor::engine::Engine;
use sparsevd_compressor::variational::Granularity;
use sparsevd_compressor::{Layer, compact};
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{Conv2d, Dense, Graph, GraphBuilder, Network, Op, Shape, Window, ops};

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
    let mut b = GraphBuilder::new("test");
    let x = b.input("x", [2, 10, 10]);
    let x = b.conv("c1", &x, &Conv2d::square(6, 3));
    let x = b.op("r1", Op::Relu, &[&x]);
    let window = Window::square(2, 2);
    let x = b.op("p1", Op::MaxPool(ops::MaxPool { window }), &[&x]);
    let mut x = b.conv("c2", &x, &Conv2d::square(5, 3).padding(padding));
    if residual {
        let c3 = b.conv("c3", &x, &Conv2d::square(5, 3).padding(1));
        x = b.op("sum", Op::Add, &[&x, &c3]);
    }
    let x = b.op("r2", Op::Relu, &[&x]);
    let x = b.op("f", Op::Flatten, &[&x]);
    let x = b.linear("l1", &x, 8);
    let x = b.op("r3", Op::Relu, &[&x]);
    b.linear("l2", &x, 3);
    let mut samples = seed..;
    let tensor = |_: &str, shape: &Shape| {
        let values = random(samples.next().unwrap(), shape.elements());
        Dense::new(shape.clone(), values).into()
    };
    b.network(tensor).unwrap()
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
        let shapes = network.shapes().unwrap().into_iter();
        let shapes = shapes.map(|(name, shape)| (name.to_owned(), shape)).collect();
        let units: usize = layers.iter().map(Layer::units).sum();
        let shrank = compact(&network.graph, &mut layers, &shapes);
        if dead.iter().any(|(l, u)| *l == 0 && *u < 6) && padding == 0 {
            prop_assert!(shrank && layers.iter().map(Layer::units).sum::<usize>() < units);
        }
        let after = outputs(&network.graph, layers);
        prop_assert_eq!(after.len(), before.len());
        for (a, b) in after.iter().zip(&before) {
            prop_assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} after, {b} before");
        }
    }
}
