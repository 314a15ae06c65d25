//! The graph of a packed file: a preset, or its nodes one by one.

use std::collections::HashMap;

use sparsevd_model::ops::{self, Attribute, MOST_DIMENSIONS};
use sparsevd_model::{
    Approximate, DType, Graph, Input, Network, Node, Op, Preprocessing, Shape, Window, presets,
};

use super::error::PackedError;
use super::fields::{Field, Fields};
use super::limits::Limits;
use super::range::Coder;
use crate::presets::PRESETS;

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
        if rank > MOST_DIMENSIONS {
            return Err(PackedError::part(
                format!("input `{name}`"),
                format!("at most {MOST_DIMENSIONS} dimensions"),
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
        graph.inputs.push(Input::new(name, shape));
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
    let operators = operators();
    let mut names = vec![String::new(); operators.len()];
    let mut operands = 0_usize;
    for i in 0..nodes {
        let node = have.map(|g| &g.nodes[i]);
        let kind = fields.number(
            coder,
            node.and_then(|n| n.op.operator().packed_number())
                .unwrap_or(0),
            Field::Operator,
        )?;
        let like = names.get(kind).ok_or_else(|| {
            PackedError::part(
                "operator",
                format!("a number below {}", operators.len()),
                kind.to_string(),
            )
        })?;
        let name = fields.text(coder, node.map_or("", |n| &n.name), like)?;
        names[kind] = name.clone();
        let count = operators[kind].inputs();
        let count = if count.start() == count.end() {
            *count.start()
        } else {
            fields.number(coder, node.map_or(0, |n| n.inputs.len()), Field::Operands)?
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
        let mut op = node.map_or(&operators[kind], |n| &n.op).clone();
        attributes(coder, fields, &mut op, &name)?;
        if let Op::Embedding(_) = op {
            let wide = have.is_some_and(|g| type_of(g, &from[0]) == Some(DType::I64));
            let dtype = match coder.raw(u32::from(wide), 1) {
                0 => DType::I32,
                _ => DType::I64,
            };
            set_type(&mut graph, &from[0], dtype)?;
        }
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

/// The type of an input of a graph.
fn type_of(graph: &Graph, input: &str) -> Option<DType> {
    let input = graph.inputs.iter().find(|i| i.name == input);
    input.map(|i| i.dtype)
}

/// Gives an input the type that one who reads it says; all who read it say the same.
fn set_type(graph: &mut Graph, input: &str, dtype: DType) -> Result<(), PackedError> {
    let input = graph.inputs.iter_mut().find(|i| i.name == input);
    let input = input.ok_or_else(|| PackedError::damaged("ids"))?;
    if input.dtype.is_id() && input.dtype != dtype {
        return Err(PackedError::damaged("ids"));
    }
    input.dtype = dtype;
    Ok(())
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
    Ok(Some(Preprocessing {
        scale,
        mean,
        std,
        table: None,
    }))
}

/// Whether version 1 of the format has a number for the operator.
pub(super) fn has_number(op: &Op) -> bool {
    op.operator().packed_number().is_some()
}

/// An operator of each number, in the order of the numbers.
fn operators() -> Vec<Op> {
    let mut all = ops::examples();
    all.retain(has_number);
    all.sort_by_key(|op| op.operator().packed_number());
    all
}

/// Codes the attributes of `op`, in place, so that a reader passes any operator of the kind.
fn attributes<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    op: &mut Op,
    node: &str,
) -> Result<(), PackedError> {
    let mut result = Ok(());
    let mut weight = String::new();
    op.visit_attributes(&mut |_, attribute| {
        if result.is_ok() {
            result = coded(coder, fields, attribute, node, &mut weight);
        }
    });
    result
}

/// Codes one attribute; `weight` is the tensor name that came before a bias.
fn coded<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    attribute: Attribute<'_>,
    node: &str,
    weight: &mut String,
) -> Result<(), PackedError> {
    match attribute {
        Attribute::Tensor(name) => {
            let default = format!("{node}.weight");
            let same = fields.flag(coder, *name == default, Field::DefaultWeight);
            *name = match same {
                true => default,
                false => fields.text(coder, name, &default)?,
            };
            weight.clone_from(name);
        }
        Attribute::Bias(bias) => {
            if !fields.flag(coder, bias.is_some(), Field::HasBias) {
                *bias = None;
                return Ok(());
            }
            let default = match weight.strip_suffix(".weight") {
                Some(stem) => format!("{stem}.bias"),
                None => format!("{weight}.bias"),
            };
            let name = bias.as_ref().unwrap_or(&default);
            let same = fields.flag(coder, *name == default, Field::DefaultBias);
            *bias = Some(match same {
                true => default,
                false => fields.text(coder, name, &default)?,
            });
        }
        Attribute::Window(w) => window(coder, fields, w)?,
        Attribute::Size(n) => {
            *n = fields
                .number(coder, n.wrapping_sub(1), Field::Groups)?
                .saturating_add(1);
        }
        // Version 1 of the format has the first dimension alone.
        Attribute::Axis(_) => {}
        Attribute::Sizes(sizes) => {
            let count = fields.number(coder, sizes.len(), Field::Dimensions)?;
            if count > MOST_DIMENSIONS {
                return Err(PackedError::part(
                    format!("node `{node}`"),
                    format!("at most {MOST_DIMENSIONS} dimensions"),
                    count.to_string(),
                ));
            }
            sizes.resize(count, 0);
            for size in sizes {
                *size = fields.number(coder, *size, Field::Dimension)?;
            }
        }
        Attribute::Pads(pads) => {
            for pad in pads {
                *pad = fields.number(coder, *pad, Field::Pad)?;
            }
        }
        Attribute::Float(v) => *v = Fields::float(coder, *v),
        Attribute::Bound(bound) => {
            let open = fields.flag(coder, bound.is_none(), Field::NoBound);
            *bound = (!open).then(|| Fields::float(coder, bound.unwrap_or(0.0)));
        }
        Attribute::Approximate(approximate) => {
            *approximate = match coder.raw(u32::from(*approximate == Approximate::Tanh), 1) {
                0 => Approximate::None,
                _ => Approximate::Tanh,
            };
        }
    }
    Ok(())
}

fn window<C: Coder>(coder: &mut C, fields: &mut Fields, w: &mut Window) -> Result<(), PackedError> {
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
    Ok(())
}
