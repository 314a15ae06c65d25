//! The graph of a packed file: a preset, or its nodes one by one.

use std::collections::HashMap;

use sparsevd_model::{
    Approximate, Graph, Input, Network, Node, Op, Preprocessing, Shape, Window, presets,
};

use super::Limits;
use super::error::PackedError;
use super::fields::{Field, Fields};
use super::range::Coder;

/// Presets that files may name: version 1 of the packed format has their numbers.
pub(crate) const PRESETS: [&str; 2] = ["lenet-300-100", "lenet-5"];

/// Codes a graph, and tells which preset it is; a reader passes no network.
pub(super) fn graph<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    network: Option<&Network>,
    limits: &Limits,
) -> Result<(Graph, Option<&'static str>), PackedError> {
    let have = network.map(|n| &n.graph);
    let preset = network.and_then(|n| PRESETS.iter().position(|name| is_preset(n, name)));
    let preset = fields.number(coder, preset.map_or(0, |p| p + 1), Field::Preset)?;
    if let Some(index) = preset.checked_sub(1) {
        let (name, mut graph) = (PRESETS.get(index).copied())
            .and_then(|name| Some((name, presets::by_name(name)?.0)))
            .ok_or_else(|| {
                PackedError::part(
                    "preset of the graph",
                    "one that is known",
                    preset.to_string(),
                )
            })?;
        let same = have.is_none_or(|g| g.name == graph.name);
        if !fields.flag(coder, same, Field::PresetName) {
            graph.name = fields.text(coder, have.map_or("", |g| &g.name), "")?;
        }
        let same = have.is_none_or(|g| g.preprocessing == graph.preprocessing);
        if !fields.flag(coder, same, Field::PresetPreprocessing) {
            graph.preprocessing = preprocessing(coder, fields, have)?;
        }
        return Ok((graph, Some(name)));
    }
    let text = |t: Option<&str>| t.unwrap_or_default().to_owned();
    let name = fields.text(coder, &text(have.map(|g| g.name.as_str())), "")?;
    let mut graph = Graph {
        name,
        inputs: vec![],
        nodes: vec![],
        outputs: vec![],
        preprocessing: preprocessing(coder, fields, have)?,
    };
    let inputs = fields.number(coder, have.map_or(0, |g| g.inputs.len()), Field::Inputs)?;
    if inputs == 0 {
        return Err(PackedError::part(
            "inputs of the graph",
            "at least one",
            "none",
        ));
    }
    if inputs > limits.nodes {
        return Err(PackedError::limit(
            "inputs of the graph",
            limits.nodes,
            inputs,
        ));
    }
    // Names of the values so far: what nodes refer to.
    let mut values: Vec<String> = Vec::new();
    for i in 0..inputs {
        let input = have.map(|g| &g.inputs[i]);
        let name = fields.text(coder, input.map_or("", |i| &i.name), "input")?;
        let rank = fields.number(
            coder,
            input.map_or(0, |i| i.shape.dims().len()),
            Field::Dimensions,
        )?;
        if rank > 8 {
            return Err(PackedError::part(
                format!("input `{name}`"),
                "at most 8 dimensions",
                rank.to_string(),
            ));
        }
        let dims = (0..rank)
            .map(|d| {
                fields.number(
                    coder,
                    input.map_or(0, |i| i.shape.dims()[d]),
                    Field::Dimension,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let shape = Shape(dims);
        if shape.elements() == 0 || shape.elements() > limits.elements {
            return Err(PackedError::part(
                format!("input `{name}`"),
                format!("a shape of 1 to {} elements", limits.elements),
                shape.to_string(),
            ));
        }
        values.push(name.clone());
        graph.inputs.push(Input { name, shape });
    }
    let places: HashMap<&str, usize> = have.map_or_else(HashMap::new, |g| {
        let inputs = g.inputs.iter().map(|i| i.name.as_str());
        inputs
            .chain(g.nodes.iter().map(|n| n.name.as_str()))
            .zip(0..)
            .collect()
    });
    let place = |name: Option<&String>| {
        name.and_then(|n| places.get(n.as_str()).copied())
            .unwrap_or(0)
    };
    let nodes = fields.number(coder, have.map_or(0, |g| g.nodes.len()), Field::Nodes)?;
    if nodes > limits.nodes {
        return Err(PackedError::limit(
            "nodes of the graph",
            limits.nodes,
            nodes,
        ));
    }
    let mut names = [const { String::new() }; OPERATORS];
    let mut operands = 0_usize;
    for i in 0..nodes {
        let node = have.map(|g| &g.nodes[i]);
        let kind = fields.number(coder, node.map_or(0, |n| operator(&n.op)), Field::Operator)?;
        let like = names.get(kind).ok_or_else(|| {
            PackedError::part(
                "operator",
                format!("a number below {OPERATORS}"),
                kind.to_string(),
            )
        })?;
        let name = fields.text(coder, node.map_or("", |n| &n.name), like)?;
        names[kind] = name.clone();
        let count = match kind {
            ADD | SUB | MUL | DIV => 2,
            CONCAT => fields.number(coder, node.map_or(0, |n| n.inputs.len()), Field::Operands)?,
            _ => 1,
        };
        operands = operands.saturating_add(count);
        let most = limits.nodes.saturating_mul(4);
        if operands > most {
            return Err(PackedError::limit("inputs of all nodes", most, operands));
        }
        let mut from = Vec::with_capacity(count);
        for j in 0..count {
            let there = place(node.map(|n| &n.inputs[j]));
            let back = values.len().saturating_sub(1 + there);
            let back = fields.number(coder, back, Field::Distance)?;
            let value = values.iter().rev().nth(back).ok_or_else(|| {
                PackedError::part(
                    format!("node `{name}`"),
                    "an earlier value as its input",
                    format!("one {back} back"),
                )
            })?;
            from.push(value.clone());
        }
        let op = op(coder, fields, node.map(|n| &n.op), kind, &name)?;
        values.push(name.clone());
        graph.nodes.push(Node {
            name,
            inputs: from,
            op,
        });
        if coder.exhausted() {
            return Err(PackedError::damaged("graph"));
        }
    }
    let outputs = fields.number(coder, have.map_or(0, |g| g.outputs.len()), Field::Outputs)?;
    if outputs > limits.nodes {
        return Err(PackedError::limit(
            "outputs of the graph",
            limits.nodes,
            outputs,
        ));
    }
    for i in 0..outputs {
        let there = place(have.map(|g| &g.outputs[i]));
        let back = fields.number(
            coder,
            values.len().saturating_sub(1 + there),
            Field::Distance,
        )?;
        let value = values
            .iter()
            .rev()
            .nth(back)
            .ok_or_else(|| PackedError::damaged("outputs of the graph"))?;
        graph.outputs.push(value.clone());
    }
    Ok((graph, None))
}

/// Whether a network has the graph of a preset, and weights with no more rows.
fn is_preset(network: &Network, name: &str) -> bool {
    let graph = &network.graph;
    presets::by_name(name).is_some_and(|(preset, tensors)| {
        let rows = |shape: &Shape| shape.matrix().0;
        (&graph.inputs, &graph.nodes, &graph.outputs)
            == (&preset.inputs, &preset.nodes, &preset.outputs)
            && tensors.iter().all(|(name, shape)| {
                (network.tensors.get(name)).is_some_and(|t| rows(&t.shape()) <= rows(shape))
            })
    })
}

fn preprocessing<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    have: Option<&Graph>,
) -> Result<Option<Preprocessing>, PackedError> {
    let have = have.and_then(|g| g.preprocessing.as_ref());
    if !fields.flag(coder, have.is_some(), Field::Preprocessing) {
        return Ok(None);
    }
    let scale = Fields::float(coder, have.map_or(0.0, |p| p.scale));
    let mut lists = [Vec::new(), Vec::new()];
    for (list, have) in lists
        .iter_mut()
        .zip([have.map(|p| &p.mean), have.map(|p| &p.std)])
    {
        let n = fields.number(coder, have.map_or(0, Vec::len), Field::Channels)?;
        for i in 0..n {
            list.push(Fields::float(coder, have.map_or(0.0, |l| l[i])));
            if coder.exhausted() {
                return Err(PackedError::damaged("preprocessing"));
            }
        }
    }
    let [mean, std] = lists;
    Ok(Some(Preprocessing { scale, mean, std }))
}

/// Numbers of operators that read more than one value.
const ADD: usize = 6;
const SUB: usize = 16;
const MUL: usize = 17;
const DIV: usize = 18;
const CONCAT: usize = 19;
const OPERATORS: usize = 21;

fn operator(op: &Op) -> usize {
    match op {
        Op::Conv { .. } => 0,
        Op::Relu => 1,
        Op::Linear { .. } => 2,
        Op::MaxPool { .. } => 3,
        Op::AveragePool { .. } => 4,
        Op::GlobalAveragePool => 5,
        Op::Add => ADD,
        Op::Flatten => 7,
        Op::Softmax => 8,
        Op::Clip { .. } => 9,
        Op::LeakyRelu { .. } => 10,
        Op::Sigmoid => 11,
        Op::HardSigmoid { .. } => 12,
        Op::HardSwish => 13,
        Op::Tanh => 14,
        Op::Gelu { .. } => 15,
        Op::Sub => SUB,
        Op::Mul => MUL,
        Op::Div => DIV,
        Op::Concat => CONCAT,
        Op::Pad { .. } => 20,
        // Batch normalisation is folded before a network is packed; `pack` refuses what this version cannot say.
        _ => OPERATORS,
    }
}

/// Whether version 1 of the format has a code for the operator.
pub(super) fn can_say(op: &Op) -> bool {
    operator(op) < OPERATORS
}

fn op<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    have: Option<&Op>,
    kind: usize,
    node: &str,
) -> Result<Op, PackedError> {
    Ok(match kind {
        0 => {
            let (weight, bias) = tensors(coder, fields, have, node)?;
            let window = window(coder, fields, have)?;
            let groups = if let Some(Op::Conv { groups, .. }) = have {
                *groups
            } else {
                1
            };
            let groups = fields
                .number(coder, groups.wrapping_sub(1), Field::Groups)?
                .saturating_add(1);
            Op::Conv {
                weight,
                bias,
                window,
                groups,
            }
        }
        1 => Op::Relu,
        2 => {
            let (weight, bias) = tensors(coder, fields, have, node)?;
            Op::Linear { weight, bias }
        }
        3 => Op::MaxPool {
            window: window(coder, fields, have)?,
        },
        4 => Op::AveragePool {
            window: window(coder, fields, have)?,
        },
        5 => Op::GlobalAveragePool,
        ADD => Op::Add,
        7 => Op::Flatten,
        8 => Op::Softmax,
        9 => {
            let (min, max) = match have {
                Some(Op::Clip { min, max }) => (*min, *max),
                _ => (None, None),
            };
            let [min, max] = [min, max].map(|bound| {
                let open = fields.flag(coder, bound.is_none(), Field::NoBound);
                (!open).then(|| Fields::float(coder, bound.unwrap_or(0.0)))
            });
            Op::Clip { min, max }
        }
        10 => {
            let alpha = match have {
                Some(Op::LeakyRelu { alpha }) => *alpha,
                _ => 0.0,
            };
            let alpha = Fields::float(coder, alpha);
            Op::LeakyRelu { alpha }
        }
        11 => Op::Sigmoid,
        12 => {
            let (alpha, beta) = match have {
                Some(Op::HardSigmoid { alpha, beta }) => (*alpha, *beta),
                _ => (0.0, 0.0),
            };
            let [alpha, beta] = [alpha, beta].map(|v| Fields::float(coder, v));
            Op::HardSigmoid { alpha, beta }
        }
        13 => Op::HardSwish,
        14 => Op::Tanh,
        15 => {
            let exact = !matches!(
                have,
                Some(Op::Gelu {
                    approximate: Approximate::Tanh
                })
            );
            let approximate = match coder.raw(u32::from(!exact), 1) {
                0 => Approximate::None,
                _ => Approximate::Tanh,
            };
            Op::Gelu { approximate }
        }
        SUB => Op::Sub,
        MUL => Op::Mul,
        DIV => Op::Div,
        CONCAT => Op::Concat,
        _ => {
            let (mut pads, value) = match have {
                Some(Op::Pad { pads, value }) => (*pads, *value),
                _ => ([0; 4], 0.0),
            };
            for pad in &mut pads {
                *pad = fields.number(coder, *pad, Field::Pad)?;
            }
            let value = Fields::float(coder, value);
            Op::Pad { pads, value }
        }
    })
}

/// Names of weight and bias; by default `NODE.weight` and `NODE.bias`.
fn tensors<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    have: Option<&Op>,
    node: &str,
) -> Result<(String, Option<String>), PackedError> {
    let default = format!("{node}.weight");
    let weight = have.and_then(Op::weight).unwrap_or(&default);
    let weight = if fields.flag(coder, weight == default, Field::DefaultWeight) {
        default
    } else {
        fields.text(coder, weight, &default)?
    };
    let bias = have.and_then(Op::bias);
    if !fields.flag(coder, bias.is_some(), Field::HasBias) {
        return Ok((weight, None));
    }
    let default = match weight.strip_suffix(".weight") {
        Some(stem) => format!("{stem}.bias"),
        None => format!("{weight}.bias"),
    };
    let bias = bias.unwrap_or(&default);
    let bias = if fields.flag(coder, bias == default, Field::DefaultBias) {
        default
    } else {
        fields.text(coder, bias, &default)?
    };
    Ok((weight, Some(bias)))
}

