//! The layers of a file that may run in int8: those whose input and weight it has as integers.

use std::rc::Rc;

use sparsevd_model::{Csr, Dense, Int8Grid, Network, Op, Weights};

/// Scales of a weight that the file has as integers.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    /// One for the whole weight, or one for each element along the axis.
    pub scales: Rc<[f32]>,
    pub axis: usize,
}

impl Steps {
    /// The scale of each of `rows` elements along an axis; `None` where another axis has scales of its own.
    pub fn along(&self, axis: usize, rows: usize) -> Option<Vec<f32>> {
        match &*self.scales {
            &[one] => Some(vec![one; rows]),
            many => (self.axis == axis && many.len() == rows).then(|| many.to_vec()),
        }
    }
}

/// A layer whose input and weight the file has as integers.
#[derive(Debug, Clone)]
pub(super) struct Int8Candidate {
    /// Its index among the nodes of the network.
    pub node: usize,
    /// The grid of its input.
    pub input: Int8Grid,
    /// The scale of each row of its weight.
    pub rows: Vec<f32>,
}

/// Lets the layers of a network run in int8 that it takes as such; the others stay in f32.
pub(super) fn with_int8(network: &mut Network, candidates: Vec<Int8Candidate>) {
    for Int8Candidate { node, input, rows } in candidates {
        let Some(node) = network.graph.nodes.get(node) else {
            continue;
        };
        let is_conv = matches!(node.op, Op::Conv(_));
        let (name, weight) = (node.name.clone(), node.op.weight().map(str::to_owned));
        let Some(weight) = weight else {
            continue;
        };
        let dense = sparsify(network, &weight, is_conv);
        if network.set_int8(&name, input, rows).is_err()
            && let Some(dense) = dense
        {
            network.tensors.insert(weight, Weights::Dense(dense));
        }
    }
}

/// Makes a weight of layers CSR, which int8 layers have, where that takes fewer bytes or it is one of a convolution, and gives back what it was. Dense
/// matrices stay dense, as they have no kernel for batches.
fn sparsify(network: &mut Network, weight: &str, is_conv: bool) -> Option<Dense> {
    let reads = |op: &Op| op.tensors().any(|t| t == weight);
    let is_layer = |op: &Op| matches!(op, Op::Linear(_) | Op::Conv(_));
    let mut readers = network.graph.nodes.iter().filter(|n| reads(&n.op));
    if !readers.all(|n| is_layer(&n.op)) {
        return None;
    }
    let tensor = network.tensors.get_mut(weight)?;
    let Weights::Dense(dense) = tensor else {
        return None;
    };
    let dense = dense.clone();
    *tensor = match is_conv {
        true => Csr::from_dense(&dense).into(),
        false => Weights::smaller(dense.clone()),
    };
    Some(dense)
}
