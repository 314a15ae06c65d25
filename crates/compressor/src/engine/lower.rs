//! From a graph to the stages a training step runs: fused where that saves work, channels last.

use std::collections::HashMap;

use sparsevd_kernels::training::Real;
use sparsevd_model::{Graph, Int8Grid, Node, Op, Shape, Window, ops};

use super::program::{Program, Stage, Work};
use crate::error::CompressError;
use crate::layer::Layer;
use crate::layers::arrange::Order;
use crate::layers::function::{Function, Kind};
use crate::layers::size::MapSize;
use crate::state::State;

/// A value while lowering: its dimensions per sample, in the order of the network, and which original channels its channels are.
///
/// Only of vectors and maps may channels have been removed, and only they have channels at all.
#[derive(Clone)]
struct Value {
    dims: Vec<usize>,
    channels: Vec<u32>,
}

impl Value {
    fn new(dims: Vec<usize>) -> Self {
        let channels = dims.first().copied().unwrap_or(1) as u32;
        Self {
            dims,
            channels: (0..channels).collect(),
        }
    }

    fn size(&self) -> MapSize {
        MapSize::of(&self.dims)
    }

    /// Whether it is a vector or a map, whose first dimension is its channels.
    fn has_channels(&self) -> bool {
        matches!(self.dims.len(), 1 | 3)
    }
}

/// A value by the name of a node.
#[derive(Clone, Copy)]
struct Named {
    value: usize,
    /// Whether the node means one vector of all elements in C order, wherever they lie: it flattens the value, and linear layers alone
    /// read it, perhaps through activations.
    flat: bool,
    /// Whether other nodes read the value by another name.
    shared: bool,
}

pub(crate) fn lower<T: Real>(graph: &Graph, state: &State<T>) -> Result<Program, CompressError> {
    let [output] = graph.outputs.as_slice() else {
        let got = graph.outputs.len();
        return Err(CompressError::setting("network", "one output", got));
    };
    let (mut values, mut stages) = inputs(graph)?;
    let begin = |value| Named {
        value,
        flat: false,
        shared: false,
    };
    let first = values.len() - graph.inputs.len();
    let mut named: HashMap<&str, Named> = (graph.inputs.iter().zip(first..))
        .map(|(input, value)| (input.name.as_str(), begin(value)))
        .collect();
    for node in &graph.nodes {
        let read = |name: &String| named[name.as_str()].value;
        let mut inputs: Vec<usize> = node.inputs.iter().map(read).collect();
        let x = named[node.inputs[0].as_str()];
        let first = x.value;
        // A value without other consumers, by any name, may change its meaning in place.
        let alone = !x.shared && reads(graph, &node.inputs[0]) == 1;
        let same_value = |flat| Named {
            flat,
            shared: !alone,
            ..x
        };
        if let Some(last) = stages.iter_mut().find(|s| s.output == first && alone)
            && fuse(node, last, &mut values[first].dims)?
        {
            named.insert(&node.name, same_value(x.flat));
            continue;
        }
        let value = &values[first];
        let same_elements = match &node.op {
            // Only the meaning of the features changes; a linear layer gathers them where they lie.
            Op::Flatten if only_gathered(graph, &node.name) => Some(true),
            Op::Flatten if value.has_channels() && value.size().area() == 1 => Some(x.flat),
            Op::Transpose(transpose) if transpose.perm.is_sorted() => Some(x.flat),
            Op::Softmax(ops::Softmax { axis }) | Op::LogSoftmax(ops::LogSoftmax { axis })
                if scores(graph) == Some(node.inputs[0].as_str())
                    && value.dims.get(*axis) == Some(&value.dims.iter().product()) =>
            {
                Some(x.flat)
            }
            _ => None,
        };
        if let Some(flat) = same_elements {
            named.insert(&node.name, same_value(flat));
            continue;
        }
        let inputs_here: Vec<&Value> = inputs.iter().map(|i| &values[*i]).collect();
        let (work, value) = stage(node, &inputs_here, x.flat, state)?;
        if let Some(layer) = work.layer()
            && let Some(grid) = state.layers[layer].input_grid
        {
            inputs[0] = rounded(grid, first, &mut values, &mut stages);
        }
        values.push(value);
        let made = Named {
            value: values.len() - 1,
            flat: x.flat && node.op.is_activation(),
            shared: false,
        };
        named.insert(&node.name, made);
        stages.push(Stage {
            work,
            relu: false,
            inputs,
            output: values.len() - 1,
        });
    }
    let output = named[output.as_str()].value;
    let values: Vec<MapSize> = values.iter().map(Value::size).collect();
    if values[output].area() != 1 {
        return Err(CompressError::setting(
            "network output",
            "one vector per sample",
            "a feature map",
        ));
    }
    Ok(Program::new(stages, values, output))
}

