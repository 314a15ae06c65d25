//! The grids of the inputs of int8 layers.

use std::collections::BTreeMap;

use sparsevd_model::{Graph, Int8Grid, Network};

use super::error::PackedError;
use super::fields::{Field, Fields};
use super::range::Coder;
use super::scale::code_scale;

/// The grid of the input of each int8 layer, by the name of its node.
pub(super) type Grids = BTreeMap<String, Int8Grid>;

/// Binary exponent of the scale from which that of the first grid is counted: inputs of layers are mostly numbers around one.
const EXPONENT: i32 = -6;

/// Codes the grids; a reader passes `None`. Nodes with a weight come in their order, each with a flag.
pub(super) fn grids<C: Coder>(
    coder: &mut C,
    fields: &mut Fields,
    graph: &Graph,
    have: Option<&Network>,
) -> Result<Grids, PackedError> {
    let mut exponent = EXPONENT;
    let mut grids = Grids::new();
    for node in graph.weighted_nodes() {
        let grid = have.and_then(|n| n.int8.inputs.get(&node.name));
        let grid = grid.and_then(|input| input.grid());
        if !fields.flag(coder, grid.is_some(), Field::Int8) {
            continue;
        }
        let Int8Grid { scale, zero_point } = grid.unwrap_or(Int8Grid {
            scale: 1.0,
            zero_point: 0,
        });
        let scale = code_scale(coder, fields, scale, &mut exponent)?;
        // Behind ReLU zero is the least number.
        let zero_point = match fields.flag(coder, zero_point == 0, Field::NoZeroPoint) {
            true => 0,
            false => match coder.raw(u32::from(zero_point), 8) as u8 {
                0 => return Err(PackedError::damaged("grids of int8 layers")),
                byte => byte,
            },
        };
        if coder.exhausted() {
            return Err(PackedError::damaged("grids of int8 layers"));
        }
        grids.insert(node.name.clone(), Int8Grid { scale, zero_point });
    }
    if grids.is_empty() {
        return Err(PackedError::damaged("grids of int8 layers"));
    }
    Ok(grids)
}

/// Checks that the rows of the weights of int8 layers have the scales of their tensors, which are all that a packed file stores.
pub(super) fn check(network: &Network) -> Result<(), PackedError> {
    network.check_int8()?;
    let inputs = &network.int8.inputs;
    if let Some((node, _)) = inputs.iter().find(|(_, input)| input.grid().is_none()) {
        let (expected, got) = ("a grid", "a scale for each vector");
        return Err(PackedError::tensor(node, "input", expected, got));
    }
    for (weight, rows) in &network.int8.rows {
        let Some(&scale) = network.scales.get(weight) else {
            continue;
        };
        if let Some(other) = rows.iter().find(|row| **row != scale) {
            let expected = format!("{scale}, the scale of the tensor");
            let got = other.to_string();
            return Err(PackedError::tensor(weight, "scale of a row", expected, got));
        }
    }
    Ok(())
}

/// Gives a network that was read its grids.
pub(super) fn apply(network: &mut Network, grids: Grids) -> Result<(), PackedError> {
    let layers = network.graph.weighted_nodes();
    let weights = layers.filter(|node| grids.contains_key(&node.name));
    let rows = weights.filter_map(|node| {
        let weight = node.op.weight()?;
        let scale = *network.scales.get(weight)?;
        let rows = network.tensors.get(weight)?.shape().matrix().0;
        Some((weight.to_owned(), vec![scale; rows]))
    });
    network.int8.rows = rows.collect();
    let inputs = grids.into_iter().map(|(name, grid)| (name, grid.into()));
    network.int8.inputs = inputs.collect();
    network.check_int8()?;
    Ok(())
}
