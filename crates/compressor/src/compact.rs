//! Exact removal of dead units.
//!
//! A unit that no living weight reads is dropped. A unit that no living weight feeds is a constant: the constant is folded
//! into the biases of its consumers, through activations and pooling, and the unit is dropped too. A convolution with padding sees the
//! constant only where its window is inside, so there only a constant of zero may go.

use sparsevd_kernels::training::{Real, activate};
use sparsevd_kernels::{Activation, Isa};
use sparsevd_model::Graph;
use sparsevd_model::ops::Channels;

use crate::layer::Layer;

/// A weighted node that reads the units of another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reader {
    /// Its place among the layers.
    pub layer: usize,
    /// Features per unit for a linear layer: the pixels of the map that was flattened. 1 for a convolution.
    pub area: usize,
    /// Activations that lie between, in the order they are met.
    pub activations: Vec<Activation>,
    /// Whether it is a convolution with padding.
    pub padded: bool,
}

/// Weighted nodes that read the value `name`, through activations, pooling and flattening; `None` where its units must stay, as its
/// consumer is for instance a sum, a normalisation, a grouped convolution or the network's output.
///
/// `pixels` is the number of pixels of each value by name.
pub(crate) fn readers<T>(
    graph: &Graph,
    layers: &[Layer<T>],
    name: &str,
    pixels: &dyn Fn(&str) -> usize,
) -> Option<Vec<Reader>> {
    if graph.outputs.iter().any(|o| o == name) {
        return None;
    }
    let mut all = vec![];
    for node in graph
        .nodes
        .iter()
        .filter(|n| n.inputs.iter().any(|i| i == name))
    {
        let layer = layers.iter().position(|l| l.node == node.name);
        let operator = node.op.operator();
        if let Some(layer) = layer {
            if node.op.groups() > 1 {
                return None;
            }
            all.push(Reader {
                layer,
                area: 1,
                activations: vec![],
                padded: operator.window().is_some_and(|w| w.pads != [0; 4]),
            });
        } else if let Some(activation) = Activation::of(&node.op) {
            let mut behind = readers(graph, layers, &node.name, pixels)?;
            for reader in &mut behind {
                reader.activations.insert(0, activation);
            }
            all.extend(behind);
        } else if operator.channels() == Channels::Flattened {
            let area = pixels(name);
            let behind = readers(graph, layers, &node.name, pixels)?;
            all.extend(behind.into_iter().map(|r| Reader {
                area: r.area * area,
                ..r
            }));
        } else if operator.keeps_constants() {
            all.extend(readers(graph, layers, &node.name, pixels)?);
        } else {
            return None;
        }
    }
    Some(all)
}

/// Positions in `layer`'s weights of row 0 that read the producer's original unit `unit`.
fn columns_of<T: Real>(layer: &Layer<T>, unit: u32, area: usize) -> Vec<usize> {
    let inputs = layer.kept_in.len();
    let here = layer
        .kept_in
        .iter()
        .enumerate()
        .filter(|(_, f)| **f / area as u32 == unit);
    here.flat_map(|(i, _)| (0..layer.area()).map(move |a| a * inputs + i))
        .collect()
}

