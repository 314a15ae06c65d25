//! Networks that were read are planned and run: on every instruction set, sparse and dense, by the slow twin's answers.

use std::collections::HashMap;
use std::path::Path;

use sparsevd_format::{GraphSource, read_network_bytes};
use sparsevd_kernels::Isa;
use sparsevd_model::{Input, Network, Op, Shape, Weights, ops};
use sparsevd_onnx::read_onnx_bytes;
use sparsevd_runtime::{
    Int8Mode, Plan, PlanOptions, RuntimeError, Session, WeightMode, WeightType,
};
use sparsevd_testing::arbitrary::Stream;
use sparsevd_testing::executor;

use crate::networks;
use crate::place::check_error;

/// Most multiply-adds, elements of a value and of a tensor of a network that is run, so that one input takes a part of a second.
const MOST_WORK: usize = 300_000;

pub(crate) fn run_safetensors(bytes: &[u8]) {
    let nowhere = Path::new("fuzz/none.safetensors");
    if let Ok(read) = read_network_bytes(nowhere, bytes, &GraphSource::Auto) {
        run(&read.network, bytes);
    }
}

pub(crate) fn run_onnx(bytes: &[u8]) {
    if let Ok(read) = read_onnx_bytes("fuzz/none.onnx", bytes.to_vec()) {
        run(&read.network, bytes);
    }
}

pub(crate) fn run_packed(bytes: &[u8]) {
    if let Some((_, network)) = networks::unpacked(bytes) {
        run(&network, bytes);
    }
}

/// Runs a network by every kind of plan. What is not a promise of the network (batch, threads, length, type of weights) is drawn by `bytes`, so
/// that an input says all of a failure.
fn run(network: &Network, bytes: &[u8]) {
    let mut random = Stream(u64::from(crc32fast::hash(bytes)));
    let mut draw = |most: usize| random.bits() as usize % most;
    let length = match network.graph.free_symbol() {
        Some(_) => 1 + draw(9),
        None => 1,
    };
    let sized = network.at_length(length);
    let Some(work) = work(&sized).filter(|work| *work <= MOST_WORK) else {
        return;
    };
    let batch = match [1, 1, 2, 7, 16, 17, 33][draw(7)] {
        batch if batch * work <= MOST_WORK => batch,
        _ => 1,
    };
    let values = match draw(4) {
        0 => [WeightType::Bf16, WeightType::F16, WeightType::I8][draw(3)],
        _ => WeightType::F32,
    };
    let threads = if draw(16) == 0 { 2 } else { 1 };
    let planned_for = [batch, 1, 16][draw(3)];
    let int8 = match !sized.int8.is_empty() && draw(2) == 0 {
        true => Int8Mode::Never,
        false => Int8Mode::default(),
    };
    let mut inputs: Vec<(&str, Vec<f32>)> = vec![];
    for input in &sized.graph.inputs {
        let numbers = random.floats(batch * input.shape.elements());
        inputs.push((&input.name, of_input(&sized, input, numbers)));
    }
    let expected = Expected::of(&sized, &inputs, batch);
    for isa in Isa::available() {
        for weights in [WeightMode::Sparse, WeightMode::Dense] {
            let options = PlanOptions {
                int8,
                weights,
                isa,
                threads,
                batch: planned_for,
                length,
                values,
                ..PlanOptions::default()
            };
            match answers(network, &options, batch, length, &inputs) {
                Ok(outputs) => expected.check(&sized, &options, &outputs),
                Err(error) => check_error(&error),
            }
        }
    }
}

/// Numbers of -1 to 1 as elements of an input, which ids are too.
fn of_input(network: &Network, input: &Input, mut numbers: Vec<f32>) -> Vec<f32> {
    if let Some(ids) = network.ids().get(input.name.as_str()) {
        let id = |v: f32| (v.abs() * *ids as f32).floor().min((ids - 1) as f32);
        numbers.iter_mut().for_each(|v| *v = id(*v));
    }
    numbers
}

/// The outputs of a plan.
fn answers(
    network: &Network,
    options: &PlanOptions,
    batch: usize,
    length: usize,
    inputs: &[(&str, Vec<f32>)],
) -> Result<Vec<Vec<f32>>, RuntimeError> {
    let plan = Plan::new(network, options)?;
    let _ = plan.to_string();
    let session = Session::new(plan, options.threads)?;
    let named: Vec<_> = inputs.iter().map(|(n, x)| (*n, x.as_slice())).collect();
    let values = session.plan().outputs();
    let mut outputs: Vec<Vec<f32>> = (values.iter())
        .map(|value| vec![0.0; batch * value.elements(length)])
        .collect();
    let names = values.iter().map(|value| value.name.as_str());
    let mut slices: Vec<_> = names
        .zip(outputs.iter_mut().map(Vec::as_mut_slice))
        .collect();
    session.run(batch, named.as_slice(), slices.as_mut_slice())?;
    drop(slices);
    Ok(outputs)
}

