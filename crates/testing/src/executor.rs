//! Networks run node by node, by the slow twins.

use std::collections::HashMap;
use std::f64::consts::PI;

use sparsevd_model::{Approximate, Network, Op, Window, ops};

use crate::reference;

/// The output of a network for one sample of its input, in f64, through the graph as it stands.
///
/// # Panics
/// As [`run_all`], and when the network has several inputs or outputs.
pub fn run(network: &Network, input: &[f32]) -> Vec<f64> {
    let mut outputs = run_all(network, &[input]);
    assert_eq!(outputs.len(), 1, "outputs of {}", network.graph.name);
    outputs.remove(0)
}

/// The outputs of a network for one sample of each of its inputs, both in the order of the graph, in f64, through the graph as it stands.
///
/// # Panics
/// On a network that is not valid or has another number of inputs.
pub fn run_all(network: &Network, inputs: &[&[f32]]) -> Vec<Vec<f64>> {
    let named = &network.graph.inputs;
    assert_eq!(
        named.len(),
        inputs.len(),
        "inputs of {}",
        network.graph.name
    );
    let exact = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let mut values: HashMap<&str, Vec<f64>> = named
        .iter()
        .zip(inputs)
        .map(|(input, x)| (input.name.as_str(), exact(x)))
        .collect();
    let shapes = network.shapes().expect("a valid network");
    for node in &network.graph.nodes {
        let x = &values[node.inputs[0].as_str()];
        let from = shapes[node.inputs[0].as_str()].dims();
        let channels = shapes[node.name.as_str()].dims()[0];
        let tensor = |name: &str| network.tensors[name].to_dense().values;
        let bias =
            |name: &Option<String>| name.as_deref().map_or_else(|| vec![0.0; channels], tensor);
        let map = |f: &dyn Fn(f64) -> f64| x.iter().map(|&v| f(v)).collect::<Vec<f64>>();
        let y = match &node.op {
            Op::Linear(ops::Linear { weight, bias: b }) => {
                let inn = from[from.len() - 1];
                let weight = tensor(weight);
                let bias = match b {
                    Some(bias) => tensor(bias),
                    None => vec![
                        0.0;
                        shapes[node.name.as_str()]
                            .dims()
                            .last()
                            .copied()
                            .unwrap_or(1)
                    ],
                };
                // A vector of nothing has the bias.
                let vectors: usize = from[..from.len() - 1].iter().product();
                let vector = |v: usize| &x[v * inn..][..inn];
                (0..vectors)
                    .flat_map(|v| reference::linear_sums(&weight, &bias, vector(v), inn))
                    .collect()
            }
            Op::Conv(ops::Conv {
                weight,
                bias: b,
                window,
                groups,
            }) => {
                let (filters, input) = (tensor(weight), [from[0], from[1], from[2]]);
                reference::conv_sums(&filters, &bias(b), x, input, window, *groups)
            }
            Op::MaxPool(ops::MaxPool { window }) => {
                let largest = |p: &[f64]| p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                reference::pool(x, [from[1], from[2]], window, largest)
            }
            Op::AveragePool(ops::AveragePool { window }) => {
                reference::pool(x, [from[1], from[2]], window, mean)
            }
            Op::GlobalAveragePool => {
                let window = Window {
                    kernel_shape: [from[1], from[2]],
                    ..Window::square(1, 1)
                };
                reference::pool(x, window.kernel_shape, &window, mean)
            }
            Op::Relu => map(&|v| v.max(0.0)),
            Op::Clip(ops::Clip { min, max }) => {
                let (min, max) = (min.map(f64::from), max.map(f64::from));
                map(&|v| v.max(min.unwrap_or(v)).min(max.unwrap_or(f64::INFINITY)))
            }
            Op::LeakyRelu(ops::LeakyRelu { alpha }) => {
                map(&|v| if v < 0.0 { f64::from(*alpha) * v } else { v })
            }
            Op::Sigmoid => map(&|v| 1.0 / (1.0 + (-v).exp())),
            Op::HardSigmoid(ops::HardSigmoid { alpha, beta }) => {
                map(&|v| (f64::from(*alpha) * v + f64::from(*beta)).clamp(0.0, 1.0))
            }
            Op::HardSwish => map(&|v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
            Op::Tanh => map(&f64::tanh),
            Op::Gelu(ops::Gelu { approximate }) => match approximate {
                Approximate::None => map(&reference::gelu),
                Approximate::Tanh => map(&|v| {
                    let inner = (2.0 / PI).sqrt() * (v + 0.044715 * v.powi(3));
                    v / 2.0 * (1.0 + inner.tanh())
                }),
            },
            Op::Elu(ops::Elu { alpha }) => map(&|v| {
                if v < 0.0 {
                    f64::from(*alpha) * v.exp_m1()
                } else {
                    v
                }
            }),
            Op::Softplus => map(&reference::softplus),
            Op::Exp => map(&f64::exp),
            Op::Log => map(&f64::ln),
            Op::Sqrt => map(&f64::sqrt),
            Op::Erf => map(&reference::erf),
            Op::Max => arithmetic(x, &values[node.inputs[1].as_str()], f64::max),
            Op::Min => arithmetic(x, &values[node.inputs[1].as_str()], f64::min),
            Op::MatMul => {
                let b = &values[node.inputs[1].as_str()];
                let to = shapes[node.name.as_str()].dims();
                let [n, k, m] = [from[from.len() - 2], from[from.len() - 1], to[to.len() - 1]];
                reference::mat_mul(x, b, [n, k, m])
            }
            Op::Slice(ops::Slice { axis, start, end }) => {
                let inner: usize = from[axis + 1..].iter().product();
                let rows = x.chunks(from[*axis] * inner);
                rows.flat_map(|row| row[start * inner..end * inner].to_vec())
                    .collect()
            }
            Op::Expand(ops::Expand { shape }) => reference::expand(x, from, shape),
            Op::Add => arithmetic(x, &values[node.inputs[1].as_str()], |a, b| a + b),
            Op::Sub => arithmetic(x, &values[node.inputs[1].as_str()], |a, b| a - b),
            Op::Mul => arithmetic(x, &values[node.inputs[1].as_str()], |a, b| a * b),
            Op::Div => arithmetic(x, &values[node.inputs[1].as_str()], |a, b| a / b),
            Op::BatchNormalization(ops::BatchNormalization {
                scale,
                bias,
                mean,
                variance,
                epsilon,
            }) => {
                let area = x.len() / from[0];
                let [scale, bias, mean, variance] =
                    [scale, bias, mean, variance].map(|t| tensor(t));
                let number = |t: &[f32], i: usize| f64::from(t[i / area]);
                let normal = |(i, v): (usize, &f64)| {
                    let deviation = (number(&variance, i) + f64::from(*epsilon)).sqrt();
                    (v - number(&mean, i)) / deviation * number(&scale, i) + number(&bias, i)
                };
                x.iter().enumerate().map(normal).collect()
            }
            Op::LayerNormalization(norm) => {
                let scale = tensor(&norm.scale);
                let bias = norm.bias.as_deref().map(tensor);
                reference::layer_norm(x, &scale, bias.as_deref(), norm.epsilon)
            }
            Op::Attention(ops::Attention { heads }) => {
                let inputs = [0, 1, 2].map(|i| values[node.inputs[i].as_str()].as_slice());
                reference::attention(inputs, from[1], from[1] / heads)
            }
            Op::ReduceMean(_) => reference::mean_of_rows(x, from[1..].iter().product()),
            Op::L2Normalize => reference::l2_normalize(x, from[from.len() - 1]),
            Op::PRelu(op) => {
                let slope = tensor(&op.slope);
                reference::prelu(x, &slope, x.len() / channels)
            }
            Op::Concat(ops::Concat { axis }) => {
                let outer: usize = from[..*axis].iter().product();
                let inputs: Vec<&Vec<f64>> =
                    (node.inputs.iter()).map(|i| &values[i.as_str()]).collect();
                (0..outer)
                    .flat_map(|row| {
                        inputs.iter().flat_map(move |x| {
                            let width = x.len() / outer;
                            x[row * width..][..width].iter().copied()
                        })
                    })
                    .collect()
            }
            Op::Pad(ops::Pad { pads, value }) => {
                reference::pad(x, [from[1], from[2]], *pads, f64::from(*value))
            }
            Op::Flatten | Op::Reshape(_) => x.clone(),
            Op::Transpose(ops::Transpose { perm }) => reference::transpose(x, from, perm),
            Op::Embedding(op) => {
                let width = shapes[node.name.as_str()].dims()[from.len()];
                let rows = reference::embedding(&tensor(&op.table), width, x);
                rows.into_iter().map(f64::from).collect()
            }
            Op::Softmax(ops::Softmax { axis }) | Op::LogSoftmax(ops::LogSoftmax { axis }) => {
                let of_row = match node.op {
                    Op::Softmax(_) => reference::softmax_of_row,
                    _ => reference::log_softmax_of_row,
                };
                let (size, inner) = (from[*axis], from[*axis + 1..].iter().product::<usize>());
                let mut y = vec![0.0; x.len()];
                for first in (0..x.len()).filter(|i| i / inner % size == 0) {
                    let row: Vec<f64> = (0..size).map(|k| x[first + k * inner]).collect();
                    for (k, p) in of_row(&row).into_iter().enumerate() {
                        y[first + k * inner] = p;
                    }
                }
                y
            }
        };
        values.insert(&node.name, y);
    }
    let outputs = network.graph.outputs.iter();
    outputs.map(|o| values[o.as_str()].clone()).collect()
}

fn mean(pixels: &[f64]) -> f64 {
    pixels.iter().sum::<f64>() / pixels.len() as f64
}

/// Element by element, where `b` has the shape of `a` or one number per channel.
fn arithmetic(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    let area = a.len() / b.len();
    (a.iter().enumerate())
        .map(|(i, &a)| f(a, b[i / area]))
        .collect()
}
