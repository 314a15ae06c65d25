//! Exact removal of dead units.
//!
//! A unit that no living weight reads is dropped. A unit that no living weight feeds is a constant: the constant is folded
//! into the biases of its consumers, through activations and pooling, and the unit is dropped too. A convolution with padding sees the
//! constant only where its window is inside, so there only a constant of zero may go.
//!
//! All units stay of a layer over several vectors of a sample, and all that a sum, a normalisation or a grouped convolution reads, whose state has the channels of the network that came.
//! From the network that is written, [`drop_dead_channels`](sparsevd_model::passes::drop_dead_channels) removes those too.

use std::collections::HashMap;

use sparsevd_kernels::training::{Real, activate};
use sparsevd_kernels::{Activation, Isa};
use sparsevd_model::ops::Channels;
use sparsevd_model::passes::channels::{ChannelSets, ChannelWeights, fold_constants};
use sparsevd_model::{Graph, Node, Shape};

use crate::layer::Layer;

/// Removes every weight that cannot matter, folds constants, and shrinks the arrays to what is left.
///
/// `shapes` are those of the values by name, per sample. Outputs without noise stay the same up to rounding. Returns whether
/// anything shrank.
///
/// # Panics
/// Where a node with a weight has no layer.
pub fn compact<T: Real>(
    graph: &Graph,
    layers: &mut [Layer<T>],
    shapes: &HashMap<String, Shape>,
) -> bool {
    let mut trained = Trained { layers, shapes };
    let sets = ChannelSets::new(graph, &trained);
    fold_constants(graph, &mut trained, Some(&sets.pinned()));
    let mut live = sets.needed(graph, &trained);
    let of_rows = |n: &&Node| n.op.channels_of(&shapes[n.inputs[0].as_str()]) == Channels::Rows;
    for node in graph.nodes.iter().filter(of_rows) {
        trained.layer_mut(node).remove_units(&live.of(&node.name));
    }
    live.keep_one(graph, |node| match node.op.weight() {
        Some(_) => trained.layer(node).kept_out[0] as usize,
        None => 0,
    });
    let mut shrank = false;
    for node in graph.nodes.iter().filter(of_rows) {
        let (read, made) = (live.of(&node.inputs[0]), live.of(&node.name));
        shrank |= shrink(trained.layer_mut(node), &read, &made);
    }
    shrank
}

/// Keeps the units that are among the original channels `made`, and of the inputs, those that are needed of the channels `read`.
fn shrink<T: Real>(layer: &mut Layer<T>, read: &[bool], made: &[bool]) -> bool {
    let out: Vec<usize> = (0..layer.units())
        .filter(|&u| made[layer.kept_out[u] as usize])
        .collect();
    let mut inn: Vec<usize> = (0..layer.kept_in.len()).collect();
    if layer.groups == 1 {
        inn.retain(|&i| read[layer.kept_in[i] as usize]);
    }
    if layer.original.dims().len() == 2 {
        // A linear layer gathers its inputs, so any of them may go. A convolution reads all channels of its producer.
        let first = inn.first().copied();
        inn.retain(|&i| layer.is_read(i));
        if inn.is_empty() {
            inn.extend(first);
        }
    }
    let shrinks = inn.len() < layer.kept_in.len() || out.len() < layer.units();
    layer.keep(&out, &inn);
    shrinks
}

/// Layers in training, as the analysis of channels sees them: by the channels of the network that came.
struct Trained<'a, T> {
    layers: &'a mut [Layer<T>],
    shapes: &'a HashMap<String, Shape>,
}

impl<T: Real> Trained<'_, T> {
    fn layer(&self, node: &Node) -> &Layer<T> {
        let layer = self.layers.iter().find(|l| l.node == node.name);
        layer.expect("every node with a weight has a layer")
    }

    fn layer_mut(&mut self, node: &Node) -> &mut Layer<T> {
        let layer = self.layers.iter_mut().find(|l| l.node == node.name);
        layer.expect("every node with a weight has a layer")
    }
}

impl<T: Real> ChannelWeights for Trained<'_, T> {
    type Number = T;

    fn rows(&self, node: &Node) -> usize {
        self.layer(node).original.dims()[0]
    }

    fn shape(&self, value: &str) -> &Shape {
        &self.shapes[value]
    }

    fn may_leave(&self, node: &Node) -> bool {
        let operator = node.op.operator();
        match node.op.channels_of(self.shape(&node.inputs[0])) {
            Channels::Rows => operator.groups() == 1,
            Channels::Flattened => true,
            Channels::Same => Activation::of(&node.op).is_some() || operator.keeps_constants(),
            Channels::Appended | Channels::All => false,
        }
    }

    fn visit(&self, node: &Node, visit: &mut dyn FnMut(usize, usize)) {
        let layer = self.layer(node);
        // The inputs of a grouped convolution all stay.
        if layer.groups > 1 || layer.kept_in.is_empty() {
            return;
        }
        let rows = layer.mask.chunks_exact(layer.patch());
        for (row, unit) in rows.zip(&layer.kept_out) {
            let inputs = layer.kept_in.iter().cycle();
            for (_, &channel) in row.iter().zip(inputs).filter(|(m, _)| **m > T::default()) {
                visit(*unit as usize, channel as usize);
            }
        }
    }

    fn constants(&self, node: &Node, inputs: &[&[Option<T>]]) -> Vec<Option<T>> {
        if let Some(activation) = Activation::of(&node.op) {
            let apply = |x: T| {
                let mut out = [T::default()];
                activate(Isa::SCALAR, activation, &[x], &mut out);
                out[0]
            };
            return inputs[0].iter().map(|x| x.map(apply)).collect();
        }
        match node.op.operator().keeps_constants() {
            true => inputs[0].to_vec(),
            false => vec![None; inputs[0].len()],
        }
    }

    fn fold(&mut self, node: &Node, input: &[Option<T>]) -> Vec<Option<T>> {
        let zero = T::default();
        let padded = node
            .op
            .operator()
            .window()
            .is_some_and(|w| w.pads != [0; 4]);
        let layer = self.layer_mut(node);
        let mut made = vec![None; layer.original.dims()[0]];
        if layer.groups > 1 {
            return made;
        }
        // Folding needs a bias that is stored, and under padding only zero is a constant everywhere.
        let only_zero = padded || layer.bias_name.is_none();
        let (patch, inputs) = (layer.patch(), layer.kept_in.len());
        let mut keep = vec![true; layer.theta.len()];
        for (i, &channel) in layer.kept_in.iter().enumerate() {
            let constant = input[channel as usize].filter(|k| *k == zero || !only_zero);
            let Some(constant) = constant else { continue };
            for unit in 0..layer.units() {
                for at in (i..patch).step_by(inputs).map(|c| unit * patch + c) {
                    if layer.mask[at] > zero {
                        layer.bias[unit] += layer.theta[at] * constant;
                        keep[at] = false;
                    }
                }
            }
        }
        if keep.contains(&false) {
            layer.remove(&keep);
        }
        for (unit, &channel) in layer.kept_out.iter().enumerate() {
            let row = &layer.mask[unit * patch..][..patch];
            if !row.iter().any(|m| *m > zero) {
                made[channel as usize] = Some(layer.bias[unit]);
            }
        }
        made
    }
}