/// Removes every weight that cannot matter, folds constants, and shrinks the arrays to what is left.
///
/// Outputs without noise stay the same up to rounding. Returns whether anything shrank.
pub fn compact<T: Real>(
    graph: &Graph,
    layers: &mut [Layer<T>],
    pixels: &dyn Fn(&str) -> usize,
) -> bool {
    let readers: Vec<Option<Vec<Reader>>> = layers
        .iter()
        .map(|l| {
            let whole = l.groups > 1;
            (!whole).then(|| readers(graph, layers, &l.node, pixels))?
        })
        .collect();
    let zero = T::default();
    loop {
        let mut changed = false;
        for (producer, readers) in readers
            .iter()
            .enumerate()
            .filter_map(|(i, r)| Some((i, r.as_ref()?)))
        {
            for unit in 0..layers[producer].units() {
                changed |= settle_unit(layers, producer, unit, readers);
            }
        }
        if !changed {
            break;
        }
    }
    // Now shrink: units without a consumer, and inputs without a living weight.
    let mut keep_out: Vec<Vec<usize>> = vec![];
    for (producer, readers) in readers.iter().enumerate() {
        let layer = &layers[producer];
        let mut kept: Vec<usize> = (0..layer.units()).collect();
        if let Some(readers) = readers {
            kept.retain(|&u| is_read(layers, readers, layer.kept_out[u]));
            if kept.is_empty() {
                kept.push(0);
            }
        }
        keep_out.push(kept);
    }
    // Original units that stay, named before any array moves.
    let stays: Vec<Vec<u32>> = layers
        .iter()
        .zip(&keep_out)
        .map(|(l, kept)| kept.iter().map(|&u| l.kept_out[u]).collect())
        .collect();
    let mut shrank = false;
    for consumer in 0..layers.len() {
        let producers = readers.iter().enumerate().filter_map(|(p, r)| {
            let reader = r.as_ref()?.iter().find(|r| r.layer == consumer)?;
            Some((p, reader.area))
        });
        let from: Option<(usize, usize)> = producers.into_iter().next();
        let layer = &layers[consumer];
        let linear = layer.original.dims().len() == 2;
        let alive = |i: usize| {
            let inputs = layer.kept_in.len();
            layer.mask.iter().skip(i).step_by(inputs).any(|m| *m > zero)
        };
        let mut inn: Vec<usize> = (0..layer.kept_in.len()).collect();
        if linear {
            // A linear layer gathers its inputs, so any of them may go.
            inn.retain(|&i| alive(i));
            if inn.is_empty() {
                // Whatever stays must still be there in front of it.
                let unit = from.map_or(0, |(p, _)| stays[p][0] as usize);
                let area = from.map_or(1, |(_, a)| a);
                inn = layer
                    .kept_in
                    .iter()
                    .position(|&f| f as usize / area == unit)
                    .into_iter()
                    .collect();
            }
        } else if let Some((p, _)) = from {
            // A convolution reads just the channels that its producer keeps.
            inn.retain(|&i| stays[p].contains(&layer.kept_in[i]));
        }
        shrank |= inn.len() < layer.kept_in.len() || keep_out[consumer].len() < layer.units();
        layers[consumer].keep(&keep_out[consumer], &inn);
    }
    shrank
}

/// Whether a living weight of a reader reads the producer's original unit.
fn is_read<T: Real>(layers: &[Layer<T>], readers: &[Reader], unit: u32) -> bool {
    readers.iter().any(|r| {
        let layer = &layers[r.layer];
        let columns = columns_of(layer, unit, r.area);
        layer
            .mask
            .chunks_exact(layer.patch().max(1))
            .any(|row| columns.iter().any(|&c| row[c] > T::default()))
    })
}

/// Removes the weights around one unit that cannot matter; returns whether any was alive.
fn settle_unit<T: Real>(
    layers: &mut [Layer<T>],
    producer: usize,
    unit: usize,
    readers: &[Reader],
) -> bool {
    let zero = T::default();
    let (patch, name) = (layers[producer].patch(), layers[producer].kept_out[unit]);
    let row = unit * patch..(unit + 1) * patch;
    let fed = layers[producer].mask[row.clone()].iter().any(|m| *m > zero);
    if !is_read(layers, readers, name) {
        if fed {
            let mut keep = vec![true; layers[producer].theta.len()];
            keep[row].fill(false);
            layers[producer].remove(&keep);
        }
        return fed;
    }
    if fed {
        return false;
    }
    let bias = layers[producer].bias[unit];
    let sent = |r: &Reader| {
        r.activations.iter().fold(bias, |value, f| {
            let mut out = [zero];
            activate(Isa::SCALAR, *f, &[value], &mut out);
            out[0]
        })
    };
    // Folding needs a bias that is stored, and under padding only zero is a constant everywhere.
    let exact = readers
        .iter()
        .all(|r| sent(r) == zero || (!r.padded && layers[r.layer].bias_name.is_some()));
    if !exact {
        return false;
    }
    for r in readers {
        let constant = sent(r);
        let layer = &mut layers[r.layer];
        let (columns, patch) = (columns_of(layer, name, r.area), layer.patch());
        let mut keep = vec![true; layer.theta.len()];
        for o in 0..layer.units() {
            for &c in &columns {
                layer.bias[o] += layer.theta[o * patch + c] * constant;
                keep[o * patch + c] = false;
            }
        }
        layer.remove(&keep);
    }
    true
}
