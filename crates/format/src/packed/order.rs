//! The free order of hidden units: permuting the rows of one weight and the columns of the next changes nothing.

use std::cmp::Reverse;

use sparsevd_model::ops::Channels;
use sparsevd_model::{Csr, Dense, Graph, ModelError, Network, Node, Op, Weights};

/// Sorts hidden units by their non-zeros, most first, and by their bias among equals, highest first. The network
/// computes the same function; only sums are taken in another order.
///
/// Units stay where they are when what they feed is a network output, more than one node, or anything but one linear
/// layer or ungrouped convolution behind activations, pooling and flattening.
pub(super) fn sort_units(network: &Network) -> Result<Network, ModelError> {
    let mut sorted = network.clone();
    let pairs: Vec<(usize, usize)> = (0..network.graph.nodes.len())
        .filter_map(|i| Some((i, reader(&network.graph, i)?)))
        .collect();
    for (i, next) in pairs {
        sort(&mut sorted, i, next)?;
    }
    Ok(sorted)
}

/// The weighted node that alone reads the units of node `i`, if their order is free.
fn reader(graph: &Graph, i: usize) -> Option<usize> {
    let ungrouped = |op: &Op| op.weight().is_some() && op.groups() == 1;
    let shared = |name: Option<&str>| {
        let uses = |n: &&Node| n.op.weight() == name || n.op.bias() == name;
        name.is_some() && graph.nodes.iter().filter(uses).count() > 1
    };
    let alone = |n: &Node| !shared(n.op.weight()) && !shared(n.op.bias());
    let first = &graph.nodes[i];
    if !ungrouped(&first.op) || !alone(first) {
        return None;
    }
    let mut value = &first.name;
    loop {
        if graph.outputs.contains(value) {
            return None;
        }
        let mut readers = (0..graph.nodes.len()).filter(|&r| graph.nodes[r].inputs.contains(value));
        let (Some(r), None) = (readers.next(), readers.next()) else {
            return None;
        };
        let node = &graph.nodes[r];
        if !keeps_units(&node.op) {
            return (ungrouped(&node.op) && alone(node)).then_some(r);
        }
        value = &node.name;
    }
}

/// Whether what an operator makes has the units of what it reads, in their order. Files with marked units depend on it: docs/format.md lists
/// the operators, and another one takes a new profile.
pub(super) fn keeps_units(op: &Op) -> bool {
    let operator = op.operator();
    op.is_activation() || operator.keeps_constants() || operator.channels() == Channels::Flattened
}

fn sort(network: &mut Network, i: usize, next: usize) -> Result<(), ModelError> {
    let (node, next) = (
        network.graph.nodes[i].clone(),
        network.graph.nodes[next].clone(),
    );
    let (Some(weight), Some(after)) = (network.weight(&node), network.weight(&next)) else {
        return Ok(());
    };
    let rows = weight.shape().matrix().0;
    let cols = after.shape().matrix().1;
    if rows == 0 || cols % rows != 0 {
        return Ok(());
    }
    let bias = network.bias(&node).map(<[f32]>::to_vec);
    let counts = row_counts(weight);
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&a, &b| {
        let bias = |r: usize| bias.as_ref().map_or(0.0, |b| b[r]);
        (Reverse(counts[a]).cmp(&Reverse(counts[b]))).then(bias(b).total_cmp(&bias(a)))
    });
    let moved = permute_rows(weight, &order)?;
    let read = permute_columns(after, &order, cols / rows)?;
    if let (Some(name), Some(bias)) = (node.op.bias(), bias) {
        let bias = order.iter().map(|&r| bias[r]).collect();
        network
            .tensors
            .insert(name.into(), Weights::Dense(Dense::new([rows], bias)));
    }
    for (node, tensor) in [(&node, moved), (&next, read)] {
        if let Some(name) = node.op.weight() {
            network.tensors.insert(name.into(), tensor);
        }
    }
    Ok(())
}

fn row_counts(weights: &Weights) -> Vec<usize> {
    let (rows, cols) = weights.shape().matrix();
    match weights {
        Weights::Csr(csr) => (0..rows)
            .map(|r| csr.row(r).1.iter().filter(|v| **v != 0.0).count())
            .collect(),
        other => {
            let dense = other.to_dense();
            let row = |r: usize| &dense.values[r * cols..(r + 1) * cols];
            (0..rows)
                .map(|r| row(r).iter().filter(|v| **v != 0.0).count())
                .collect()
        }
    }
}

fn permute_rows(weights: &Weights, order: &[usize]) -> Result<Weights, ModelError> {
    let cols = weights.shape().matrix().1;
    Ok(match weights {
        Weights::Csr(csr) => {
            let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
            for &row in order {
                let (c, v) = csr.row(row);
                columns.extend_from_slice(c);
                values.extend_from_slice(v);
                starts.push(columns.len() as u32);
            }
            Weights::Csr(Csr::try_new(csr.shape().clone(), starts, columns, values)?)
        }
        other => {
            let dense = other.to_dense();
            let values = order
                .iter()
                .flat_map(|&r| dense.values[r * cols..(r + 1) * cols].iter().copied());
            Weights::Dense(Dense::new(dense.shape.clone(), values.collect()))
        }
    })
}

/// Permutes groups of `size` columns.
fn permute_columns(weights: &Weights, order: &[usize], size: usize) -> Result<Weights, ModelError> {
    let (rows, cols) = weights.shape().matrix();
    let mut place = vec![0; order.len()];
    for (to, &from) in order.iter().enumerate() {
        place[from] = to;
    }
    let moved = |column: usize| place[column / size] * size + column % size;
    Ok(match weights {
        Weights::Csr(csr) => {
            let (mut columns, mut values) = (Vec::new(), Vec::new());
            for row in 0..rows {
                let (c, v) = csr.row(row);
                let mut row: Vec<(u32, f32)> = c
                    .iter()
                    .zip(v)
                    .map(|(&c, &v)| (moved(c as usize) as u32, v))
                    .collect();
                row.sort_unstable_by_key(|e| e.0);
                columns.extend(row.iter().map(|e| e.0));
                values.extend(row.iter().map(|e| e.1));
            }
            Weights::Csr(Csr::try_new(
                csr.shape().clone(),
                csr.crow_indices().to_vec(),
                columns,
                values,
            )?)
        }
        other => {
            let dense = other.to_dense();
            let mut values = vec![0.0; dense.values.len()];
            for row in 0..rows {
                for column in 0..cols {
                    values[row * cols + moved(column)] = dense.values[row * cols + column];
                }
            }
            Weights::Dense(Dense::new(dense.shape.clone(), values))
        }
    })
}

#[cfg(test)]
mod tests {
    use sparsevd_model::ops;

    use super::*;

    #[test]
    fn the_operators_that_keep_units_are_those_of_the_format() {
        let examples = ops::examples();
        let keep = examples.iter().filter(|op| keeps_units(op));
        let mut numbers: Vec<usize> = keep
            .filter_map(|op| op.operator().packed_number())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15]);
    }
}
