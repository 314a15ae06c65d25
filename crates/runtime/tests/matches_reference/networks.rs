//! Random networks of every operator.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sparsevd_model::shape::is_per_channel;
use sparsevd_model::{
    Approximate, Csr, Dense, Graph, Input, Network, Node, Op, Shape, Weights, Window,
};

/// One more node of a random network.
#[derive(Debug, Clone)]
pub enum Recipe {
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
    Clamp(Op),
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

fn clamp() -> impl Strategy<Value = Op> {
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

pub fn recipe() -> impl Strategy<Value = Recipe> {
    let two = |r: std::ops::RangeInclusive<usize>| [r.clone(), r];
    prop_oneof![
        4 => (1usize..6, two(1..=3), two(1..=2), [0usize..3, 0..3, 0..3, 0..3], two(1..=2), any::<[bool; 2]>()).prop_map(
            |(out, kernel, strides, pads, dilations, [grouped, bias])| Recipe::Conv { out, kernel, strides, pads, dilations, grouped, bias }),
        2 => (any::<bool>(), two(1..=3), two(1..=2), [0usize..2, 0..2, 0..2, 0..2]).prop_map(
            |(max, kernel, strides, pads)| Recipe::Pool { max, kernel, strides, pads }),
        2 => Just(Recipe::Clamp(Op::Relu)),
        3 => clamp().prop_map(Recipe::Clamp),
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
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, shape: Shape, density: f64) -> Dense {
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
pub fn build(input: Shape, recipes: &[Recipe], density: f64, seed: u64, csr: bool) -> Network {
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
            (Recipe::Clamp(op), _) => op.clone(),
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
