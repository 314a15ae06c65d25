//! A naive executor: plain loops per operator, in f64.

use std::collections::HashMap;

use sparsevd_model::{Dense, Network, Op, Window};

/// Runs one sample through the graph as it stands: plain loops per operator, in f64.
pub fn reference(network: &Network, input: &[f32]) -> Vec<f64> {
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
