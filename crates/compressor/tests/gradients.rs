//! Gradients of the engine against central differences, in f64, through the very code that trains in f32.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use sparsevd_compressor::Layer;
use sparsevd_compressor::engine::{Batch, Distillation, Engine};
use sparsevd_compressor::variational::Granularity;
use sparsevd_kernels::Isa;
use sparsevd_kernels::training::{NoiseKey, normals};
use sparsevd_model::{Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window};

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

/// Puts nodes `(name, op, inputs)` together with random weights of the given shapes.
fn network(input: Shape, nodes: Vec<(&str, Op, Vec<&str>)>, shapes: &[(&str, Shape)]) -> Network {
    let output = nodes.last().unwrap().0.to_owned();
    let nodes = nodes.into_iter().map(|(name, op, inputs)| Node {
        name: name.into(),
        op,
        inputs: inputs.into_iter().map(str::to_owned).collect(),
    });
    let graph = Graph {
        name: "test".into(),
        inputs: vec![Input {
            name: "x".into(),
            shape: input,
        }],
        nodes: nodes.collect(),
        outputs: vec![output],
        preprocessing: None,
    };
    let mut tensors = BTreeMap::new();
    for (i, (name, shape)) in shapes.iter().enumerate() {
        let values = random(shape.elements(), i as u32, 0.5)
            .into_iter()
            .map(|x| x as f32)
            .collect();
        tensors.insert(
            (*name).to_owned(),
            Weights::Dense(Dense::new(shape.clone(), values)),
        );
    }
    Network::new(graph, tensors).unwrap()
}

fn conv(name: &str, window: Window) -> Op {
    Op::Conv {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
        window,
        groups: 1,
    }
}

fn linear(name: &str) -> Op {
    Op::Linear {
        weight: format!("{name}.weight"),
        bias: Some(format!("{name}.bias")),
    }
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

struct Case {
    network: Network,
    classes: usize,
    distil: bool,
}

impl Case {
    fn layers(&self, noise: bool) -> Vec<Layer<f64>> {
        let mut layers = Layer::from_network(&self.network).unwrap();
        for (i, layer) in layers.iter_mut().enumerate() {
            if noise {
                layer.start_noise(-3.0, Granularity::Weight);
                layer.log_sigma2 = random(layer.theta.len(), 50 + i as u32, 1.0)
                    .iter()
                    .map(|x| x - 3.0)
                    .collect();
                layer.refresh_sigma2();
            }
        }
        layers
    }

    /// Mean loss, with its gradients by theta, sigma^2 and bias per layer.
    #[allow(clippy::type_complexity, reason = "a test's tuple")]
    fn loss(&self, layers: Vec<Layer<f64>>) -> (f64, Vec<[Vec<f64>; 2]>, Vec<Vec<f64>>) {
        let input: usize = self.network.graph.inputs[0].shape.elements();
        let data = random(SAMPLES * input, 77, 1.0);
        let teacher = random(SAMPLES * self.classes, 78, 1.0);
        let labels: Vec<u16> = (0..SAMPLES).map(|i| (i % self.classes) as u16).collect();
        let mut engine = Engine::new(
            &self.network.graph,
            layers,
            Granularity::Weight,
            Isa::best(),
            None,
        )
        .unwrap();
        let batch = Batch {
            samples: SAMPLES,
            fill: &|i, out| out.copy_from_slice(&data[i * input..(i + 1) * input]),
            labels: &labels,
            teacher: self.distil.then_some((
                &teacher,
                Distillation {
                    share: 0.4,
                    temperature: 2.0,
                },
            )),
        };
        let report = engine.backward(&batch, 5, 9);
        (
            report.objective / SAMPLES as f64,
            engine.gradients().to_vec(),
            engine.bias_gradients().to_vec(),
        )
    }

    fn check(&self, noise: bool) {
        let layers = self.layers(noise);
        let (_, gradients, bias_gradients) = self.loss(layers.clone());
        let h = 1e-5;
        let mut checked = 0;
        for l in 0..layers.len() {
            let mut probe = |what: &str, got: f64, change: &dyn Fn(&mut Layer<f64>, f64)| {
                let at = |d: f64| {
                    let mut moved = layers.clone();
                    change(&mut moved[l], d);
                    self.loss(moved).0
                };
                let want = (at(h) - at(-h)) / (2.0 * h);
                assert!(
                    (got - want).abs() <= 1e-6 + 1e-4 * want.abs(),
                    "{} {what}: gradient {got}, difference {want}",
                    layers[l].node
                );
                checked += usize::from(want.abs() > 1e-9);
            };
            let n = layers[l].theta.len();
            for i in (0..n).step_by((n / 25).max(1)) {
                probe(&format!("theta[{i}]"), gradients[l][0][i], &|layer, d| {
                    layer.theta[i] += d
                });
                if noise {
                    probe(&format!("sigma2[{i}]"), gradients[l][1][i], &|layer, d| {
                        layer.sigma2[i] += d
                    });
                }
            }
            for (i, &gradient) in bias_gradients[l].iter().enumerate() {
                probe(&format!("bias[{i}]"), gradient, &|layer, d| {
                    layer.bias[i] += d
                });
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
            Op::MaxPool {
                window: window([3, 3], [2, 2], [0, 0, 1, 1], [1, 1]),
            },
            vec!["r1"],
        ),
        (
            "c2",
            conv("c2", window([2, 3], [1, 2], [0, 1, 1, 0], [1, 1])),
            vec!["p1"],
        ),
        (
            "p2",
            Op::MaxPool {
                window: Window::square(2, 1),
            },
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
        classes: 3,
        distil: true,
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
            Op::MaxPool {
                window: window([2, 2], [2, 2], [1, 0, 0, 0], [1, 1]),
            },
            vec!["relu"],
        ),
        (
            "mean",
            Op::AveragePool {
                window: window([2, 2], [1, 1], [1, 1, 0, 0], [1, 1]),
            },
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
        classes: 3,
        distil: false,
    }
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
fn a_residual_network_with_noise() {
    residual().check(true);
}
