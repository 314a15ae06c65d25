//! From a graph to the stages a training step runs: fused where that saves work, channels last.

use sparsevd_kernels::training::Real;
use sparsevd_model::{Graph, Node, Op, Window};

use crate::error::CompressError;
use crate::layer::Layer;

/// Size of one value per sample: channels last, `height = width = 1` for a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MapSize {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
}

impl MapSize {
    pub fn elements(self) -> usize {
        self.height * self.width * self.channels
    }
    pub fn dims(self) -> [usize; 3] {
        [self.height, self.width, self.channels]
    }
}

/// What one stage computes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work {
    /// A linear layer on the gathered features of its input.
    Linear {
        layer: usize,
        gather: Vec<u32>,
        relu: bool,
    },
    /// A convolution, with max-pooling and ReLU fused behind it (they commute; pooling first is cheaper).
    Conv {
        layer: usize,
        window: Window,
        pool: Option<Window>,
        relu: bool,
    },
    Relu,
    MaxPool(Window),
    AveragePool(Window),
    GlobalAveragePool,
    Add,
}

/// One stage: what it computes, from and to which values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub work: Work,
    pub inputs: Vec<usize>,
    pub output: usize,
}

/// A lowered graph.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub stages: Vec<Stage>,
    pub values: Vec<MapSize>,
    /// The value that the loss reads.
    pub output: usize,
}

/// A value while lowering: its size, and which original channels its channels are.
struct Value {
    size: MapSize,
    channels: Vec<u32>,
}

pub(crate) fn lower<T: Real>(graph: &Graph, layers: &[Layer<T>]) -> Result<Program, CompressError> {
    let unsupported = |node: &Node, what: &str| CompressError::Unsupported {
        node: node.name.clone(),
        op: node.op.name(),
        what: what.into(),
    };
    let [input] = graph.inputs.as_slice() else {
        return Err(CompressError::setting(
            "network",
            "one input",
            graph.inputs.len(),
        ));
    };
    let [output] = graph.outputs.as_slice() else {
        return Err(CompressError::setting(
            "network",
            "one output",
            graph.outputs.len(),
        ));
    };
    let size = match *input.shape.dims() {
        [n] => MapSize {
            height: 1,
            width: 1,
            channels: n,
        },
        [c, h, w] => MapSize {
            height: h,
            width: w,
            channels: c,
        },
        _ => {
            return Err(CompressError::setting(
                "network input",
                "[features] or [channels, height, width]",
                &input.shape,
            ));
        }
    };
    let mut values = vec![Value {
        size,
        channels: (0..size.channels as u32).collect(),
    }];
    let mut ids = std::collections::HashMap::from([(input.name.as_str(), 0usize)]);
    let mut stages: Vec<Stage> = vec![];
    for node in &graph.nodes {
        let inputs: Vec<usize> = node.inputs.iter().map(|i| ids[i.as_str()]).collect();
        let first = inputs[0];
        let size = values[first].size;
        let over = |window: &Window| {
            let fits = window.output(size.height, size.width);
            fits.map(|[height, width]| MapSize {
                height,
                width,
                channels: size.channels,
            })
            .ok_or_else(|| unsupported(node, "a window larger than its map"))
        };
        // A ReLU or max-pool right behind a weighted stage that nobody else reads becomes part of it.
        let readers = |value: &str| {
            let reads = graph
                .nodes
                .iter()
                .flat_map(|n| &n.inputs)
                .filter(|i| *i == value)
                .count();
            reads + usize::from(value == output)
        };
        let fused = match (&node.op, stages.last_mut()) {
            (Op::Relu | Op::MaxPool { .. }, Some(last))
                if last.output == first && readers(&node.inputs[0]) == 1 =>
            {
                match (&node.op, &mut last.work) {
                    (Op::Relu, Work::Linear { relu, .. } | Work::Conv { relu, .. }) if !*relu => {
                        *relu = true;
                        true
                    }
                    (
                        Op::MaxPool { window },
                        Work::Conv {
                            pool: pool @ None, ..
                        },
                    ) => {
                        values[first].size = over(window)?;
                        *pool = Some(window.clone());
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        };
        if fused {
            ids.insert(&node.name, first);
            continue;
        }
        let x = &values[first];
        let same = |size| Value {
            size,
            channels: x.channels.clone(),
        };
        let find_layer = || {
            layers
                .iter()
                .position(|l| l.node == node.name)
                .ok_or_else(|| unsupported(node, "a weight without state"))
        };
        let (work, value) = match &node.op {
            Op::Linear { .. } => {
                let layer = find_layer()?;
                let gather = gather(x, &layers[layer].kept_in)
                    .ok_or_else(|| unsupported(node, "inputs that were removed"))?;
                let size = MapSize {
                    height: 1,
                    width: 1,
                    channels: layers[layer].units(),
                };
                let channels = layers[layer].kept_out.clone();
                (
                    Work::Linear {
                        layer,
                        gather,
                        relu: false,
                    },
                    Value { size, channels },
                )
            }
            Op::Conv { window, .. } => {
                let layer = find_layer()?;
                if layers[layer].kept_in != x.channels {
                    return Err(unsupported(node, "input channels that were removed"));
                }
                let size = MapSize {
                    channels: layers[layer].units(),
                    ..over(window)?
                };
                let channels = layers[layer].kept_out.clone();
                (
                    Work::Conv {
                        layer,
                        window: window.clone(),
                        pool: None,
                        relu: false,
                    },
                    Value { size, channels },
                )
            }
            Op::Flatten => {
                // Only the meaning of the features changes; a linear layer gathers them where they lie.
                ids.insert(&node.name, first);
                continue;
            }
            Op::Relu => (Work::Relu, same(size)),
            Op::MaxPool { window } => (Work::MaxPool(window.clone()), same(over(window)?)),
            Op::AveragePool { window } => (Work::AveragePool(window.clone()), same(over(window)?)),
            Op::GlobalAveragePool => (
                Work::GlobalAveragePool,
                same(MapSize {
                    height: 1,
                    width: 1,
                    channels: size.channels,
                }),
            ),
            Op::Add => (Work::Add, same(size)),
            _ => return Err(unsupported(node, "this operator")),
        };
        values.push(value);
        ids.insert(&node.name, values.len() - 1);
        stages.push(Stage {
            work,
            inputs,
            output: values.len() - 1,
        });
    }
    let output = ids[output.as_str()];
    if values[output].size.height * values[output].size.width != 1 {
        return Err(CompressError::setting(
            "network output",
            "one vector of class scores per sample",
            "a feature map",
        ));
    }
    Ok(Program {
        stages,
        values: values.iter().map(|v| v.size).collect(),
        output,
    })
}

/// Where each feature of a linear layer lies in its channels-last input; `None` when one is not there.
fn gather(x: &Value, kept_in: &[u32]) -> Option<Vec<u32>> {
    let (area, channels) = (x.size.height * x.size.width, x.size.channels);
    kept_in
        .iter()
        .map(|&feature| {
            let (channel, position) = (feature / area as u32, feature as usize % area);
            let c = x.channels.binary_search(&channel).ok()?;
            Some((position * channels + c) as u32)
        })
        .collect()
}