/// The values of the network's inputs. Of several, the first value has all, one behind the other, and stages take them apart.
fn inputs(graph: &Graph) -> Result<(Vec<Value>, Vec<Stage>), CompressError> {
    let dims = graph.inputs.iter().map(|input| input.shape.dims().to_vec());
    let dims: Vec<Vec<usize>> = dims.collect();
    if let [only] = dims.as_slice() {
        return Ok((vec![Value::new(only.clone())], vec![]));
    }
    let sizes: Vec<usize> = dims.iter().map(|dims| dims.iter().product()).collect();
    let all = sizes.iter().sum();
    let mut values = vec![Value::new(vec![all])];
    let mut stages = vec![];
    let mut at = 0;
    for (dims, size) in dims.into_iter().zip(sizes) {
        let order = Order::part(all, at, dims.clone());
        let order = order
            .ok_or_else(|| CompressError::setting("network", "inputs of fewer numbers", all))?;
        at += size;
        values.push(Value::new(dims));
        stages.push(Stage {
            work: Work::Function {
                function: Function::Arrangement(order),
                tensors: 0..0,
            },
            relu: false,
            inputs: vec![0],
            output: values.len() - 1,
        });
    }
    Ok((values, stages))
}

/// The value `x` rounded to the bytes of a grid, once for all layers that read it so.
fn rounded(grid: Int8Grid, x: usize, values: &mut Vec<Value>, stages: &mut Vec<Stage>) -> usize {
    let work = Work::Round(grid);
    if let Some(stage) = stages.iter().find(|s| s.work == work && s.inputs == [x]) {
        return stage.output;
    }
    values.push(values[x].clone());
    let output = values.len() - 1;
    stages.push(Stage {
        work,
        relu: false,
        inputs: vec![x],
        output,
    });
    output
}

/// The value that a softmax makes probabilities of, or their logarithms, where that is all that the network does with it and returns: networks are trained on
/// scores, as the cross-entropy has a softmax of its own.
pub(crate) fn scores(graph: &Graph) -> Option<&str> {
    let [output] = graph.outputs.as_slice() else {
        return None;
    };
    let node = graph.nodes.iter().find(|n| n.name == *output)?;
    let scores = node.inputs.first()?;
    let is_last =
        matches!(node.op, Op::Softmax(_) | Op::LogSoftmax(_)) && reads(graph, output) == 1;
    (is_last && reads(graph, scores) == 1).then_some(scores)
}

/// Number of consumers of a value; an output of the network has the caller as one more.
fn reads(graph: &Graph, value: &str) -> usize {
    let inputs = graph.nodes.iter().flat_map(|n| &n.inputs);
    inputs.chain(&graph.outputs).filter(|i| *i == value).count()
}

/// Whether only linear layers read a flattened value, perhaps through activations.
fn only_gathered(graph: &Graph, value: &str) -> bool {
    let mut readers = (graph.nodes.iter()).filter(|n| n.inputs.iter().any(|i| i == value));
    !graph.outputs.iter().any(|o| o == value)
        && readers.all(|n| {
            matches!(n.op, Op::Linear(_)) || n.op.is_activation() && only_gathered(graph, &n.name)
        })
}