/// Multiply-adds of a sample and elements of values and tensors, together; `None` for more than a number holds.
fn work(network: &Network) -> Option<usize> {
    let types = network.types().ok()?;
    let mut work = 0_usize;
    for tensor in network.tensors.values() {
        work = work.checked_add(tensor.shape().elements())?;
    }
    for value in types.values() {
        work = work.checked_add(value.shape(1).elements())?;
    }
    for node in &network.graph.nodes {
        let of = |name: &str| Some(types.get(name)?.shape(1));
        let (from, to) = (of(&node.inputs[0])?, of(&node.name)?);
        let each = match &node.op {
            Op::Conv(_) => network.weight(node)?.shape().dims()[1..].iter().product(),
            Op::Linear(_) => *from.dims().last()?,
            Op::MaxPool(ops::MaxPool { window }) | Op::AveragePool(ops::AveragePool { window }) => {
                window.kernel_shape.iter().product()
            }
            _ => 1,
        };
        work = work.checked_add(to.elements().checked_mul(each)?)?;
    }
    Some(work)
}

/// What the slow twin computes, and how far rounding may lead away from it.
struct Expected {
    /// Of each output, of all samples.
    outputs: Vec<Vec<f64>>,
    /// Of each output; `None` where the network magnifies rounding without a known bound.
    scales: Vec<Option<f64>>,
    /// Whether weights are what they are in the file whatever their type.
    is_exact: bool,
}

impl Expected {
    fn of(network: &Network, inputs: &[(&str, Vec<f32>)], batch: usize) -> Self {
        let scales = scales(network);
        let outputs = network.graph.outputs.iter();
        let scales: Vec<_> = outputs.map(|o| scales.get(o.as_str()).copied()).collect();
        let mut outputs = vec![vec![]; scales.len()];
        if scales.iter().any(Option::is_some) {
            for sample in 0..batch {
                let of = |x: &'_ [f32]| {
                    let elements = x.len() / batch;
                    sample * elements..(sample + 1) * elements
                };
                let inputs: Vec<&[f32]> = inputs.iter().map(|(_, x)| &x[of(x)]).collect();
                let all = executor::run_all(network, &inputs);
                outputs.iter_mut().zip(all).for_each(|(o, y)| o.extend(y));
            }
        }
        let is_level =
            |tensor: &Weights| tensor.values().iter().all(|v| *v == 0.0 || v.abs() == 1.0);
        Self {
            outputs,
            scales,
            is_exact: network.tensors.values().all(is_level),
        }
    }

    fn check(&self, network: &Network, options: &PlanOptions, got: &[Vec<f32>]) {
        let tolerance = match options.values {
            WeightType::F32 => 1e-5,
            _ if self.is_exact => 1e-5,
            WeightType::F16 => 2e-3,
            WeightType::Bf16 | WeightType::Auto => 2e-2,
            WeightType::I8 => 2e-2,
        };
        let nodes = network.graph.nodes.len() as f64;
        let all = got.iter().zip(&self.outputs).zip(&self.scales);
        for (output, ((got, expected), scale)) in all.enumerate() {
            let Some(scale) = scale else { continue };
            assert_eq!(got.len(), expected.len(), "elements of output {output}");
            // Layers in int8 round what they read, by an error that no bound here has.
            if !network.int8.is_empty() && options.int8 != Int8Mode::Never {
                continue;
            }
            for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
                let error = (f64::from(*got) - expected).abs();
                assert!(
                    error <= tolerance * nodes * scale,
                    "{options:?}: output {output}, element {at}: expected {expected}, got {got}, of scale {scale}"
                );
            }
        }
    }
}

