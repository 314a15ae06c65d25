//! Between a network and the integers that a packed file holds of it.

use std::collections::BTreeMap;

use sparsevd_model::{Csr, Dense, ModelError, Network, Weights};

use super::error::PackedError;
use super::matrix::Levels;
use super::skeleton::{Skeleton, Tensor};

/// The integers of a network, in the order of its tensors.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Integers {
    Weight(Levels),
    Bias(Vec<i32>),
}

/// The integers of a tensor of a network, and the number of them in each row where it is a weight.
pub(super) fn integers(network: &Network, tensor: &Tensor) -> Result<Integers, PackedError> {
    let levels = network.grid(&tensor.name, tensor.scale)?;
    if tensor.columns.is_none() {
        return Ok(Integers::Bias(levels));
    }
    let (rows, cols) = tensor.shape.matrix();
    let mut out = Levels {
        starts: vec![0],
        ..Levels::default()
    };
    let mut push = |column: usize, level: i32| {
        if level != 0 {
            out.columns.push(column as u32);
            out.levels.push(level);
        }
        out.levels.len() as u32
    };
    let mut starts = Vec::with_capacity(rows);
    match network.tensors.get(&tensor.name) {
        Some(Weights::Csr(csr)) => {
            let mut at = 0;
            for row in 0..rows {
                let mut end = starts.last().copied().unwrap_or(0);
                for &column in csr.row(row).0 {
                    end = push(column as usize, levels[at]);
                    at += 1;
                }
                starts.push(end);
            }
        }
        _ => {
            for row in 0..rows {
                let mut end = starts.last().copied().unwrap_or(0);
                for column in 0..cols {
                    end = push(column, levels[row * cols + column]);
                }
                starts.push(end);
            }
        }
    }
    out.starts.extend(starts);
    Ok(Integers::Weight(out))
}

/// A network from its parts.
pub(super) fn assemble(
    skeleton: Skeleton,
    integers: Vec<Integers>,
) -> Result<Network, PackedError> {
    let Skeleton {
        graph,
        plain,
        tensors,
        grids,
    } = skeleton;
    let (mut weights, mut originals, mut scales) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (tensor, integers) in tensors.into_iter().zip(integers) {
        let value = |q: &i32| sparsevd_model::quantised::value(*q, tensor.scale);
        let built = match integers {
            Integers::Bias(levels) => Weights::Dense(Dense {
                shape: tensor.shape.clone(),
                values: levels.iter().map(value).collect(),
            }),
            Integers::Weight(levels) => {
                let values = levels.levels.iter().map(value).collect();
                let csr = Csr::try_new(tensor.shape.clone(), levels.starts, levels.columns, values)
                    .map_err(|e: ModelError| e.for_tensor(&tensor.name))?;
                if tensor.dense {
                    Weights::Dense(csr.to_dense())
                } else {
                    Weights::Csr(csr)
                }
            }
        };
        if tensor.original != tensor.shape {
            originals.insert(tensor.name.clone(), tensor.original);
        }
        scales.insert(tensor.name.clone(), tensor.scale);
        weights.insert(tensor.name, built);
    }
    for (name, tensor) in plain {
        if tensor.original != tensor.dense.shape {
            originals.insert(name.clone(), tensor.original);
        }
        weights.insert(name, Weights::Dense(tensor.dense));
    }
    let mut network = Network::new(graph, weights)?;
    network.original_shapes = originals;
    network.scales = scales;
    super::grids::apply(&mut network, grids)?;
    Ok(network)
}