fn unsupported(node: &Node, what: &str) -> CompressError {
    CompressError::Unsupported {
        node: node.name.clone(),
        op: node.op.name(),
        what: what.into(),
    }
}

/// The map of `size` after a window.
fn over(node: &Node, window: &Window, size: MapSize) -> Result<MapSize, CompressError> {
    size.over(window)
        .ok_or_else(|| unsupported(node, "a window larger than its map"))
}

/// Makes a ReLU or max-pooling part of the stage that it follows, where it can be; `dims` are those of the stage's output.
fn fuse(node: &Node, last: &mut Stage, dims: &mut Vec<usize>) -> Result<bool, CompressError> {
    match (&node.op, &mut last.work) {
        (Op::Relu, work) if !last.relu && work.takes_relu() => last.relu = true,
        (Op::MaxPool(ops::MaxPool { window }), Work::Conv { pool, .. }) if pool.is_none() => {
            *dims = over(node, window, MapSize::of(dims))?.map_dims();
            *pool = Some(window.clone());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The stage of a node of its own, and the value it makes; `flat` says that its input is a vector, wherever the elements lie.
fn stage<T: Real>(
    node: &Node,
    inputs: &[&Value],
    flat: bool,
    state: &State<T>,
) -> Result<(Work, Value), CompressError> {
    let x = inputs[0];
    let like_x = |dims| Value {
        dims,
        channels: x.channels.clone(),
    };
    let tensors = state.plain_of(&node.name);
    let plain = &state.plain[tensors.clone()];
    let shapes: Vec<&Shape> = plain.iter().map(|t| &t.shape).collect();
    let per_channel = |numbers: usize| match numbers == 1 || x.has_channels() {
        true => Ok(()),
        false => Err(unsupported(
            node,
            "it along the first dimension of a value that is neither a vector nor a map",
        )),
    };
    Ok(match Kind::of(&node.op, &x.dims, &shapes) {
        Kind::Linear => {
            let place = layer_of(node, &state.layers)?;
            let layer = &state.layers[place];
            // A map of one pixel that was flattened is read as it lies, but a layer of one column over such a map is one over its channels.
            let pixel = x.dims.len() == 3 && x.size().area() == 1;
            let is_column = layer.original.dims()[1] == 1 && x.dims[0] != 1;
            if flat || x.dims.len() == 1 || pixel && !is_column {
                let gather = gather(x, &layer.kept_in)
                    .ok_or_else(|| unsupported(node, "inputs that were removed"))?;
                let work = Work::Linear {
                    layer: place,
                    vectors: 1,
                    gather,
                };
                return Ok((work, units_of(layer, &[])));
            }
            let Some((_, before)) = x.dims.split_last().filter(|_| x.dims.len() != 3) else {
                return Err(unsupported(node, "it over the rows of a map"));
            };
            let work = Work::Linear {
                layer: place,
                vectors: before.iter().product(),
                gather: layer.kept_in.clone(),
            };
            (work, Value::new([before, &[layer.units()]].concat()))
        }
        Kind::Conv(ops::Conv { window, groups, .. }) => {
            conv(node, window, *groups, x, &state.layers)?
        }
        Kind::BatchNormalization => {
            let place = state
                .normalisations
                .iter()
                .position(|n| n.node == node.name);
            let place = place.ok_or_else(|| unsupported(node, "statistics without state"))?;
            // One constant for all is no matter of channels; statistics are.
            let constant = state.normalisations[place].constant;
            per_channel(if constant {
                state.normalisations[place].channels()
            } else {
                2
            })?;
            if state.normalisations[place].channels() != x.channels.len() {
                return Err(unsupported(node, "channels that were removed"));
            }
            let work = if state.normalisations[place].constant {
                Work::Affine(place)
            } else {
                Work::Normalise(place)
            };
            (work, like_x(x.dims.clone()))
        }
        Kind::Arithmetic(arithmetic) => {
            if x.channels != inputs[1].channels {
                return Err(unsupported(node, "inputs of different channels"));
            }
            (Work::Arithmetic(arithmetic), like_x(x.dims.clone()))
        }
        Kind::Concat(axis) => {
            if axis != 0 || !x.has_channels() {
                return Err(unsupported(
                    node,
                    "it along another dimension than the channels",
                ));
            }
            if inputs.iter().any(|v| v.channels.len() != v.size().channels) {
                return Err(unsupported(node, "inputs of which channels were removed"));
            }
            let channels = inputs.iter().map(|v| v.dims[0]).sum();
            let dims = std::iter::once(channels).chain(x.dims[1..].iter().copied());
            (Work::Concat, Value::new(dims.collect()))
        }
        Kind::Attention(heads) => (Work::Attention { heads }, Value::new(x.dims.clone())),
        Kind::Function(function) => {
            if let Function::PRelu = function {
                per_channel(shapes.iter().map(|s| s.elements()).sum())?;
            }
            let dims = (function.output(&x.dims))
                .ok_or_else(|| unsupported(node, "a window larger than its map"))?;
            let value = match (&function, &node.op) {
                (_, Op::Flatten) if x.has_channels() => flattened(x, dims),
                (Function::Arrangement(_) | Function::Embedding(_) | Function::Mean { .. }, _) => {
                    Value::new(dims)
                }
                _ => like_x(dims),
            };
            (Work::Function { function, tensors }, value)
        }
        Kind::NotTrained => {
            let why = node.op.operator().not_trained();
            return Err(unsupported(node, why.unwrap_or("this operator")));
        }
    })
}

/// A map as a vector: the features of each channel lie one behind the other.
fn flattened(x: &Value, dims: Vec<usize>) -> Value {
    let area = x.size().area() as u32;
    let channels = x.channels.iter();
    let channels = channels.flat_map(|c| (0..area).map(move |p| c * area + p));
    Value {
        dims,
        channels: channels.collect(),
    }
}

fn conv<T: Real>(
    node: &Node,
    window: &Window,
    groups: usize,
    x: &Value,
    layers: &[Layer<T>],
) -> Result<(Work, Value), CompressError> {
    let layer = layer_of(node, layers)?;
    let (state, window) = (&layers[layer], window.clone());
    let size = over(node, &window, x.size())?;
    let value = units_of(state, &[size.height, size.width]);
    let whole = x.channels.len() == state.kept_in.len() * groups;
    if (groups == 1 && state.kept_in != x.channels) || !whole {
        return Err(unsupported(node, "input channels that were removed"));
    }
    let work = if state.is_depthwise() {
        Work::DepthwiseConv { layer, window }
    } else if groups > 1 {
        Work::GroupedConv {
            layer,
            window,
            groups,
        }
    } else {
        Work::Conv {
            layer,
            window,
            pool: None,
        }
    };
    Ok((work, value))
}

fn layer_of<T: Real>(node: &Node, layers: &[Layer<T>]) -> Result<usize, CompressError> {
    let place = layers.iter().position(|l| l.node == node.name);
    place.ok_or_else(|| unsupported(node, "a weight without state"))
}

/// A value of a layer's units over maps of `size`: height and width, or nothing for a vector.
fn units_of<T: Real>(layer: &Layer<T>, size: &[usize]) -> Value {
    Value {
        dims: [&[layer.units()], size].concat(),
        channels: layer.kept_out.clone(),
    }
}

/// Where each feature of a linear layer lies in its input; `None` when one is not there.
fn gather(x: &Value, kept_in: &[u32]) -> Option<Vec<u32>> {
    if !x.has_channels() {
        return Some(kept_in.to_vec());
    }
    let (area, channels) = (x.size().area(), x.channels.len());
    kept_in
        .iter()
        .map(|&feature| {
            let (channel, position) = (feature / area as u32, feature as usize % area);
            let c = x.channels.binary_search(&channel).ok()?;
            Some((position * channels + c) as u32)
        })
        .collect()
}