fn window<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    have: Option<&Op>,
) -> Result<Window, PackedError> {
    let mut w = match have {
        Some(Op::Conv { window, .. } | Op::MaxPool { window } | Op::AveragePool { window }) => {
            window.clone()
        }
        _ => Window::square(1, 1),
    };
    for (side, field) in [
        (&mut w.kernel_shape, Field::Kernel),
        (&mut w.strides, Field::Stride),
    ] {
        let square = fields.flag(coder, side[0] == side[1], Field::Square);
        side[0] = fields.number(coder, side[0], field)?;
        side[1] = if square {
            side[0]
        } else {
            fields.number(coder, side[1], field)?
        };
    }
    if fields.flag(coder, w.pads == [0; 4], Field::NoPads) {
        w.pads = [0; 4];
    } else if fields.flag(coder, w.pads == [w.pads[0]; 4], Field::OnePad) {
        w.pads = [fields.number(coder, w.pads[0], Field::Pad)?; 4];
    } else {
        for pad in &mut w.pads {
            *pad = fields.number(coder, *pad, Field::Pad)?;
        }
    }
    if fields.flag(coder, w.dilations == [1; 2], Field::NoDilation) {
        w.dilations = [1; 2];
    } else {
        for dilation in &mut w.dilations {
            *dilation = fields.number(coder, *dilation, Field::Dilation)?;
        }
    }
    Ok(w)
}