/// A bound of the values of each node for inputs of -1 to 1, which rounding is relative to; nothing behind an operator that divides, and
/// nothing that is too large for f32.
fn scales(network: &Network) -> HashMap<&str, f64> {
    let inputs = network.graph.inputs.iter();
    let mut scales: HashMap<&str, f64> = inputs.map(|i| (i.name.as_str(), 1.0)).collect();
    for node in &network.graph.nodes {
        let of: Option<Vec<f64>> = (node.inputs.iter())
            .map(|name| scales.get(name.as_str()).copied())
            .collect();
        let Some(of) = of else { continue };
        let x = of[0];
        let largest = |name: &str| {
            let values = network.tensors[name].values();
            values
                .iter()
                .fold(0.0_f64, |m, v| m.max(f64::from(v.abs())))
        };
        let bias = |name: &Option<String>| name.as_deref().map_or(0.0, largest);
        let scale = match &node.op {
            Op::Linear(ops::Linear { weight, bias: b }) => {
                row_sum(&network.tensors[weight]) * x + bias(b)
            }
            Op::Conv(ops::Conv {
                weight, bias: b, ..
            }) => row_sum(&network.tensors[weight]) * x + bias(b),
            Op::Relu
            | Op::Sigmoid
            | Op::Tanh
            | Op::Flatten
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::MaxPool(_)
            | Op::AveragePool(_)
            | Op::GlobalAveragePool
            | Op::Softmax(_) => x.max(1.0),
            Op::HardSwish => x * 2.0 + x * x,
            Op::Gelu(_) => x * 1.2 + 1.0,
            Op::Clip(ops::Clip { min, max }) => {
                let bound = |v: &Option<f32>| v.map_or(0.0, |v| f64::from(v.abs()));
                x + bound(min) + bound(max)
            }
            Op::LeakyRelu(ops::LeakyRelu { alpha }) => x * f64::from(alpha.abs()).max(1.0),
            Op::Embedding(ops::Embedding { table }) => largest(table),
            Op::PRelu(ops::PRelu { slope }) => x * largest(slope).max(1.0),
            Op::HardSigmoid(ops::HardSigmoid { alpha, beta }) => {
                x * f64::from(alpha.abs()) + f64::from(beta.abs()) + 1.0
            }
            Op::Elu(ops::Elu { alpha }) => x * f64::from(alpha.abs()).max(1.0),
            Op::Softplus => x + 1.0,
            Op::Erf => x * 1.2 + 1.0,
            Op::Max | Op::Min => of.iter().copied().fold(0.0, f64::max),
            Op::Expand(_) | Op::Slice(_) => x,
            Op::Add | Op::Sub => of.iter().sum(),
            Op::Mul => of.iter().product(),
            Op::Concat(_) => of.iter().copied().fold(0.0, f64::max),
            Op::ReduceMean(_) => x,
            // Scores are products, so that their error, and that of the weights, grows with the square of the inputs.
            Op::Attention(_) if of.iter().all(|x| *x <= 1.0) => of[2].max(1.0),
            Op::Pad(ops::Pad { value, .. }) => x.max(f64::from(value.abs())),
            Op::Div
            | Op::Exp
            | Op::Log
            | Op::Sqrt
            | Op::LogSoftmax(_)
            | Op::MatMul
            | Op::BatchNormalization(_)
            | Op::LayerNormalization(_)
            | Op::L2Normalize
            | Op::Attention(_) => continue,
        };
        if scale < 1e30 {
            scales.insert(&node.name, scale);
        }
    }
    scales
}

/// The largest sum of the sizes of a row's weights.
fn row_sum(weight: &Weights) -> f64 {
    let dense = weight.to_dense();
    let width = Shape(dense.shape.dims()[1..].to_vec()).elements().max(1);
    let rows = dense.values.chunks(width);
    rows.map(|row| row.iter().map(|v| f64::from(v.abs())).sum())
        .fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// A target takes every refusal of a plan, so that one that refused all networks would find nothing.
    #[test]
    fn every_kind_of_plan_runs_the_networks_of_the_seeds() {
        for network in seeds::networks() {
            let length = 3;
            let sized = network.at_length(length);
            let inputs: Vec<(&str, Vec<f32>)> = (sized.graph.inputs.iter())
                .map(|input| {
                    let numbers = vec![0.5; input.shape.elements()];
                    (input.name.as_str(), of_input(&sized, input, numbers))
                })
                .collect();
            let expected = Expected::of(&sized, &inputs, 1);
            for isa in Isa::available() {
                for weights in [WeightMode::Sparse, WeightMode::Dense] {
                    let options = PlanOptions {
                        weights,
                        isa,
                        length,
                        ..PlanOptions::default()
                    };
                    let outputs = answers(&network, &options, 1, length, &inputs).unwrap();
                    expected.check(&sized, &options, &outputs);
                }
            }
        }
    }
}
